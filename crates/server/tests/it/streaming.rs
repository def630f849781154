//! Grants, changes, pages and checkpoints in one order.

use syncline_core::{
    Value, Version,
    wire::{ClientMessage, RowState, ServerMessage},
};

use crate::{
    bed::{Bed, noise},
    client::{Client, PLENTY},
};

fn project(bed: &mut Bed, id: &str) -> Version {
    bed.write("ada", |draw| {
        draw.insert("projects", id, &[("name", "Garden".into())])
    })
}

fn member(bed: &mut Bed, id: &str, project: &str, user: &str) -> Version {
    bed.write("ada", |draw| {
        draw.insert(
            "members",
            id,
            &[
                ("project_id", project.into()),
                ("user_id", user.into()),
                ("role", "editor".into()),
            ],
        )
    })
}

fn task(bed: &mut Bed, id: &str, project: &str) -> Version {
    bed.write("ada", |draw| {
        draw.insert(
            "tasks",
            id,
            &[("project_id", project.into()), ("title", "Dig".into())],
        )
    })
}

fn note(bed: &mut Bed, user: &str, id: i64, body: &str) -> Version {
    bed.write(user, |draw| {
        draw.insert("notes", Value::Integer(id), &[("body", body.into())])
    })
}

/// A reader without credit for longer than the log is kept.
#[test]
fn se8_a_session_that_the_horizon_has_passed_ends_and_misses_nothing() {
    let mut bed = Bed::with_recent(1);
    let mut client = Client::synced(&mut bed, "ada");
    client.prepare_reconnect(&mut bed);
    client.hello.credit = 1;
    client.greet(&mut bed);
    for i in 0..10 {
        note(&mut bed, "ada", i, "body");
    }
    let horizon = note(&mut bed, "ada", 10, "body");
    note(&mut bed, "ada", 11, "body");
    bed.trim(horizon);
    note(&mut bed, "ada", 12, "body");
    client.heard.clear();
    client.credit(&mut bed, PLENTY);
    assert_eq!(client.words(), ["Refusal"], "no half of the log");
    let refusal = client.refusal();
    assert_eq!(
        (refusal.code.as_str(), refusal.retry),
        ("unavailable", true)
    );
    assert!(client.session.is_closed());

    client.hello.credit = PLENTY;
    client.reconnect(&mut bed);
    assert_eq!(client.page_rows().len(), 13);
    assert_eq!(client.checkpoints().last().expect("an end").loading, 0);
}

#[test]
fn se9_each_reader_gets_what_it_lacks_and_no_more() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    project(&mut bed, "p2");
    member(&mut bed, "m1", "p1", "ben");
    member(&mut bed, "m2", "p2", "cleo");
    let born = task(&mut bed, "t", "p1");
    let mut ada = Client::synced(&mut bed, "ada");
    let mut ben = Client::synced(&mut bed, "ben");
    let mut cleo = Client::synced(&mut bed, "cleo");

    // A column changes: those who have the row get just that.
    let titled = bed.write("ada", |draw| {
        draw.set("tasks", "t", born, &[("title", "Dig deep".into())])
    });
    for client in [&mut ada, &mut ben, &mut cleo] {
        client.listen(&mut bed);
    }
    for client in [&ada, &ben] {
        let (body, buckets) = client.records().remove(0);
        assert!(matches!(&body.state, RowState::Columns(columns) if columns.len() == 1));
        assert_eq!(buckets.len(), 1);
    }
    assert!(cleo.heard.is_empty() || cleo.records().is_empty());
    for client in [&mut ada, &mut ben, &mut cleo] {
        client.heard.clear();
    }

    // From one project to the other: ada sees both, ben loses it, cleo gains it.
    let moved = bed.write("ada", |draw| {
        draw.set("tasks", "t", titled, &[("project_id", "p2".into())])
    });
    for client in [&mut ada, &mut ben, &mut cleo] {
        client.listen(&mut bed);
    }
    let (body, buckets) = ada.records().remove(0);
    assert!(
        matches!(&body.state, RowState::Whole { .. }),
        "no bucket in common"
    );
    assert_eq!((body.version, buckets.len()), (moved, 1));
    let (body, buckets) = ben.records().remove(0);
    assert_eq!((&body.state, buckets.len()), (&RowState::Removed, 0));
    assert_eq!(body.author, "", "who took it away is not ben's to know");
    let (body, buckets) = cleo.records().remove(0);
    assert!(matches!(&body.state, RowState::Whole { columns, .. } if columns.len() >= 4));
    assert_eq!(buckets.len(), 1);

    for client in [&mut ada, &mut ben, &mut cleo] {
        client.heard.clear();
    }
    bed.write("ada", |draw| draw.delete("tasks", "t", moved));
    for client in [&mut ada, &mut ben, &mut cleo] {
        client.listen(&mut bed);
    }
    assert_eq!(ada.records()[0].0.state, RowState::Deleted);
    assert_eq!(cleo.records()[0].0.state, RowState::Deleted);
    assert_eq!(cleo.records()[0].0.author, "ada");
    assert!(ben.records().is_empty());
}

#[test]
fn se10_access_gained_comes_before_the_rows_and_loads() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    task(&mut bed, "t", "p1");
    let mut ben = Client::synced(&mut bed, "ben");
    member(&mut bed, "m1", "p1", "ben");
    ben.listen(&mut bed);

    let words = ben.words();
    assert_eq!(words[0], "Grants");
    let grants = ben.grants()[0];
    assert!(!grants.full && grants.drop.is_empty() && !grants.add.is_empty());
    let tables: Vec<_> = ben.page_rows().iter().map(|row| row.table).collect();
    assert!(tables.contains(&bed.table("projects")) && tables.contains(&bed.table("tasks")));
    assert_eq!(ben.checkpoints().last().expect("an end").loading, 0);
}

#[test]
fn se10_access_lost_ends_the_rows_at_once() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let member_at = member(&mut bed, "m1", "p1", "ben");
    let born = task(&mut bed, "t", "p1");
    let mut ben = Client::synced(&mut bed, "ben");
    // The loss and what follows it are waiting together.
    bed.write("ada", |draw| draw.delete("members", "m1", member_at));
    bed.write("ada", |draw| {
        draw.set("tasks", "t", born, &[("title", "secret".into())])
    });
    ben.listen(&mut bed);

    assert_eq!(ben.grants().len(), 1);
    assert!(!ben.grants()[0].drop.is_empty());
    let tasks = bed.table("tasks");
    assert!(ben.records().iter().all(|(row, _)| row.table != tasks));
    let everything = format!("{:?}", ben.heard);
    assert!(!everything.contains("secret"));
}

#[test]
fn se10_one_of_two_reasons_to_see_a_row_is_enough() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let first = member(&mut bed, "m1", "p1", "ben");
    member(&mut bed, "m2", "p1", "ben");
    let mut ben = Client::synced(&mut bed, "ben");
    bed.write("ada", |draw| draw.delete("members", "m1", first));
    ben.listen(&mut bed);
    assert!(ben.grants().is_empty(), "the other membership remains");
}

#[test]
fn se10_the_hub_wakes_those_who_gain_and_nobody_else() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let ada = Client::synced(&mut bed, "ada");
    let mut ben = Client::synced(&mut bed, "ben");
    let cleo = Client::synced(&mut bed, "cleo");
    member(&mut bed, "m1", "p1", "ben");
    let entry = bed.last_entry();
    let woken = bed.hub.concerned(&entry);
    assert!(woken.contains(&ada.id) && woken.contains(&ben.id) && !woken.contains(&cleo.id));

    // Registered anew with what it gained, and forgotten when it leaves.
    ben.listen(&mut bed);
    task(&mut bed, "t", "p1");
    let entry = bed.last_entry();
    assert!(bed.hub.concerned(&entry).contains(&ben.id));
    bed.hub.forget(ben.id);
    assert!(!bed.hub.concerned(&entry).contains(&ben.id));
    assert_eq!(bed.hub.len(), 2);
}

#[test]
fn se11_pages_follow_everything_that_was_committed_before_them() {
    let mut bed = Bed::new();
    for i in 0..40 {
        note(&mut bed, "ada", i, &noise(i.unsigned_abs(), 20_000));
    }
    let mut client = Client::new(&mut bed, "ada");
    client.hello.credit = 1;
    client.greet(&mut bed);
    let mut versions = Vec::new();
    for i in 0..200 {
        // The log grows between the pages.
        if i % 3 == 0 {
            note(&mut bed, "ada", 1_000 + i, "live");
        }
        client.credit(&mut bed, 64 * 1024);
        if client.checkpoints().last().is_some_and(|c| c.loading == 0) {
            break;
        }
    }
    let mut position = Version::ZERO;
    for message in client.messages() {
        match message {
            ServerMessage::Page(page) => {
                assert!(page.version >= position, "a page older than the stream");
                versions.push(page.version);
            }
            ServerMessage::Checkpoint(checkpoint) => position = checkpoint.cursor.version,
            _ => {}
        }
    }
    versions.dedup();
    assert!(versions.len() > 2, "pages were read at several versions");
    // Page rows and records together are everything there is.
    let mut keys: Vec<_> = client.page_rows().into_iter().map(|row| row.key).collect();
    keys.extend(client.records().into_iter().map(|(row, _)| row.key));
    keys.sort();
    keys.dedup();
    client.credit(&mut bed, PLENTY);
    let total = client.checkpoints().last().expect("an end").digests.len();
    assert!(total > 0);
    assert!(keys.len() >= 40);
}

#[test]
fn se12_what_was_read_to_the_end_turns_live_with_its_digest() {
    let mut bed = Bed::new();
    note(&mut bed, "ada", 1, "one");
    note(&mut bed, "ada", 2, "two");
    let client = Client::connected(&mut bed, "ada");
    let entry = bed.last_entry();
    let (bucket, table, digest) = entry.digests[0];
    let last = client.checkpoints().pop().expect("an end");
    assert_eq!(last.loading, 0);
    assert!(
        last.live
            .iter()
            .any(|l| (l.bucket, l.table) == (bucket, table))
    );
    let told = last
        .digests
        .iter()
        .find(|d| (d.bucket, d.table) == (bucket, table));
    let told = told.expect("it carries its digest");
    assert_eq!((told.count, told.sum), (digest.count, digest.sum));
    assert_eq!(told.count, 2);
    // Each part turns live once.
    let mut live = client.live();
    let told = live.len();
    live.sort();
    live.dedup();
    assert_eq!(live.len(), told);
}

#[test]
fn se12_a_part_read_ahead_of_the_stream_waits_for_it() {
    let mut bed = Bed::new();
    note(&mut bed, "ada", 1, "one");
    let mut client = Client::new(&mut bed, "ada");
    client.hello.credit = 1;
    client.greet(&mut bed);
    let read_at = note(&mut bed, "ada", 2, "two");
    client.credit(&mut bed, PLENTY);
    for checkpoint in client.checkpoints() {
        if !checkpoint.live.is_empty() {
            assert!(checkpoint.cursor.version >= read_at);
        }
    }
    assert_eq!(client.checkpoints().last().expect("an end").loading, 0);
}

/// A page shows what is committed, also before the sessions are told of it; and of a commit that
/// has nothing for this reader nobody ever tells.
#[test]
fn se12_a_part_read_ahead_of_the_stream_does_not_wait_for_being_told() {
    let mut bed = Bed::new();
    note(&mut bed, "ada", 1, "one");
    let mut client = Client::new(&mut bed, "ada");
    client.hello.credit = 1;
    client.greet(&mut bed);
    let unheard = bed.world.push("ben/other", |draw| {
        draw.insert("notes", Value::Integer(2), &[("body", "ben's".into())])
    });
    client.credit(&mut bed, PLENTY);
    let last = client.checkpoints().pop().expect("an end");
    assert_eq!((last.loading, last.caught_up), (0, true));
    assert_eq!(last.cursor.version, unheard.version());
    assert!(
        !client.session.needs_storage(),
        "nothing is left to be read"
    );
}

#[test]
fn se13_a_checkpoint_comes_after_two_thousand_records() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    for group in 0..5 {
        bed.write("ada", |draw| {
            (0..1_000).fold(draw, |draw, i| {
                let id = Value::Integer(group * 1_000 + i);
                draw.insert("notes", id, &[("body", "x".into())])
            })
        });
    }
    client.listen(&mut bed);
    let (mut since, mut most) = (0, 0);
    for message in client.messages() {
        match message {
            ServerMessage::Changes(changes) => since += changes.records.len(),
            ServerMessage::Checkpoint(_) => {
                most = most.max(since);
                since = 0;
            }
            _ => {}
        }
    }
    assert_eq!((since, most), (0, 2_000));
    assert_eq!(client.checkpoints().len(), 3);
    assert!(client.checkpoints()[2].caught_up && !client.checkpoints()[0].caught_up);
}

#[test]
fn se13_that_nothing_is_left_is_said_at_once_also_after_a_checkpoint_that_was_due() {
    for groups in [vec![1_000, 1_000], vec![3_000], vec![2_000, 1]] {
        let mut bed = Bed::new();
        let mut client = Client::synced(&mut bed, "ada");
        let mut next = 0;
        for rows in groups {
            bed.write("ada", |draw| {
                (next..next + rows).fold(draw, |draw, i| {
                    draw.insert("notes", Value::Integer(i), &[("body", "x".into())])
                })
            });
            next += rows;
        }
        client.listen(&mut bed);
        assert!(
            client.checkpoints().last().expect("an end").caught_up,
            "{next}"
        );
    }
}

#[test]
fn se13_a_checkpoint_comes_after_a_mebibyte_and_ends_a_changeset() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    let mut ends = Vec::new();
    for i in 0..6 {
        ends.push(note(
            &mut bed,
            "ada",
            i,
            &noise(7 * i.unsigned_abs(), 600_000),
        ));
    }
    client.listen(&mut bed);
    let mut bytes = 0;
    for (message, length) in &client.heard {
        if let ServerMessage::Checkpoint(checkpoint) = message {
            assert!(ends.contains(&checkpoint.cursor.version));
            bytes = 0;
        } else {
            bytes += length;
            assert!(bytes < 2 * 1024 * 1024, "no checkpoint in time");
        }
    }
    assert!(client.checkpoints().len() >= 2);
}

#[test]
fn se13_an_idle_session_is_sent_one_every_25_seconds() {
    let mut bed = Bed::new();
    note(&mut bed, "ada", 1, "one");
    let mut client = Client::synced(&mut bed, "ada");
    let due = client.session.poll_timeout();
    assert_eq!(due, bed.world.now.plus_millis(25_000));
    bed.world.now = bed.world.now.plus_millis(24_999);
    client.listen(&mut bed);
    assert!(client.heard.is_empty());
    bed.world.now = bed.world.now.plus_millis(1);
    client.listen(&mut bed);
    assert_eq!(client.words(), ["Checkpoint"]);
    assert!(client.checkpoints()[0].caught_up);
}

#[test]
fn se13_a_digest_is_that_of_exactly_the_checkpoints_version() {
    let mut bed = Bed::new();
    note(&mut bed, "ada", 1, "one");
    let mut client = Client::synced(&mut bed, "ada");
    for i in 2..5 {
        note(&mut bed, "ada", i, "more");
        client.listen(&mut bed);
        let entry = bed.last_entry();
        let last = client.checkpoints().pop().expect("one each");
        assert_eq!(last.cursor.version, entry.version);
        assert_eq!(last.cursor.tag, entry.tag);
        let (bucket, table, digest) = entry.digests[0];
        let told = last
            .digests
            .iter()
            .find(|d| (d.bucket, d.table) == (bucket, table));
        let told = told.expect("it changed");
        assert_eq!((told.count, told.sum), (digest.count, digest.sum));
    }
}

#[test]
fn se14_a_changeset_without_a_visible_row_has_its_checkpoint() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    let first = client.write(&mut bed, |draw| {
        draw.insert("notes", Value::Integer(1), &[("body", "one".into())])
    });
    client.heard.clear();
    // There is no such row: nothing becomes a record.
    let second = client.write(&mut bed, |draw| {
        draw.delete("notes", Value::Integer(2), first)
    });
    assert!(bed.last_entry().records.is_empty());
    assert_eq!(client.words(), ["PushResult", "Checkpoint"]);
    assert!(client.checkpoints()[0].cursor.version >= second);
}

#[test]
fn se15_the_stream_stops_without_credit() {
    let mut bed = Bed::new();
    for i in 0..20 {
        note(&mut bed, "ada", i, "body");
    }
    let mut client = Client::new(&mut bed, "ada");
    client.hello.credit = 0;
    client.greet(&mut bed);
    assert_eq!(client.words(), ["Welcome"]);

    // One frame may overdraw it, and its length is paid back first.
    client.heard.clear();
    client.credit(&mut bed, 1);
    assert_eq!(client.heard.len(), 1);
    let (_, length) = client.heard[0];
    client.credit(&mut bed, length as u64 - 1);
    assert_eq!(client.heard.len(), 1, "the debt is paid, no more");
    client.credit(&mut bed, 1);
    assert_eq!(client.heard.len(), 2);

    // Answers cost nothing.
    let sent = bed.world.now;
    let ping = syncline_core::wire::Ping { sent, now: sent };
    client.say(&mut bed, &ClientMessage::Ping(ping));
    assert_eq!(client.words().last(), Some(&"Pong"));
    client.credit(&mut bed, PLENTY);
    assert_eq!(client.checkpoints().last().expect("an end").loading, 0);
}

#[test]
fn wi13_credit_is_paid_by_the_frames_length() {
    let mut bed = Bed::new();
    let mut client = Client::new(&mut bed, "ada");
    client.hello.credit = 0;
    client.greet(&mut bed);
    let mut paid = 0;
    for i in 0..200 {
        note(
            &mut bed,
            "ada",
            i,
            &"body ".repeat(usize::try_from(i).expect("small")),
        );
        client.credit(&mut bed, 100);
        paid += 100;
        let costly = client.heard.iter().filter(|(message, _)| {
            matches!(
                message,
                ServerMessage::Grants(_)
                    | ServerMessage::Changes(_)
                    | ServerMessage::Page(_)
                    | ServerMessage::Checkpoint(_)
            )
        });
        let lengths: Vec<usize> = costly.map(|(_, length)| *length).collect();
        let all_but_last: usize = lengths.iter().rev().skip(1).sum();
        assert!(all_but_last < paid, "only the last frame may overdraw it");
    }
}

#[test]
fn se15_a_slow_reader_is_served_from_the_log_in_bounded_memory() {
    let mut bed = Bed::with_recent(64 * 1024);
    let mut client = Client::new(&mut bed, "ada");
    client.hello.credit = 400;
    client.greet(&mut bed);
    client.credit(&mut bed, 4_000);
    assert_eq!(client.checkpoints().last().expect("an end").loading, 0);
    client.heard.clear();
    // Uses up what is left.
    client.prepare_reconnect(&mut bed);
    client.hello.credit = 1;
    client.greet(&mut bed);
    client.heard.clear();
    for i in 0..500 {
        note(&mut bed, "ada", i, &"body ".repeat(200));
        client.listen(&mut bed);
    }
    assert!(
        client.heard.len() <= 2,
        "nothing is sent and nothing buffered"
    );
    assert!(!client.session.has_frames());

    let mut most = 0;
    for _ in 0..2_000 {
        client.session.receive(
            &syncline_core::wire::encode_client(&ClientMessage::Credit(
                syncline_core::wire::Credit {
                    bytes: PLENTY,
                    checkpoint: None,
                },
            )),
            bed.world.now,
        );
        bed.serve(client.id, &mut client.session);
        let mut waiting = 0;
        while let Some(frame) = client.session.poll_frame() {
            waiting += frame.len();
            let message = syncline_core::wire::decode_server(&frame).expect("a message");
            client.heard.push((message, frame.len()));
        }
        most = most.max(waiting);
        if client.records().len() == 500 {
            break;
        }
    }
    assert_eq!(client.records().len(), 500, "every change, once");
    assert!(most <= 1024 * 1024, "{most} bytes waited at once");
}
