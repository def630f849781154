//! Migrations of an app's own tables (docs/spec/capture.md, CA8 and CA11).

use rusqlite::Connection;
use syncline_replica::Event;

use crate::{
    authority::Authority,
    device::{Device, schema},
};

const TREE: &str = "
    CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT, color TEXT);
    CREATE TABLE items(
      id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id) ON DELETE CASCADE, title TEXT);
    CREATE TABLE steps(
      id TEXT PRIMARY KEY NOT NULL, item TEXT REFERENCES items(id) ON DELETE CASCADE, n INTEGER);
    CREATE TABLE tags(
      id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id) ON DELETE SET NULL, tag TEXT);";
const ROWS: &str = "
    INSERT INTO lists VALUES('l1', 'one', 'red'), ('l2', 'two', 'blue');
    INSERT INTO items VALUES('i1', 'l1', 'a'), ('i2', 'l2', 'b'), ('i3', NULL, 'c');
    INSERT INTO steps VALUES('s1', 'i1', 1), ('s2', 'i2', 2), ('s3', 'i3', 3);
    INSERT INTO tags VALUES('t1', 'l1', 'x'), ('t2', NULL, 'y');";

/// A device at rest with a server that has all its rows, not connected.
fn at_rest() -> (Authority, Device) {
    let mut server = Authority::new(schema(TREE));
    let mut device = Device::new(TREE, 1);
    device.write(ROWS);
    device.sync(&mut server);
    device.collect();
    device.events.clear();
    device.disconnect();
    (server, device)
}

fn everything(conn: &Connection) -> String {
    ["lists", "items", "steps", "tags"]
        .map(|table| crate::device::rows(conn, &format!("SELECT * FROM {table} ORDER BY id")))
        .join("\n")
}

/// The ways in which tools make a table anew, on `lists`.
const REBUILDS: [(&str, &str); 3] = [
    (
        "SQLite's twelve steps, Django, Alembic",
        "CREATE TABLE new_lists(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, color TEXT);
         INSERT INTO new_lists SELECT id, name, color FROM lists;
         DROP TABLE lists;
         ALTER TABLE new_lists RENAME TO lists;",
    ),
    (
        "renamed first",
        "ALTER TABLE lists RENAME TO old_lists;
         CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, color TEXT);
         INSERT INTO lists SELECT id, name, color FROM old_lists;
         DROP TABLE old_lists;",
    ),
    (
        "over a temporary table",
        "CREATE TEMP TABLE kept AS SELECT * FROM lists;
         DROP TABLE lists;
         CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, color TEXT);
         INSERT INTO lists SELECT * FROM kept;
         DROP TABLE kept;",
    ),
];

#[test]
fn ca11_rows_that_a_rebuild_took_along_come_back_and_are_not_sent() {
    for (how, rebuild) in REBUILDS {
        let (mut server, mut device) = at_rest();
        let before = everything(device.replica.connection());
        device.run(&format!(
            "PRAGMA foreign_keys = ON; BEGIN; {rebuild} COMMIT"
        ));
        assert_ne!(everything(device.replica.connection()), before, "{how}");
        device.seal();
        assert_eq!(everything(device.replica.connection()), before, "{how}");
        assert_eq!(device.parked(), ["dropped_table_cascade"], "{how}");
        device.sync(&mut server);
        assert_eq!(everything(device.replica.connection()), before, "{how}");
        assert_eq!(device.replica.status().unwrap().waiting, 0, "{how}");
        device.assert_equal(&server);
        let told = device.events.iter().any(|event| {
            matches!(event, Event::ChangeRefused { code, .. } if code == "dropped_table_cascade")
        });
        assert!(told, "{how}");
        device.run("UPDATE items SET title = 'edited' WHERE id = 'i1'");
        device.sync(&mut server);
        device.assert_equal(&server);
    }
}

#[test]
fn ca11_what_was_parked_can_be_meant_after_all() {
    let (mut server, mut device) = at_rest();
    device.run(&format!("PRAGMA foreign_keys = ON; {}", REBUILDS[0].1));
    device.seal();
    let parked = device.replica.queue(None, 10).unwrap();
    device.replica.retry(parked[0].id, device.now).unwrap();
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM items"), "i3");
    assert_eq!(device.query("SELECT id FROM steps"), "s3");
    assert_eq!(device.query("SELECT id, list FROM tags"), "t1|-\nt2|-");
    device.assert_equal(&server);
}

#[test]
fn ca11_what_the_app_wrote_around_a_rebuild_is_sent() {
    let (mut server, mut device) = at_rest();
    device.run("DELETE FROM items WHERE id = 'i3'; UPDATE tags SET tag = 'edited', list = 'l2'");
    device.seal();
    device.run("UPDATE tags SET tag = 'edited again' WHERE id = 't1'");
    device.run(&format!(
        "PRAGMA foreign_keys = ON; BEGIN; {} COMMIT",
        REBUILDS[0].1
    ));
    device.run(
        "INSERT INTO items VALUES('i4', 'l1', 'd'); UPDATE lists SET name = 'eins' WHERE id = 'l1'",
    );
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT id FROM items ORDER BY id"),
        "i1\ni2\ni4"
    );
    assert_eq!(
        device.query("SELECT id, list, tag FROM tags"),
        "t1|l2|edited again\nt2|l2|edited"
    );
    assert_eq!(device.query("SELECT name FROM lists"), "eins\ntwo");
    device.assert_equal(&server);
}

#[test]
fn ca11_rows_deleted_before_a_rebuild_without_foreign_keys_are_deleted() {
    for (_, rebuild) in REBUILDS {
        let (mut server, mut device) = at_rest();
        device.run(&format!(
            "PRAGMA foreign_keys = OFF; DELETE FROM items WHERE id = 'i1'; {rebuild}"
        ));
        device.sync(&mut server);
        assert_eq!(device.query("SELECT id FROM items"), "i2\ni3");
        assert!(device.parked().is_empty());
        device.assert_equal(&server);
    }
}

#[test]
fn ca11_children_of_rows_that_were_left_out_of_the_copy_are_deleted() {
    let (mut server, mut device) = at_rest();
    let rebuild = REBUILDS[0]
        .1
        .replace("FROM lists;", "FROM lists WHERE id = 'l1';");
    device.run(&format!("PRAGMA foreign_keys = ON; {rebuild}"));
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM lists"), "l1");
    assert_eq!(device.query("SELECT id FROM items ORDER BY id"), "i1\ni3");
    assert_eq!(device.query("SELECT id FROM steps ORDER BY id"), "s1\ns3");
    device.assert_equal(&server);
}

#[test]
fn ca11_holds_for_rows_whose_own_table_was_made_anew_before() {
    let (mut server, mut device) = at_rest();
    let before = everything(device.replica.connection());
    device.run(&format!(
        "PRAGMA foreign_keys = ON;
         CREATE TABLE n(id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id) ON DELETE CASCADE, title TEXT);
         INSERT INTO n SELECT * FROM items; DROP TABLE items; ALTER TABLE n RENAME TO items;
         CREATE TABLE n(id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id) ON DELETE SET NULL, tag TEXT);
         INSERT INTO n SELECT * FROM tags; DROP TABLE tags; ALTER TABLE n RENAME TO tags;
         {}",
        REBUILDS[0].1
    ));
    device.sync(&mut server);
    assert_eq!(everything(device.replica.connection()), before);
    device.assert_equal(&server);
}
