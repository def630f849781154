//! What the app's tables and triggers say of their own does not bind the engine (spec AP6, CA14).

use std::path::Path;

use rusqlite::Connection;
use syncline_core::{Row, RowKey, TableNumber, Value};

use crate::{
    authority::Authority,
    device::{Device, schema},
    fixture::{database, table},
    migrations::changed,
};

const PEOPLE: &str = "CREATE TABLE people(id TEXT PRIMARY KEY NOT NULL, email TEXT UNIQUE);";

/// Two people got one address, here and there; then the app builds its table anew.
fn two_of_one_address(clause: &str) -> String {
    let mut server = Authority::new(schema(PEOPLE));
    let people = PEOPLE.replace("UNIQUE", &format!("UNIQUE {clause}"));
    let mut device = Device::new(&people, 1);
    device.sync(&mut server);
    device.disconnect();
    device.write("INSERT INTO people VALUES('b', 'e')");
    // So that it waits beside the other one.
    server.is_busy = true;
    server.write(&[("people", vec!["a".into(), "e".into()])]);
    device.sync(&mut server);
    device.run(&format!(
        "CREATE TABLE anew({}); INSERT INTO anew SELECT * FROM people; DROP TABLE people;
         ALTER TABLE anew RENAME TO people",
        people
            .trim_start_matches("CREATE TABLE people(")
            .trim_end_matches(");")
    ));
    device.sync(&mut server);
    let status = device.replica.status().unwrap();
    let there: Vec<String> = server.rows.keys().map(|(_, key)| key.to_string()).collect();
    let here = device.query("SELECT * FROM people");
    format!("{here} here, {} hidden, {there:?} there", status.unstorable)
}

#[test]
fn ap6_clauses_on_conflict_neither_drop_nor_evict_rows() {
    let plain = two_of_one_address("");
    assert!(plain.ends_with("[\"a\"] there"), "{plain}");
    for resolution in ["IGNORE", "REPLACE", "ROLLBACK", "FAIL"] {
        let clause = format!("ON CONFLICT {resolution}");
        assert_eq!(two_of_one_address(&clause), plain, "{clause}");
    }
}

/// A trigger that has something against what the server says, and notes it where nothing syncs.
const LOCKED: &str = "
    CREATE TABLE notes(id TEXT PRIMARY KEY NOT NULL, locked INTEGER);
    CREATE TABLE audit(what TEXT);
    CREATE TRIGGER locked BEFORE DELETE ON notes BEGIN
      SELECT RAISE(ABORT, 'locked') WHERE old.locked; INSERT INTO audit VALUES(old.id); END;
    CREATE TRIGGER never BEFORE UPDATE ON notes BEGIN
      INSERT INTO audit VALUES(new.id); SELECT RAISE(ABORT, 'no') WHERE new.locked = 2; END;
    CREATE TRIGGER nor BEFORE INSERT ON notes BEGIN
      INSERT INTO audit VALUES(new.id); SELECT RAISE(ABORT, 'no') WHERE new.locked = 2; END;
    CREATE TABLE once(what TEXT UNIQUE);
    INSERT INTO once VALUES('b'), ('d');
    CREATE TRIGGER once_gone AFTER DELETE ON notes WHEN old.locked = 3 BEGIN
      INSERT INTO once VALUES('b'); END;
    CREATE TRIGGER once_come AFTER INSERT ON notes WHEN new.locked = 4 BEGIN
      INSERT INTO once VALUES('d' || json(new.id)); END;";

#[test]
fn ca14_what_a_trigger_of_the_apps_forbids_is_done_when_the_server_says_so() {
    let mut server = Authority::new(schema(LOCKED));
    let mut device = Device::new(LOCKED, 1);
    device.write("INSERT INTO notes VALUES('a', 1), ('b', 0), ('c', 0), ('f', 3)");
    device.sync(&mut server);
    device.run("DELETE FROM audit");
    server.delete("notes", &["a".into()]);
    server.delete("notes", &["b".into()]);
    server.write(&[("notes", vec!["c".into(), 2.into()])]);
    server.write(&[("notes", vec!["d".into(), 2.into()])]);
    // What triggers do may also fail: something is there already, a text is no JSON.
    server.delete("notes", &["f".into()]);
    server.write(&[("notes", vec!["e".into(), 4.into()])]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM notes"), "c|2\nd|2\ne|4");
    // Where it has nothing against it, what it does is done.
    assert_eq!(device.query("SELECT * FROM audit"), "b");
    device.assert_equal(&server);
    device.run("UPDATE notes SET locked = 1");
    let now = device.now;
    assert_eq!(device.replica.wipe(now).unwrap().rows, 3);
}

/// RAISE(IGNORE) stops a write without an error.
#[test]
fn ca14_what_a_trigger_of_the_apps_ignores_is_written_all_the_same() {
    const TABLES: &str = "
        CREATE TABLE notes(id TEXT PRIMARY KEY NOT NULL, locked INTEGER);
        CREATE TABLE audit(what TEXT);";
    const TRIGGERS: &str = "
        CREATE TRIGGER never BEFORE INSERT ON notes WHEN new.locked BEGIN
          INSERT INTO audit VALUES('insert'); SELECT RAISE(IGNORE); END;
        CREATE TRIGGER nor BEFORE UPDATE ON notes WHEN old.locked BEGIN
          INSERT INTO audit VALUES('update'); SELECT RAISE(IGNORE); END;
        CREATE TRIGGER not_either BEFORE DELETE ON notes WHEN old.locked BEGIN
          INSERT INTO audit VALUES('delete'); SELECT RAISE(IGNORE); END;";
    let mut server = Authority::new(schema(TABLES));
    let write = |server: &mut Authority, id: &str, locked: i64| {
        server.write(&[("notes", vec![id.into(), Value::Integer(locked)])])
    };
    for id in ["a", "b", "c"] {
        write(&mut server, id, 1);
    }
    // In a page, then each kind in the log.
    let mut device = Device::new(&format!("{TABLES} {TRIGGERS}"), 1);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM notes"), "a|1\nb|1\nc|1");
    write(&mut server, "a", 2);
    server.delete("notes", &["b".into()]);
    write(&mut server, "d", 1);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM notes"), "a|2\nc|1\nd|1");
    device.assert_equal(&server);
}

#[test]
fn ob10_the_server_counts_only_the_changes_that_travelled() {
    const TABLES: &str = "
        CREATE TABLE notes(id TEXT PRIMARY KEY NOT NULL, body TEXT, flag INTEGER);
        CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE orders(id INTEGER PRIMARY KEY, what TEXT);";
    let mut server = Authority::new(schema(TABLES));
    let mut device = Device::new(TABLES, 1);
    device.write("INSERT INTO notes VALUES('n', 'text', 0)");
    device.sync(&mut server);
    device.disconnect();
    device.write(
        "UPDATE notes SET flag = 1; INSERT INTO customers VALUES(5, 'new');
         INSERT INTO orders VALUES(1, 'mine')",
    );
    server.write(&[("orders", vec![Value::Integer(1), "theirs".into()])]);
    changed(&mut server, "notes", |t| {
        t.columns.retain(|column| column.name != "flag");
    });
    for row in server.rows.values_mut() {
        row.row.0.truncate(2);
    }
    device.sync(&mut server);
    assert_eq!(device.parked(), [""; 0]);
    assert_eq!(device.outbox(), "");
    assert_eq!(device.query("SELECT * FROM customers"), "5|new");
    assert_eq!(device.query("SELECT * FROM orders"), "1|theirs\n2|mine");
}

#[test]
fn sl10_text_that_came_after_an_edit_was_sent_stays_when_the_edit_is_settled() {
    let mut server = Authority::new(schema(PEOPLE));
    let mut device = Device::new(PEOPLE, 1);
    device.write("INSERT INTO people VALUES('a', 'one')");
    device.sync(&mut server);
    device.write("UPDATE people SET email = 'two'");
    device.push(&mut server);
    device.run("UPDATE people SET email = CAST(X'E9' AS TEXT)");
    device.sync(&mut server);
    assert_eq!(device.query("SELECT hex(email) FROM people"), "E9");
    device.run("UPDATE people SET email = 'three'");
    device.sync(&mut server);
    device.assert_equal(&server);
    assert_eq!(device.query("SELECT email FROM people"), "three");
}

/// The app makes a table, another engine on the same file captures what it writes there, and the
/// first engine has not looked at the file since.
#[test]
fn sl1_what_another_engine_sealed_of_a_new_table_is_not_forgotten() {
    const BOTH: &str = "
        CREATE TABLE people(id TEXT PRIMARY KEY NOT NULL, email TEXT UNIQUE);
        CREATE TABLE pets(id TEXT PRIMARY KEY NOT NULL, name TEXT);";
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("app.db");
    let mut server = Authority::new(schema(BOTH));
    let mut first = Device::create(path, PEOPLE, 1);
    first.sync(&mut server);
    server.is_busy = true;
    first.write("INSERT INTO people VALUES('a', 'a')");
    first.push(&mut server);
    while first.download() {}
    server.is_busy = false;
    let app = Connection::open(path).unwrap();
    app.execute_batch("CREATE TABLE pets(id TEXT PRIMARY KEY NOT NULL, name TEXT)")
        .unwrap();
    let mut second = Device::open(Connection::open(path).unwrap(), 2);
    second.now = first.now;
    second.write("INSERT INTO pets VALUES('p', 'cat'); INSERT INTO people VALUES('q', 'e')");
    second.seal();
    drop(second);
    // It is time to send again, before anything looks whether the file changed.
    first.now = first.replica.poll_timeout().unwrap();
    first.replica.handle_timeout(first.now).unwrap();
    first.collect();
    first.sync(&mut server);
    assert_eq!(first.query("SELECT * FROM pets"), "p|cat");
    assert_eq!(first.outbox(), "");
    first.assert_equal(&server);
}

#[test]
fn sl1_rows_behind_a_key_that_is_gone_are_scanned_however_it_was_spelled() {
    use syncline_core::ColumnType;
    const KEYS: [&str; 3] = [
        "0A000000-0000-4000-8000-000000000001",
        "AB000000-0000-4000-8000-000000000001",
        "CD000000-0000-4000-8000-000000000001",
    ];
    let conn = database("CREATE TABLE t(id UUID PRIMARY KEY NOT NULL)");
    for key in KEYS {
        conn.execute("INSERT INTO t VALUES(?1)", [key]).unwrap();
    }
    let TableNumber(number) = TableNumber(16);
    let sql = syncline_replica::rows::TableSql::new(&table(
        number,
        "t",
        &[("id", ColumnType::Uuid)],
        &[0],
    ));
    let canonical = |key: &str| Value::from(key.to_lowercase());
    let after = RowKey::encode([&canonical(KEYS[1])]).unwrap();
    conn.execute("DELETE FROM t WHERE id = ?1", [KEYS[1]])
        .unwrap();
    let found = sql.scan(&conn, Some(&after), 10).unwrap();
    assert_eq!(found, [Row(vec![canonical(KEYS[2])])]);
}
