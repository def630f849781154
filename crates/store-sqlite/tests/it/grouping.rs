//! How changesets fall into groups is nobody's business, on a real file either.

use proptest::prelude::*;
use syncline_store::testkit::{Step, World, grouping_is_invisible};
use syncline_store_sqlite::SqliteStorage;

use crate::support::ENTROPY;

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pl14_grouping_is_invisible(
        steps in prop::collection::vec(any::<Step>(), 40..80),
        groups in prop::collection::vec(1..16_usize, 1..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let open = |name| SqliteStorage::open(dir.path().join(name), &ENTROPY).unwrap();
        let (one, grouped) = (open("one.db"), open("grouped.db"));
        let readers = (one.reader().unwrap(), grouped.reader().unwrap());
        grouping_is_invisible(
            (&mut World::new(one), readers.0),
            (&mut World::new(grouped), readers.1),
            &steps,
            &groups,
        );
    }
}
