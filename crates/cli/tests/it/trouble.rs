//! Everything that goes wrong has a sentence with what to do, an exit code of its own, and loses
//! nothing.

use std::path::Path;

use rusqlite::Connection;

use crate::support::{Device, Scratch, Server, exit, rows, server_of_protocol, web_site};

const NOTES: &str = "
    CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL DEFAULT '');
    INSERT INTO notes VALUES ('n1', 'one'), ('n2', 'two');";

/// A device that was in step and has one edit that was not sent.
fn with_unsent_edit<'a>(scratch: &'a Scratch, server: &Server<'_>) -> Device<'a> {
    let laptop = Device::seeded(scratch, server, "laptop.db", "ana", NOTES);
    laptop.sql("UPDATE notes SET title = 'not sent yet' WHERE id = 'n1'");
    laptop
}

/// The edit is still there, and goes through as soon as the trouble is over.
#[track_caller]
fn lost_nothing(laptop: &Device<'_>, server: &Server<'_>) {
    assert_eq!(
        laptop.rows("SELECT title FROM notes ORDER BY id"),
        "not sent yet\ntwo"
    );
    assert_eq!(laptop.status()["waiting"], 1);
    let good = Device {
        url: server.url.clone(),
        token: server.token("ana"),
        ..laptop.clone()
    };
    good.sync();
    assert_eq!(
        rows(&server.database(), "SELECT title FROM notes ORDER BY id"),
        "not sent yet\ntwo"
    );
    assert_eq!(good.verify(), 2);
}

/// A token for `ana` of this server that was good for a minute, an hour ago.
fn expired(scratch: &Scratch) -> String {
    let secret = std::fs::read(scratch.path("data").join("token-secret")).expect("the secret");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    let claims = serde_json::json!({ "sub": "ana", "iat": now - 3_660, "exp": now - 3_600 });
    let key = jsonwebtoken::EncodingKey::from_secret(&secret);
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
}

#[test]
fn a_wrong_or_expired_or_missing_token() {
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let other = Server::dev(&scratch, "other");
    let laptop = with_unsent_edit(&scratch, &server);

    let with = |token: &str| Device {
        token: token.to_owned(),
        ..laptop.clone()
    };
    let cases = [
        ("nonsense".to_owned(), "cannot be read"),
        (other.token("ana"), "not signed by this server"),
        (expired(&scratch), "expired"),
    ];
    for (token, says) in cases {
        for command in ["sync", "seed", "verify"] {
            with(&token)
                .run(command, &[])
                .expect(exit::UNAUTHORIZED)
                .says(&[says, "syncline token --user"]);
        }
        with(&token)
            .run("sync", &["--watch"])
            .expect(exit::UNAUTHORIZED);
        let phone = Device {
            file: scratch.path("phone.db"),
            ..with(&token)
        };
        phone.run("hydrate", &[]).expect(exit::UNAUTHORIZED);
        assert!(!phone.file.exists(), "nothing is left behind");
    }
    // A bad token never replaces the good one that is remembered.
    let file = laptop.file.to_str().expect("a plain path");
    scratch.run(&["sync", file]).expect(exit::DONE);
    laptop.sql("UPDATE notes SET title = 'three' WHERE id = 'n1'; UPDATE notes SET title = 'not sent yet' WHERE id = 'n1'");

    let fresh = scratch.path("fresh.db");
    let fresh = fresh.to_str().expect("a plain path");
    scratch
        .say(&["hydrate", fresh, "--server", &server.url])
        .expect(exit::UNAUTHORIZED)
        .says(&["SYNCLINE_TOKEN", "syncline token"]);
    scratch
        .say(&[
            "hydrate",
            fresh,
            "--server",
            &server.url,
            "--token-file",
            "no-such-file",
        ])
        .expect(exit::UNAUTHORIZED)
        .says(&["no-such-file"]);
    assert_eq!(laptop.verify(), 2);
}

#[test]
fn another_server_or_another_user_than_the_file_belongs_to() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let other = Server::dev(&scratch, "other");
    let laptop = with_unsent_edit(&scratch, &server);

    let stray = Device {
        url: other.url.clone(),
        token: other.token("ana"),
        ..laptop.clone()
    };
    stray
        .run("sync", &[])
        .expect(exit::WRONG_SERVER)
        .says(&["another server", "detach"]);
    stray.run("sync", &["--watch"]).expect(exit::WRONG_SERVER);
    stray.run("verify", &[]).expect(exit::WRONG_SERVER);
    let bob = Device {
        token: server.token("bob"),
        ..laptop.clone()
    };
    bob.run("sync", &[])
        .expect(exit::WRONG_USER)
        .says(&["belongs to ana", "detach"]);
    lost_nothing(&laptop, &server);
}

#[test]
fn a_server_that_cannot_be_reached_or_is_none() {
    let scratch = Scratch::new();
    let mut server = Server::dev(&scratch, "data");
    let laptop = with_unsent_edit(&scratch, &server);

    server.kill();
    laptop.run("sync", &[]).expect(exit::UNREACHABLE).says(&[
        "cannot be reached",
        &server.url,
        "refused",
        "your changes wait in the file",
    ]);
    let new = Device {
        file: scratch.path("new.db"),
        ..laptop.clone()
    };
    new.run("hydrate", &[]).expect(exit::UNREACHABLE);
    assert!(!new.file.exists());
    // Without a server everything local goes on.
    laptop
        .run("queue", &["list"])
        .expect(exit::DONE)
        .one("changeset");
    assert_eq!(laptop.status()["waiting"], 1);
    server.restart();

    let site = Device {
        url: web_site(),
        ..laptop.clone()
    };
    site.run("sync", &[])
        .expect(exit::NOT_A_SYNCLINE)
        .says(&["not like a Syncline server", &site.url]);
    Device {
        file: scratch.path("new.db"),
        ..site
    }
    .run("hydrate", &[])
    .expect(exit::NOT_A_SYNCLINE);

    for url in ["ftp://somewhere", "127.0.0.1:7117", "http://", "http://a b"] {
        let wrong = Device {
            url: url.to_owned(),
            ..laptop.clone()
        };
        wrong
            .run("sync", &[])
            .expect(exit::NO_SERVER)
            .says(&["http://127.0.0.1:7117"]);
    }
    let file = scratch.path("unknown.db");
    scratch
        .say(&["hydrate", file.to_str().expect("a plain path")])
        .expect(exit::NO_SERVER)
        .says(&["--server", "SYNCLINE_URL"]);
    lost_nothing(&laptop, &server);
}

#[test]
fn a_server_of_an_older_or_newer_protocol() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = with_unsent_edit(&scratch, &server);
    for theirs in [0, 99] {
        let odd = Device {
            url: server_of_protocol(theirs),
            ..laptop.clone()
        };
        let says = format!("protocol {theirs}");
        odd.run("sync", &[])
            .expect(exit::PROTOCOL)
            .says(&[&says, "upgrade"]);
    }
    lost_nothing(&laptop, &server);
}

#[test]
fn a_file_that_is_none_or_no_database_or_not_attached() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let at = |name: &str| Device::new(&scratch, &server, name, "ana");

    let missing = at("missing.db");
    for command in [
        "status",
        "sync",
        "seed",
        "verify",
        "detach",
        "queue",
        "conflicts",
        "attach",
    ] {
        missing
            .run(command, &[])
            .expect(exit::NOT_FOUND)
            .says(&["no file", "missing.db"]);
        assert!(!missing.file.exists(), "{command} made a file");
    }

    Device::new(&scratch, &server, "no-folder/new.db", "ana")
        .run("hydrate", &[])
        .expect(exit::READ_ONLY)
        .says(&["there is no folder", "no-folder"]);
    let folder = at("data");
    folder.run("sync", &[]).expect(exit::NOT_A_DATABASE);

    let foreign = at("letter.txt");
    scratch.write("letter.txt", &"Dear database, how are you? ".repeat(100));
    for command in [
        "status",
        "sync",
        "verify",
        "detach",
        "queue",
        "conflicts",
        "attach",
    ] {
        foreign
            .run(command, &[])
            .expect(exit::NOT_A_DATABASE)
            .says(&["letter.txt", "no SQLite database"]);
    }
    let text = std::fs::read_to_string(&foreign.file).expect("the letter");
    assert!(text.starts_with("Dear database"), "unharmed");

    let plain = at("plain.db");
    scratch.database("plain.db", NOTES);
    let before = std::fs::read(&plain.file).expect("the file");
    for command in ["status", "verify", "detach", "queue", "conflicts"] {
        plain
            .run(command, &[])
            .expect(exit::NOT_ATTACHED)
            .says(&["not attached", "syncline attach"]);
    }
    assert_eq!(
        std::fs::read(&plain.file).expect("the file"),
        before,
        "not a byte changed"
    );

    let keyless = at("keyless.db");
    scratch.database("keyless.db", "CREATE TABLE lines (text TEXT)");
    keyless
        .run("attach", &["--yes"])
        .expect(exit::TABLE_UNFIT)
        .says(&["lines", "primary key"]);
    scratch.database("empty.db", "VACUUM");
    at("empty.db")
        .run("attach", &["--yes"])
        .expect(exit::TABLE_UNFIT)
        .says(&["no tables"]);
}

#[test]
fn a_damaged_file_and_one_of_a_newer_program() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = with_unsent_edit(&scratch, &server);
    let whole = std::fs::read(&laptop.file).expect("the file");

    let mut damaged = whole.clone();
    for byte in &mut damaged[4_096..] {
        *byte = 0xA5;
    }
    std::fs::write(&laptop.file, &damaged).expect("damage the file");
    for command in ["status", "sync", "verify"] {
        laptop
            .run(command, &[])
            .expect(exit::CORRUPT)
            .says(&["damaged", "backup", "hydrate"]);
    }
    assert_eq!(
        std::fs::read(&laptop.file).expect("the file"),
        damaged,
        "left as it was found"
    );

    std::fs::write(&laptop.file, &whole).expect("restore the file");
    laptop.sql("UPDATE syncline_meta SET value = 999 WHERE key = 'format'");
    for command in ["status", "sync", "detach"] {
        laptop
            .run(command, &[])
            .expect(exit::NEWER_FORMAT)
            .says(&["999", "update the program"]);
    }
    std::fs::write(&laptop.file, &whole).expect("restore the file");
    lost_nothing(&laptop, &server);
}

#[test]
fn a_file_that_another_program_holds_locked() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = with_unsent_edit(&scratch, &server);
    let holder = Connection::open(&laptop.file).expect("open");
    holder.execute_batch("BEGIN EXCLUSIVE").expect("lock");
    std::thread::scope(|scope| {
        for command in ["sync", "status"] {
            let laptop = &laptop;
            scope.spawn(move || {
                laptop.run(command, &[]).expect(exit::LOCKED).says(&[
                    "laptop.db",
                    "locked",
                    "try again",
                ]);
            });
        }
    });
    holder.execute_batch("ROLLBACK").expect("unlock");
    lost_nothing(&laptop, &server);
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_written() {
    use std::os::unix::{fs::PermissionsExt, process::CommandExt};
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = with_unsent_edit(&scratch, &server);
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .expect("set permissions");
    };
    mode(&laptop.file, 0o444);
    let root = std::fs::OpenOptions::new()
        .append(true)
        .open(&laptop.file)
        .is_ok();
    if root {
        // For root every file may be written: somebody else runs the command.
        mode(&scratch.path(""), 0o755);
    }
    for (command, args) in [("sync", &[][..]), ("attach", &["--yes"]), ("status", &[])] {
        let mut run = laptop.command(command, args);
        if root {
            run.uid(65_534)
                .gid(65_534)
                .env("SYNCLINE_HOME", "/nonexistent");
        }
        crate::support::Outcome::of(&mut run)
            .expect(exit::READ_ONLY)
            .says(&["laptop.db", "read-only"]);
    }
    mode(&laptop.file, 0o644);
    lost_nothing(&laptop, &server);
}

#[test]
fn mistakes_in_the_configuration_are_named_with_their_place() {
    let scratch = Scratch::new();
    scratch.write("bad.toml", "[server]\nlisten = \"127.0.0.1:0\"\n\n[tables.notes]\ncolumns = { id = \"uuid primary key\", title = \"txt\" }\nread = \"_owner = auth.uid(\"\nmerge = { nothing = \"counter\" }\n");
    for args in [
        &["check", "--config", "bad.toml"][..],
        &["serve", "--config", "bad.toml", "--data", "data"],
        &["serve", "--dev", "--config", "bad.toml", "--data", "data"],
    ] {
        scratch.say(args).expect(exit::CONFIG).says(&[
            "bad.toml:5:",
            "txt",
            "bad.toml:6:",
            "bad.toml:7:",
        ]);
    }
    assert!(!scratch.path("data").exists(), "nothing was made");
    scratch.write("broken.toml", "[tables.notes\n");
    scratch
        .say(&["check", "--config", "broken.toml"])
        .expect(exit::CONFIG)
        .says(&["broken.toml:1:"]);
    scratch
        .say(&["check", "--config", "none.toml"])
        .expect(exit::CONFIG)
        .says(&["none.toml", "syncline init"]);
    scratch
        .say(&["serve", "--data", "data"])
        .expect(exit::CONFIG)
        .says(&["syncline.toml", "--dev"]);
}

#[test]
fn a_server_that_cannot_start() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let port = format!("127.0.0.1:{}", server.port());
    scratch
        .say(&["serve", "--dev", "--data", "other", "--listen", &port])
        .expect(exit::CANNOT_LISTEN)
        .says(&["cannot listen", &port]);
    scratch
        .say(&["serve", "--dev", "--data", "other", "--listen", "0.0.0.0:0"])
        .expect(exit::CANNOT_LISTEN)
        .says(&["loopback"]);
    scratch
        .say(&[
            "serve",
            "--dev",
            "--data",
            "data",
            "--listen",
            "127.0.0.1:0",
        ])
        .expect(exit::SERVER_DATA)
        .says(&["in use by another", "data"]);

    std::fs::create_dir_all(scratch.path("junk")).expect("a folder");
    scratch.write(
        "junk/syncline.db",
        &"this is no database at all ".repeat(200),
    );
    scratch
        .say(&[
            "serve",
            "--dev",
            "--data",
            "junk",
            "--listen",
            "127.0.0.1:0",
        ])
        .expect(exit::SERVER_DATA)
        .says(&["syncline.db"]);
}

#[test]
fn wrong_arguments_show_how_it_is_meant() {
    let scratch = Scratch::new();
    for args in [
        &["sync"][..],
        &["attach"],
        &["hydrate"],
        &["verify"],
        &["token"],
        &["nonsense"],
        &["sync", "a.db", "--nonsense"],
        &["sync", "a.db", "--watch=maybe"],
    ] {
        scratch.say(args).expect(exit::USAGE).says(&["--help"]);
    }
    scratch
        .say(&["serve", "--dev", "--listen", "nowhere"])
        .expect(exit::CONFIG)
        .says(&["--listen", "nowhere", "127.0.0.1:7117"]);
    scratch
        .say::<&str>(&[])
        .expect(exit::USAGE)
        .says(&["Usage: syncline"]);
    let help = scratch.say(&["--help"]).expect(exit::DONE).stdout;
    for part in ["Exit codes", "attach", "hydrate", "SYNCLINE_URL"] {
        assert!(help.contains(part), "no {part} in {help}");
    }
}

#[test]
fn an_error_is_a_json_line_too() {
    let scratch = Scratch::new();
    let error = scratch
        .run(&["status", "missing.db"])
        .expect(exit::NOT_FOUND)
        .one("error");
    assert_eq!(error["exit"], exit::NOT_FOUND);
    assert_eq!(error["code"], "not_found");
    assert!(
        error["message"]
            .as_str()
            .expect("a sentence")
            .contains("missing.db")
    );
}
