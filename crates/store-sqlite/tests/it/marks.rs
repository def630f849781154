//! Taking marks a few at a time.

use syncline_core::ColumnType::Text;
use syncline_store::{Group as _, Storage as _};

use crate::support::{World, now, table};

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
        let marks = now(group.take_marks(2)).unwrap();
        found.extend(marks.iter().map(|mark| mark.key.to_string()));
    }
    now(group.rollback());
    found.retain(|key| !key.contains("80"));
    assert_eq!(found.len(), 3, "{found:?}");
}
