//! What a device and its changesets are called, through every retry, copy and crash.

use std::collections::BTreeSet;

use syncline_core::{
    ChangesetId, DeviceId, Lease,
    wire::{ClientMessage, Hello, decode_client},
};
use syncline_replica::{Event, OLD_COPY};

use crate::{
    authority::Authority,
    device::{Device, SCHEMA, schema},
};

/// Id and number of everything the device pushed in this session.
fn pushed(device: &Device) -> Vec<(ChangesetId, u64)> {
    device.pushed().iter().map(|c| (c.id, c.number)).collect()
}

fn hello(device: &mut Device) -> Hello {
    device.connect();
    let frame = device.replica.poll_transmit().expect("Hello comes first");
    match decode_client(&frame).unwrap() {
        ClientMessage::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn id4_a_changeset_keeps_its_id_through_every_retry_and_happens_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.sync(&mut server);
    device.write("INSERT INTO notes VALUES(1, 'one')");
    device.write("INSERT INTO notes VALUES(2, 'two')");
    device.seal();
    device.push(&mut server);
    let first = pushed(&device);
    let (at, entries) = (server.end(), server.ids.clone());
    assert_eq!(first.len(), 2);
    // The answers are lost, the program dies, and it is all said again.
    device.disconnect();
    let mut device = device.restart(&path);
    device.connect();
    device.upload(&mut server);
    assert!(device.download(), "Welcome");
    device.upload(&mut server);
    assert_eq!(pushed(&device), first);
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(pushed(&device), first);
    assert_eq!(server.ids, entries, "known ids are answered from the log");
    assert_eq!(server.end(), at, "nothing was written again");
    device.assert_equal(&server);

    // Other devices mint other ids, also for the same rows and words.
    let mut ids: BTreeSet<ChangesetId> = first.iter().map(|(id, _)| *id).collect();
    for seed in 2..5 {
        let mut other = Device::new(SCHEMA, seed);
        other.write("INSERT INTO notes VALUES(1, 'one')");
        other.sync(&mut server);
        ids.extend(other.pushed().iter().map(|c| c.id));
    }
    assert_eq!(ids.len(), 5);
}

#[test]
fn id5_numbers_are_contiguous_and_only_the_id_decides_what_happened() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    let mut numbers = Vec::new();
    for round in 1..=3 {
        device.write(&format!("INSERT INTO notes VALUES({round}, 'a')"));
        device.write(&format!("UPDATE notes SET body = 'b' WHERE id = {round}"));
        device.sync(&mut server);
        numbers.extend(pushed(&device).iter().map(|(_, number)| *number));
        device.disconnect();
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);

    // A number that was taken by another changeset means nothing: this id is new, so it happens.
    let before = server.ids.len();
    device.write("INSERT INTO notes VALUES(9, 'new')");
    device.sync(&mut server);
    let (_, number) = pushed(&device)[0];
    assert_eq!((number, server.ids.len()), (7, before + 1));
    device.assert_equal(&server);
}

#[test]
fn id6_each_session_spends_the_lease_of_the_last_for_one_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    assert_eq!(hello(&mut device).lease, Lease::default(), "first contact");
    device.disconnect();
    device.sync(&mut server);
    device.disconnect();
    let mut last = hello(&mut device).lease;
    let mut spent = BTreeSet::from([last]);
    for _ in 0..4 {
        // Said, and the program dies before anybody heard it.
        device.disconnect();
        let lost = hello(&mut device);
        device = device.restart(&path);
        let said = hello(&mut device);
        assert_eq!(said.lease, last, "the lease of the last session");
        assert_eq!(
            said.next_lease, lost.next_lease,
            "what was said was on disk"
        );
        assert!(spent.insert(said.next_lease), "every session has its own");
        device.disconnect();
        device.sync(&mut server);
        device.disconnect();
        last = said.next_lease;
    }
    assert!(!spent.contains(&Lease::default()));
    let forked = |event: &Event| matches!(event, Event::Connected { forked: true, .. });
    assert!(!device.events.iter().any(forked));
}

/// A backup that is younger than the last Hello has the current lease; the numbers tell.
#[test]
fn se2_a_backup_made_within_the_last_session_is_an_old_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("app.db"), dir.path().join("backup.db"));
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.write("INSERT INTO notes VALUES(1, 'before the backup')");
    device.sync(&mut server);
    device.write("INSERT INTO notes VALUES(2, 'in the backup, not sent yet')");
    device.seal();
    std::fs::copy(&path, &backup).unwrap();
    device.write("INSERT INTO notes VALUES(3, 'not in the backup')");
    device.sync(&mut server);
    let original = device.replica.status().unwrap().device;
    let entries = server.ids.clone();

    let mut restored = Device::open(rusqlite::Connection::open(&backup).unwrap(), 7);
    restored.now = device.now;
    restored.write("UPDATE notes SET body = 'after the backup' WHERE id = 1");
    restored.sync(&mut server);
    let forked = |event: &&Event| matches!(event, Event::Connected { forked: true, .. });
    assert_eq!(restored.events.iter().filter(forked).count(), 1);
    assert_ne!(restored.replica.status().unwrap().device, original);
    let again: Vec<_> = entries
        .keys()
        .filter(|id| {
            restored
                .pushed()
                .iter()
                .any(|changeset| changeset.id == **id)
        })
        .collect();
    assert_eq!(again.len(), 1, "with the same id");
    assert_eq!(server.ids.len(), entries.len() + 1, "and once");
    restored.assert_equal(&server);

    // Nothing was used that the file does not know: it is what the server knows.
    restored.disconnect();
    std::fs::copy(&backup, &path).unwrap();
    restored.sync(&mut server);
    assert_eq!(restored.events.iter().filter(forked).count(), 1);
}

/// The server has just answered: nothing is to be waited for, however long it was away before.
#[test]
fn se22_a_file_that_turns_out_to_be_an_old_copy_connects_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("app.db"), dir.path().join("backup.db"));
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.sync(&mut server);
    std::fs::copy(&path, &backup).unwrap();
    device.write("INSERT INTO notes VALUES(1, 'not in the backup')");
    device.sync(&mut server);

    for seed in 0..20 {
        let file = dir.path().join(format!("restored{seed}.db"));
        std::fs::copy(&backup, &file).unwrap();
        let mut restored = Device::open(rusqlite::Connection::open(&file).unwrap(), 7 + seed);
        restored.now = device.now;
        for _ in 0..12 {
            restored.disconnect();
        }
        let before = server.backup();
        restored.connect();
        restored.upload(&mut server);
        server.restore(before);
        let welcome = restored.link.as_mut().unwrap().out.pop_front().unwrap();
        restored.replica.handle(&welcome, restored.now).unwrap();
        assert_eq!(restored.replica.closing().unwrap().code, OLD_COPY);
        let again = restored.disconnect().unwrap();
        assert!(again <= restored.now.plus_millis(250), "{again:?}");
    }
}

#[test]
fn id7_a_copy_gets_a_new_device_id_and_the_old_one_stays_with_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.write("INSERT INTO notes VALUES(1, 'here')");
    device.sync(&mut server);
    device.disconnect();
    let id = |device: &Device| device.replica.status().unwrap().device;
    let original = id(&device);
    assert_ne!(original, DeviceId::default());
    let mut ids = BTreeSet::from([original]);
    let mut twins = Vec::new();
    for n in 0..3 {
        let copy = dir.path().join(format!("copy{n}.db"));
        std::fs::copy(&path, &copy).unwrap();
        let mut twin = Device::open(rusqlite::Connection::open(&copy).unwrap(), 10 + n);
        twin.now = device.now;
        twins.push(twin);
    }
    device.sync(&mut server);
    for twin in &mut twins {
        assert_eq!(id(twin), original, "nobody knows it for a copy yet");
        twin.sync(&mut server);
        assert!(ids.insert(id(twin)), "no id twice");
        twin.disconnect();
        let taken = id(twin);
        twin.sync(&mut server);
        assert_eq!(id(twin), taken, "it is a device of its own now");
        twin.assert_equal(&server);
    }
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(id(&device), original);
}
