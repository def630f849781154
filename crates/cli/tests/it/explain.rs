//! `syncline explain` and `syncline test`: why a row reaches somebody, or not.

use std::path::Path;

use crate::support::{Device, Scratch, Server, exit};

const CONFIG: &str = r#"
[tables.projects]
columns = { id = "text primary key", name = "text not null" }
read  = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid())"
write = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid() AND role = 'editor')"

[tables.members]
columns = { project_id = "text references projects on delete cascade", user_id = "text", role = "text" }
primary_key = ["project_id", "user_id"]
read  = "project_id IN readable(projects)"
write = "project_id IN writable(projects)"
"#;

const ROWS: &str = "
    CREATE TABLE projects (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL);
    CREATE TABLE members (project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE, user_id TEXT NOT NULL, role TEXT, PRIMARY KEY (project_id, user_id));
    INSERT INTO projects VALUES ('p1', 'garden'), ('p2', 'secret');
    INSERT INTO members VALUES ('p1', 'bob', 'viewer'), ('p1', 'eve', 'editor');";

#[test]
fn ru27_explain_says_who_sees_a_row_and_what_somebody_sees_beside_the_server_and_without() {
    let scratch = Scratch::new();
    let mut server = Server::with_config(&scratch, "data", CONFIG);
    let _ana = Device::seeded(&scratch, &server, "ana.db", "ana", ROWS);
    let where_ = ["--data", "data", "--config", "data.toml"];
    let explain = |args: &[&str]| scratch.run(&[&["explain"], args, &where_].concat());
    let said = |args: &[&str]| {
        let all = [&["explain"], args, &where_].concat();
        scratch.say(&all).expect(exit::DONE).stdout
    };

    let people = explain(&["projects", "p1"])
        .expect(exit::DONE)
        .one("row_people");
    let names = |action: &str| -> Vec<String> {
        let people = people[action].as_array().expect("a list").iter();
        people
            .map(|one| one["user"].as_str().expect("a user").to_owned())
            .collect()
    };
    assert_eq!(names("read"), ["ana", "bob", "eve"]);
    assert_eq!(names("update"), ["ana", "eve"]);
    assert!(
        said(&["projects", "p1"]).contains("through row 'p1', 'bob' of members"),
        "{}",
        said(&["projects", "p1"])
    );

    let access = explain(&["projects", "p1", "--user", "bob"]);
    let access = access.expect(exit::DONE).one("row_access");
    assert_eq!(access["read"]["allowed"], true);
    assert_eq!(access["update"]["allowed"], false);
    let text = said(&["projects", "p1", "--user", "bob"]);
    assert!(text.contains("bob may read row 'p1' of projects"), "{text}");
    assert!(
        text.contains("role = 'editor' does not hold: role is 'viewer'"),
        "{text}"
    );
    let text = said(&["projects", "p2", "--user", "bob"]);
    assert!(
        text.contains("there is no row in members with project_id = 'p2' and user_id = 'bob'"),
        "{text}"
    );

    let tables = explain(&["--user", "bob"])
        .expect(exit::DONE)
        .all("table_access");
    let counts: Vec<_> = tables
        .iter()
        .map(|t| (&t["table"], &t["readable"], &t["rows"]))
        .collect();
    assert_eq!(
        counts,
        [
            (&"projects".into(), &1.into(), &2.into()),
            (&"members".into(), &2.into(), &2.into())
        ]
    );
    let seen = explain(&["members", "--user", "bob", "--limit", "1"]).expect(exit::DONE);
    assert_eq!(seen.all("readable_row").len(), 1);
    assert_eq!(seen.one("table_access")["more"], true);
    let nothing = explain(&["projects", "--anonymous"]).expect(exit::DONE);
    assert_eq!(nothing.one("table_access")["readable"], 0);

    explain(&["projects", "p9"]).expect(exit::NOT_FOUND);
    explain(&["nothing", "p1"]).expect(exit::TABLE_UNFIT);
    explain(&["members", "p1"]).expect(exit::USAGE);
    explain(&["projects"]).expect(exit::USAGE);

    assert_eq!(server.terminate(), exit::DONE);
    let tables = explain(&["--user", "eve"])
        .expect(exit::DONE)
        .all("table_access");
    assert_eq!(tables[0]["updatable"], 1);
    let elsewhere = ["explain", "projects", "p1", "--data", "elsewhere"];
    scratch.run(&elsewhere).expect(exit::NOT_FOUND);
}

#[test]
fn ru27_a_user_is_found_by_the_address_of_the_account_with_its_claims() {
    let scratch = Scratch::new();
    let config = r#"
[tables.news]
columns = { id = "text primary key", text = "text" }
read  = "auth.claim('role') = 'reader'"
write = "_owner = auth.uid() OR auth.claim('role') = 'writer'"
"#;
    let server = Server::with_config(&scratch, "data", config);
    let rows = "CREATE TABLE news (id TEXT PRIMARY KEY NOT NULL, text TEXT);
                INSERT INTO news VALUES ('n', 'x');";
    let writer = server.token_with(&["--user", "ana", "--claim", "role=writer"]);
    let file = scratch.database("ana.db", rows);
    let args = [
        "seed",
        file.to_str().expect("a name"),
        "--server",
        &server.url,
        "--token",
        &writer,
    ];
    scratch.run(&args).expect(exit::DONE);
    let added = [
        "users",
        "add",
        "ben@example.com",
        "--claim",
        "role=reader",
        "--data",
        "data",
    ];
    let added = scratch.run(&added).expect(exit::DONE).one("user_changed");
    let of = |user: &str, claims: &[&str]| {
        let args = [
            "explain",
            "news",
            "n",
            "--data",
            "data",
            "--config",
            "data.toml",
            "--user",
            user,
        ];
        let access = scratch
            .run(&[&args[..], claims].concat())
            .expect(exit::DONE)
            .one("row_access");
        (access["user"].clone(), access["read"]["allowed"] == true)
    };
    assert_eq!(of("ben@example.com", &[]), (added["id"].clone(), true));
    assert_eq!(
        of("Ben@example.com", &["--claim", "role=none"]),
        (added["id"].clone(), false)
    );
    assert_eq!(of("carl", &[]), ("carl".into(), false));
    assert_eq!(
        of("carl", &["--claim", "role=reader"]),
        ("carl".into(), true)
    );
}

/// Schemas of two kinds of apps, with what has to hold in them.
#[test]
fn ru27_the_rules_of_the_examples_are_as_their_tests_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/rules");
    let scratch = Scratch::new();
    for (name, lines) in [("projects", 23), ("weddings", 42)] {
        let config = folder.join(format!("{name}.toml"));
        let config = config.to_str().expect("a name");
        let file = folder.join(format!("{name}.test.toml"));
        let file = file.to_str().expect("a name");
        scratch
            .run(&["check", "--config", config])
            .expect(exit::DONE);
        let tested = scratch
            .run(&["test", file, "--config", config])
            .expect(exit::DONE);
        assert_eq!(tested.one("rules_tested")["lines"], lines, "{name}");
        // A rule that lets too much through is noticed.
        let text = std::fs::read_to_string(config).expect("the rules");
        let loose = text
            .replacen("read  = \"", "read  = \"TRUE OR ", 3)
            .replacen("read   = \"", "read  = \"TRUE OR ", 1);
        scratch.write("loose.toml", &loose);
        let tested = scratch
            .run(&["test", file, "--config", "loose.toml"])
            .expect(exit::DIFFERS);
        assert!(!tested.all("rule_failed").is_empty());
    }
}

#[test]
fn ru27_test_runs_on_the_servers_data_and_says_what_is_wrong_where() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let _ana = Device::seeded(&scratch, &server, "ana.db", "ana", ROWS);
    let test = |text: &str| {
        scratch.write("lines.toml", text);
        let args = [
            "test",
            "lines.toml",
            "--data",
            "data",
            "--config",
            "data.toml",
        ];
        (scratch.run(&args), scratch.say(&args))
    };
    let (good, _) = test(
        "tests = [
            { user = 'bob', may = 'read', may_not = ['update', 'delete'], table = 'projects', id = 'p1' },
            { user = 'eve', may = 'update', table = 'members', id = ['p1', 'bob'], set = { role = 'editor' } },
            { user = 'bob', may_not = 'create', table = 'members', row = { project_id = 'p2', user_id = 'bob' } },
        ]",
    );
    assert_eq!(good.expect(exit::DONE).one("rules_tested")["lines"], 5);

    let (bad, said) = test(
        "[[tests]]
user = 'bob'
may = 'read'
table = 'projects'
id = 'p2'
",
    );
    let failed = bad.expect(exit::DIFFERS).one("rule_failed");
    assert_eq!(
        (&failed["line"], &failed["expected"]),
        (&1.into(), &true.into())
    );
    let said = said.expect(exit::DIFFERS).stdout;
    let wanted = "lines.toml:1: this should be allowed: bob may not read row 'p2'";
    assert!(said.contains(wanted), "{said}");

    for (text, says) in [
        (
            "tests = [{ user = 'bob', may = 'look', table = 'projects', id = 'p1' }]",
            "write read, create",
        ),
        (
            "tests = [{ may = 'read', table = 'nothing', id = 'p1' }]",
            "no table nothing",
        ),
        (
            "tests = [{ may = 'read', table = 'projects', id = 'p9' }]",
            "there is no row 'p9' of projects",
        ),
        (
            "tests = [{ may = 'create', table = 'projects', id = 'p9' }]",
            "`row` says what is created",
        ),
        (
            "tests = [{ may = 'read', table = 'projects', id = 'p1', set = { colour = 1 } }]",
            "no column colour",
        ),
        ("test = []", "unknown field"),
    ] {
        let (_, said) = test(text);
        said.expect(exit::USAGE).says(&[says]);
    }
}
