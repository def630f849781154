//! How changesets fall into groups is nobody's business.

use proptest::prelude::*;

use crate::{
    memory::MemoryStorage,
    testkit::{Step, World, grouping_is_invisible},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pl14_grouping_is_invisible(
        steps in prop::collection::vec(any::<Step>(), 1..100),
        groups in prop::collection::vec(1..16_usize, 1..8),
    ) {
        let (one, grouped) = (MemoryStorage::new(), MemoryStorage::new());
        let readers = (one.reader(), grouped.reader());
        grouping_is_invisible(
            (&mut World::new(one), readers.0),
            (&mut World::new(grouped), readers.1),
            &steps,
            &groups,
        );
    }
}
