//! `GET /v1/admin/explain`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use syncline_core::Timestamp;

use super::{Net, now};

fn administrator(net: &Net) -> String {
    let claims = BTreeMap::from([("syncline_admin".to_owned(), true.into())]);
    let end = Timestamp(now().0 + 60_000_000);
    net.auth.issue("ops", claims, now(), end).expect("a token")
}

async fn push(net: &Net, user: &str, key: u128, changes: Value) {
    let request = net.post("/v1/push", user);
    let request = request.header("Idempotency-Key", format!("{key:032x}"));
    let answer = request.json(&json!({ "changes": changes })).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
}

fn insert(table: &str, row: Value) -> Value {
    json!({ "op": "insert", "table": table, "row": row })
}

async fn ask(net: &Net, token: Option<&str>, query: &[(&str, &str)]) -> (u16, Value) {
    let encoded = |text: &str| -> String {
        let hex = text.bytes().map(|byte| format!("%{byte:02x}"));
        hex.collect()
    };
    let query: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    let mut request = net.get(&format!("/v1/admin/explain?{}", query.join("&")));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.headers().get("access-control-allow-origin"), None);
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn ru27_administrators_ask_why_and_nobody_else() {
    let net = Net::start().await;
    push(
        &net,
        "ada",
        1,
        json!([insert("projects", json!({ "id": "p", "name": "Garden" }))]),
    )
    .await;
    let row = json!({ "id": "m", "project_id": "p", "user_id": "bob", "role": "viewer" });
    push(&net, "ada", 2, json!([insert("members", row)])).await;
    push(
        &net,
        "ada",
        3,
        json!([insert("notes", json!({ "id": 7, "body": "mine" }))]),
    )
    .await;
    let admin = administrator(&net);
    let row = [("table", "projects"), ("id", "p")];

    for (token, status) in [(None, 401), (Some(net.token("ada")), 403)] {
        let (got, answer) = ask(&net, token.as_deref(), &row).await;
        assert_eq!(got, status);
        assert!(!answer.to_string().contains("Garden"), "{answer}");
    }

    let (status, people) = ask(&net, Some(&admin), &row).await;
    assert_eq!(status, 200);
    let users = |action: &str| -> Vec<Value> {
        let people = people[action].as_array().expect("a list").iter();
        people.map(|one| one["user"].clone()).collect()
    };
    assert_eq!(users("read"), ["ada", "bob"]);
    assert_eq!(users("update"), ["ada"]);
    assert_eq!(people["read"][1]["through"], json!(["row 'm' of members"]));

    let (_, access) = ask(&net, Some(&admin), &[row[0], row[1], ("user", "bob")]).await;
    assert_eq!(access["read"]["allowed"], true);
    assert_eq!(access["update"]["allowed"], false);
    let because = access["update"]["reasons"].to_string();
    assert!(because.contains("role is 'viewer'"), "{because}");

    let (_, tables) = ask(&net, Some(&admin), &[("user", "bob")]).await;
    let tables = tables["tables"].as_array().expect("a list");
    let names: Vec<_> = tables.iter().map(|table| table["table"].clone()).collect();
    assert_eq!(names, ["projects", "members", "tasks", "notes", "labels"]);
    let readable: Vec<_> = tables
        .iter()
        .map(|table| table["readable"].clone())
        .collect();
    assert_eq!(readable, [1, 1, 0, 0, 0]);

    let (_, note) = ask(
        &net,
        Some(&admin),
        &[
            ("table", "notes"),
            ("id", "7"),
            ("claims", r#"{"role":"x"}"#),
        ],
    )
    .await;
    assert_eq!(note["read"]["allowed"], false, "{note}");

    for (query, wanted) in [
        (&[("table", "projects"), ("id", "q")][..], 404),
        (&[("table", "nothing"), ("id", "p")], 404),
        (&[("id", "p")], 400),
        (&[], 400),
        (&[("user", "bob"), ("claims", "[")], 400),
        (&[("user", "bob"), ("colour", "red")], 400),
        (&[("table", "projects"), ("id", "[1,2]")], 400),
    ] {
        let (status, answer) = ask(&net, Some(&admin), query).await;
        assert_eq!(status, wanted, "{query:?} {answer}");
        assert!(
            answer["message"].as_str().is_some_and(|m| !m.is_empty()),
            "{answer}"
        );
    }
}
