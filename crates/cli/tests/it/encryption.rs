//! Encrypted columns: what two devices read, a server must not (docs/spec/encryption.md).

mod keys;

use std::path::Path;

use crate::support::{Device, Outcome, Scratch, Server, exit, rows, sql};

const CONFIG: &str = r#"
[tables.people]
columns = { id = "text primary key", name = "text", notes = "text encrypted", salary = "integer encrypted", photo = "blob encrypted", height = "real encrypted", extra = "any encrypted" }
read  = "_owner = auth.uid()"
write = "_owner = auth.uid()"
"#;

const PEOPLE: &str = "
    CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT, notes TEXT, salary INTEGER, photo BLOB,
                         height REAL, extra);
    INSERT INTO people VALUES
      ('p1', 'VISIBLE-NAME', 'SECRET-NOTES', 7234017283807667300, x'5345435245542d50484f544f', 1.5, 'SECRET-EXTRA'),
      ('p2', 'Bo', NULL, NULL, NULL, NULL, 12.25),
      ('p3', 'Cy', '', 0, x'', 0.0, x'00');";

const ALL: &str = "SELECT id, name, notes, salary, photo, height, extra, typeof(notes),
    typeof(salary), typeof(photo), typeof(height), typeof(extra) FROM people ORDER BY id";

/// Every spelling of what only devices may have; 7234017283807667300 is `ddddddd` and `d`.
const SECRETS: [&[u8]; 5] = [
    b"SECRET-",
    b"ddddddd",
    b"7234017283807667300",
    b"U0VDUkVU",
    b"5345435245542d",
];

fn key(scratch: &Scratch, name: &str) -> String {
    let made = scratch.run(&["encryption-key", name]).expect(exit::DONE);
    made.one("encryption_key")["id"]
        .as_str()
        .expect("an id")
        .to_owned()
}

trait WithKey {
    fn with(&self, command: &str, keys: &[&str]) -> Outcome;
}

impl WithKey for Device<'_> {
    /// A command with these key files.
    fn with(&self, command: &str, keys: &[&str]) -> Outcome {
        let mut args = Vec::new();
        for key in keys {
            args.extend(["--encryption-key-file", key]);
        }
        if command == "attach" {
            args.push("--yes");
        }
        self.run(command, &args)
    }
}

#[track_caller]
fn seeded<'a>(scratch: &'a Scratch, server: &Server<'_>, file: &str, key: &str) -> Device<'a> {
    let device = Device::new(scratch, server, file, "ana");
    scratch.database(file, PEOPLE);
    device.with("attach", &[key]).expect(exit::DONE);
    device.with("sync", &[key]).expect(exit::DONE);
    device
}

#[track_caller]
fn hydrated<'a>(scratch: &'a Scratch, server: &Server<'_>, file: &str, key: &str) -> Device<'a> {
    let device = Device::new(scratch, server, file, "ana");
    device.with("hydrate", &[key]).expect(exit::DONE);
    device
}

#[track_caller]
fn sync_all(devices: &[&Device<'_>], key: &str) {
    for device in devices.iter().chain(devices) {
        device.with("sync", &[key]).expect(exit::DONE);
    }
}

#[track_caller]
fn assert_verified(device: &Device<'_>, keys: &[&str]) {
    let outcome = device.with("verify", keys).expect(exit::DONE);
    assert_eq!(outcome.one("verified")["equal"], true);
}

/// The files below `folder` that have `needle` in them.
fn files_with(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, needle));
        } else {
            let bytes = std::fs::read(&path).expect("a file");
            if bytes.windows(needle.len()).any(|window| window == needle) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[test]
fn en1_two_devices_read_what_no_file_of_the_server_has() {
    let scratch = Scratch::new();
    let mut server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "key");
    let laptop = seeded(&scratch, &server, "laptop.db", "key");
    let phone = hydrated(&scratch, &server, "phone.db", "key");
    assert_eq!(
        phone.rows(ALL),
        laptop.rows(ALL),
        "every type comes back as it was"
    );
    assert!(phone.rows(ALL).contains("SECRET-NOTES"));
    let declared = "SELECT group_concat(type) FROM pragma_table_info('people')";
    assert_eq!(phone.rows(declared), "TEXT,TEXT,TEXT,INTEGER,BLOB,REAL,");
    assert_verified(&laptop, &["key"]);
    assert_verified(&phone, &["key"]);

    phone.sql("UPDATE people SET notes = 'SECRET-LATER' WHERE id = 'p2'");
    phone.sql("INSERT INTO people(id, name, notes) VALUES ('p4', 'Di', 'SECRET-NEW')");
    sync_all(&[&phone, &laptop], "key");
    assert_eq!(phone.rows(ALL), laptop.rows(ALL));
    assert_eq!(
        laptop.rows("SELECT notes FROM people WHERE id = 'p4'"),
        "SECRET-NEW"
    );

    scratch
        .run(&["backup", "data/copy.syncline", "--data", "data"])
        .expect(exit::DONE);
    let server_files = scratch.path("data");
    // The search finds what is there.
    assert!(!files_with(&server_files, b"VISIBLE-NAME").is_empty());
    assert!(!files_with(&scratch.path("."), b"SECRET-NOTES").is_empty());
    for needle in SECRETS {
        let found = files_with(&server_files, needle);
        assert!(found.is_empty(), "{} in {found:?}", needle.escape_ascii());
    }
    // Nor after it wrote everything into the database file, with its history and audit log.
    server.terminate();
    for needle in SECRETS {
        let found = files_with(&server_files, needle);
        assert!(found.is_empty(), "{} in {found:?}", needle.escape_ascii());
    }
    let kinds = "SELECT DISTINCT typeof(notes) || typeof(salary) FROM people WHERE id = 'p1'";
    assert_eq!(rows(&server.database(), kinds), "blobblob");
}

#[test]
fn en1_neither_file_of_a_device_nor_the_server_has_the_key() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "key");
    let _laptop = seeded(&scratch, &server, "laptop.db", "key");
    let text = std::fs::read_to_string(scratch.path("key")).expect("the key file");
    let digits = text.trim().strip_prefix("syncline-key-").expect("a key");
    let bytes: Vec<u8> = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits"))
        .collect();
    let folder = scratch.path(".");
    let with_text = files_with(&folder, digits.as_bytes());
    assert_eq!(with_text.len(), 1, "the key file alone: {with_text:?}");
    assert_eq!(files_with(&folder, &bytes), [""; 0]);
}

#[test]
fn en4_the_later_edit_wins_and_deletes_delete() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "key");
    let laptop = seeded(&scratch, &server, "laptop.db", "key");
    let phone = hydrated(&scratch, &server, "phone.db", "key");

    laptop.sql("UPDATE people SET notes = 'earlier' WHERE id = 'p1'");
    assert_eq!(laptop.status()["waiting"], 1);
    phone.sql("UPDATE people SET notes = 'later', salary = 1 WHERE id = 'p1'");
    phone.sql("DELETE FROM people WHERE id = 'p3'");
    phone.with("sync", &["key"]).expect(exit::DONE);
    let lost = laptop.with("sync", &["key"]).expect(exit::DONE);
    assert_eq!(lost.one("edit_lost")["column"], "notes");
    phone.with("sync", &["key"]).expect(exit::DONE);
    for device in [&laptop, &phone] {
        let row = device.rows("SELECT notes, salary FROM people WHERE id = 'p1'");
        assert_eq!(row, "later|1");
        assert_eq!(device.rows("SELECT count(*) FROM people"), "2");
        assert_verified(device, &["key"]);
    }
}

#[test]
fn en1_nothing_is_subscribed_to_by_an_encrypted_value() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "ana.key");
    let ana = seeded(&scratch, &server, "ana.db", "ana.key");
    let refused = ana.say("subscribe", &["people", "--where", "notes=SECRET-NOTES"]);
    assert_ne!(refused.code, exit::DONE);
    refused.says(&["notes is encrypted"]);
    ana.run("subscribe", &["people", "--where", "name=Bo"])
        .expect(exit::DONE);
}

#[test]
fn en6_what_is_put_there_by_others_is_never_taken_for_what_was_sealed() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "key");
    let laptop = seeded(&scratch, &server, "laptop.db", "key");

    // Another program on the server's file: a plain value, an envelope of another row, one of
    // another column, and a flipped bit.
    sql(
        &server.database(),
        "UPDATE people SET notes = 'forged' WHERE id = 'p2';
         UPDATE people SET salary = (SELECT salary FROM people WHERE id = 'p1') WHERE id = 'p3';
         UPDATE people SET photo = notes WHERE id = 'p1';
         UPDATE people SET height = substr(height, 1, length(height) - 1) || x'00' WHERE id = 'p1';",
    );
    let told = laptop.with("sync", &["key"]).expect(exit::DONE);
    assert_eq!(told.all("cells_unreadable").len(), 4, "{told:#?}");
    let row = |id: &str| {
        let query = "SELECT notes, salary, photo, height FROM people WHERE id = ";
        laptop.rows(&format!("{query}'{id}'"))
    };
    assert_eq!(row("p1"), "SECRET-NOTES|7234017283807667300|NULL|NULL");
    assert_eq!(row("p2"), "NULL|NULL|NULL|NULL");
    assert_eq!(row("p3"), "|NULL|[]|0");
    assert_verified(&laptop, &["key"]);
    // It is never sent back as an edit; writing the value anew mends it.
    let there = "SELECT typeof(notes) FROM people WHERE id = 'p2'";
    laptop.sql("UPDATE people SET name = 'Bo!' WHERE id = 'p2'");
    laptop.with("sync", &["key"]).expect(exit::DONE);
    assert_eq!(rows(&server.database(), there), "text");
    laptop.sql("UPDATE people SET notes = 'mended' WHERE id = 'p2'");
    laptop.with("sync", &["key"]).expect(exit::DONE);
    assert_eq!(rows(&server.database(), there), "blob");
    let phone = hydrated(&scratch, &server, "phone.db", "key");
    assert_eq!(
        phone.rows("SELECT notes FROM people WHERE id = 'p2'"),
        "mended"
    );
    assert_eq!(phone.rows(ALL), laptop.rows(ALL));
}

#[test]
fn en6_a_server_that_says_the_column_is_plain_now_is_sent_nothing() {
    let scratch = Scratch::new();
    let mut server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "key");
    let laptop = seeded(&scratch, &server, "laptop.db", "key");
    server.terminate();
    scratch.write(
        "data.toml",
        &CONFIG.replace("photo = \"blob encrypted\"", "photo = \"blob\""),
    );
    server.restart();
    laptop.sql("UPDATE people SET photo = 'SECRET-AGAIN' WHERE id = 'p1'");
    let refused = laptop.with("sync", &["key"]).expect(exit::ENCRYPTION_KEY);
    refused.says(&["people.photo", "was encrypted"]);
    assert_eq!(laptop.status()["waiting"], 1);
    assert!(files_with(&scratch.path("data"), b"SECRET-AGAIN").is_empty());
    // Once it is corrected, all goes on.
    server.terminate();
    scratch.write("data.toml", CONFIG);
    server.restart();
    laptop.with("sync", &["key"]).expect(exit::DONE);
    assert_eq!(laptop.status()["waiting"], 0);
    assert!(files_with(&scratch.path("data"), b"SECRET-AGAIN").is_empty());
    assert_verified(&laptop, &["key"]);
}

#[test]
fn en3_a_plain_value_over_http_is_refused() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let token = server.token("ana");
    let push = |id: u128, notes: serde_json::Value| {
        let row = serde_json::json!({ "id": "p1", "name": "x", "notes": notes });
        let change = serde_json::json!({ "table": "people", "op": "insert", "row": row });
        let body = serde_json::json!({ "changes": [change] }).to_string();
        let output = std::process::Command::new("curl")
            .args([
                "-sS",
                "-H",
                "Content-Type: application/json",
                "--data-binary",
                &body,
            ])
            .args(["-H", &format!("Authorization: Bearer {token}")])
            .args(["-H", &format!("Idempotency-Key: {id:032x}")])
            .arg(format!("{}/v1/push", server.url))
            .output()
            .expect("there is curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (id, plain) in [
        (1, "SECRET-NOTES".into()),
        (2, serde_json::json!({ "base64": "U0VDUkVU" })),
    ] {
        let told = push(id, plain);
        assert!(
            told.contains("column notes of people is encrypted"),
            "{told}"
        );
    }
    assert_eq!(rows(&server.database(), "SELECT count(*) FROM people"), "0");
    let told = push(3, serde_json::Value::Null);
    assert!(told.contains("version"), "{told}");
    assert_eq!(rows(&server.database(), "SELECT count(*) FROM people"), "1");
    assert!(files_with(&scratch.path("data"), b"SECRET-NOTES").is_empty());
}

#[test]
fn en4_history_and_restoring_a_row_are_in_the_clear_with_the_key_and_sealed_without() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "key");
    let laptop = seeded(&scratch, &server, "laptop.db", "key");
    laptop.sql("UPDATE people SET notes = 'second' WHERE id = 'p1'");
    laptop.with("sync", &["key"]).expect(exit::DONE);
    let history = |more: &[&str]| {
        let mut args = vec!["people", "p1"];
        args.extend(more);
        laptop.run("history", &args).expect(exit::DONE)
    };
    let told = history(&["--encryption-key-file", "key"]);
    let newest = &told.all("row_change")[0];
    let notes = newest["columns"]
        .as_array()
        .and_then(|columns| columns.iter().find(|column| column["column"] == "notes"))
        .expect("the column that changed");
    assert_eq!(
        (&notes["before"], &notes["after"]),
        (&"SECRET-NOTES".into(), &"second".into())
    );
    assert!(!history(&[]).stdout.contains("SECRET-NOTES"));

    let first = told.all("row_change")[1]["version"].to_string();
    let sealed = ["people", "p1", "--restore", &first];
    laptop
        .run("history", &sealed)
        .expect(exit::TABLE_UNFIT)
        .says(&["notes"]);
    history(&["--restore", &first, "--encryption-key-file", "key"]);
    laptop.with("sync", &["key"]).expect(exit::DONE);
    let phone = hydrated(&scratch, &server, "phone.db", "key");
    for device in [&laptop, &phone] {
        assert_eq!(
            device.rows("SELECT notes FROM people WHERE id = 'p1'"),
            "SECRET-NOTES"
        );
        assert_verified(device, &["key"]);
    }
}

#[test]
fn en4_a_file_with_the_same_rows_is_attached_without_sending_any() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "key");
    let laptop = seeded(&scratch, &server, "laptop.db", "key");
    let copy = Device::new(&scratch, &server, "copy.db", "ana");
    scratch.database("copy.db", PEOPLE);
    copy.with("attach", &[]).expect(exit::ENCRYPTION_KEY);
    let attached = copy.with("attach", &["key"]).expect(exit::DONE);
    assert_eq!(attached.one("attached")["equal"], 3);
    copy.with("sync", &["key"]).expect(exit::DONE);
    assert_eq!(copy.rows(ALL), laptop.rows(ALL));
    assert_verified(&copy, &["key"]);
}

#[test]
fn en4_an_edit_of_a_row_that_was_deleted_is_brought_back_in_the_clear() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "key");
    let laptop = seeded(&scratch, &server, "laptop.db", "key");
    let phone = hydrated(&scratch, &server, "phone.db", "key");
    laptop.sql("UPDATE people SET notes = 'kept', salary = 5 WHERE id = 'p1'");
    phone.sql("DELETE FROM people WHERE id = 'p1'");
    phone.with("sync", &["key"]).expect(exit::DONE);
    laptop.with("sync", &["key"]).expect(exit::DONE);
    let listed = laptop.run("conflicts", &["list"]).expect(exit::DONE);
    let id = listed.one("conflict")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let resolve = |keys: &[&str]| {
        let mut args = vec!["resolve", &id, "--mine"];
        for key in keys {
            args.extend(["--encryption-key-file", key]);
        }
        laptop.run("conflicts", &args)
    };
    resolve(&[])
        .expect(exit::USAGE)
        .says(&["notes cannot be read here"]);
    resolve(&["key"]).expect(exit::DONE);
    sync_all(&[&laptop, &phone], "key");
    for device in [&laptop, &phone] {
        let row = device.rows("SELECT notes, salary FROM people WHERE id = 'p1'");
        assert_eq!(row, "kept|5");
        assert_verified(device, &["key"]);
    }
}
