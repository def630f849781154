//! The devices of a user: listed, renamed, deregistered.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use syncline_core::{
    DeviceId, Lease,
    wire::{ClientMessage, Credit, ServerMessage, Verdict, Welcome, code},
};

use super::{Net, SOON, Wish, changeset, hello, note};

impl Net {
    async fn devices(&self, user: &str) -> Vec<Value> {
        let asked = self.get("/v1/devices").bearer_auth(self.token(user));
        let answer = asked.send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let mut answer: Value = answer.json().await.expect("JSON");
        match answer["devices"].take() {
            Value::Array(devices) => devices,
            other => panic!("not a list: {other}"),
        }
    }

    /// The user's list, as soon as it is as wanted.
    async fn devices_when(&self, user: &str, is_it: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let end = Instant::now() + SOON;
        loop {
            let devices = self.devices(user).await;
            if is_it(&devices) {
                return devices;
            }
            assert!(Instant::now() < end, "{devices:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn rename(&self, user: &str, id: &str, body: &str) -> (u16, Value) {
        let url = self.url(&format!("/v1/devices/{id}"));
        let asked = self.http.patch(url).bearer_auth(self.token(user));
        let asked = asked.header("content-type", "application/json");
        let answer = asked.body(body.to_owned()).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("JSON"))
    }

    async fn remove(&self, user: &str, id: &str) -> (u16, String) {
        let url = self.url(&format!("/v1/devices/{id}"));
        let asked = self.http.delete(url).bearer_auth(self.token(user));
        let answer = asked.send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("a body"))
    }
}

fn names(devices: &[Value]) -> Vec<&str> {
    let names = devices.iter().map(|device| &device["name"]);
    names.map(|name| name.as_str().expect("text")).collect()
}

fn id(byte: u8) -> String {
    DeviceId([byte; 16]).to_string()
}

async fn welcomed(socket: &mut super::Socket) -> Welcome {
    socket
        .hear_until(|message| match message {
            ServerMessage::Welcome(welcome) => Some((**welcome).clone()),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn de3_a_list_says_who_is_connected_and_how_far_behind() {
    let net = Net::start().await;
    let mut phone = net.socket("ada").await;
    phone.sync(1).await;
    let devices = net.devices("ada").await;
    let [device] = &devices[..] else {
        panic!("{devices:?}")
    };
    assert_eq!(
        (&device["id"], &device["name"], &device["platform"]),
        (&json!(id(1)), &json!("a device"), &json!("test"))
    );
    assert_eq!(
        (&device["connected"], &device["checkpoint"]),
        (&json!(true), &Value::Null)
    );
    let changes = net.draw("ada", |draw| note(draw, 7)).await;
    phone.push(&changeset(1, 1, changes)).await;
    let applied = phone
        .hear_until(|message| match message {
            ServerMessage::Checkpoint(c) if c.cursor.version.0 > 0 => Some(c.cursor.version),
            _ => None,
        })
        .await;
    let devices = net.devices("ada").await;
    assert_eq!(
        devices[0]["checkpoint"],
        Value::Null,
        "nothing was acknowledged"
    );
    // A device that says it has what it was never sent is believed what it was sent.
    let checkpoint = Some(syncline_core::Version(u64::from(u32::MAX) << 20));
    let credit = Credit {
        bytes: 1,
        checkpoint,
    };
    phone.say(&ClientMessage::Credit(credit)).await;
    let is_behind = |devices: &[Value]| devices[0]["behind_ms"] == json!(0);
    let devices = net.devices_when("ada", is_behind).await;
    assert_eq!(devices[0]["checkpoint"], json!(applied.0));
    let first_seen = devices[0]["first_seen_ms"].clone();

    drop(phone);
    let is_gone = |devices: &[Value]| devices[0]["connected"] == json!(false);
    net.devices_when("ada", is_gone).await;
    net.elsewhere("INSERT INTO labels (id, name) VALUES ('l1', 'urgent')");
    let is_behind = |devices: &[Value]| devices[0]["behind_ms"].as_u64() > Some(0);
    let devices = net.devices_when("ada", is_behind).await;
    assert_eq!(
        devices[0]["checkpoint"],
        json!(applied.0),
        "it was written down"
    );

    // All of it outlives the server.
    net.server.stop().await.expect("it stops");
    let folder = Some(net.folder);
    let net = Net::start_with(Wish {
        folder,
        ..Wish::default()
    })
    .await;
    let devices = net.devices("ada").await;
    assert_eq!(devices[0]["checkpoint"], json!(applied.0));
    assert_eq!(devices[0]["first_seen_ms"], first_seen);
    assert!(devices[0]["last_seen_ms"].as_u64() >= first_seen.as_u64());
}

#[tokio::test]
async fn de2_a_device_is_renamed_by_its_user_and_told_so() {
    let net = Net::start().await;
    net.socket("ada").await.sync(1).await;
    let (status, device) = net
        .rename("ada", &id(1), r#"{"name": " Ada's phone "}"#)
        .await;
    assert_eq!((status, &device["name"]), (200, &json!("Ada's phone")));
    let mut again = hello(1);
    again.lease = Lease([1; 16]);
    again.next_lease = Lease([2; 16]);
    let mut phone = net.socket("ada").await;
    phone.say(&ClientMessage::Hello(again.clone())).await;
    assert_eq!(
        welcomed(&mut phone).await.device_name.as_deref(),
        Some("Ada's phone")
    );
    drop(phone);
    again.lease = Lease([2; 16]);
    again.next_lease = Lease([3; 16]);
    again.device_name = "the brick\u{202e}".into();
    again.renamed = true;
    let mut phone = net.socket("ada").await;
    phone.say(&ClientMessage::Hello(again)).await;
    let name = welcomed(&mut phone).await.device_name;
    assert_eq!(name.as_deref(), Some("the brick\\u{202e}"));
    for body in [
        r#"{"name": " "}"#,
        r#"{"name": "a\u001bb"}"#,
        r#"{"name": 7}"#,
        "{}",
        "[",
    ] {
        let (status, refusal) = net.rename("ada", &id(1), body).await;
        assert!(matches!(status, 400 | 422), "{body}: {status}");
        assert_eq!(refusal["code"], json!(code::MALFORMED), "{body}");
    }
    assert_eq!(names(&net.devices("ada").await), ["the brick\\u{202e}"]);
}

#[tokio::test]
async fn de4_a_device_that_is_removed_while_connected_is_told_at_once_and_stays_out() {
    let net = Net::start().await;
    let mut phone = net.socket("ada").await;
    let mut laptop = net.socket("ada").await;
    phone.sync(1).await;
    laptop.sync(2).await;
    let asked = Instant::now();
    assert_eq!(net.remove("ada", &id(1)).await, (204, String::new()));
    let removed = (code::DEREGISTERED.to_owned(), Some(1008));
    assert_eq!(phone.refused().await, removed);
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(net.remove("ada", &id(1)).await.0, 204, "again");
    let devices = net.devices("ada").await;
    assert_eq!((devices.len(), &devices[0]["id"]), (1, &json!(id(2))));

    let mut again = hello(1);
    again.lease = Lease([1; 16]);
    again.next_lease = Lease([2; 16]);
    for lease in [Lease([1; 16]), Lease::default()] {
        let mut socket = net.socket("ada").await;
        let hello = ClientMessage::Hello(syncline_core::wire::Hello {
            lease,
            ..again.clone()
        });
        socket.say(&hello).await;
        assert_eq!(socket.refused().await, removed);
    }
    // The other one goes on.
    let changes = net.draw("ada", |draw| note(draw, 7)).await;
    laptop.push(&changeset(1, 1, changes)).await;
    let is_accepted = laptop
        .hear_until(|message| match message {
            ServerMessage::PushResult(result) => {
                Some(matches!(result.verdict, Verdict::Accepted(_)))
            }
            _ => None,
        })
        .await;
    assert!(is_accepted);

    again.register_anew = true;
    let mut socket = net.socket("ada").await;
    socket.say(&ClientMessage::Hello(again)).await;
    let welcome = welcomed(&mut socket).await;
    assert_ne!(welcome.device, DeviceId([1; 16]));
    assert_eq!(welcome.next_number, 1);
    let devices = net.devices("ada").await;
    let ids: Vec<_> = devices.iter().map(|device| device["id"].clone()).collect();
    assert!(ids.contains(&json!(welcome.device.to_string())), "{ids:?}");
}

#[tokio::test]
async fn de7_a_strangers_device_is_one_that_is_not_there() {
    let net = Net::start().await;
    let mut phone = net.socket("ada").await;
    phone.sync(1).await;
    assert_eq!(names(&net.devices("ben").await), [""; 0]);
    let name = r#"{"name": "mine"}"#;
    let unknown = net.rename("ben", &id(9), name).await;
    assert_eq!((unknown.0, &unknown.1["code"]), (404, &json!("not_found")));
    assert_eq!(net.rename("ben", &id(1), name).await, unknown);
    assert_eq!(net.rename("ben", "no-id", name).await, unknown);
    let unknown = net.remove("ben", &id(9)).await;
    assert_eq!(unknown.0, 404);
    assert_eq!(net.remove("ben", &id(1)).await, unknown);
    assert_eq!(net.remove("ben", "no-id").await, unknown);
    let devices = net.devices("ada").await;
    assert_eq!(
        (names(&devices), &devices[0]["connected"]),
        (vec!["a device"], &json!(true))
    );
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let url = net.url(&format!(
            "/v1/devices{}",
            if method == "GET" { "" } else { "/1" }
        ));
        let answer = net
            .http
            .request(method, url)
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 401, "without a token");
    }
}

#[tokio::test]
async fn de6_the_device_of_pushes_over_http_is_not_among_them() {
    let net = Net::start().await;
    let change = json!({"op": "insert", "table": "labels", "row": {"id": "a", "name": "red"}});
    let pushed = net
        .post("/v1/push", "ada")
        .header("idempotency-key", "1".repeat(32));
    let answer = pushed.json(&json!({ "changes": [change] })).send().await;
    assert!(answer.expect("an answer").status().is_success());
    assert_eq!(names(&net.devices("ada").await), [""; 0]);
}

#[tokio::test]
async fn de9_only_who_has_its_lease_hears_whether_a_device_is_to_be_wiped() {
    let net = Net::start().await;
    let mut phone = net.socket("ada").await;
    phone.sync(1).await;
    drop(phone);
    let device = net.devices("ada").await[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let wish = async |id: &str, body: Value| {
        let url = net.url(&format!("/v1/devices/{id}/wish"));
        let asked = net
            .http
            .post(url)
            .header("content-type", "application/json");
        let answer = asked
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        let status = answer.status().as_u16();
        (
            status,
            answer.json::<Value>().await.expect("JSON")["wipe"].clone(),
        )
    };
    let hex = |byte: u8| DeviceId([byte; 16]).to_string();
    let leases = |byte| json!({ "lease": hex(0), "next_lease": hex(byte) });
    assert_eq!(wish(&device, leases(1)).await, (200, json!(false)));
    for bad in ["?wipe=perhaps", "?wash=true"] {
        let (status, said) = net.remove("ada", &format!("{device}{bad}")).await;
        assert_eq!(status, 400, "{said}");
    }
    assert_eq!(
        net.remove("eve", &format!("{device}?wipe=true")).await.0,
        404
    );
    assert_eq!(
        net.remove("ada", &format!("{device}?wipe=true")).await.0,
        204
    );
    assert_eq!(wish(&device, leases(1)).await, (200, json!(true)));
    for (id, body) in [
        (hex(77), leases(1)),
        ("no-id".to_owned(), leases(1)),
        (device.clone(), leases(0)),
        (device.clone(), leases(2)),
        (device.clone(), json!({ "lease": "", "next_lease": "x" })),
    ] {
        assert_eq!(wish(&id, body).await, (200, json!(false)));
    }
    assert_eq!(wish(&device, json!({ "lease": hex(1) })).await.0, 422);
}
