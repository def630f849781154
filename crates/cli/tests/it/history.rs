//! `history`: who changed a row, and making it again what it was.

use serde_json::{Value, json};

use crate::support::{Device, Scratch, Server, exit, sync_all};

const CONFIG: &str = r#"
[tables.notes]
columns = { id = "text primary key", title = "text not null", body = "text" }
read  = "_owner = auth.uid()"
write = "_owner = auth.uid()"

[tables.seats]
columns = { hall = "text not null", seat = "integer not null", guest = "text" }
primary_key = ["hall", "seat"]
read  = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"
"#;

const TABLES: &str = "
    CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL, body TEXT);
    CREATE TABLE seats (hall TEXT NOT NULL, seat INTEGER NOT NULL, guest TEXT, PRIMARY KEY (hall, seat));
    INSERT INTO notes VALUES ('n1', 'Milk', NULL);
    INSERT INTO seats VALUES ('A', -1, 'Ana');";

const NOTE: &str = "SELECT title, body FROM notes WHERE id = 'n1'";

/// A laptop and a phone of one person that edited a note after each other.
fn edited<'a>(scratch: &'a Scratch, server: &Server<'_>) -> (Device<'a>, Device<'a>) {
    let laptop = Device::seeded(scratch, server, "laptop.db", "ana", TABLES);
    let phone = Device::hydrated(scratch, server, "phone.db", "ana");
    phone.sql("UPDATE notes SET title = 'Oat milk', body = 'two\nlitres' WHERE id = 'n1'");
    phone.sync();
    laptop.sync();
    laptop.sql("UPDATE notes SET title = 'Soy milk' WHERE id = 'n1'");
    laptop.sync();
    phone.sync();
    (laptop, phone)
}

fn changes(device: &Device<'_>, args: &[&str]) -> Vec<Value> {
    let outcome = device.run("history", args).expect(exit::DONE);
    let changes = outcome.all("row_change");
    assert_eq!(outcome.one("history")["changes"], changes.len());
    changes
}

fn version(change: &Value) -> String {
    change["version"].as_u64().expect("a version").to_string()
}

#[test]
fn the_history_of_a_row_says_who_changed_what_on_which_device() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let (laptop, phone) = edited(&scratch, &server);
    let told = changes(&laptop, &["notes", "n1"]);
    let ops: Vec<_> = told.iter().map(|change| &change["op"]).collect();
    assert_eq!(ops, ["update", "update", "insert"]);
    let device = |device: &Device<'_>| device.status()["device"].clone();
    let devices: Vec<_> = told.iter().map(|change| change["device"].clone()).collect();
    assert_eq!(devices, [device(&laptop), device(&phone), device(&laptop)]);
    assert!(told.iter().all(|change| change["user"] == "ana"));
    let expected = json!([
        { "column": "title", "before": "Milk", "after": "Oat milk" },
        { "column": "body", "before": null, "after": "two\nlitres" },
    ]);
    assert_eq!(told[1]["columns"], expected);

    // For people: one line for a change, one for a column.
    let said = laptop
        .say("history", &["notes", "n1"])
        .expect(exit::DONE)
        .stdout;
    assert!(said.contains("changed by ana on this device"), "{said}");
    let (name, id) = (
        &told[1]["device_name"],
        told[1]["device"].as_str().expect("an id"),
    );
    let phone = format!(
        "changed by ana on {} ({})",
        name.as_str().expect("a name"),
        &id[..8]
    );
    assert!(said.contains(&phone), "{said}");
    assert!(
        said.contains("\n    title  \"Milk\" → \"Oat milk\"\n"),
        "{said}"
    );
    assert!(
        said.contains("\n    body   NULL → \"two\\nlitres\"\n"),
        "{said}"
    );
    assert!(
        said.contains(&format!("version {}", version(&told[0]))),
        "{said}"
    );

    // In pages.
    let newest = laptop
        .run("history", &["notes", "n1", "--limit", "1"])
        .expect(exit::DONE);
    assert_eq!(newest.all("row_change"), told[..1]);
    assert_eq!(newest.one("history")["more"], true);
    let older = changes(&laptop, &["notes", "n1", "--before", &version(&told[0])]);
    assert_eq!(older, told[1..]);

    // A key of two columns, one of them negative.
    let seat = changes(&laptop, &["seats", "A", "-1"]);
    assert_eq!((seat.len(), &seat[0]["key"]), (1, &json!("A,-1")));
}

#[test]
fn an_edit_is_undone_by_restoring_what_was_before_it() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let (laptop, phone) = edited(&scratch, &server);
    let told = changes(&laptop, &["notes", "n1"]);
    let first = version(&told[2]);
    let restored = laptop.run("history", &["notes", "n1", "--restore", &first]);
    let restored = restored.expect(exit::DONE).one("row_restored");
    assert_eq!(restored["did"], "updated");
    assert_eq!(laptop.rows(NOTE), "Milk|NULL");
    assert_eq!(laptop.status()["waiting"], 1, "a change like any other");
    let again = laptop.run("history", &["notes", "n1", "--restore", &first]);
    assert_eq!(
        again.expect(exit::DONE).one("row_restored")["did"],
        "unchanged"
    );
    sync_all(&[&laptop, &phone]);
    assert_eq!(phone.rows(NOTE), "Milk|NULL");
    let told = changes(&phone, &["notes", "n1"]);
    assert_eq!(
        (told.len(), &told[0]["device"]),
        (4, &laptop.status()["device"])
    );
    laptop.verify();
    phone.verify();
}

#[test]
fn a_deleted_row_is_brought_back() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let (laptop, phone) = edited(&scratch, &server);
    phone.sql("DELETE FROM notes; DELETE FROM seats");
    sync_all(&[&phone, &laptop]);
    assert_eq!(laptop.rows(NOTE), "");
    let told = changes(&laptop, &["notes", "n1"]);
    assert_eq!(told[0]["op"], "delete");
    let before = &told[0]["columns"];
    assert!(before.as_array().is_some_and(|columns| {
        columns.contains(&json!({ "column": "title", "before": "Soy milk" }))
    }));
    // What the deletion deleted, and an older state of the other.
    let deletion = version(&told[0]);
    let back = laptop.run("history", &["notes", "n1", "--restore", &deletion]);
    assert_eq!(
        back.expect(exit::DONE).one("row_restored")["did"],
        "inserted"
    );
    let seat = version(&changes(&laptop, &["seats", "A", "-1"])[1]);
    laptop
        .say("history", &["seats", "A", "-1", "--restore", &seat])
        .expect(exit::DONE);
    sync_all(&[&laptop, &phone]);
    assert_eq!(phone.rows(NOTE), "Soy milk|two\nlitres");
    assert_eq!(phone.rows("SELECT * FROM seats"), "A|-1|Ana");
    phone.verify();
}

#[test]
fn nobody_is_told_the_history_of_what_is_not_theirs() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let (laptop, _) = edited(&scratch, &server);
    let made = version(&changes(&laptop, &["notes", "n1"])[2]);
    let eve = Device::hydrated(&scratch, &server, "eve.db", "eve");
    let stranger = eve.run("history", &["notes", "n1"]).expect(exit::NOT_FOUND);
    let unknown = eve.run("history", &["notes", "n9"]).expect(exit::NOT_FOUND);
    let without_name = |text: &str| text.replace("n1", "n9");
    assert_eq!(without_name(&stranger.stdout), unknown.stdout);
    assert_eq!(without_name(&stranger.stderr), unknown.stderr);
    for id in ["n1", "n9"] {
        eve.run("history", &["notes", id, "--restore", &made])
            .expect(exit::NOT_FOUND)
            .says(&["no change of this row that you may see has the version"]);
    }
    assert_eq!(eve.rows("SELECT count(*) FROM notes"), "0");
}

#[test]
fn what_cannot_be_listed_or_restored_says_why() {
    let scratch = Scratch::new();
    let mut server = Server::with_config(&scratch, "data", CONFIG);
    let (laptop, _) = edited(&scratch, &server);
    let made = version(&changes(&laptop, &["notes", "n1"])[2]);
    laptop
        .run("history", &["notes", "n1", "--restore", "12345"])
        .expect(exit::NOT_FOUND)
        .says(&["12345"]);
    laptop
        .run("history", &["nothing", "n1"])
        .expect(exit::TABLE_UNFIT)
        .says(&["nothing"]);
    laptop
        .run("history", &["seats", "A"])
        .expect(exit::USAGE)
        .says(&["the key of seats is hall, seat: give 2 values"]);
    laptop
        .run("history", &["seats", "A", "first"])
        .expect(exit::USAGE)
        .says(&["seat is integer"]);

    laptop.sql("ALTER TABLE notes DROP COLUMN body");
    laptop.sync();
    let oat = version(&changes(&laptop, &["notes", "n1"])[1]);
    laptop
        .run("history", &["notes", "n1", "--restore", &oat])
        .expect(exit::TABLE_UNFIT)
        .says(&["its column body is not in this file any more"]);
    assert_eq!(laptop.rows("SELECT title FROM notes"), "Soy milk");

    server.terminate();
    for args in [&["notes", "n1"][..], &["notes", "n1", "--restore", &made]] {
        laptop.run("history", args).expect(exit::UNREACHABLE);
    }
    assert_eq!(laptop.rows("SELECT title FROM notes"), "Soy milk");
}

#[test]
fn a_server_without_history_says_so() {
    let scratch = Scratch::new();
    let config = format!("[server]\nhistory_days = 0\n{CONFIG}");
    let server = Server::with_config(&scratch, "data", &config);
    let (laptop, _) = edited(&scratch, &server);
    laptop
        .run("history", &["notes", "n1"])
        .expect(exit::NOT_FOUND)
        .says(&["the server keeps none (history_days = 0)"]);
}
