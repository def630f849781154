//! What other programs write is marked, whatever they write it with.

use syncline_core::{ColumnType::Text, schema::OnDelete};

use crate::support::{World, python, reference, table};

/// Projects with tasks below them; titles are unique.
fn world() -> World {
    let projects = table("projects", &[("id", Text), ("name", Text)]);
    let mut tasks = table("tasks", &[("id", Text), ("title", Text), ("project", Text)]);
    tasks.uniques = vec![vec![1]];
    tasks.foreign_keys = vec![reference(2, "projects", OnDelete::Cascade)];
    let mut world = World::new(&[projects, tasks]);
    world.shell(
        "INSERT INTO projects VALUES ('p', 'Garden');
         INSERT INTO tasks VALUES ('a', 'dig', 'p'), ('b', 'sow', 'p'), ('c', 'reap', NULL);",
    );
    assert_eq!(world.marks().len(), 4);
    world
}

/// The marks after another program ran `sql`.
fn after(sql: &str) -> Vec<String> {
    let mut world = world();
    world.shell(sql);
    let told = world.told();
    assert_eq!(world.told(), Vec::<String>::new(), "once");
    told
}

#[test]
fn pl13_the_row_that_replace_evicts_is_marked() {
    let told = after("REPLACE INTO tasks VALUES ('n', 'dig', NULL)");
    assert_eq!(
        told,
        [
            r#"tasks a: Text("a") Text("dig") Text("p") → nothing"#,
            r#"tasks n: nothing → Text("n") Text("dig") Null"#,
        ]
    );
}

#[test]
fn pl13_an_upsert_is_an_update() {
    let told = after(
        "INSERT INTO tasks VALUES ('a', 'x', NULL)
         ON CONFLICT (id) DO UPDATE SET title = excluded.title",
    );
    assert_eq!(
        told,
        [r#"tasks a: Text("a") Text("dig") Text("p") → Text("a") Text("x") Text("p")"#]
    );
}

#[test]
fn pl13_what_was_rolled_back_is_not_marked() {
    let told = after(
        "BEGIN; UPDATE tasks SET title = 'x' WHERE id = 'a';
         SAVEPOINT s; DELETE FROM tasks; ROLLBACK TO s; RELEASE s; COMMIT;
         BEGIN; DELETE FROM projects; ROLLBACK;",
    );
    assert_eq!(
        told,
        [r#"tasks a: Text("a") Text("dig") Text("p") → Text("a") Text("x") Text("p")"#]
    );
}

#[test]
fn pl13_a_row_that_is_what_it_was_is_not_told() {
    let told = after(
        "UPDATE tasks SET title = 'x' WHERE id = 'a'; UPDATE tasks SET title = 'dig' WHERE id = 'a';
         INSERT INTO tasks VALUES ('n', 'n', NULL); DELETE FROM tasks WHERE id = 'n';
         UPDATE tasks SET title = title;",
    );
    assert_eq!(told, Vec::<String>::new());
}

#[test]
fn pl13_a_key_that_changes_is_a_delete_and_an_insert() {
    let told = after("UPDATE tasks SET id = 'z' WHERE id = 'a'");
    assert_eq!(
        told,
        [
            r#"tasks a: Text("a") Text("dig") Text("p") → nothing"#,
            r#"tasks z: nothing → Text("z") Text("dig") Text("p")"#,
        ]
    );
}

#[test]
fn pl13_cascades_of_another_program_are_marked() {
    let told = after("PRAGMA foreign_keys = ON; DELETE FROM projects");
    assert_eq!(
        told,
        [
            r#"projects p: Text("p") Text("Garden") → nothing"#,
            r#"tasks a: Text("a") Text("dig") Text("p") → nothing"#,
            r#"tasks b: Text("b") Text("sow") Text("p") → nothing"#,
        ]
    );
}

#[test]
fn pl13_triggers_of_the_app_are_marked() {
    let told = after(
        "CREATE TRIGGER shout AFTER UPDATE OF title ON tasks BEGIN
           UPDATE projects SET name = upper(NEW.title) WHERE id = NEW.project; END;
         UPDATE tasks SET title = 'dug' WHERE id = 'a';",
    );
    assert_eq!(
        told,
        [
            r#"projects p: Text("p") Text("Garden") → Text("p") Text("DUG")"#,
            r#"tasks a: Text("a") Text("dig") Text("p") → Text("a") Text("dug") Text("p")"#,
        ]
    );
}

#[test]
fn pl13_python_is_caught() {
    let mut world = world();
    python(
        &world.path(),
        "db.executemany('INSERT INTO tasks VALUES (?, ?, NULL)', [(str(i), f't{i}') for i in range(3)])\n\
         db.execute('DELETE FROM tasks WHERE id = ?', ('c',))",
    );
    assert_eq!(
        world.told(),
        [
            r#"tasks 0: nothing → Text("0") Text("t0") Null"#,
            r#"tasks 1: nothing → Text("1") Text("t1") Null"#,
            r#"tasks 2: nothing → Text("2") Text("t2") Null"#,
            r#"tasks c: Text("c") Text("reap") Null → nothing"#,
        ]
    );
}

/// A migration that makes the table anew takes our triggers along: at the next start all rows are
/// compared with what the ledger remembers of them.
#[test]
fn pl13_a_rebuilt_table_is_compared_row_by_row() {
    let mut world = world();
    world.shell(
        "BEGIN; CREATE TABLE new(id TEXT PRIMARY KEY NOT NULL, title TEXT UNIQUE, project TEXT);
         INSERT INTO new SELECT id, replace(title, 'sow', 'SOW'), project FROM tasks WHERE id <> 'c';
         INSERT INTO new VALUES ('n', 'new', NULL);
         DROP TABLE tasks; ALTER TABLE new RENAME TO tasks; COMMIT;",
    );
    world.restart();
    let tables = world.schema.tables[1..].to_vec();
    let report = world.apply_config(&crate::support::config(&tables), false, &[]);
    assert_eq!(
        report.unwrap().notes,
        ["the table tasks had lost its triggers: its rows are compared"]
    );
    let changed: Vec<_> = world.told().iter().map(|t| t[..7].to_owned()).collect();
    assert_eq!(changed, ["tasks b", "tasks c", "tasks n"], "and not a");
    world.shell("UPDATE tasks SET title = 'caught again' WHERE id = 'a'");
    assert_eq!(world.told().len(), 1);
}
