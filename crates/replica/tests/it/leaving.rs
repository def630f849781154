//! Rows that leave: their buckets, the file, and every trace in it (docs/spec/apply.md, AP8).

use syncline_core::{BucketId, Value};
use syncline_replica::Event;

use crate::{
    apply::at_rest,
    authority::{Authority, HOME, refusal},
    device::{Device, SCHEMA, schema},
};

const AWAY: BucketId = BucketId([8; 16]);

#[test]
fn ap8_a_row_in_no_granted_bucket_is_erased_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, row| match &row.0[1] {
        Value::Text(name) if table.name == "lists" && name.starts_with("away") => [AWAY].into(),
        _ => [HOME].into(),
    };
    let mut device = Device::create(&path, SCHEMA, 1);
    server.write(&[
        ("lists", vec!["l1".into(), "the secret plan".into()]),
        ("lists", vec!["l2".into(), "harmless".into()]),
    ]);
    device.sync(&mut server);
    server.is_busy = true;
    device.write("UPDATE lists SET name = name || ', edited' WHERE id = 'l1'");
    device.seal();
    server.write(&[("lists", vec!["l1".into(), "away from here".into()])]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM lists"), "l2|harmless");
    assert_eq!(device.parked(), ["no_access"]);
    let id = device.replica.queue(None, 1).unwrap()[0].id;
    device.replica.discard(id).unwrap();
    device.disconnect();
    drop(device);
    let file = std::fs::read(&path).unwrap();
    let holds = |text: &str| {
        file.windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    assert!(holds("harmless"));
    assert!(!holds("the secret plan"));
}

#[test]
fn ap8_a_row_of_two_buckets_stays_until_it_leaves_both() {
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, _| match table.name.as_str() {
        "lists" => [HOME, AWAY].into(),
        _ => [HOME].into(),
    };
    server.granted = [HOME, AWAY].into();
    server.write(&[("lists", vec!["l1".into(), "a".into()])]);
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    device.assert_equal(&server);
    server.grant(device.link.as_mut().unwrap(), AWAY, false);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM lists"), "l1");
    server.grant(device.link.as_mut().unwrap(), HOME, false);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM lists"), "");
    device.assert_equal(&server);
    let lost = |e: &&Event| matches!(e, Event::AccessLost { .. });
    assert_eq!(device.events.iter().filter(lost).count(), 2);
    server.grant(device.link.as_mut().unwrap(), HOME, true);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM lists"), "l1");
    device.assert_equal(&server);
}

#[test]
fn ap8_rows_are_listed_by_bucket_from_the_first_loss_on() {
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, row| match &row.0[1] {
        Value::Text(name) if table.name == "lists" && name == "both" => [HOME, AWAY].into(),
        Value::Text(name) if table.name == "lists" && name == "away" => [AWAY].into(),
        _ => [HOME].into(),
    };
    server.granted = [HOME, AWAY].into();
    let list = |id: &str, name: &str| ("lists", vec![id.into(), name.into()]);
    server.write(&[
        list("l1", "home"),
        list("l2", "both"),
        list("l3", "away"),
        list("l4", "away"),
    ]);
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    let listed = "SELECT count(*) FROM syncline_members";
    assert_eq!(device.query(listed), "0", "nobody needed it");
    server.grant(device.link.as_mut().unwrap(), AWAY, false);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM lists ORDER BY id"), "l1\nl2");
    assert_eq!(device.query(listed), "2");
    server.write(&[list("l5", "home"), list("l1", "gone from here")]);
    device.sync(&mut server);
    assert_eq!(device.query(listed), "3");
    server.grant(device.link.as_mut().unwrap(), AWAY, true);
    device.sync(&mut server);
    device.assert_equal(&server);
    assert_eq!(device.query(listed), "6");
    server.grant(device.link.as_mut().unwrap(), HOME, false);
    device.sync(&mut server);
    device.assert_equal(&server);
    assert_eq!(device.query(listed), "3");
}

#[test]
fn ap8_a_list_by_bucket_that_disagrees_with_its_rows_does_not_keep_a_loss_from_ending() {
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, row| match &row.0[1] {
        Value::Text(name) if table.name == "lists" && name == "away" => [AWAY].into(),
        _ => [HOME].into(),
    };
    server.granted = [HOME, AWAY].into();
    let list = |id: &str, name: &str| ("lists", vec![id.into(), name.into()]);
    server.write(&[list("l1", "home"), list("l2", "away")]);
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    // Damage: the row of one bucket is listed in the other.
    device.run(
        "UPDATE syncline_tables SET members = 1 WHERE name = 'lists';
         INSERT INTO syncline_members(b, t, key)
           SELECT b.b, r.t, r.key FROM syncline_rows r, syncline_buckets b
           WHERE r.t = (SELECT t FROM syncline_tables WHERE name = 'lists')",
    );
    server.grant(device.link.as_mut().unwrap(), AWAY, false);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM lists"), "l1");
    device.assert_equal(&server);
}

#[test]
fn ap8_an_edit_of_a_deleted_row_waits_for_the_servers_verdict() {
    let (mut server, mut device) = at_rest();
    server.is_busy = true;
    device.write("UPDATE lists SET name = 'mine'");
    device.seal();
    server.delete("lists", &["l1".into()]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT count(*) FROM lists"), "0");
    assert_eq!(device.outbox(), "s");
    server.is_busy = false;
    server.judge = Box::new(|_| Some(refusal("row_gone", false)));
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.parked(), ["row_gone"]);
    device.assert_equal(&server);
}
