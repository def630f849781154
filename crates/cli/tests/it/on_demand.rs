//! Tables that sync on demand: over the real binary and files (docs/spec/demand.md).

use serde_json::json;

use crate::support::{Device, Scratch, Server, exit, open, sql, wait_until};

const CONFIG: &str = r#"
[tables.projects]
columns = { id = "text primary key", name = "text not null" }
read  = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid())"
write = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid())"

[tables.members]
columns = { id = "text primary key", project_id = "text not null", user_id = "text not null" }
read  = "user_id = auth.uid() OR project_id IN readable(projects)"
write = "project_id IN writable(projects)"

[tables.tasks]
columns = { id = "text primary key", project_id = "text not null", title = "text not null" }
read  = "project_id IN readable(projects)"
write = "project_id IN writable(projects)"
sync  = "on_demand"

[tables.comments]
columns = { id = "text primary key", task_id = "text not null", body = "text not null" }
read  = "task_id IN readable(tasks)"
write = "task_id IN readable(tasks)"
"#;

const ROWS: &str = "
    CREATE TABLE projects (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL);
    CREATE TABLE members (id TEXT PRIMARY KEY NOT NULL, project_id TEXT NOT NULL, user_id TEXT NOT NULL);
    CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, project_id TEXT NOT NULL, title TEXT NOT NULL);
    CREATE TABLE comments (id TEXT PRIMARY KEY NOT NULL, task_id TEXT NOT NULL, body TEXT NOT NULL);
    INSERT INTO projects VALUES ('p1', 'garden'), ('p2', 'house');
    INSERT INTO members VALUES ('m1', 'p1', 'bob'), ('m2', 'p2', 'bob');
    INSERT INTO tasks VALUES ('k1', 'p1', 'dig'), ('k2', 'p1', 'plant'), ('k3', 'p2', 'paint');
    INSERT INTO comments VALUES ('c1', 'k1', 'deep'), ('c3', 'k3', 'green');";

const TASKS: &str = "SELECT group_concat(id) FROM (SELECT id FROM tasks ORDER BY id)";
const COMMENTS: &str = "SELECT group_concat(id) FROM (SELECT id FROM comments ORDER BY id)";

/// Ana's two projects, which attaching subscribes to, and a new file of Bob's, who is in both.
fn shared<'a>(scratch: &'a Scratch, server: &Server<'_>) -> (Device<'a>, Device<'a>) {
    let ana = Device::new(scratch, server, "ana.db", "ana");
    scratch.database("ana.db", ROWS);
    ana.run("attach", &["--yes"]).expect(exit::DONE);
    ana.sync();
    (ana, Device::hydrated(scratch, server, "bob.db", "bob"))
}

#[test]
fn su1_rows_on_demand_come_when_they_are_asked_for_and_go_when_they_are_not() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let (ana, bob) = shared(&scratch, &server);
    assert_eq!(ana.rows(TASKS), "k1,k2,k3", "what she subscribes to stays");
    assert_eq!(bob.rows("SELECT count(*) FROM projects"), "2");
    assert_eq!(bob.rows("SELECT count(*) FROM tasks"), "0");
    assert_eq!(bob.rows("SELECT count(*) FROM comments"), "0");

    let told = bob.run("subscribe", &["projects", "p1"]).expect(exit::DONE);
    assert_eq!(told.one("subscribed_to")["changed"], true);
    let synced = bob.sync();
    assert_eq!(synced.one("subscribed")["key"], json!(["p1"]));
    assert_eq!(bob.rows(TASKS), "k1,k2");
    assert_eq!(bob.rows(COMMENTS), "c1", "what inherits comes along");
    bob.verify();

    // Live changes from then on, into what is subscribed to and nothing else.
    ana.sql("INSERT INTO tasks VALUES ('k4', 'p1', 'water'), ('k5', 'p2', 'clean')");
    ana.sync();
    bob.sync();
    assert_eq!(bob.rows(TASKS), "k1,k2,k4");
    let listed = bob.run("subscriptions", &[]).expect(exit::DONE);
    assert_eq!(listed.one("subscription")["state"], "live");

    bob.run("unsubscribe", &["projects", "p1", "--keep-for", "0s"])
        .expect(exit::DONE);
    let synced = bob.sync();
    assert_eq!(synced.one("released")["rows"], 4);
    assert_eq!(bob.rows("SELECT count(*) FROM tasks"), "0");
    assert_eq!(bob.rows("SELECT count(*) FROM comments"), "0");
    assert_eq!(bob.rows("SELECT count(*) FROM projects"), "2");
    bob.verify();
    sql(&bob.file, "PRAGMA wal_checkpoint(TRUNCATE)");
    let bytes = std::fs::read(&bob.file).expect("a file");
    assert!(
        !bytes.windows(5).any(|part| part == b"plant"),
        "not a byte of them stays"
    );
}

#[test]
fn su1_rows_from_before_leave_a_file_that_subscribes_to_nothing() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let ana = Device::new(&scratch, &server, "ana.db", "ana");
    scratch.database("ana.db", ROWS);
    ana.say("attach", &["--yes", "--no-subscribe"])
        .expect(exit::DONE)
        .says(&["tasks is sent on demand: of its 3 rows here", "subscribe "]);
    ana.run("subscribe", &["projects", "p1"]).expect(exit::DONE);
    ana.sync();
    ana.sync();
    assert_eq!(ana.rows(TASKS), "k1,k2");
    ana.run("subscribe", &["projects", "p2"]).expect(exit::DONE);
    ana.sync();
    assert_eq!(ana.rows(TASKS), "k1,k2,k3", "the server has them");
}

#[test]
fn su9_attaching_subscribes_to_what_the_file_holds() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let ana = Device::new(&scratch, &server, "ana.db", "ana");
    scratch.database("ana.db", ROWS);
    // A comment is asked for by its task, which nothing else may bring, in the file or not.
    ana.sql("INSERT INTO comments VALUES ('c9', 'elsewhere', 'lost')");
    let attached = ana.run("attach", &["--yes"]).expect(exit::DONE);
    let mut keys: Vec<_> = attached
        .all("subscribed_to")
        .iter()
        .map(|line| json!([line["table"], line["column"], line["key"]]))
        .collect();
    keys.sort_by_key(ToString::to_string);
    assert_eq!(
        keys,
        [
            json!(["comments", "task_id", ["elsewhere"]]),
            json!(["comments", "task_id", ["k1"]]),
            json!(["comments", "task_id", ["k3"]]),
            json!(["tasks", "project_id", ["p1"]]),
            json!(["tasks", "project_id", ["p2"]]),
        ]
    );
    ana.sql("DELETE FROM comments WHERE id = 'c9'");
    for _ in 0..2 {
        ana.sync();
        assert_eq!(ana.rows(TASKS), "k1,k2,k3");
        assert_eq!(ana.rows(COMMENTS), "c1,c3");
    }
    ana.verify();
    // What the server has already stays in a file that is attached to it, too.
    let again = Device::new(&scratch, &server, "again.db", "ana");
    scratch.database("again.db", ROWS);
    let synced = again.sync();
    assert_eq!(synced.all("subscribed_to").len(), 4);
    again.sync();
    assert_eq!(again.rows(TASKS), "k1,k2,k3");
}

#[test]
fn su9_a_file_that_meets_its_first_server_later_keeps_its_rows() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let ana = Device::new(&scratch, &server, "ana.db", "ana");
    scratch.database("ana.db", ROWS);
    let offline = ["attach", "--yes", "ana.db"];
    scratch.run(&offline).expect(exit::DONE);
    ana.sql(
        "INSERT INTO projects VALUES ('p3', 'boat'); INSERT INTO tasks VALUES ('k9', 'p3', 'row')",
    );
    assert_eq!(ana.sync().all("subscribed_to").len(), 5);
    ana.sync();
    assert_eq!(ana.rows(TASKS), "k1,k2,k3,k9");
}

#[test]
fn su9_a_row_that_its_parent_does_not_bring_stays() {
    let scratch = Scratch::new();
    let config = r#"
[tables.teams]
columns = { id = "text primary key" }
read  = "_owner = auth.uid()"
write = "_owner = auth.uid()"

[tables.projects]
columns = { id = "text primary key", team_id = "text", shared = "integer" }
read  = "(team_id IN readable(teams) AND shared = 1) OR _owner = auth.uid()"
write = "_owner = auth.uid()"
sync  = "on_demand"

[tables.tasks]
columns = { id = "text primary key", project_id = "text" }
read  = "project_id IN readable(projects)"
write = "project_id IN writable(projects)"
"#;
    let server = Server::with_config(&scratch, "data", config);
    let ana = Device::new(&scratch, &server, "ana.db", "ana");
    scratch.database(
        "ana.db",
        "CREATE TABLE teams (id TEXT PRIMARY KEY NOT NULL);
         CREATE TABLE projects (id TEXT PRIMARY KEY NOT NULL, team_id TEXT, shared INTEGER);
         CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, project_id TEXT);
         INSERT INTO teams VALUES ('t1');
         INSERT INTO projects VALUES ('shared', 't1', 1), ('mine', 't1', 0);
         INSERT INTO tasks VALUES ('k1', 'shared'), ('k2', 'mine');",
    );
    ana.run("attach", &["--yes"]).expect(exit::DONE);
    for _ in 0..2 {
        ana.sync();
        assert_eq!(ana.rows("SELECT count(*) FROM projects"), "2");
        assert_eq!(ana.rows(TASKS), "k1,k2");
    }
    ana.verify();
}

#[test]
fn su9_more_than_a_device_may_subscribe_to_is_refused_with_the_numbers() {
    let scratch = Scratch::new();
    let config = format!("[limits]\ndevice_subscriptions = 1\n{CONFIG}");
    let server = Server::with_config(&scratch, "data", &config);
    let ana = Device::new(&scratch, &server, "ana.db", "ana");
    scratch.database("ana.db", ROWS);
    for command in ["attach", "sync"] {
        let refused = ana.say(command, if command == "attach" { &["--yes"] } else { &[] });
        assert_eq!(refused.code, exit::DOUBT);
        refused.says(&[
            "subscribes to 4 things (tasks: 2, comments: 2)",
            "allows a device 1",
            "--no-subscribe",
        ]);
    }
    assert_eq!(
        ana.rows("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'syncline%'"),
        "0"
    );
    ana.run("sync", &["--no-subscribe"]).expect(exit::DONE);
    ana.sync();
    assert_eq!(ana.rows("SELECT count(*) FROM tasks"), "0", "as was said");
}

#[test]
fn su2_an_open_connection_follows_what_another_program_subscribes_to() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let (ana, bob) = shared(&scratch, &server);
    let mut watch = bob.watch();
    bob.run("subscribe", &["tasks", "--where", "project_id=p2"])
        .expect(exit::DONE);
    watch.wait_for_type("subscribed");
    assert_eq!(bob.rows(TASKS), "k3");

    ana.sql("UPDATE tasks SET title = 'paint it' WHERE id = 'k3'");
    ana.sync();
    wait_until("the change is here", || {
        bob.rows("SELECT title FROM tasks") == "paint it"
    });
    bob.run(
        "unsubscribe",
        &["tasks", "--where", "project_id=p2", "--keep-for", "0s"],
    )
    .expect(exit::DONE);
    watch.wait_for_type("released");
    assert_eq!(bob.rows("SELECT count(*) FROM tasks"), "0");
    assert_eq!(watch.terminate(), exit::DONE);
    drop(open(&server.database()));
}

#[test]
fn su3_su4_subscriptions_last_and_nothing_unsent_is_lost_when_they_end() {
    let scratch = Scratch::new();
    let mut server = Server::with_config(&scratch, "data", CONFIG);
    let (ana, bob) = shared(&scratch, &server);
    bob.run("subscribe", &["projects", "p1"]).expect(exit::DONE);
    bob.sync();

    // Over a restart of the server and a change made meanwhile, without loading again.
    server.kill();
    server.restart();
    ana.sql("UPDATE tasks SET title = 'dig deep' WHERE id = 'k1'");
    ana.sync();
    let synced = bob.sync();
    assert!(synced.all("loading").is_empty(), "{synced:?}");
    assert_eq!(
        bob.rows("SELECT title FROM tasks WHERE id = 'k1'"),
        "dig deep"
    );

    // Kept for five minutes, and longer when somebody subscribes again.
    bob.run("unsubscribe", &["projects", "p1"])
        .expect(exit::DONE);
    bob.sync();
    assert_eq!(bob.rows(TASKS), "k1,k2");
    let listed = bob.run("subscriptions", &[]).expect(exit::DONE);
    assert_eq!(listed.one("subscription")["state"], "ending");
    bob.run("subscribe", &["projects", "p1"]).expect(exit::DONE);
    assert!(bob.sync().all("loading").is_empty());

    // Edits that wait are sent before the rows go.
    bob.sql("UPDATE tasks SET title = 'from Bob' WHERE id = 'k2'; INSERT INTO tasks VALUES ('k6', 'p1', 'new')");
    bob.run("unsubscribe", &["projects", "p1", "--keep-for", "0s"])
        .expect(exit::DONE);
    let synced = bob.sync();
    assert_eq!(synced.one("done")["parked"], 0);
    bob.sync();
    assert_eq!(bob.rows("SELECT count(*) FROM tasks"), "0");
    assert_eq!(bob.status()["parked"], 0);
    ana.sync();
    assert_eq!(
        ana.rows("SELECT title FROM tasks WHERE id = 'k2'"),
        "from Bob"
    );
    assert_eq!(ana.rows(TASKS), "k1,k2,k3,k6");
    bob.verify();
    ana.verify();
}

#[test]
fn su4_a_table_that_is_switched_to_on_demand_releases_its_rows_and_sends_what_waits() {
    let scratch = Scratch::new();
    let always = CONFIG.replace("sync  = \"on_demand\"\n", "");
    let mut server = Server::with_config(&scratch, "data", &always);
    let (ana, bob) = shared(&scratch, &server);
    bob.sync();
    assert_eq!(
        (bob.rows(TASKS), bob.rows(COMMENTS)),
        ("k1,k2,k3".into(), "c1,c3".into())
    );

    // He writes while the server is down, which comes back with other rules; he is in one project
    // less, too.
    ana.sql("DELETE FROM members WHERE id = 'm2'");
    ana.sync();
    server.kill();
    bob.sql("UPDATE tasks SET title = 'from Bob' WHERE id = 'k2'; UPDATE comments SET body = 'deeper' WHERE id = 'c1'; INSERT INTO tasks VALUES ('k6', 'p1', 'new')");
    scratch.write("data.toml", CONFIG);
    server.restart();

    let synced = bob.sync();
    // What was in the other project counts as released as well: new rules give buckets new names,
    // and a device cannot tell which of them it lost.
    assert_eq!(synced.one("released")["rows"], 5, "{synced:?}");
    assert_eq!(synced.all("change_refused").len(), 0, "{synced:?}");
    bob.sync();
    assert_eq!(bob.rows("SELECT count(*) FROM tasks"), "0");
    assert_eq!(bob.rows("SELECT count(*) FROM comments"), "0");
    assert_eq!(bob.rows("SELECT count(*) FROM projects"), "1");
    bob.verify();
    ana.run("subscribe", &["projects", "p1"]).expect(exit::DONE);
    ana.run("subscribe", &["projects", "p2"]).expect(exit::DONE);
    ana.sync();
    let titles = "SELECT group_concat(title) FROM (SELECT title FROM tasks ORDER BY id)";
    assert_eq!(ana.rows(titles), "dig,from Bob,paint,new");
    assert_eq!(
        ana.rows("SELECT body FROM comments WHERE id = 'c1'"),
        "deeper"
    );
    ana.verify();
}

#[test]
fn su5_one_more_subscription_than_allowed_is_refused_with_the_limit() {
    let scratch = Scratch::new();
    let config = format!("[limits]\ndevice_subscriptions = 4\n{CONFIG}");
    let server = Server::with_config(&scratch, "data", &config);
    let (_ana, bob) = shared(&scratch, &server);
    for project in ["p1", "p2", "p8", "p9"] {
        bob.run("subscribe", &["projects", project])
            .expect(exit::DONE);
    }
    let refused = bob.say("subscribe", &["projects", "p3"]);
    assert_ne!(refused.code, exit::DONE);
    refused.says(&["may subscribe to 4 things"]);
    bob.run("unsubscribe", &["projects", "p2"])
        .expect(exit::DONE);
    bob.run("subscribe", &["projects", "p3"]).expect(exit::DONE);
    bob.sync();
    assert_eq!(
        bob.rows(TASKS),
        "k1,k2",
        "what only lasts a while gives way"
    );
}

#[test]
fn ru27_explain_says_which_devices_asked_for_a_row() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let (_ana, bob) = shared(&scratch, &server);
    let explain = ["explain", "tasks", "k1", "--user", "bob"];
    let data = ["--data", "data", "--config", "data.toml"];
    let said = scratch
        .say(&[&explain[..], &data].concat())
        .expect(exit::DONE);
    let on_demand = "on demand: sent only to devices that subscribe to tasks with project_id = p1";
    assert!(said.stdout.contains(on_demand), "{}", said.stdout);
    let row = [&["explain", "projects", "p1", "--user", "bob"], &data[..]].concat();
    let unasked = scratch.run(&row).expect(exit::DONE).one("row_access");
    assert!(unasked["on_demand"].is_null(), "projects come unasked");

    let admin = server.token_with(&["--user", "ops", "--claim", "syncline_admin=true"]);
    let asked = || {
        let url = format!("{}/v1/admin/explain?table=tasks&id=k1&user=bob", server.url);
        let output = std::process::Command::new("curl")
            .args(["--fail-with-body", "-sS", &url, "-H"])
            .arg(format!("Authorization: Bearer {admin}"))
            .output()
            .expect("curl runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let answer: serde_json::Value = serde_json::from_str(&text).expect(&text);
        answer["on_demand"].clone()
    };
    let away = asked();
    assert_eq!(away["devices"][0]["asks"], json!(null));
    let says = away["says"].as_str().expect("a sentence");
    assert!(
        says.starts_with("may see it, but nobody asked for it"),
        "{says}"
    );

    let mut watch = bob.watch();
    assert_eq!(asked()["devices"][0]["asks"], false);
    bob.run("subscribe", &["projects", "p1"]).expect(exit::DONE);
    watch.wait_for_type("subscribed");
    let there = asked();
    assert_eq!(there["devices"][0]["asks"], true);
    let says = there["says"].as_str().expect("a sentence");
    assert!(says.contains("which asked for it"), "{says}");
    assert_eq!(watch.terminate(), exit::DONE);
}
