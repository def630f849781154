//! Apps that change their tables, by whatever program, and servers that follow or go ahead.

use std::process::Command;

use crate::support::{Device, Outcome, Scratch, Server, exit, sync_all, wait_until};

const LISTS: &str = "
    CREATE TABLE lists (id TEXT PRIMARY KEY NOT NULL, name TEXT, color TEXT);
    CREATE TABLE items (id TEXT PRIMARY KEY NOT NULL,
        list TEXT NOT NULL REFERENCES lists (id) ON DELETE CASCADE, title TEXT);
    INSERT INTO lists VALUES ('l1', 'one', 'red'), ('l2', 'two', 'blue');
    INSERT INTO items VALUES ('i1', 'l1', 'a'), ('i2', 'l2', 'b');";

/// What Django's schema editor does to alter a table, in one transaction, by a program that has
/// foreign keys on throughout.
const DJANGO: &str = r#"
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
c.execute("PRAGMA foreign_keys = ON")
c.execute("BEGIN")
c.execute('CREATE TABLE "new__lists" ("id" TEXT NOT NULL PRIMARY KEY, "name" TEXT NOT NULL, "color" TEXT, "size" INTEGER NULL)')
c.execute('INSERT INTO "new__lists" ("id", "name", "color") SELECT "id", coalesce("name", \'\'), "color" FROM "lists"')
c.execute('DROP TABLE "lists"')
c.execute('ALTER TABLE "new__lists" RENAME TO "lists"')
c.execute('CREATE TABLE "django_migrations" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "app" varchar(255) NOT NULL, "name" varchar(255) NOT NULL, "applied" datetime NOT NULL)')
c.execute('INSERT INTO "django_migrations" ("app", "name", "applied") VALUES (?, ?, ?)', ("app", "0002", "2024-01-01"))
c.execute("UPDATE lists SET name = 'by the migration' WHERE id = 'l2'")
c.execute("INSERT INTO items VALUES ('i3', 'l1', 'by the migration')")
c.execute("COMMIT")
sys.exit(int(sys.argv[2]))
"#;

fn has_python() -> bool {
    Command::new("python3")
        .arg("-c")
        .arg("import sqlite3")
        .status()
        .is_ok_and(|status| status.success())
}

const ITEMS: &str = "SELECT group_concat(id || title) FROM (SELECT * FROM items ORDER BY id)";

#[test]
fn a_program_that_migrates_a_watched_file_deletes_nothing_elsewhere() {
    if !has_python() {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", LISTS);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    let mut at_laptop = laptop.watch();
    let mut at_phone = phone.watch();
    let status = Command::new("python3")
        .args(["-c", DJANGO])
        .arg(&laptop.file)
        .arg("0")
        .status();
    assert!(status.expect("run Python").success());
    let refused = at_laptop.wait_for_type("change_refused");
    assert_eq!(refused["code"], "dropped_table_cascade");
    wait_until("what the migration wrote", || {
        phone.rows(ITEMS) == "i1a,i2b,i3by the migration"
            && phone.rows("SELECT name FROM lists WHERE id = 'l2'") == "by the migration"
    });
    // Capture is back.
    laptop.sql("UPDATE lists SET name = 'after' WHERE id = 'l1'");
    wait_until("what the app wrote then", || {
        phone.rows("SELECT name FROM lists WHERE id = 'l1'") == "after"
    });
    assert_eq!(laptop.rows(ITEMS), "i1a,i2b,i3by the migration");
    assert_eq!(at_laptop.terminate(), exit::DONE);
    assert_eq!(at_phone.terminate(), exit::DONE);
    laptop.verify();
    phone.verify();
    let tables = laptop.status()["tables"].clone();
    let of_tool = tables.as_array().expect("a list").iter();
    let mut of_tool = of_tool.filter(|table| table["table"] == "django_migrations");
    assert!(of_tool.all(|table| table["state"] == "left_out"));
}

#[test]
fn migrate_runs_a_command_and_says_what_it_changed() {
    if !has_python() {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", LISTS);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    laptop.sql("UPDATE items SET title = 'before' WHERE id = 'i1'");
    let file = laptop.file.to_str().expect("a plain path");
    let migrate = |code: &str| {
        scratch.say(&[
            "--json", "migrate", file, "--", "python3", "-c", DJANGO, file, code,
        ])
    };
    let migrated = migrate("0").expect(exit::DONE).one("migrated");
    assert_eq!(migrated["command_exit"], 0);
    let changes = migrated["changes"].as_array().expect("a list");
    assert_eq!(changes.len(), 1, "{migrated}");
    assert_eq!(changes[0]["change"], "column_added");
    assert_eq!(changes[0]["column"], "size");
    assert_eq!(migrated["parked"], 1);
    sync_all(&[&laptop, &phone]);
    assert_eq!(phone.rows(ITEMS), "i1before,i2b,i3by the migration");
    laptop.verify();

    // It fails now: there is a table django_migrations already. What it said comes through.
    let outcome = migrate("0")
        .expect(exit::COMMAND_FAILED)
        .says(&["already exists"]);
    assert_eq!(outcome.one("migrated")["command_exit"], 1);
    let words = ["migrate", file, "--", "no-such-program"];
    scratch
        .say(&words)
        .expect(exit::COMMAND_FAILED)
        .says(&["no-such-program"]);
    scratch.say(&["migrate", file]).expect(exit::USAGE);
    let rename = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('ALTER TABLE lists RENAME TO folders')";
    let said = scratch
        .say(&["migrate", file, "--", "python3", "-c", rename, file])
        .expect(exit::DONE)
        .stdout;
    assert!(
        said.contains("renamed the table lists to folders"),
        "{said}"
    );
    laptop.sql("UPDATE folders SET name = 'in a folder' WHERE id = 'l1'");
    sync_all(&[&laptop, &phone]);
    let name = "SELECT name FROM lists WHERE id = 'l1'";
    assert_eq!(phone.rows(name), "in a folder");
}

/// The app's tables, version by version: what its migrations run, and the server's file.
const VERSIONS: [(&str, &str); 5] = [
    (
        "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, title TEXT)",
        "[tables.notes]\ncolumns = { id = \"text primary key\", title = \"text\" }",
    ),
    (
        "ALTER TABLE notes ADD COLUMN body TEXT",
        "[tables.notes]\ncolumns = { id = \"text primary key\", title = \"text\", body = \"text\" }",
    ),
    (
        "ALTER TABLE notes RENAME COLUMN title TO name",
        "[tables.notes]\ncolumns = { id = \"text primary key\", name = \"text\", body = \"text\" }
         renamed = { name = \"title\" }",
    ),
    (
        "CREATE TABLE n (id TEXT PRIMARY KEY NOT NULL, name TEXT, tag TEXT DEFAULT 'none');
         INSERT INTO n (id, name) SELECT id, name FROM notes; DROP TABLE notes; ALTER TABLE n RENAME TO notes",
        "[tables.notes]\ncolumns = { id = \"text primary key\", name = \"text\", tag = \"text default 'none'\" }",
    ),
    (
        "ALTER TABLE notes RENAME TO memos",
        "[tables.memos]\ncolumns = { id = \"text primary key\", name = \"text\", tag = \"text default 'none'\" }
         renamed_from = \"notes\"",
    ),
];

fn config(version: usize) -> String {
    let rules = "read = \"_owner = auth.uid()\"\nwrite = \"_owner = auth.uid()\"\n";
    format!("{}\n{rules}", VERSIONS[version].1)
}

/// What the app calls things at this version: its table, the title, further columns.
fn names(version: usize) -> (&'static str, &'static str, &'static [&'static str]) {
    match version {
        0 => ("notes", "title", &[]),
        1 => ("notes", "title", &["body"]),
        2 => ("notes", "name", &["body"]),
        3 => ("notes", "name", &["tag"]),
        _ => ("memos", "name", &["tag"]),
    }
}

/// Every version of the app against every version of the server, while the server goes through
/// them all and the apps stay where they are.
#[test]
fn every_version_of_the_app_syncs_with_every_version_of_the_server() {
    let scratch = Scratch::new();
    let mut server = Server::with_config(&scratch, "data", &config(0));
    let mut devices = Vec::new();
    for version in 0..VERSIONS.len() {
        let file = format!("app{version}.db");
        let row = format!(
            "{}; INSERT INTO notes VALUES ('d{version}', 'new')",
            VERSIONS[0].0
        );
        let device = Device::seeded(&scratch, &server, &file, "ana", &row);
        for (migration, _) in &VERSIONS[1..=version] {
            device.sql(migration);
            // Each version of the app was used, if only for a moment.
            device.status();
        }
        devices.push(device);
    }
    for at in 0..VERSIONS.len() {
        if at > 0 {
            scratch.write("data.toml", &config(at));
            // The server runs while it is asked what its next start would do.
            let check = ["check", "--config", "data.toml", "--data", "data"];
            let checked = scratch.run(&check);
            if at == 3 {
                let checked = checked.expect(exit::CONFIG);
                assert_eq!(checked.one("refused")["allow"], "drop:notes.body");
                assert_eq!(checked.all("planned").len(), 2);
            } else {
                assert_eq!(checked.expect(exit::DONE).all("refused").len(), 0);
            }
            assert_eq!(server.terminate(), exit::DONE);
            if at == 3 {
                let refused = refused(&scratch);
                refused.expect(exit::CONFIG).says(&["drop:notes.body"]);
                server.allow("drop:notes.body");
            }
            server.restart();
        }
        for (version, device) in devices.iter().enumerate() {
            let (table, title, more) = names(version);
            device.sql(&format!(
                "UPDATE {table} SET {title} = 'by {version} at {at}' WHERE id = 'd{version}';
                 INSERT INTO {table} (id, {title}) VALUES ('d{version}s{at}', 'new')"
            ));
            for column in more {
                device.sql(&format!(
                    "UPDATE {table} SET {column} = '{column} {at}' WHERE id = 'd{version}'"
                ));
            }
        }
        let all: Vec<&Device<'_>> = devices.iter().collect();
        sync_all(&all);
        let rows = |version: usize, column: &str| {
            let (table, ..) = names(version);
            devices[version].rows(&format!("SELECT id, {column} FROM {table} ORDER BY id"))
        };
        for (version, device) in devices.iter().enumerate() {
            let (_, title, more) = names(version);
            assert_eq!(
                rows(version, title),
                rows(0, "title"),
                "app {version}, server {at}"
            );
            assert!(rows(version, title).contains(&format!("d3|by 3 at {at}")));
            let status = device.status();
            assert_eq!(status["parked"], 0, "app {version}, server {at}: {status}");
            assert_eq!(status["waiting"], 0, "app {version}, server {at}: {status}");
            let verified = device.run("verify", &[]);
            assert_eq!(verified.code, 0, "app {version}, server {at}: {verified:?}");
            // A column is in step where the server has it.
            let (has_body, has_tag) = ((1..=2).contains(&at), at >= 3);
            for column in more
                .iter()
                .filter(|c| if **c == "body" { has_body } else { has_tag })
            {
                let other = if *column == "body" { 1 } else { 3 };
                assert_eq!(
                    rows(version, column),
                    rows(other, column),
                    "app {version}, server {at}"
                );
                let own = format!("d{other}|{column} {at}");
                assert!(
                    rows(version, column).contains(&own),
                    "app {version}, server {at}: no {own} in {}",
                    rows(version, column)
                );
            }
        }
    }
}

/// A server that is not allowed what its file asks for.
fn refused(scratch: &Scratch) -> Outcome {
    scratch.say(&[
        "serve",
        "--data",
        "data",
        "--config",
        "data.toml",
        "--listen",
        "127.0.0.1:0",
    ])
}
