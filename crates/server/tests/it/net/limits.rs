//! What strangers may cost.

use std::time::{Duration, Instant};

use syncline_core::wire::code;
use syncline_server::net::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Net, SOON, Wish};

fn impatient() -> Limits {
    Limits {
        head_max: Duration::from_millis(300),
        request_max: Duration::from_millis(500),
        unread_max: Duration::from_millis(500),
        ..Limits::default()
    }
}

/// Reads to the end; what came.
async fn to_end(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(SOON, socket.read_to_end(&mut bytes)).await;
    // A connection that is reset has ended, too.
    drop(read.expect("the server ends it"));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn more_sessions_than_allowed_are_told_to_come_back() {
    let net = Net::start_with(Wish {
        connections_max: 2,
        ..Wish::default()
    })
    .await;
    let first = net.socket("ada").await;
    let _second = net.socket("ada").await;
    let refused = net.try_socket(&net.token("ada")).await.err();
    let Some(tokio_tungstenite::tungstenite::Error::Http(answer)) = refused else {
        panic!("a third session: {refused:?}");
    };
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "5");
    let body = answer.body().clone().unwrap_or_default();
    assert!(String::from_utf8_lossy(&body).contains("unavailable"));

    // Probes are still answered, and a place becomes free.
    assert_eq!(
        net.get("/healthz")
            .send()
            .await
            .expect("an answer")
            .status(),
        200
    );
    drop(first);
    let started = Instant::now();
    while net.try_socket(&net.token("ada")).await.is_err() {
        assert!(started.elapsed() < SOON, "the place stays taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn nobody_takes_every_place_alone() {
    let net = Net::start().await;
    let mut sockets = Vec::new();
    for _ in 0..64 {
        sockets.push(net.socket("eve").await);
    }
    let refused = net.try_socket(&net.token("eve")).await.err();
    let Some(tokio_tungstenite::tungstenite::Error::Http(answer)) = refused else {
        panic!("one more session: {refused:?}");
    };
    assert_eq!(answer.status(), 429);
    let body = serde_json::json!({ "session": null, "frames": [] });
    let exchange = net.post("/v1/exchange", "eve").json(&body).send().await;
    assert_eq!(exchange.expect("an answer").status(), 429);
    net.socket("ada").await.sync(1).await;
}

#[tokio::test]
async fn a_head_that_dribbles_in_is_cut() {
    let net = Net::start_with(Wish {
        limits: impatient(),
        ..Wish::default()
    })
    .await;
    let mut socket = TcpStream::connect(net.server.address())
        .await
        .expect("it listens");
    socket
        .write_all(b"GET /healthz HTTP/1.1\r\nx-slow: ")
        .await
        .expect("sent");
    let answer = to_end(&mut socket).await;
    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_cut() {
    let net = Net::start_with(Wish {
        limits: impatient(),
        ..Wish::default()
    })
    .await;
    let mut silent = TcpStream::connect(net.server.address())
        .await
        .expect("it listens");
    assert_eq!(to_end(&mut silent).await, "");
    // Also after a request.
    let mut idle = TcpStream::connect(net.server.address())
        .await
        .expect("it listens");
    let request = b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n";
    idle.write_all(request).await.expect("sent");
    assert!(to_end(&mut idle).await.contains("200 OK"));
}

#[tokio::test]
async fn a_body_that_dribbles_in_is_cut() {
    let net = Net::start_with(Wish {
        limits: impatient(),
        ..Wish::default()
    })
    .await;
    let mut socket = TcpStream::connect(net.server.address())
        .await
        .expect("it listens");
    let head = format!(
        "POST /v1/hashes HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{",
        net.token("ada")
    );
    socket.write_all(head.as_bytes()).await.expect("sent");
    assert!(to_end(&mut socket).await.contains("408"));
}

#[tokio::test]
async fn a_connection_that_takes_no_answers_is_cut() {
    let net = Net::start_with(Wish {
        limits: Limits {
            unread_max: Duration::from_millis(500),
            ..Limits::default()
        },
        ..Wish::default()
    })
    .await;
    let mut deaf = TcpStream::connect(net.server.address())
        .await
        .expect("it listens");
    let request = format!(
        "GET /v1/schema HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {}\r\n\r\n",
        net.token("ada")
    );
    // Until the answers fill what the system keeps of them, and the server hears nothing more.
    let asking = async { while deaf.write_all(request.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(SOON, asking)
        .await
        .expect("the server ends it");
}

#[tokio::test]
async fn sockets_beyond_the_limit_wait() {
    let net = Net::start_with(Wish {
        limits: Limits {
            sockets_max: 2,
            ..impatient()
        },
        ..Wish::default()
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        idle.push(
            TcpStream::connect(net.server.address())
                .await
                .expect("it listens"),
        );
    }
    // Served when the idle ones have been cut.
    let answer = net.get("/healthz").send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn se25_messages_beyond_what_is_configured_end_the_session() {
    let net = Net::start_with(Wish {
        messages_per_second: Some(10),
        ..Wish::default()
    })
    .await;
    let mut eve = net.socket("eve").await;
    eve.sync(1).await;
    // A kind that nobody knows: costs no answer.
    let unknown = vec![0x00, 0x82, 0x18, 0x63, 0xA0];
    for _ in 0..420 {
        eve.say_bytes(unknown.clone()).await;
    }
    assert_eq!(eve.refused().await, (code::TOO_FAST.to_owned(), Some(1008)));
    net.socket("ada").await.sync(2).await;
}
