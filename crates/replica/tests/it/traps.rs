//! What went wrong elsewhere, from the app's statement to the other device.

use syncline_core::{MergeStrategy, Value};
use syncline_replica::{Event, Replica, ReplicaError};

use crate::{
    authority::Authority,
    device::{Device, SCHEMA, entropy, rows, schema},
};

/// Two devices and a server that hold the same rows.
fn pair(sql: &str, rows: &str) -> (Authority, Device, Device) {
    let mut server = Authority::new(schema(sql));
    let (mut a, mut b) = (Device::new(sql, 1), Device::new(sql, 2));
    a.write(rows);
    for _ in 0..2 {
        a.sync(&mut server);
        b.sync(&mut server);
    }
    (server, a, b)
}

fn settle(server: &mut Authority, a: &mut Device, b: &mut Device) {
    for _ in 0..2 {
        a.sync(server);
        b.sync(server);
    }
    a.assert_equal(server);
    b.assert_equal(server);
    assert_eq!((a.outbox().as_str(), b.outbox().as_str()), ("", ""));
}

const LIST: &str = "INSERT INTO lists VALUES('l1', 'shopping')";

#[test]
fn sl4_two_edits_offline_are_no_conflict_with_oneself() {
    let mut tables = schema(SCHEMA);
    let table = tables
        .tables
        .iter_mut()
        .find(|t| t.name == "lists")
        .unwrap();
    table.columns[1].merge = MergeStrategy::Manual;
    let mut server = Authority::new(tables);
    let mut device = Device::new(SCHEMA, 1);
    device.write(LIST);
    device.sync(&mut server);
    let base = server.end();
    device.disconnect();
    device.write("UPDATE lists SET name = 'one'");
    device.write("UPDATE lists SET name = 'two'");
    device.sync(&mut server);
    // Both say the version they started from: one author's row of edits.
    let pushed = device.pushed();
    assert!(pushed.iter().all(|c| c.changes[0].base == base));
    assert_eq!(pushed[1].depends, [pushed[0].number]);
    device.assert_equal(&server);
    assert_eq!(device.replica.conflicts(true).unwrap(), []);
}

#[test]
fn ap2_inserts_of_one_key_on_two_devices_become_one_row() {
    let (mut server, mut a, mut b) = pair(SCHEMA, LIST);
    a.disconnect();
    b.disconnect();
    a.write("INSERT INTO items(id, title) VALUES('i1', 'from a')");
    b.write("INSERT INTO items(id, list, done) VALUES('i1', 'l1', 1)");
    a.sync(&mut server);
    b.sync(&mut server);
    settle(&mut server, &mut a, &mut b);
    assert_eq!(a.query("SELECT * FROM items"), "i1|l1|from a|1|-");
}

#[test]
fn ca3_what_replace_evicts_is_evicted_everywhere() {
    let rows = "INSERT INTO items VALUES('i1', NULL, 'first', 0, 1), ('i2', NULL, 'second', 0, 2)";
    let (mut server, mut a, mut b) = pair(SCHEMA, rows);
    a.write("INSERT OR REPLACE INTO items VALUES('i3', NULL, 'third', 0, 1)");
    b.write("UPDATE OR REPLACE items SET rank = 2 WHERE id = 'i1'");
    a.sync(&mut server);
    b.sync(&mut server);
    settle(&mut server, &mut a, &mut b);
    assert_eq!(a.query("SELECT id FROM items"), "i3");
}

#[test]
fn ca4_another_key_is_another_row_everywhere() {
    let (mut server, mut a, mut b) = pair(SCHEMA, LIST);
    a.write("UPDATE lists SET id = 'l2'");
    settle(&mut server, &mut a, &mut b);
    assert_eq!(b.query("SELECT * FROM lists"), "l2|shopping");
    // A chain of keys in one statement.
    a.write("INSERT INTO notes VALUES(1, 'a'), (2, 'b'), (3, 'c')");
    settle(&mut server, &mut a, &mut b);
    a.write("UPDATE notes SET id = -id; UPDATE notes SET id = 1 - id");
    settle(&mut server, &mut a, &mut b);
    assert_eq!(b.query("SELECT * FROM notes ORDER BY id"), "2|a\n3|b\n4|c");
}

#[test]
fn ca6_cascades_and_the_apps_own_triggers_arrive_once() {
    const TABLES: &str = "
        CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL DEFAULT 0);
        CREATE TABLE items(id TEXT PRIMARY KEY NOT NULL,
          list TEXT REFERENCES lists ON DELETE CASCADE);
        CREATE TRIGGER count_in AFTER INSERT ON items BEGIN
          UPDATE lists SET n = n + 1 WHERE id = new.list;
        END;";
    let rows = "INSERT INTO lists(id) VALUES('l1'), ('l2')";
    let (mut server, mut a, mut b) = pair(TABLES, rows);
    for device in [&a, &b] {
        let conn = device.replica.connection();
        conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    }
    a.write("INSERT INTO items VALUES('i1', 'l1'), ('i2', 'l1'), ('i3', 'l2')");
    settle(&mut server, &mut a, &mut b);
    assert_eq!(b.query("SELECT * FROM lists ORDER BY id"), "l1|2\nl2|1");
    b.write("DELETE FROM lists WHERE id = 'l1'");
    settle(&mut server, &mut a, &mut b);
    assert_eq!(a.query("SELECT id FROM items"), "i3");
}

#[test]
fn ca5_savepoints_take_back_what_they_hold() {
    let (mut server, mut a, mut b) = pair(SCHEMA, LIST);
    a.write(
        "SAVEPOINT one; UPDATE lists SET name = 'never'; INSERT INTO notes VALUES(1, 'never');
         ROLLBACK TO one; INSERT INTO notes VALUES(2, 'kept'); RELEASE one",
    );
    a.sync(&mut server);
    assert_eq!(a.pushed().last().unwrap().changes.len(), 1);
    settle(&mut server, &mut a, &mut b);
    assert_eq!(b.query("SELECT * FROM notes"), "2|kept");
}

#[test]
fn sl2_upserts_and_other_spellings_travel_as_they_are() {
    const TABLE: &str = "CREATE TABLE t(
        id TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, name TEXT COLLATE NOCASE, x);";
    let (mut server, mut a, mut b) = pair(TABLE, "INSERT INTO t VALUES('k', 'name', 1)");
    a.write("INSERT INTO t VALUES('k', 'other', 2) ON CONFLICT DO UPDATE SET name = 'NAME'");
    settle(&mut server, &mut a, &mut b);
    assert_eq!(b.query("SELECT * FROM t"), "k|NAME|1");
    a.write("UPDATE t SET x = 1.0");
    settle(&mut server, &mut a, &mut b);
    assert_eq!(
        b.query("SELECT typeof(x) FROM t"),
        a.query("SELECT typeof(x) FROM t")
    );
    // Nothing really changed: nothing travels.
    let before = server.ids.len();
    a.write("UPDATE t SET name = 'NAME'; DELETE FROM t; INSERT INTO t SELECT 'k', 'NAME', 1.0");
    settle(&mut server, &mut a, &mut b);
    assert_eq!(server.ids.len(), before);
}

#[test]
fn ap6_a_swap_of_unique_values_arrives() {
    let rows = "INSERT INTO items VALUES('i1', NULL, 'first', 0, 1), ('i2', NULL, 'second', 0, 2)";
    let (mut server, mut a, mut b) = pair(SCHEMA, rows);
    a.write(
        "UPDATE items SET rank = NULL WHERE id = 'i1';
         UPDATE items SET rank = 1 WHERE id = 'i2';
         UPDATE items SET rank = 2 WHERE id = 'i1'",
    );
    settle(&mut server, &mut a, &mut b);
    assert_eq!(
        b.query("SELECT id, rank FROM items ORDER BY id"),
        "i1|2\ni2|1"
    );
}

#[test]
fn ca7_what_is_applied_is_not_captured_as_the_apps_own() {
    let (mut server, mut a, mut b) = pair(SCHEMA, LIST);
    b.write("UPDATE lists SET name = 'b'; INSERT INTO items VALUES('i', 'l1', 't', 0, 5)");
    settle(&mut server, &mut a, &mut b);
    assert_eq!(a.seal(), 0);
    assert_eq!(a.outbox(), "");
    let triggers = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
    let is_on = a.replica.connection().db_config(triggers).unwrap();
    assert!(is_on, "only while applying");
    // An error does not leave them off.
    let frame = b"no frame at all";
    a.replica.handle(frame, a.now).unwrap();
    assert!(a.replica.connection().db_config(triggers).unwrap());
    a.collect();
    a.run("UPDATE lists SET name = 'captured'");
    assert_eq!(a.seal(), 1);
}

/// The metadata of a file as the first format had it.
const FIRST_FORMAT: &str = "
    ALTER TABLE syncline_tables DROP COLUMN unsure; ALTER TABLE syncline_tables DROP COLUMN server;
    ALTER TABLE syncline_outbox RENAME COLUMN doubt TO may_be_applied;
    ALTER TABLE syncline_outbox DROP COLUMN after;
    ALTER TABLE syncline_outbox DROP COLUMN first_number;
    DROP INDEX syncline_outbox_whole; ALTER TABLE syncline_outbox DROP COLUMN whole;
    DROP INDEX syncline_parts_told;
    ALTER TABLE syncline_parts DROP COLUMN sure; ALTER TABLE syncline_parts DROP COLUMN told;
    ALTER TABLE syncline_parts DROP COLUMN next; ALTER TABLE syncline_parts DROP COLUMN newest;
    DROP TABLE syncline_former; DROP TABLE syncline_given;
    DROP TABLE syncline_subscriptions;
    ALTER TABLE syncline_tables DROP COLUMN members;
    ALTER TABLE syncline_outbox DROP COLUMN sum; ALTER TABLE syncline_changes DROP COLUMN sum;
    ALTER TABLE syncline_acknowledged DROP COLUMN sum;
    ALTER TABLE syncline_columns DROP COLUMN server; ALTER TABLE syncline_columns DROP COLUMN gone;
    UPDATE syncline_meta SET value = 1 WHERE key = 'format';";

#[test]
fn ca10_older_metadata_is_brought_up_to_date_after_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'one')");
    device.sync(&mut server);
    device.disconnect();
    device.write("UPDATE lists SET name = 'unsent'");
    device.seal();
    device.run(FIRST_FORMAT);
    let mut device = device.restart(&path);
    device.sync(&mut server);
    device.assert_equal(&server);
    assert_eq!(
        device.query("SELECT value FROM syncline_meta WHERE key = 'format'"),
        "8"
    );

    let copy = rusqlite::Connection::open(dir.path().join("app.db-syncline-format-1")).unwrap();
    assert_eq!(
        rows(
            &copy,
            "SELECT value FROM syncline_meta WHERE key = 'format'"
        ),
        "1"
    );
    assert_eq!(rows(&copy, "SELECT count(*) FROM syncline_outbox"), "1");
    // Opened by the program of today, it is migrated again.
    let mut copy = Device::open(copy, 7);
    copy.sync(&mut server);
    copy.assert_equal(&server);
}

#[test]
fn ca10_a_migration_that_fails_leaves_the_file_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut device = Device::create(&path, SCHEMA, 1);
    device.run(FIRST_FORMAT);
    device.run("CREATE TRIGGER syncline_in_the_way BEFORE UPDATE ON syncline_meta BEGIN SELECT RAISE(ABORT, 'no'); END;
        CREATE TRIGGER syncline_too BEFORE INSERT ON syncline_meta BEGIN SELECT RAISE(ABORT, 'no'); END");
    drop(device);
    for _ in 0..2 {
        let conn = rusqlite::Connection::open(&path).unwrap();
        let now = syncline_core::Timestamp(1_700_000_000_000_000);
        Replica::open(conn, entropy(1), now).unwrap_err();
        let conn = rusqlite::Connection::open(&path).unwrap();
        assert!(conn.prepare("SELECT unsure FROM syncline_tables").is_err());
    }
}

#[test]
fn ca10_a_file_of_a_newer_program_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let device = Device::create(&path, SCHEMA, 1);
    device
        .replica
        .connection()
        .execute_batch("UPDATE syncline_meta SET value = 99 WHERE key = 'format'")
        .unwrap();
    let now = device.now;
    drop(device);
    let before = std::fs::read(&path).unwrap();
    let conn = rusqlite::Connection::open(&path).unwrap();
    let error = Replica::open(conn, entropy(2), now).unwrap_err();
    assert!(matches!(
        error,
        ReplicaError::NewerFormat {
            found: 99,
            known: 8
        }
    ));
    let text = error.to_string();
    assert!(text.contains("99") && text.contains('8'), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn sl10_rows_that_cannot_sync_hold_nothing_up() {
    const TABLE: &str = "CREATE TABLE t(a INTEGER, b TEXT, x TEXT, PRIMARY KEY(a, b));";
    let mut server = Authority::new(schema(TABLE));
    let mut device = Device::new(TABLE, 1);
    // Written before the first contact, so found again when rows from before are sent.
    device.write(
        "INSERT INTO t VALUES(NULL, 'k', 'no key'), (1, NULL, 'no key'), (2, 'k', 'fine'),
           (3, 'k', CAST(x'ff' AS TEXT))",
    );
    device.sync(&mut server);
    assert_eq!(server.rows.len(), 1);
    let unfit = |device: &Device| {
        let told = |e: &&Event| matches!(e, Event::RowUnfit { .. });
        device.events.iter().filter(told).count()
    };
    assert!(unfit(&device) >= 3, "{:?}", device.events);
    device.write("UPDATE t SET x = 'by now' WHERE a = 3");
    device.sync(&mut server);
    assert_eq!(server.rows.len(), 2);
    assert_eq!(device.outbox(), "");
}

#[test]
fn lo1_an_insert_under_a_loading_table_stays() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO notes VALUES(3, 'before first contact')");
    for i in 10..20 {
        server.write(&[("notes", vec![Value::Integer(i), "theirs".into()])]);
    }
    device.sync(&mut server);
    device.assert_equal(&server);
    assert_eq!(device.query("SELECT count(*) FROM notes"), "11");
}
