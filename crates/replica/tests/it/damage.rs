//! Bytes that cannot be read: in the file's metadata (docs/spec/outbox.md, OB13), and in what the
//! server sends (docs/spec/session.md, SE24).

use syncline_core::{
    Timestamp, Value,
    wire::{Changes, Record, ServerMessage, decode_server, encode_server},
};
use syncline_replica::{Event, QueueState, Replica};

use crate::{
    authority::{Authority, HOME},
    device::{Device, SCHEMA, entropy, schema},
};

fn at_rest() -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'one'), ('l2', 'two')");
    device.sync(&mut server);
    device.disconnect();
    (server, device)
}

/// Overwrites what is stored of the changes that fulfil a condition.
fn damage(device: &Device, condition: &str) {
    let sql = format!("UPDATE syncline_changes SET op = x'ff00' WHERE {condition}");
    let changed = device.replica.connection().execute(&sql, []).unwrap();
    assert!(changed > 0);
}

fn messages(device: &Device) -> Vec<String> {
    let queue = device.replica.queue(None, 100).unwrap();
    let message = |queued: syncline_replica::QueuedChangeset| match queued.state {
        QueueState::Parked { message, .. } => Some(message),
        _ => None,
    };
    queue.into_iter().filter_map(message).collect()
}

#[test]
fn ob13_a_changeset_that_cannot_be_read_is_parked_with_what_needs_it() {
    let (mut server, mut device) = at_rest();
    device.write("UPDATE lists SET name = 'uno' WHERE id = 'l1'");
    device.write("UPDATE lists SET name = 'unos' WHERE id = 'l1'");
    device.write("UPDATE lists SET name = 'dos' WHERE id = 'l2'");
    device.seal();
    damage(&device, "seq = (SELECT min(seq) FROM syncline_outbox)");
    server.write(&[("lists", vec!["l3".into(), "three".into()])]);
    device.sync(&mut server);
    assert_eq!(device.parked(), ["damaged", "depends_on"]);
    assert!(messages(&device)[0].contains("cannot be read"));
    assert!(device.events.iter().any(|event| matches!(
        event,
        Event::ChangeRefused { code, parked, .. } if code == "damaged" && parked.len() == 2
    )));
    let lists = "SELECT * FROM lists ORDER BY id";
    assert_eq!(device.query(lists), "l1|one\nl2|dos\nl3|three");
    device.assert_equal(&server);
    // There is nothing to send of it; what needed it can go without.
    let queue = device.replica.queue(None, 9).unwrap();
    assert_eq!(queue[0].changes.len(), 0);
    assert_eq!(queue[0].changes_total, 1);
    assert_eq!(device.replica.retry(queue[0].id, device.now).unwrap(), 1);
    device.replica.discard(queue[0].id).unwrap();
    device.sync(&mut server);
    assert_eq!(device.query(lists), "l1|unos\nl2|dos\nl3|three");
    assert_eq!(device.outbox(), "");
    device.assert_equal(&server);
}

#[test]
fn ob13_a_change_that_cannot_be_read_is_computed_anew_where_the_row_says_what_it_was() {
    let (mut server, mut device) = at_rest();
    device.write("UPDATE lists SET name = 'uno' WHERE id = 'l1'");
    device.write("DELETE FROM lists WHERE id = 'l2'; INSERT INTO lists VALUES('l3', 'three')");
    device.seal();
    damage(&device, "1");
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(device.query("SELECT * FROM lists"), "l1|uno\nl3|three");
    device.assert_equal(&server);
}

#[test]
fn ob13_what_was_written_after_a_changeset_that_cannot_be_read_stays() {
    let (mut server, mut device) = at_rest();
    device.write("UPDATE lists SET name = 'uno' WHERE id = 'l1'");
    device.seal();
    damage(&device, "1");
    device.write("UPDATE lists SET name = 'unos' WHERE id = 'l1'");
    device.write("INSERT INTO lists VALUES('l3', 'three')");
    device.sync(&mut server);
    assert_eq!(device.parked(), ["damaged"]);
    assert_eq!(device.query("SELECT name FROM lists"), "unos\ntwo\nthree");
    device.assert_equal(&server);
}

#[test]
fn ob13_a_file_with_changes_that_cannot_be_read_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'one')");
    device.sync(&mut server);
    server.is_busy = true;
    device.write("UPDATE lists SET name = 'uno'");
    device.write("UPDATE lists SET name = 'unos'");
    device.sync(&mut server);
    damage(&device, "1");
    device.run("ALTER TABLE lists ADD COLUMN color TEXT");
    let mut device = device.restart(&path);
    server.is_busy = false;
    device.sync(&mut server);
    assert_eq!(device.parked()[0], "damaged");
    assert_eq!(device.query("SELECT name FROM lists"), "one");
    device.assert_equal(&server);
}

#[test]
fn ob13_an_accepted_changeset_that_cannot_be_read_comes_back_as_the_server_has_it() {
    let (mut server, mut device) = at_rest();
    device.write("UPDATE lists SET name = 'uno' WHERE id = 'l1'");
    device.connect();
    device.upload(&mut server);
    while device.outbox() != "a" {
        if !device.download() {
            let link = device.link.as_mut().unwrap();
            assert!(server.page(link) || server.advance(link) || device.upload(&mut server) > 0);
        }
        device.upload(&mut server);
    }
    damage(&device, "1");
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(device.query("SELECT name FROM lists"), "uno\ntwo");
    device.assert_equal(&server);
}

#[test]
fn ob13_an_image_that_cannot_be_read_is_loaded_again() {
    let (mut server, mut device) = at_rest();
    server.is_busy = true;
    device.write("UPDATE lists SET name = 'uno' WHERE id = 'l1'");
    device.sync(&mut server);
    device
        .replica
        .connection()
        .execute("UPDATE syncline_shadow SET image = x'ff'", [])
        .unwrap();
    server.write(&[("lists", vec!["l2".into(), "dos".into()])]);
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT name FROM lists ORDER BY id"),
        "uno\ndos"
    );
    server.is_busy = false;
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    device.assert_equal(&server);
}

#[test]
fn ob13_a_lost_acknowledged_changeset_that_cannot_be_read_is_told() {
    let (mut server, mut device) = at_rest();
    let backup = server.backup();
    device.write("UPDATE lists SET name = 'uno' WHERE id = 'l1'");
    device.sync(&mut server);
    let sql = "UPDATE syncline_acknowledged SET body = x'ff' WHERE seq = (
                 SELECT max(seq) FROM syncline_acknowledged)";
    device.replica.connection().execute(sql, []).unwrap();
    server.restore(backup);
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.parked(), ["damaged"]);
    device.assert_equal(&server);
}

/// Makes every frame with records of the log carry one that cannot be read, as long as it lasts.
fn garble(device: &mut Device) {
    let Some(link) = &mut device.link else { return };
    for frame in &mut link.out {
        if let Ok(ServerMessage::Changes(mut changes)) = decode_server(frame) {
            for record in &mut changes.records {
                record.body = vec![0xff, 0x00];
            }
            *frame = encode_server(&ServerMessage::Changes(changes));
        }
    }
}

/// Connects, receives what there is through `garble`; when the next attempt is to be made.
fn attempt(device: &mut Device, server: &mut Authority, is_garbled: bool) -> Option<Timestamp> {
    device.connect();
    loop {
        device.upload(server);
        if is_garbled {
            garble(device);
        }
        device.tick();
        let Some(frame) = device.link.as_mut().and_then(|link| link.out.pop_front()) else {
            let link = device.link.as_mut().unwrap();
            if !server.page(link) && !server.advance(link) {
                return None;
            }
            continue;
        };
        device.replica.handle(&frame, device.now).unwrap();
        if let Some(closing) = device.replica.closing().cloned() {
            device.closed = Some(closing);
            return device.disconnect();
        }
    }
}

#[test]
fn se24_what_cannot_be_read_is_asked_for_anew_once_and_then_ever_more_rarely() {
    let (mut server, mut device) = at_rest();
    server.write(&[("lists", vec!["l1".into(), "uno".into()])]);
    let mut pauses = Vec::new();
    let mut messages = Vec::new();
    for _ in 0..40 {
        // Somebody writes all the time, so that asking anew does not help.
        server.write(&[(
            "lists",
            vec!["l2".into(), Value::Integer(pauses.len() as i64)],
        )]);
        let again = attempt(&mut device, &mut server, true);
        let Some(again) = again else { break };
        messages.push(device.closed.as_ref().unwrap().message.clone());
        pauses.push((again.0 - device.now.0) / 1000);
        device.now = again;
    }
    assert!(messages[0].contains("cannot be read"), "{messages:?}");
    let anew = messages.iter().filter(|message| message.contains("anew"));
    assert_eq!(anew.count(), 1, "{messages:?}");
    // Asked for anew, the rows came by pages.
    assert_eq!(
        device.query("SELECT name FROM lists WHERE id = 'l1'"),
        "uno"
    );
}

#[test]
fn se24_pauses_grow_although_the_server_says_welcome() {
    let (mut server, mut device) = at_rest();
    let garbage = Changes {
        buckets: vec![HOME],
        records: vec![Record {
            body: vec![0xff],
            buckets: vec![0],
        }],
    };
    let garbage = encode_server(&ServerMessage::Changes(garbage));
    let mut longest = 0;
    for i in 0..30 {
        server.write(&[("lists", vec!["l1".into(), Value::Integer(i)])]);
        device.connect();
        let again = loop {
            device.upload(&mut server);
            device.tick();
            let Some(frame) = device.link.as_mut().and_then(|link| link.out.pop_front()) else {
                let link = device.link.as_mut().unwrap();
                assert!(server.page(link) || server.advance(link));
                continue;
            };
            if let Ok(ServerMessage::Checkpoint(_)) = decode_server(&frame) {
                device.replica.handle(&garbage, device.now).unwrap();
            }
            device.replica.handle(&frame, device.now).unwrap();
            if device.replica.closing().is_some() {
                break device.disconnect().unwrap();
            }
        };
        longest = longest.max((again.0 - device.now.0) / 1000);
        device.now = again;
    }
    assert!(longest > 10_000, "the longest pause was {longest} ms");
    // It is sound again: so are the pauses, after a while.
    device.sync(&mut server);
    device.assert_equal(&server);
    device.now = device.now.plus_millis(120_000);
    server.write(&[("lists", vec!["l1".into(), "at rest".into()])]);
    device.sync(&mut server);
    let again = device.disconnect().unwrap();
    assert!(again.0 - device.now.0 <= 250_000, "{again:?}");
}

#[test]
fn ca8_a_file_without_its_list_of_triggers_opens_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'one')");
    device.sync(&mut server);
    device.run("DROP TABLE syncline_capture");
    let mut device = device.restart(&path);
    device.write("INSERT INTO lists VALUES('l2', 'two')");
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    device.assert_equal(&server);
}

#[test]
fn ob13_a_file_that_lost_which_table_or_bucket_a_number_is_of_is_refused() {
    for hurt in [
        "DELETE FROM syncline_tables WHERE name = 'lists'",
        "DELETE FROM syncline_buckets",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        let mut server = Authority::new(schema(SCHEMA));
        let mut device = Device::create(&path, SCHEMA, 1);
        device.write("INSERT INTO lists VALUES('l1', 'one')");
        device.sync(&mut server);
        device.run(hurt);
        let conn = rusqlite::Connection::open(&path).unwrap();
        let opened = Replica::open(conn, entropy(2), device.now);
        let Err(error) = opened else {
            panic!("opened after {hurt}")
        };
        assert_eq!(error.code(), "damaged", "{error}");
        assert!(error.to_string().contains("number is used"), "{error}");
    }
}
