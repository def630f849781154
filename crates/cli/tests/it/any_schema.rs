//! Whatever an app's schema has: two devices edit it, and both and the server end the same.

use rusqlite::{Connection, params};

use crate::support::{Device, Scratch, Server, exit, open, rows, sync_all};

/// One of everything that SQLite lets an app declare.
const MENAGERIE: &str = "
    CREATE TABLE people (
      id TEXT PRIMARY KEY NOT NULL, email VARCHAR(80) COLLATE NOCASE UNIQUE, name TEXT NOT NULL DEFAULT 'nobody',
      born INT CHECK (born > 1800), died INT, deleted BOOLEAN NOT NULL DEFAULT 0, weight DECIMAL(5, 2),
      shout TEXT GENERATED ALWAYS AS (upper(name)) STORED, age AS (died - born) VIRTUAL,
      made DATETIME DEFAULT (strftime('%Y', 'now')), CHECK (died >= born));
    CREATE UNIQUE INDEX one_living_name ON people (lower(name)) WHERE deleted = 0;
    CREATE INDEX by_birth ON people (born DESC, email COLLATE RTRIM);
    CREATE INDEX by_shout ON people (shout);
    CREATE TABLE visits (person TEXT REFERENCES people ON DELETE CASCADE, day INTEGER, note TEXT, extra JSON,
      PRIMARY KEY (person, day)) WITHOUT ROWID;
    CREATE TABLE typed (id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT;
    CREATE TABLE seats (id TEXT PRIMARY KEY NOT NULL, place INTEGER NOT NULL UNIQUE);
    CREATE TABLE \"odd \"\"name\"\" é\" (\"the key\" UUID PRIMARY KEY NOT NULL, \"select\" TEXT, \";--\" TEXT);
    CREATE VIEW grown_ups AS SELECT id, name FROM people WHERE age > 18;";

const FULL: &str = "
    INSERT INTO people (id, email, name, born, died, weight) VALUES
      ('p1', 'Ana@x.org', 'Ana', 1900, 1990, 71.5), ('p2', 'bob@x.org', 'Bob', 1950, NULL, 80), ('p3', NULL, 'Cy', NULL, NULL, NULL);
    INSERT INTO visits VALUES ('p1', 1, 'first', '{\"a\":[1,2]}'), ('p1', 2, NULL, '\"5\"'), ('p2', 1, '', 'null');
    INSERT INTO typed VALUES (1, 5, 1.5, 'x', x'00ff', 'any'), (2, NULL, NULL, NULL, NULL, 7);
    INSERT INTO seats VALUES ('s1', 1), ('s2', 2), ('s3', 3);
    INSERT INTO \"odd \"\"name\"\" é\" VALUES ('5e0a6c1e-0000-4000-8000-000000000001', 'a', 'b');";

/// A device of an app that makes its own tables, with no rows of its own.
fn empty<'a>(scratch: &'a Scratch, server: &Server<'_>, file: &str, schema: &str) -> Device<'a> {
    let device = Device::new(scratch, server, file, "ana");
    scratch.database(file, schema);
    device.run("attach", &["--yes"]).expect(exit::DONE);
    device.sync();
    device
}

fn two<'a>(
    scratch: &'a Scratch,
    server: &Server<'_>,
    schema: &str,
    full: &str,
) -> (Device<'a>, Device<'a>) {
    let first = format!("{schema}{full}");
    let laptop = Device::seeded(scratch, server, "laptop.db", "ana", &first);
    let phone = empty(scratch, server, "phone.db", schema);
    (laptop, phone)
}

/// Everything in these tables, types included.
fn content(device: &Device<'_>, tables: &[&str]) -> String {
    let conn = open(&device.file);
    let mut out = String::new();
    for table in tables {
        let columns: Vec<String> = conn
            .prepare(&format!(
                "SELECT format('%s||'' ''||quote(\"%w\")', CASE WHEN cid THEN '' ELSE '' END || 'typeof(\"' || replace(name, '\"', '\"\"') || '\")', name) FROM pragma_table_xinfo('{}')",
                table.replace('\'', "''")
            ))
            .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
            .expect("the columns");
        let name = table.replace('"', "\"\"");
        let text = columns.join("||', '||");
        out += &format!("{table}\n");
        out += &rows(
            &device.file,
            &format!("SELECT {text} FROM \"{name}\" ORDER BY 1"),
        );
        out.push('\n');
    }
    out
}

const TABLES: [&str; 5] = ["people", "visits", "typed", "seats", "odd \"name\" é"];

/// What the tables are, apart from the names of their indexes. UUID and JSON are TEXT where
/// Syncline makes the table: SQLite would turn some of their values into numbers.
fn structure(device: &Device<'_>) -> String {
    let tables = TABLES.map(|name| format!("'{}'", name.replace('\'', "''")));
    let tables = tables.join(", ");
    let columns = format!(
        "SELECT l.name, x.name, CASE WHEN x.type IN ('UUID', 'JSON') THEN 'TEXT' ELSE x.type END, x.\"notnull\" OR x.pk, x.dflt_value, x.pk, x.hidden, l.wr, l.strict
         FROM pragma_table_list AS l, pragma_table_xinfo(l.name) AS x
         WHERE l.schema = 'main' AND l.name IN ({tables}) ORDER BY l.name, x.cid"
    );
    let indexes = format!(
        "SELECT l.name, i.\"unique\", i.partial,
           (SELECT group_concat(coalesce(x.name, '()') || ' ' || x.\"desc\" || ' ' || x.coll) FROM pragma_index_xinfo(i.name) AS x WHERE x.key) AS terms
         FROM pragma_table_list AS l, pragma_index_list(l.name) AS i
         WHERE l.schema = 'main' AND l.name IN ({tables}) ORDER BY l.name, terms, i.partial"
    );
    let keys = format!(
        "SELECT l.name, k.\"table\", k.\"from\", k.on_delete FROM pragma_table_list AS l, pragma_foreign_key_list(l.name) AS k
         WHERE l.schema = 'main' AND l.name IN ({tables}) ORDER BY 1, 2, 3"
    );
    [columns, indexes, keys]
        .map(|query| device.rows(&query))
        .join("\n\n")
}

#[test]
fn ca15_hydrating_makes_the_tables_that_the_app_made() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(
        &scratch,
        &server,
        "laptop.db",
        "ana",
        &format!("{MENAGERIE}{FULL}"),
    );
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    assert_eq!(structure(&phone), structure(&laptop));
    assert_eq!(content(&phone, &TABLES), content(&laptop, &TABLES));
    let conn = open(&phone.file);
    for wrong in [
        "INSERT INTO people (id, name) VALUES ('q', 'ANA')",
        "INSERT INTO people (id, email) VALUES ('q', 'BOB@X.ORG')",
        "UPDATE people SET born = 1700",
        "UPDATE people SET died = 1899 WHERE id = 'p1'",
        "INSERT INTO typed (id, i) VALUES (9, 'no number')",
        "INSERT INTO visits VALUES ('nobody', 1, '', '')",
    ] {
        conn.execute_batch("PRAGMA foreign_keys = ON")
            .and_then(|()| conn.execute_batch(wrong))
            .expect_err(wrong);
    }
    drop(conn);
    // Restarted, the server has the same tables, and learns nothing twice.
    phone.sql("UPDATE people SET name = 'Dora' WHERE id = 'p3'");
    sync_all(&[&phone, &laptop]);
    assert_eq!(
        laptop.rows("SELECT shout FROM people WHERE id = 'p3'"),
        "DORA"
    );
    assert_eq!(laptop.verify(), phone.verify());
}

#[test]
fn ca15_a_server_keeps_what_it_learned_of_tables_through_a_restart() {
    let scratch = Scratch::new();
    let mut server = Server::dev(&scratch, "data");
    let laptop = Device::seeded(
        &scratch,
        &server,
        "laptop.db",
        "ana",
        &format!("{MENAGERIE}{FULL}"),
    );
    server.terminate();
    server.restart();
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    assert_eq!(structure(&phone), structure(&laptop));
    assert_eq!(phone.verify(), laptop.verify());
}

#[test]
fn edits_of_every_table_on_both_sides_meet() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let (laptop, phone) = two(&scratch, &server, MENAGERIE, FULL);
    laptop.sql(
        "UPDATE people SET name = 'Anna', weight = 72.25 WHERE id = 'p1'; DELETE FROM visits WHERE person = 'p2';
         UPDATE typed SET a = x'01', r = -0.0 WHERE id = 1; UPDATE \"odd \"\"name\"\" é\" SET \";--\" = NULL;
         INSERT INTO seats VALUES ('s4', 4); UPDATE people SET deleted = 1 WHERE id = 'p2';",
    );
    phone.sql(
        "UPDATE people SET died = 1991 WHERE id = 'p1'; INSERT INTO visits VALUES ('p3', 9, 'new', '[1]');
         UPDATE typed SET i = 9223372036854775807, t = 'y' WHERE id = 1; INSERT INTO typed (id, i) VALUES (-9223372036854775808, -9223372036854775808);
         UPDATE \"odd \"\"name\"\" é\" SET \"select\" = 'c'; INSERT INTO people (id, name, born) VALUES ('p4', 'Eve', 1999);",
    );
    sync_all(&[&laptop, &phone]);
    let here = content(&laptop, &TABLES);
    assert_eq!(content(&phone, &TABLES), here);
    assert_eq!(
        phone.rows("SELECT name, weight, died, shout, age FROM people WHERE id = 'p1'"),
        "Anna|72.25|1991|ANNA|91"
    );
    assert_eq!(
        laptop.rows("SELECT quote(i), quote(r), quote(t), quote(a) FROM typed WHERE id = 1"),
        "9223372036854775807|0.0|'y'|X'01'"
    );
    assert_eq!(phone.rows("SELECT * FROM grown_ups"), "p1|Anna");
    // The name of somebody deleted is free: the partial index says so on every side.
    phone.sql("INSERT INTO people (id, name) VALUES ('p5', 'bob')");
    sync_all(&[&laptop, &phone]);
    assert_eq!(
        laptop.rows("SELECT count(*) FROM people WHERE lower(name) = 'bob'"),
        "2"
    );
    assert_eq!(laptop.verify(), phone.verify());
}

#[test]
fn ce2_every_value_and_every_string_arrives_as_it_is() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let schema =
        "CREATE TABLE v (id INTEGER PRIMARY KEY, t TEXT, r REAL, i INTEGER, b BLOB, x, n NUMERIC);";
    let (laptop, phone) = two(&scratch, &server, schema, "");
    let strings = [
        "",
        "a\0b",
        "\0",
        "\u{d7ff}\u{e000}",
        "😀👩‍👩‍👧‍👦",
        "e\u{301} é",
        "\u{10ffff}\u{fffe}",
        "\u{feff}bom",
        "\u{202e}rtl",
        "\u{fffd}",
        "a\r\n\t\u{1b}",
        "ﬀ İ ı ß",
        "it's \"quoted\" -- ; \\",
        "123",
        "1e3",
    ];
    let reals = [
        -0.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE,
        5e-324,
        1.797_693_134_862_315_7e308,
        0.1,
        9_007_199_254_740_993.0,
    ];
    let integers = [
        i64::MAX,
        i64::MIN,
        0,
        -1,
        (1 << 53) + 1,
        i64::from(i32::MAX) + 1,
    ];
    let write = |device: &Device<'_>, from: i64| {
        let conn = open(&device.file);
        for i in 0..15_usize {
            let id = from + i64::try_from(i).expect("few");
            let blob = strings[14 - i].as_bytes();
            let numbers = (reals[i % reals.len()], integers[i % integers.len()]);
            conn.execute(
                "INSERT INTO v VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?2)",
                params![id, strings[i], numbers.0, numbers.1, blob, numbers.0],
            )
            .expect("a row");
        }
    };
    write(&laptop, 0);
    write(&phone, 100);
    let big = vec![0xa5_u8; 10 * 1024 * 1024];
    open(&phone.file)
        .execute("INSERT INTO v (id, b) VALUES (1000, ?1)", [&big])
        .expect("a large row");
    sync_all(&[&laptop, &phone]);
    let here = content(&laptop, &["v"]);
    assert_eq!(content(&phone, &["v"]), here);
    // What each wrote is what it has: nothing was changed on the way round.
    let text = |device: &Device<'_>, id: i64| -> Vec<u8> {
        let conn = open(&device.file);
        conn.query_row("SELECT CAST(t AS BLOB) FROM v WHERE id = ?1", [id], |r| {
            r.get(0)
        })
        .expect("a text")
    };
    for (i, string) in (0_i64..).zip(strings) {
        for device in [&laptop, &phone] {
            assert_eq!(text(device, i), string.as_bytes(), "{string:?}");
            assert_eq!(text(device, 100 + i), string.as_bytes(), "{string:?}");
        }
    }
    assert_eq!(
        phone.rows("SELECT quote(r), quote(i), typeof(x) FROM v WHERE id IN (0, 1, 2) ORDER BY id"),
        "0.0|9223372036854775807|real\nNULL|-9223372036854775808|null\n9.0e+999|0|real"
    );
    assert_eq!(
        laptop.rows("SELECT length(b), hex(substr(b, -1)) FROM v WHERE id = 1000"),
        "10485760|A5"
    );
    assert_eq!(laptop.verify(), phone.verify());
}

#[test]
fn ap5_what_the_apps_triggers_wrote_is_not_written_again_elsewhere() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let schema = "
        CREATE TABLE orders (id TEXT PRIMARY KEY NOT NULL, total INTEGER DEFAULT 0, updated_at INTEGER DEFAULT 0);
        CREATE TABLE ledger (id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(hex(randomblob(16)))), order_id TEXT, total INTEGER);
        CREATE TABLE counts (name TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL);
        CREATE TRIGGER touch AFTER UPDATE OF total ON orders BEGIN
          UPDATE orders SET updated_at = updated_at + 1 WHERE id = new.id; END;
        CREATE TRIGGER book AFTER INSERT ON orders BEGIN
          INSERT INTO ledger (order_id, total) VALUES (new.id, new.total);
          UPDATE counts SET n = n + 1 WHERE name = 'orders'; END;
        CREATE TRIGGER frozen BEFORE UPDATE OF id ON orders BEGIN SELECT RAISE(ABORT, 'orders keep their ids'); END;
        CREATE TRIGGER no_delete BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;";
    let (laptop, phone) = two(
        &scratch,
        &server,
        schema,
        "INSERT INTO counts VALUES ('orders', 0);",
    );
    laptop.sql(
        "INSERT INTO orders (id, total) VALUES ('o1', 5); UPDATE orders SET total = 6 WHERE id = 'o1'",
    );
    sync_all(&[&laptop, &phone]);
    phone.sql("UPDATE orders SET total = 7 WHERE id = 'o1'; INSERT INTO orders (id, total) VALUES ('o2', 9)");
    sync_all(&[&phone, &laptop]);
    for device in [&laptop, &phone] {
        assert_eq!(
            device.rows("SELECT * FROM orders ORDER BY id"),
            "o1|7|2\no2|9|0"
        );
        assert_eq!(
            device.rows("SELECT order_id, total FROM ledger ORDER BY 1"),
            "o1|5\no2|9"
        );
        assert_eq!(device.rows("SELECT n FROM counts"), "2");
    }
    // What the app may not do, the engine does: a row that is taken back at the server goes.
    crate::support::sql(
        &server.database(),
        "DELETE FROM ledger WHERE order_id = 'o2'",
    );
    sync_all(&[&laptop, &phone]);
    for device in [&laptop, &phone] {
        assert_eq!(device.rows("SELECT order_id FROM ledger"), "o1");
    }
    assert_eq!(laptop.verify(), phone.verify());
}

#[test]
fn ca6_a_parent_deleted_here_and_a_child_added_there_leave_no_orphan() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let (laptop, phone) = two(&scratch, &server, MENAGERIE, FULL);
    laptop.sql("PRAGMA foreign_keys = ON; DELETE FROM people WHERE id = 'p1'");
    assert_eq!(
        laptop.rows("SELECT count(*) FROM visits WHERE person = 'p1'"),
        "0"
    );
    phone.sql("INSERT INTO visits VALUES ('p1', 3, 'too late', NULL), ('p2', 3, 'in time', NULL)");
    laptop.sync();
    phone.sync();
    sync_all(&[&laptop, &phone]);
    for device in [&laptop, &phone] {
        assert_eq!(device.rows("PRAGMA foreign_key_check"), "");
        assert_eq!(device.rows("SELECT id FROM people ORDER BY id"), "p2\np3");
        assert_eq!(
            device.rows("SELECT person, note FROM visits ORDER BY 1, 2 DESC"),
            device.rows("SELECT person, note FROM visits WHERE person = 'p2' ORDER BY 1, 2 DESC")
        );
    }
    let parked = phone.run("queue", &["list"]).expect(exit::DONE);
    assert!(parked.stdout.contains("constraint"), "{parked:#?}");
    // The other visit was written in one with the late one: it waits with it.
    assert_eq!(laptop.verify(), 9);
}

#[test]
fn ap6_unique_values_are_swapped() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let (laptop, phone) = two(&scratch, &server, MENAGERIE, FULL);
    laptop.sql(
        "BEGIN; UPDATE seats SET place = -1 WHERE id = 's1'; UPDATE seats SET place = 1 WHERE id = 's2'; UPDATE seats SET place = 2 WHERE id = 's1';
         UPDATE people SET name = 'x' WHERE id = 'p1'; UPDATE people SET name = 'ana' WHERE id = 'p2'; UPDATE people SET name = 'bob' WHERE id = 'p1'; COMMIT;",
    );
    phone.sql("UPDATE seats SET place = 9 WHERE id = 's3'");
    sync_all(&[&laptop, &phone]);
    for device in [&laptop, &phone] {
        assert_eq!(
            device.rows("SELECT id, place FROM seats ORDER BY id"),
            "s1|2\ns2|1\ns3|9"
        );
        assert_eq!(
            device.rows("SELECT id, name FROM people ORDER BY id"),
            "p1|bob\np2|ana\np3|Cy"
        );
        device.verify();
    }
    // Both take what only one can have: the server decides, and both end the same.
    laptop.sql("INSERT INTO people (id, name) VALUES ('l', 'Zoe')");
    phone.sql("INSERT INTO people (id, name) VALUES ('p', 'ZOE')");
    sync_all(&[&laptop, &phone]);
    let zoes = "SELECT id FROM people WHERE lower(name) = 'zoe'";
    assert_eq!(laptop.rows(zoes), "l");
    assert_eq!(rows(&server.database(), zoes), "l");
    assert_eq!(phone.status()["parked"], 1, "the phone is told");
    assert_eq!(laptop.verify(), 13);
}

const SEARCH: &str = "
    CREATE TABLE docs (id INTEGER PRIMARY KEY, title TEXT, body TEXT);
    CREATE VIRTUAL TABLE docs_fts USING fts5(title, body, content='docs', content_rowid='id');
    CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN
      INSERT INTO docs_fts(rowid, title, body) VALUES (new.id, new.title, new.body); END;
    CREATE TRIGGER docs_ad AFTER DELETE ON docs BEGIN
      INSERT INTO docs_fts(docs_fts, rowid, title, body) VALUES ('delete', old.id, old.title, old.body); END;
    CREATE TRIGGER docs_au AFTER UPDATE ON docs BEGIN
      INSERT INTO docs_fts(docs_fts, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
      INSERT INTO docs_fts(rowid, title, body) VALUES (new.id, new.title, new.body); END;
    CREATE VIRTUAL TABLE loose USING fts5(words, content='');
    CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1);
    INSERT INTO loose(rowid, words) VALUES (1, 'nobody syncs this');
    INSERT INTO boxes VALUES (1, 0, 1);";

fn found(device: &Device<'_>, word: &str) -> String {
    device.rows(&format!(
        "SELECT docs.id FROM docs_fts JOIN docs ON docs.id = docs_fts.rowid WHERE docs_fts MATCH '{word}' ORDER BY 1"
    ))
}

fn index_is_right(device: &Device<'_>) {
    open(&device.file)
        .execute_batch("INSERT INTO docs_fts(docs_fts, rank) VALUES ('integrity-check', 1)")
        .unwrap_or_else(|error| panic!("{}: {error}", device.file.display()));
}

#[test]
fn ap5_a_full_text_index_follows_what_arrives() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    scratch.database(
        "laptop.db",
        &format!(
            "{SEARCH} INSERT INTO docs VALUES (1, 'one', 'apple pear'), (2, 'two', 'pear plum');"
        ),
    );
    let attached = laptop.run("attach", &["--yes"]).expect(exit::DONE);
    let tables: Vec<_> = attached
        .all("table")
        .iter()
        .map(|t| t["table"].clone())
        .collect();
    assert_eq!(tables, ["docs"], "indexes and their storage are left out");
    laptop.sync();
    let phone = empty(&scratch, &server, "phone.db", SEARCH);
    assert_eq!(found(&phone, "pear"), "1\n2");
    laptop.sql("UPDATE docs SET body = 'apple fig' WHERE id = 1; DELETE FROM docs WHERE id = 2; INSERT INTO docs VALUES (3, 'three', 'pear')");
    phone.sql("INSERT INTO docs VALUES (50, 'fifty', 'fig')");
    sync_all(&[&laptop, &phone]);
    for device in [&laptop, &phone] {
        assert_eq!(found(device, "pear"), "3");
        assert_eq!(found(device, "fig"), "1\n50");
        assert_eq!(found(device, "plum"), "");
        index_is_right(device);
        assert_eq!(device.rows("SELECT count(*) FROM boxes"), "1");
    }
    assert_eq!(laptop.verify(), 3);
    assert_eq!(
        rows(
            &server.database(),
            "SELECT group_concat(name) FROM sqlite_schema WHERE name LIKE 'docs%' AND type = 'table'"
        ),
        "docs"
    );
}

#[test]
fn ca2_writes_through_an_attached_database_are_captured() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let schema = "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, text TEXT);";
    let (laptop, phone) = two(&scratch, &server, schema, "");
    let other = scratch.database(
        "other.db",
        &format!("{schema} CREATE TABLE mine (id TEXT);"),
    );
    let conn = Connection::open(&other).expect("the app's own file");
    conn.execute(
        "ATTACH ?1 AS synced",
        [laptop.file.to_str().expect("a plain path")],
    )
    .expect("attach");
    conn.execute_batch(
        "BEGIN; INSERT INTO synced.notes VALUES ('n1', 'through the alias'), ('n2', 'too');
         INSERT INTO notes VALUES ('m1', 'in the other file'); INSERT INTO mine VALUES ('x'); COMMIT;
         UPDATE synced.notes SET text = 'changed' WHERE id = 'n2';",
    )
    .expect("writes to both files");
    drop(conn);
    sync_all(&[&laptop, &phone]);
    assert_eq!(
        phone.rows("SELECT * FROM notes ORDER BY id"),
        "n1|through the alias\nn2|changed"
    );
    assert_eq!(
        rows(
            &other,
            "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'syncline%'"
        ),
        "0"
    );
    assert_eq!(laptop.verify(), 2);
}
