//! What other programs wrote.

use syncline_core::Version;

use crate::{
    Reader as _, Storage as _, drain_external,
    pipeline::attempt::EXTERNAL_ROOM,
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
        (from..=from + EXTERNAL_ROOM.rows)
            .map(insert)
            .collect::<Vec<_>>()
    };
    let mut world = super::garden();
    world.storage.external(&flood(0)).unwrap();
    let first = world.commit(&[]);
    assert_eq!((first.more, first.entries.len()), (true, 1));
    assert_eq!(first.entries[0].records.len(), EXTERNAL_ROOM.rows);
    assert!(world.storage.changed_elsewhere());
    let second = world.commit(&[]);
    assert_eq!((second.more, second.entries[0].records.len()), (false, 1));
    assert!(!world.storage.changed_elsewhere());

    world
        .storage
        .external(&flood(EXTERNAL_ROOM.rows + 1))
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
    let rows: Vec<_> = (0..=EXTERNAL_ROOM.rows)
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

const LARGE_BYTES: usize = 8 * 1024 * 1024;

/// Labels with names as long as a device could not send them in one changeset.
fn large(world: &super::Memory, write: impl Fn(String, String) -> External<'static>) {
    let count = EXTERNAL_ROOM.bytes / LARGE_BYTES + 2;
    let one = |n: usize| write(n.to_string(), n.to_string().repeat(LARGE_BYTES));
    let rows: Vec<_> = (0..count).map(one).collect();
    world.storage.external(&rows).unwrap();
}

fn records(world: &super::Memory, after: Version) -> Vec<usize> {
    let mut reader = world.storage.reader();
    let log = block_on(reader.log_after(after, usize::MAX)).unwrap();
    log.iter().map(|entry| entry.records.len()).collect()
}

/// What is larger than there is room comes alone. Whoever waits behind it has no more of it in
/// memory than two transactions' worth.
#[test]
fn pl13_a_submission_comes_after_a_flood_of_bytes() {
    let mut world = super::garden();
    let before = world.commit(&[]).head.unwrap().version;
    let rows = [1, 2, 3].map(|n: usize| External::Insert {
        table: "labels",
        values: vec![
            ("id", n.to_string().into()),
            ("name", n.to_string().repeat(EXTERNAL_ROOM.bytes + 1).into()),
        ],
    });
    world.storage.external(&rows).unwrap();
    let pushed = world.push("ada", |draw| draw.delete("labels", "1", Version::ZERO));
    assert_eq!(records(&world, before), [1, 1, 1, 1]);
    let entries = pushed.outcome.entries.iter();
    let sizes: Vec<_> = entries.map(|entry| entry.records.len()).collect();
    assert_eq!(sizes, [1, 1, 1], "the first is in the log alone");
    assert!(!pushed.outcome.more);
    pushed.accepted();
}

/// One log entry of all would be more than a database keeps in one place, or anybody in memory.
#[test]
fn pl13_a_flood_of_bytes_is_taken_in_portions() {
    let mut world = super::garden();
    let insert = |id: String, name: String| External::Insert {
        table: "labels",
        values: vec![("id", id.into()), ("name", name.into())],
    };
    large(&world, insert);
    let first = world.commit(&[]);
    assert_eq!((first.more, first.entries[0].records.len()), (true, 8));
    let second = world.commit(&[]);
    assert_eq!((second.more, second.entries[0].records.len()), (false, 2));

    // What is changed has to be computed anew, in bounded portions as well.
    let head = second.head.unwrap().version;
    let shorten = |id: String, _| External::Update {
        table: "labels",
        key: vec![("id", id.clone().into())],
        set: vec![("name", id.into())],
    };
    large(&world, shorten);
    let third = world.commit(&[]);
    assert_eq!((third.more, third.failure.is_some()), (false, false));
    assert_eq!(records(&world, head), [8, 2, 0]);
}
