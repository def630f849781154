//! Rows and changes as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Net;

/// Somebody who polls.
struct Poller<'a> {
    net: &'a Net,
    user: &'static str,
    query: &'static str,
    cursor: Option<String>,
    /// By table and key.
    rows: BTreeMap<(String, String), Value>,
    resets: usize,
}

impl<'a> Poller<'a> {
    fn new(net: &'a Net, user: &'static str) -> Self {
        Self {
            net,
            user,
            query: "",
            cursor: None,
            rows: BTreeMap::new(),
            resets: 0,
        }
    }

    async fn ask(&self, query: &str) -> reqwest::Response {
        let token = self.net.token(self.user);
        let asked = self.net.get(&format!("/v1/pull{query}")).bearer_auth(token);
        asked.send().await.expect("an answer")
    }

    /// Pulls once; the answer.
    async fn pull(&mut self) -> Value {
        let mut query = format!("?{}", self.query);
        if let Some(cursor) = &self.cursor {
            query.push_str(&format!("&cursor={cursor}"));
        }
        let answer = self.ask(&query).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let answer: Value = answer.json().await.expect("JSON");
        if answer["reset"] == true {
            self.resets += 1;
            self.rows.clear();
        }
        for row in answer["rows"].as_array().expect("a list") {
            let table = row["table"].as_str().expect("a name").to_owned();
            let key = json!({ "id": row["row"]["id"] }).to_string();
            self.rows.insert((table, key), row.clone());
        }
        for row in answer["removed"].as_array().expect("a list") {
            let table = row["table"].as_str().expect("a name").to_owned();
            self.rows.remove(&(table, row["key"].to_string()));
        }
        self.cursor = answer["cursor"].as_str().map(str::to_owned);
        answer
    }

    /// Pulls until there is no more.
    async fn pull_all(&mut self) {
        for _ in 0..1_000 {
            if self.pull().await["more"] == false {
                return;
            }
        }
        panic!("it never ends");
    }

    fn ids(&self, table: &str) -> Vec<String> {
        let own = self.rows.iter().filter(|((name, _), _)| name == table);
        let mut ids: Vec<_> = own.map(|(_, row)| row["row"]["id"].to_string()).collect();
        ids.sort();
        ids
    }

    fn row(&self, table: &str, id: &Value) -> &Value {
        let key = json!({ "id": id }).to_string();
        &self.rows[&(table.to_owned(), key)]
    }
}

async fn try_push(net: &Net, user: &str, key: u128, body: &Value) -> (u16, Value) {
    let answer = net
        .post("/v1/push", user)
        .header("Idempotency-Key", format!("{key:032x}"))
        .json(body)
        .send()
        .await
        .expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

async fn push(net: &Net, user: &str, key: u128, changes: Value) -> u64 {
    let (status, body) = try_push(net, user, key, &json!({ "changes": changes })).await;
    assert_eq!(status, 200, "{body}");
    body["version"].as_u64().expect("a version")
}

fn insert(table: &str, row: Value) -> Value {
    json!({ "op": "insert", "table": table, "row": row })
}

fn note(id: i64, body: &str) -> Value {
    insert("notes", json!({ "id": id, "body": body }))
}

fn project(id: &str) -> Value {
    insert("projects", json!({ "id": id, "name": "Garden" }))
}

fn member(id: &str, project: &str, user: &str) -> Value {
    let row = json!({ "id": id, "project_id": project, "user_id": user, "role": "editor" });
    insert("members", row)
}

fn task(id: &str, project: &str) -> Value {
    insert(
        "tasks",
        json!({ "id": id, "project_id": project, "title": "Dig" }),
    )
}

#[tokio::test]
async fn wi15_values_come_back_as_they_were_written() {
    let net = Net::start().await;
    let tags = json!(["a", { "b": [1, null] }]);
    push(&net, "ada", 1, json!([
        insert("projects", json!({ "id": "p", "name": "Ünï \"quoted\"\n", "tags": tags, "budget": "9007199254740993" })),
        insert("tasks", json!({ "id": "t", "project_id": "p", "title": "x", "done": true, "effort": 3 })),
    ]))
    .await;
    let mut poller = Poller::new(&net, "ada");
    poller.pull_all().await;
    let row = &poller.row("projects", &json!("p"))["row"];
    assert_eq!(row["name"], "Ünï \"quoted\"\n");
    assert_eq!(row["tags"], tags);
    assert_eq!(row["budget"], "9007199254740993");
    let row = &poller.row("tasks", &json!("t"))["row"];
    assert_eq!((&row["done"], &row["effort"]), (&json!(true), &json!(3)));
    assert_eq!(row["edited_by"], "ada", "forced by the server");
    assert_eq!(poller.row("tasks", &json!("t"))["owner"], "ada");
}

#[tokio::test]
async fn wi16_pages_and_changes_make_the_whole() {
    let net = Net::start().await;
    for chunk in 0..5 {
        let notes: Vec<_> = (0..10).map(|i| note(chunk * 10 + i, "text")).collect();
        push(
            &net,
            "ada",
            100 + u128::from(chunk.unsigned_abs()),
            json!(notes),
        )
        .await;
    }
    push(&net, "ben", 1, json!([note(1_000, "ben's")])).await;
    let mut poller = Poller::new(&net, "ada");
    poller.query = "limit=7";
    assert_eq!(
        poller.pull().await["rows"]
            .as_array()
            .expect("a list")
            .len(),
        7
    );
    // What happens meanwhile is not missed.
    push(
        &net,
        "ada",
        200,
        json!([
            note(2_000, "new"),
            { "op": "update", "table": "notes", "key": { "id": 0 }, "row": { "body": "changed" } },
            { "op": "delete", "table": "notes", "key": { "id": 1 } },
        ]),
    )
    .await;
    poller.pull_all().await;
    assert_eq!(poller.resets, 1, "only the first");
    assert_eq!(
        poller.ids("notes").len(),
        50,
        "fifty, one more, one less, none of ben's"
    );
    assert_eq!(poller.row("notes", &json!(0))["row"]["body"], "changed");

    let version = push(
        &net,
        "ada",
        201,
        json!([
            { "op": "update", "table": "notes", "key": { "id": 5 }, "row": { "body": "five" } },
            { "op": "delete", "table": "notes", "key": { "id": 6 } },
        ]),
    )
    .await;
    let answer = poller.pull().await;
    assert_eq!(answer["rows"].as_array().expect("a list").len(), 1);
    assert!(answer["rows"][0]["version"].as_u64().expect("a version") <= version);
    assert_eq!(
        answer["removed"],
        json!([{ "table": "notes", "key": { "id": 6 } }])
    );
    let quiet = poller.pull().await;
    assert_eq!(
        (&quiet["rows"], &quiet["removed"]),
        (&json!([]), &json!([]))
    );
    assert_eq!(
        (&quiet["more"], &quiet["reset"]),
        (&json!(false), &json!(false))
    );
}

/// Pulls until there is no more; how many rows each answer told, and how many were removed.
async fn pull_bounded(poller: &mut Poller<'_>) -> Vec<(usize, usize)> {
    let mut pulls = Vec::new();
    loop {
        let answer = poller.pull().await;
        let length = answer.to_string().len();
        assert!(length < 1024 * 1024 + 70_000, "{length} bytes");
        let told = |what: &str| answer[what].as_array().expect("a list").len();
        pulls.push((told("rows"), told("removed")));
        if answer["more"] == false {
            return pulls;
        }
    }
}

#[tokio::test]
async fn wi16_an_answer_is_about_a_megabyte_however_long_rows_and_changesets_are() {
    let net = Net::start().await;
    // As JSON six times as long.
    let long = |id| note(id, &"\u{1}".repeat(10_000));
    for chunk in 0..4 {
        let notes: Vec<_> = (0..15).map(|n| long(chunk * 15 + n)).collect();
        push(
            &net,
            "ada",
            10 + u128::from(chunk.unsigned_abs()),
            json!(notes),
        )
        .await;
    }
    let mut poller = Poller::new(&net, "ada");
    poller.query = "limit=5000";
    let pulls = pull_bounded(&mut poller).await;
    assert_eq!(poller.ids("notes").len(), 60);
    assert!(pulls.len() >= 4, "{pulls:?}");

    // One changeset that is longer than an answer, between two others.
    push(&net, "ada", 20, json!([note(1_000, "before")])).await;
    let update = |id: i64| json!({ "op": "update", "table": "notes", "key": { "id": id }, "row": { "body": "\u{2}".repeat(10_000) } });
    let delete = |id: i64| json!({ "op": "delete", "table": "notes", "key": { "id": id } });
    let mut changes: Vec<_> = (0..30).map(update).collect();
    changes.extend((30..60).map(delete));
    changes.extend((100..110).map(long));
    push(&net, "ada", 21, json!(changes)).await;
    push(&net, "ada", 22, json!([note(1_001, "behind")])).await;
    let pulls = pull_bounded(&mut poller).await;
    let told = pulls
        .iter()
        .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    assert_eq!(told, (1 + 30 + 10 + 1, 30), "each once: {pulls:?}");
    assert!(pulls.len() >= 3, "{pulls:?}");
    assert_eq!(poller.resets, 1, "only the first");
    assert_eq!(poller.ids("notes").len(), 30 + 10 + 2);
    let body = &poller.row("notes", &json!(7))["row"]["body"];
    assert_eq!(
        body.as_str().map(|body| body.chars().next()),
        Some(Some('\u{2}'))
    );
}

#[tokio::test]
async fn wi16_access_comes_and_goes() {
    let net = Net::start().await;
    push(
        &net,
        "ada",
        1,
        json!([project("p"), task("t1", "p"), task("t2", "p")]),
    )
    .await;
    let mut ben = Poller::new(&net, "ben");
    ben.pull_all().await;
    assert!(ben.rows.is_empty());

    push(
        &net,
        "ada",
        2,
        json!([{ "op": "delete", "table": "tasks", "key": { "id": "t2" } }]),
    )
    .await;
    push(&net, "ada", 3, json!([member("m", "p", "ben")])).await;
    push(&net, "ada", 4, json!([task("t3", "p")])).await;
    let answer = ben.pull().await;
    assert_eq!(answer["reset"], false);
    assert_eq!(ben.ids("tasks"), ["\"t1\"", "\"t3\""]);
    assert_eq!(ben.ids("projects").len(), 1);
    assert!(
        !answer.to_string().contains("t2"),
        "gone before it was ben's to know"
    );

    push(
        &net,
        "ada",
        5,
        json!([{ "op": "delete", "table": "members", "key": { "id": "m" } }]),
    )
    .await;
    push(&net, "ada", 6, json!([task("t4", "p")])).await;
    let answer = ben.pull().await;
    assert_eq!(answer["reset"], true);
    assert!(ben.rows.is_empty(), "{:?}", ben.rows);
    assert!(!answer.to_string().contains("t4"));
}

#[tokio::test]
async fn wi16_a_row_that_moves_out_of_sight_is_removed() {
    let net = Net::start().await;
    push(
        &net,
        "ada",
        1,
        json!([
            project("p"),
            project("q"),
            task("t", "p"),
            member("m", "p", "ben")
        ]),
    )
    .await;
    let mut ben = Poller::new(&net, "ben");
    ben.pull_all().await;
    assert_eq!(ben.ids("tasks").len(), 1);
    push(&net, "ada", 2, json!([
        { "op": "update", "table": "tasks", "key": { "id": "t" }, "row": { "project_id": "q", "title": "secret" } }
    ]))
    .await;
    let answer = ben.pull().await;
    assert_eq!(
        answer["removed"],
        json!([{ "table": "tasks", "key": { "id": "t" } }])
    );
    assert!(!answer.to_string().contains("secret"));
}

#[tokio::test]
async fn wi16_other_peoples_cursors_and_nonsense_start_over() {
    let net = Net::start().await;
    push(&net, "ada", 1, json!([note(1, "text")])).await;
    let mut ada = Poller::new(&net, "ada");
    ada.pull_all().await;
    let mut ben = Poller::new(&net, "ben");
    ben.cursor.clone_from(&ada.cursor);
    assert_eq!(ben.pull().await["reset"], true);
    for cursor in ["x", "AAAA", &"A".repeat(80)] {
        ada.cursor = Some(cursor.to_owned());
        assert_eq!(ada.pull().await["reset"], true);
    }
    // Other tables than those of the cursor.
    ada.query = "tables=notes,labels";
    assert_eq!(ada.pull().await["reset"], true);
    assert_eq!(ada.pull().await["reset"], false);

    for (query, status) in [
        ("?limit=0", 400),
        ("?limit=many", 400),
        ("?limits=5", 400),
        ("?tables=nope", 404),
    ] {
        let answer = ada.ask(query).await;
        assert_eq!(answer.status(), status, "{query}");
        let body: Value = answer.json().await.expect("JSON");
        assert!(
            body["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
    }
}

#[tokio::test]
async fn wi17_a_push_happens_once() {
    let net = Net::start().await;
    let first = push(&net, "ada", 7, json!([note(1, "text")])).await;
    let again = push(&net, "ada", 7, json!([note(1, "text")])).await;
    assert_eq!(first, again);
    let add =
        json!({ "op": "update", "table": "tasks", "key": { "id": "t" }, "add": { "effort": 2 } });
    push(&net, "ada", 8, json!([project("p"), task("t", "p")])).await;
    for _ in 0..3 {
        push(&net, "ada", 9, json!([add])).await;
    }
    push(&net, "ada", 10, json!([add])).await;
    let mut poller = Poller::new(&net, "ada");
    poller.pull_all().await;
    assert_eq!(poller.row("tasks", &json!("t"))["row"]["effort"], 4);

    let (status, body) = try_push(&net, "ben", 7, &json!({ "changes": [note(2, "x")] })).await;
    assert_eq!(
        (status, &body["code"]),
        (409, &json!("changeset_id_reused"))
    );
    let without = net
        .post("/v1/push", "ada")
        .json(&json!({ "changes": [] }))
        .send()
        .await;
    let without = without.expect("an answer");
    assert_eq!(without.status(), 400);
    let body: Value = without.json().await.expect("JSON");
    assert!(
        body["message"]
            .as_str()
            .expect("a sentence")
            .contains("Idempotency-Key")
    );
}

#[tokio::test]
async fn wi17_many_at_once_of_one_user_get_through() {
    let net = Net::start().await;
    let pushes = (0..20_i64).map(|i| {
        let net = &net;
        async move {
            push(
                net,
                "ada",
                500 + u128::from(i.unsigned_abs()),
                json!([note(i, "text")]),
            )
            .await
        }
    });
    let versions = futures_util::future::join_all(pushes).await;
    let mut poller = Poller::new(&net, "ada");
    poller.pull_all().await;
    assert_eq!(poller.ids("notes").len(), versions.len());
}

#[tokio::test]
async fn wi17_all_or_nothing_and_the_reason() {
    let net = Net::start().await;
    push(&net, "ben", 1, json!([project("bens")])).await;
    let (status, body) = try_push(
        &net,
        "ada",
        2,
        &json!({ "changes": [note(1, "text"), task("t", "bens")] }),
    )
    .await;
    assert_eq!((status, &body["code"]), (403, &json!("forbidden")));
    assert_eq!(body["change"], 1);
    let mut poller = Poller::new(&net, "ada");
    poller.pull_all().await;
    assert!(poller.rows.is_empty());

    // What ada may not see answers as what is not there.
    let update = |id: &str| json!({ "changes": [{ "op": "update", "table": "projects", "key": { "id": id }, "row": { "name": "x" } }] });
    let (hidden_status, hidden) = try_push(&net, "ada", 3, &update("bens")).await;
    let (missing_status, missing) = try_push(&net, "ada", 4, &update("none")).await;
    assert_eq!(hidden_status, missing_status);
    let said = |body: &Value| {
        (
            body["code"].clone(),
            body["message"].to_string().replace("bens", "none"),
        )
    };
    assert_eq!(said(&hidden), said(&missing));

    for (change, code) in [
        (insert("nope", json!({ "id": 1 })), "schema"),
        (insert("notes", json!({ "body": "no key" })), "schema"),
        (insert("notes", json!({ "id": 1, "bodi": "x" })), "schema"),
        (insert("notes", json!({ "id": 1, "body": [1] })), "schema"),
        (json!({ "op": "upsert", "table": "notes" }), "malformed"),
        (
            json!({ "op": "delete", "table": "notes", "key": { "body": "x" } }),
            "schema",
        ),
    ] {
        let (status, body) = try_push(&net, "ada", 5, &json!({ "changes": [change] })).await;
        assert!(status == 400 || status == 422, "{status} {body}");
        assert_eq!(body["code"], code, "{body}");
    }
}

#[tokio::test]
async fn wi17_a_base_shows_what_was_seen() {
    let net = Net::start().await;
    let first = push(&net, "ada", 1, json!([note(1, "one")])).await;
    let update = |body: &str| json!({ "op": "update", "table": "notes", "key": { "id": 1 }, "row": { "body": body }, "base": first });
    push(&net, "ada", 2, json!([update("two")])).await;
    let stale = json!({ "changes": [update("three")], "require_unchanged": true });
    let (status, body) = try_push(&net, "ada", 3, &stale).await;
    assert_eq!((status, &body["code"]), (409, &json!("changed")));
    // Also of who wants what is there meanwhile, or writes nothing at all: two cannot both have it.
    let silent = json!({ "op": "update", "table": "notes", "key": { "id": 1 }, "base": first });
    for (n, change) in [(31, update("two")), (32, silent)] {
        let late = json!({ "changes": [change], "require_unchanged": true });
        let (status, body) = try_push(&net, "ada", n, &late).await;
        assert_eq!((status, &body["code"]), (409, &json!("changed")), "{late}");
    }
    let future = json!({ "changes": [
        { "op": "delete", "table": "notes", "key": { "id": 1 }, "base": first + 1_000_000_000_000_u64 }
    ] });
    let (status, body) = try_push(&net, "ada", 4, &future).await;
    assert_eq!((status, &body["code"]), (409, &json!("base_in_future")));
    // Writing what is there already is no change, and accepted.
    let same =
        json!([{ "op": "update", "table": "notes", "key": { "id": 1 }, "row": { "body": "two" } }]);
    push(&net, "ada", 5, same).await;
}

#[tokio::test]
async fn wi17_devices_hear_of_it_at_once() {
    use syncline_core::wire::ServerMessage;
    let net = Net::start().await;
    let mut socket = net.socket("ada").await;
    socket.sync(1).await;
    let version = push(&net, "ada", 1, json!([note(1, "text")])).await;
    socket
        .hear_until(|message| match message {
            ServerMessage::Checkpoint(c) if c.cursor.version.0 >= version => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn wi17_the_example_with_curl_runs() {
    let net = Net::start().await;
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/spec/wire.md");
    let document = std::fs::read_to_string(document).expect("the document is there");
    let (_, example) = document.split_once("```sh\n").expect("it has an example");
    let (example, _) = example.split_once("```").expect("which ends");
    let output = tokio::process::Command::new("sh")
        .args(["-euc", example])
        .env("SYNCLINE_URL", net.url(""))
        .env("SYNCLINE_TOKEN", net.token("ada"))
        .output()
        .await
        .expect("there is a shell, and curl");
    let (out, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{errors}");
    assert!(out.contains("\"body\":\"Buy seeds\""), "{out}");
}
