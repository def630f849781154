//! Attaching and detaching: what happens to a file, and what does not.

use crate::support::{Device, Scratch, Server, exit, rows};

const NOTES: &str = "
    CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT NOT NULL DEFAULT '', n INTEGER);
    CREATE INDEX by_title ON notes (title);
    CREATE VIEW long_ones AS SELECT * FROM notes WHERE length(title) > 3;
    CREATE TRIGGER app_trigger AFTER INSERT ON notes BEGIN UPDATE notes SET n = 1 WHERE id = new.id AND n IS NULL; END;
    INSERT INTO notes VALUES ('n1', 'one', 1), ('n2', 'two', 2), ('n3', 'three', 3);";

const SCHEMA: &str = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name, type";

#[test]
fn attaching_compares_first_and_changes_nothing_without_a_yes() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    scratch.database("laptop.db", NOTES);
    let before = std::fs::read(&laptop.file).expect("read the file");

    let asked = laptop
        .run("attach", &[])
        .expect(exit::DOUBT)
        .says(&["--yes", "send 3 rows"]);
    let table = asked.one("table");
    assert_eq!(
        (&table["only_here"], &table["equal"]),
        (&3.into(), &0.into())
    );
    assert_eq!(
        std::fs::read(&laptop.file).expect("read the file"),
        before,
        "not a byte changed"
    );
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'notes'";
    assert_eq!(rows(&server.database(), tables), "0", "nor on the server");
    assert!(!scratch.path("data/dev-tables.toml").exists());
    laptop
        .say("attach", &[])
        .expect(exit::DOUBT)
        .says(&["does not have notes"]);

    laptop.run("attach", &["--yes"]).expect(exit::DONE);
    assert_eq!(rows(&server.database(), tables), "1");
    laptop
        .run("attach", &["--yes"])
        .expect(exit::ALREADY_THERE)
        .says(&["attached already"]);
    laptop.sync();
    laptop.verify();
}

#[test]
fn rows_that_differ_are_a_doubt_that_yes_does_not_settle() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let _laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    let other = Device::new(&scratch, &server, "other.db", "ana");
    scratch.database("other.db", NOTES);
    other.sql("UPDATE notes SET title = 'another one' WHERE id = 'n1'; DELETE FROM notes WHERE id = 'n2'; INSERT INTO notes VALUES ('n9', 'nine', 9)");
    let before = std::fs::read(&other.file).expect("read the file");

    for args in [&[][..], &["--yes"]] {
        let doubt = other.run("attach", args).expect(exit::DOUBT).says(&[
            "1 row",
            "same key",
            "nothing was changed",
        ]);
        let table = doubt.one("table");
        for (name, count) in [
            ("equal", 1),
            ("only_here", 1),
            ("only_there", 1),
            ("different", 1),
        ] {
            assert_eq!(table[name], count, "{name}");
        }
    }
    other.run("sync", &[]).expect(exit::DOUBT);
    assert_eq!(
        std::fs::read(&other.file).expect("read the file"),
        before,
        "not a byte changed"
    );
    assert_eq!(
        rows(&server.database(), "SELECT title FROM notes ORDER BY id"),
        "one\ntwo\nthree"
    );

    // Without the doubtful row it goes: equal rows are not sent again, the others meet.
    other.sql("DELETE FROM notes WHERE id = 'n1'");
    other.run("attach", &["--yes"]).expect(exit::DONE);
    other.sync();
    assert_eq!(
        other.rows("SELECT id, title FROM notes ORDER BY id"),
        "n1|one\nn2|two\nn3|three\nn9|nine"
    );
    assert_eq!(other.verify(), 4);
}

#[test]
fn a_file_is_attached_without_a_server_and_synced_later() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let file = scratch.database("laptop.db", NOTES);
    let file = file.to_str().expect("a plain path");
    scratch
        .run(&["attach", file, "--yes"])
        .expect(exit::DONE)
        .one("attached");
    crate::support::sql(
        file.as_ref(),
        "UPDATE notes SET title = 'offline' WHERE id = 'n1'",
    );
    scratch
        .run(&["status", file])
        .expect(exit::DONE)
        .one("status");
    scratch
        .run(&["sync", file])
        .expect(exit::NO_SERVER)
        .says(&["--server"]);

    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    laptop.sync();
    assert_eq!(laptop.verify(), 3);
    assert_eq!(
        rows(
            &server.database(),
            "SELECT title FROM notes WHERE id = 'n1'"
        ),
        "offline"
    );
    // From now on server and token are remembered, outside the file.
    scratch.run(&["sync", file]).expect(exit::DONE);
    let bytes = std::fs::read(file).expect("read the file");
    assert!(
        !bytes
            .windows(20)
            .any(|part| part == &laptop.token.as_bytes()[..20]),
        "a token in the file"
    );
}

#[cfg(unix)]
#[test]
fn credentials_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    let folder = scratch.path("home").join("credentials");
    let mode = |path: &std::path::Path| {
        std::fs::metadata(path)
            .expect("a file")
            .permissions()
            .mode()
            & 0o777
    };
    let files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder")
        .map_while(Result::ok)
        .collect();
    assert_eq!(files.len(), 1);
    assert_eq!(mode(&files[0].path()), 0o600);
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&scratch.path("data").join("token-secret")), 0o600);
    let elsewhere = ["token", "--user", "ana", "--data", "elsewhere"];
    scratch
        .say(&elsewhere)
        .expect(exit::DONE)
        .says(&["made a new secret in elsewhere"]);
    let again = scratch.say(&elsewhere).expect(exit::DONE);
    assert_eq!(again.stderr, "", "it is there now");
    laptop.run("detach", &[]).expect(exit::DONE);
    assert_eq!(
        std::fs::read_dir(&folder).expect("the folder").count(),
        0,
        "forgotten"
    );
}

/// Somebody removed what looked like tables of another program, and left the triggers that write
/// to them: nothing can be written any more.
#[test]
fn detaching_takes_out_what_is_left_where_the_metadata_is_gone() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    scratch.database("laptop.db", NOTES);
    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    let before = laptop.rows(SCHEMA);
    laptop.run("attach", &["--yes"]).expect(exit::DONE);
    laptop.sync();
    let ours = "SELECT group_concat('DROP TABLE ' || name, ';') FROM sqlite_schema
                WHERE type = 'table' AND name LIKE 'syncline%'";
    laptop.sql(&laptop.rows(ours));
    laptop
        .run("attach", &["--yes"])
        .expect(exit::TABLE_UNFIT)
        .says(&["whose metadata is gone", "syncline detach"]);
    let detached = laptop.run("detach", &[]).expect(exit::DONE);
    assert!(detached.one("detached")["unsent"].is_null());
    assert_eq!(laptop.rows(SCHEMA), before);
    laptop.run("detach", &[]).expect(exit::NOT_ATTACHED);
    laptop.run("attach", &["--yes"]).expect(exit::DONE);
    laptop.sync();
}

#[test]
fn detaching_leaves_the_schema_byte_for_byte_and_the_rows() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    scratch.database("laptop.db", NOTES);
    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    let before = laptop.rows(SCHEMA);
    laptop.run("attach", &["--yes"]).expect(exit::DONE);
    laptop.sync();
    laptop.sql("UPDATE notes SET title = 'not sent yet' WHERE id = 'n1'");

    let detached = laptop.run("detach", &[]).expect(exit::DONE).one("detached");
    assert_eq!(detached["unsent"], 1);
    assert_eq!(laptop.rows(SCHEMA), before);
    assert_eq!(
        laptop.rows("SELECT title FROM notes ORDER BY id"),
        "not sent yet\ntwo\nthree"
    );
    laptop.run("status", &[]).expect(exit::NOT_ATTACHED);
    laptop.run("detach", &[]).expect(exit::NOT_ATTACHED);

    // The edit that was not sent is a difference now, for a person to settle.
    laptop.run("attach", &["--yes"]).expect(exit::DOUBT);
}

#[test]
fn hydrating_makes_tables_indexes_and_rows_and_refuses_a_file_that_is_there() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let _laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    assert_eq!(
        phone.rows("SELECT * FROM notes ORDER BY id"),
        "n1|one|1\nn2|two|2\nn3|three|3"
    );
    assert_eq!(
        phone
            .rows("SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND sql LIKE '%title%'"),
        "1"
    );
    // A run that was cut at its very start left an empty file.
    scratch.write("cut.db", "");
    Device::hydrated(&scratch, &server, "cut.db", "ana").verify();
    // Once more is a sync; a file that is not ours is left alone.
    phone.run("hydrate", &[]).expect(exit::DONE);
    let other = Device::new(&scratch, &server, "other.db", "ana");
    scratch.database("other.db", "CREATE TABLE mine (id INTEGER PRIMARY KEY)");
    other
        .run("hydrate", &[])
        .expect(exit::ALREADY_THERE)
        .says(&["other.db"]);
}

#[test]
fn two_hundred_tables_in_one_file() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let mut setup = String::from("BEGIN;");
    for n in 0..200 {
        setup += &format!(
            "CREATE TABLE t{n:03} (id TEXT PRIMARY KEY NOT NULL, a TEXT, b INTEGER); INSERT INTO t{n:03} VALUES ('r', 'of table {n}', {n}), ('s', NULL, NULL);"
        );
    }
    setup += "COMMIT";
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", &setup);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    assert_eq!(
        phone.rows("SELECT a FROM t199 WHERE id = 'r'"),
        "of table 199"
    );
    let status = phone.status();
    assert_eq!(status["tables"].as_array().map(Vec::len), Some(200));
    phone.sql("UPDATE t000 SET b = 7; UPDATE t100 SET b = 7; DELETE FROM t150");
    phone.sync();
    laptop.sync();
    assert_eq!(laptop.rows("SELECT sum(b) FROM t000"), "14");
    assert_eq!(laptop.verify(), 398);
}

#[test]
fn verify_finds_a_row_that_was_changed_behind_our_back_and_mends_it() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    // As a flipped bit would: no trigger sees it.
    let conn = crate::support::open(&laptop.file);
    conn.set_db_config(
        rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER,
        false,
    )
    .expect("switch triggers off");
    conn.execute_batch("UPDATE notes SET title = 'flipped' WHERE id = 'n2'")
        .expect("an update");
    drop(conn);

    let found = laptop.run("verify", &[]).expect(exit::DIFFERS);
    assert_eq!(found.one("verified")["equal"], false);
    assert_eq!(found.one("local")["key"], "n2");
    assert_eq!(found.one("table")["different"], 1);
    laptop.run("verify", &["--repair"]).expect(exit::DONE);
    assert_eq!(
        laptop.rows("SELECT title FROM notes WHERE id = 'n2'"),
        "two"
    );
    assert_eq!(laptop.verify(), 3);
}
