//! Rows that were in the file before it was attached, and of which the server refuses some
//! (docs/spec/capture.md, SL12).

use syncline_core::{Change, Changeset, Op, Value, wire::code};

use crate::{
    authority::{Authority, refusal},
    device::{Device, SCHEMA, schema},
};

const ROWS: &str = "
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
    INSERT INTO lists SELECT 'l' || i, CASE i WHEN 7 THEN 'bad' WHEN 23 THEN 'bad' ELSE 'good' END FROM n;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
    INSERT INTO items(id, list, title) SELECT 'i' || i, 'l' || i, 'x' FROM n;";

/// Refuses inserts of bad lists, saying which change it was or not.
fn judge(server: &mut Authority, names_it: bool) {
    let lists = server.table("lists").number;
    server.judge = Box::new(move |changeset| {
        let is_bad = |change: &Change| {
            change.table == lists
                && matches!(&change.op, Op::Insert(edits) if edits
                    .iter()
                    .any(|edit| edit.edit == syncline_core::Edit::Set(Value::from("bad"))))
        };
        let place = changeset.changes.iter().position(is_bad)?;
        let mut refusal = refusal(code::FORBIDDEN, false);
        refusal.change = names_it.then(|| u32::try_from(place).unwrap());
        Some(refusal)
    });
}

fn check(names_it: bool) {
    let mut server = Authority::new(schema(SCHEMA));
    judge(&mut server, names_it);
    let mut device = Device::new(&format!("{SCHEMA} {ROWS}"), 1);
    device.sync(&mut server);
    let mut parked = device.parked();
    parked.sort();
    assert_eq!(
        parked,
        ["depends_on", "depends_on", "forbidden", "forbidden"]
    );
    let queue = device.replica.queue(None, 9).unwrap();
    assert!(
        queue.iter().all(|queued| queued.changes_total == 1),
        "{queue:?}"
    );
    assert_eq!(server.rows.len(), 2 * 38);
    device.assert_equal(&server);
    // What was refused can be sent again, with what needs it.
    server.judge = Box::new(|_| None);
    for queued in queue {
        let _retried = device.replica.retry(queued.id, device.now);
    }
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(server.rows.len(), 80);
    device.assert_equal(&server);
}

#[test]
fn sl12_a_refused_row_from_before_attaching_holds_only_what_needs_it() {
    check(true);
}

#[test]
fn sl12_a_refused_row_is_found_where_nobody_names_it() {
    check(false);
}

/// Edited before the first contact, rows from before attaching go with their edits: one references
/// what the next inserts, and the last builds on the first.
#[test]
fn se16_what_waits_for_one_another_in_a_circle_is_sent_all_the_same() {
    let rows = "INSERT INTO lists VALUES('l1', 'a'), ('l2', 'b'), ('l3', 'c');";
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(&format!("{SCHEMA} {rows}"), 1);
    device.write(
        "UPDATE lists SET name = 'd' WHERE id = 'l1';
         INSERT INTO items(id, list) VALUES('i1', 'l2');",
    );
    device.write(
        "UPDATE lists SET name = 'e' WHERE id = 'l2';
         INSERT INTO items(id, list) VALUES('i2', 'l3');",
    );
    device.write(
        "UPDATE lists SET name = 'f' WHERE id = 'l1';
         UPDATE lists SET name = 'g' WHERE id = 'l3';",
    );
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(server.rows.len(), 5);
    device.assert_equal(&server);
}

/// Rows that are the same here and on the server, and were changed here before any page came.
const SAME: &str = "
    INSERT INTO lists VALUES('l1', 'a'), ('l2', 'a');
    INSERT INTO items(id, list, title) VALUES('i1', 'l1', 'a'), ('i2', 'l2', 'a');
    INSERT INTO notes VALUES(1, 'a'), (2, 'a'), (3, 'a'), (4, 'a');";
const CHANGED: &str = "
    UPDATE notes SET body = 'b' WHERE id = 1;
    DELETE FROM notes WHERE id IN (2, 3);
    UPDATE lists SET name = 'b' WHERE id = 'l1';
    DELETE FROM items WHERE id = 'i2';
    DELETE FROM lists WHERE id = 'l2';";

fn with_the_same() -> Authority {
    let mut server = Authority::new(schema(SCHEMA));
    let text = |text: &str| Value::from(text);
    for i in 1..=4 {
        server.write(&[("notes", vec![Value::Integer(i), text("a")])]);
    }
    for (list, item) in [("l1", "i1"), ("l2", "i2")] {
        server.write(&[("lists", vec![text(list), text("a")])]);
        let rest = [text(item), text(list), text("a"), Value::Null, Value::Null];
        server.write(&[("items", rest.to_vec())]);
    }
    server
}

fn check_changed(server: &Authority, device: &mut Device) {
    assert_eq!(device.outbox(), "");
    assert_eq!(device.query("SELECT count(*) FROM syncline_former"), "0");
    assert_eq!(
        device.query("SELECT id, body FROM notes ORDER BY id"),
        "1|b\n3|c\n4|a"
    );
    assert_eq!(device.query("SELECT id, name FROM lists"), "l1|b");
    assert_eq!(device.query("SELECT id FROM items"), "i1");
    assert_eq!(device.parked(), Vec::<String>::new());
    device.assert_equal(server);
}

#[test]
fn sl13_what_was_changed_before_the_first_contact_is_a_change_of_the_servers_row() {
    let mut server = with_the_same();
    let mut device = Device::new(&format!("{SCHEMA} {SAME}"), 1);
    device.write(CHANGED);
    device.write("INSERT INTO notes VALUES(3, 'c')");
    device.sync(&mut server);
    check_changed(&server, &mut device);
}

#[test]
fn sl13_what_was_changed_while_pages_arrive_waits_for_all_of_them() {
    let mut server = with_the_same();
    let mut device = Device::new(&format!("{SCHEMA} {SAME}"), 1);
    // The first contact tells the schema; the second one loads.
    for _ in 0..2 {
        device.connect();
        device.upload(&mut server);
        while device.download() {}
    }
    device.link.as_mut().unwrap().page_rows = 1;
    device.write(CHANGED);
    device.write("INSERT INTO notes VALUES(3, 'c'); INSERT INTO notes VALUES(9, 'mine')");
    device.write("DELETE FROM notes WHERE id = 9");
    while server.page(device.link.as_mut().unwrap()) {
        while device.download() {}
        device.upload(&mut server);
        assert!(device.pushed().is_empty());
    }
    device.sync(&mut server);
    check_changed(&server, &mut device);
}

/// Of a row that differs nobody knows whether it is the same one.
#[test]
fn sl13_what_the_server_has_otherwise_is_not_taken_for_what_was_changed() {
    let mut server = Authority::new(schema(SCHEMA));
    for i in [1, 2] {
        server.write(&[("notes", vec![Value::Integer(i), "theirs".into()])]);
    }
    let rows = "INSERT INTO notes VALUES(1, 'mine'), (2, 'mine'), (3, 'mine'), (4, 'mine');";
    let mut device = Device::new(&format!("{SCHEMA} {rows}"), 1);
    device.write("UPDATE notes SET body = 'edited' WHERE id IN (1, 3)");
    device.write("DELETE FROM notes WHERE id IN (2, 4)");
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(
        device.query("SELECT body FROM notes ORDER BY body"),
        "edited\nedited\ntheirs\ntheirs"
    );
    device.assert_equal(&server);
}

/// The restart is between the page and what follows it.
#[test]
fn sl13_what_waits_for_pages_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = with_the_same();
    let mut device = Device::create(&path, &format!("{SCHEMA} {SAME}"), 1);
    device.write(CHANGED);
    for _ in 0..2 {
        device.connect();
        device.upload(&mut server);
        while device.download() {}
    }
    device.link.as_mut().unwrap().page_rows = 1;
    for _ in 0..3 {
        let _sent = server.page(device.link.as_mut().unwrap());
        while device.download() {}
    }
    let mut device = device.restart(&path);
    device.write("INSERT INTO notes VALUES(3, 'c')");
    device.sync(&mut server);
    // The row that refers to the other goes first, though the other came first.
    let tables = ["items", "lists"].map(|name| server.table(name).number);
    let pushed = device.pushed();
    let deletes = tables.map(|t| {
        let is_it = |change: &Change| change.table == t && change.op == Op::Delete;
        let has_it = |changeset: &Changeset| changeset.changes.iter().any(is_it);
        pushed.iter().position(has_it).unwrap()
    });
    assert!(deletes[0] < deletes[1], "{deletes:?}");
    check_changed(&server, &mut device);
}
