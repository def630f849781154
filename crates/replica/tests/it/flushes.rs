//! How often a device waits for its disk (docs/spec/session.md, SE28).

use std::path::Path;

use rusqlite::Connection;
use syncline_core::wire::{ClientMessage, ServerMessage, decode_client, decode_server};
use syncline_replica::{AttachOptions, QueueState, QueuedChangeset};

use crate::{
    authority::Authority,
    device::{Device, SCHEMA, schema},
};

/// A device in step with the server; each of its commits is a place in the log beside its file.
fn in_step(path: &Path) -> (Authority, Device) {
    let conn = Connection::open(path).unwrap();
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::attach(conn, AttachOptions::default(), 1);
    device.write("INSERT INTO lists VALUES('l1', 'shopping')");
    device.sync(&mut server);
    (server, device)
}

fn commits(path: &Path) -> usize {
    let log = std::fs::read(path.with_extension("db-wal")).unwrap();
    let page = u32::from_be_bytes(log[8..12].try_into().unwrap());
    let frames = log[32..].chunks(24 + page as usize);
    // Of a commit the last page says how large the file is then.
    frames.filter(|frame| frame[4..8] != [0; 4]).count()
}

#[test]
fn se28_what_is_sent_at_once_is_sealed_and_numbered_in_one_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let (_server, mut device) = in_step(&path);
    device.write("UPDATE lists SET name = 'food'");
    let before = commits(&path);
    device.replica.wake(device.now).unwrap();
    assert_eq!(commits(&path), before + 1);
    let frame = device.replica.poll_transmit().expect("a push");
    assert!(matches!(decode_client(&frame), Ok(ClientMessage::Push(_))));
}

#[test]
fn se28_answers_are_written_down_with_the_checkpoint_that_arrives_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let (mut server, mut device) = in_step(&path);
    for name in ["food", "drinks", "more"] {
        device.write(&format!("INSERT INTO lists VALUES('{name}', '{name}')"));
        device.replica.wake(device.now).unwrap();
    }
    device.upload(&mut server);
    while server.advance(device.link.as_mut().unwrap()) {}
    let frames: Vec<_> = device.link.as_mut().unwrap().out.drain(..).collect();
    let said: Vec<_> = frames.iter().map(|f| decode_server(f).unwrap()).collect();
    let answers = said
        .iter()
        .filter(|m| matches!(m, ServerMessage::PushResult(_)));
    assert_eq!(answers.count(), 3);
    assert!(matches!(said.last(), Some(ServerMessage::Checkpoint(_))));
    let before = commits(&path);
    let together = frames.iter().map(Vec::as_slice);
    device.replica.handle_all(together, device.now).unwrap();
    device.collect();
    assert!(device.closed.is_none());
    assert_eq!(device.replica.queue(None, 10).unwrap(), []);
    let checkpoints = said
        .iter()
        .filter(|m| matches!(m, ServerMessage::Checkpoint(_)));
    assert_eq!(commits(&path), before + checkpoints.count());
}

#[test]
fn se28_a_second_answer_ends_the_session_and_the_first_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut device) = in_step(&dir.path().join("app.db"));
    device.write("UPDATE lists SET name = 'food'");
    device.replica.wake(device.now).unwrap();
    device.upload(&mut server);
    let answer = device.link.as_mut().unwrap().out.pop_front().unwrap();
    let answer = answer.as_slice();
    device
        .replica
        .handle_all([answer, answer], device.now)
        .unwrap();
    device.collect();
    assert_eq!(device.closed.as_ref().unwrap().code, "malformed");
    let queue = device.replica.queue(None, 10).unwrap();
    let is_accepted =
        |queued: &QueuedChangeset| matches!(queued.state, QueueState::Accepted { .. });
    assert!(
        queue.len() == 1 && queue.iter().all(is_accepted),
        "{queue:?}"
    );
}
