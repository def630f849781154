//! Taking marks a few at a time.

use syncline_core::{ColumnType::Text, RowKey};
use syncline_store::{Group as _, Reader as _, Room, Storage as _, StorageError};

use crate::support::{HOME, World, as_is, config, now, table};

/// A key that is not UTF-8 is read as a blob, and a blob lies after all texts.
#[test]
fn pl13_a_damaged_key_takes_no_other_mark_along() {
    let mut world = World::new(&[table("tasks", &[("id", Text), ("title", Text)])]);
    world.shell(
        "INSERT INTO tasks VALUES
           ('a', '1'), (CAST(x'80' AS TEXT), '2'), ('\u{e9}', '3'), ('\u{f6}', '4')",
    );
    let mut group = now(world.storage.begin()).unwrap();
    let mut found = Vec::new();
    for _ in 0..4 {
        let room = Room {
            rows: 2,
            ..Room::ALL
        };
        let taken = now(group.take_marks(room)).unwrap();
        found.extend(taken.marks.iter().map(|mark| mark.key.to_string()));
    }
    now(group.rollback());
    found.retain(|key| !key.contains("80"));
    assert_eq!(found.len(), 3, "{found:?}");
}

/// What is not settled yet comes with the log, and what is after it later: who took it for the end
/// would never hear of that.
#[test]
fn pl13_hashes_before_a_row_that_is_not_settled_say_that_there_is_more() {
    let mut world = World::new(&[table("tasks", &[("id", Text), ("title", Text)])]);
    world.shell("INSERT INTO tasks VALUES ('a', '1'), ('b', '2'), ('c', '3'), ('d', '4')");
    world.group(&[]).unwrap();
    let tasks = world.number("tasks");
    let read = |world: &World, after: Option<&RowKey>, max| {
        let found = now(world.reader().hashes(tasks, &[HOME], after, max))?;
        let keys: String = found.rows.iter().map(|row| row.key.to_string()).collect();
        Ok::<_, StorageError>((keys, found.next))
    };
    assert_eq!(read(&world, None, 10).unwrap(), ("abcd".into(), None));
    world.shell("UPDATE tasks SET title = 'new' WHERE id = 'c'");
    let (before, next) = read(&world, None, 10).unwrap();
    assert_eq!(before, "ab");
    let next = next.expect("there is more");
    let busy = read(&world, Some(&next), 10);
    assert!(matches!(busy, Err(StorageError::Busy)), "{busy:?}");
    world.group(&[]).unwrap();
    assert_eq!(read(&world, Some(&next), 10).unwrap(), ("cd".into(), None));
    let (two, next) = read(&world, None, 2).unwrap();
    assert_eq!((&*two, next.is_some()), ("ab", true));
}

/// The rows of a table that begins to sync have left no marks: they are looked at in portions that
/// are bounded in bytes as well.
#[test]
fn pl13_large_rows_that_were_there_before_are_taken_in_portions() {
    let mut world = World::empty();
    world.shell(
        "CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, title TEXT);
         INSERT INTO tasks SELECT value, printf('%01000d', value)
           FROM json_each('[1, 2, 3, 4, 5]');
         INSERT INTO tasks VALUES (CAST(x'3280' AS TEXT), printf('%01000d', 2))",
    );
    world
        .apply_config(&config(&[as_is("tasks")]), false, &[])
        .unwrap();
    let mut portions = Vec::new();
    loop {
        let mut group = now(world.storage.begin()).unwrap();
        let room = Room {
            rows: 10,
            bytes: 1_500,
        };
        let taken = now(group.take_marks(room)).unwrap();
        now(group.commit()).unwrap();
        portions.push(taken.marks.len());
        if !taken.more {
            break;
        }
    }
    assert_eq!(portions.iter().sum::<usize>(), 6, "{portions:?}");
    assert!(portions.iter().all(|count| *count <= 3), "{portions:?}");
}
