//! Every address, asked by one tenant with the ids of another.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{Net, Wish};

/// Nobody but Ada has these anywhere.
const SECRETS: [&str; 5] = ["ada", "aurora", "opal", "basalt", "amber"];
/// Rows of Ada's, and ids of the same length that nobody has.
const PROJECT: [&str; 2] = ["p-11111111", "p-22222222"];
const TASK: [&str; 2] = ["t-11111111", "t-22222222"];
const MEMBER: [&str; 2] = ["m-11111111", "m-22222222"];

async fn push(net: &Net, user: &str, key: u128, changes: Value) -> u16 {
    let request = net.post("/v1/push", user);
    let request = request.header("Idempotency-Key", format!("{key:032x}"));
    let answer = request.json(&json!({ "changes": changes })).send().await;
    answer.expect("an answer").status().as_u16()
}

fn insert(table: &str, row: Value) -> Value {
    json!({ "op": "insert", "table": table, "row": row })
}

async fn tenants() -> Net {
    let net = Net::start().await;
    let ada = json!([
        insert(
            "projects",
            json!({ "id": PROJECT[0], "name": "aurora", "budget": 7 })
        ),
        insert(
            "tasks",
            json!({ "id": TASK[0], "project_id": PROJECT[0], "title": "opal" })
        ),
        insert(
            "members",
            json!({ "id": MEMBER[0], "project_id": PROJECT[0], "user_id": "eve", "role": "basalt" })
        ),
        insert("notes", json!({ "id": 11, "body": "amber" })),
    ]);
    assert_eq!(push(&net, "ada", 1, ada).await, 200);
    let bob = json!([insert(
        "projects",
        json!({ "id": "p-bob", "name": "his own" })
    )]);
    assert_eq!(push(&net, "bob", 2, bob).await, 200);
    let mut socket = net.socket("ada").await;
    socket.sync(7).await;
    net
}

/// What an answer says, all of it but the time.
async fn heard(request: RequestBuilder) -> String {
    let answer = request.send().await.expect("an answer");
    let mut text = format!("{}\n", answer.status());
    for (name, value) in answer.headers() {
        if name != "date" {
            text.push_str(&format!("{name}: {value:?}\n"));
        }
    }
    let body = answer.bytes().await.expect("a body");
    text + &String::from_utf8_lossy(&body)
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// Requests about rows and devices: what another tenant's ids are answered has to be what ids are
/// answered that nobody has.
fn about(net: &Net, at: usize) -> Vec<(&'static str, RequestBuilder)> {
    let bob = net.token("bob");
    let ask = |path: &'static str, method: Method, tail: String| {
        let url = net.url(&format!(
            "{}{tail}",
            path.split('{').next().expect("a path")
        ));
        (path, net.http.request(method, url).bearer_auth(&bob))
    };
    let mut all = Vec::new();
    let rows = [
        ("projects", json!({ "id": PROJECT[at] })),
        ("tasks", json!({ "id": TASK[at] })),
        ("members", json!({ "id": MEMBER[at] })),
        ("notes", json!({ "id": 11 + at })),
    ];
    for (table, key) in &rows {
        let list = json!([key["id"]]).to_string();
        let of_row = format!("?table={table}&key={}", percent(&list));
        all.push(ask("/v1/history", Method::GET, of_row.clone()));
        for version in [1_u64, 1 << 52] {
            let tail = format!("{of_row}&version={version}");
            all.push(ask("/v1/history/row", Method::GET, tail));
        }
        let (path, request) = ask("/v1/hashes", Method::POST, String::new());
        all.push((path, request.json(&json!({ "table": table }))));
        let change = |op: &str| json!({ "op": op, "table": table, "key": key, "row": {} });
        let mut update = change("update");
        let column = ["name", "title", "role", "body"];
        let place = ["projects", "tasks", "members", "notes"]
            .iter()
            .position(|t| t == table);
        update["row"] = json!({ column[place.expect("one of them")]: "mine now" });
        let mut delete = change("delete");
        delete.as_object_mut().expect("an object").remove("row");
        for change in [update, delete] {
            let (path, request) = ask("/v1/push", Method::POST, String::new());
            let id = format!("{:032x}", 100 + all.len());
            let request = request.header("Idempotency-Key", id);
            all.push((path, request.json(&json!({ "changes": [change] }))));
        }
    }
    let device = format!("{:02x}", [7, 8][at]).repeat(16);
    let path = "/v1/devices/{id}";
    let (_, rename) = ask(path, Method::PATCH, device.clone());
    all.push((path, rename.json(&json!({ "name": "mine" }))));
    let (path, wish) = ask(
        "/v1/devices/{id}/wish",
        Method::POST,
        format!("{device}/wish"),
    );
    let leases = json!({ "lease": "01".repeat(16), "next_lease": "02".repeat(16) });
    all.push((path, wish.json(&leases)));
    all.push(ask("/v1/devices/{id}", Method::DELETE, device));
    let explain = format!("?table=projects&id={}", PROJECT[at]);
    all.push(ask("/v1/admin/explain", Method::GET, explain));
    all
}

/// Requests that name nothing: they answer with what is the asker's own.
fn plain(net: &Net) -> Vec<(&'static str, RequestBuilder)> {
    let bob = net.token("bob");
    let get = |path: &'static str| (path, net.get(path).bearer_auth(&bob));
    let mut all: Vec<_> = [
        "/",
        "/v1/pull",
        "/v1/schema",
        "/v1/topics",
        "/v1/devices",
        "/v1/audit",
        "/v1/auth/user",
        "/healthz",
        "/readyz",
        "/metrics",
        "/.well-known/jwks.json",
    ]
    .map(get)
    .into();
    let (cursor, tables) = ("?cursor=AAAA", "?tables=projects,tasks,members,notes");
    for tail in [cursor, tables] {
        let url = format!("/v1/pull{tail}");
        all.push(("/v1/pull", net.get(&url).bearer_auth(&bob)));
    }
    for path in [
        "/v1/exchange",
        "/v1/auth/sign-up",
        "/v1/auth/sign-in",
        "/v1/auth/refresh",
        "/v1/auth/sign-out",
        "/v1/auth/password/forgotten",
        "/v1/auth/password/reset",
        "/v1/auth/verify",
        "/v1/auth/verify/again",
    ] {
        all.push((path, net.post(path, "bob").json(&json!({}))));
    }
    all.push(("/v1/tickets", net.post("/v1/tickets", "bob")));
    let put = net.http.put(net.url("/v1/auth/password"));
    all.push(("/v1/auth/password", put.bearer_auth(&bob).json(&json!({}))));
    all
}

/// Every address that the sources have.
fn routes() -> BTreeSet<String> {
    let sources = [
        include_str!("../../../src/net/http.rs"),
        include_str!("../../../src/net/accounts/http.rs"),
    ];
    let mut found = BTreeSet::new();
    for source in sources {
        for part in source.split(".route(").skip(1) {
            let path = part.trim_start().trim_start_matches('"');
            found.insert(path.split('"').next().expect("a path").to_owned());
        }
    }
    found
}

#[tokio::test]
async fn two_tenants_hear_nothing_of_each_other_at_any_address() {
    let net = tenants().await;
    let (hers, nobodys) = (about(&net, 0), about(&net, 1));
    let mut asked: BTreeSet<String> = ["/v1/sync".to_owned()].into();
    for ((path, hers), (_, nobodys)) in hers.into_iter().zip(nobodys) {
        asked.insert(path.to_owned());
        let (one, other) = (heard(hers).await, heard(nobodys).await);
        for secret in SECRETS {
            assert!(!one.contains(secret), "{path}: {one}");
        }
        assert!(
            !one.contains("malformed"),
            "asked as it should be: {path}: {one}"
        );
        let mut one = one;
        for ids in [PROJECT, TASK, MEMBER] {
            one = one.replace(ids[0], ids[1]);
        }
        let one = one
            .replace(&"07".repeat(16), &"08".repeat(16))
            .replace("11", "12");
        assert_eq!(one, other.replace("11", "12"), "{path}");
    }
    for (path, request) in plain(&net) {
        asked.insert(path.to_owned());
        let answer = heard(request).await;
        for secret in SECRETS.iter().chain(&[PROJECT[0], TASK[0], MEMBER[0]]) {
            assert!(!answer.contains(secret), "{path}: {answer}");
        }
    }
    assert_eq!(asked, routes(), "an address that is not asked here");

    // An id that is taken is no way to a row, nor into somebody's project.
    let taken = [
        insert("projects", json!({ "id": PROJECT[0], "name": "mine" })),
        insert(
            "members",
            json!({ "id": "m-bob", "project_id": PROJECT[0], "user_id": "bob", "role": "editor" }),
        ),
        insert(
            "tasks",
            json!({ "id": "t-bob", "project_id": PROJECT[0], "title": "mine" }),
        ),
    ];
    for (key, change) in (900..).zip(taken) {
        let request = net.post("/v1/push", "bob");
        let request = request.header("Idempotency-Key", format!("{key:032x}"));
        let answer = heard(request.json(&json!({ "changes": [change] }))).await;
        assert!(!answer.starts_with("200"), "{answer}");
        for secret in SECRETS {
            assert!(!answer.contains(secret), "{answer}");
        }
    }
    let hers = heard(net.get("/v1/pull").bearer_auth(net.token("ada"))).await;
    for secret in &SECRETS[1..] {
        assert!(hers.contains(secret), "it is as it was: {hers}");
    }
    assert!(!hers.contains("mine"), "{hers}");
}

#[tokio::test]
async fn only_the_named_origin_is_allowed_of_twenty_that_look_like_it() {
    let net = Net::start_with(Wish {
        server: Box::new(|server| {
            server.origins = vec!["https://app.example.com".into()];
        }),
        ..Wish::default()
    })
    .await;
    let strange = [
        "null",
        "*",
        "http://app.example.com",
        "https://app.example.com:443",
        "https://app.example.com:8443",
        "https://app.example.com.",
        "https://app.example.com/",
        "https://app.example.com.evil.test",
        "https://evilapp.example.com",
        "https://evil.app.example.com",
        "https://example.com",
        "https://app.example.com@evil.test",
        "https://evil.test#https://app.example.com",
        "https://evil.test?https://app.example.com",
        "https://APP.example.com",
        "https://xn--pp-pma.example.com",
        "https://app.example.com evil",
        "https://app_example.com",
        "http://localhost",
        "file://",
    ];
    for (origin, allowed) in strange
        .iter()
        .map(|o| (*o, false))
        .chain([("https://app.example.com", true)])
    {
        for method in [Method::GET, Method::OPTIONS] {
            let request = net.http.request(method, net.url("/v1/pull"));
            let request = request
                .header("origin", origin)
                .header("access-control-request-method", "GET");
            let answer = request.send().await.expect("an answer");
            let headers = answer.headers();
            let named = headers.get("access-control-allow-origin");
            assert_eq!(named.is_some(), allowed, "{origin}");
            assert!(
                headers.get("access-control-allow-credentials").is_none(),
                "{origin}"
            );
            let vary: Vec<_> = headers.get_all("vary").iter().collect();
            let vary = format!("{vary:?}").to_lowercase();
            assert!(vary.contains("origin"), "{origin}: {vary}");
        }
        // The socket of a page elsewhere is not opened, whatever token the page has.
        let request = net.get("/v1/sync").bearer_auth(net.token("ada"));
        let request = request
            .header("origin", origin)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let status = request.send().await.expect("an answer").status();
        assert_eq!(status == 101, allowed, "{origin}: {status}");
    }
}

#[tokio::test]
async fn no_header_of_an_answer_is_written_by_who_asks() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let net = Net::start().await;
    let token = net.token("ada");
    let requests = [
        "GET /%0d%0aX-Planted:%20yes HTTP/1.1\r\nhost: x\r\n".to_owned(),
        format!(
            "GET /v1/history?table=a%0d%0aX-Planted:yes&key=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        ),
        format!(
            "PATCH /v1/devices/%0d%0aX-Planted:yes HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        ),
        "GET /healthz HTTP/1.1\r\nhost: x\r\norigin: a\nX-Planted: yes\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nhost: x\r\norigin: https://a\u{b}X-Planted: yes\r\n".to_owned(),
        "GET /v1/sync HTTP/1.1\r\nhost: x\r\nsec-websocket-protocol: a%0d%0aX-Planted: yes\r\n"
            .to_owned(),
        "GET / HTTP/1.1\r\nhost: x\r\n X-Planted: yes\r\n".to_owned(),
    ];
    for request in requests {
        let mut socket = tokio::net::TcpStream::connect(net.server.address())
            .await
            .expect("a socket");
        let text = format!("{request}connection: close\r\n\r\n");
        socket.write_all(text.as_bytes()).await.expect("it is sent");
        let mut answer = Vec::new();
        drop(
            tokio::time::timeout(super::SOON, socket.read_to_end(&mut answer))
                .await
                .expect("it ends"),
        );
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        let head = answer.split("\r\n\r\n").next().expect("a head");
        let planted = head
            .lines()
            .any(|line| line.trim_start().starts_with("x-planted"));
        assert!(!planted, "{request}: {answer}");
    }
}
