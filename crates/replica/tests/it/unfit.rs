//! Rows that a file cannot hold do not stop a checkpoint (docs/spec/apply.md, AP6).

use syncline_core::Value;
use syncline_replica::Event;

use crate::{
    apply::{at_rest, item},
    authority::{Authority, refusal},
    device::{Device, SCHEMA, schema},
};

#[test]
fn ap6_values_of_a_unique_column_are_swapped() {
    let (mut server, mut device) = at_rest();
    server.write(&[
        item("i1", "l1", "a", Some(1)),
        item("i2", "l1", "b", Some(2)),
    ]);
    device.sync(&mut server);
    server.write(&[item("i1", "l1", "a", None)]);
    server.write(&[item("i2", "l1", "b", Some(1))]);
    server.write(&[item("i1", "l1", "a", Some(2))]);
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT id, rank FROM items ORDER BY id"),
        "i1|2\ni2|1"
    );
    device.assert_equal(&server);
    // With an edit on top of one of them.
    server.is_busy = true;
    device.write("UPDATE items SET title = 'mine' WHERE id = 'i2'");
    server.write(&[item("i1", "l1", "a", None)]);
    server.write(&[item("i2", "l1", "b", Some(2))]);
    server.write(&[item("i1", "l1", "a", Some(1))]);
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT id, title, rank FROM items ORDER BY id"),
        "i1|a|1\ni2|mine|2"
    );
}

#[test]
fn ap6_a_row_this_file_cannot_hold_is_kept_aside_and_tried_again() {
    let strict = SCHEMA
        .replace("name TEXT", "name TEXT CHECK(length(name) < 10)")
        .replace("body TEXT", "body TEXT NOT NULL");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(
        &format!(
            "{strict} CREATE TRIGGER no BEFORE INSERT ON items BEGIN SELECT RAISE(ABORT, 'no'); END;"
        ),
        1,
    );
    server.write(&[
        ("lists", vec!["l1".into(), "much too long".into()]),
        ("lists", vec!["l2".into(), "short".into()]),
        ("notes", vec![Value::Integer(1), Value::Null]),
        item("i1", "l1", "past the trigger", None),
    ]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM lists"), "l2");
    assert_eq!(device.query("SELECT id FROM items"), "i1");
    let unstorable = |device: &Device| {
        let events = device.events.iter().filter_map(|event| match event {
            Event::RowUnstorable { table, reason, .. } => Some((table.clone(), reason.clone())),
            _ => None,
        });
        events.collect::<Vec<_>>()
    };
    let told = unstorable(&device);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].1.contains("CHECK"), "{told:?}");
    assert_eq!(device.replica.status().unwrap().unstorable, 2);
    assert_eq!(device.replica.check_local(9, device.now).unwrap(), []);

    // Still as bad: not told again, nothing else is held up.
    server.write(&[("lists", vec!["l3".into(), "also fine".into()])]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM lists"), "l2\nl3");
    assert_eq!(unstorable(&device).len(), 2);
    // The server's row fits by now.
    server.write(&[("lists", vec!["l1".into(), "fits".into()])]);
    server.write(&[("notes", vec![Value::Integer(1), "fits".into()])]);
    device.sync(&mut server);
    assert_eq!(device.replica.status().unwrap().unstorable, 0);
    device.assert_equal(&server);
}

#[test]
fn ap6_a_hidden_row_appears_when_what_was_in_its_way_goes() {
    // Only this file says that names are unique.
    let strict = SCHEMA.replace("name TEXT", "name TEXT UNIQUE");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(&strict, 1);
    server.write(&[
        ("lists", vec!["l1".into(), "same".into()]),
        ("lists", vec!["l2".into(), "same".into()]),
    ]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM lists"), "l1");
    assert_eq!(device.replica.status().unwrap().unstorable, 1);
    server.write(&[("lists", vec!["l1".into(), "other".into()])]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM lists"), "l1|other\nl2|same");
    device.assert_equal(&server);
    // Deleting a hidden row deletes it.
    server.write(&[("lists", vec!["l1".into(), "same".into()])]);
    device.sync(&mut server);
    assert_eq!(device.replica.status().unwrap().unstorable, 1);
    server.delete("lists", &["l1".into()]);
    device.sync(&mut server);
    device.assert_equal(&server);
    assert_eq!(device.query("SELECT count(*) FROM syncline_shadow"), "0");
}

#[test]
fn ap6_the_app_makes_room_for_a_hidden_row() {
    let strict = SCHEMA.replace("name TEXT", "name TEXT UNIQUE");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(&strict, 1);
    server.write(&[
        ("lists", vec!["l1".into(), "same".into()]),
        ("lists", vec!["l2".into(), "same".into()]),
    ]);
    device.sync(&mut server);
    device.write("UPDATE lists SET name = 'mine'");
    device.sync(&mut server);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM lists"), "l1|mine\nl2|same");
    device.assert_equal(&server);
}

#[test]
fn ap6_an_edit_that_does_not_fit_any_more_is_hidden_and_still_sent() {
    let (mut server, mut device) = at_rest();
    server.is_busy = true;
    device.write("INSERT INTO items VALUES('mine', 'l1', 'mine', 0, 1)");
    device.seal();
    server.write(&[item("theirs", "l1", "theirs", Some(1))]);
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT id FROM items"),
        "theirs",
        "the server's row comes first"
    );
    server.is_busy = false;
    server.judge = Box::new(|c| {
        let is_mine = c.changes[0].key.decode().unwrap()[0] == Value::Text("mine".into());
        is_mine.then(|| refusal("constraint", false))
    });
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.parked(), ["constraint"]);
    device.assert_equal(&server);
    assert_eq!(device.query("SELECT count(*) FROM syncline_shadow"), "0");
}

#[test]
fn ap6_a_row_of_which_an_expression_of_the_file_fails_is_kept_aside() {
    const PLAIN: &str = "
        CREATE TABLE docs(id TEXT PRIMARY KEY NOT NULL, body TEXT);
        CREATE TABLE notes(id INTEGER PRIMARY KEY, n INTEGER);";
    let files = [
        "CREATE TABLE docs(id TEXT PRIMARY KEY NOT NULL, body TEXT);
         CREATE INDEX docs_name ON docs(json_extract(body, '$.name'));",
        "CREATE TABLE docs(id TEXT PRIMARY KEY NOT NULL, body TEXT);
         CREATE UNIQUE INDEX docs_name ON docs(json_extract(body, '$.name'));",
        "CREATE TABLE docs(id TEXT PRIMARY KEY NOT NULL,
           body TEXT CHECK(json_extract(body, '$.name') IS NOT 'bad'));",
        "CREATE TABLE docs(id TEXT PRIMARY KEY NOT NULL, body TEXT,
           name AS (json_extract(body, '$.name')) STORED);",
        "CREATE TABLE docs(id UUID PRIMARY KEY NOT NULL, body TEXT,
           name AS (json_extract(body, '$.name')) STORED UNIQUE);",
    ];
    for file in files {
        let here = format!(
            "{file} CREATE TABLE notes(id INTEGER PRIMARY KEY, n INTEGER CHECK(abs(n) > 0));"
        );
        let mut server = Authority::new(schema(PLAIN));
        let mut device = Device::new(&here, 1);
        let doc = |id: &str, body: &str| ("docs", vec![id.into(), body.into()]);
        server.write(&[doc("d1", "not json"), doc("d2", "{\"name\":\"two\"}")]);
        device.sync(&mut server);
        // Once by a page, and once by the log.
        server.write(&[
            doc("d3", "not json either"),
            ("notes", vec![Value::Integer(1), Value::Integer(i64::MIN)]),
            ("notes", vec![Value::Integer(2), Value::Integer(5)]),
        ]);
        device.sync(&mut server);
        assert_eq!(device.closed, None, "{file}");
        assert_eq!(device.query("SELECT id FROM docs"), "d2", "{file}");
        assert_eq!(device.query("SELECT id FROM notes"), "2", "{file}");
        assert_eq!(device.replica.status().unwrap().unstorable, 3, "{file}");
        let is_told = |event: &Event| matches!(event, Event::RowUnstorable { reason, .. } if reason.contains("malformed JSON"));
        assert!(device.events.iter().any(is_told), "{:?}", device.events);
        // A change under an edit that waits.
        server.is_busy = true;
        device.write("UPDATE docs SET body = json_object('name', 'mine') WHERE id = 'd2'");
        server.write(&[doc("d2", "not json any more"), doc("d1", "{}")]);
        device.sync(&mut server);
        server.is_busy = false;
        device.disconnect();
        device.sync(&mut server);
        server.write(&[
            doc("d3", "{\"name\":3}"),
            ("notes", vec![Value::Integer(1), Value::Integer(1)]),
        ]);
        device.sync(&mut server);
        assert_eq!(
            device.query("SELECT id FROM docs ORDER BY id"),
            "d1\nd2\nd3",
            "{file}"
        );
        assert_eq!(device.replica.status().unwrap().unstorable, 0, "{file}");
        device.assert_equal(&server);
    }
}
