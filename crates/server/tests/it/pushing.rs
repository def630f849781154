//! Changesets and their verdicts.

use syncline_core::{
    Value,
    wire::{
        ClientMessage, Push, PushPart, ServerMessage, TokenRenewal, Verdict, code, encode_changeset,
    },
};
use syncline_server::{
    Rates,
    session::{PUSHES_MAX, SILENCE_MAX_MILLIS},
};

use crate::{
    bed::{Bed, FRESH_TOKEN},
    client::{Client, accepted, code_of, push_of},
};

fn note(bed: &Bed, client: &mut Client, id: i64) -> syncline_core::Changeset {
    client.draw(bed, |draw| {
        draw.insert("notes", Value::Integer(id), &[("body", "text".into())])
    })
}

#[test]
fn se16_every_push_is_answered_once_and_in_order() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    let mut ids = Vec::new();
    for i in 0..5 {
        let changeset = note(&bed, &mut client, i);
        ids.push(changeset.id);
        client.session.receive(
            &syncline_core::wire::encode_client(&push_of(&changeset)),
            bed.world.now,
        );
    }
    assert!(client.session.has_unanswered());
    client.listen(&mut bed);
    let answered: Vec<_> = client.results().iter().map(|result| result.id).collect();
    assert_eq!(answered, ids);
    assert!(!client.session.has_unanswered());
    assert_eq!(client.session.held().unanswered_bytes, 0);
}

#[test]
fn se16_a_number_beyond_the_next_is_a_gap_to_be_closed() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    let first = note(&bed, &mut client, 1);
    let second = note(&bed, &mut client, 2);
    client.push(&mut bed, &second);
    let result = client.results()[0].clone();
    assert_eq!(code_of(&result), code::GAP);
    assert!(matches!(&result.verdict, Verdict::Refused(refusal) if refusal.retry));

    client.heard.clear();
    client.push(&mut bed, &first);
    client.push(&mut bed, &second);
    let results = client.results();
    assert!(accepted(results[0]) < accepted(results[1]));
}

#[test]
fn se16_more_unanswered_pushes_than_allowed_end_the_session() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    for i in 0..=i64::from(PUSHES_MAX) {
        let changeset = syncline_core::Changeset {
            id: {
                let mut id = [7; 16];
                id[..8].copy_from_slice(&i.to_le_bytes());
                syncline_core::ChangesetId(id)
            },
            ..note(&bed, &mut Client::new(&mut Bed::new(), "x"), i)
        };
        client.session.receive(
            &syncline_core::wire::encode_client(&push_of(&changeset)),
            bed.world.now,
        );
    }
    assert!(client.session.is_closed());
    let mut last = None;
    while let Some(frame) = client.session.poll_frame() {
        last = Some(syncline_core::wire::decode_server(&frame).expect("a message"));
    }
    let Some(ServerMessage::Refusal(refusal)) = last else {
        panic!("no refusal, but {last:?}");
    };
    assert_eq!(refusal.code, code::MALFORMED);
    client.heard.clear();
    client.listen(&mut bed);
}

#[test]
fn se16_a_session_with_much_unanswered_hears_nothing_more() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    let body = "x".repeat(3 * 1024 * 1024);
    for i in 0..3 {
        assert!(client.session.is_listening());
        let changeset = client.draw(&bed, |draw| {
            draw.insert(
                "notes",
                Value::Integer(i),
                &[("body", body.as_str().into())],
            )
        });
        client.session.receive(
            &syncline_core::wire::encode_client(&push_of(&changeset)),
            bed.world.now,
        );
    }
    assert!(!client.session.is_listening());
    assert!(client.session.held().unanswered_bytes > 8 * 1024 * 1024);
    client.listen(&mut bed);
    assert!(client.session.is_listening());
    assert_eq!(client.results().len(), 3);
}

#[test]
fn se17_an_unanswered_push_is_answered_from_the_log_after_a_reconnect() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    let changeset = note(&bed, &mut client, 1);
    bed.world.now = bed.world.now.plus_millis(1);
    client.push(&mut bed, &changeset);
    let version = accepted(client.results()[0]);
    let end = bed.last_entry().version;

    // The answer was lost.
    client.reconnect(&mut bed);
    assert_eq!(client.welcome().next_number, 2);
    bed.world.now = bed.world.now.plus_millis(1);
    client.push(&mut bed, &changeset);
    assert_eq!(accepted(client.results()[0]), version);
    assert_eq!(
        bed.last_entry().version,
        end,
        "nothing was added to the log"
    );
}

#[test]
fn se17_the_id_is_what_counts_also_from_another_device_and_after_a_restart() {
    let mut bed = Bed::new();
    let mut phone = Client::synced(&mut bed, "ada");
    let changeset = note(&bed, &mut phone, 1);
    phone.push(&mut bed, &changeset);
    let version = accepted(phone.results()[0]);
    bed.restart();
    let mut laptop = Client::synced(&mut bed, "ada/2");
    laptop.push(&mut bed, &changeset);
    assert_eq!(accepted(laptop.results()[0]), version);

    let mut ben = Client::synced(&mut bed, "ben");
    ben.push(&mut bed, &changeset);
    assert_eq!(code_of(ben.results()[0]), code::ID_REUSED);
}

/// A copy of a file that is in use has its lease; from the copy's Hello on, it is the device.
#[test]
fn se2_of_two_sessions_of_one_device_only_the_younger_is_heard() {
    let mut bed = Bed::new();
    let mut file = Client::synced(&mut bed, "ada");
    let mut copy = Client::new(&mut bed, "ada");
    copy.hello.lease = file.hello.next_lease;
    copy.hello.next_lease = syncline_core::Lease([7; 16]);
    copy.greet(&mut bed);
    assert_eq!(copy.welcome().device, file.hello.device);
    copy.heard.clear();

    let (ours, theirs) = (note(&bed, &mut file, 1), note(&bed, &mut copy, 2));
    assert_eq!(ours.number, theirs.number);
    file.push(&mut bed, &ours);
    copy.push(&mut bed, &theirs);
    assert_eq!(code_of(file.results()[0]), code::GAP);
    accepted(copy.results()[0]);

    // The one that was there first connects again and is another device.
    file.reconnect(&mut bed);
    assert_ne!(file.welcome().device, copy.hello.device);
    file.heard.clear();
    file.push(&mut bed, &ours);
    accepted(file.results()[0]);
}

#[test]
fn se18_nothing_is_accepted_that_was_not_committed() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    let mut other = Client::synced(&mut bed, "ada/2");
    let changeset = note(&bed, &mut client, 1);
    bed.fail_commit();
    client.push(&mut bed, &changeset);
    other.listen(&mut bed);
    assert!(other.heard.is_empty(), "nobody hears of it");
    let result = client.results()[0];
    assert_eq!(code_of(result), code::STORAGE);
}

#[test]
fn se19_a_refusal_for_now_leaves_everything_to_be_tried_again() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    let changeset = note(&bed, &mut client, 1);
    bed.fail_commit();
    client.push(&mut bed, &changeset);
    assert!(matches!(
        &client.results()[0].verdict,
        Verdict::Refused(refusal) if refusal.retry && !refusal.fatal
    ));
    client.heard.clear();
    client.push(&mut bed, &changeset);
    accepted(client.results()[0]);
}

#[test]
fn se19_a_refusal_for_good_is_counted_and_takes_what_depends_on_it() {
    let mut bed = Bed::new();
    bed.write("ben", |draw| {
        draw.insert("projects", "p", &[("name", "Ben's".into())])
    });
    let mut client = Client::synced(&mut bed, "ada");
    let forbidden = client.draw(&bed, |draw| {
        draw.insert(
            "tasks",
            "t",
            &[("project_id", "p".into()), ("title", "x".into())],
        )
    });
    let mut dependent = note(&bed, &mut client, 1);
    dependent.depends = vec![forbidden.number];
    let free = note(&bed, &mut client, 2);
    for changeset in [&forbidden, &dependent, &free] {
        client.push(&mut bed, changeset);
    }
    let results = client.results();
    assert_eq!(code_of(results[0]), code::FORBIDDEN);
    assert_eq!(code_of(results[1]), code::DEPENDS_ON);
    accepted(results[2]);
}

#[test]
fn wi10_a_large_changeset_arrives_in_parts() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    let body = "x".repeat(600 * 1024);
    let changeset = client.draw(&bed, |draw| {
        draw.insert(
            "notes",
            Value::Integer(1),
            &[("body", body.as_str().into())],
        )
    });
    let bytes = encode_changeset(&changeset);
    let parts: Vec<_> = bytes.chunks(256 * 1024).collect();
    let announced = Push {
        id: changeset.id,
        body: Vec::new(),
        parts: u32::try_from(parts.len()).expect("three"),
    };
    client.say(&mut bed, &ClientMessage::Push(announced));
    for (index, bytes) in (0..).zip(&parts) {
        let part = PushPart {
            id: changeset.id,
            index,
            bytes: bytes.to_vec(),
        };
        client.say(&mut bed, &ClientMessage::PushPart(part));
    }
    accepted(client.results()[0]);
}

#[test]
fn wi10_parts_out_of_order_or_unannounced_end_the_session() {
    let part = |index| {
        ClientMessage::PushPart(PushPart {
            id: syncline_core::ChangesetId([1; 16]),
            index,
            bytes: vec![0; 10],
        })
    };
    let announce = |parts| {
        ClientMessage::Push(Push {
            id: syncline_core::ChangesetId([1; 16]),
            body: Vec::new(),
            parts,
        })
    };
    for said in [
        vec![part(0)],
        vec![announce(2), part(1)],
        vec![announce(3), part(0), part(0)],
        vec![announce(2), announce(2)],
        vec![announce(1_000_000)],
    ] {
        let mut bed = Bed::new();
        let mut client = Client::synced(&mut bed, "ada");
        for message in &said {
            client.say(&mut bed, message);
        }
        assert_eq!(client.refusal().code, code::MALFORMED, "{said:?}");
    }
}

#[test]
fn se20_a_stopping_server_says_when_to_come_back() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    client.session.go_away("the server is stopping", 1_500);
    client.listen(&mut bed);
    let refusal = client.refusal();
    assert_eq!(refusal.code, code::UNAVAILABLE);
    assert_eq!((refusal.retry, refusal.retry_after_ms), (true, Some(1_500)));
    assert!(refusal.fatal);
    // What arrives afterwards is not heard.
    let changeset = note(&bed, &mut client, 1);
    client.heard.clear();
    client.push(&mut bed, &changeset);
    assert!(client.heard.is_empty());
}

#[test]
fn se21_a_silent_connection_is_dropped_after_a_minute() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    bed.world.now = bed.world.now.plus_millis(SILENCE_MAX_MILLIS - 1);
    client.session.timeout(bed.world.now);
    assert!(!client.session.is_closed());
    let now = bed.world.now;
    let ping = syncline_core::wire::Ping { sent: now, now };
    client.say(&mut bed, &ClientMessage::Ping(ping));
    bed.world.now = bed.world.now.plus_millis(SILENCE_MAX_MILLIS - 1);
    client.session.timeout(bed.world.now);
    assert!(!client.session.is_closed(), "the ping was heard");
    bed.world.now = bed.world.now.plus_millis(1);
    client.session.timeout(bed.world.now);
    assert!(client.session.is_closed());
}

#[test]
fn se23_a_session_ends_with_its_token() {
    let mut bed = Bed::new();
    let mut client = Client::new(&mut bed, "ada");
    let end = bed.world.now.plus_millis(30_000);
    client.session = client.session.take().until(Some(end));
    client.greet(&mut bed);
    client.heard.clear();
    bed.world.now = end;
    assert!(client.session.poll_timeout() <= end);
    client.session.timeout(bed.world.now);
    client.listen(&mut bed);
    let refusal = client.refusal();
    assert_eq!(
        (refusal.code.as_str(), refusal.retry),
        (code::UNAUTHORIZED, true)
    );
}

#[test]
fn se23_a_fresh_token_of_the_same_identity_prolongs_it() {
    let mut bed = Bed::new();
    let renew = |token: &str| {
        ClientMessage::Token(TokenRenewal {
            token: token.to_owned(),
        })
    };
    let mut client = Client::new(&mut bed, "ada");
    let end = bed.world.now.plus_millis(30_000);
    client.session = client.session.take().until(Some(end));
    client.greet(&mut bed);
    client.say(&mut bed, &renew(FRESH_TOKEN));
    bed.world.now = end.plus_millis(1);
    client.session.timeout(bed.world.now);
    assert!(!client.session.is_closed());

    // Other claims may mean other rows: the session starts over.
    client.say(&mut bed, &renew("admin"));
    assert_eq!(client.refusal().code, code::UNAUTHORIZED);
    assert!(client.refusal().retry);

    let mut client = Client::synced(&mut bed, "ben");
    client.say(&mut bed, &renew("rubbish"));
    assert_eq!(client.refusal().code, code::UNAUTHORIZED);
    assert!(!client.refusal().retry);
}

#[test]
fn se25_who_talks_too_fast_is_told_when_to_come_back() {
    let mut bed = Bed::new();
    let rates = Rates {
        messages_per_second: 100,
        bytes_per_second: 10_000_000,
    };
    let mut client = Client::new(&mut bed, "ada");
    client.session = client.session.take().paced(rates);
    client.greet(&mut bed);
    client.heard.clear();
    let now = bed.world.now;
    let ping = ClientMessage::Ping(syncline_core::wire::Ping { sent: now, now });
    // Hello was the first of a thousand. Half of them may come before anything is said.
    for _ in 1..500 {
        client.say(&mut bed, &ping);
    }
    let is_refusal = |heard: &ServerMessage| matches!(heard, ServerMessage::Refusal(_));
    assert!(!client.messages().any(is_refusal));
    for _ in 500..1_000 {
        client.say(&mut bed, &ping);
    }
    assert!(!client.session.is_closed());
    let warnings: Vec<_> = client
        .messages()
        .filter(|heard| is_refusal(heard))
        .collect();
    let [ServerMessage::Refusal(warning)] = warnings[..] else {
        panic!("it is told once: {warnings:?}");
    };
    assert_eq!(
        (warning.code.as_str(), warning.fatal, warning.retry_after_ms),
        (code::TOO_FAST, false, Some(1_010))
    );
    client.heard.clear();
    client.say(&mut bed, &ping);
    let refusal = client.refusal();
    assert_eq!(
        (refusal.code.as_str(), refusal.retry, refusal.retry_after_ms),
        (code::TOO_FAST, true, Some(5_000))
    );
    assert!(client.session.is_closed());
}

#[test]
fn se25_bytes_that_nobody_could_read_count_too() {
    let mut bed = Bed::new();
    let rates = Rates {
        messages_per_second: 1_000,
        bytes_per_second: 1_000,
    };
    let mut client = Client::new(&mut bed, "ada");
    client.session = client.session.take().paced(rates);
    client.say_bytes(&mut bed, &vec![0xFF; 145 * 1024 * 1024]);
    assert_eq!(client.refusal().code, code::TOO_FAST);
}
