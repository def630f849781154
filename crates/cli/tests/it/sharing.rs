//! `serve` without `--dev`: several people, rules, claims, and chosen tables.

use serde_json::json;

use crate::support::{Device, Scratch, Server, exit, rows, sql, wait_until};

const CONFIG: &str = r#"
[tables.projects]
columns = { id = "text primary key", name = "text not null" }
read  = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid())"
write = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid() AND role = 'editor')"

[tables.members]
columns = { id = "text primary key", project_id = "text not null references projects on delete cascade", user_id = "text not null", role = "text" }
read  = "user_id = auth.uid() OR project_id IN readable(projects)"
write = "project_id IN writable(projects)"

[tables.tasks]
columns = { id = "text primary key", project_id = "text not null references projects on delete cascade", title = "text not null" }
read  = "project_id IN readable(projects)"
write = "project_id IN writable(projects)"

[tables.news]
columns = { id = "text primary key", text = "text not null" }
read  = "auth.uid() IS NOT NULL"
write = "auth.claim('role') = 'admin'"
"#;

const TABLES: &str = "
    CREATE TABLE projects (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL);
    CREATE TABLE members (id TEXT PRIMARY KEY NOT NULL, project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE, user_id TEXT NOT NULL, role TEXT);
    CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE, title TEXT NOT NULL);
    CREATE TABLE news (id TEXT PRIMARY KEY NOT NULL, text TEXT NOT NULL);";

fn anas_file() -> String {
    format!(
        "{TABLES}
        INSERT INTO projects VALUES ('p1', 'garden'), ('p2', 'secret');
        INSERT INTO tasks VALUES ('k1', 'p1', 'dig'), ('k2', 'p1', 'plant'), ('k3', 'p2', 'a surprise for bob');"
    )
}

/// All bytes of a database file and of what SQLite keeps beside it.
fn bytes_of(device: &Device<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    for suffix in ["", "-wal"] {
        let path = format!("{}{suffix}", device.file.display());
        all.extend(std::fs::read(path).unwrap_or_default());
    }
    all
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[test]
fn rows_reach_only_those_who_may_see_them_and_leave_with_the_permission() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let ana = Device::seeded(&scratch, &server, "ana.db", "ana", &anas_file());
    let bob = Device::hydrated(&scratch, &server, "bob.db", "bob");
    assert_eq!(bob.rows("SELECT count(*) FROM projects"), "0");
    assert_eq!(bob.rows("SELECT count(*) FROM tasks"), "0");

    // Invited: he sees the one project with its tasks, and may write.
    ana.sql("INSERT INTO members VALUES ('m1', 'p1', 'bob', 'editor')");
    ana.sync();
    bob.sync();
    assert_eq!(bob.rows("SELECT id FROM projects"), "p1");
    assert_eq!(bob.rows("SELECT id FROM tasks ORDER BY id"), "k1\nk2");
    assert!(
        !holds(&bytes_of(&bob), "surprise"),
        "not a byte of the other project"
    );
    bob.sql("UPDATE tasks SET title = 'dig deep' WHERE id = 'k1'");
    bob.sync();
    ana.sync();
    assert_eq!(
        ana.rows("SELECT title FROM tasks WHERE id = 'k1'"),
        "dig deep"
    );
    bob.verify();

    // The operator can read who let him in.
    let args = [
        "audit",
        "--data",
        "data",
        "--kind",
        "access_given",
        "--user",
        "bob",
    ];
    let mut given = Vec::new();
    wait_until("the audit log", || {
        given = scratch.run(&args).expect(exit::DONE).all("audit_record");
        !given.is_empty()
    });
    assert_eq!(given[0]["actor"], "ana");
    assert_eq!(given[0]["subject"], "bob");

    // Only a reader now: his edit is refused and undone.
    ana.sql("UPDATE members SET role = 'viewer' WHERE id = 'm1'");
    ana.sync();
    bob.sync();
    bob.sql("UPDATE tasks SET title = 'vandalism' WHERE id = 'k1'");
    let refused = bob.sync().one("change_refused");
    assert_eq!(refused["code"], "forbidden");
    assert_eq!(
        bob.rows("SELECT title FROM tasks WHERE id = 'k1'"),
        "dig deep"
    );

    // Out: the rows leave his file.
    ana.sql("DELETE FROM members WHERE id = 'm1'");
    ana.sync();
    let left = bob.sync();
    assert_eq!(left.all("access_lost").len(), 1, "{left:?}");
    assert_eq!(bob.rows("SELECT count(*) FROM projects"), "0");
    assert_eq!(bob.rows("SELECT count(*) FROM tasks"), "0");
    sql(&bob.file, "PRAGMA wal_checkpoint(TRUNCATE)");
    assert!(!holds(&bytes_of(&bob), "plant"), "not a byte of them stays");
    assert_eq!(ana.verify(), 5);
    assert_eq!(bob.verify(), 0);
}

#[test]
fn somebody_elses_row_cannot_be_taken_by_inserting_its_key() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let _ana = Device::seeded(&scratch, &server, "ana.db", "ana", &anas_file());
    let bob = Device::hydrated(&scratch, &server, "bob.db", "bob");

    bob.sql("INSERT INTO projects VALUES ('p2', 'mine now')");
    let synced = bob.sync();

    let refused = synced.one("change_refused");
    assert!(
        !refused["message"]
            .as_str()
            .expect("a sentence")
            .contains("secret"),
        "{refused}"
    );
    assert_eq!(
        rows(
            &server.database(),
            "SELECT name FROM projects WHERE id = 'p2'"
        ),
        "secret"
    );
    assert_eq!(bob.rows("SELECT count(*) FROM projects"), "0");
}

#[test]
fn claims_of_a_token_decide_where_rules_ask_for_them() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let mut ana = Device::seeded(&scratch, &server, "ana.db", "ana", TABLES);
    ana.sql("INSERT INTO news VALUES ('w1', 'hello')");
    assert_eq!(ana.sync().one("change_refused")["code"], "forbidden");

    ana.token = server.token_with(&[
        "--user",
        "ana",
        "--claim",
        "role=admin",
        "--claim",
        "age=42",
    ]);
    ana.sql("INSERT INTO news VALUES ('w2', 'hello everybody')");
    assert_eq!(ana.sync().all("change_refused").len(), 0);
    let bob = Device::hydrated(&scratch, &server, "bob.db", "bob");
    assert_eq!(bob.rows("SELECT text FROM news"), "hello everybody");

    // A token is three parts; the middle one says what was asked for.
    let args = [
        "token",
        "--data",
        "data",
        "--user",
        "eve",
        "--claim",
        "teams=[1,2]",
        "--ttl",
        "90s",
    ];
    let made = scratch.run(&args).expect(exit::DONE).one("token");
    assert_eq!(made["user"], "eve");
    scratch
        .say(&[
            "token", "--data", "data", "--user", "eve", "--claim", "role",
        ])
        .expect(exit::USAGE)
        .says(&["NAME=VALUE"]);
    scratch
        .say(&[
            "token", "--data", "data", "--user", "eve", "--claim", "sub=ana",
        ])
        .expect(exit::USAGE)
        .says(&["sub"]);
    scratch
        .say(&[
            "token", "--data", "data", "--user", "eve", "--ttl", "forever",
        ])
        .expect(exit::USAGE)
        .says(&["30d"]);
}

#[test]
fn chosen_tables_travel_and_the_others_stay_out() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let ana = Device::new(&scratch, &server, "ana.db", "ana");
    scratch.database("ana.db", &anas_file());
    let attached = ana
        .run("attach", &["--tables", "projects,members", "--yes"])
        .expect(exit::DONE);
    assert_eq!(attached.one("attached")["tables"], 2);
    ana.sync();
    assert_eq!(
        rows(&server.database(), "SELECT count(*) FROM projects"),
        "2"
    );
    assert_eq!(rows(&server.database(), "SELECT count(*) FROM tasks"), "0");

    ana.run("sync", &["--tables", "projects"])
        .expect(exit::DONE);
    ana.run("sync", &["--tables", "tasks"])
        .expect(exit::TABLE_UNFIT)
        .says(&["attached without a table tasks", "detach"]);

    let phone = Device::new(&scratch, &server, "phone.db", "ana");
    phone
        .run("hydrate", &["--tables", "projects"])
        .expect(exit::DONE);
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'syncline%' AND name NOT LIKE 'sqlite%'";
    assert_eq!(phone.rows(tables), "projects");
    assert_eq!(phone.verify(), 2);

    let other = Device::new(&scratch, &server, "other.db", "ana");
    other
        .run("hydrate", &["--tables", "nonsense"])
        .expect(exit::TABLE_UNFIT)
        .says(&["nonsense"]);
    assert!(!other.file.exists(), "nothing is left behind");
    ana.run("detach", &[]).expect(exit::DONE);
    ana.run("attach", &["--tables", "nonsense", "--yes"])
        .expect(exit::TABLE_UNFIT)
        .says(&["no table nonsense"]);
}

#[test]
fn a_table_that_the_server_does_not_declare_is_left_out_with_a_word() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let ana = Device::new(&scratch, &server, "ana.db", "ana");
    scratch.database(
        "ana.db",
        &format!(
            "{} CREATE TABLE drafts (id TEXT PRIMARY KEY, t TEXT);",
            anas_file()
        ),
    );
    ana.say("attach", &["--yes"])
        .expect(exit::DONE)
        .says(&["left out: drafts", "does not sync it"]);
    ana.sync();
    ana.verify();

    let only = Device::new(&scratch, &server, "only.db", "ana");
    scratch.database(
        "only.db",
        "CREATE TABLE drafts (id TEXT PRIMARY KEY, t TEXT);",
    );
    only.say("attach", &["--yes"])
        .expect(exit::TABLE_UNFIT)
        .says(&["drafts", "syncline.toml"]);
    let nothing = only.rows("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'syncline%'");
    assert_eq!(nothing, "0");
}

#[test]
fn check_says_each_rule_in_words() {
    let scratch = Scratch::new();
    scratch.write("syncline.toml", CONFIG);
    let checked = scratch.run(&["check"]).expect(exit::DONE);
    let tables: Vec<_> = checked
        .all("table")
        .iter()
        .map(|t| t["table"].clone())
        .collect();
    assert_eq!(
        json!(tables),
        json!(["projects", "members", "tasks", "news"])
    );
    let said = scratch.say(&["check"]).expect(exit::DONE);
    assert!(said.stdout.contains("admin"), "{}", said.stdout);
}
