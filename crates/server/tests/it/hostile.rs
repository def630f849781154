//! What strangers may send.

use syncline_core::{
    BucketId, Cursor, Tag, Version,
    wire::{
        CLIENT_INFLATED_BYTES_MAX, ClientMessage, Load, LoadPosition, Ping, code, encode_client,
    },
};

use crate::{bed::Bed, client::Client};

#[test]
fn wi3_a_kind_that_is_not_known_is_ignored() {
    let mut bed = Bed::new();
    let mut client = Client::new(&mut bed, "ada");
    client.say(&mut bed, &ClientMessage::Unknown(77));
    client.greet(&mut bed);
    client.heard.clear();
    client.say(&mut bed, &ClientMessage::Unknown(1_000_000));
    assert!(client.heard.is_empty());
    assert!(!client.session.is_closed());
}

#[test]
fn wi6_frames_that_cannot_be_read_end_the_session_with_a_code() {
    let good = encode_client(&ClientMessage::Ping(Ping {
        sent: syncline_core::Timestamp(1),
        now: syncline_core::Timestamp(1),
    }));
    let mut cut = good.clone();
    cut.pop();
    let mut longer = good.clone();
    longer.push(0);
    let mut flag = good;
    flag[0] = 9;
    let frames: [&[u8]; 7] = [
        b"",
        b"\x00",
        b"\x01not deflate at all",
        b"hello, this is text",
        &cut,
        &longer,
        &flag,
    ];
    for frame in frames {
        let mut bed = Bed::new();
        let mut client = Client::synced(&mut bed, "ada");
        client.say_bytes(&mut bed, frame);
        assert_eq!(client.refusal().code, code::MALFORMED, "{frame:?}");
        assert!(client.refusal().fatal && !client.refusal().retry);
    }
}

#[test]
fn wi6_a_frame_that_is_too_long_is_answered_by_too_large() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    client.say_bytes(&mut bed, &vec![0; CLIENT_INFLATED_BYTES_MAX + 2]);
    assert_eq!(client.refusal().code, code::TOO_LARGE);

    let mut client = Client::synced(&mut bed, "ben");
    client.session.too_long();
    client.listen(&mut bed);
    assert_eq!(client.refusal().code, code::TOO_LARGE);
}

#[test]
fn se4_a_hello_has_a_bounded_number_of_cursors() {
    let mut bed = Bed::new();
    let mut client = Client::new(&mut bed, "ada");
    let cursor = Cursor {
        version: Version(1),
        tag: Tag([0; 8]),
        mac: Default::default(),
    };
    client.hello.cursors = vec![cursor; 33];
    client.greet(&mut bed);
    assert_eq!(client.refusal().code, code::MALFORMED);
}

#[test]
fn se5a_a_load_of_nonsense_costs_nothing() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    let labels = bed.table("labels");
    let everywhere = LoadPosition {
        bucket: None,
        table: labels,
        after: None,
    };
    let nowhere = LoadPosition {
        bucket: Some(BucketId([3; 16])),
        table: labels,
        after: None,
    };
    let positions = vec![[everywhere, nowhere]; 1_000].concat();
    client.say(&mut bed, &ClientMessage::Load(Load { positions }));
    assert!(!client.session.is_closed());
    assert_eq!(client.pages().len(), 1, "each part is loaded once");

    let bad_key = LoadPosition {
        bucket: None,
        table: labels,
        after: Some(vec![0xFF, 0xFF]),
    };
    client.load(&mut bed, vec![bad_key]);
    assert_eq!(client.refusal().code, code::MALFORMED);
}

#[test]
fn se15_a_replica_that_does_not_take_its_answers_is_not_heard() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    let now = bed.world.now;
    let ping = encode_client(&ClientMessage::Ping(Ping { sent: now, now }));
    let mut heard = 0_u32;
    while client.session.is_listening() {
        client.session.receive(&ping, now);
        heard += 1;
        assert!(heard < 1_000_000, "it never stops listening");
    }
    while client.session.poll_frame().is_some() {}
    assert!(client.session.is_listening());
}

#[test]
fn se16_nothing_is_kept_of_a_push_before_the_welcome() {
    let mut bed = Bed::new();
    let mut client = Client::new(&mut bed, "ada");
    let announced = syncline_core::wire::Push {
        id: syncline_core::ChangesetId([1; 16]),
        body: Vec::new(),
        parts: 3,
    };
    client.say(&mut bed, &ClientMessage::Push(announced));
    assert_eq!(client.refusal().code, code::MALFORMED);
    assert_eq!(client.session.held().unanswered_bytes, 0);
}
