//! `sync --watch`: what any program writes into one file is in the others a moment later.

use std::process::Command;

use crate::support::{Device, Scratch, Server, exit, rows, sql, wait_until};

const NOTES: &str = "
    CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT NOT NULL DEFAULT '', done INTEGER);
    INSERT INTO notes VALUES ('n1', 'one', 0), ('n2', 'two', 0);";

/// Runs SQL by a program that is not ours: the `sqlite3` shell or Python, whichever is there.
fn by_another_program(file: &std::path::Path, statement: &str) {
    let python = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=20); c.execute(sys.argv[2]); c.commit()";
    let shell = Command::new("sqlite3")
        .arg("-cmd")
        .arg(".timeout 20000")
        .arg(file)
        .arg(statement)
        .output();
    if shell.is_ok_and(|output| output.status.success()) {
        return;
    }
    let by_python = Command::new("python3")
        .args(["-c", python])
        .arg(file)
        .arg(statement)
        .output();
    if !by_python.is_ok_and(|output| output.status.success()) {
        // Neither is installed: at least another connection.
        sql(file, statement);
    }
}

#[test]
fn a_write_of_another_program_reaches_the_other_device_both_ways() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    let mut at_laptop = laptop.watch();
    let mut at_phone = phone.watch();

    by_another_program(&laptop.file, "INSERT INTO notes VALUES ('n3', 'three', 1)");
    let event = at_phone.wait_for_type("rows_changed");
    assert_eq!(event["table"], "notes");
    assert_eq!(
        phone.rows("SELECT title, done FROM notes WHERE id = 'n3'"),
        "three|1"
    );

    by_another_program(
        &phone.file,
        "UPDATE notes SET title = 'drei' WHERE id = 'n3'",
    );
    wait_until("the phone's edit on the laptop", || {
        laptop.rows("SELECT title FROM notes WHERE id = 'n3'") == "drei"
    });
    by_another_program(&phone.file, "DELETE FROM notes WHERE id = 'n1'");
    wait_until("the phone's delete on the laptop", || {
        laptop.rows("SELECT group_concat(id) FROM (SELECT id FROM notes ORDER BY id)") == "n2,n3"
    });

    assert_eq!(at_laptop.terminate(), exit::DONE);
    assert_eq!(at_phone.terminate(), exit::DONE);
    at_laptop.wait_for_type("done");
    laptop.verify();
    phone.verify();
}

#[test]
fn a_write_into_the_servers_file_reaches_the_devices_and_merges() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    let mut watching = laptop.watch();

    sql(
        &server.database(),
        "UPDATE notes SET title = 'by the server''s admin' WHERE id = 'n1'",
    );
    let event = watching.wait_for_type("rows_changed");
    assert_eq!(event["table"], "notes");
    assert_eq!(
        laptop.rows("SELECT title FROM notes WHERE id = 'n1'"),
        "by the server's admin"
    );
    sql(&server.database(), "DELETE FROM notes WHERE id = 'n2'");
    wait_until("the delete", || {
        laptop.rows("SELECT count(*) FROM notes") == "1"
    });

    laptop.sql("UPDATE notes SET done = 1 WHERE id = 'n1'");
    wait_until("the laptop's edit in the server's file", || {
        rows(
            &server.database(),
            "SELECT title, done FROM notes WHERE id = 'n1'",
        ) == "by the server's admin|1"
    });
    assert_eq!(watching.terminate(), exit::DONE);
    laptop.verify();
}

#[test]
fn watching_survives_an_outage_of_the_server() {
    let scratch = Scratch::new();
    let mut server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    let mut at_laptop = laptop.watch();
    let mut at_phone = phone.watch();

    server.kill();
    laptop.sql("INSERT INTO notes VALUES ('n3', 'written in the dark', 1)");
    phone.sql("INSERT INTO notes VALUES ('n4', 'there too', 1)");
    server.restart();

    at_phone.wait_for_type("live");
    at_laptop.wait_for_type("live");
    for device in [&laptop, &phone] {
        wait_until("both rows everywhere", || {
            device.rows("SELECT count(*) FROM notes") == "4"
        });
    }
    assert_eq!(at_laptop.terminate(), exit::DONE);
    assert_eq!(at_phone.terminate(), exit::DONE);
    assert_eq!(laptop.verify(), 4);
    assert_eq!(phone.verify(), 4);
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let setup = "CREATE TABLE accounts (id TEXT PRIMARY KEY, money INTEGER NOT NULL);
                 INSERT INTO accounts VALUES ('a', 500), ('b', 500);";
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", setup);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    let _at_laptop = laptop.watch();
    let _at_phone = phone.watch();

    for _ in 0..30 {
        laptop.sql(
            "BEGIN IMMEDIATE; UPDATE accounts SET money = money - 10 WHERE id = 'a';
             UPDATE accounts SET money = money + 10 WHERE id = 'b'; COMMIT",
        );
        assert_eq!(phone.rows("SELECT sum(money) FROM accounts"), "1000");
    }
    wait_until("the last transfer", || {
        assert_eq!(phone.rows("SELECT sum(money) FROM accounts"), "1000");
        phone.rows("SELECT money FROM accounts WHERE id = 'a'") == "200"
    });
}
