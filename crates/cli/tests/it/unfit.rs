//! What cannot sync is said when a file is attached, with the way out; and nothing is changed.

use crate::support::{Device, Scratch, Server, exit, open, rows};

/// Makes a file with what only the app's own program has: the function `soundex_of` and the
/// collation `unicase`. In an empty file others can stand in for them while it is made.
fn with_app<'a>(scratch: &'a Scratch, server: &Server<'_>, file: &str, sql: &str) -> Device<'a> {
    let stood_in = sql
        .replace("soundex_of", "quote")
        .replace("unicase", "nocase");
    let conn = open(&scratch.path(file));
    conn.execute_batch(&stood_in).expect(sql);
    if stood_in != sql {
        conn.execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(replace(sql, 'quote', 'soundex_of'), 'nocase', 'unicase')",
        )
        .expect("the schema of an app with a function and a collation");
    }
    Device::new(scratch, server, file, "ana")
}

/// Statements that make `odd`, and what is said of it: the reason, the way out.
const UNFIT: &[(&str, &str, &str)] = &[
    (
        "CREATE TABLE odd (a TEXT, b TEXT)",
        "table odd cannot sync: it has no primary key",
        "create the table anew with `id TEXT PRIMARY KEY NOT NULL`",
    ),
    (
        "CREATE TABLE odd (id TEXT PRIMARY KEY); INSERT INTO odd VALUES ('a'), (NULL), (NULL)",
        "key column id is NULL in 2 rows",
        "give those rows a value in id, or delete them",
    ),
    (
        "CREATE VIRTUAL TABLE odd USING fts5(text)",
        "it is a virtual table",
        "sync the tables it is built from",
    ),
    (
        "CREATE TABLE odd (id TEXT PRIMARY KEY NOT NULL COLLATE unicase)",
        "uses the collation unicase, which SQLite does not have",
        "with BINARY, NOCASE or RTRIM",
    ),
    (
        "CREATE TABLE odd (id TEXT PRIMARY KEY NOT NULL, name TEXT); CREATE INDEX by_name ON odd (name COLLATE unicase)",
        "by_name uses the collation unicase",
        "create by_name with BINARY, NOCASE or RTRIM",
    ),
    (
        "CREATE TABLE odd (id TEXT PRIMARY KEY NOT NULL, name TEXT CHECK (soundex_of(name) <> ''))",
        "this program cannot write its rows (unknown function: soundex_of",
        "write the expression with SQLite's own functions, or compute it in the app",
    ),
    (
        "CREATE TABLE odd (id TEXT PRIMARY KEY NOT NULL, name TEXT); CREATE INDEX by_sound ON odd (soundex_of(name))",
        "function",
        "write the expression with SQLite's own functions",
    ),
    (
        "CREATE TABLE odd (id TEXT PRIMARY KEY NOT NULL, name TEXT, sound TEXT AS (soundex_of(name)) STORED)",
        "function",
        "write the expression with SQLite's own functions",
    ),
    (
        "CREATE TABLE odd (id TEXT PRIMARY KEY NOT NULL, \"\" TEXT)",
        "it has no name, or a column of it has none",
        "give it a name",
    ),
    (
        "CREATE TABLE keyless (code TEXT UNIQUE); CREATE TABLE odd (id TEXT PRIMARY KEY NOT NULL, code TEXT REFERENCES keyless (code))",
        "table odd cannot sync: it refers to keyless, which cannot",
        "make keyless fit to sync, or take the reference out",
    ),
    (
        "CREATE TABLE keyless (code TEXT UNIQUE); CREATE TABLE child (id TEXT PRIMARY KEY NOT NULL, code TEXT REFERENCES keyless (code));
         CREATE TABLE odd (id TEXT PRIMARY KEY NOT NULL, child TEXT REFERENCES child)",
        "table odd cannot sync: it refers to child, which cannot",
        "make child fit to sync",
    ),
    (
        "CREATE TABLE odd (id UUID PRIMARY KEY NOT NULL); INSERT INTO odd VALUES ('5e0a6c1e-0000-4000-8000-00000000000a'), ('5E0A6C1E-0000-4000-8000-00000000000A')",
        "two rows have the UUID",
        "delete one of the two rows, or give it another key",
    ),
    (
        "CREATE TABLE odd (id UUID PRIMARY KEY NOT NULL); INSERT INTO odd VALUES ('{5e0a6c1e-0000-4000-8000-00000000000a}')",
        "mixes capitals, or has braces",
        "write the key in lower case with hyphens",
    ),
];

#[test]
fn ca14_tables_that_cannot_sync_are_left_out_with_the_reason_and_the_fix() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    for (i, (statements, reason, fix)) in UNFIT.iter().enumerate() {
        let file = format!("f{i}.db");
        let sql = format!("CREATE TABLE fine{i} (id TEXT PRIMARY KEY NOT NULL); {statements}");
        let device = with_app(&scratch, &server, &file, &sql);
        let before = std::fs::read(&device.file).expect("the file");
        device
            .run("attach", &["--tables", "odd", "--yes"])
            .expect(exit::TABLE_UNFIT)
            .says(&[reason, fix]);
        assert_eq!(
            std::fs::read(&device.file).expect("the file"),
            before,
            "{statements}"
        );
        let attached = device.run("attach", &["--yes"]).expect(exit::DONE);
        let tables: Vec<_> = attached
            .all("table")
            .iter()
            .map(|table| table["table"].clone())
            .collect();
        assert_eq!(tables, [format!("fine{i}")], "{statements}");
        let left_out = attached.one("tables_left_out")["tables"].clone();
        let why = left_out.as_array().into_iter().flatten();
        let why = why.filter(|pair| pair[0] == "odd").map(|pair| &pair[1]);
        let why: Vec<_> = why.filter_map(serde_json::Value::as_str).collect();
        assert_eq!(why.len(), 1, "{left_out}");
        assert!(why[0].contains(reason) && why[0].contains(fix), "{why:?}");
        device.sync();
        device.verify();
    }
    let there =
        "SELECT group_concat(name) FROM sqlite_schema WHERE name IN ('odd', 'child', 'keyless')";
    assert_eq!(rows(&server.database(), there), "NULL");
}

#[test]
fn ca14_a_table_too_wide_is_left_out_and_the_widest_syncs() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let wide = |name: &str, columns: usize| {
        let columns: Vec<_> = (1..columns).map(|i| format!("c{i}")).collect();
        format!(
            "CREATE TABLE {name} (id TEXT PRIMARY KEY NOT NULL, {}); INSERT INTO {name} (id, c1, c900) VALUES ('a', 1, 2);",
            columns.join(", ")
        )
    };
    let both = wide("widest", 1900) + &wide("wider", 1901);
    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    scratch.database("laptop.db", &both);
    laptop.say("attach", &["--yes"]).expect(exit::DONE).says(&[
        "left out: wider: it has 1901 columns",
        "move columns to another table, so that each has at most 1900",
    ]);
    laptop.sync();
    laptop.sql("UPDATE widest SET c1899 = 'last'");
    laptop.sync();
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    assert_eq!(phone.rows("SELECT c1, c900, c1899 FROM widest"), "1|2|last");
    assert_eq!(laptop.verify(), phone.verify());
}

#[test]
fn ca14_a_file_with_our_names_in_it_is_left_alone() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    for (file, statement, name) in [
        (
            "a.db",
            "CREATE TABLE syncline_stuff (id TEXT)",
            "syncline_stuff",
        ),
        (
            "b.db",
            "CREATE VIEW Syncline_view AS SELECT 1",
            "Syncline_view",
        ),
        (
            "c.db",
            "CREATE TRIGGER syncline_t AFTER INSERT ON notes BEGIN SELECT 1; END",
            "syncline_t",
        ),
    ] {
        let sql = format!("CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL); {statement};");
        scratch.database(file, &sql);
        let device = Device::new(&scratch, &server, file, "ana");
        let before = std::fs::read(&device.file).expect("the file");
        device
            .run("attach", &["--yes"])
            .expect(exit::TABLE_UNFIT)
            .says(&[name, "begins with syncline_", "rename it"]);
        assert_eq!(std::fs::read(&device.file).expect("the file"), before);
    }
}

/// An app that leaves foreign keys off may declare some that lead nowhere.
#[test]
fn ca14_references_that_lead_nowhere_do_not_stop_anything() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let sql = "
        PRAGMA foreign_keys = OFF;
        CREATE TABLE parents (id TEXT PRIMARY KEY NOT NULL, code TEXT);
        CREATE TABLE a (id TEXT PRIMARY KEY NOT NULL, x TEXT REFERENCES no_such_table);
        CREATE TABLE b (id TEXT PRIMARY KEY NOT NULL, x TEXT REFERENCES parents (code));
        CREATE TABLE c (id TEXT PRIMARY KEY NOT NULL, x TEXT REFERENCES parents (no_such_column));
        INSERT INTO a VALUES ('1', 'x'); INSERT INTO b VALUES ('1', 'x'); INSERT INTO c VALUES ('1', 'x');";
    let laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", sql);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    phone.sql("PRAGMA foreign_keys = ON; UPDATE a SET x = 'y'; DELETE FROM c");
    phone.sync();
    laptop.sync();
    assert_eq!(laptop.rows("SELECT x FROM a"), "y");
    assert_eq!(laptop.verify(), 2);
}

/// What an app's triggers forbid or call is the app's own affair.
#[test]
fn ca14_triggers_with_the_apps_own_functions_do_not_matter() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let sql = "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, text TEXT);
               CREATE TRIGGER sound AFTER INSERT ON notes BEGIN SELECT soundex_of(new.text); END;
               CREATE TRIGGER full BEFORE INSERT ON notes WHEN (SELECT count(*) FROM notes) > 1 BEGIN SELECT RAISE(FAIL, 'full'); END;
               INSERT INTO notes VALUES ('n1', 'x');";
    let laptop = with_app(&scratch, &server, "laptop.db", sql);
    laptop.run("attach", &["--yes"]).expect(exit::DONE);
    laptop.sync();
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    phone.sql("INSERT INTO notes VALUES ('n2', 'y'), ('n3', 'z')");
    phone.sync();
    laptop.sync();
    assert_eq!(laptop.rows("SELECT count(*) FROM notes"), "3");
    assert_eq!(laptop.verify(), 3);
}

#[test]
fn two_databases_that_were_never_one_are_left_as_they_are() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let schema = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT);
                  CREATE TABLE tags (note INTEGER REFERENCES notes, tag TEXT, PRIMARY KEY (note, tag));";
    let first = format!(
        "{schema} INSERT INTO notes VALUES (1, 'one'), (2, 'two'); INSERT INTO tags VALUES (1, 'a');"
    );
    let _laptop = Device::seeded(&scratch, &server, "laptop.db", "ana", &first);
    let second = format!(
        "{schema} INSERT INTO notes VALUES (1, 'eins'), (2, 'zwei'), (3, 'drei'); INSERT INTO tags VALUES (3, 'a');"
    );
    let stranger = Device::new(&scratch, &server, "stranger.db", "ana");
    scratch.database("stranger.db", &second);

    let dump = || {
        let conn = open(&server.database());
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE '%WITHOUT ROWID%' OR name IN ('notes', 'tags') ORDER BY 1";
        let names: Vec<String> = conn
            .prepare(tables)
            .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
            .expect("the tables");
        let counts = names.iter().map(|name| {
            let rows = rows(&server.database(), &format!("SELECT * FROM \"{name}\""));
            format!("{name}: {rows}")
        });
        counts.collect::<Vec<_>>()
    };
    let there = dump();
    let here = std::fs::read(&stranger.file).expect("the file");
    for args in [&[][..], &["--yes"], &["--tables", "notes", "--yes"]] {
        stranger.run("attach", args).expect(exit::DOUBT).says(&[
            "2 rows",
            "the same key as a row on the server and other content",
            "nothing was changed",
            "hydrate a new file",
            "give one side other keys",
        ]);
        assert_eq!(std::fs::read(&stranger.file).expect("the file"), here);
        assert_eq!(dump(), there);
    }
    // Attached without a server, it is found out when the two meet.
    let offline = ["attach", "stranger.db", "--yes"];
    scratch.run(&offline).expect(exit::DONE);
    stranger.run("sync", &[]).expect(exit::DOUBT);
    assert_eq!(dump(), there);
    assert_eq!(
        stranger.rows("SELECT text FROM notes ORDER BY id"),
        "eins\nzwei\ndrei"
    );
}
