//! A server that stops.

use std::time::{Duration, Instant};

use syncline_core::wire::{ClientMessage, ServerMessage, Verdict, code};

use super::{Net, Wish, changeset, hello, note};

#[tokio::test]
async fn se20_sessions_are_told_and_closed_with_1012() {
    let net = Net::start().await;
    let mut socket = net.socket("ada").await;
    socket.sync(1).await;
    let stopping = tokio::spawn(net.server.stop());
    assert_eq!(
        socket.refused().await,
        (code::UNAVAILABLE.to_owned(), Some(1012))
    );
    stopping.await.expect("no panic").expect("it stops");
}

#[tokio::test]
async fn se20_what_was_taken_is_answered_and_kept() {
    let net = Net::start().await;
    let mut socket = net.socket("ada").await;
    socket.sync(1).await;
    let mut changesets = Vec::new();
    for i in 1..=50_u8 {
        let changes = net.draw("ada", |draw| note(draw, i64::from(i))).await;
        changesets.push(changeset(i, u64::from(i), changes));
    }
    for changeset in &changesets {
        socket.push(changeset).await;
    }
    // The first answer is there: the others are on their way.
    socket
        .hear_until(|message| matches!(message, ServerMessage::PushResult(_)).then_some(()))
        .await;
    let folder = net.folder;
    let stopping = tokio::spawn(net.server.stop());
    let mut accepted = 1;
    while let Some(message) = socket.hear().await {
        if let ServerMessage::PushResult(result) = message
            && matches!(result.verdict, Verdict::Accepted(_))
        {
            accepted += 1;
        }
    }
    stopping.await.expect("no panic").expect("it stops");

    // Everything acknowledged is there after a restart, whatever was sent again is known.
    let net = Net::start_with(Wish {
        folder: Some(folder),
        ..Wish::default()
    })
    .await;
    let mut socket = net.socket("ada").await;
    let mut again = hello(1);
    again.lease = syncline_core::Lease([1; 16]);
    again.next_lease = syncline_core::Lease([2; 16]);
    socket.say(&ClientMessage::Hello(again)).await;
    let next = socket
        .hear_until(|message| match message {
            ServerMessage::Welcome(welcome) => Some(welcome.next_number),
            _ => None,
        })
        .await;
    assert_eq!(next, accepted + 1, "everything that was taken was answered");
}

#[tokio::test]
async fn stopping_takes_seconds_whatever_others_do() {
    let net = Net::start().await;
    // One that never reads, one that never speaks, one that waits in an exchange.
    let mut deaf = net.socket("ada").await;
    for i in 0..40 {
        net.elsewhere(&format!(
            "INSERT INTO labels (id, name) VALUES ('l{i}', hex(randomblob(400000)))"
        ));
    }
    deaf.say(&ClientMessage::Hello(hello(1))).await;
    let _mute = net.socket("ada").await;
    let body = serde_json::json!({ "session": null, "frames": [], "wait_ms": 20_000 });
    let waiting = tokio::spawn(net.post("/v1/exchange", "ada").json(&body).send());
    tokio::time::sleep(Duration::from_millis(300)).await;

    let folder = net.folder;
    let started = Instant::now();
    net.server.stop().await.expect("it stops");
    assert!(
        started.elapsed() < Duration::from_secs(12),
        "{:?}",
        started.elapsed()
    );
    drop(waiting.await.expect("no panic"));
    // The file is free for the next one.
    let net = Net::start_with(Wish {
        folder: Some(folder),
        ..Wish::default()
    })
    .await;
    assert_eq!(
        net.get("/readyz").send().await.expect("an answer").status(),
        200
    );
}

#[tokio::test]
async fn a_stopping_server_is_not_ready_and_takes_nobody() {
    let net = Net::start().await;
    let address = net.server.address();
    net.server.stop().await.expect("it stops");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
