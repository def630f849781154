//! Accounts as their owners, and those who would like to be, meet them.

mod forged;
mod mailbox;
mod rights;
mod tickets;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use syncline_server::net::accounts::{
    admin::{self, Change},
    audit::{self, Verified},
};
use syncline_store::accounts::{AuditRecord, AuditWant, transact};
use syncline_store_sqlite::SqliteAccounts;
use tokio_tungstenite::tungstenite::{Error as WsError, client::IntoClientRequest};

use self::mailbox::Mailbox;
use super::{Net, SOON, Wish, hello, now};

pub const ANA: &str = "ana@example.com";
pub const WORDS: &str = "three brown foxes";

/// A server where anybody signs up, without mails.
pub async fn open_house() -> Net {
    Net::start_with(Wish {
        server: Box::new(|server| (server.sign_up, server.verify_email) = (true, false)),
        ..Wish::default()
    })
    .await
}

impl Net {
    /// Asks; the status and the body.
    pub async fn auth(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = self.url(&format!("/v1/auth/{path}"));
        let request = self.http.post(url).json(body).timeout(SOON);
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    async fn signed_up(&self, email: &str) -> Value {
        let body = json!({ "email": email, "password": WORDS });
        let (status, tokens) = self.auth("sign-up", &body).await;
        assert_eq!(status, 201, "{tokens}");
        tokens
    }

    async fn sign_in(&self, email: &str, password: &str) -> (u16, Value) {
        let body = json!({ "email": email, "password": password });
        self.auth("sign-in", &body).await
    }

    async fn refresh(&self, tokens: &Value) -> (u16, Value) {
        let body = json!({ "refresh_token": tokens["refresh_token"] });
        self.auth("refresh", &body).await
    }

    async fn user(&self, access: &Value) -> (u16, Value) {
        let token = access.as_str().expect("a token");
        let request = self.get("/v1/auth/user").bearer_auth(token);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// The accounts as another program has them.
    fn store(&self) -> SqliteAccounts {
        let path = self.folder.path().join("server.db");
        SqliteAccounts::open(&path).expect("the data is there")
    }

    fn audited(&self) -> Vec<String> {
        let want = AuditWant {
            max: 1_000,
            ..AuditWant::default()
        };
        let records = transact(&self.store(), |records| records.audit(&want)).expect("it reads");
        records
            .into_iter()
            .rev()
            .map(|record| record.event.kind)
            .collect()
    }
}

#[tokio::test]
async fn ac1_somebody_signs_up_in_and_out() {
    let net = open_house().await;
    let tokens = net.signed_up(" Ana@Example.com ").await;
    assert_eq!(tokens["token_type"], "bearer");
    assert_eq!(tokens["expires_in"], 900);
    let (status, user) = net.user(&tokens["access_token"]).await;
    assert_eq!((status, &user["email"]), (200, &ANA.into()));
    assert_eq!(user["id"], tokens["user"]["id"]);

    let (status, again) = net.sign_in("ANA@example.com", WORDS).await;
    assert_eq!((status, &again["user"]["id"]), (200, &user["id"]));
    net.try_socket(again["access_token"].as_str().unwrap())
        .await
        .expect("a session")
        .sync(1)
        .await;
    let (status, body) = net
        .auth("sign-up", &json!({ "email": ANA, "password": WORDS }))
        .await;
    assert_eq!((status, &body["code"]), (409, &"email_taken".into()));

    let body = json!({ "refresh_token": again["refresh_token"] });
    assert_eq!(net.auth("sign-out", &body).await.0, 204);
    assert_eq!(net.refresh(&again).await.0, 401);
    assert_eq!(net.refresh(&tokens).await.0, 200, "the other login goes on");
    // Twice is as good as once.
    assert_eq!(net.auth("sign-out", &body).await.0, 204);
    let kinds = net.audited();
    assert_eq!(
        kinds,
        [
            "signed_up",
            "signed_in",
            "signed_in",
            "sign_up_repeated",
            "signed_out"
        ]
    );
}

#[tokio::test]
async fn ac3_a_login_that_ends_takes_its_sessions_and_tokens_along_within_a_second() {
    let net = open_house().await;
    let (phone, laptop) = (net.signed_up(ANA).await, net.sign_in(ANA, WORDS).await.1);
    let access = |tokens: &Value| tokens["access_token"].as_str().unwrap().to_owned();
    let mut at_phone = net.try_socket(&access(&phone)).await.expect("a session");
    let mut at_laptop = net.try_socket(&access(&laptop)).await.expect("a session");
    at_phone.sync(1).await;
    at_laptop
        .say(&syncline_core::wire::ClientMessage::Hello(hello(2)))
        .await;

    let asked = Instant::now();
    let body = json!({ "refresh_token": phone["refresh_token"] });
    net.auth("sign-out", &body).await;
    assert_eq!(at_phone.refused().await.0, "unauthorized");
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(net.user(&phone["access_token"]).await.0, 401);
    assert_eq!(net.user(&laptop["access_token"]).await.0, 200);

    // An operator, beside the running server.
    admin::change(&net.store(), ANA, &Change::Disable, now()).expect("disabled");
    assert_eq!(at_laptop.refused().await.0, "unauthorized");
    assert_eq!(net.user(&laptop["access_token"]).await.0, 401);
    assert_eq!(net.refresh(&laptop).await.0, 401);
    let (status, disabled) = net.sign_in(ANA, WORDS).await;
    let (_, unknown) = net.sign_in("nobody@example.com", WORDS).await;
    assert_eq!((status, disabled), (401, unknown));
    admin::change(&net.store(), ANA, &Change::Enable, now()).expect("enabled");
    assert_eq!(net.sign_in(ANA, WORDS).await.0, 200);
}

#[tokio::test]
async fn ac3_with_a_device_that_is_deregistered_its_logins_end() {
    let net = open_house().await;
    let (phone, laptop) = (net.signed_up(ANA).await, net.sign_in(ANA, WORDS).await.1);
    let access = |tokens: &Value| tokens["access_token"].as_str().unwrap().to_owned();
    let mut at_phone = net.try_socket(&access(&phone)).await.expect("a session");
    at_phone.sync(1).await;
    let mut at_laptop = net.try_socket(&access(&laptop)).await.expect("a session");
    at_laptop.sync(2).await;
    let listed = net
        .get("/v1/devices")
        .bearer_auth(access(&laptop))
        .send()
        .await;
    let listed: Value = listed.expect("an answer").json().await.expect("JSON");
    assert_eq!(listed["devices"].as_array().map(Vec::len), Some(2));
    let removed = net.url(&format!("/v1/devices/{}", "01".repeat(16)));
    let removed = net
        .http
        .delete(removed)
        .bearer_auth(access(&laptop))
        .send()
        .await;
    assert_eq!(removed.expect("an answer").status(), 204);
    let code = at_phone.refused().await.0;
    assert!(
        ["deregistered", "unauthorized"].contains(&code.as_str()),
        "{code}"
    );
    let started = Instant::now();
    while net.user(&phone["access_token"]).await.0 == 200 {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "the token lives on"
        );
    }
    assert_eq!(net.refresh(&phone).await.0, 401);
    assert_eq!(net.user(&laptop["access_token"]).await.0, 200);
    assert_eq!(net.refresh(&laptop).await.0, 200);
    assert!(net.audited().contains(&"device_deregistered".to_owned()));
}

#[tokio::test]
async fn ac8_a_refresh_token_is_good_once_and_comes_again_only_at_once() {
    let net = open_house().await;
    let first = net.signed_up(ANA).await;
    let (_, second) = net.refresh(&first).await;
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    // The answer was lost, or two windows asked at once: the same one follows.
    let (status, again) = net.refresh(&first).await;
    assert_eq!(
        (status, &again["refresh_token"]),
        (200, &second["refresh_token"])
    );
    let (_, third) = net.refresh(&second).await;
    let (status, _) = net.refresh(&third).await;
    assert_eq!(status, 200);

    // A copy of an old one: nobody can tell who is the thief.
    let (status, body) = net.refresh(&second).await;
    assert_eq!(status, 401);
    assert!(
        body["message"].as_str().unwrap().contains("used before"),
        "{body}"
    );
    assert_eq!(net.refresh(&third).await.0, 401);
    let started = Instant::now();
    while net.user(&third["access_token"]).await.0 == 200 {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "the token lives on"
        );
    }
    assert!(net.audited().contains(&"refresh_reused".to_owned()));
    let forged = json!({ "refresh_token": "slr_AAAA" });
    assert_eq!(net.auth("refresh", &forged).await.0, 401);
}

#[tokio::test]
async fn ac8_two_windows_that_refresh_at_once_both_go_on() {
    let net = open_house().await;
    let tokens = net.signed_up(ANA).await;
    let (one, two) = tokio::join!(net.refresh(&tokens), net.refresh(&tokens));
    assert_eq!((one.0, two.0), (200, 200));
    assert_eq!(one.1["refresh_token"], two.1["refresh_token"]);
    assert_eq!(net.refresh(&one.1).await.0, 200);
}

#[tokio::test]
async fn ac5_what_is_not_told_to_strangers() {
    let net = open_house().await;
    net.signed_up(ANA).await;
    let (known, one) = net.sign_in(ANA, "three brown dogs!").await;
    let (unknown, other) = net.sign_in("eve@example.com", WORDS).await;
    assert_eq!((known, &one), (401, &other));
    assert_eq!(known, unknown);
    let too_long = "long words ".repeat(50);
    assert_eq!(net.sign_in(ANA, &too_long).await, (401, one));
    for path in ["password/forgotten", "verify/again"] {
        let known = net.auth(path, &json!({ "email": ANA })).await;
        let unknown = net.auth(path, &json!({ "email": "eve@example.com" })).await;
        assert_eq!(known, unknown);
        assert_eq!(known.0, 202);
    }
    let kinds = net.audited();
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| *kind == "sign_in_failed")
            .count(),
        3
    );
}

#[tokio::test]
async fn ac6_guesses_are_slowed_down_and_told_how_long() {
    let net = open_house().await;
    net.signed_up(ANA).await;
    let mut taken = 0;
    let refused = loop {
        let url = net.url("/v1/auth/sign-in");
        let body = json!({ "email": ANA, "password": format!("guess number {taken}") });
        let answer = net.http.post(url).json(&body).timeout(SOON).send().await;
        let answer = answer.expect("an answer");
        if answer.status() == 429 {
            break answer;
        }
        assert_eq!(answer.status(), 401);
        taken += 1;
    };
    assert!(taken <= 6, "{taken} guesses");
    assert_eq!(refused.headers()["retry-after"], "1");
    let body: Value = refused.json().await.expect("JSON");
    assert_eq!(body["code"], "too_fast");
    // The right password waits, too: else the answer would be a guess more.
    assert_eq!(net.sign_in(ANA, WORDS).await.0, 429);
}

#[tokio::test]
async fn ac9_an_address_is_confirmed_and_a_password_reset_by_mail() {
    let mailbox = Mailbox::open().await;
    let folder = tempfile::tempdir().expect("a folder");
    let net = mailbox.server(folder).await;
    let body = json!({ "email": ANA, "password": WORDS });
    let (status, first) = net.auth("sign-up", &body).await;
    assert_eq!((status, &first), (202, &json!({ "sent": true })));
    let verify = mailbox.code(ANA, "syncline_verify=").await;
    assert_eq!(net.sign_in(ANA, WORDS).await.0, 401, "not confirmed yet");

    // The same answer when there is an account; only its owner reads more.
    assert_eq!(net.auth("sign-up", &body).await, (202, first));
    assert!(mailbox.next(ANA).await.contains("has an account"));

    let code = |code: &str| json!({ "code": code });
    assert_eq!(net.auth("verify", &code("no code")).await.0, 401);
    // A code is for what it was sent for, and used up by the attempt.
    assert_eq!(net.auth("verify", &code(&verify)).await.0, 204);
    assert_eq!(net.auth("verify", &code(&verify)).await.0, 401);
    let (status, tokens) = net.sign_in(ANA, WORDS).await;
    assert_eq!(
        (status, &tokens["user"]["email_verified"]),
        (200, &true.into())
    );

    net.auth("password/forgotten", &json!({ "email": ANA }))
        .await;
    let reset = mailbox.code(ANA, "syncline_reset=").await;
    let with = |code: &str, password: &str| json!({ "code": code, "password": password });
    let (status, weak) = net.auth("password/reset", &with(&reset, "short")).await;
    assert_eq!((status, &weak["code"]), (400, &"weak_password".into()));
    let new = "four quick red hens";
    let (one, two) = (with(&reset, new), with(&reset, new));
    let (one, two) = tokio::join!(
        net.auth("password/reset", &one),
        net.auth("password/reset", &two)
    );
    let mut both = [one.0, two.0];
    both.sort_unstable();
    assert_eq!(both, [204, 401], "good once");
    assert!(mailbox.next(ANA).await.contains("was changed"));
    assert_eq!(net.refresh(&tokens).await.0, 401, "every login was ended");
    assert_eq!(net.sign_in(ANA, WORDS).await.0, 401);
    assert_eq!(net.sign_in(ANA, new).await.0, 200);
}

/// Hashing takes its time: what an operator does meanwhile stays done.
#[tokio::test(flavor = "multi_thread")]
async fn ac9_a_password_that_is_changed_undoes_nothing_that_came_meanwhile() {
    let net = open_house().await;
    let signed_in = net.signed_up(ANA).await;
    let request = net.http.put(net.url("/v1/auth/password"));
    let body = json!({ "current": WORDS, "new": "four quick red hens" });
    let token = signed_in["access_token"].as_str().unwrap();
    let request = request.bearer_auth(token).json(&body).timeout(SOON);
    let changing = tokio::spawn(request.send());
    tokio::time::sleep(Duration::from_millis(30)).await;
    admin::change(&net.store(), ANA, &Change::Disable, now()).expect("disabled");
    let status = changing.await.expect("no panic").expect("an answer");
    let status = status.status().as_u16();
    assert!([204, 401].contains(&status), "{status}");
    for password in [WORDS, "four quick red hens"] {
        assert_eq!(net.sign_in(ANA, password).await.0, 401, "after {status}");
    }
}

#[tokio::test]
async fn ac9_a_password_is_changed_by_who_knows_it_and_other_logins_end() {
    let net = open_house().await;
    let (here, there) = (net.signed_up(ANA).await, net.sign_in(ANA, WORDS).await.1);
    let change = async |current: &str, new: &str, token: &str| {
        let request = net.http.put(net.url("/v1/auth/password"));
        let body = json!({ "current": current, "new": new });
        let request = request.bearer_auth(token).json(&body).timeout(SOON);
        request.send().await.expect("an answer").status().as_u16()
    };
    let token = here["access_token"].as_str().unwrap();
    let new = "four quick red hens";
    assert_eq!(change("three brown dogs!", new, token).await, 401);
    assert_eq!(change(WORDS, "short", token).await, 400);
    assert_eq!(change(WORDS, new, &net.token("ana")).await, 401);
    assert_eq!(change(WORDS, new, token).await, 204);
    assert_eq!(net.refresh(&here).await.0, 200);
    assert_eq!(net.refresh(&there).await.0, 401);
    assert_eq!(net.sign_in(ANA, new).await.0, 200);
}

#[tokio::test]
async fn ac1_nobody_signs_up_where_that_is_off() {
    let net = Net::start().await;
    let body = json!({ "email": ANA, "password": WORDS });
    let (status, body) = net.auth("sign-up", &body).await;
    assert_eq!((status, &body["code"]), (403, &"forbidden".into()));
    admin::add(
        &net.store(),
        ANA,
        WORDS,
        &std::collections::BTreeMap::new(),
        now(),
    )
    .expect("added");
    assert_eq!(net.sign_in(ANA, WORDS).await.0, 200);
    let wish = Wish {
        server: Box::new(|server| server.sign_up = true),
        ..Wish::default()
    };
    let error = Net::try_start(wish)
        .await
        .err()
        .expect("no way to confirm addresses");
    assert!(error.to_string().contains("server.smtp"), "{error}");
}

#[tokio::test]
async fn ac2_bodies_are_small_and_exact() {
    let net = open_house().await;
    for (body, status) in [
        (json!({ "email": ANA }), 422),
        (
            json!({ "email": ANA, "password": WORDS, "role": "admin" }),
            422,
        ),
        (json!({ "email": "not an address", "password": WORDS }), 400),
        (
            json!({ "email": "ana@example.com\r\nBcc: eve@example.com", "password": WORDS }),
            400,
        ),
        (json!({ "email": ANA, "password": "short" }), 400),
        (json!({ "email": ANA, "password": "x".repeat(20_000) }), 413),
    ] {
        let (got, answer) = net.auth("sign-up", &body).await;
        assert_eq!(got, status, "{answer}");
        assert!(
            answer["code"].is_string() && answer["message"].is_string(),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn ac10_the_audit_log_shows_what_was_changed_in_it() {
    let net = open_house().await;
    net.signed_up(ANA).await;
    net.sign_in(ANA, "three brown dogs!").await;
    net.sign_in(ANA, WORDS).await;
    let verify = || transact(&net.store(), audit::verify).expect("it reads");
    assert_eq!(verify(), Verified::Whole(4));
    let database = net.folder.path().join("server.db");
    let bytes = std::fs::read(&database).expect("the file");
    for secret in [WORDS, "three brown dogs!"] {
        let found = bytes
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!found, "a password is in the data");
    }
    for damage in [
        "UPDATE syncline_audit SET subject = 'eve' WHERE number = 2",
        "DELETE FROM syncline_audit WHERE number = 3",
    ] {
        net.elsewhere(damage);
        assert!(matches!(verify(), Verified::Broken(_)), "{damage}");
    }
}

#[tokio::test]
async fn ac10_only_administrators_read_the_audit_log() {
    let net = open_house().await;
    let tokens = net.signed_up(ANA).await;
    let asked = async |path: &str, token: &str| {
        let answer = net.get(path).bearer_auth(token).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.expect("JSON"))
    };
    let ana = tokens["access_token"].as_str().unwrap();
    assert_eq!(asked("/v1/audit", ana).await.0, 403);
    assert_eq!(asked("/v1/audit", "no token").await.0, 401);
    let claims = [("syncline_admin".to_owned(), json!(true))].into();
    let until = syncline_core::Timestamp(now().0 + 60_000_000);
    let admin = net
        .auth
        .issue("ops", claims, now(), until)
        .expect("a token");
    let (status, log) = asked("/v1/audit?kind=signed_up", &admin).await;
    assert_eq!(
        (status, log["records"].as_array().map(Vec::len)),
        (200, Some(1))
    );
    assert_eq!(log["records"][0]["subject"], tokens["user"]["id"]);
    assert_eq!(
        asked("/v1/audit?limit=1", &admin).await.1["records"][0]["kind"],
        "signed_in"
    );
    assert_eq!(asked("/v1/audit?limit=0", &admin).await.0, 400);
    assert_eq!(asked("/v1/audit?colour=red", &admin).await.0, 400);
}

#[tokio::test]
async fn ac11_a_page_of_another_origin_opens_no_session_and_reads_no_answer() {
    let net = open_house().await;
    let tokens = net.signed_up(ANA).await;
    let url = format!("ws://{}/v1/sync", net.server.address());
    let mut request = url.into_client_request().expect("a request");
    let token = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let headers = request.headers_mut();
    headers.insert("authorization", token.parse().expect("a header"));
    headers.insert("origin", "https://evil.test".parse().expect("a header"));
    headers.insert("cookie", "session=victim".parse().expect("a header"));
    match tokio_tungstenite::connect_async(request).await {
        Err(WsError::Http(answer)) => assert_eq!(answer.status(), 403),
        other => panic!("before the upgrade: {other:?}"),
    }
    let body = json!({ "email": ANA, "password": WORDS });
    let request = net.http.post(net.url("/v1/auth/sign-in")).json(&body);
    let answer = request.header("origin", "https://evil.test").send().await;
    let answer = answer.expect("an answer");
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    assert_eq!(answer.headers()["cache-control"], "no-store");
}

#[tokio::test]
async fn ac15_what_rules_refuse_is_in_the_audit_log_without_the_row() {
    let net = Net::start().await;
    let push = async |user: &str, key: u128, change: Value| {
        let request = net.post("/v1/push", user);
        let request = request.header("Idempotency-Key", format!("{key:032x}"));
        let answer = request.json(&json!({ "changes": [change] })).send().await;
        answer.expect("an answer").status().as_u16()
    };
    let project = json!({ "op": "insert", "table": "projects", "row": { "id": "p", "name": "x" } });
    assert_eq!(push("ana", 1, project).await, 200);
    let row = json!({ "id": "canary-id", "project_id": "p", "user_id": "canary-value", "role": "editor" });
    let member = json!({ "op": "insert", "table": "members", "row": row });
    for key in 2..22 {
        assert_ne!(push("eve", key, member.clone()).await, 200);
    }
    let records = || {
        let want = AuditWant {
            kind: Some("refused".into()),
            max: 100,
            ..Default::default()
        };
        transact(&net.store(), |records| records.audit(&want)).expect("it reads")
    };
    let found = tokio::time::timeout(SOON, async {
        while records().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        records()
    });
    let found = found.await.expect("it is written");
    assert_eq!(found.len(), 1, "a flood is one record: {found:?}");
    let event = &found[0].event;
    assert_eq!(event.actor, "eve");
    assert!(
        event.detail.starts_with("create in members by the rules"),
        "{event:?}"
    );
    assert!(!format!("{event:?}").contains("canary"), "{event:?}");
    let whole = transact(&net.store(), audit::verify).expect("it reads");
    assert!(matches!(whole, Verified::Whole(_)));
}

#[tokio::test]
async fn ac16_access_that_is_given_and_taken_is_in_the_audit_log_without_the_row() {
    let net = Net::start().await;
    let push = async |user: &str, key: u128, changes: Value| {
        let request = net.post("/v1/push", user);
        let request = request.header("Idempotency-Key", format!("{key:032x}"));
        let answer = request.json(&json!({ "changes": changes })).send().await;
        assert_eq!(answer.expect("an answer").status(), 200, "{changes}");
    };
    let insert = |table: &str, row: Value| json!({ "op": "insert", "table": table, "row": row });
    let project = |id: &str| insert("projects", json!({ "id": id, "name": "canary-name" }));
    let member = |id: &str, project: &str, user: &str| {
        let row = json!({ "id": id, "project_id": project, "user_id": user, "role": "editor" });
        insert("members", row)
    };
    let delete =
        |table: &str, id: &str| json!({ "op": "delete", "table": table, "key": { "id": id } });
    // What somebody makes is theirs without a word; whom they let in is told.
    let made = [
        project("canary-p"),
        member("m1", "canary-p", "ana"),
        member("m2", "canary-p", "bob"),
    ];
    push("ana", 1, json!(made)).await;
    push(
        "ana",
        2,
        json!([project("canary-q"), member("m3", "canary-q", "bob")]),
    )
    .await;
    // He leaves one by himself, and the other is deleted with all that is in it.
    push("bob", 3, json!([delete("members", "m2")])).await;
    push(
        "ana",
        4,
        json!([delete("members", "m3"), delete("projects", "canary-q")]),
    )
    .await;
    // Another program lets somebody in.
    net.elsewhere("INSERT INTO members VALUES ('m4', 'canary-p', 'eve', 'viewer')");
    let records = || {
        let want = AuditWant {
            max: 100,
            ..Default::default()
        };
        let all = transact(&net.store(), |records| records.audit(&want)).expect("it reads");
        let access = |record: &AuditRecord| record.event.kind.starts_with("access_");
        all.into_iter()
            .filter(access)
            .map(|record| record.event)
            .collect::<Vec<_>>()
    };
    let told = tokio::time::timeout(SOON, async {
        loop {
            let found = records();
            if found.iter().any(|event| event.subject == "eve") {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut told = told.await.expect("it is written");
    told.reverse();
    let whole = transact(&net.store(), audit::verify).expect("it reads");
    assert!(matches!(whole, Verified::Whole(_)));
    let texts: Vec<_> = told
        .iter()
        .map(|event| {
            let (kind, by, user) = (&event.kind, &event.actor, &event.subject);
            format!("{kind} {by} {user}: {}", event.detail)
        })
        .collect();
    let all = texts.join("\n");
    assert!(!all.contains("canary"), "{all}");
    let has = |kind: &str, by: &str, user: &str| {
        let tables = "projects, members, tasks";
        let text = format!("{kind} {by} {user}: access to rows of {tables} by a row of members");
        assert!(
            texts.iter().any(|found| found.starts_with(&text)),
            "{text} in\n{all}"
        );
    };
    has("access_given", "ana", "bob");
    has("access_taken", "bob", "bob");
    has("access_given", "", "eve");
    assert!(
        texts
            .iter()
            .any(|found| found.ends_with("by another program")),
        "{all}"
    );
    assert!(
        !texts.iter().any(|found| found.contains("ana ana")),
        "{all}"
    );
    assert!(
        !texts
            .iter()
            .any(|found| found.starts_with("access_taken ana bob")),
        "{all}"
    );
}
