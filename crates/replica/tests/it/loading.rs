//! Loading and live buckets (docs/spec/apply.md, LO).

use syncline_core::{
    BucketId, RowKey, Value, Version,
    wire::{
        Changes, ClientMessage, LoadPosition, Record, ReloadReason, RowBody, RowState,
        ServerMessage, decode_server, encode_server,
    },
};
use syncline_replica::{Event, TableState};

use crate::{
    authority::{Authority, HOME},
    device::{Device, SCHEMA, schema},
};

const AWAY: BucketId = BucketId([8; 16]);

/// A server with `count` notes, and a device that has just said Hello.
fn greeted(count: i64) -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    for i in 1..=count {
        server.write(&[note(i, "theirs")]);
    }
    let mut device = Device::new(SCHEMA, 1);
    // The first contact tells the schema; the second one loads.
    device.connect();
    device.upload(&mut server);
    while device.download() {}
    device.connect();
    device.upload(&mut server);
    while device.download() {}
    device.link.as_mut().unwrap().page_rows = 10;
    (server, device)
}

fn note(id: i64, body: &str) -> (&'static str, Vec<Value>) {
    ("notes", vec![Value::Integer(id), body.into()])
}

/// Sends pages until one of `notes` came, and takes it.
fn page_of_notes(server: &mut Authority, device: &mut Device) {
    page_of("notes", server, device);
}

fn page_of(table: &str, server: &mut Authority, device: &mut Device) {
    let table = server.table(table).number;
    loop {
        assert!(
            server.page(device.link.as_mut().unwrap()),
            "nothing is loading"
        );
        let frame = device.link.as_ref().unwrap().out.back().unwrap().clone();
        assert!(device.download());
        if let Ok(ServerMessage::Page(page)) = decode_server(&frame)
            && page.parts.iter().any(|part| part.table == table)
        {
            return;
        }
    }
}

fn state_of(device: &Device, table: &str) -> TableState {
    let status = device.replica.status().unwrap();
    let found = status.tables.into_iter().find(|t| t.name == table);
    found.unwrap().state
}

/// What the last Hello or Load says is to be loaded of `notes`.
fn asked(server: &Authority, device: &Device) -> Vec<LoadPosition> {
    let notes = server.table("notes").number;
    let received = &device.link.as_ref().unwrap().received;
    let positions = received.iter().rev().find_map(|message| match message {
        ClientMessage::Hello(hello) => Some(hello.loading.clone()),
        ClientMessage::Load(load) => Some(load.positions.clone()),
        _ => None,
    });
    let of_notes = positions.unwrap().into_iter().filter(|p| p.table == notes);
    of_notes.collect()
}

#[test]
fn lo1_a_table_is_live_once_a_checkpoint_says_so() {
    let (mut server, mut device) = greeted(25);
    assert_eq!(state_of(&device, "notes"), TableState::Loading);
    for _ in 0..3 {
        page_of_notes(&mut server, &mut device);
        assert_eq!(state_of(&device, "notes"), TableState::Loading);
    }
    assert_eq!(device.query("SELECT count(*) FROM notes"), "25");
    assert!(device.replica.status().unwrap().loading.is_some());
    let live = |e: &&Event| matches!(e, Event::Live { .. });
    assert_eq!(device.events.iter().filter(live).count(), 0);
    device.sync(&mut server);
    assert_eq!(state_of(&device, "notes"), TableState::Live);
    assert_eq!(device.replica.status().unwrap().loading, None);
    assert_eq!(device.events.iter().filter(live).count(), 1);
    device.assert_equal(&server);
}

#[test]
fn lo2_a_page_shows_as_it_arrives() {
    let (mut server, mut device) = greeted(25);
    page_of_notes(&mut server, &mut device);
    assert_eq!(device.query("SELECT count(*) FROM notes"), "10");
    let progress = device.replica.status().unwrap().loading.unwrap();
    assert_eq!(progress.done, 10);
    page_of_notes(&mut server, &mut device);
    assert_eq!(device.query("SELECT count(*) FROM notes"), "20");
}

/// A row of it that is not in order ends the session, and nothing of the page is there.
#[test]
fn lo2_a_large_page_is_taken_whole_or_not_at_all() {
    for is_broken in [false, true] {
        let mut server = Authority::new(schema(SCHEMA));
        let long = "long ".repeat(20);
        let rows: Vec<_> = (1..=900).map(|i| note(i, &long)).collect();
        server.write(&rows);
        let mut device = Device::new(SCHEMA, 1);
        for _ in 0..2 {
            device.connect();
            device.upload(&mut server);
            while device.download() {}
        }
        let notes = server.table("notes").number;
        while server.page(device.link.as_mut().unwrap()) {
            let out = &mut device.link.as_mut().unwrap().out;
            let frame = out.back_mut().unwrap();
            let Ok(ServerMessage::Page(mut page)) = decode_server(frame) else {
                continue;
            };
            let part = &mut page.parts[0];
            if is_broken && part.table == notes {
                let mut bodies: Vec<_> = RowBody::decode_all(&part.rows)
                    .map(Result::unwrap)
                    .collect();
                bodies.swap(700, 701);
                part.rows.clear();
                for body in bodies {
                    body.encode_into(&mut part.rows);
                }
                assert!(part.rows.len() > 64 * 1024);
                *frame = encode_server(&ServerMessage::Page(page));
            }
        }
        while device.download() {}
        let count = device.query("SELECT count(*) FROM notes");
        assert_eq!(count, if is_broken { "0" } else { "900" });
        assert_eq!(device.closed.is_some(), is_broken);
        device.sync(&mut server);
        device.assert_equal(&server);
    }
}

#[test]
fn lo2_a_page_that_arrives_again_makes_nothing_load_again() {
    let (mut server, mut device) = greeted(25);
    let mut pages = Vec::new();
    while server.page(device.link.as_mut().unwrap()) {
        pages.extend(device.link.as_ref().unwrap().out.back().cloned());
        while device.download() {}
    }
    device.sync(&mut server);
    let tables = device.replica.status().unwrap().tables;
    assert!(
        tables.iter().any(|table| table.name != "notes"),
        "empty ones"
    );
    for page in pages {
        device.link.as_mut().unwrap().out.push_back(page);
        while device.download() {}
        assert_eq!(device.replica.status().unwrap().loading, None);
        assert_eq!(state_of(&device, "notes"), TableState::Live);
    }
    device.assert_equal(&server);
    // What is asked for again is taken.
    let notes = ["notes".to_owned()];
    device.replica.repair(&notes).unwrap();
    assert_eq!(state_of(&device, "notes"), TableState::Loading);
    device.sync(&mut server);
    assert_eq!(state_of(&device, "notes"), TableState::Live);
    device.assert_equal(&server);
}

#[test]
fn lo3_the_higher_version_wins_wherever_it_comes_from() {
    let (mut server, mut device) = greeted(5);
    server.write(&[note(1, "changed once"), note(2, "changed once")]);
    server.send_changes(device.link.as_mut().unwrap());
    let early: Vec<_> = device.link.as_mut().unwrap().out.drain(..).collect();
    server.write(&[note(1, "changed twice")]);
    // The page has the second change, and the log tells the first one after it.
    while server.page(device.link.as_mut().unwrap()) {}
    while device.download() {}
    device.link.as_mut().unwrap().out.extend(early);
    server.advance(device.link.as_mut().unwrap());
    while device.download() {}
    let bodies = "SELECT body FROM notes WHERE id < 4 ORDER BY id";
    assert_eq!(device.query(bodies), "changed twice\nchanged once\ntheirs");
    device.sync(&mut server);
    device.assert_equal(&server);
}

#[test]
fn lo3_what_a_page_knows_early_waits_for_its_checkpoint_in_a_live_bucket() {
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, _| match table.name.as_str() {
        "notes" => [HOME, AWAY].into(),
        _ => [HOME].into(),
    };
    let mut device = Device::new(SCHEMA, 1);
    server.write(&[note(1, "old"), note(2, "old")]);
    device.sync(&mut server);
    device.assert_equal(&server);
    // Another bucket with the same rows is granted; its page is ahead of the live one's log.
    server.grant(device.link.as_mut().unwrap(), AWAY, true);
    while device.download() {}
    server.write(&[note(1, "new")]);
    server.delete("notes", &[Value::Integer(2)]);
    while server.page(device.link.as_mut().unwrap()) {}
    while device.download() {}
    assert_eq!(device.query("SELECT body FROM notes"), "old\nold");
    device.sync(&mut server);
    assert_eq!(device.query("SELECT body FROM notes"), "new");
    device.assert_equal(&server);
    let differs = |e: &&Event| matches!(e, Event::DigestMismatch { .. });
    assert_eq!(device.events.iter().find(differs), None);
}

/// The cursor is older than what was lost, so it says nothing of the page that told more.
#[test]
fn lo6_what_a_lost_log_told_beyond_the_checkpoint_is_asked_for_again() {
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, _| match table.name.as_str() {
        "notes" => [AWAY].into(),
        _ => [HOME].into(),
    };
    let mut device = Device::new(SCHEMA, 1);
    server.write(&[note(1, "old"), note(2, "old"), note(3, "old")]);
    device.sync(&mut server);
    let backup = server.backup();
    server.grant(device.link.as_mut().unwrap(), AWAY, true);
    while device.download() {}
    server.write(&[note(1, "lost")]);
    server.delete("notes", &[Value::Integer(2)]);
    while server.page(device.link.as_mut().unwrap()) {}
    while device.download() {}
    assert_eq!(device.query("SELECT body FROM notes"), "old", "the third");
    device.disconnect();
    server.restore(backup);
    server.granted.insert(AWAY);
    // Later than all that was lost.
    for _ in 0..9 {
        server.write(&[("lists", vec!["l".into(), "written since".into()])]);
    }
    device.sync(&mut server);
    assert_eq!(device.query("SELECT body FROM notes"), "old\nold\nold");
    let differs = |e: &&Event| matches!(e, Event::DigestMismatch { .. });
    assert_eq!(device.events.iter().find(differs), None);
    device.assert_equal(&server);
}

/// As far as a checkpoint has passed, it is not asked for again, though newer pages came since.
#[test]
fn lo6_loading_goes_on_behind_the_last_page_that_a_checkpoint_has_passed() {
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, _| match table.name.as_str() {
        "notes" => [AWAY].into(),
        _ => [HOME].into(),
    };
    let mut device = Device::new(SCHEMA, 1);
    for i in 0..40 {
        server.write(&[note(i, "old")]);
    }
    device.sync(&mut server);
    let position = |device: &Device, column: &str| {
        let sql = format!("SELECT max(hex({column})) FROM syncline_parts WHERE told IS NOT NULL");
        device.query(&sql)
    };
    server.grant(device.link.as_mut().unwrap(), AWAY, true);
    device.link.as_mut().unwrap().page_rows = 10;
    while device.download() {}
    server.write(&[("lists", vec!["l1".into(), "one".into()])]);
    page_of_notes(&mut server, &mut device);
    let (first, begun) = (position(&device, "after"), position(&device, "sure"));
    assert!(first > begun, "{first} {begun}");
    server.advance(device.link.as_mut().unwrap());
    while device.download() {}
    server.write(&[("lists", vec!["l2".into(), "two".into()])]);
    page_of_notes(&mut server, &mut device);
    assert_eq!(position(&device, "sure"), first);
    assert!(position(&device, "after") > first);
    device.disconnect();
    device.connect();
    let after = "SELECT max(hex(after)) FROM syncline_parts";
    assert_eq!(device.query(after), first);
    device.sync(&mut server);
    device.assert_equal(&server);
}

/// The entry that took a row out of one bucket took another bucket from the reader, which has it
/// again since: the record only says that the row went, the page that it is there.
#[test]
fn lo3_a_row_that_went_and_came_back_in_one_version_stays() {
    const MINE: BucketId = BucketId([9; 16]);
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, row| match (table.name.as_str(), &row.0[1]) {
        ("notes", Value::Text(body)) if body == "mine" => [AWAY, MINE].into(),
        ("notes", _) => [AWAY].into(),
        _ => [HOME].into(),
    };
    server.granted = [HOME, AWAY, MINE].into();
    server.write(&[note(1, "mine"), note(2, "mine")]);
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    server.grant(device.link.as_mut().unwrap(), AWAY, false);
    while device.download() {}
    assert_eq!(device.query("SELECT body FROM notes"), "mine\nmine");

    server.write(&[note(1, "theirs")]);
    server.send_changes(device.link.as_mut().unwrap());
    let link = device.link.as_mut().unwrap();
    server.grant(link, AWAY, true);
    // All of it is told before the next checkpoint.
    link.out.pop_back();
    while server.page(device.link.as_mut().unwrap()) {}
    server.checkpoint(device.link.as_mut().unwrap());
    while device.download() {}
    assert_eq!(device.query("SELECT body FROM notes"), "theirs\nmine");
    let differs = |e: &&Event| matches!(e, Event::DigestMismatch { .. });
    assert_eq!(device.events.iter().find(differs), None);
    device.assert_equal(&server);
}

#[test]
fn lo4_a_page_drops_what_it_does_not_have_and_never_local_inserts() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    for i in 1..=30 {
        server.write(&[note(i, "theirs")]);
    }
    device.sync(&mut server);
    device.disconnect();
    for i in [1, 11, 30] {
        server.delete("notes", &[Value::Integer(i)]);
    }
    server.horizon = server.end();
    server.is_busy = true;
    device.write("INSERT INTO notes VALUES(15000, 'mine'), (-5, 'mine')");
    device.write("UPDATE notes SET body = 'edited' WHERE id = 11");
    device.sync(&mut server);
    let expected = "29";
    assert_eq!(device.query("SELECT count(*) FROM notes"), expected);
    assert_eq!(
        device.query("SELECT count(*) FROM notes WHERE body = 'mine'"),
        "2"
    );
    assert_eq!(
        device.query("SELECT count(*) FROM notes WHERE id IN (1, 11, 30)"),
        "0"
    );
    server.is_busy = false;
    server.judge = Box::new(|changeset| {
        let is_update = matches!(changeset.changes[0].op, syncline_core::Op::Update(_));
        is_update.then(|| crate::authority::refusal("row_gone", false))
    });
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.parked(), ["row_gone"]);
    device.assert_equal(&server);
}

#[test]
fn lo5_a_reload_keeps_rows_and_unsent_edits() {
    for reason in [
        ReloadReason::Horizon,
        ReloadReason::New,
        ReloadReason::Rules,
    ] {
        let mut server = Authority::new(schema(SCHEMA));
        let mut device = Device::new(SCHEMA, 1);
        for i in 1..=30 {
            server.write(&[note(i, "theirs")]);
        }
        device.sync(&mut server);
        device.disconnect();
        device.write("UPDATE notes SET body = 'edited' WHERE id = 7");
        device.write("INSERT INTO notes VALUES(100, 'inserted')");
        device.write("DELETE FROM notes WHERE id = 9");
        server.is_busy = true;
        server.write(&[note(3, "changed meanwhile")]);
        server.reload = Some(reason);
        device.connect();
        device.link.as_mut().unwrap().page_rows = 10;
        device.upload(&mut server);
        while device.download() {
            device.upload(&mut server);
            assert_eq!(
                device.query("SELECT count(*) FROM notes"),
                "30",
                "{reason:?}"
            );
        }
        assert_eq!(state_of(&device, "notes"), TableState::Loading);
        device.sync(&mut server);
        let edited = "SELECT id, body FROM notes WHERE id IN (3, 7, 9, 100) ORDER BY id";
        assert_eq!(
            device.query(edited),
            "3|changed meanwhile\n7|edited\n100|inserted"
        );
        server.is_busy = false;
        device.disconnect();
        device.sync(&mut server);
        assert_eq!(
            device.query(edited),
            "3|changed meanwhile\n7|edited\n100|inserted"
        );
        assert_eq!(device.outbox(), "");
        device.assert_equal(&server);
    }
}

#[test]
fn lo5_columns_over_an_old_row_are_mended_by_its_page() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    let item = |title: &str, done: i64| {
        let values = vec![
            "i1".into(),
            Value::Null,
            title.into(),
            Value::Integer(done),
            Value::Null,
        ];
        ("items", values)
    };
    server.write(&[item("old", 0)]);
    device.sync(&mut server);
    device.disconnect();
    server.write(&[item("changed while away", 0)]);
    server.horizon = server.end();
    device.connect();
    device.upload(&mut server);
    while device.download() {}
    // Only one column travels; the file has not the row it changes yet.
    server.write(&[item("changed while away", 1)]);
    server.advance(device.link.as_mut().unwrap());
    while device.download() {}
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT title, done FROM items"),
        "changed while away|1"
    );
    device.assert_equal(&server);
}

#[test]
fn lo5_new_rules_rename_buckets_without_losing_edits() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    server.write(&[note(1, "theirs"), note(2, "theirs")]);
    device.sync(&mut server);
    device.disconnect();
    server.is_busy = true;
    device.write("UPDATE notes SET body = 'edited' WHERE id = 1");
    server.rename(HOME, AWAY);
    server.reload = Some(ReloadReason::Rules);
    // The connection breaks between Welcome and the grants.
    device.connect();
    device.upload(&mut server);
    assert!(device.download());
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT body FROM notes ORDER BY id"),
        "edited\ntheirs"
    );
    assert_eq!(device.outbox(), "s", "nothing was taken away");
    server.is_busy = false;
    device.disconnect();
    device.sync(&mut server);
    device.assert_equal(&server);
}

#[test]
fn lo6_interrupted_loading_goes_on_where_it_was() {
    let (mut server, mut device) = greeted(25);
    page_of_notes(&mut server, &mut device);
    page_of_notes(&mut server, &mut device);
    device.disconnect();
    device.connect();
    device.upload(&mut server);
    let twentieth = RowKey::encode([&Value::Integer(20)]).unwrap();
    let positions = asked(&server, &device);
    assert_eq!(positions.len(), 1);
    assert_eq!(positions[0].after.as_deref(), Some(twentieth.as_bytes()));
    while device.download() {}
    device.link.as_mut().unwrap().page_rows = 10;
    page_of_notes(&mut server, &mut device);
    assert_eq!(device.replica.status().unwrap().loading.unwrap().done, 25);
    device.sync(&mut server);
    device.assert_equal(&server);
    device.disconnect();
    device.connect();
    device.upload(&mut server);
    assert_eq!(asked(&server, &device), []);
}

#[test]
fn lo6_what_changed_behind_the_position_comes_with_the_log() {
    let (mut server, mut device) = greeted(25);
    page_of_notes(&mut server, &mut device);
    device.disconnect();
    server.write(&[note(3, "changed while away"), note(200, "new")]);
    server.delete("notes", &[Value::Integer(4)]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT count(*) FROM notes"), "25");
    device.assert_equal(&server);
}

#[test]
fn lo7_what_is_not_here_cannot_be_taken_away() {
    let (mut server, mut device) = greeted(5);
    let key = RowKey::encode([&Value::Integer(77)]).unwrap();
    let record = |state| {
        let body = RowBody {
            table: server.table("notes").number,
            key: key.clone(),
            version: Version(1),
            state,
            author: String::new(),
            changeset: Default::default(),
            hlc: Default::default(),
        };
        Record {
            body: body.encode(),
            buckets: Vec::new(),
        }
    };
    let changes = Changes {
        buckets: vec![HOME],
        records: vec![record(RowState::Deleted), record(RowState::Removed)],
    };
    let frame = encode_server(&ServerMessage::Changes(changes));
    device.link.as_mut().unwrap().out.push_back(frame);
    server.checkpoint(device.link.as_mut().unwrap());
    while device.download() {}
    assert_eq!(device.closed, None);
    device.sync(&mut server);
    device.assert_equal(&server);
}

#[test]
fn lo8_what_waits_for_a_checkpoint_is_bounded() {
    let (server, mut device) = greeted(0);
    let table = server.table("notes").number;
    let body = RowBody {
        table,
        key: RowKey::encode([&Value::Integer(1)]).unwrap(),
        version: Version(1),
        state: RowState::Columns(vec![(
            server.table("notes").columns[1].number,
            Value::Text("x".repeat(8 << 20)),
        )]),
        author: String::new(),
        changeset: Default::default(),
        hlc: Default::default(),
    };
    let changes = Changes {
        buckets: vec![HOME],
        records: vec![Record {
            body: body.encode(),
            buckets: vec![0],
        }],
    };
    let frame = encode_server(&ServerMessage::Changes(changes));
    let mut taken = 0;
    while device.replica.closing().is_none() {
        device.replica.handle(&frame, device.now).unwrap();
        taken += 1;
        assert!(taken < 20, "more than 160 MB wait for a checkpoint");
    }
    assert_eq!(device.replica.closing().unwrap().code, "too_large");
}

#[test]
fn lo5_what_is_repaired_while_everything_loads_under_new_rules_stays() {
    let (mut server, mut device) = greeted(25);
    server.write(&[("lists", vec!["l1".into(), "one".into()])]);
    device.sync(&mut server);
    device.assert_equal(&server);
    server.reload = Some(ReloadReason::Rules);
    device.disconnect();
    device.connect();
    device.upload(&mut server);
    while device.download() {}
    device.upload(&mut server);
    // Lists have come and are live again, while notes are still to come …
    device.link.as_mut().unwrap().page_rows = 10;
    page_of("lists", &mut server, &mut device);
    server.advance(device.link.as_mut().unwrap());
    while device.download() {}
    // … and are asked for again; the server hears that only after all has come.
    device.replica.repair(&["lists".into()]).unwrap();
    page_of_notes(&mut server, &mut device);
    while server.page(device.link.as_mut().unwrap()) {}
    server.advance(device.link.as_mut().unwrap());
    device.run("UPDATE lists SET name = 'mine'");
    while device.download() {}
    assert_eq!(
        device.query("SELECT name FROM lists"),
        "mine",
        "it is there all the time"
    );
    device.sync(&mut server);
    assert_eq!(device.query("SELECT name FROM lists"), "mine");
    assert_eq!(device.outbox(), "");
    device.assert_equal(&server);
}
