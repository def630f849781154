//! What waits for room among what the server keeps for a user (docs/spec/limits.md, LI9).

use crate::{
    authority::{Authority, refusal},
    device::{Device, schema},
};
use syncline_core::{
    Value,
    wire::{Quota, Share},
};

const NUMBERS: &str = "
    CREATE TABLE points(id TEXT PRIMARY KEY NOT NULL, a INTEGER, b INTEGER, c INTEGER, d INTEGER);
    CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT);";

/// A server that keeps so many rows and bytes for a user, of which none is used.
fn keeps(rows: u64, bytes: u64) -> Quota {
    let share = |max| Some(Share { owned: 0, max });
    Quota {
        rows: share(rows),
        bytes: share(bytes),
    }
}

/// A device with nothing in it, and a server that takes no changeset for want of room.
fn full() -> (Authority, Device) {
    let mut server = Authority::new(schema(NUMBERS));
    let mut device = Device::new(NUMBERS, 1);
    device.sync(&mut server);
    server.judge = Box::new(|_| Some(refusal("over_quota", false)));
    server.quota = Some(keeps(0, 0));
    (server, device)
}

/// Connects anew to a server that keeps so much; how many changesets it was sent.
fn sent_to(server: &mut Authority, device: &mut Device, quota: Quota) -> usize {
    server.quota = Some(quota);
    device.disconnect();
    device.sync(server);
    device.pushed().len()
}

#[test]
fn li9_numbers_and_keys_count_as_the_server_counts_them() {
    let (mut server, mut device) = full();
    device.write("INSERT INTO points VALUES('p', 1, 2, 3, 4)");
    device.sync(&mut server);
    assert_eq!(device.parked(), ["over_quota"]);
    // Four numbers are 32 bytes there, whatever they take on the way, and the key counts twice.
    let owned = Value::Text("p".into());
    let key = syncline_core::RowKey::encode(&[owned]).unwrap();
    let counted = 4 * 8 + key.as_bytes().len() as u64 + 1;
    assert_eq!(
        sent_to(&mut server, &mut device, keeps(9, counted - 1)),
        0,
        "it would be refused"
    );
    server.judge = Box::new(|_| None);
    assert_eq!(sent_to(&mut server, &mut device, keeps(9, 200)), 1);
    assert_eq!(device.outbox(), "");
    device.assert_equal(&server);
}

#[test]
fn li9_what_is_too_large_keeps_nothing_smaller_waiting() {
    let (mut server, mut device) = full();
    // Larger than all there is room for, and just too large with what each row counts besides.
    for (many, bytes) in [(110, 500), (110, 170)] {
        for i in 0..many {
            let name = "x".repeat(bytes);
            device.write(&format!(
                "INSERT INTO lists VALUES('large{bytes} {i}', '{name}')"
            ));
        }
    }
    device.write("INSERT INTO lists VALUES('small', 'x')");
    device.sync(&mut server);
    assert_eq!(device.parked().len(), 221);
    server.judge = Box::new(|_| None);
    assert_eq!(sent_to(&mut server, &mut device, keeps(9, 200)), 1);
    let there = "SELECT count(*) FROM lists WHERE id = 'small'";
    assert_eq!(device.query(there), "1");
    assert_eq!(device.parked().len(), 220);
}

#[test]
fn li8_a_welcome_whose_quota_cannot_be_kept_is_taken_at_the_second_try() {
    let (mut server, mut device) = full();
    device.write("INSERT INTO lists VALUES('l1', 'one')");
    device.sync(&mut server);
    assert_eq!(device.parked(), ["over_quota"]);
    server.judge = Box::new(|_| None);
    server.quota = Some(keeps(9, 2_000));
    device.disconnect();
    device.connect();
    device.upload(&mut server);
    let run = |device: &Device, sql: &str| device.replica.connection().execute_batch(sql).unwrap();
    run(
        &device,
        "CREATE TEMP TRIGGER full BEFORE INSERT ON syncline_meta WHEN NEW.key = 'quota'
         BEGIN SELECT RAISE(ABORT, 'the disk is full'); END",
    );
    let welcome = device.link.as_ref().unwrap().out[0].clone();
    assert!(device.replica.handle(&welcome, device.now).is_err());
    run(&device, "DROP TRIGGER full");
    // It counts as not received: handed over once more, it is no message out of turn.
    assert!(device.download());
    assert_eq!(device.closed, None);
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    device.assert_equal(&server);
}
