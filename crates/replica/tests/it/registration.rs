//! A device on its user's list: its name, its checkpoint, and what it does when it is taken off.

use syncline_core::{
    DeviceId, Version,
    wire::{
        ClientMessage, Credit, Hello, PROTOCOL, Refusal, Resume, ServerMessage, Welcome, code,
        decode_client, encode_server,
    },
};
use syncline_replica::{AttachOptions, Event};

use crate::{
    authority::{Authority, USER, refusal},
    device::{Device, SCHEMA, schema},
};

fn at_rest() -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'shopping')");
    device.sync(&mut server);
    device.disconnect();
    (server, device)
}

/// What the device says next, all of it.
fn said(device: &mut Device) -> Vec<ClientMessage> {
    let frames = std::iter::from_fn(|| device.replica.poll_transmit());
    frames.map(|frame| decode_client(&frame).unwrap()).collect()
}

fn hello(device: &mut Device) -> Hello {
    device.connect();
    match said(device).remove(0) {
        ClientMessage::Hello(hello) => hello,
        other => panic!("not a Hello: {other:?}"),
    }
}

fn hear(device: &mut Device, message: &ServerMessage) {
    let frame = encode_server(message);
    device.replica.handle(&frame, device.now).unwrap();
    device.collect();
}

fn welcome(device: &mut Device, hello: &Hello, to: DeviceId, name: &str, next_number: u64) {
    let welcome = Welcome {
        protocol: PROTOCOL,
        server: DeviceId([1; 16]),
        device: to,
        lease: hello.next_lease,
        user: USER.into(),
        now: device.now,
        schema: None,
        resume: Resume::Continue,
        next_number,
        pushes_max: 16,
        horizon: Version::ZERO,
        device_name: Some(name.to_owned()),
        subscriptions_max: None,
        quota: None,
        head: None,
    };
    hear(device, &ServerMessage::Welcome(Box::new(welcome)));
}

fn deregistered() -> ServerMessage {
    ServerMessage::Refusal(Refusal {
        fatal: true,
        ..refusal(code::DEREGISTERED, false)
    })
}

fn name(device: &Device) -> String {
    device.replica.device_name().unwrap().0
}

#[test]
fn de2_the_servers_name_is_taken_unless_another_was_given_here() {
    let (_, mut device) = at_rest();
    device.replica.set_device_name("phone").unwrap();
    let first = hello(&mut device);
    assert_eq!((first.device_name.as_str(), first.renamed), ("phone", true));
    device.replica.set_device_name("tablet").unwrap();
    welcome(&mut device, &first, first.device, "phone", 2);
    assert_eq!(
        name(&device),
        "tablet",
        "it was given while the answer was on its way"
    );
    device.disconnect();
    let second = hello(&mut device);
    assert_eq!(
        (second.device_name.as_str(), second.renamed),
        ("tablet", true)
    );
    welcome(&mut device, &second, first.device, "Ana's tablet", 2);
    assert_eq!(name(&device), "Ana's tablet");
    device.disconnect();
    let third = hello(&mut device);
    assert_eq!(
        (third.device_name.as_str(), third.renamed),
        ("Ana's tablet", false)
    );
}

#[test]
fn de3_a_checkpoint_is_told_when_it_was_applied_but_not_all_the_time() {
    let (mut server, mut device) = at_rest();
    let mut told = Vec::new();
    let mut step = |device: &mut Device, server: &mut Authority, text: &str| {
        server.write(&[("lists", vec!["l2".into(), text.into()])]);
        device.sync(server);
        let checkpoints = device.link.as_ref().unwrap().received.iter();
        told = checkpoints
            .filter_map(|message| match message {
                ClientMessage::Credit(Credit { checkpoint, .. }) => *checkpoint,
                _ => None,
            })
            .collect();
        told.len()
    };
    assert_eq!(step(&mut device, &mut server, "a"), 1);
    for text in ["b", "c", "d"] {
        assert_eq!(step(&mut device, &mut server, text), 1);
    }
    assert!(device.replica.poll_timeout() <= Some(device.now.plus_millis(2_000)));
    device.now = device.now.plus_millis(2_000);
    device.replica.handle_timeout(device.now).unwrap();
    device.upload(&mut server);
    assert_eq!(step(&mut device, &mut server, "d"), 2, "the last one, once");
    device.now = device.now.plus_millis(2_000);
    assert_eq!(step(&mut device, &mut server, "e"), 3);
    assert_eq!(told.last(), Some(&server.end()));
}

#[test]
fn de5_a_device_that_was_removed_keeps_everything_and_comes_back_as_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'shopping')");
    device.sync(&mut server);
    device.write("INSERT INTO lists VALUES('l2', 'unsent')");
    let id = device.replica.status().unwrap().device;
    hear(&mut device, &deregistered());
    assert_eq!(
        device.closed.as_ref().map(|closing| closing.retry),
        Some(false)
    );

    let mut device = device.restart(&path);
    let status = device.replica.status().unwrap();
    assert!(status.deregistered);
    device.write("INSERT INTO lists VALUES('l3', 'unsent too')");
    device.connect();
    assert_eq!(said(&mut device), [], "it does not even try");
    device.collect();
    let closed = device
        .closed
        .as_ref()
        .map(|closing| (closing.code.as_str(), closing.retry));
    assert_eq!(closed, Some((code::DEREGISTERED, false)));
    assert_eq!(device.query("SELECT count(*) FROM lists"), "3");
    device.seal();
    let unsent = device.replica.queue(None, 100).unwrap();
    let unsent: Vec<_> = unsent.iter().map(|changeset| changeset.id).collect();
    assert_eq!(unsent.len(), 2);

    device.replica.register_anew(device.now).unwrap();
    assert!(!device.replica.status().unwrap().deregistered);
    let mut device = device.restart(&path);
    let anew = hello(&mut device);
    assert!(anew.register_anew && anew.device == id);
    let fresh = DeviceId([9; 16]);
    welcome(&mut device, &anew, fresh, "phone", 1);
    let connected = |event: &Event| matches!(event, Event::Connected { forked: true, .. });
    assert!(device.events.iter().any(connected));
    let pushed: Vec<_> = said(&mut device)
        .iter()
        .filter_map(|message| match message {
            ClientMessage::Push(push) => {
                let changeset = syncline_core::wire::decode_changeset(&push.body).unwrap();
                Some((changeset.id, changeset.number))
            }
            _ => None,
        })
        .collect();
    assert_eq!(pushed, [(unsent[0], 1), (unsent[1], 2)]);
    device.disconnect();
    let later = hello(&mut device);
    assert_eq!((later.device, later.register_anew), (fresh, false));
}

#[test]
fn de5_registering_anew_asks_for_nothing_where_nobody_was_removed() {
    let (_, mut device) = at_rest();
    device.replica.register_anew(device.now).unwrap();
    assert!(!hello(&mut device).register_anew);
}

#[test]
fn de1_a_new_file_tells_its_name_with_its_first_hello() {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    let options = AttachOptions {
        device_name: "phone".into(),
        platform: "test".into(),
        ..AttachOptions::default()
    };
    let mut device = Device::attach(conn, options, 1);
    let hello = hello(&mut device);
    assert_eq!(
        (hello.device_name.as_str(), hello.platform.as_str()),
        ("phone", "test")
    );
}
