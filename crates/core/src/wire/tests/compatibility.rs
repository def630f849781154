//! Peers of other versions: what is not known is skipped, what is missing has its default.

use minicbor::Encoder;

use super::golden;
use crate::wire::*;

/// The frame of a message whose map has a field no version knows yet, of any CBOR type.
fn with_extra_fields(kind: u32, fields: u64, known: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    let mut e = Encoder::new(&mut frame);
    e.array(2)
        .unwrap()
        .u32(kind)
        .unwrap()
        .map(fields + 3)
        .unwrap();
    e.u32(900).unwrap().begin_array().unwrap().u8(1).unwrap();
    e.map(1)
        .unwrap()
        .str("a")
        .unwrap()
        .bytes(b"b")
        .unwrap()
        .end()
        .unwrap();
    e.u32(901).unwrap().null().unwrap();
    e.u32(902)
        .unwrap()
        .tag(minicbor::data::Tag::new(7))
        .unwrap()
        .f64(1.5)
        .unwrap();
    frame.extend(known);
    frame
}

#[test]
fn wi2_fields_that_are_not_known_are_skipped() {
    for (name, message) in golden::client_messages() {
        let frame = golden::plain(&encode_client(&message));
        let (kind, fields, known) = golden::split(&frame);
        let read = decode_client(&with_extra_fields(kind, fields, known));
        assert_eq!(read, Ok(message), "{name}");
    }
    for (name, message) in golden::server_messages() {
        let frame = golden::plain(&encode_server(&message));
        let (kind, fields, known) = golden::split(&frame);
        let read = decode_server(&with_extra_fields(kind, fields, known));
        assert_eq!(read, Ok(message), "{name}");
    }
}

#[test]
fn wi3_kinds_that_are_not_known_are_read_as_unknown() {
    let frame = with_extra_fields(77, 0, &[]);
    assert_eq!(decode_client(&frame), Ok(ClientMessage::Unknown(77)));
    assert_eq!(decode_server(&frame), Ok(ServerMessage::Unknown(77)));
    let again = encode_client(&ClientMessage::Unknown(77));
    assert_eq!(decode_client(&again), Ok(ClientMessage::Unknown(77)));
}

#[test]
fn wi2_fields_that_are_missing_have_no_value() {
    let mut frame = vec![0];
    let mut e = Encoder::new(&mut frame);
    e.array(2).unwrap().u32(4).unwrap().map(2).unwrap();
    e.u32(0)
        .unwrap()
        .u64(5)
        .unwrap()
        .u32(1)
        .unwrap()
        .array(0)
        .unwrap();
    let Ok(ServerMessage::Page(page)) = decode_server(&frame) else {
        panic!("a page")
    };
    assert_eq!(page.remaining, None);
}

#[test]
fn wi11_elements_at_the_end_of_a_body_are_skipped() {
    let body = golden::row_bodies().remove(0).1;
    let mut bytes = body.encode();
    assert_eq!(bytes[0], 0x8A, "an array of ten");
    bytes[0] = 0x8C;
    bytes.extend([0x81, 0x01, 0xF6]);
    assert_eq!(RowBody::decode(&bytes), Ok((body, bytes.len())));
}

#[test]
fn wi8_fields_of_a_changeset_that_are_not_known_are_skipped() {
    let changeset = golden::changesets().remove(0).1;
    let mut bytes = encode_changeset(&changeset);
    assert_eq!(bytes[0] & 0xE0, 0xA0, "a map of few");
    bytes[0] += 1;
    bytes.extend([0x18, 0x63, 0x81, 0x01]);
    assert_eq!(decode_changeset(&bytes), Ok(changeset));
}

/// A Hello or Welcome of a protocol that moved everything but the number that says so.
fn of_protocol(theirs: u32) -> Vec<u8> {
    let mut frame = vec![0];
    let mut e = Encoder::new(&mut frame);
    e.array(2).unwrap().u32(1).unwrap().map(3).unwrap();
    e.u32(900).unwrap().array(1).unwrap().str("new").unwrap();
    e.u32(0).unwrap().u32(theirs).unwrap();
    e.u32(1).unwrap().str("no device id").unwrap();
    frame
}

#[test]
fn wi2_another_protocol_is_named_whatever_its_hello_looks_like() {
    for theirs in [0, 2, u32::MAX] {
        for error in [
            decode_client(&of_protocol(theirs)).expect_err("another protocol"),
            decode_server(&of_protocol(theirs)).expect_err("another protocol"),
        ] {
            assert_eq!(error, FrameError::Protocol { theirs });
            assert_eq!(error.code(), code::PROTOCOL);
        }
    }
    let ours = decode_client(&of_protocol(PROTOCOL)).expect_err("no Hello of ours");
    assert_eq!(ours.code(), code::MALFORMED);
}
