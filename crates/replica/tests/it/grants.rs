//! Grants that are won and lost in the stream (docs/spec/session.md, SE8–SE10).

use syncline_core::{
    BucketId, Value,
    wire::{Grants, ServerMessage},
};
use syncline_replica::Event;

use crate::{
    authority::{Authority, HOME},
    device::{Device, SCHEMA, schema},
};

const AWAY: BucketId = BucketId([8; 16]);

fn item(id: &str, list: &str) -> (&'static str, Vec<Value>) {
    let null = Value::Null;
    (
        "items",
        vec![id.into(), list.into(), null.clone(), null.clone(), null],
    )
}

/// Items of the list `away` are in one bucket, those of `both` in two.
fn two_buckets() -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    server.granted.insert(AWAY);
    server.buckets = |table, row| match (table.name.as_str(), row.0[1].as_text()) {
        ("items", Some("away")) => [AWAY].into(),
        ("items", Some("both")) => [HOME, AWAY].into(),
        _ => [HOME].into(),
    };
    server.write(&[item("i1", "home"), item("i2", "away")]);
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    device.assert_equal(&server);
    device.events.clear();
    (server, device)
}

fn drop_away(server: &mut Authority, device: &mut Device) {
    let link = device.link.as_mut().unwrap();
    server.granted.remove(&AWAY);
    link.drop_granted(AWAY);
    link.send(&ServerMessage::Grants(Grants {
        full: false,
        add: Vec::new(),
        drop: vec![AWAY],
        reload: Vec::new(),
        released: Vec::new(),
        released_tables: Vec::new(),
    }));
}

#[test]
fn se10_records_before_a_lost_grant_count_on_its_bucket_until_the_checkpoint() {
    let (mut server, mut device) = two_buckets();
    // Seen through one bucket, then through both, then the one is lost: all before a checkpoint.
    server.write(&[item("i3", "away"), item("i4", "away")]);
    server.write(&[item("i3", "both")]);
    server.send_changes(device.link.as_mut().unwrap());
    drop_away(&mut server, &mut device);
    server.checkpoint(device.link.as_mut().unwrap());
    while device.download() {}
    assert_eq!(
        device.query("SELECT id, list FROM items ORDER BY id"),
        "i1|home\ni3|both"
    );
    let mismatches = device.events.iter();
    let mismatches = mismatches.filter(|event| matches!(event, Event::DigestMismatch { .. }));
    assert_eq!(mismatches.count(), 0);
    device.assert_equal(&server);
    // Nothing is left of what was seen on the way.
    let left =
        "SELECT (SELECT count(*) FROM syncline_buckets), (SELECT count(*) FROM syncline_rows)";
    assert_eq!(device.query(left), "1|2");
}
