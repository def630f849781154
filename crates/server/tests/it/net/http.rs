//! Probes, tokens and errors.

use serde_json::Value;

use super::{Net, SOON, Wish};

#[tokio::test]
async fn probes_answer_and_metrics_count() {
    let net = Net::start().await;
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = net.get(path).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await.expect("a body"), body);
    }
    let mut socket = net.socket("ada").await;
    socket.sync(1).await;
    let metrics = net.get("/metrics").send().await.expect("an answer");
    let kind = metrics.headers()["content-type"].clone();
    assert!(kind.to_str().expect("text").starts_with("text/plain"));
    let metrics = metrics.text().await.expect("a body");
    for name in [
        "syncline_connections 1",
        "syncline_log_head_seconds",
        "syncline_sessions_total",
        "syncline_frames_total{direction=\"in\"}",
        "syncline_bytes_total{direction=\"out\"}",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    assert!(!metrics.contains("ada"), "users are nobody's business");
}

#[tokio::test]
async fn wi14_a_bad_token_is_refused_with_what_is_wrong() {
    let net = Net::start().await;
    let stranger = syncline_server::net::Auth::new(&[0x43; 32]).expect("long enough");
    let later = syncline_core::Timestamp(super::now().0 + 60_000_000);
    let forged = stranger
        .issue("ada", Default::default(), super::now(), later)
        .expect("a token");
    let expired = {
        let long_ago = syncline_core::Timestamp(super::now().0 - 3_600_000_000);
        let issued = net
            .auth
            .issue("ada", Default::default(), long_ago, long_ago);
        issued.expect("a token")
    };
    for (token, word) in [
        (None, "Bearer"),
        (Some("nonsense".to_owned()), "cannot be read"),
        (Some(forged), "not signed by this server"),
        (Some(expired), "expired"),
        (Some("x".repeat(17_000)), "too long"),
    ] {
        for path in ["/v1/schema", "/v1/sync"] {
            let mut request = net.get(path);
            if path == "/v1/sync" {
                request = request
                    .header("connection", "upgrade")
                    .header("upgrade", "websocket")
                    .header("sec-websocket-version", "13")
                    .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
            }
            if let Some(token) = &token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), 401, "{path} {word}");
            let body: Value = answer.json().await.expect("JSON");
            assert_eq!(body["code"], "unauthorized");
            assert_eq!(body["retry"], false);
            let message = body["message"].as_str().expect("a sentence");
            assert!(message.contains(word), "{message}");
        }
    }
}

#[tokio::test]
async fn errors_are_json_also_where_nothing_is() {
    let net = Net::start().await;
    let token = net.token("ada");
    let get = |path: &str| net.get(path).bearer_auth(&token);
    let post = |path: &str, body: &str| {
        net.post(path, "ada")
            .header("content-type", "application/json")
            .body(body.to_owned())
    };
    for (request, status, code) in [
        (get("/nothing/here"), 404, "not_found"),
        (get("/v1/exchange"), 405, "not_found"),
        (post("/v1/hashes", "{\"tabel\": 1}"), 422, "malformed"),
        (post("/v1/hashes", "{"), 400, "malformed"),
        (post("/v1/hashes", "{\"table\": \"nope\"}"), 404, "schema"),
        (net.post("/v1/hashes", "ada").body("{}"), 415, "malformed"),
        (
            post(
                "/v1/exchange",
                &format!("\"{}\"", "x".repeat(9 * 1024 * 1024)),
            ),
            413,
            "too_large",
        ),
    ] {
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
        let policy = &answer.headers()["content-security-policy"];
        assert_eq!(policy, "default-src 'none'; frame-ancestors 'none'");
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["code"], code, "{body}");
        assert!(
            body["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
    }
}

#[tokio::test]
async fn only_configured_pages_may_ask() {
    let net = Net::start().await;
    let dev = Net::start_with(Wish {
        dev: true,
        ..Wish::default()
    })
    .await;
    for (net, origin, allowed) in [
        (&net, "http://localhost:5173", false),
        (&net, "https://evil.example", false),
        (&dev, "http://localhost:5173", true),
        (&dev, "https://localhost.evil.example", false),
        (&dev, "https://evil.example", false),
    ] {
        let answer = net.get("/healthz").header("origin", origin).send().await;
        let answer = answer.expect("an answer");
        let header = answer.headers().get("access-control-allow-origin");
        assert_eq!(header.is_some(), allowed, "{origin}");
    }
}

#[tokio::test]
async fn the_schema_is_answered_and_only_dev_takes_tables() {
    use syncline_core::wire::SchemaInfo;
    use syncline_store::testkit::{column, table};
    let mut offered = syncline_store::testkit::demo_schema();
    let mut key = column("id", syncline_core::ColumnType::Text);
    key.not_null = true;
    offered.tables.push(table("extra", vec![key]));
    let body = minicbor::to_vec(SchemaInfo::from_schema(&offered)).expect("CBOR");

    let net = Net::start().await;
    let put = |net: &Net| {
        net.http
            .put(net.url("/v1/schema"))
            .bearer_auth(net.token("ada"))
            .body(body.clone())
            .timeout(SOON)
    };
    let answer = put(&net).send().await.expect("an answer");
    assert_eq!(answer.status(), 403);
    let refused: Value = answer.json().await.expect("JSON");
    assert_eq!(refused["code"], "schema");
    assert!(
        refused["message"]
            .as_str()
            .expect("a sentence")
            .contains("extra")
    );

    let dev = Net::start_with(Wish {
        dev: true,
        ..Wish::default()
    })
    .await;
    // Sessions of the old tables are told to connect again at once.
    let mut socket = dev.socket("ada").await;
    socket.sync(1).await;
    let answer = put(&dev).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let bytes = answer.bytes().await.expect("a body");
    let info: SchemaInfo = minicbor::decode(&bytes).expect("a schema");
    assert!(info.to_schema().table("extra").is_some());
    assert_eq!(
        socket.refused().await,
        ("unavailable".to_owned(), Some(1012))
    );

    let anonymous = dev.http.put(dev.url("/v1/schema")).body(body.clone());
    assert_eq!(anonymous.send().await.expect("an answer").status(), 401);
}

/// What a device offers may neither stop the commits of others nor the next start.
#[tokio::test]
async fn an_offered_table_that_cannot_be_kept_is_refused_and_references_to_nowhere_are_dropped() {
    use syncline_core::{
        schema::{ForeignKey, OnDelete, Schema},
        wire::SchemaInfo,
    };
    use syncline_store::testkit::{column, table};
    let text = syncline_core::ColumnType::Text;
    let dev = Net::start_with(Wish {
        dev: true,
        ..Wish::default()
    })
    .await;
    let put = async |columns: &[&str]| {
        let columns = columns.iter().map(|name| column(name, text)).collect();
        let mut extra = table("extra", columns);
        extra.columns[0].not_null = true;
        extra.foreign_keys.push(ForeignKey {
            columns: vec![1],
            parent: "nowhere".to_owned(),
            parent_columns: Vec::new(),
            on_delete: OnDelete::Cascade,
        });
        let tables = vec![extra];
        let body = minicbor::to_vec(SchemaInfo::from_schema(&Schema { tables })).expect("CBOR");
        let request = dev.http.put(dev.url("/v1/schema")).body(body);
        let request = request.bearer_auth(dev.token("ada")).timeout(SOON);
        request.send().await.expect("an answer")
    };
    let answer = put(&["id", ""]).await;
    assert_eq!(answer.status(), 400);
    let refused: Value = answer.json().await.expect("JSON");
    let message = refused["message"].as_str().expect("a sentence");
    assert!(message.contains("has no name"), "{message}");

    let answer = put(&["id", "parent"]).await;
    assert_eq!(answer.status(), 200);
    let bytes = answer.bytes().await.expect("a body");
    let info: SchemaInfo = minicbor::decode(&bytes).expect("a schema");
    let schema = info.to_schema();
    assert_eq!(schema.table("extra").expect("it is there").foreign_keys, []);
}

#[tokio::test]
async fn dev_listens_on_this_machine_only() {
    let refused = Net::try_start(Wish {
        dev: true,
        listen: "0.0.0.0:0",
        ..Wish::default()
    })
    .await;
    let error = refused.err().expect("it does not start");
    assert!(error.to_string().contains("loopback"), "{error}");
    let refused = Net::try_start(Wish {
        dev: true,
        admin: Some("0.0.0.0:0"),
        ..Wish::default()
    })
    .await;
    assert!(refused.is_err());
}
