//! Rows that cannot stand beside each other on a device (docs/spec/apply.md, AP6).

use rusqlite::Connection;
use syncline_core::Value;
use syncline_replica::{AttachOptions, Event, Seeding};

use crate::{
    authority::Authority,
    device::{Device, SCHEMA, schema},
};

const ITEMS: &str = "SELECT id, rank FROM items ORDER BY id";

fn item(id: &str, rank: i64) -> (&'static str, Vec<Value>) {
    let values = vec![
        id.into(),
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Integer(rank),
    ];
    ("items", values)
}

/// Takes what the server has, while it judges nothing.
fn receive(device: &mut Device, server: &mut Authority) {
    server.is_busy = true;
    device.sync(server);
    server.is_busy = false;
    device.disconnect();
}

fn told(device: &Device) -> (usize, usize) {
    let count = |is: fn(&Event) -> bool| device.events.iter().filter(|event| is(event)).count();
    (
        count(|event| matches!(event, Event::RowUnstorable { .. })),
        count(|event| matches!(event, Event::ChangeHidden { .. })),
    )
}

#[test]
fn ap6_a_row_from_before_attaching_gives_way_to_the_servers() {
    let mut server = Authority::new(schema(SCHEMA));
    let before = "INSERT INTO items(id, title, rank) VALUES('i1', 'mine', 5), ('i3', 'too', 7)";
    let mut device = Device::new(&format!("{SCHEMA} {before}"), 1);
    server.write(&[item("i2", 5)]);
    receive(&mut device, &mut server);
    assert_eq!(device.query(ITEMS), "i2|5\ni3|7");
    assert_eq!(told(&device), (0, 1));
    assert_eq!(device.replica.status().unwrap().unstorable, 0);
    assert_eq!(device.replica.check_local(9, device.now).unwrap(), []);
    // Sent like any other, and refused by itself: nothing is lost, nothing else is held up.
    device.sync(&mut server);
    assert_eq!(device.parked(), ["constraint"]);
    let parked = device.replica.queue(None, 9).unwrap();
    assert_eq!(parked[0].changes[0].table, "items");
    device.assert_equal(&server);
    assert_eq!(device.query(ITEMS), "i2|5\ni3|7");
    // It is taken once its place is free.
    server.write(&[item("i2", 6)]);
    device.sync(&mut server);
    device.replica.retry(parked[0].id, device.now).unwrap();
    device.sync(&mut server);
    assert_eq!(device.query(ITEMS), "i1|5\ni2|6\ni3|7");
    assert_eq!(
        device.query("SELECT title FROM items WHERE id = 'i1'"),
        "mine"
    );
    device.assert_equal(&server);
}

#[test]
fn ap6_a_row_from_before_attaching_gives_way_whatever_index_is_in_the_way() {
    const PLAIN: &str = "
        CREATE TABLE tags(id TEXT PRIMARY KEY NOT NULL, name TEXT);
        CREATE TABLE words(id TEXT PRIMARY KEY NOT NULL, n INTEGER);";
    const HERE: &str = "
        CREATE TABLE tags(id TEXT PRIMARY KEY NOT NULL, name TEXT);
        CREATE UNIQUE INDEX tags_name ON tags(lower(name)) WHERE name <> '';
        CREATE TABLE words(id TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, n INTEGER);
        INSERT INTO tags VALUES('t1', 'Red'), ('t3', '');
        INSERT INTO words VALUES('one', 1);";
    let mut server = Authority::new(schema(PLAIN));
    server.judge = Box::new(|changeset| {
        (changeset.changes.len() == 1).then(|| crate::authority::refusal("constraint", false))
    });
    let mut device = Device::new(HERE, 1);
    server.write(&[
        ("tags", vec!["t2".into(), "RED".into()]),
        ("tags", vec!["t4".into(), "".into()]),
        ("words", vec!["ONE".into(), Value::Integer(2)]),
    ]);
    receive(&mut device, &mut server);
    assert_eq!(
        device.query("SELECT * FROM tags ORDER BY id"),
        "t2|RED\nt3|\nt4|"
    );
    assert_eq!(device.query("SELECT * FROM words"), "ONE|2");
    assert_eq!(told(&device), (0, 2));
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM words"), "ONE|2");
    assert!(device.parked().iter().all(|code| code == "constraint"));
    assert_eq!(device.replica.status().unwrap().unstorable, 0);
}

#[test]
fn ap6_a_copy_that_is_in_the_way_of_the_servers_row_is_not_lost() {
    let mut server = Authority::new(schema(SCHEMA));
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    conn.execute_batch("INSERT INTO items(id, rank) VALUES('i1', 5), ('i3', 7)")
        .unwrap();
    let options = AttachOptions {
        seeding: Seeding::Skip,
        ..AttachOptions::default()
    };
    let mut device = Device::attach(conn, options, 1);
    // Meanwhile the server's rows are others than when the file was found equal.
    server.write(&[item("i2", 5), item("i3", 7)]);
    device.sync(&mut server);
    assert_eq!(device.query(ITEMS), "i2|5\ni3|7");
    assert_eq!(device.parked(), ["constraint"]);
    device.assert_equal(&server);
}

#[test]
fn ap6_a_hidden_change_leaves_what_the_server_has_whoever_wanted_its_place() {
    let mut server = Authority::new(schema(SCHEMA));
    server.write(&[item("i1", 1), item("i2", 2), item("i4", 4)]);
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    server.is_busy = true;
    device.write("UPDATE items SET rank = 3 WHERE id = 'i1'");
    device.write("UPDATE items SET rank = 1 WHERE id = 'i2'");
    device.write("UPDATE items SET rank = 2 WHERE id = 'i4'");
    device.sync(&mut server);
    assert_eq!(device.query(ITEMS), "i1|3\ni2|1\ni4|2");
    server.write(&[item("i3", 3)]);
    device.sync(&mut server);
    assert_eq!(device.query(ITEMS), "i1|1\ni2|2\ni3|3\ni4|4");
    assert_eq!(told(&device), (0, 3));
    assert_eq!(device.replica.check_local(9, device.now).unwrap(), []);
    // What was in the way goes: everything shows again as it was written.
    server.write(&[item("i3", 9)]);
    device.sync(&mut server);
    assert_eq!(device.query(ITEMS), "i1|3\ni2|1\ni3|9\ni4|2");
    server.is_busy = false;
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    device.assert_equal(&server);
}

#[test]
fn ap6_a_row_is_shown_as_soon_as_a_verdict_takes_what_was_in_its_way() {
    // Only this file says that names are unique.
    let strict = SCHEMA.replace("name TEXT", "name TEXT UNIQUE");
    let mut server = Authority::new(schema(SCHEMA));
    server.write(&[("lists", vec!["l1".into(), "one".into()])]);
    let mut device = Device::new(&strict, 1);
    device.sync(&mut server);
    server.is_busy = true;
    device.write("UPDATE lists SET name = 'two' WHERE id = 'l1'");
    device.write("INSERT INTO lists VALUES('l2', 'one')");
    device.sync(&mut server);
    server.write(&[("lists", vec!["l3".into(), "two".into()])]);
    device.sync(&mut server);
    let lists = "SELECT id, name FROM lists ORDER BY id";
    assert_eq!(device.query(lists), "l1|one\nl3|two");
    server.is_busy = false;
    let lists_number = server.table("lists").number;
    server.judge = Box::new(move |changeset| {
        let insert = changeset.changes.iter().any(|change| {
            change.table == lists_number && matches!(change.op, syncline_core::Op::Insert(_))
        });
        (!insert).then(|| crate::authority::refusal("forbidden", false))
    });
    server.delete("lists", &["l3".into()]);
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.parked(), ["forbidden"]);
    // The server has 'one' twice, which only one row here can have.
    assert_eq!(device.query(lists), "l1|one");
    assert_eq!(device.replica.status().unwrap().unstorable, 1);
}
