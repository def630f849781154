//! What other programs do to a file that syncs, and what must not stop or be lost because of it.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rusqlite::Connection;
use syncline_core::{Op, RowKey, Value, wire::code};
use syncline_replica::AttachOptions;

use crate::{
    authority::{Authority, refusal},
    device::{Device, SCHEMA, schema},
};

const DAMAGED: &str = "CAST(x'61ff62' AS TEXT)";

#[test]
fn ap6_a_row_that_is_not_utf8_here_does_not_stop_a_checkpoint() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'one'), ('l2', 'two')");
    device.sync(&mut server);
    device.run(&format!(
        "UPDATE lists SET name = {DAMAGED} WHERE id = 'l1'"
    ));
    device.sync(&mut server);
    server.write(&[
        ("lists", vec!["l1".into(), "one, by the server".into()]),
        ("lists", vec!["l2".into(), "two, by the server".into()]),
    ]);
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT name FROM lists WHERE id = 'l2'"),
        "two, by the server"
    );
    device.replica.check_local(10, device.now).unwrap();
}

#[test]
fn ca8_a_column_that_the_server_had_first_comes_with_its_values() {
    const OLD: &str = "CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT);";
    const NEW: &str =
        "CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT, color TEXT, size INTEGER);";
    let mut server = Authority::new(schema(NEW));
    server.write(&[
        (
            "lists",
            vec!["l1".into(), "one".into(), "red".into(), Value::Integer(3)],
        ),
        (
            "lists",
            vec!["l2".into(), "two".into(), Value::Null, Value::Integer(5)],
        ),
        (
            "lists",
            vec!["l3".into(), "three".into(), Value::Null, Value::Null],
        ),
    ]);
    let mut device = Device::new(OLD, 1);
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT * FROM lists"),
        "l1|one\nl2|two\nl3|three"
    );
    device.run("UPDATE lists SET name = 'two!' WHERE id = 'l2'");
    device.run("ALTER TABLE lists ADD COLUMN color TEXT DEFAULT ''");
    device.sync(&mut server);
    let there: Vec<_> = server
        .rows
        .values()
        .map(|kept| kept.row.0.clone())
        .collect();
    assert_eq!(
        there[0][2],
        "red".into(),
        "the file's default overwrote the server's value"
    );
    assert_eq!(there[0][3], Value::Integer(3));
    assert_eq!(
        device.query("SELECT id, name, color FROM lists WHERE id = 'l1'"),
        "l1|one|red"
    );
    assert_eq!(there[1][1], "two!".into());
    let pushed = device.link.as_ref().unwrap().pushed();
    let key = RowKey::encode([&Value::from("l3")]).unwrap();
    let mut changes = pushed.iter().flat_map(|changeset| &changeset.changes);
    let clean = changes.find(|change| change.key == key).unwrap();
    let Op::Update(edits) = &clean.op else {
        panic!("{clean:?}")
    };
    assert_eq!(edits.len(), 1, "only what changed here is sent");
    device.run("ALTER TABLE lists ADD COLUMN size INTEGER");
    device.sync(&mut server);
    device.assert_equal(&server);
}

#[test]
fn sl6_what_references_a_row_from_before_attaching_waits_until_that_is_sent() {
    let mut server = Authority::new(schema(SCHEMA));
    let known = Rc::new(RefCell::new(BTreeSet::new()));
    let (lists, items) = (server.table("lists").number, server.table("items").number);
    server.judge = Box::new(move |changeset| {
        let mut known = known.borrow_mut();
        for change in &changeset.changes {
            if change.table == lists {
                known.insert(change.key.clone());
            }
        }
        let orphan = changeset
            .changes
            .iter()
            .any(|change| change.table == items && known.is_empty());
        orphan.then(|| refusal(code::CONSTRAINT, false))
    });
    let mut device = Device::new(
        &format!("{SCHEMA} INSERT INTO lists VALUES('l1', 'one');"),
        1,
    );
    device.write("INSERT INTO items VALUES('i1', 'l1', 'new', 0, NULL)");
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM items"), "i1");
    assert_eq!(device.replica.status().unwrap().parked, 0);
    device.assert_equal(&server);
}

#[test]
fn sl6_rows_from_before_attaching_that_reference_each_other_are_sent() {
    const CIRCLE: &str = "
        CREATE TABLE people(id TEXT PRIMARY KEY NOT NULL, home TEXT REFERENCES homes(id));
        CREATE TABLE homes(id TEXT PRIMARY KEY NOT NULL, owner TEXT REFERENCES people(id));";
    let mut server = Authority::new(schema(CIRCLE));
    let rows = "INSERT INTO people VALUES('p1', NULL); INSERT INTO homes VALUES('h1', 'p1');";
    let mut device = Device::new(&format!("{CIRCLE} {rows}"), 1);
    device.write("UPDATE people SET home = 'h1'");
    device.sync(&mut server);
    assert_eq!(device.replica.status().unwrap().waiting, 0);
    device.assert_equal(&server);
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "another program, which holds the file while the replica waits for it"
)]
fn ca8_a_migration_that_commits_while_a_checkpoint_waits_is_noticed_first() {
    let folder = std::env::temp_dir().join(format!("syncline-trouble-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("race.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::attach(conn, AttachOptions::default(), 1);
    device.write("INSERT INTO lists VALUES('l1', 'one')");
    device.sync(&mut server);
    server.write(&[("lists", vec!["l1".into(), "by the server".into()])]);
    server.advance(device.link.as_mut().unwrap());

    let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
    let migration = std::thread::spawn(move || {
        let app = Connection::open(&path).unwrap();
        app.execute_batch(
            "PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE;
             CREATE TABLE lists2(id TEXT PRIMARY KEY NOT NULL, name TEXT);
             INSERT INTO lists2 SELECT id, 'by the migration' FROM lists;
             DROP TABLE lists; ALTER TABLE lists2 RENAME TO lists;",
        )
        .unwrap();
        begun.send(()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        app.execute_batch("COMMIT").unwrap();
    });
    has_begun.recv().unwrap();
    while device.download() {}
    migration.join().unwrap();
    device.sync(&mut server);
    assert_eq!(device.query("SELECT name FROM lists"), "by the migration");
    device.assert_equal(&server);
    drop(device);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn ob5_what_was_written_unmarked_and_refused_is_rolled_back_too() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'one'), ('l2', 'two')");
    device.sync(&mut server);
    server.judge = Box::new(|_| Some(refusal(code::FORBIDDEN, false)));
    device.run(
        "PRAGMA foreign_keys = OFF; CREATE TABLE lists2(id TEXT PRIMARY KEY NOT NULL, name TEXT);
         INSERT INTO lists2 SELECT id, 'migrated' FROM lists; DROP TABLE lists;
         ALTER TABLE lists2 RENAME TO lists",
    );
    device.sync(&mut server);
    assert_eq!(device.replica.status().unwrap().parked, 1);
    assert_eq!(device.query("SELECT name FROM lists"), "one\ntwo");
    device.assert_equal(&server);
}

#[test]
fn ca8_a_table_that_was_away_for_a_moment_is_loaded_again() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO notes VALUES(1, 'one'), (2, 'two'), (3, 'three')");
    device.sync(&mut server);
    device.run("ALTER TABLE notes RENAME TO notes_old");
    device.seal();
    device.run(
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT);
         INSERT INTO notes SELECT * FROM notes_old WHERE id < 3; DROP TABLE notes_old",
    );
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM notes"), "1|one\n2|two\n3|three");
    device.assert_equal(&server);
}

#[test]
fn ca8_what_is_unsent_outlives_a_table_that_is_away_for_a_moment() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO notes VALUES(1, 'one'), (2, 'two'), (3, 'three')");
    device.sync(&mut server);
    device.disconnect();
    device.write("UPDATE notes SET body = 'edited' WHERE id = 2");
    device.write("DELETE FROM notes WHERE id = 3; INSERT INTO lists VALUES('l1', 'one')");
    device.seal();
    device.run("CREATE TABLE notes_old AS SELECT * FROM notes; DROP TABLE notes");
    device.seal();
    assert_eq!(device.replica.status().unwrap().parked, 2);
    for queued in device.replica.queue(None, 10).unwrap() {
        let retried = device.replica.retry(queued.id, device.now).unwrap();
        assert_eq!(retried, 0, "half of it would be left out");
    }
    device.sync(&mut server);
    device.run(
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT);
         INSERT INTO notes SELECT * FROM notes_old; DROP TABLE notes_old",
    );
    device.sync(&mut server);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM notes"), "1|one\n2|edited");
    assert_eq!(device.query("SELECT * FROM lists"), "l1|one");
    assert_eq!(device.replica.status().unwrap().parked, 0);
    device.assert_equal(&server);
}

#[test]
fn ca12_what_is_unsent_outlives_a_renamed_table_that_another_replaces() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO notes VALUES(1, 'one'), (2, 'two'), (3, 'three')");
    device.sync(&mut server);
    device.disconnect();
    device.write("UPDATE notes SET body = 'edited' WHERE id = 2");
    device.seal();
    device.run("ALTER TABLE notes RENAME TO notes_old");
    device.seal();
    device.run("DELETE FROM notes_old WHERE id = 3");
    assert_eq!(device.replica.status().unwrap().parked, 0);
    device.run(
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT);
         INSERT INTO notes SELECT * FROM notes_old WHERE id < 3; DROP TABLE notes_old",
    );
    device.sync(&mut server);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM notes"), "1|one\n2|edited");
    assert_eq!(device.replica.status().unwrap().parked, 0);
    device.assert_equal(&server);
}

#[test]
fn sl6_any_number_of_rows_without_a_usable_key_do_not_end_the_sending() {
    let rows = format!(
        "{SCHEMA}
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
         INSERT INTO lists SELECT {DAMAGED} || printf('%05d', i), 'damaged' FROM n;
         INSERT INTO lists VALUES('b', 'sound')"
    );
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(&rows, 1);
    device.sync(&mut server);
    let mut other = Device::empty(2);
    other.sync(&mut server);
    assert_eq!(other.query("SELECT * FROM lists"), "b|sound");
}

#[test]
fn ap6_every_hidden_row_gets_its_turn() {
    // Only this file says that names are unique.
    let strict = SCHEMA.replace("name TEXT", "name TEXT UNIQUE");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(&strict, 1);
    let list = |id: String, name: &str| ("lists", vec![id.as_str().into(), name.into()]);
    let mut rows = vec![list("a1".into(), "same"), list("a2".into(), "last")];
    rows.extend((0..1_000).map(|i| list(format!("h{i:04}"), "same")));
    rows.push(list("z".into(), "last"));
    server.write(&rows);
    device.sync(&mut server);
    assert_eq!(device.replica.status().unwrap().unstorable, 1_001);
    server.write(&[list("a2".into(), "other")]);
    device.sync(&mut server);
    for i in 0..2 {
        server.write(&[list("b".into(), &format!("change {i}"))]);
        device.sync(&mut server);
    }
    assert_eq!(
        device.query("SELECT name FROM lists WHERE id = 'z'"),
        "last"
    );
}

/// Rows are compared with what the books say of them: both have to be read at one moment.
#[test]
fn what_is_written_while_rows_are_checked_is_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut conn = Connection::open(&path).unwrap();
    conn.execute_batch(&format!("PRAGMA journal_mode = WAL; {SCHEMA}"))
        .unwrap();
    // How often SQLite still comes by before another program writes; nothing: never.
    let countdown = Arc::new(AtomicU32::new(0));
    let looks = Arc::clone(&countdown);
    let write = move || {
        if looks.load(Ordering::Relaxed) > 0 && looks.fetch_sub(1, Ordering::Relaxed) == 1 {
            let other = Connection::open(&path).unwrap();
            other.execute("DELETE FROM notes", []).unwrap();
        }
        false
    };
    conn.progress_handler(1_000, Some(write)).unwrap();
    let mut device = Device::attach(conn, AttachOptions::default(), 1);
    device.write(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO lists SELECT 'l' || i, 'a list' FROM n;
         INSERT INTO notes VALUES(1, 'one'), (2, 'two')",
    );
    device.sync(&mut server);
    // By then the first of the tables is being read.
    countdown.store(50, Ordering::Relaxed);
    assert_eq!(device.replica.check_local(10, device.now).unwrap(), []);
    assert_eq!(device.query("SELECT count(*) FROM notes"), "0");
}
