//! `kill -9`, of either side, at any moment: the next run goes on from there, and nothing is lost.

use std::time::Duration;

use crate::support::{Device, Process, Scratch, Server, exit, rows, wait_until};

/// Enough rows that a seed or a hydrate takes a while.
const ROWS: u64 = 6_000;

fn many_rows() -> String {
    format!(
        "CREATE TABLE readings (id TEXT PRIMARY KEY NOT NULL, place TEXT NOT NULL, value REAL, note TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO readings SELECT printf('r%06d', i), 'place ' || (i % 17), i / 8.0, 'a note about reading ' || i FROM n;"
    )
}

fn attached<'a>(scratch: &'a Scratch, server: &Server<'_>) -> Device<'a> {
    let laptop = Device::new(scratch, server, "laptop.db", "ana");
    scratch.database("laptop.db", &many_rows());
    laptop.run("attach", &["--yes"]).expect(exit::DONE);
    laptop
}

fn rows_there(server: &Server<'_>) -> u64 {
    let count = rows(&server.database(), "SELECT count(*) FROM readings");
    count.parse().expect("a number")
}

#[test]
fn a_seed_that_was_killed_goes_on() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = attached(&scratch, &server);

    let mut kills = 0;
    for part in [1, 2] {
        let mut seeding = laptop.start("seed", &[]);
        wait_until("some of the rows on the server", || {
            rows_there(&server) >= part * ROWS / 4
        });
        kills += u64::from(rows_there(&server) < ROWS);
        seeding.kill();
    }
    assert!(kills > 0, "the seed was too fast to be killed");
    let before = rows_there(&server);
    let sent = laptop.run("seed", &[]).expect(exit::DONE).one("done");
    assert_eq!(rows_there(&server), ROWS);
    // What had arrived is not sent again, but for the few changesets without an answer.
    let whole = 60 * ROWS;
    let bytes = sent["bytes_sent"].as_u64().expect("a number");
    assert!(
        bytes < whole * (ROWS - before) / ROWS + whole / 4,
        "{bytes} bytes for {} rows",
        ROWS - before
    );
    assert_eq!(laptop.verify(), ROWS);
}

#[test]
fn a_hydrate_that_was_killed_goes_on() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = attached(&scratch, &server);
    laptop.run("seed", &[]).expect(exit::DONE);
    let phone = Device::new(&scratch, &server, "phone.db", "ana");

    let loaded = |process: &mut Process| {
        let line = process.wait_for("half of the rows", |line| {
            line["type"] == "loading" && line["done"].as_u64() >= Some(ROWS / 3)
        });
        line["done"].as_u64().expect("a number")
    };
    let mut hydrating = phone.start("hydrate", &[]);
    let done = loaded(&mut hydrating);
    hydrating.kill();
    assert!(done < ROWS, "the hydrate was too fast to be killed");
    // The app may write meanwhile.
    phone.sql("UPDATE readings SET note = 'seen early' WHERE id = 'r000001'");

    let again = phone.run("hydrate", &[]).expect(exit::DONE);
    let first = again.all("loading")[0]["done"].as_u64().expect("a number");
    assert!(first > ROWS / 3, "it began from zero: {first}");
    let received = again.one("done")["rows_received"]
        .as_u64()
        .expect("a number");
    assert!(received < ROWS - ROWS / 4, "{received} rows came again");
    assert_eq!(phone.verify(), ROWS);
    laptop.sync();
    assert_eq!(
        laptop.rows("SELECT note FROM readings WHERE id = 'r000001'"),
        "seen early"
    );
}

#[test]
fn a_sync_that_was_killed_again_and_again_loses_and_doubles_nothing() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let setup = "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, line TEXT NOT NULL);
                 CREATE TABLE counters (id TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL);
                 INSERT INTO counters VALUES ('c', 0);";
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", setup);
    let mut written = 0;
    for round in 0..12_u64 {
        let mut syncing = laptop.start("sync", &["--watch"]);
        for _ in 0..20 {
            laptop.sql("BEGIN IMMEDIATE; INSERT INTO log (line) VALUES ('x'); UPDATE counters SET n = n + 1; COMMIT");
            written += 1;
        }
        // At another moment each time: before, while and after it connects and pushes.
        std::thread::sleep(Duration::from_millis(round * 17));
        syncing.kill();
    }
    laptop.sync();
    let there = rows(
        &server.database(),
        "SELECT (SELECT count(*) FROM log), n FROM counters",
    );
    assert_eq!(there, format!("{written}|{written}"));
    assert_eq!(laptop.verify(), written + 1);
}

#[test]
fn a_server_that_was_killed_has_all_that_it_acknowledged() {
    let scratch = Scratch::new();
    let mut server = Server::dev(&scratch, "data");
    let laptop = attached(&scratch, &server);
    for part in [1, 2] {
        let mut seeding = laptop.start("sync", &["--watch"]);
        wait_until("some of the rows on the server", || {
            rows_there(&server) >= part * ROWS / 4
        });
        server.kill();
        let acknowledged = laptop.status()["accepted"].clone();
        server.restart();
        seeding.kill();
        assert!(acknowledged.is_u64());
    }
    laptop.sync();
    assert_eq!(rows_there(&server), ROWS);
    assert_eq!(laptop.verify(), ROWS);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    assert_eq!(phone.verify(), ROWS);
}

#[test]
fn ctrl_c_ends_a_sync_with_its_own_code_and_a_word() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = attached(&scratch, &server);
    // So many that it is far from its end when it is told to stop.
    let more = 4 * ROWS;
    laptop.sql(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {more})
         INSERT INTO readings SELECT 'more' || i, 'here', i, 'a note' FROM n"
    ));
    let mut seeding = laptop.start("seed", &[]);
    wait_until("some of the rows on the server", || rows_there(&server) > 0);
    assert_eq!(seeding.terminate(), 130);
    let said = seeding.stderr();
    assert!(
        said.contains("interrupted; the next run goes on from here"),
        "{said}"
    );
    laptop.sync();
    assert_eq!(laptop.verify(), ROWS + more);
}

#[test]
fn a_polite_end_of_the_server_keeps_what_it_took() {
    let scratch = Scratch::new();
    let mut server = Server::dev(&scratch, "data");
    let laptop = attached(&scratch, &server);
    laptop.run("seed", &[]).expect(exit::DONE);
    let _watching = laptop.watch();
    assert_eq!(server.terminate(), exit::DONE);
    server.restart();
    assert_eq!(rows_there(&server), ROWS);
}
