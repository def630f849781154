//! A disk that is full, one that fails, and a server that says no: each with its own exit code.

use std::io::Write as _;

use crate::support::{Device, Outcome, Scratch, Server, exit, rows, server_that_refuses};

const NOTES: &str = "
    CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL DEFAULT '');
    INSERT INTO notes VALUES ('n1', 'one'), ('n2', 'two');";

fn with_unsent_edit<'a>(scratch: &'a Scratch, server: &Server<'_>) -> Device<'a> {
    let laptop = Device::seeded(scratch, server, "laptop.db", "ana", NOTES);
    laptop.sql("UPDATE notes SET title = 'not sent yet' WHERE id = 'n1'");
    laptop
}

#[track_caller]
fn lost_nothing(laptop: &Device<'_>, server: &Server<'_>) {
    let titles = "SELECT title FROM notes ORDER BY id";
    assert_eq!(laptop.rows(titles), "not sent yet\ntwo");
    laptop.sync();
    assert_eq!(rows(&server.database(), titles), "not sent yet\ntwo");
    assert_eq!(laptop.verify(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = with_unsent_edit(&scratch, &server);
    // What SQLite writes before it changes the file goes to a device that is always full.
    let journal = scratch.path("laptop.db-journal");
    let made = std::process::Command::new("mknod")
        .arg(&journal)
        .args(["c", "1", "7"])
        .status();
    let is_full = |path: &std::path::Path| {
        let file = std::fs::OpenOptions::new().write(true).open(path);
        let written = file.and_then(|mut file| file.write(b"x"));
        written.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
    };
    if !made.is_ok_and(|status| status.success()) || !is_full(&journal) {
        eprintln!("only root can make such a device: not tried");
        return;
    }
    laptop
        .run("sync", &[])
        .expect(exit::DISK_FULL)
        .says(&["laptop.db", "full", "free some space"]);
    let _gone_already = std::fs::remove_file(&journal);
    lost_nothing(&laptop, &server);
}

#[cfg(unix)]
#[test]
fn a_disk_that_fails_in_a_way_nobody_foresaw() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = with_unsent_edit(&scratch, &server);
    // Every write to a file fails, but not for want of space.
    let plain = laptop.command("sync", &[]);
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", r#"trap "" XFSZ; ulimit -f 0; exec "$@""#, "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(scratch.path(""))
        .stdin(std::process::Stdio::null());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    Outcome::of(&mut limited)
        .expect(exit::UNEXPECTED)
        .says(&["laptop.db", "disk I/O error"]);
    lost_nothing(&laptop, &server);
}

#[test]
fn a_server_that_refuses_for_a_reason_of_its_own() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = with_unsent_edit(&scratch, &server);
    let sentence = "this account is closed until the bill is paid";
    let closed = Device {
        url: server_that_refuses("account_closed", sentence),
        ..laptop.clone()
    };
    for command in ["sync", "seed", "verify"] {
        let refused = closed
            .run(command, &[])
            .expect(exit::REFUSED)
            .says(&["the server refused", sentence]);
        let error = refused.one("error");
        assert_eq!(error["code"], "account_closed");
        assert_eq!(error["exit"], exit::REFUSED);
    }
    lost_nothing(&laptop, &server);
}
