//! `syncline devices`: what a person sees of the own devices, and what removing one does.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Device, Outcome, Scratch, Server, exit, wait_until};

const NOTES: &str = "
    CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT NOT NULL DEFAULT '', done INTEGER);
    INSERT INTO notes VALUES ('n1', 'one', 0), ('n2', 'two', 0);";

fn devices(device: &Device<'_>, args: &[&str]) -> Outcome {
    device.run("devices", args)
}

fn listed(device: &Device<'_>) -> Vec<Value> {
    devices(device, &[]).expect(exit::DONE).all("device")
}

fn names(devices: &[Value]) -> Vec<&str> {
    let names = devices.iter().map(|device| &device["name"]);
    names.map(|name| name.as_str().expect("text")).collect()
}

fn id(device: &Device<'_>) -> String {
    let status = device.status();
    status["device"].as_str().expect("an id").to_owned()
}

#[test]
fn de6_a_person_sees_and_names_the_own_devices_only() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    let stranger = Device::hydrated(&scratch, &server, "stranger.db", "ben");
    let (at_laptop, at_phone) = (id(&laptop), id(&phone));

    devices(&laptop, &["rename", &at_laptop, "Laptop"]).expect(exit::DONE);
    let renamed = devices(&laptop, &["rename", &at_phone[..10], "Ana's phone"]);
    let renamed = renamed.expect(exit::DONE).one("device_renamed");
    assert_eq!(
        (&renamed["id"], &renamed["name"]),
        (&at_phone.clone().into(), &"Ana's phone".into())
    );
    let mut watching = laptop.watch();
    let mut list = Vec::new();
    wait_until("the laptop has everything", || {
        list = listed(&phone);
        list[0]["connected"] == true && list[0]["behind_ms"] == 0
    });
    assert_eq!(names(&list), ["Laptop", "Ana's phone"]);
    assert_eq!(
        (&list[0]["this"], &list[1]["this"]),
        (&false.into(), &true.into())
    );
    assert_eq!(list[1]["connected"], false);
    assert!(
        list[1]["platform"]
            .as_str()
            .is_some_and(|text| text.contains("syncline/"))
    );
    let said = phone.say("devices", &[]).expect(exit::DONE).stdout;
    assert!(
        said.contains("Laptop") && said.contains("connected, has everything"),
        "{said}"
    );
    assert!(
        said.contains("Ana's phone, this one") && said.contains("2 devices"),
        "{said}"
    );

    assert_eq!(listed(&stranger).len(), 1);
    for args in [
        &["rename", &at_phone, "mine"][..],
        &["rename", "0123456789abcdef0123456789abcdef", "mine"],
        &["remove", &at_phone],
        &["remove", ""],
    ] {
        devices(&stranger, args).expect(exit::NOT_FOUND);
    }
    devices(&laptop, &["rename", &at_phone, "\u{1b}[2J"]).expect(exit::USAGE);
    assert_eq!(names(&listed(&phone)), ["Laptop", "Ana's phone"]);
    assert_eq!(watching.terminate(), exit::DONE);

    let unknown = Device::new(&scratch, &server, "unknown.db", "ana");
    devices(&unknown, &[]).expect(exit::NOT_FOUND);
    scratch.database("unknown.db", NOTES);
    devices(&unknown, &[]).expect(exit::NOT_ATTACHED);
    drop(server);
    devices(&phone, &[]).expect(exit::UNREACHABLE);
}

#[test]
fn de4_de5_a_device_that_is_removed_while_it_watches_ends_and_can_come_back() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    let removed = id(&phone);
    let mut at_phone = phone.watch();
    let mut at_laptop = laptop.watch();

    devices(&laptop, &["remove", &removed])
        .expect(exit::DONE)
        .one("device_removed");
    let asked = Instant::now();
    assert_eq!(at_phone.wait(), exit::DEREGISTERED);
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    let error = at_phone.wait_for_type("error");
    assert_eq!(
        (&error["exit"], &error["code"]),
        (&27.into(), &"deregistered".into())
    );
    assert!(at_phone.stderr().contains("removed from its user's list"));
    assert_eq!(names(&listed(&laptop)).len(), 1);

    // It goes on working, sends nothing, and says how much waits.
    phone.sql("INSERT INTO notes VALUES ('n3', 'unsent', 0)");
    phone
        .run("sync", &[])
        .expect(exit::DEREGISTERED)
        .says(&["1 changeset that was not sent", "register"]);
    phone.run("sync", &["--watch"]).expect(exit::DEREGISTERED);
    let status = phone.status();
    assert_eq!(
        (&status["deregistered"], &status["waiting"]),
        (&true.into(), &1.into())
    );
    let doctor = phone.run("doctor", &[]).expect(exit::DEREGISTERED);
    assert_eq!(doctor.one("health")["health"], "invalid");
    let said = phone.say("status", &[]).expect(exit::DONE).stdout;
    assert!(
        said.contains("devices") && said.contains("register"),
        "{said}"
    );
    assert_eq!(phone.rows("SELECT count(*) FROM notes"), "3");
    devices(&laptop, &["rename", &removed, "ghost"]).expect(exit::NOT_FOUND);

    let anew = devices(&phone, &["register", "New phone"]).expect(exit::DONE);
    assert_eq!(anew.one("device_registered")["anew"], true);
    phone.sync();
    assert_ne!(id(&phone), removed);
    at_laptop.wait_for_type("rows_changed");
    assert_eq!(
        laptop.rows("SELECT title FROM notes WHERE id = 'n3'"),
        "unsent"
    );
    assert_eq!(names(&listed(&laptop)).len(), 2);
    assert!(names(&listed(&laptop)).contains(&"New phone"));
    assert_eq!(at_laptop.terminate(), exit::DONE);
    phone.verify();
}

#[test]
fn de4_a_device_that_was_removed_while_it_was_away_hears_of_it_when_it_is_back() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    devices(&laptop, &["remove", &id(&phone)]).expect(exit::DONE);
    assert_eq!(
        phone.status()["deregistered"],
        false,
        "it does not know yet"
    );
    phone.sql("UPDATE notes SET title = 'eins' WHERE id = 'n1'");
    phone.run("sync", &[]).expect(exit::DEREGISTERED);
    assert_eq!(phone.status()["deregistered"], true);
    drop(server);
    // It need not ask again.
    phone.run("sync", &[]).expect(exit::DEREGISTERED);
    assert_eq!(
        phone.rows("SELECT title FROM notes ORDER BY id"),
        "eins\ntwo"
    );
}

/// Whether `secret` is anywhere in the file or beside it.
fn holds(device: &Device<'_>, secret: &str) -> bool {
    ["", "-wal", "-journal"].iter().any(|suffix| {
        let path = format!("{}{suffix}", device.file.display());
        let bytes = std::fs::read(path).unwrap_or_default();
        let mut windows = bytes.windows(secret.len());
        windows.any(|part| part == secret.as_bytes())
    })
}

const SECRETS: &str = "
    CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT NOT NULL DEFAULT '', done INTEGER);
    INSERT INTO notes VALUES ('n1', 'marmalade-one', 0), ('n2', 'marmalade-two', 0);";

#[test]
fn de10_a_device_that_is_to_be_wiped_removes_what_it_synced_and_says_what_was_unsent() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", SECRETS);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    phone.sql(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE words (word TEXT);
         CREATE TRIGGER forget AFTER DELETE ON notes
           BEGIN DELETE FROM words WHERE word = old.title; END;
         INSERT INTO words SELECT title FROM notes;
         INSERT INTO words VALUES ('kept');",
    );
    phone.sync();
    phone.sql("INSERT INTO notes VALUES ('n3', 'marmalade-three', 0)");
    phone.sql("UPDATE notes SET done = 1 WHERE id = 'n1'");
    assert!(holds(&phone, "marmalade"));
    let removed = id(&phone);
    let said = devices(&laptop, &["remove", &removed[..12], "--wipe"]).expect(exit::DONE);
    assert_eq!(said.one("device_removed")["wipe"], true);

    let wiped = phone.run("sync", &[]).expect(exit::DEREGISTERED);
    let wiped = wiped.says(&["as the user asked"]).one("wiped");
    assert_eq!((&wiped["rows"], &wiped["unsent"]), (&3.into(), &1.into()));
    let unsent = wiped["unsent_rows"].to_string();
    assert!(
        unsent.contains("n3") && unsent.contains("n1") && !unsent.contains("n2"),
        "{unsent}"
    );
    assert!(!holds(&phone, "marmalade"), "nothing of it is in the file");
    assert_eq!(phone.rows("SELECT count(*) FROM notes"), "0");
    assert_eq!(phone.rows("SELECT word FROM words"), "kept");
    let status = phone.status();
    assert_eq!(
        (&status["deregistered"], &status["waiting"]),
        (&true.into(), &0.into())
    );
    let again = phone.run("sync", &[]).expect(exit::DEREGISTERED);
    assert!(
        again.says(&["as the user asked"]).all("wiped").is_empty(),
        "it is told once"
    );
    laptop.sync();
    assert_eq!(laptop.rows("SELECT count(*) FROM notes"), "2");

    // Somebody wants it back: a device that never was.
    devices(&phone, &["register", "Phone again"]).expect(exit::DONE);
    phone.sync();
    assert_ne!(id(&phone), removed);
    assert_eq!(
        phone.rows("SELECT title FROM notes ORDER BY id"),
        "marmalade-one\nmarmalade-two"
    );
    phone.sql("UPDATE notes SET title = 'jam' WHERE id = 'n2'");
    phone.sync();
    laptop.sync();
    assert_eq!(
        laptop.rows("SELECT title FROM notes WHERE id = 'n2'"),
        "jam"
    );
    phone.verify();
}

#[test]
fn de9_a_device_hears_that_it_is_to_be_wiped_while_it_watches_later_and_without_a_token() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", SECRETS);
    let watching = Device::hydrated(&scratch, &server, "watching.db", "ana");
    let mut at_watching = watching.watch();
    devices(&laptop, &["remove", &id(&watching), "--wipe"]).expect(exit::DONE);
    at_watching.wait_for_type("wiped");
    assert_eq!(at_watching.wait(), exit::DEREGISTERED);
    assert!(!holds(&watching, "marmalade"));

    // Removed first; the wish came to its user later.
    let later = Device::hydrated(&scratch, &server, "later.db", "ana");
    let removed = id(&later);
    devices(&laptop, &["remove", &removed]).expect(exit::DONE);
    later.run("sync", &[]).expect(exit::DEREGISTERED);
    assert!(holds(&later, "marmalade"));
    devices(&laptop, &["remove", &removed]).expect(exit::NOT_FOUND);
    devices(&laptop, &["remove", &removed, "--wipe"]).expect(exit::DONE);
    later
        .run("sync", &[])
        .expect(exit::DEREGISTERED)
        .one("wiped");
    assert!(!holds(&later, "marmalade"));

    // Whoever has it has no token for it any more.
    let lost = Device::hydrated(&scratch, &server, "lost.db", "ana");
    let stranger = Device::hydrated(&scratch, &server, "stranger.db", "ben");
    devices(&stranger, &["remove", &id(&lost), "--wipe"]).expect(exit::NOT_FOUND);
    let lost = Device {
        token: "no.good.token".to_owned(),
        ..lost
    };
    lost.run("sync", &[]).expect(exit::UNAUTHORIZED);
    assert!(holds(&lost, "marmalade"));
    devices(&laptop, &["remove", &id(&lost), "--wipe"]).expect(exit::DONE);
    lost.run("sync", &[])
        .expect(exit::DEREGISTERED)
        .one("wiped");
    assert!(!holds(&lost, "marmalade"));
}

#[test]
fn de10_what_another_program_kept_from_being_erased_is_with_the_next_run() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", SECRETS);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    phone.sql("PRAGMA journal_mode = WAL");
    phone.sync();
    devices(&laptop, &["remove", &id(&phone), "--wipe"]).expect(exit::DONE);
    // An app that shows its list.
    let app = crate::support::open(&phone.file);
    app.execute_batch("BEGIN; SELECT * FROM notes")
        .expect("it reads");
    phone.run("sync", &[]).expect(exit::LOCKED);
    assert!(holds(&phone, "marmalade"), "the app still sees it");
    app.execute_batch("COMMIT").expect("it has read");
    assert_eq!(phone.rows("SELECT count(*) FROM notes"), "0");
    phone.run("sync", &[]).expect(exit::DEREGISTERED);
    assert!(!holds(&phone, "marmalade"));
}
