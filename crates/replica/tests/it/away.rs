//! Tables that go away while something of theirs is unsent (docs/spec/outbox.md, OB12).

use syncline_core::Value;
use syncline_replica::{Event, QueueState, QueuedChangeset, TableState, TableStatus};

use crate::{
    authority::Authority,
    device::{Device, SCHEMA, schema},
};

/// The same tables without `notes`.
const WITHOUT: &str = "
    CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT);
    CREATE TABLE items(
      id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id), title TEXT, done INTEGER,
      rank INTEGER UNIQUE);";

fn at_rest() -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO notes VALUES(1, 'one'), (2, 'two'), (3, 'three')");
    device.sync(&mut server);
    device.disconnect();
    (server, device)
}

fn queue(device: &Device) -> Vec<QueuedChangeset> {
    device.replica.queue(None, 100).unwrap()
}

/// Code, tables and columns of what is parked.
fn parked(device: &Device) -> Vec<(String, Vec<String>)> {
    let describe = |queued: QueuedChangeset| {
        let QueueState::Parked { code, .. } = queued.state else {
            return None;
        };
        let change = |change: &syncline_replica::QueuedChange| {
            let key = change.change.key.to_string();
            format!("{} {key}: {}", change.table, change.columns.join(","))
        };
        Some((code, queued.changes.iter().map(change).collect()))
    };
    queue(device).into_iter().filter_map(describe).collect()
}

fn refusals(device: &Device) -> Vec<String> {
    let code = |event: &Event| match event {
        Event::ChangeRefused { code, .. } => Some(code.clone()),
        _ => None,
    };
    device.events.iter().filter_map(code).collect()
}

/// The server's schema from now on.
fn serve(server: &mut Authority, sql: &str) {
    let mut tables = schema(sql);
    for table in &mut tables.tables {
        if let Some(known) = server.schema.table(&table.name) {
            table.number = known.number;
        }
    }
    server.schema = tables;
    let kept: Vec<_> = server.schema.tables.iter().map(|t| t.number).collect();
    server.rows.retain(|(t, _), _| kept.contains(t));
}

#[test]
fn ca12_what_was_not_sealed_when_its_table_was_renamed_and_replaced_is_sent() {
    let (mut server, mut device) = at_rest();
    device.write("UPDATE notes SET body = 'edited' WHERE id = 2; DELETE FROM notes WHERE id = 3");
    device.run("ALTER TABLE notes RENAME TO notes_old");
    device.seal();
    device.collect();
    assert_eq!(parked(&device), []);
    assert_eq!(queue(&device).len(), 1);
    device.run(
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT);
         INSERT INTO notes SELECT * FROM notes_old; DROP TABLE notes_old",
    );
    device.sync(&mut server);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM notes"), "1|one\n2|edited");
    assert_eq!(queue(&device), []);
    device.assert_equal(&server);
}

#[test]
fn ob12_what_was_not_sealed_when_its_table_was_dropped_is_told() {
    let (mut server, mut device) = at_rest();
    device.write("UPDATE notes SET body = 'first' WHERE id = 1");
    device.write("UPDATE notes SET body = 'second' WHERE id = 1; INSERT INTO notes VALUES(7, 'x')");
    device.write("INSERT INTO lists VALUES('l1', 'one')");
    device.run("DROP TABLE notes");
    device.sync(&mut server);
    // What the second transaction overwrote is known; what came last is not.
    assert_eq!(
        parked(&device),
        [
            ("table_gone".to_owned(), vec!["notes 1: body".to_owned()]),
            (
                "table_dropped".to_owned(),
                vec!["notes 1: ".to_owned(), "notes 7: ".to_owned()]
            ),
        ]
    );
    assert_eq!(refusals(&device), ["table_gone", "table_dropped"]);
    assert_eq!(device.replica.status().unwrap().parked, 2);
    assert_eq!(device.query("SELECT * FROM lists"), "l1|one");
    // There is nothing to send of it, but it can be put away.
    for queued in queue(&device) {
        let now = device.now;
        assert_eq!(device.replica.retry(queued.id, now).unwrap(), 0);
        device.replica.discard(queued.id).unwrap();
    }
    device.sync(&mut server);
    assert_eq!(queue(&device), []);
}

#[test]
fn ob12_a_dropped_table_is_noticed_by_the_next_process_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.write("INSERT INTO notes VALUES(1, 'one')");
    device.sync(&mut server);
    device.write("UPDATE notes SET body = 'two'");
    device.write("UPDATE notes SET body = 'three'");
    device.run("DROP TABLE notes");
    let device = device.restart(&path);
    let codes: Vec<_> = parked(&device).into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["table_gone", "table_dropped"]);
    assert_eq!(refusals(&device), codes);
}

#[test]
fn ob12_what_is_unsent_of_a_table_that_the_server_dropped_is_parked_alone() {
    let (mut server, mut device) = at_rest();
    device.run("UPDATE notes SET body = 'edited' WHERE id = 2");
    device.run("INSERT INTO lists VALUES('l1', 'one'); UPDATE lists SET name = 'uno'");
    device.seal();
    assert_eq!(device.outbox(), "s", "joined");
    serve(&mut server, WITHOUT);
    device.sync(&mut server);
    let expected = vec!["notes 2: body".to_owned()];
    assert_eq!(parked(&device), [("table_gone".to_owned(), expected)]);
    assert_eq!(server.rows.len(), 1, "the rest was sent");
    assert_eq!(
        device.query("SELECT body FROM notes WHERE id = 2"),
        "edited"
    );
    // The server has the table again.
    serve(&mut server, SCHEMA);
    server.write(&[
        ("notes", vec![Value::Integer(1), "one".into()]),
        ("notes", vec![Value::Integer(2), "two".into()]),
        ("notes", vec![Value::Integer(3), "three".into()]),
    ]);
    device.disconnect();
    device.sync(&mut server);
    device.sync(&mut server);
    assert_eq!(queue(&device), []);
    assert_eq!(
        device.query("SELECT * FROM notes"),
        "1|one\n2|edited\n3|three"
    );
    device.assert_equal(&server);
}

#[test]
fn ob12_a_transaction_that_changed_a_table_that_went_is_parked_whole() {
    let (mut server, mut device) = at_rest();
    device.write("DELETE FROM notes WHERE id = 3; INSERT INTO lists VALUES('l1', 'one')");
    device.write("UPDATE lists SET name = 'uno'");
    device.seal();
    serve(&mut server, WITHOUT);
    device.sync(&mut server);
    assert_eq!(device.parked(), ["table_gone", "depends_on"]);
    assert_eq!(device.query("SELECT * FROM lists"), "");
    serve(&mut server, SCHEMA);
    device.disconnect();
    device.sync(&mut server);
    device.sync(&mut server);
    assert_eq!(queue(&device), []);
    assert_eq!(device.query("SELECT * FROM lists"), "l1|uno");
}

#[test]
fn ob12_of_a_table_that_no_server_ever_had_nothing_is_kept_apart() {
    let mut server = Authority::new(schema(WITHOUT));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO notes VALUES(1, 'one'); INSERT INTO lists VALUES('l1', 'one')");
    device.write("UPDATE notes SET body = 'uno'");
    device.seal();
    device.sync(&mut server);
    assert_eq!(queue(&device), []);
    assert_eq!(server.rows.len(), 1);
    serve(&mut server, SCHEMA);
    device.disconnect();
    device.sync(&mut server);
    device.sync(&mut server);
    assert_eq!(
        server.rows.len(),
        2,
        "every row is sent as soon as it can be"
    );
    device.assert_equal(&server);
}

/// What only the app's own program can compare or compute by, as that program made it.
fn only_the_app_knows(device: &mut Device, index: &str, known: &str, foreign: &str) {
    device.run(&index.replace(foreign, known));
    device.run(&format!(
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, '{known}', '{foreign}') WHERE name = 'by_app';
         PRAGMA writable_schema = RESET;"
    ));
}

#[test]
fn ca14_what_only_the_app_can_compute_stops_its_table_and_no_other() {
    for (index, known, foreign) in [
        (
            "CREATE INDEX by_app ON notes(body COLLATE german)",
            "NOCASE",
            "german",
        ),
        (
            "CREATE UNIQUE INDEX by_app ON notes(body COLLATE german)",
            "NOCASE",
            "german",
        ),
        ("CREATE INDEX by_app ON notes(fold(body))", "lower", "fold"),
        (
            "CREATE INDEX by_app ON notes(id) WHERE fold(body) = 'x'",
            "lower",
            "fold",
        ),
    ] {
        let (mut server, mut device) = at_rest();
        device.write("UPDATE notes SET body = 'unsent' WHERE id = 1");
        only_the_app_knows(&mut device, index, known, foreign);
        device.write("INSERT INTO lists VALUES('l1', 'one')");
        server.write(&[("notes", vec![Value::Integer(8), "theirs".into()])]);
        device.sync(&mut server);
        assert_eq!(server.rows.len(), 5, "{index}");
        let left_out = |device: &Device| {
            let tables = device.replica.status().unwrap().tables.into_iter();
            let reason = |table: TableStatus| match table.state {
                TableState::LeftOut { reason } => Some((table.name, reason)),
                _ => None,
            };
            tables.filter_map(reason).collect::<Vec<_>>()
        };
        let [(table, reason)] = &left_out(&device)[..] else {
            panic!("{index}: {:?}", left_out(&device));
        };
        assert!(table == "notes" && reason.contains(foreign), "{reason}");
        assert_eq!(refusals(&device), ["table_gone"], "{index}");
        // Without it the table goes on.
        device.run("DROP INDEX by_app");
        device.sync(&mut server);
        device.sync(&mut server);
        assert_eq!(left_out(&device), []);
        assert_eq!(queue(&device), []);
        assert_eq!(
            device.query("SELECT body FROM notes ORDER BY id"),
            "unsent\ntwo\nthree\ntheirs",
            "{index}"
        );
        device.assert_equal(&server);
    }
}

/// While a table is away, both sides go on: what is the same row stays one.
#[test]
fn ob12_what_the_server_gave_before_a_table_went_away_is_not_sent_when_it_is_back() {
    let (mut server, mut device) = at_rest();
    device.write("INSERT INTO lists VALUES('l1', 'one'), ('l2', 'two'), ('l3', 'three')");
    device.write("INSERT INTO notes VALUES(4, 'four'), (5, 'five'), (6, 'six')");
    device.sync(&mut server);
    device.disconnect();
    for table in ["notes", "lists"] {
        let name = if table == "notes" { "body" } else { "name" };
        device.run(&format!(
            "CREATE INDEX of_{table} ON {table}({name} COLLATE NOCASE)"
        ));
    }
    device.run(
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'german') WHERE name LIKE 'of_%';
         PRAGMA writable_schema = RESET;",
    );
    let note = |id: i64, body: &str| ("notes", vec![Value::Integer(id), body.into()]);
    let list = |id: &str, name: &str| ("lists", vec![id.into(), name.into()]);
    server.write(&[note(2, "theirs"), list("l2", "theirs"), note(5, "theirs")]);
    server.delete("notes", &[Value::Integer(3)]);
    server.delete("lists", &["l3".into()]);
    device.sync(&mut server);
    device.disconnect();
    server.write(&[note(8, "theirs")]);
    // Triggers are not there.
    device.run(
        "DROP INDEX of_notes; DROP INDEX of_lists;
         UPDATE notes SET body = 'here' WHERE id IN (1, 5); INSERT INTO notes VALUES(9, 'here')",
    );
    // They are again, and what the server has is not.
    device.seal();
    device.write("UPDATE notes SET body = 'later' WHERE id = 4; DELETE FROM notes WHERE id = 6");
    device.sync(&mut server);
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT id, body FROM notes ORDER BY id"),
        "1|here\n2|theirs\n4|later\n5|theirs\n8|theirs\n9|here\n10|here"
    );
    assert_eq!(
        device.query("SELECT id, name FROM lists ORDER BY id"),
        "l1|one\nl2|theirs"
    );
    assert_eq!(queue(&device), []);
    assert_eq!(device.query("SELECT count(*) FROM syncline_given"), "0");
    device.assert_equal(&server);
}

/// What the server has in a column that the file got while its table was away is nobody's edit.
#[test]
fn ob12_a_column_that_came_while_its_table_was_away_empties_nothing() {
    const COLORED: &str =
        "CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT, color TEXT);";
    const PLAIN: &str = "CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT);";
    let mut server = Authority::new(schema(COLORED));
    server.write(&[("lists", vec!["l1".into(), "one".into(), "red".into()])]);
    server.write(&[("lists", vec!["l2".into(), "two".into(), Value::Null])]);
    let mut device = Device::new(PLAIN, 1);
    device.sync(&mut server);
    device.disconnect();
    let index = "CREATE INDEX by_app ON lists(name COLLATE german)";
    only_the_app_knows(&mut device, index, "NOCASE", "german");
    device.sync(&mut server);
    device.disconnect();
    device.run("DROP INDEX by_app; ALTER TABLE lists ADD COLUMN color TEXT");
    device.sync(&mut server);
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT id, name, color FROM lists ORDER BY id"),
        "l1|one|red\nl2|two|-"
    );
    assert_eq!(queue(&device), []);
    device.assert_equal(&server);
}
