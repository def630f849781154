//! A server's data as one file, and back.

use crate::support::{Device, Scratch, Server, exit, open, rows, sync_all};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, body TEXT);
    INSERT INTO notes VALUES ('a', 'one'), ('b', 'two');";

#[test]
fn a_running_server_is_backed_up_and_restored_under_live_devices() {
    let scratch = Scratch::new();
    let mut server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");

    // Taken while somebody writes.
    let watch = laptop.watch();
    for n in 0..50 {
        laptop.sql(&format!("INSERT INTO notes VALUES ('n{n}', 'x')"));
    }
    let made = scratch
        .run(&["backup", "copy.syncline", "--data", "data"])
        .expect(exit::DONE);
    assert_eq!(made.one("backup")["database"], "data/syncline.db");
    drop(watch);
    sync_all(&[&laptop, &phone]);
    let check = rows(&scratch.path("copy.syncline"), "PRAGMA integrity_check");
    assert_eq!(check, "ok");

    // What devices sent since then is not in the copy: they send it again.
    phone.sql("UPDATE notes SET body = 'later' WHERE id = 'a'");
    sync_all(&[&phone, &laptop]);
    let in_use = scratch.run(&["restore", "copy.syncline", "--data", "data", "--force"]);
    in_use.expect(exit::SERVER_DATA);
    server.terminate();
    let there = scratch.run(&["restore", "copy.syncline", "--data", "data"]);
    there.expect(exit::ALREADY_THERE);
    let restored = scratch
        .run(&["restore", "copy.syncline", "--data", "data", "--force"])
        .expect(exit::DONE);
    let kept = restored.one("restored")["kept"]
        .as_str()
        .expect("a name")
        .to_owned();
    assert!(scratch.path(&kept).exists(), "{kept} is there");
    let left = "SELECT count(*) FROM sqlite_schema WHERE name = 'syncline_backup'";
    assert_eq!(rows(&server.database(), left), "0");

    server.restart();
    sync_all(&[&phone, &laptop, &phone, &laptop]);
    for device in [&phone, &laptop] {
        assert_eq!(
            device.rows("SELECT body FROM notes WHERE id = 'a'"),
            "later"
        );
        assert_eq!(device.rows("SELECT count(*) FROM notes"), "52");
        device.verify();
    }
}

#[test]
fn a_backup_makes_a_server_elsewhere_that_takes_the_same_tokens() {
    let scratch = Scratch::new();
    let mut server = Server::dev(&scratch, "data");
    let mut laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    scratch
        .run(&["backup", "copy.syncline", "--data", "data"])
        .expect(exit::DONE);
    server.terminate();
    scratch
        .run(&["restore", "copy.syncline", "--data", "moved"])
        .expect(exit::DONE);
    let moved = Server::dev(&scratch, "moved");
    laptop.url.clone_from(&moved.url);
    laptop.sync();
    // The tables that devices had added came along.
    let phone = Device::hydrated(&scratch, &moved, "phone.db", "ana");
    assert_eq!(
        phone.rows("SELECT group_concat(body) FROM notes"),
        "one,two"
    );
}

#[test]
fn what_is_no_backup_is_refused_and_changes_nothing() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let _laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    scratch
        .run(&["backup", "copy.syncline", "--data", "data"])
        .expect(exit::DONE);

    let refused = |from: &str, code: i32| {
        let outcome = scratch.run(&["restore", from, "--data", "new"]);
        outcome.expect(code);
        assert!(!scratch.path("new/syncline.db").exists(), "{from}");
    };
    refused("absent", exit::NOT_FOUND);
    refused("laptop.db", exit::NOT_A_DATABASE);
    scratch.write(
        "text",
        "this is no database, whatever its name may say about it, not at all",
    );
    refused("text", exit::NOT_A_DATABASE);

    // A newer program's, and one whose pages were damaged.
    std::fs::copy(scratch.path("copy.syncline"), scratch.path("newer")).expect("copy");
    open(&scratch.path("newer"))
        .execute(
            "UPDATE syncline_server SET value = 999 WHERE name = 'format'",
            [],
        )
        .expect("raise the format");
    refused("newer", exit::NEWER_FORMAT);
    let mut bytes = std::fs::read(scratch.path("copy.syncline")).expect("read");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xA5);
    std::fs::write(scratch.path("damaged"), bytes).expect("write");
    refused("damaged", exit::CORRUPT);

    let again = scratch.run(&["backup", "copy.syncline", "--data", "data"]);
    again.expect(exit::ALREADY_THERE);
    let nowhere = scratch.run(&["backup", "other", "--data", "nowhere"]);
    nowhere.expect(exit::NOT_FOUND);
    std::fs::create_dir(scratch.path("plain")).expect("a folder");
    scratch.database("plain/syncline.db", "CREATE TABLE t(a)");
    let plain = scratch.run(&["backup", "other", "--data", "plain"]);
    plain.expect(exit::NOT_A_DATABASE);
}

#[test]
fn a_log_that_was_left_behind_is_never_taken_for_the_copys() {
    let scratch = Scratch::new();
    let mut server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    scratch
        .run(&["backup", "copy.syncline", "--data", "data"])
        .expect(exit::DONE);
    laptop.sql("UPDATE notes SET body = 'later'");
    laptop.sync();
    server.kill();
    assert!(
        scratch.path("data/syncline.db-wal").exists(),
        "it was killed"
    );
    std::fs::remove_file(server.database()).expect("remove the database alone");
    scratch
        .run(&["restore", "copy.syncline", "--data", "data"])
        .expect(exit::ALREADY_THERE);
    scratch
        .run(&["restore", "copy.syncline", "--data", "data", "--force"])
        .expect(exit::DONE);
    assert!(!scratch.path("data/syncline.db-wal").exists());
    let bodies = "SELECT group_concat(body) FROM notes";
    assert_eq!(rows(&server.database(), bodies), "one,two");
}

#[test]
fn a_restore_that_was_cut_leaves_no_empty_server_behind() {
    let scratch = Scratch::new();
    let mut server = Server::dev(&scratch, "data");
    let _laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", NOTES);
    scratch
        .run(&["backup", "copy.syncline", "--data", "data"])
        .expect(exit::DONE);
    server.terminate();
    // As a cut between moving the old file aside and placing the new one leaves it.
    std::fs::rename(server.database(), scratch.path("data/aside")).expect("move it aside");
    scratch.write("data/syncline.db-restoring", "half of it");
    scratch
        .run(&[
            "serve",
            "--dev",
            "--data",
            "data",
            "--listen",
            "127.0.0.1:0",
        ])
        .expect(exit::SERVER_DATA)
        .says(&["restore"]);
    assert!(!server.database().exists());
    scratch
        .run(&["restore", "copy.syncline", "--data", "data"])
        .expect(exit::DONE);
    assert!(!scratch.path("data/syncline.db-restoring").exists());
    assert_eq!(rows(&server.database(), "SELECT count(*) FROM notes"), "2");
}

#[test]
fn completions_name_the_commands() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = scratch.say(&["completions", shell]).expect(exit::DONE);
        for command in ["attach", "hydrate", "backup"] {
            assert!(script.stdout.contains(command), "{shell}: {command}");
        }
    }
}
