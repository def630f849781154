//! What the database makes of the images that a group writes.

use syncline_core::{
    ColumnType::Text,
    Row, Value,
    schema::{Computed, FurtherIndex, OnDelete},
};
use syncline_store::{Storage as _, StorageError, WriteKind};

use crate::support::{World, key, now, reference, row, table, text};

fn world() -> World {
    World::new(&[table("t", &[("id", Text), ("a", Text), ("b", Text)])])
}

#[test]
fn pl12_a_trigger_that_changes_the_written_row_leaves_a_mark() {
    let mut world = world();
    world.shell(
        "CREATE TRIGGER shout AFTER UPDATE OF a ON t BEGIN
           UPDATE t SET b = upper(NEW.a) WHERE id = NEW.id; END;",
    );
    let first = world.insert("t", row(["1", "x", "y"]));
    assert_eq!(world.group(&[first]).unwrap(), []);
    let number = world.number("t");
    let group = now(world.storage.begin()).unwrap();
    let reacts = [WriteKind::Insert, WriteKind::Update, WriteKind::Delete]
        .map(|kind| syncline_store::Group::reacts(&group, number, kind));
    now(syncline_store::Group::rollback(group));
    assert_eq!(
        reacts,
        [false, true, false],
        "as soon as the trigger is there"
    );
    let update = world.update("t", row(["1", "z", "y"]), &[1]);
    let marks = world.group(&[update]).unwrap();
    assert_eq!(
        world.tell(&marks),
        [r#"t 1: Text("1") Text("z") Text("y") → Text("1") Text("z") Text("Z")"#],
        "the difference is only what the trigger did"
    );
}

/// Whether the trigger of the app fires, or ours, is the database's business: other rows count.
#[test]
fn pl12_a_trigger_that_changes_other_rows_leaves_marks_there() {
    let mut world = world();
    let rows = [row(["1", "x", "y"]), row(["2", "x", "y"])];
    let writes = rows.map(|row| world.insert("t", row));
    assert_eq!(world.group(&writes).unwrap(), []);
    world.shell(
        "CREATE TRIGGER tell AFTER DELETE ON t BEGIN
           UPDATE t SET b = 'was with ' || OLD.id; END;",
    );
    let delete = world.delete("t", key("1"));
    let marks = world.group(&[delete]).unwrap();
    assert_eq!(
        world.tell(&marks),
        [r#"t 2: Text("2") Text("x") Text("y") → Text("2") Text("x") Text("was with 1")"#]
    );
}

#[test]
fn pl14_what_a_constraint_refuses_names_the_column() {
    let mut unique = table("t", &[("id", Text), ("a", Text), ("b", Text)]);
    unique.uniques = vec![vec![1]];
    unique.columns[2].check = Some("b <> 'bad'".into());
    let mut world = World::new(&[unique]);
    let first = world.insert("t", row(["1", "x", "y"]));
    world.group(&[first]).unwrap();
    let twice = world.insert("t", row(["2", "x", "y"]));
    let bad = world.insert("t", row(["3", "z", "bad"]));
    for (write, expected) in [(twice, "another row of t has the same a"), (bad, "t")] {
        let error = world.group(&[write]).unwrap_err();
        let StorageError::Constraint { message, .. } = error else {
            panic!("{error:?}")
        };
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(world.told(), Vec::<String>::new(), "nothing of it stayed");
}

/// SQLite has no code of its own for an expression that fails: the row is to blame, not the disk.
#[test]
fn pl14_what_an_expression_cannot_compute_is_refused_as_the_rows_fault() {
    let id = "json_extract(a, '$.id')";
    let plain = || table("t", &[("id", Text), ("a", Text)]);
    let mut indexed = plain();
    indexed.further_indexes = vec![FurtherIndex {
        unique: true,
        terms: format!("({id})"),
        condition: None,
    }];
    let mut checked = plain();
    checked.checks = vec![format!("{id} IS NOT 'bad'")];
    let mut computed = plain();
    let mut column = crate::support::column("c", Text);
    column.generated = true;
    column.computed = Some(Computed {
        expression: id.into(),
        stored: true,
    });
    computed.columns.push(column);
    for table in [indexed, checked, computed] {
        let values = |id: &str, a: &str| match table.columns.len() {
            2 => row([id, a]),
            _ => Row(vec![text(id), text(a), Value::Null]),
        };
        let mut world = World::new(std::slice::from_ref(&table));
        let first = world.insert("t", values("1", r#"{"id": "x"}"#));
        world.group(&[first]).unwrap();
        let new = world.insert("t", values("2", "{"));
        let changed = world.update("t", values("1", "{"), &[1]);
        for write in [new, changed] {
            let error = world.group(&[write]).unwrap_err();
            let StorageError::Constraint { message, .. } = error else {
                panic!("{error:?}")
            };
            let expected = "t: an expression of the table cannot be computed for this row";
            assert_eq!(message, expected);
            assert!(
                !world.storage.changed_elsewhere(),
                "the connection is trusted as before"
            );
        }
        let next = world.insert("t", values("2", r#"{"id": "y"}"#));
        world.group(&[next]).unwrap();
    }
}

/// A statement that cannot be prepared says nothing about the row.
#[test]
fn pl14_a_trigger_that_names_no_table_is_nobodys_constraint() {
    let mut world = world();
    world.shell("CREATE TRIGGER lost AFTER INSERT ON t BEGIN INSERT INTO gone VALUES (1); END;");
    let write = world.insert("t", row(["1", "x", "y"]));
    let error = world.group(&[write]).unwrap_err();
    assert!(matches!(error, StorageError::Failed(_)), "{error:?}");
}

/// A column that is not declared keeps what it has, also where rows swap their unique values.
#[test]
fn pl14_a_swap_keeps_columns_that_do_not_sync() {
    let mut declared = table("t", &[("id", Text), ("a", Text)]);
    declared.columns[1].not_null = true;
    let mut world = World::empty();
    world.shell(
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT UNIQUE NOT NULL, local TEXT);
         INSERT INTO t VALUES ('1', 'x', 'one'), ('2', 'y', 'two');",
    );
    world
        .apply_config(&crate::support::config(&[declared]), false, &[])
        .unwrap();
    world.marks();
    let swap = [
        world.update("t", row(["1", "y"]), &[1]),
        world.update("t", row(["2", "x"]), &[1]),
    ];
    let result = world.group(&swap);
    let stored = "SELECT group_concat(id || a || local, ' ') FROM (SELECT * FROM t ORDER BY id)";
    let stored: String = world
        .other()
        .query_row(stored, [], |row| row.get(0))
        .unwrap();
    match result {
        Ok(marks) => assert_eq!((marks, stored.as_str()), (vec![], "1yone 2xtwo")),
        Err(StorageError::Constraint { .. }) => assert_eq!(stored, "1xone 2ytwo"),
        Err(error) => panic!("{error:?}"),
    }
}

/// SQLite keeps the statements that it prepared while references waited, and those do not take
/// back what they wrote when a row is missing.
#[test]
fn pl14_a_missing_row_is_refused_after_a_group_whose_references_waited() {
    let mut child = table("c", &[("id", Text), ("p", Text)]);
    child.foreign_keys = vec![reference(1, "p", OnDelete::NoAction)];
    let mut world = World::new(&[table("p", &[("id", Text)]), child]);
    let early = [
        world.insert("c", row(["1", "a"])),
        world.insert("p", row(["a"])),
    ];
    assert_eq!(world.group(&early).unwrap(), []);
    let missing = world.insert("c", row(["2", "b"]));
    let refused = world.group(&[missing]).unwrap_err().to_string();
    assert!(refused.contains("refers to a row of p"), "{refused}");
    let sql = "SELECT count(*) FROM c";
    let rows: i64 = world.other().query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}
