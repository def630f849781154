//! The replica's half of a session (docs/spec/session.md).

use syncline_core::{
    BucketId, DeviceId, Lease, RowKey, Value,
    wire::{
        ClientMessage, Grants, Hello, Load, PROTOCOL, PushResult, ReloadReason, Resume,
        ServerMessage, Verdict, Welcome, code, decode_client, decode_server, encode_server,
    },
};
use syncline_replica::{BEGIN_ANEW, Event, TIMEOUT};

use crate::{
    authority::{Authority, HOME, USER, refusal},
    device::{Device, SCHEMA, schema},
};

const AWAY: BucketId = BucketId([8; 16]);

fn at_rest() -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'shopping')");
    device.sync(&mut server);
    (server, device)
}

/// The next message of the device.
fn sent(device: &mut Device) -> Option<ClientMessage> {
    let frame = device.replica.poll_transmit()?;
    Some(decode_client(&frame).unwrap())
}

fn hello(device: &mut Device) -> Hello {
    device.connect();
    match sent(device) {
        Some(ClientMessage::Hello(hello)) => hello,
        other => panic!("not a Hello: {other:?}"),
    }
}

fn welcome(device: &Device, hello: &Hello) -> Welcome {
    Welcome {
        protocol: PROTOCOL,
        server: DeviceId([1; 16]),
        device: hello.device,
        lease: hello.next_lease,
        user: USER.into(),
        now: device.now,
        schema: None,
        resume: Resume::Continue,
        next_number: 2,
        pushes_max: 16,
        horizon: syncline_core::Version::ZERO,
        device_name: None,
        subscriptions_max: Some(1_000),
        quota: None,
        head: None,
    }
}

fn handle(device: &mut Device, message: &ServerMessage) {
    let frame = encode_server(message);
    device.replica.handle(&frame, device.now).unwrap();
    device.collect();
}

fn closed(device: &Device) -> (&str, bool) {
    let closing = device.closed.as_ref().unwrap();
    (closing.code.as_str(), closing.retry)
}

#[test]
fn se1_hello_comes_first_and_only_once() {
    let (_, mut device) = at_rest();
    device.disconnect();
    device.write("UPDATE lists SET name = 'waits'");
    let first = hello(&mut device);
    assert_eq!(first.protocol, PROTOCOL);
    device.replica.wake(device.now).unwrap();
    assert_eq!(sent(&mut device), None, "nothing before Welcome");
    let welcome = ServerMessage::Welcome(Box::new(welcome(&device, &first)));
    handle(&mut device, &welcome);
    assert!(matches!(sent(&mut device), Some(ClientMessage::Push(_))));
    handle(&mut device, &welcome);
    assert_eq!(closed(&device), ("malformed", true));
}

#[test]
fn se2_the_next_lease_is_on_disk_before_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.sync(&mut server);
    device.disconnect();
    let first = hello(&mut device);
    let mut device = device.restart(&path);
    let again = hello(&mut device);
    assert_eq!(
        (again.lease, again.next_lease),
        (first.lease, first.next_lease)
    );
    assert_ne!(again.lease, again.next_lease);
    let welcome = Welcome {
        next_number: 1,
        ..welcome(&device, &again)
    };
    handle(&mut device, &ServerMessage::Welcome(Box::new(welcome)));
    device.disconnect();
    let next = hello(&mut device);
    assert_eq!(next.lease, first.next_lease);
    assert!(![first.lease, first.next_lease, Lease::default()].contains(&next.next_lease));
}

#[test]
fn se2_a_restored_backup_becomes_another_device() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("app.db"), dir.path().join("backup.db"));
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.sync(&mut server);
    device.write("INSERT INTO notes VALUES(1, 'in the backup, not sent yet')");
    device.seal();
    device.disconnect();
    std::fs::copy(&path, &backup).unwrap();
    device.sync(&mut server);
    device.write("UPDATE notes SET body = 'after the backup'");
    device.sync(&mut server);
    let before = device.replica.status().unwrap().device;
    let (now, ids) = (device.now, server.ids.len());
    drop(device);

    let mut device = Device::open(rusqlite::Connection::open(&backup).unwrap(), 5);
    device.now = now;
    assert_eq!(
        device.query("SELECT body FROM notes"),
        "in the backup, not sent yet"
    );
    device.sync(&mut server);
    assert!(
        device
            .events
            .iter()
            .any(|e| matches!(e, Event::Connected { forked: true, .. }))
    );
    assert_ne!(device.replica.status().unwrap().device, before);
    assert_eq!(server.ids.len(), ids, "its id is known: no second effect");
    assert_eq!(device.query("SELECT body FROM notes"), "after the backup");
    device.assert_equal(&server);
}

#[test]
fn se3_a_file_keeps_to_its_server_and_user() {
    let (_, mut device) = at_rest();
    for (server, user, code) in [
        (DeviceId([2; 16]), USER, "wrong_server"),
        (DeviceId([1; 16]), "grace", "wrong_user"),
    ] {
        device.disconnect();
        let hello = hello(&mut device);
        assert_eq!(hello.server, DeviceId([1; 16]));
        let welcome = Welcome {
            server,
            user: user.into(),
            ..welcome(&device, &hello)
        };
        handle(&mut device, &ServerMessage::Welcome(Box::new(welcome)));
        assert_eq!(closed(&device), (code, false));
        assert_eq!(device.replica.status().unwrap().user.as_deref(), Some(USER));
    }
    device.disconnect();
    let hello = hello(&mut device);
    let welcome = Welcome {
        protocol: PROTOCOL + 1,
        ..welcome(&device, &hello)
    };
    handle(&mut device, &ServerMessage::Welcome(Box::new(welcome)));
    assert_eq!(closed(&device), ("protocol", false));
}

#[test]
fn se4_hello_lists_the_last_cursors_newest_first() {
    let (mut server, mut device) = at_rest();
    for i in 0..50 {
        server.now = server.now.plus_millis(1 << (i / 3));
        server.write(&[(
            "notes",
            vec![Value::Integer(1), format!("{i}").as_str().into()],
        )]);
        device.sync(&mut server);
    }
    device.disconnect();
    let hello = hello(&mut device);
    let versions: Vec<_> = hello.cursors.iter().map(|cursor| cursor.version).collect();
    assert_eq!(versions[0], server.end());
    assert!(versions.windows(2).all(|pair| pair[0] > pair[1]));
    assert!((5..=32).contains(&versions.len()), "{}", versions.len());
    let reach = versions[0].0 - versions.last().unwrap().0;
    assert!(reach > 100_000_000, "they reach back {reach} µs");
    assert_eq!(hello.buckets_count, 1);
    assert_eq!(hello.buckets_sum, 2 * u64::from_le_bytes([7; 8]));
}

#[test]
fn se5_a_full_list_is_answered_with_what_is_to_be_loaded() {
    let (mut server, mut device) = at_rest();
    device.disconnect();
    let hello = hello(&mut device);
    let message = ServerMessage::Welcome(Box::new(welcome(&device, &hello)));
    handle(&mut device, &message);
    let grants = |add: Vec<BucketId>, reload| {
        ServerMessage::Grants(Grants {
            full: true,
            add,
            drop: Vec::new(),
            reload,
            released: Vec::new(),
            released_tables: Vec::new(),
        })
    };
    let load = |device: &mut Device| match sent(device) {
        Some(ClientMessage::Load(Load { positions })) => positions,
        other => panic!("not a Load: {other:?}"),
    };
    handle(&mut device, &grants(vec![HOME], Vec::new()));
    assert_eq!(load(&mut device), [], "also when there is nothing");
    handle(&mut device, &grants(vec![HOME, AWAY], Vec::new()));
    let positions = load(&mut device);
    // The inbox and three tables.
    assert_eq!(positions.len(), 4);
    assert!(
        positions
            .iter()
            .all(|p| p.bucket == Some(AWAY) && p.after.is_none())
    );
    // Lost and won back: the rows here may be old.
    handle(&mut device, &grants(vec![HOME, AWAY], vec![HOME]));
    assert_eq!(load(&mut device).len(), 8);
    server.granted.insert(AWAY);
    device.disconnect();
    device.sync(&mut server);
    device.assert_equal(&server);
}

#[test]
fn se5a_a_repair_loads_a_table_again_on_the_open_session() {
    let (mut server, mut device) = at_rest();
    let conn = device.replica.connection();
    // A flipped bit: no trigger saw it.
    let damage = "UPDATE lists SET name = 'damaged'";
    conn.set_db_config(
        rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER,
        false,
    )
    .unwrap();
    conn.execute_batch(damage).unwrap();
    conn.set_db_config(
        rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER,
        true,
    )
    .unwrap();
    assert_eq!(device.replica.check_local(9, device.now).unwrap().len(), 1);
    assert!(device.replica.repair(&["nothing".into()]).is_err());
    device.replica.repair(&["lists".into()]).unwrap();
    device.sync(&mut server);
    assert_eq!(device.query("SELECT name FROM lists"), "shopping");
    device.assert_equal(&server);
}

#[test]
fn se6_after_a_reload_no_load_is_sent() {
    let (mut server, mut device) = at_rest();
    server.reload = Some(ReloadReason::Horizon);
    device.disconnect();
    device.sync(&mut server);
    let loads = |message: &&ClientMessage| matches!(message, ClientMessage::Load(_));
    assert_eq!(
        device.link.as_ref().unwrap().received.iter().find(loads),
        None
    );
    assert!(device.events.contains(&Event::Resynced));
    device.assert_equal(&server);
}

#[test]
fn se7_lost_grants_go_before_anything_is_pushed() {
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, _| match table.name.as_str() {
        "notes" => [AWAY].into(),
        _ => [HOME].into(),
    };
    server.granted = [HOME, AWAY].into();
    let mut device = Device::new(SCHEMA, 1);
    server.write(&[("notes", vec![Value::Integer(1), "shared".into()])]);
    device.sync(&mut server);
    device.disconnect();
    server.granted.remove(&AWAY);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT count(*) FROM notes"), "0");
    assert!(device.events.iter().any(|e| matches!(
        e,
        Event::AccessLost {
            buckets: 1,
            rows: 1
        }
    )));
    device.assert_equal(&server);
}

#[test]
fn se15_credit_comes_back_as_frames_are_taken() {
    let mut server = Authority::new(schema(SCHEMA));
    let long = "x".repeat(100_000);
    for i in 1..=40 {
        server.write(&[("notes", vec![Value::Integer(i), long.as_str().into()])]);
    }
    let mut device = Device::empty(1);
    device.connect();
    device.upload(&mut server);
    device.link.as_mut().unwrap().page_rows = 4;
    let mut taken = 0;
    while device.download() || server.page(device.link.as_mut().unwrap()) {
        device.upload(&mut server);
        if let Some(frame) = device.link.as_ref().unwrap().out.front() {
            let counts = !matches!(
                decode_server(frame),
                Ok(ServerMessage::Welcome(_) | ServerMessage::PushResult(_))
            );
            taken += if counts { frame.len() as u64 } else { 0 };
        }
    }
    let credits = device
        .link
        .as_ref()
        .unwrap()
        .received
        .iter()
        .map(|message| match message {
            ClientMessage::Hello(hello) => (hello.credit, 0),
            ClientMessage::Credit(credit) => (0, credit.bytes),
            _ => (0, 0),
        });
    let (window, given): (Vec<u64>, Vec<u64>) = credits.unzip();
    let given: u64 = given.iter().sum();
    assert!(window[0] >= 1 << 20);
    assert!(
        given <= taken && taken - given < window[0] / 2,
        "{given} of {taken}"
    );
}

#[test]
fn se16_pushes_are_numbered_and_at_most_as_many_as_allowed() {
    let (_, mut device) = at_rest();
    device.disconnect();
    for i in 1..=9 {
        device.write(&format!("INSERT INTO notes VALUES({i}, 'x')"));
        device.seal();
    }
    let hello = hello(&mut device);
    let welcome = Welcome {
        pushes_max: 3,
        ..welcome(&device, &hello)
    };
    handle(&mut device, &ServerMessage::Welcome(Box::new(welcome)));
    let pushes = |device: &mut Device| {
        let mut pushes = Vec::new();
        while let Some(message) = sent(device) {
            if let ClientMessage::Push(push) = message {
                let changeset = syncline_core::wire::decode_changeset(&push.body).unwrap();
                pushes.push((push.id, changeset.number));
            }
        }
        pushes
    };
    let first = pushes(&mut device);
    assert_eq!(first.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [2, 3, 4]);
    let verdict = Verdict::Accepted(syncline_core::Version(1_800_000_000_000_000));
    let lost = Vec::new();
    let id = first[0].0;
    handle(
        &mut device,
        &ServerMessage::PushResult(PushResult { id, verdict, lost }),
    );
    assert_eq!(
        pushes(&mut device)
            .iter()
            .map(|(_, n)| *n)
            .collect::<Vec<_>>(),
        [5]
    );
}

#[test]
fn se17_what_was_not_answered_is_pushed_again_with_its_id() {
    let (mut server, mut device) = at_rest();
    for i in 1..=3 {
        device.write(&format!("INSERT INTO notes VALUES({i}, 'x')"));
    }
    device.push(&mut server);
    let first: Vec<_> = device.pushed().iter().map(|c| c.id).collect();
    device.disconnect();
    device.connect();
    device.upload(&mut server);
    device.download();
    device.upload(&mut server);
    let again: Vec<_> = device.pushed().iter().map(|c| c.id).collect();
    assert_eq!(again[..], first[first.len() - 3..]);
    let ids = server.ids.len();
    device.sync(&mut server);
    assert_eq!(server.ids.len(), ids);
    device.assert_equal(&server);
}

#[test]
fn se19_a_busy_server_is_asked_again_after_a_pause() {
    let (mut server, mut device) = at_rest();
    device.write("UPDATE lists SET name = 'first'");
    device.seal();
    device.write("UPDATE lists SET name = 'second'");
    device.write("INSERT INTO notes VALUES(1, 'independent')");
    device.seal();
    let mut asked = 0;
    server.judge = Box::new(move |changeset| {
        let is_first = matches!(changeset.depends.as_slice(), [])
            && changeset.changes[0].key.decode().unwrap()[0] == Value::Text("l1".into());
        asked += 1;
        (is_first && asked < 3).then(|| {
            let mut refusal = refusal("busy", true);
            refusal.retry_after_ms = Some(7_000);
            refusal
        })
    });
    device.sync(&mut server);
    assert_eq!(device.outbox(), "ss");
    assert_eq!(device.query("SELECT body FROM notes"), "independent");
    let first = device.replica.queue(None, 1).unwrap()[0].id;
    let times = |device: &Device| device.pushed().iter().filter(|c| c.id == first).count();
    for (pause, expected) in [(3_000, 1), (3_900, 1), (200, 2)] {
        device.now = device.now.plus_millis(pause);
        device.replica.handle_timeout(device.now).unwrap();
        device.sync(&mut server);
        assert_eq!(times(&device), expected);
    }
    while !device.outbox().is_empty() {
        device.now = device.replica.poll_timeout().unwrap();
        device.replica.handle_timeout(device.now).unwrap();
        device.sync(&mut server);
    }
    assert_eq!(device.query("SELECT name FROM lists"), "second");
    device.assert_equal(&server);
}

#[test]
fn se20_a_server_that_stops_says_when_to_come_back() {
    let (_, mut device) = at_rest();
    let mut stopping = refusal("unavailable", true);
    stopping.fatal = true;
    stopping.retry_after_ms = Some(60_000);
    let frame = encode_server(&ServerMessage::Refusal(stopping));
    device.replica.handle(&frame, device.now).unwrap();
    let closing = device.replica.closing().cloned().unwrap();
    assert_eq!(
        (closing.code.as_str(), closing.retry),
        ("unavailable", true)
    );
    let at = device.replica.disconnected(device.now).unwrap();
    assert!(at >= device.now.plus_millis(60_000));
    let mut unauthorized = refusal("unauthorized", false);
    unauthorized.fatal = true;
    device.connect();
    let frame = encode_server(&ServerMessage::Refusal(unauthorized));
    device.replica.handle(&frame, device.now).unwrap();
    assert_eq!(device.replica.disconnected(device.now), None);
}

#[test]
fn se21_silence_is_broken_by_a_ping_and_ends_the_session() {
    let (_, mut device) = at_rest();
    let heard = device.now;
    let told = heard.plus_millis(2_000);
    device.replica.handle_timeout(told).unwrap();
    while sent(&mut device).is_some() {}
    let at = device.replica.poll_timeout().unwrap();
    assert!(at <= heard.plus_millis(25_000));
    device
        .replica
        .handle_timeout(heard.plus_millis(20_000))
        .unwrap();
    assert_eq!(sent(&mut device), None);
    device.replica.handle_timeout(at).unwrap();
    assert!(matches!(sent(&mut device), Some(ClientMessage::Ping(_))));
    let dead = device.replica.poll_timeout().unwrap();
    assert_eq!(dead, at.plus_millis(10_000));
    device.replica.handle_timeout(dead).unwrap();
    let closing = device.replica.closing().unwrap();
    assert_eq!((closing.code.as_str(), closing.retry), (TIMEOUT, true));
}

#[test]
fn se22_the_pauses_before_reconnecting_grow_and_start_over() {
    let (mut server, mut device) = at_rest();
    let mut longest = Vec::new();
    for attempt in 0..12_u32 {
        device.connect();
        let at = device.disconnect().unwrap();
        let pause = (at.0 - device.now.0) / 1_000;
        let limit = (250_u64 << attempt.min(7)).min(30_000);
        assert!(pause <= limit, "{pause} ms after {attempt} failures");
        longest.push(pause);
    }
    assert!(longest.iter().max().unwrap() > &2_000, "{longest:?}");
    device.sync(&mut server);
    let at = device.disconnect().unwrap();
    assert!(at.0 - device.now.0 <= 250_000);
}

#[test]
fn se22_not_before_the_server_allows_it_and_not_all_at_once() {
    let (_, mut device) = at_rest();
    let mut pauses = std::collections::BTreeSet::new();
    for _ in 0..8 {
        device.connect();
        device
            .replica
            .connect_not_before(device.now.plus_millis(5_000));
        // Who says less does not make it sooner.
        device.replica.connect_not_before(device.now.plus_millis(1));
        let pause = device.disconnect().unwrap().0 - device.now.0;
        assert!(pause >= 5_000_000, "{pause} µs");
        pauses.insert(pause);
    }
    assert!(pauses.len() > 4, "{pauses:?}");
}

#[test]
fn li4_a_server_that_wants_it_slower_is_pushed_nothing_for_so_long() {
    let (_, mut device) = at_rest();
    device.disconnect();
    device.write("INSERT INTO notes VALUES(1, 'small')");
    // Longer than a part.
    device.write("INSERT INTO notes VALUES(2, printf('%.600000c', 'x'))");
    let hello = hello(&mut device);
    let welcome = welcome(&device, &hello);
    handle(&mut device, &ServerMessage::Welcome(Box::new(welcome)));
    let is_push = |message: &ClientMessage| {
        matches!(message, ClientMessage::Push(_) | ClientMessage::PushPart(_))
    };
    // Small one, announcement, first part: then the server says that it is too fast.
    let mut pushes = 0;
    while pushes < 3 {
        pushes += u32::from(is_push(&sent(&mut device).expect("there is more")));
    }
    let slower = syncline_core::wire::Refusal {
        retry_after_ms: Some(30_000),
        fatal: false,
        ..refusal(code::TOO_FAST, true)
    };
    handle(&mut device, &ServerMessage::Refusal(slower));
    assert!(device.replica.closing().is_none(), "the session goes on");
    let (start, mut said) = (device.now, Vec::new());
    // What is not pushed is said in time: the connection stays alive.
    for _ in 0..3 {
        device.now = device.replica.poll_timeout().expect("a time");
        device.replica.handle_timeout(device.now).unwrap();
        if device.now < start.plus_millis(30_000) {
            said.extend(std::iter::from_fn(|| sent(&mut device)));
        }
    }
    assert!(
        said.iter().any(|m| matches!(m, ClientMessage::Ping(_))),
        "{said:?}"
    );
    assert!(!said.iter().any(is_push), "{said:?}");
    device.now = start.plus_millis(30_000);
    device.replica.handle_timeout(device.now).unwrap();
    let rest: Vec<_> = std::iter::from_fn(|| sent(&mut device)).collect();
    let parts = rest.iter().filter_map(|message| match message {
        ClientMessage::PushPart(part) => Some(part.index),
        _ => None,
    });
    assert_eq!(parts.collect::<Vec<_>>(), [1, 2], "where it stopped");
}

#[test]
fn se4_another_set_of_tables_begins_a_new_session() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.connect();
    device.upload(&mut server);
    while device.download() {}
    assert_eq!(closed(&device), (BEGIN_ANEW, true));
    device.sync(&mut server);
    device.assert_equal(&server);
}

#[test]
fn se7_a_number_that_nobody_counts_up_to_is_refused() {
    let (_, mut device) = at_rest();
    device.disconnect();
    device.write("INSERT INTO notes VALUES(1, 'x')");
    for number in [u64::MAX, 1 << 60] {
        let hello = hello(&mut device);
        let welcome = Welcome {
            next_number: number,
            ..welcome(&device, &hello)
        };
        handle(&mut device, &ServerMessage::Welcome(Box::new(welcome)));
        let closing = device.closed.as_ref().unwrap();
        assert!(closing.message.contains("counts up"), "{closing:?}");
    }
}

#[test]
fn se16_what_is_too_large_takes_no_number() {
    let (mut server, mut device) = at_rest();
    device.disconnect();
    let is_connected = |event: &&Event| matches!(event, Event::Connected { .. });
    let before = device.events.iter().filter(is_connected).count();
    let large = "INSERT INTO notes SELECT value, printf('%.*c', 17000000, 'x')
                 FROM json_each('[1, 2, 3, 4]')";
    device.write(large);
    device.write("INSERT INTO lists VALUES('l2', 'small')");
    device.sync(&mut server);
    assert_eq!(device.parked(), [code::TOO_LARGE]);
    let sessions = device.events.iter().filter(is_connected).count();
    assert_eq!(sessions, before + 1, "no gap in the numbers ended it");
}

#[test]
fn se22_a_wake_that_finds_the_file_locked_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut device = Device::create(&path, SCHEMA, 1);
    device.run("INSERT INTO notes VALUES(1, 'x')");
    device
        .replica
        .connection()
        .busy_timeout(std::time::Duration::ZERO)
        .unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    device.replica.wake_within(device.now, 0);
    device.replica.handle_timeout(device.now).unwrap_err();
    let again = device.replica.poll_timeout().expect("another try");
    assert!(again > device.now);
    other.execute_batch("ROLLBACK").unwrap();
    device.replica.handle_timeout(again).unwrap();
    assert_eq!(device.replica.status().unwrap().waiting, 1);
    assert_eq!(device.replica.poll_timeout(), None);
}

#[test]
fn ob4_acknowledged_changesets_expire_on_a_session_that_lasts() {
    let (mut server, mut device) = at_rest();
    let kept = "SELECT count(*) FROM syncline_acknowledged";
    assert_eq!(device.query(kept), "1");
    // The device's clock alone decides nothing: it may be wrong by years.
    device.now = device.now.plus_millis(8 * 24 * 3600 * 1000);
    for i in 0..64 {
        server.write(&[("lists", vec!["l1".into(), i.to_string().as_str().into()])]);
        device.sync(&mut server);
    }
    assert_eq!(device.query(kept), "1");
    server.now = server.now.plus_millis(8 * 24 * 3600 * 1000);
    for i in 0..64 {
        server.write(&[("lists", vec!["l1".into(), i.to_string().as_str().into()])]);
        device.sync(&mut server);
    }
    assert_eq!(device.query(kept), "0");
}

#[test]
fn lo2_a_row_under_the_key_of_another_is_the_servers_fault() {
    let (mut server, _) = at_rest();
    let lists = server.table("lists").number;
    let place = |id: &str| (lists, RowKey::encode([&Value::from(id)]).unwrap());
    let kept = server.rows.remove(&place("l1")).unwrap();
    server.rows.insert(place("l2"), kept);
    let mut device = Device::new(SCHEMA, 2);
    for _ in 0..10 {
        if device.link.is_none() {
            device.connect();
        }
        device.upload(&mut server);
        server.page(device.link.as_mut().unwrap());
        while device.download() {}
        if let Some(closing) = device.closed.clone().filter(|c| c.code != BEGIN_ANEW) {
            assert!(closing.message.contains("another key"), "{closing:?}");
            assert_eq!(device.query("SELECT * FROM lists"), "");
            return;
        }
    }
    panic!("the row was taken");
}
