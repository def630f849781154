//! Quotas of `[limits]`, seen from the command line (docs/limits.md).

use serde_json::json;

use crate::support::{Device, Scratch, Server, exit};

const CONFIG: &str = r#"
[limits]
user_rows   = 3
user_bytes  = 10_000
device_rows = 2

[tables.notes]
columns = { id = "text primary key", title = "text not null" }
read  = "_owner = auth.uid()"
write = "_owner = auth.uid()"
"#;

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL);
                     INSERT INTO notes VALUES ('n1', 'one'), ('n2', 'two');";

const IDS: &str = "SELECT group_concat(id, ' ') FROM (SELECT id FROM notes ORDER BY id)";

#[test]
fn li6_who_is_full_is_told_keeps_what_was_written_and_sends_it_when_there_is_room() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let ana = Device::seeded(&scratch, &server, "ana.db", "ana", NOTES);
    ana.sql("INSERT INTO notes VALUES ('n3', 'three'), ('n4', 'four')");
    let refused = ana.sync().one("change_refused");
    assert_eq!(refused["code"], "over_quota");
    let said = refused["message"].as_str().expect("a sentence");
    assert!(said.contains("you would own 4 rows"), "{said}");
    assert_eq!(ana.rows(IDS), "n1 n2", "as at the server");
    // As large as a quota allows, and not larger.
    ana.sql("UPDATE notes SET title = printf('%.*c', 20000, 'x') WHERE id = 'n1'");
    assert_eq!(ana.sync().one("change_refused")["code"], "over_quota");

    let parked = ana.run("queue", &["list"]).expect(exit::DONE);
    let parked = parked.all("changeset");
    assert_eq!(parked.len(), 2, "{parked:?}");
    ana.sql("DELETE FROM notes WHERE id = 'n1'");
    ana.sync();
    let id = parked[0]["id"].as_str().expect("an id").to_owned();
    ana.run("queue", &["retry", &id]).expect(exit::DONE);
    ana.sync();
    assert_eq!(ana.rows(IDS), "n2 n3 n4");
    // Bob has room of his own.
    let bob = Device::seeded(
        &scratch,
        &server,
        "bob.db",
        "bob",
        NOTES.replace("n1", "b1").replace("n2", "b2").as_str(),
    );
    assert_eq!(bob.verify(), 2);

    // A new device of hers would hold three rows.
    let phone = Device::new(&scratch, &server, "phone.db", "ana");
    let told = phone.run("hydrate", &[]).expect(exit::REFUSED);
    assert_eq!(told.one("error")["code"], "too_many_rows");
    ana.sql("DELETE FROM notes WHERE id = 'n4'");
    ana.sync();
    phone.run("sync", &[]).expect(exit::DONE);
    assert_eq!(phone.rows(IDS), "n2 n3");
}

#[test]
fn li8_li9_who_is_near_the_quota_knows_and_what_was_refused_goes_when_there_is_room() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let ana = Device::seeded(&scratch, &server, "ana.db", "ana", NOTES);
    ana.sql("INSERT INTO notes VALUES ('n3', 'three'), ('n4', 'four')");
    assert_eq!(ana.sync().one("change_refused")["code"], "over_quota");
    ana.sql("INSERT INTO notes VALUES ('n5', 'five')");
    ana.sync();
    let quota = ana.status()["quota"].clone();
    let rows = |owned: u64| json!({ "owned": owned, "max": 3 });
    assert_eq!(quota["rows"], rows(2), "as of the beginning of the session");
    ana.sync();
    assert_eq!(ana.status()["quota"]["rows"], rows(3));
    assert_eq!(ana.status()["parked"], 1, "nothing is sent that cannot fit");
    let said = ana.say("status", &[]).expect(exit::DONE).stdout;
    assert!(said.contains("3 of 3 rows owned"), "{said}");
    assert!(said.contains("of 10,000 bytes owned"), "{said}");

    // The first session that finds room sends it, and nobody has to ask.
    ana.sql("DELETE FROM notes WHERE id IN ('n1', 'n5')");
    ana.sync();
    assert_eq!(ana.status()["parked"], 1);
    ana.sync();
    assert_eq!(ana.status()["parked"], 0);
    assert_eq!(ana.rows(IDS), "n2 n3 n4");
    ana.verify();
}

#[test]
fn li8_an_operator_sees_what_each_account_owns() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let users = |args: &[&str]| {
        let data = ["--data", "data", "--config", "data.toml"];
        let all: Vec<&str> = [&["users"], args, &data].concat();
        scratch.run(&all).expect(exit::DONE)
    };
    let added = users(&["add", "ana@example.com"]).one("user_changed");
    let id = added["id"].as_str().expect("an id").to_owned();
    users(&["add", "ben@example.com"]);
    Device::seeded(&scratch, &server, "ana.db", &id, NOTES);
    let listed = users(&["list"]).all("user");
    let owned = |at: usize| {
        (
            &listed[at]["owned"]["rows"],
            &listed[at]["owned"]["rows_max"],
        )
    };
    assert_eq!(owned(0), (&2.into(), &3.into()), "{listed:?}");
    assert_eq!(owned(1), (&0.into(), &3.into()), "{listed:?}");
    let list = ["users", "list", "--data", "data", "--config", "data.toml"];
    let said = scratch.say(&list).expect(exit::DONE).stdout;
    assert!(said.contains("owns 2 of 3 rows and"), "{said}");
    assert!(said.contains("of 10,000 bytes"), "{said}");

    // The folder alone says what is counted; the configuration says how much it may be.
    let alone = ["users", "list", "--data", "data"];
    let listed = scratch.run(&alone).expect(exit::DONE).all("user");
    assert_eq!(listed[0]["owned"]["rows"], 2, "{listed:?}");
    assert_eq!(listed[0]["owned"].get("rows_max"), None, "{listed:?}");
    let said = scratch.say(&alone).expect(exit::DONE).stdout;
    assert!(said.contains("owns 2 rows and"), "{said}");
    assert!(said.contains("--config"), "{said}");
}

#[test]
fn li7_a_file_with_rows_is_told_too_when_there_is_more_than_it_may_load() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let ana = Device::seeded(&scratch, &server, "ana.db", "ana", NOTES);
    ana.sql("INSERT INTO notes VALUES ('n3', 'three')");
    ana.sync();
    // Its rows wait for the rest to be loaded, which does not come.
    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    laptop.sql("CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL)");
    laptop.sql("INSERT INTO notes VALUES ('n9', 'nine')");
    laptop.run("attach", &["--yes"]).expect(exit::DONE);
    let told = laptop.run("sync", &[]).expect(exit::REFUSED);
    assert_eq!(told.one("error")["code"], "too_many_rows");
    assert_eq!(laptop.rows(IDS), "n9", "it keeps what it has");

    ana.sql("DELETE FROM notes WHERE id <> 'n3'");
    ana.sync();
    laptop.sync();
    assert_eq!(laptop.rows(IDS), "n3 n9");
}
