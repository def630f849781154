//! What a replica asks for of tables that sync on demand (docs/spec/demand.md).

use rusqlite::Connection;
use syncline_core::{
    BucketId, Value,
    wire::{ClientMessage, Grants, Hello, ServerMessage, Subscribe, Subscription as Asked},
};
use syncline_replica::{AttachOptions, Event, SubscriptionState, Topic, Wanted};

use crate::{
    authority::{Authority, HOME},
    device::{Device, SCHEMA, schema},
};

/// What is subscribed to lies in these; here by the column that names the list.
const FIRST: BucketId = BucketId([8; 16]);
const SECOND: BucketId = BucketId([9; 16]);

fn list(name: &str) -> Topic {
    Topic {
        table: "items".to_owned(),
        what: Wanted::Value {
            column: "list".to_owned(),
            value: name.into(),
        },
    }
}

fn item(id: &str, list: &str) -> (&'static str, Vec<Value>) {
    let null = Value::Null;
    let row = [id.into(), list.into(), null.clone(), null.clone(), null];
    ("items", row.into())
}

/// A device that subscribes to two lists and has an item of each.
fn subscribed(mut device: Device) -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    server.granted.extend([FIRST, SECOND]);
    server.buckets = |table, row| match (table.name.as_str(), row.0[1].as_text()) {
        ("items", Some("first")) => [FIRST].into(),
        ("items", Some("second")) => [SECOND].into(),
        ("items", Some("elsewhere")) => [BucketId([10; 16])].into(),
        _ => [HOME].into(),
    };
    server.write(&[item("i1", "first"), item("i2", "second")]);
    for name in ["first", "second"] {
        assert!(device.replica.subscribe(&list(name), device.now).unwrap());
    }
    device.sync(&mut server);
    device.assert_equal(&server);
    device.events.clear();
    (server, device)
}

fn memory() -> Device {
    Device::new(SCHEMA, 1)
}

fn unsubscribe(device: &mut Device, name: &str) {
    let done = device.replica.unsubscribe(&list(name), 0, device.now);
    assert!(done.unwrap());
}

fn take(server: &mut Authority, device: &mut Device, bucket: BucketId, is_released: bool) {
    let link = device.link.as_mut().unwrap();
    server.granted.remove(&bucket);
    link.drop_granted(bucket);
    link.send(&ServerMessage::Grants(Grants {
        full: false,
        add: Vec::new(),
        drop: vec![bucket],
        reload: Vec::new(),
        released: is_released.then_some(bucket).into_iter().collect(),
        released_tables: Vec::new(),
    }));
}

fn told(device: &Device) -> Vec<Subscribe> {
    let received = device.link.iter().flat_map(|link| &link.received);
    let told = received.filter_map(|message| match message {
        ClientMessage::Subscribe(subscribe) => Some(subscribe.clone()),
        _ => None,
    });
    told.collect()
}

fn hello(device: &Device) -> Hello {
    match device.link.iter().flat_map(|link| &link.received).next() {
        Some(ClientMessage::Hello(hello)) => hello.clone(),
        other => panic!("not a Hello: {other:?}"),
    }
}

fn asked(hello: &Hello) -> Vec<Asked> {
    hello.subscriptions.clone().unwrap()
}

fn states(device: &Device) -> Vec<SubscriptionState> {
    let found = device.replica.subscriptions().unwrap();
    found
        .iter()
        .map(|subscription| subscription.state)
        .collect()
}

#[test]
fn su4_what_is_revoked_while_the_end_of_a_subscription_is_unanswered_is_lost() {
    let (mut server, mut device) = subscribed(memory());
    unsubscribe(&mut device, "first");
    device.upload(&mut server);
    assert_eq!(told(&device)[0].drop.len(), 1);
    // The permission for the other list went before the server came to it.
    take(&mut server, &mut device, SECOND, false);
    take(&mut server, &mut device, FIRST, true);
    server.checkpoint(device.link.as_mut().unwrap());
    while device.download() {}
    let lost = device.events.iter().filter_map(|event| match event {
        Event::AccessLost { buckets, rows } => Some(("lost", *buckets, *rows)),
        Event::Released { buckets, rows } => Some(("released", *buckets, *rows)),
        _ => None,
    });
    assert_eq!(
        lost.collect::<Vec<_>>(),
        [("lost", 1, 1), ("released", 1, 1)]
    );
    assert_eq!(device.query("SELECT count(*) FROM items"), "0");
    assert_eq!(states(&device).len(), 1, "the other is subscribed to still");
}

#[test]
fn su3_an_end_that_was_not_answered_is_told_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let (mut server, mut device) = subscribed(Device::create(&path, SCHEMA, 1));
    unsubscribe(&mut device, "first");
    device.upload(&mut server);
    let end = told(&device).remove(0);

    // The connection breaks before the answer, and so does the process.
    let mut device = device.restart(&path);
    device.connect();
    device.upload(&mut server);
    let hello = hello(&device);
    assert!(
        asked(&hello).contains(&end.drop[0]),
        "or it would be lost, nobody knows why"
    );
    while device.download() {}
    device.upload(&mut server);
    let again = told(&device).remove(0);
    assert_eq!(again.drop, end.drop);
    assert!(again.number > end.number);
    assert_eq!(states(&device).len(), 2);
    take(&mut server, &mut device, FIRST, true);
    server.checkpoint(device.link.as_mut().unwrap());
    while device.download() {}
    assert_eq!(states(&device), [SubscriptionState::Live]);
    assert!(
        device
            .events
            .iter()
            .any(|event| matches!(event, Event::Released { rows: 1, .. }))
    );
}

#[test]
fn su4_who_subscribes_again_before_the_end_is_answered_gets_everything_again() {
    let (mut server, mut device) = subscribed(memory());
    unsubscribe(&mut device, "first");
    device.upload(&mut server);
    take(&mut server, &mut device, FIRST, true);
    server.checkpoint(device.link.as_mut().unwrap());
    // On its way while the app changes its mind.
    device
        .replica
        .subscribe(&list("first"), device.now)
        .unwrap();
    let is = [SubscriptionState::Live, SubscriptionState::Waiting];
    assert_eq!(states(&device), is);
    while device.download() {}
    assert_eq!(device.query("SELECT id FROM items"), "i2");
    let why = "the answer to the end is not one to the beginning";
    assert_eq!(states(&device), is, "{why}");
    device.upload(&mut server);
    let told = told(&device);
    assert_eq!(told[1].add, told[0].drop);
    let link = device.link.as_mut().unwrap();
    server.grant(link, FIRST, true);
    device.sync(&mut server);
    assert_eq!(states(&device), [SubscriptionState::Live; 2]);
    device.assert_equal(&server);
}

#[test]
fn su4_an_edit_of_a_row_that_leaves_what_is_subscribed_to_is_sent_all_the_same() {
    let (mut server, mut device) = subscribed(memory());
    device.run("UPDATE items SET title = 'mine' WHERE id = 'i1'");
    device.seal();
    // Somebody moves the row to a list that this device may see and does not subscribe to.
    let link = device.link.as_mut().unwrap();
    link.releases = true;
    server.write(&[item("i1", "elsewhere")]);
    server.advance(link);
    while device.download() {}
    let refused = device.events.iter();
    let refused = refused.filter(|event| matches!(event, Event::ChangeRefused { .. }));
    assert_eq!(refused.count(), 0, "nobody took the row away");
    device.sync(&mut server);
    assert_eq!(device.link.as_ref().unwrap().pushed().len(), 1);
    assert_eq!(device.query("SELECT id FROM items"), "i2");
}

#[test]
fn su9_all_at_once_are_no_more_than_allowed_with_those_that_there_are() {
    let (_server, mut device) = subscribed(memory());
    let more = |count: usize| -> Vec<Topic> {
        let all = (0..count).map(|n| list(&n.to_string()));
        all.chain([list("first")]).collect()
    };
    let now = device.now;
    let refused = device.replica.subscribe_all(&more(999), 5_000, now);
    let message = refused.expect_err("1,001").to_string();
    assert!(message.contains("1000"), "{message}");
    assert_eq!(states(&device).len(), 2, "all or none");
    device
        .replica
        .subscribe_all(&more(998), 5_000, now)
        .unwrap();
    assert_eq!(states(&device).len(), 1_000);
    device
        .replica
        .subscribe_all(&more(998), 5_000, now)
        .unwrap();

    // A file that has met no server does not know what that one allows.
    let mut device = memory();
    device.replica.subscribe(&list("first"), now).unwrap();
    device
        .replica
        .subscribe_all(&more(2), 2, now)
        .expect_err("three");
    device.replica.subscribe_all(&more(2), 3, now).unwrap();
}

#[test]
fn su5_what_the_server_was_never_told_is_not_live() {
    let (mut server, mut device) = subscribed(memory());
    server.subscriptions_max = 2;
    device
        .replica
        .subscribe(&list("third"), device.now)
        .unwrap();
    device.connect();
    device.sync(&mut server);
    let (live, waiting) = (SubscriptionState::Live, SubscriptionState::Waiting);
    assert_eq!(states(&device), [live, live, waiting]);

    // Nor is it when there is room, until the server has heard of it.
    unsubscribe(&mut device, "first");
    device.upload(&mut server);
    let told = told(&device);
    assert_eq!(told.last().unwrap().add.len(), 1);
    let states = states(&device);
    assert_eq!(states[..2], [live, waiting]);
}

#[test]
fn su5_what_a_file_keeps_of_subscriptions_is_bounded() {
    let (_server, mut device) = subscribed(memory());
    let long = "x".repeat(7_000);
    let mut refused = None;
    for n in 0..200 {
        if let Err(error) = device
            .replica
            .subscribe(&list(&format!("{n}{long}")), device.now)
        {
            refused = Some((n, error.to_string()));
            break;
        }
    }
    let (n, message) = refused.expect("a Hello has to hold all of it");
    assert!(
        (140..150).contains(&n) && message.contains("1048576 bytes"),
        "{n}: {message}"
    );
    // Those that only last a while count, too.
    let conn: &Connection = device.replica.connection();
    let stored: i64 = conn
        .query_row(
            "SELECT sum(length(key)) FROM syncline_subscriptions",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert!(stored <= 1024 * 1024);
}

#[test]
fn su3_what_hello_could_not_name_is_live_only_once_the_server_has_heard_of_it() {
    let mut server = Authority::new(schema(SCHEMA));
    server.write(&[item("i1", "first")]);
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    let options = AttachOptions {
        create_missing: true,
        ..AttachOptions::default()
    };
    let mut device = Device::attach(conn, options, 1);
    let topic = list("first");
    assert!(device.replica.subscribe(&topic, device.now).unwrap());
    // Which table that is the device learns from the Welcome.
    device.connect();
    device.upload(&mut server);
    let hello = hello(&device);
    assert_eq!(asked(&hello), []);
    // All of what it has to load has come before the server hears what else it wants.
    let link = device.link.as_mut().unwrap();
    while server.page(link) {}
    server.advance(link);
    while device.download() {}
    assert_eq!(states(&device), [SubscriptionState::Waiting]);
    let live = |event: &Event| matches!(event, Event::Subscribed(_));
    assert!(!device.events.iter().any(live));
    device.upload(&mut server);
    let told = told(&device).remove(0);
    assert_eq!(told.add.len(), 1);
    assert!(
        told.number > hello.subscribed,
        "an answer to Hello is none to this"
    );
    server.checkpoint(device.link.as_mut().unwrap());
    while device.download() {}
    assert_eq!(states(&device), [SubscriptionState::Live]);
    assert_eq!(device.events.iter().filter(|event| live(event)).count(), 1);
    device.assert_equal(&server);
}
