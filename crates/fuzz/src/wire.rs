//! Frames and what is in them.

use std::io::Write as _;

use flate2::{Compression, write::DeflateEncoder};
use syncline_core::wire::{
    CLIENT_INFLATED_BYTES_MAX, ClientMessage, RowBody, SchemaInfo, ServerMessage, decode_changeset,
    decode_client, decode_op, decode_server, encode_changeset, encode_client, encode_op,
    encode_server,
};

/// A frame that a replica may have sent. What can be read is written and read again as the same.
pub(crate) fn client_frame(bytes: &[u8]) {
    let Ok(message) = decode_client(bytes) else {
        return;
    };
    let again = decode_client(&encode_client(&message)).expect("what was written is read");
    // Not compared as values: NaN is no number, not even itself.
    assert_eq!(format!("{message:?}"), format!("{again:?}"));
    if let ClientMessage::Push(push) = message {
        changeset(&push.body);
    }
}

/// A frame that a server may have sent.
pub(crate) fn server_frame(bytes: &[u8]) {
    let Ok(message) = decode_server(bytes) else {
        return;
    };
    let again = decode_server(&encode_server(&message)).expect("what was written is read");
    assert_eq!(format!("{message:?}"), format!("{again:?}"));
    match message {
        ServerMessage::Page(page) => page.parts.iter().for_each(|part| bodies(&part.rows)),
        ServerMessage::Changes(changes) => {
            changes
                .records
                .iter()
                .for_each(|record| bodies(&record.body));
        }
        ServerMessage::Welcome(welcome) => {
            if let Some(info) = welcome.schema {
                schema(&info);
            }
        }
        ServerMessage::PushResult(_)
        | ServerMessage::Grants(_)
        | ServerMessage::Checkpoint(_)
        | ServerMessage::Refusal(_)
        | ServerMessage::Pong(_)
        | ServerMessage::Unknown(_) => {}
    }
}

/// Compressed payloads: the bytes as they are behind the flag, and a short text that they repeat up
/// to a bomb. Nothing above the limit is ever held.
pub(crate) fn inflate(bytes: &[u8]) {
    let mut raw = vec![1];
    raw.extend_from_slice(bytes);
    client_frame(&raw);
    server_frame(&raw);
    let Some((&size, pattern)) = bytes.split_first() else {
        return;
    };
    if pattern.is_empty() || pattern.len() > 64 {
        return;
    }
    // Up to twice the limit in steps.
    let length = (CLIENT_INFLATED_BYTES_MAX / 128) * usize::from(size) + 1;
    let mut bomb = vec![1];
    let mut deflate = DeflateEncoder::new(&mut bomb, Compression::fast());
    for _ in 0..length.div_ceil(pattern.len()) {
        deflate.write_all(pattern).expect("memory is written");
    }
    deflate.finish().expect("memory is written");
    let told = decode_client(&bomb);
    if length > CLIENT_INFLATED_BYTES_MAX {
        assert!(told.is_err(), "a bomb is refused");
    }
}

/// Changesets and their parts, as devices push and keep them.
pub(crate) fn changeset(bytes: &[u8]) {
    if let Ok(changeset) = decode_changeset(bytes) {
        let again = decode_changeset(&encode_changeset(&changeset));
        let again = again.expect("what was written is read");
        assert_eq!(format!("{changeset:?}"), format!("{again:?}"));
    }
    if let Ok(op) = decode_op(bytes) {
        let again = decode_op(&encode_op(&op)).expect("what was written is read");
        assert_eq!(format!("{op:?}"), format!("{again:?}"));
    }
    bodies(bytes);
    if let Ok(info) = minicbor::decode::<SchemaInfo>(bytes) {
        schema(&info);
    }
}

fn bodies(bytes: &[u8]) {
    let mut count = 0;
    for body in RowBody::decode_all(bytes) {
        let Ok(body) = body else { break };
        let written = body.encode();
        let (again, length) = RowBody::decode(&written).expect("what was written is read");
        assert_eq!(length, written.len());
        assert_eq!(format!("{body:?}"), format!("{again:?}"));
        count += 1;
        assert!(count <= bytes.len(), "each body has a byte at least");
    }
}

/// What a server says of its tables becomes statements, and the same words again.
fn schema(info: &SchemaInfo) {
    let schema = info.to_schema();
    let again = SchemaInfo::from_schema(&schema).to_schema();
    assert_eq!(schema, again);
}
