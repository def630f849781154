//! A laptop and a phone of one person, an outage, and what becomes of their edits.

use serde_json::json;

use crate::support::{Device, Scratch, Server, exit, sync_all};

const MOVIES: &str = "
    CREATE TABLE movies (id TEXT PRIMARY KEY, title TEXT NOT NULL, rating REAL, votes INTEGER, tags TEXT);
    INSERT INTO movies VALUES ('m1', 'The Land Girls', 6.1, 1071, '[]'), ('m2', 'First Love', 6.9, 207, '[]'),
                              ('m3', 'Slam', 3.4, 165, '[]');";

const CONFIG: &str = r#"
[tables.movies]
columns = { id = "text primary key", title = "text not null", rating = "real", votes = "integer", tags = "json" }
read  = "_owner = auth.uid()"
write = "_owner = auth.uid()"
merge = { votes = "counter", tags = "set", rating = "manual" }
"#;

#[test]
fn different_columns_of_one_row_are_both_kept() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", MOVIES);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    assert_eq!(phone.rows("SELECT count(*) FROM movies"), "3");

    laptop.sql("UPDATE movies SET title = 'The Land Girls!' WHERE id = 'm1'");
    phone.sql("UPDATE movies SET rating = 9.5 WHERE id = 'm1'");
    sync_all(&[&laptop, &phone]);

    for device in [&laptop, &phone] {
        let row = device.rows("SELECT title, rating FROM movies WHERE id = 'm1'");
        assert_eq!(row, "The Land Girls!|9.5");
        assert_eq!(device.verify(), 3);
    }
}

#[test]
fn the_later_edit_of_one_column_wins_and_the_other_person_hears_of_it() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", MOVIES);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");

    laptop.sql("UPDATE movies SET title = 'earlier' WHERE id = 'm1'");
    // Sealing gives an edit its time: `status` looks at the file without a server.
    assert_eq!(laptop.status()["waiting"], 1);
    phone.sql("UPDATE movies SET title = 'later' WHERE id = 'm1'");
    phone.sync();
    let lost = laptop.sync();

    assert_eq!(lost.one("edit_lost")["column"], "title");
    assert_eq!(lost.one("done")["edits_lost"], 1);
    phone.sync();
    for device in [&laptop, &phone] {
        assert_eq!(
            device.rows("SELECT title FROM movies WHERE id = 'm1'"),
            "later"
        );
        device.verify();
    }
}

#[test]
fn counters_add_up_and_sets_unite() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", MOVIES);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");

    laptop.sql(r#"UPDATE movies SET votes = votes + 10, tags = '["war"]' WHERE id = 'm1'"#);
    phone.sql(r#"UPDATE movies SET votes = votes + 1, tags = '["love"]' WHERE id = 'm1'"#);
    sync_all(&[&laptop, &phone]);

    for device in [&laptop, &phone] {
        let row = device.rows("SELECT votes, tags FROM movies WHERE id = 'm1'");
        let (votes, tags) = row.split_once('|').expect("two columns");
        assert_eq!(votes, "1082");
        let mut tags: Vec<String> = serde_json::from_str(tags).expect("a JSON array");
        tags.sort();
        assert_eq!(tags, ["love", "war"]);
        device.verify();
    }
}

#[test]
fn deleted_here_and_edited_there_ends_the_same_on_both() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", MOVIES);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");

    laptop.sql("DELETE FROM movies WHERE id = 'm2'");
    phone.sql("UPDATE movies SET rating = 1 WHERE id = 'm2'; INSERT INTO movies VALUES ('m4', 'New', 1, 1, '[]')");
    sync_all(&[&laptop, &phone]);

    for device in [&laptop, &phone] {
        assert_eq!(
            device.rows("SELECT id FROM movies ORDER BY id"),
            "m1\nm3\nm4"
        );
        assert_eq!(device.verify(), 3);
    }
}

/// Two edits of a manual column; the phone's is second, so its author has to decide.
fn contested<'a>(scratch: &'a Scratch, server: &Server<'_>) -> (Device<'a>, Device<'a>, String) {
    let laptop = Device::seeded(scratch, server, "laptop.db", "ana", MOVIES);
    let phone = Device::hydrated(scratch, server, "phone.db", "ana");
    laptop.sql("UPDATE movies SET rating = 2 WHERE id = 'm1'");
    phone.sql("UPDATE movies SET rating = 8 WHERE id = 'm1'");
    laptop.sync();
    let opened = phone.sync();
    let id = opened.one("conflict_opened")["id"].clone();
    let id = id.as_str().expect("an id").to_owned();
    assert_eq!(opened.one("done")["conflicts"], 1);
    assert_eq!(
        phone.rows("SELECT rating FROM movies WHERE id = 'm1'"),
        "2",
        "the server's value stays"
    );
    (laptop, phone, id)
}

#[test]
fn a_manual_column_waits_in_the_inbox_with_base_mine_and_theirs() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let (_laptop, phone, id) = contested(&scratch, &server);

    let listed = phone
        .run("conflicts", &["list"])
        .expect(exit::DONE)
        .one("conflict");
    let shown = phone
        .run("conflicts", &["show", &id])
        .expect(exit::DONE)
        .one("conflict");
    assert_eq!(listed, shown);
    assert_eq!(listed["table"], "movies");
    assert_eq!(listed["key"], json!(["m1"]));
    assert_eq!(listed["column"], "rating");
    assert_eq!(
        (&listed["base"], &listed["mine"], &listed["theirs"]),
        (&json!(6.1), &json!(8.0), &json!(2.0))
    );
    assert_eq!(phone.status()["conflicts"], 1);

    let said = phone.say("conflicts", &["show", &id]).expect(exit::DONE);
    for part in [
        "movies m1.rating",
        "base",
        "6.1",
        "mine",
        "8.0",
        "theirs",
        "2.0",
    ] {
        assert!(said.stdout.contains(part), "no {part} in {}", said.stdout);
    }
    phone
        .run("conflicts", &["show", "ffff"])
        .expect(exit::NOT_FOUND)
        .says(&["no conflict ffff"]);
    phone
        .run("conflicts", &["resolve", &id])
        .expect(exit::USAGE);
    phone
        .run("conflicts", &["resolve", &id, "--value", "not JSON"])
        .expect(exit::USAGE)
        .says(&["quotes"]);
    assert_eq!(phone.status()["conflicts"], 1, "nothing was decided");
}

/// Decides on the phone with `decision`; the rating that both end up with.
fn decided(decision: &[&str]) -> String {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let (laptop, phone, id) = contested(&scratch, &server);
    let mut args = vec!["resolve", &id];
    args.extend(decision);
    phone
        .run("conflicts", &args)
        .expect(exit::DONE)
        .one("resolved");
    sync_all(&[&phone, &laptop]);
    assert_eq!(phone.status()["conflicts"], 0);
    assert_eq!(laptop.status()["conflicts"], 0);
    let listed = phone.run("conflicts", &["list"]).expect(exit::DONE);
    assert_eq!(listed.all("conflict").len(), 0);
    let listed = phone
        .run("conflicts", &["list", "--all"])
        .expect(exit::DONE);
    assert_eq!(listed.one("conflict")["open"], false);
    phone.verify();
    laptop.verify();
    let there = laptop.rows("SELECT rating FROM movies WHERE id = 'm1'");
    assert_eq!(
        there,
        phone.rows("SELECT rating FROM movies WHERE id = 'm1'")
    );
    there
}

#[test]
fn a_conflict_is_decided_for_mine() {
    assert_eq!(decided(&["--mine"]), "8");
}

#[test]
fn a_conflict_is_decided_for_theirs() {
    assert_eq!(decided(&["--theirs"]), "2");
}

#[test]
fn a_conflict_is_decided_for_a_third_value() {
    assert_eq!(decided(&["--value", "5.5"]), "5.5");
}

#[test]
fn lb8_a_dry_run_counts_both_ways_and_changes_nothing() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let file = scratch.database("laptop.db", MOVIES);
    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    let phone = Device::new(&scratch, &server, "phone.db", "ana");
    let rows = |created: u64, updated: u64, deleted: u64| json!({ "created": created, "updated": updated, "deleted": deleted });
    let would = |device: &Device<'_>, command: &str| {
        let said = device.run(command, &["--dry-run"]).expect(exit::DONE);
        let said = said.one("dry_run");
        assert_eq!(said["operation"], command);
        (said["sent"].clone(), said["received"].clone())
    };
    let nothing = rows(0, 0, 0);

    // Before the file is attached, and before the server has the table.
    let before = std::fs::read(&file).unwrap();
    assert_eq!(would(&laptop, "sync"), (rows(3, 0, 0), nothing.clone()));
    assert_eq!(std::fs::read(&file).unwrap(), before);
    laptop.run("seed", &[]).expect(exit::DONE);

    // Before there is a file.
    assert_eq!(would(&phone, "hydrate"), (nothing.clone(), rows(3, 0, 0)));
    assert!(!scratch.path("phone.db").exists());
    phone.run("hydrate", &[]).expect(exit::DONE);

    phone.sql(
        "UPDATE movies SET title = 'new' WHERE id = 'm1'; DELETE FROM movies WHERE id = 'm2';
         INSERT INTO movies(id, title) VALUES ('m4', 'four'), ('m5', 'five')",
    );
    assert_eq!(would(&phone, "seed"), (rows(2, 1, 1), nothing.clone()));
    assert_eq!(would(&phone, "sync"), (rows(2, 1, 1), nothing.clone()));
    assert_eq!(phone.status()["waiting"], 1);
    phone.sync();
    assert_eq!(would(&laptop, "sync"), (nothing, rows(2, 1, 1)));
    let said = laptop.say("sync", &["--dry-run"]).expect(exit::DONE).stdout;
    assert!(
        said.contains("receive 4 rows (2 new, 1 changed, 1 deleted)"),
        "{said}"
    );
    assert_eq!(
        laptop.rows("SELECT title FROM movies WHERE id = 'm2'"),
        "First Love"
    );
}
