//! What other programs wrote.

use syncline_core::Version;

use crate::{
    Reader as _, Storage as _, drain_external,
    pipeline::attempt::EXTERNAL_MARKS_MAX,
    testkit::{External, block_on},
};

/// More rows than one transaction takes: nothing waits for all of them, and nobody holds them
/// all in memory.
#[test]
fn pl13_a_flood_is_taken_in_portions() {
    let flood = |from: usize| {
        let insert = |n: usize| External::Insert {
            table: "labels",
            values: vec![
                ("id", format!("{n}").into()),
                ("name", format!("name {n}").into()),
            ],
        };
        (from..=from + EXTERNAL_MARKS_MAX)
            .map(insert)
            .collect::<Vec<_>>()
    };
    let mut world = super::garden();
    world.storage.external(&flood(0)).unwrap();
    let first = world.commit(&[]);
    assert_eq!((first.more, first.entries.len()), (true, 1));
    assert_eq!(first.entries[0].records.len(), EXTERNAL_MARKS_MAX);
    assert!(world.storage.changed_elsewhere());
    let second = world.commit(&[]);
    assert_eq!((second.more, second.entries[0].records.len()), (false, 1));
    assert!(!world.storage.changed_elsewhere());

    world
        .storage
        .external(&flood(EXTERNAL_MARKS_MAX + 1))
        .unwrap();
    let all = block_on(drain_external(
        &mut world.storage,
        &world.context,
        world.now,
    ));
    assert_eq!((all.more, all.entries.len()), (false, 1), "the last");
    let mut reader = world.storage.reader();
    let log = block_on(reader.log_after(Version::ZERO, usize::MAX)).unwrap();
    assert_eq!(log.len(), 1 + 2 + 2);
}

/// A submission has to wait until everything before it is in the log.
#[test]
fn pl13_a_submission_comes_after_all_of_a_flood() {
    let mut world = super::garden();
    let rows: Vec<_> = (0..=EXTERNAL_MARKS_MAX)
        .map(|n| External::Insert {
            table: "labels",
            values: vec![
                ("id", format!("{n}").into()),
                ("name", format!("name {n}").into()),
            ],
        })
        .collect();
    world.storage.external(&rows).unwrap();
    let pushed = world.push("ada", |draw| draw.delete("labels", "0", Version::ZERO));
    assert_eq!(pushed.outcome.entries.len(), 3);
    assert!(!pushed.outcome.more);
    pushed.accepted();
}
