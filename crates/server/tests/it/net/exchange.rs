//! The same session over plain HTTP.

use std::time::Instant;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use syncline_core::{
    Timestamp,
    wire::{
        ClientMessage, Credit, Hello, Ping, ServerMessage, Verdict, decode_server, encode_client,
    },
};

use super::{Net, changeset, hello, note};
use crate::{
    bed::noise,
    client::{PLENTY, push_of},
};

struct Exchange<'a> {
    net: &'a Net,
    user: &'static str,
    session: Option<String>,
    closed: bool,
}

impl Exchange<'_> {
    async fn say(&mut self, messages: &[ClientMessage], wait_ms: u64) -> Vec<ServerMessage> {
        let frames: Vec<_> = messages
            .iter()
            .map(|message| BASE64_STANDARD.encode(encode_client(message)))
            .collect();
        let body = json!({ "session": self.session, "frames": frames, "wait_ms": wait_ms });
        let answer = self.net.post("/v1/exchange", self.user).json(&body).send();
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.expect("JSON");
        self.session = answer["session"].as_str().map(str::to_owned);
        self.closed = answer["closed"].as_bool().expect("a boolean");
        let frames = answer["frames"].as_array().expect("a list");
        frames
            .iter()
            .map(|frame| {
                let frame = BASE64_STANDARD.decode(frame.as_str().expect("text"));
                decode_server(&frame.expect("base64")).expect("a message")
            })
            .collect()
    }

    async fn until(
        &mut self,
        messages: &[ClientMessage],
        found: impl Fn(&ServerMessage) -> bool,
    ) -> Vec<ServerMessage> {
        let mut heard = self.say(messages, 2_000).await;
        for _ in 0..20 {
            if heard.iter().any(&found) {
                return heard;
            }
            heard.extend(self.say(&[], 2_000).await);
        }
        panic!("not heard: {heard:?}");
    }
}

#[tokio::test]
async fn se22_an_exchange_carries_the_same_session() {
    let net = Net::start().await;
    let mut exchange = Exchange {
        net: &net,
        user: "ada",
        session: None,
        closed: false,
    };
    let greeting = [ClientMessage::Hello(hello(1))];
    let heard = exchange
        .until(&greeting, |message| {
            matches!(message, ServerMessage::Checkpoint(c) if c.loading == 0 && c.caught_up)
        })
        .await;
    assert!(matches!(heard[0], ServerMessage::Welcome(_)));

    let changes = net.draw("ada", |draw| note(draw, 7)).await;
    let pushes = [push_of(&changeset(1, 1, changes))];
    let heard = exchange
        .until(&pushes, |message| {
            matches!(message, ServerMessage::PushResult(_))
        })
        .await;
    assert!(heard.iter().any(|message| matches!(
        message,
        ServerMessage::PushResult(result) if matches!(result.verdict, Verdict::Accepted(_))
    )));

    // Nothing happens: it waits as long as it was told to, and no longer.
    exchange.say(&[], 300).await;
    let started = Instant::now();
    assert!(exchange.say(&[], 300).await.is_empty());
    assert!(started.elapsed().as_millis() >= 290);

    // A second Hello ends it.
    let heard = exchange.say(&greeting, 1_000).await;
    assert!(matches!(heard.last(), Some(ServerMessage::Refusal(_))));
    for _ in 0..10 {
        if exchange.closed {
            break;
        }
        exchange.say(&[], 200).await;
    }
    assert!(exchange.closed);
    let body = json!({ "session": exchange.session, "frames": [] });
    let gone = net.post("/v1/exchange", "ada").json(&body).send().await;
    assert_eq!(gone.expect("an answer").status(), 410);
}

#[tokio::test]
async fn an_exchange_is_its_users_alone() {
    let net = Net::start().await;
    let mut exchange = Exchange {
        net: &net,
        user: "ada",
        session: None,
        closed: false,
    };
    exchange.say(&[ClientMessage::Hello(hello(1))], 500).await;
    let body = json!({ "session": exchange.session, "frames": [] });
    let stolen = net.post("/v1/exchange", "ben").json(&body).send().await;
    assert_eq!(stolen.expect("an answer").status(), 410);
    // Other claims may see other rows.
    let claims = [("role".to_owned(), json!("admin"))].into();
    let end = Timestamp(super::now().0 + 60_000_000);
    let token = net.auth.issue("ada", claims, super::now(), end);
    let other = net
        .http
        .post(net.url("/v1/exchange"))
        .bearer_auth(token.expect("a token"))
        .json(&body)
        .send()
        .await;
    assert_eq!(other.expect("an answer").status(), 410);
}

#[tokio::test]
async fn frames_that_are_none_are_refused_with_a_code() {
    let net = Net::start().await;
    let long = BASE64_STANDARD.encode(vec![0; 1024 * 1024 + 1]);
    for (frame, status, code) in [("%%%", 400, "malformed"), (long.as_str(), 413, "too_large")] {
        let body = json!({ "session": null, "frames": [frame] });
        let answer = net.post("/v1/exchange", "ada").json(&body).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), status);
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["code"], code);
    }
}

#[tokio::test]
async fn one_request_at_a_time() {
    let net = Net::start().await;
    let mut exchange = Exchange {
        net: &net,
        user: "ada",
        session: None,
        closed: false,
    };
    exchange
        .until(&[ClientMessage::Hello(hello(1))], |message| {
            matches!(message, ServerMessage::Checkpoint(c) if c.loading == 0 && c.caught_up)
        })
        .await;
    let body = json!({ "session": exchange.session, "frames": [], "wait_ms": 2_000 });
    let ask = || async {
        let answer = net.post("/v1/exchange", "ada").json(&body).send().await;
        answer.expect("an answer").status().as_u16()
    };
    let (first, second) = tokio::join!(ask(), ask());
    assert_eq!([first.min(second), first.max(second)], [200, 409]);
}

/// What is said while frames are handed over belongs to the answer, which has an end.
#[tokio::test]
async fn se22_an_answer_is_bounded_and_what_was_not_heard_waits() {
    const PINGS: usize = 100;
    let net = Net::start().await;
    for id in 0..16_u64 {
        let body = noise(id, 400_000);
        let row = json!({ "id": id, "body": body });
        let body = json!({ "changes": [{ "op": "insert", "table": "notes", "row": row }] });
        let key = format!("{:032x}", id + 1);
        let pushed = net.post("/v1/push", "ada").header("Idempotency-Key", key);
        let pushed = pushed.json(&body).send().await.expect("an answer");
        assert_eq!(pushed.status(), 200);
    }
    let mut exchange = Exchange {
        net: &net,
        user: "ada",
        session: None,
        closed: false,
    };
    // The pages wait for credit, which comes with much else to hear.
    let greeting = Hello {
        credit: 1,
        ..hello(1)
    };
    exchange
        .until(&[ClientMessage::Hello(greeting)], |message| {
            matches!(message, ServerMessage::Grants(_))
        })
        .await;
    let ping = Ping {
        sent: Timestamp(1),
        now: Timestamp::default(),
    };
    let mut messages = vec![ClientMessage::Credit(Credit {
        bytes: PLENTY,
        checkpoint: None,
    })];
    messages.extend(std::iter::repeat_n(ClientMessage::Ping(ping), PINGS));
    let (mut rows, mut pongs, mut longest) = (0, 0, 0);
    for _ in 0..100 {
        let heard = exchange.say(&std::mem::take(&mut messages), 500).await;
        let mut bytes = 0;
        for message in heard {
            match message {
                ServerMessage::Page(page) => {
                    let parts = page.parts.iter();
                    bytes += parts.clone().map(|part| part.rows.len()).sum::<usize>();
                    rows += parts.filter(|part| !part.rows.is_empty()).count();
                }
                ServerMessage::Pong(_) => pongs += 1,
                _ => {}
            }
        }
        longest = longest.max(bytes);
        if rows >= 16 && pongs == PINGS {
            break;
        }
    }
    assert_eq!(pongs, PINGS, "everything is heard in the end");
    assert!(longest < 3 * 1024 * 1024, "{longest} bytes in one answer");
}
