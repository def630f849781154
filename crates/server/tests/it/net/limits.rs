//! What strangers may cost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use syncline_core::{
    config::LimitsConfig,
    wire::{ServerMessage, Verdict, code},
};
use syncline_server::net::Limits;
use syncline_store::testkit::Draw;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Net, SOON, Wish, changeset, note};

fn impatient() -> Limits {
    Limits {
        head_max: Duration::from_millis(300),
        request_max: Duration::from_millis(500),
        unread_max: Duration::from_millis(500),
        ..Limits::default()
    }
}

fn limited(limits: LimitsConfig) -> Wish {
    Wish {
        config_limits: limits,
        ..Wish::default()
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
async fn li2_nobody_takes_every_place_alone() {
    let net = Net::start_with(limited(LimitsConfig {
        user_connections: 3,
        ..LimitsConfig::default()
    }))
    .await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(net.socket("eve").await);
    }
    let refused = net.try_socket(&net.token("eve")).await.err();
    let Some(tokio_tungstenite::tungstenite::Error::Http(answer)) = refused else {
        panic!("one more session: {refused:?}");
    };
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["retry-after"], "5");
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
    let net = Net::start_with(limited(LimitsConfig {
        messages_per_second: 10,
        ..LimitsConfig::default()
    }))
    .await;
    let mut eve = net.socket("eve").await;
    eve.sync(1).await;
    // A kind that nobody knows: costs no answer.
    let unknown = vec![0x00, 0x82, 0x18, 0x63, 0xA0];
    for _ in 0..700 {
        eve.say_bytes(unknown.clone()).await;
    }
    assert_eq!(eve.refused().await, (code::TOO_FAST.to_owned(), Some(1008)));
    net.socket("ada").await.sync(2).await;
}

/// The status and the body of the next request of this user.
async fn asked(net: &Net, user: &str) -> (u16, Option<String>, Value) {
    let asked = net.get("/v1/devices").bearer_auth(net.token(user)).send();
    let answer = asked.await.expect("an answer");
    let header = |value: &reqwest::header::HeaderValue| value.to_str().map(str::to_owned).ok();
    let after = answer.headers().get("retry-after").and_then(header);
    (
        answer.status().as_u16(),
        after,
        answer.json().await.unwrap_or_default(),
    )
}

#[tokio::test]
async fn li3_requests_beyond_what_is_configured_are_told_when_to_come_back() {
    let net = Net::start_with(limited(LimitsConfig {
        user_requests_per_second: 1,
        ..LimitsConfig::default()
    }))
    .await;
    let refused = loop {
        let (status, after, body) = asked(&net, "eve").await;
        match status {
            200 => {}
            429 => break (after, body),
            other => panic!("{other}: {body}"),
        }
    };
    let (after, body) = refused;
    assert_eq!(after.as_deref(), Some("1"), "in seconds");
    assert_eq!(body["code"], code::TOO_FAST);
    assert_eq!(body["retry"], true);
    assert_eq!(body["retry_after_ms"], 1_000);
    let sentence = body["message"].as_str().expect("a sentence");
    assert!(sentence.contains("1 a second"), "{sentence}");
    // No session either, and nobody else waits for it.
    let socket = net.try_socket(&net.token("eve")).await.err();
    let Some(tokio_tungstenite::tungstenite::Error::Http(answer)) = socket else {
        panic!("a session: {socket:?}");
    };
    assert_eq!(answer.status(), 429);
    assert_eq!(asked(&net, "ada").await.0, 200);
    // Who waits as told is heard.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(asked(&net, "eve").await.0, 200);
}

#[tokio::test]
async fn li3_requests_from_one_address_are_counted_before_anything_of_them_is_read() {
    let net = Net::start_with(Wish {
        trusted_proxies: &["127.0.0.1"],
        ..limited(LimitsConfig {
            address_requests_per_second: 1,
            ..LimitsConfig::default()
        })
    })
    .await;
    // Nobody's token is good: there is no user to count for.
    let guess = async |from: &str| {
        let asked = net.get("/v1/devices").bearer_auth("a guess");
        let answer = asked.header("x-forwarded-for", from).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.expect("JSON"))
    };
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(guess("2001:db8::1").await.0);
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    let (_, body) = guess("2001:db8::2").await;
    assert_eq!(body["code"], code::TOO_FAST, "the same network");
    assert_eq!(guess("198.51.100.7").await.0, 401, "another one");
    // What load balancers ask is never counted.
    let probe = net.get("/healthz").header("x-forwarded-for", "2001:db8::1");
    assert_eq!(probe.send().await.expect("an answer").status(), 200);
}

fn body(draw: Draw<'_>, id: i64, bytes: usize) -> Draw<'_> {
    let body = [("body", "x".repeat(bytes).into())];
    draw.insert("notes", syncline_core::Value::Integer(id), &body)
}

#[tokio::test]
async fn li5_changesets_and_rows_are_as_large_as_configured() {
    let net = Net::start_with(limited(LimitsConfig {
        changeset_rows: 3,
        changeset_bytes: 4_096,
        row_bytes: 2_048,
        ..LimitsConfig::default()
    }))
    .await;
    let mut ada = net.socket("ada").await;
    ada.sync(1).await;
    let many = net.draw("ada", |draw| (1..=4).fold(draw, note)).await;
    let wide = net.draw("ada", |draw| body(note(draw, 5), 6, 2_100)).await;
    let heavy = net
        .draw("ada", |draw| (7..=9).fold(draw, |d, id| body(d, id, 1_900)))
        .await;
    let fine = net.draw("ada", |draw| note(note(draw, 10), 11)).await;
    let mut verdicts = Vec::new();
    for (number, changes) in (1..).zip([many, wide, heavy, fine]) {
        let id = u8::try_from(number).expect("few");
        ada.push(&changeset(id, number, changes)).await;
        let verdict = ada
            .hear_until(|message| match message {
                ServerMessage::PushResult(result) => Some(result.verdict.clone()),
                _ => None,
            })
            .await;
        verdicts.push(match verdict {
            Verdict::Accepted(_) => "accepted".to_owned(),
            Verdict::Refused(refusal) => {
                assert_eq!(refusal.code, code::TOO_LARGE);
                assert!(!refusal.retry, "it will never be smaller");
                format!("{} {:?}", refusal.message, refusal.change)
            }
        });
    }
    assert_eq!(
        verdicts[0],
        "it changes 4 rows in one transaction; this server takes 3: split it None"
    );
    assert!(
        verdicts[1].contains("takes 2048: make it smaller Some(1)"),
        "{verdicts:?}"
    );
    assert!(
        verdicts[2].contains("this server takes 4096: split it None"),
        "{verdicts:?}"
    );
    assert_eq!(verdicts[3], "accepted", "what comes after goes on");
}

#[tokio::test]
async fn li8_who_has_a_quota_asks_how_much_of_it_is_used() {
    let quota = async |net: &Net, user: &str| -> Value {
        let request = net.get("/v1/auth/user").bearer_auth(net.token(user));
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.expect("it is JSON")["quota"].clone()
    };
    let net = Net::start_with(limited(LimitsConfig {
        user_rows: 3,
        ..LimitsConfig::default()
    }))
    .await;
    let request = net.post("/v1/push", "ada");
    let request = request.header("Idempotency-Key", format!("{:032x}", 1));
    let row = json!({ "id": 1, "body": "one" });
    let changes = json!([{ "op": "insert", "table": "notes", "row": row }]);
    let answer = request.json(&json!({ "changes": changes })).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    let rows = |owned: u64| json!({ "rows": { "owned": owned, "max": 3 }, "bytes": null });
    assert_eq!(quota(&net, "ada").await, rows(1));
    assert_eq!(quota(&net, "bob").await, rows(0));

    let free = Net::start().await;
    let none = json!({ "rows": null, "bytes": null });
    assert_eq!(quota(&free, "ada").await, none);
}

/// Bodies that wait for the database are counted with everything else that waits for it.
#[tokio::test]
async fn wi17_what_waits_is_kept_only_as_far_as_there_is_memory() {
    let net = Net::start_with(Wish {
        limits: Limits {
            held_bytes_max: 0,
            ..Limits::default()
        },
        ..Wish::default()
    })
    .await;
    let body = |user: &str, length: usize| {
        let row = json!({ "id": user.as_bytes()[0], "body": "x".repeat(length) });
        json!({ "changes": [{ "op": "insert", "table": "notes", "row": row }] })
    };
    let push = |user: &str, length| {
        let id = format!("{:016x}{length:016x}", user.as_bytes()[0]);
        let request = net.post("/v1/push", user).header("Idempotency-Key", id);
        request.json(&body(user, length)).send()
    };
    let large = 2 * 1024 * 1024;
    let warm = push("eve", 10).await.expect("an answer");
    assert_eq!(warm.status(), 200);

    // Another program writes, and everybody waits for it.
    let path = net.folder.path().join("server.db");
    let other = rusqlite::Connection::open(path).expect("the file is there");
    other.execute_batch("BEGIN IMMEDIATE").expect("it begins");
    let first = tokio::spawn(push("ada", large));
    tokio::time::sleep(Duration::from_millis(700)).await;
    let refused = tokio::time::timeout(Duration::from_secs(3), push("ben", large)).await;
    let refused = refused.expect("it is not kept").expect("an answer");
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "2");
    let refused: Value = refused.json().await.expect("JSON");
    assert_eq!(refused["code"], code::UNAVAILABLE);
    assert!(!first.is_finished(), "there was room for the first");

    other.execute_batch("ROLLBACK").expect("it ends");
    let first = first.await.expect("no panic").expect("an answer");
    assert_eq!(first.status(), 200);
    let again = push("ben", large).await.expect("an answer");
    assert_eq!(again.status(), 200, "there is room now");
}
