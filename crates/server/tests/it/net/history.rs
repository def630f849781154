//! The history of a row, over HTTP.

mod chance;

use serde_json::{Value, json};
use syncline_core::{
    Edit, Op, Version,
    wire::{RowBody, RowState, ServerMessage},
};

use super::{Net, Wish, changeset};

async fn push(net: &Net, user: &str, key: u128, changes: Value) -> u64 {
    let answer = net
        .post("/v1/push", user)
        .header("Idempotency-Key", format!("{key:032x}"))
        .json(&json!({ "changes": changes }))
        .send()
        .await
        .expect("an answer");
    let status = answer.status();
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(status, 200, "{body}");
    body["version"].as_u64().expect("a version")
}

fn get(net: &Net, user: &str, path: &str, query: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let url = reqwest::Url::parse_with_params(&net.url(path), query).expect("an address");
    let path = url.as_str().strip_prefix(&net.url("")).expect("its path");
    net.get(path).bearer_auth(net.token(user))
}

async fn ask(net: &Net, user: &str, query: &[(&str, &str)]) -> (u16, Value) {
    let asked = get(net, user, "/v1/history", query);
    let answer = asked.send().await.expect("an answer");
    let status = answer.status().as_u16();
    if status == 200 {
        assert_eq!(answer.headers()["cache-control"], "no-store");
    }
    (status, answer.json().await.expect("JSON"))
}

async fn history(net: &Net, user: &str, table: &str, key: &str) -> Vec<Value> {
    let (status, mut body) = ask(net, user, &[("table", table), ("key", key)]).await;
    assert_eq!((status, &body["more"]), (200, &json!(false)), "{body}");
    match body["changes"].take() {
        Value::Array(changes) => changes,
        other => panic!("{other}"),
    }
}

async fn row(net: &Net, user: &str, table: &str, key: &str, version: u64) -> (u16, Vec<u8>) {
    let version = version.to_string();
    let query = [("table", table), ("key", key), ("version", &version)];
    let asked = get(net, user, "/v1/history/row", &query);
    let answer = asked.send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.bytes().await.expect("a body").to_vec())
}

fn ops(changes: &[Value]) -> Vec<&str> {
    let ops = changes.iter().map(|change| change["op"].as_str());
    ops.map(|op| op.expect("a text")).collect()
}

fn insert(table: &str, row: Value) -> Value {
    json!({ "op": "insert", "table": table, "row": row })
}

fn update(table: &str, id: &str, row: Value) -> Value {
    json!({ "op": "update", "table": table, "key": { "id": id }, "row": row })
}

fn delete(table: &str, id: &str) -> Value {
    json!({ "op": "delete", "table": table, "key": { "id": id } })
}

fn member(id: &str, user: &str) -> Value {
    let row = json!({ "id": id, "project_id": "p", "user_id": user, "role": "editor" });
    insert("members", row)
}

/// A label that everybody may write, edited by two people and deleted by a third.
async fn label(net: &Net) -> [u64; 4] {
    let inserted = push(
        net,
        "ada",
        1,
        json!([insert("labels", json!({ "id": "l", "name": "one" }))]),
    );
    let inserted = inserted.await;
    let edited = push(
        net,
        "ben",
        2,
        json!([update("labels", "l", json!({ "name": "two" }))]),
    )
    .await;
    let again = push(
        net,
        "ada",
        3,
        json!([update("labels", "l", json!({ "name": "three" }))]),
    )
    .await;
    let deleted = push(net, "cem", 4, json!([delete("labels", "l")])).await;
    [inserted, edited, again, deleted]
}

#[tokio::test]
async fn wi18_history_says_who_changed_what_and_when() {
    let net = Net::start().await;
    let versions = label(&net).await;
    let changes = history(&net, "ada", "labels", r#"["l"]"#).await;
    assert_eq!(ops(&changes), ["delete", "update", "update", "insert"]);
    let found = changes
        .iter()
        .rev()
        .map(|change| change["version"].as_u64());
    assert_eq!(found.collect::<Vec<_>>(), versions.map(Some));
    let [deleted, again, edited, inserted] = &changes[..] else {
        unreachable!()
    };
    let users = [deleted, again, edited, inserted].map(|change| &change["user"]);
    assert_eq!(users, ["cem", "ada", "ben", "ada"]);
    assert_eq!(again["device"], inserted["device"]);
    assert_ne!(again["device"], edited["device"]);
    assert_eq!(edited["at_ms"], versions[1] / 1_000);
    let id = json!({ "after": "l" });
    assert_eq!(
        inserted["columns"],
        json!({ "id": id, "name": { "after": "one" } })
    );
    let two = json!({ "name": { "before": "one", "after": "two" } });
    assert_eq!(edited["columns"], two);
    let three = json!({ "name": { "before": "two", "after": "three" } });
    assert_eq!(again["columns"], three);
    let gone = json!({ "id": { "before": "l" }, "name": { "before": "three" } });
    assert_eq!(deleted["columns"], gone);

    // What another program does is nobody's.
    net.elsewhere("INSERT INTO labels VALUES ('m', 'four')");
    for _ in 0..200 {
        let changes = history(&net, "ada", "labels", r#"["m"]"#).await;
        let Some(change) = changes.first() else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        assert_eq!(
            (&change["user"], &change["device"]),
            (&json!(null), &json!(null))
        );
        return;
    }
    panic!("the label never comes into the history");
}

#[tokio::test]
async fn wi18_history_comes_in_pages() {
    let net = Net::start().await;
    let first = json!([insert("notes", json!({ "id": 1, "body": "0" }))]);
    push(&net, "ada", 1, first).await;
    for n in 1..7_u32 {
        let edit = json!({ "op": "update", "table": "notes", "key": { "id": 1 }, "row": { "body": n.to_string() } });
        push(&net, "ada", u128::from(n) + 1, json!([edit])).await;
    }
    let (mut before, mut told) = (None::<String>, Vec::new());
    loop {
        let mut query = vec![("table", "notes"), ("key", "[1]"), ("limit", "3")];
        if let Some(before) = &before {
            query.push(("before", before));
        }
        let (status, page) = ask(&net, "ada", &query).await;
        assert_eq!(status, 200, "{page}");
        let changes = page["changes"].as_array().expect("a list");
        for change in changes {
            let body = &change["columns"]["body"];
            told.push((body["before"].clone(), body["after"].clone()));
        }
        if page["more"] == false {
            break;
        }
        assert_eq!(changes.len(), 3);
        before = changes.last().map(|change| change["version"].to_string());
    }
    let mut expected: Vec<_> = (1..7)
        .map(|n| (json!((n - 1).to_string()), json!(n.to_string())))
        .collect();
    expected.insert(0, (Value::Null, json!("0")));
    expected.reverse();
    assert_eq!(
        told, expected,
        "also what was after the newest change of a page"
    );
}

#[tokio::test]
async fn ru26_nobody_sees_history_that_no_device_of_theirs_was_told() {
    let net = Net::start().await;
    let rows = json!([
        insert("projects", json!({ "id": "p", "name": "One" })),
        insert(
            "tasks",
            json!({ "id": "t", "project_id": "p", "title": "Dig" })
        ),
    ]);
    push(&net, "ada", 1, rows).await;
    push(
        &net,
        "ada",
        2,
        json!([update("tasks", "t", json!({ "title": "Sow" }))]),
    )
    .await;
    let key = r#"["t"]"#;
    // A stranger's answer is that of a row that never was.
    let stranger = ask(&net, "eve", &[("table", "tasks"), ("key", key)]).await;
    let unknown = ask(&net, "eve", &[("table", "tasks"), ("key", r#"["u"]"#)]).await;
    assert_eq!(stranger, unknown);
    let (status, empty) = stranger;
    assert_eq!((status, &empty["changes"]), (200, &json!([])));

    // Who came later is told from then on, as devices are.
    push(&net, "ada", 3, json!([member("m", "ben")])).await;
    assert_eq!(history(&net, "ben", "tasks", key).await, [] as [Value; 0]);
    let edited = push(
        &net,
        "ben",
        4,
        json!([update("tasks", "t", json!({ "title": "Reap" }))]),
    )
    .await;
    let of_ben = history(&net, "ben", "tasks", key).await;
    assert_eq!(ops(&of_ben), ["update"]);
    let title = json!({ "before": "Sow", "after": "Reap" });
    assert_eq!(of_ben[0]["columns"]["title"], title);
    let of_ada = history(&net, "ada", "tasks", key).await;
    assert_eq!(ops(&of_ada), ["update", "update", "insert"]);

    // Who was sent away is told nothing, not even of the time before.
    push(&net, "ada", 5, json!([delete("members", "m")])).await;
    assert_eq!(
        ask(&net, "ben", &[("table", "tasks"), ("key", key)]).await,
        (200, empty.clone())
    );
    assert_eq!(row(&net, "ben", "tasks", key, edited).await.0, 404);

    // A deletion that takes the grant with it is told to those who could see the row then.
    push(&net, "ada", 6, json!([delete("projects", "p")])).await;
    let of_ada = history(&net, "ada", "tasks", key).await;
    assert_eq!(ops(&of_ada), ["delete"]);
    assert_eq!(of_ada[0]["columns"]["title"], json!({ "before": "Reap" }));
    assert_eq!(
        ops(&history(&net, "ada", "projects", r#"["p"]"#).await),
        ["delete"]
    );
    for user in ["ben", "eve"] {
        let nothing = ask(&net, user, &[("table", "tasks"), ("key", key)]).await;
        assert_eq!(nothing, (200, empty.clone()), "{user}");
    }
}

#[tokio::test]
async fn wi18_a_row_is_told_exactly_as_it_was() {
    let net = Net::start().await;
    let tags = json!(["a", { "b": 1.50 }]);
    let big = "9007199254740993";
    let inserted = push(
        &net,
        "ada",
        1,
        json!([insert(
            "projects",
            json!({ "id": "p", "name": "One", "tags": tags, "budget": big })
        ),]),
    );
    let inserted = inserted.await;
    push(
        &net,
        "ada",
        2,
        json!([update(
            "projects",
            "p",
            json!({ "name": "Two", "budget": 1 })
        )]),
    )
    .await;
    let key = r#"["p"]"#;
    let (status, body) = row(&net, "ada", "projects", key, inserted).await;
    assert_eq!(status, 200);
    let (body, _) = RowBody::decode(&body).expect("a body");
    let RowState::Columns(columns) = body.state else {
        panic!("columns: {body:?}")
    };
    let values: Vec<_> = columns.into_iter().map(|(_, value)| value).collect();
    let text = |text: &str| syncline_core::Value::Text(text.to_owned());
    let budget = syncline_core::Value::Integer(big.parse().expect("a number"));
    assert_eq!(values[..3], [text("p"), text("One"), budget]);

    // Of a deletion: what it deleted.
    let deleted = push(&net, "ada", 3, json!([delete("projects", "p")])).await;
    let (status, body) = row(&net, "ada", "projects", key, deleted).await;
    assert_eq!(status, 200);
    let (body, _) = RowBody::decode(&body).expect("a body");
    let RowState::Columns(columns) = body.state else {
        panic!("columns: {body:?}")
    };
    assert_eq!(columns[1].1, text("Two"));

    for version in [0, deleted + 1, (1 << 53) - 1, u64::MAX] {
        assert_eq!(
            row(&net, "ada", "projects", key, version).await.0,
            404,
            "{version}"
        );
    }
    assert_eq!(row(&net, "eve", "projects", key, deleted).await.0, 404);
}

#[tokio::test]
async fn wi18_what_cannot_be_asked_says_why() {
    let net = Net::start().await;
    let asked = |query: &'static [(&str, &str)]| ask(&net, "ada", query);
    for (query, status, says) in [
        (
            &[("table", "nothing"), ("key", "[1]")][..],
            404,
            "does not sync a table `nothing`",
        ),
        (
            &[("table", "notes"), ("key", "1")],
            400,
            "`key` is a JSON array of id",
        ),
        (
            &[("table", "notes"), ("key", "[1, 2]")],
            400,
            "`key` is a JSON array of id",
        ),
        (&[("table", "notes"), ("key", "[null]")], 400, "NULL"),
        (
            &[("table", "notes"), ("key", "[1]"), ("limit", "0")],
            400,
            "`limit` is 1 to 500",
        ),
        (
            &[
                ("table", "notes"),
                ("key", "[1]"),
                ("before", "9007199254740992"),
            ],
            400,
            "`before`",
        ),
        (&[("table", "notes")], 400, "key"),
    ] {
        let (found, body) = asked(query).await;
        assert_eq!(found, status, "{query:?}: {body}");
        let message = body["message"].as_str().expect("a sentence");
        assert!(message.contains(says), "{query:?}: {message}");
    }
    let answer = net.get("/v1/history?table=notes&key=[1]").send().await;
    assert_eq!(answer.expect("an answer").status(), 401);
}

#[tokio::test]
async fn pl21_a_server_keeps_no_history_where_it_is_told_so() {
    let net = Net::start_with(Wish {
        history_days: Some(0),
        ..Wish::default()
    })
    .await;
    label(&net).await;
    let (_, body) = ask(&net, "ada", &[("table", "labels"), ("key", r#"["l"]"#)]).await;
    assert_eq!(body, json!({ "changes": [], "more": false, "since": null }));
}

#[tokio::test]
async fn wi18_only_ones_own_devices_have_names() {
    let net = Net::start().await;
    let mut socket = net.socket("ada").await;
    socket.sync(1).await;
    let insert = net.draw("ada", |draw| {
        draw.insert("labels", "l", &[("name", "one".into())])
    });
    socket.push(&changeset(9, 1, insert.await)).await;
    let accepted = |message: &ServerMessage| matches!(message, ServerMessage::PushResult(_));
    socket
        .hear_until(|message| accepted(message).then_some(()))
        .await;
    for (user, name) in [("ada", json!("a device")), ("ben", Value::Null)] {
        let changes = history(&net, user, "labels", r#"["l"]"#).await;
        let device = "01".repeat(16);
        assert_eq!(
            (&changes[0]["user"], &changes[0]["device"]),
            (&json!("ada"), &json!(device))
        );
        assert_eq!(changes[0]["device_name"], name, "{user}");
    }
}

#[tokio::test]
async fn wi18_every_page_of_a_long_history_fits_to_the_next() {
    const EDITS: u64 = 1_300;
    let net = Net::start().await;
    let mut socket = net.socket("ada").await;
    socket.sync(1).await;
    let insert = net.draw("ada", |draw| {
        draw.insert("labels", "l", &[("name", "0".into())])
    });
    socket.push(&changeset(0, 1, insert.await)).await;
    let edit = net.draw("ada", |draw| {
        draw.set("labels", "l", Version::ZERO, &[("name", "?".into())])
    });
    let mut edit = edit.await;
    for n in 1..=EDITS {
        let Op::Update(edits) = &mut edit[0].op else {
            unreachable!("an update")
        };
        edits[0].edit = Edit::Set(n.to_string().as_str().into());
        let mut one = changeset(0, n + 1, edit.clone());
        one.id.0[..8].copy_from_slice(&n.to_le_bytes());
        socket.push(&one).await;
        if n % 10 == 0 {
            let id = one.id;
            let is_last = |message: &ServerMessage| match message {
                ServerMessage::PushResult(result) => (result.id == id).then_some(()),
                _ => None,
            };
            socket.hear_until(is_last).await;
        }
    }
    let (mut before, mut next) = (None::<String>, EDITS);
    loop {
        let mut query = vec![("table", "labels"), ("key", r#"["l"]"#), ("limit", "450")];
        if let Some(before) = &before {
            query.push(("before", before));
        }
        let (status, page) = ask(&net, "ben", &query).await;
        assert_eq!(status, 200, "{page}");
        let changes = page["changes"].as_array().expect("a list");
        for change in changes {
            let name = &change["columns"]["name"];
            assert_eq!(name["after"], next.to_string());
            if next > 0 {
                assert_eq!(name["before"], (next - 1).to_string());
                next -= 1;
            }
        }
        before = changes.last().map(|change| change["version"].to_string());
        if page["more"] == false {
            break;
        }
        assert_eq!(changes.len(), 450);
    }
    assert_eq!(next, 0, "none is left out");
}
