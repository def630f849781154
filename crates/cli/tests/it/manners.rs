//! What an app may expect of a program that works on its file.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{Device, Process, Scratch, Server, exit, open, rows, wait_until};

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, text TEXT);
                     INSERT INTO notes VALUES ('n1', 'one'), ('n2', 'two');";

/// Everything that an app may have set in its file.
fn settings(file: &Path) -> String {
    [
        "journal_mode",
        "page_size",
        "auto_vacuum",
        "encoding",
        "user_version",
        "application_id",
    ]
    .map(|name| rows(file, &format!("PRAGMA {name}")))
    .join(" ")
}

#[test]
fn ca13_the_settings_of_a_file_stay_as_they_are() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let cases = [
        ("wal", 4096, 0, "UTF-8"),
        ("delete", 512, 1, "UTF-16le"),
        ("persist", 65536, 2, "UTF-16be"),
        ("truncate", 1024, 0, "UTF-8"),
    ];
    for (i, (journal, page, vacuum, encoding)) in cases.into_iter().enumerate() {
        let file = format!("f{i}.db");
        let table = format!("notes{i}");
        let setup = format!(
            "PRAGMA encoding = '{encoding}'; PRAGMA page_size = {page}; PRAGMA auto_vacuum = {vacuum}; PRAGMA journal_mode = {journal};
             PRAGMA user_version = 7{i}; PRAGMA application_id = 4711; {}",
            NOTES.replace("notes", &table)
        );
        let device = Device::new(&scratch, &server, &file, "ana");
        // `persist` and `truncate` are a connection's own wishes: the file has `delete`.
        let conn = open(&device.file);
        for statement in setup.split_inclusive(';') {
            conn.prepare(statement)
                .and_then(|mut s| s.query([]).and_then(|mut rows| rows.next().map(drop)))
                .unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        drop(conn);
        let before = settings(&device.file);
        let schema =
            "SELECT type, name, tbl_name, rootpage > 0, sql FROM sqlite_schema ORDER BY rowid";
        let made = device.rows(schema);
        let same = |step: &str| assert_eq!(settings(&device.file), before, "{step} of {file}");
        device.run("attach", &["--yes"]).expect(exit::DONE);
        same("attach");
        device.sync();
        same("sync");
        device.sql(&format!("INSERT INTO {table} VALUES ('n3', 'ü 😀')"));
        let mut watch = device.watch();
        crate::support::sql(
            &server.database(),
            &format!("INSERT INTO {table} VALUES ('n4', 'é')"),
        );
        watch.terminate();
        same("watch");
        device.sync();
        device.verify();
        same("verify");
        device.run("detach", &[]).expect(exit::DONE);
        same("detach");
        assert_eq!(device.rows(schema), made);
        assert_eq!(device.rows("PRAGMA integrity_check"), "ok");
    }
}

/// What a file and its helpers look like from outside.
fn traces(file: &Path) -> Vec<Option<(u64, std::time::SystemTime)>> {
    ["", "-wal", "-journal"]
        .map(|suffix| {
            let mut name = file.as_os_str().to_owned();
            name.push(suffix);
            let found = std::fs::metadata(name).ok()?;
            Some((found.len(), found.modified().ok()?))
        })
        .to_vec()
}

#[test]
fn nothing_is_written_when_there_is_nothing_to_do() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    for (file, journal) in [("wal.db", "WAL"), ("delete.db", "DELETE")] {
        let table = file.replace('.', "_");
        let notes = NOTES.replace("notes", &table);
        let setup = format!("PRAGMA journal_mode = {journal}; {notes}");
        let laptop = Device::seeded(&scratch, &server, file, "ana", &setup);
        let mut watch = laptop.watch();
        // The app keeps its file open, as apps do; so the WAL stays.
        let app = open(&laptop.file);
        app.execute_batch(&format!(
            "UPDATE {table} SET text = 'three' WHERE id = 'n1'"
        ))
        .expect("an edit");
        let sent = format!("SELECT text FROM {table} WHERE id = 'n1'");
        wait_until("the edit to arrive", || {
            rows(&server.database(), &sent) == "three"
        });
        std::thread::sleep(Duration::from_secs(2));
        let version = || -> i64 {
            app.query_row("PRAGMA data_version", [], |row| row.get(0))
                .expect("a version")
        };
        let before = (traces(&laptop.file), version());
        std::thread::sleep(Duration::from_secs(6));
        assert_eq!((traces(&laptop.file), version()), before, "{journal}");
        assert_eq!(watch.terminate(), exit::DONE);
    }
}

#[test]
fn a_file_at_rest_is_opened_without_a_write_and_synced_without_a_change_of_its_schema() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    laptop.sync();
    let before = std::fs::read(&laptop.file).expect("the file");
    laptop.status();
    for command in ["queue", "conflicts", "doctor"] {
        laptop.run(command, &[]).expect(exit::DONE);
    }
    let after = std::fs::read(&laptop.file).expect("the file");
    assert!(before == after, "looking at the file wrote into it");
    // Every program would have to read the schema again, and prepare its statements.
    let version = || laptop.rows("PRAGMA schema_version");
    let before = version();
    laptop.sync();
    laptop.verify();
    assert_eq!(version(), before);
}

#[test]
fn a_file_that_the_app_holds_for_long_is_waited_for() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    let app = open(&laptop.file);
    app.execute_batch("BEGIN EXCLUSIVE; UPDATE notes SET text = 'held' WHERE id = 'n1'")
        .expect("an exclusive lock");
    let begun = Instant::now();
    let once = std::thread::scope(|scope| {
        let once = scope.spawn(|| laptop.run("sync", &[]));
        std::thread::sleep(Duration::from_secs(15));
        app.execute_batch("COMMIT").expect("a commit");
        once.join().expect("sync")
    });
    assert!(begun.elapsed() >= Duration::from_secs(15));
    let said = once.expect(exit::DONE);
    assert_eq!(said.one("disconnected")["code"], "locked");
    assert_eq!(
        rows(&server.database(), "SELECT text FROM notes WHERE id = 'n1'"),
        "held"
    );

    // One that runs for long goes on, and sends what was written meanwhile.
    let mut watch = laptop.watch();
    app.execute_batch("BEGIN EXCLUSIVE; UPDATE notes SET text = 'held again' WHERE id = 'n2'")
        .expect("an exclusive lock");
    crate::support::sql(
        &server.database(),
        "UPDATE notes SET text = 'from there' WHERE id = 'n1'",
    );
    std::thread::sleep(Duration::from_secs(15));
    app.execute_batch("COMMIT").expect("a commit");
    wait_until("what was held", || {
        rows(&server.database(), "SELECT text FROM notes WHERE id = 'n2'") == "held again"
    });
    wait_until("what came meanwhile", || {
        laptop.rows("SELECT text FROM notes WHERE id = 'n1'") == "from there"
    });
    assert_eq!(watch.terminate(), exit::DONE);
}

/// The peak of a process that follows a file of 20,000 rows, initial sync included.
#[cfg(target_os = "linux")]
#[test]
fn a_sidecar_is_small() {
    /// A debug build's code alone is several times a release build's, whose limit is 30 MB.
    const LIMIT_KB: u64 = if cfg!(debug_assertions) {
        60_000
    } else {
        30_000
    };
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                INSERT INTO notes SELECT 'x' || i, hex(randomblob(100)) FROM n;";
    let _laptop = Device::seeded(
        &scratch,
        &server,
        "laptop.db",
        "ana",
        &format!("{NOTES}{rows}"),
    );
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    phone.sql("UPDATE notes SET text = 'changed' WHERE id < 'x2'");
    let watch = phone.watch();
    phone.sql("UPDATE notes SET text = 'changed again' WHERE id > 'x5'");
    let done = "SELECT count(*) FROM notes WHERE text LIKE 'changed%'";
    let expected = phone.rows(done);
    wait_until("the changes", || {
        crate::support::rows(&server.database(), done) == expected
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", watch.id())).expect("Linux");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .expect("a number of kB");
    assert!(peak < LIMIT_KB, "{peak} kB");
}

#[test]
fn ac18_nothing_behind_a_path_is_logged() {
    use std::io::{Read as _, Write as _};

    let scratch = Scratch::new();
    let args = [
        "serve",
        "--dev",
        "--data",
        "data",
        "--listen",
        "127.0.0.1:0",
        "--json",
    ];
    let mut command = scratch.command(&args);
    let mut server = Process::start(command.env("SYNCLINE_LOG", "trace"));
    let listening = server.wait_for_type("listening");
    let url = listening["url"].as_str().expect("an address");
    let address = url.trim_start_matches("http://");
    for path in [
        "/v1/sync?ticket=canary-ticket",
        "/v1/history?key=canary-key",
    ] {
        let mut socket = std::net::TcpStream::connect(address).expect("it listens");
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer canary-token\r\nConnection: close\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    server.terminate();
    let log = server.stderr();
    assert!(log.contains("/v1/sync"), "requests are in it: {log}");
    assert!(!log.contains("canary"), "{log}");
}
