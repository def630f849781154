//! Capture comes, stays through the app's migrations, and goes without a trace.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use rusqlite::Connection;
use syncline_core::{Row, RowKey, Timestamp, digest::content_hash};
use syncline_replica::{
    capture::{
        Before, Comparison, DraftChange, Finding, KnownRows, Objects, check, has_marks, install,
        remove_everything, rescan, schema_version,
    },
    rows::{RowError, TableSql},
};

use crate::{
    capture_fixture::{Captured, dump},
    fixture::database,
};

const APP: &str = "
    PRAGMA user_version = 7; PRAGMA application_id = 99;
    CREATE TABLE notes(id TEXT PRIMARY KEY NOT NULL, title TEXT UNIQUE, body, up AS (upper(title)));
    CREATE INDEX \"by body\" ON notes(body) WHERE body IS NOT NULL;
    CREATE UNIQUE INDEX lowered ON notes(lower(title));
    CREATE TABLE pairs(a INT, b TEXT, PRIMARY KEY(a, b)) WITHOUT ROWID;
    CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
    CREATE TABLE _sqlx_migrations(version BIGINT PRIMARY KEY);
    CREATE VIRTUAL TABLE search USING fts5(title, content=notes);
    CREATE TRIGGER searching AFTER INSERT ON notes BEGIN
        INSERT INTO search(rowid, title) VALUES (NEW.rowid, NEW.title); END;
    CREATE VIEW titles AS SELECT title FROM notes;
    INSERT INTO notes(id, title) VALUES ('a', 'A'), ('b', 'B');
    INSERT INTO pairs VALUES (1, 'x'); INSERT INTO counted(v) VALUES (1), (2); ANALYZE;";

fn schema(conn: &Connection) -> Vec<String> {
    let mut statement = conn
        .prepare(
            "SELECT rowid, type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid",
        )
        .unwrap();
    let rows = statement.query_map([], |row| {
        let values: Vec<String> = (0..6)
            .map(|i| format!("{:?}", row.get_ref(i).unwrap()))
            .collect();
        Ok(values.join(" "))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn settings(conn: &Connection) -> Vec<i64> {
    [
        "user_version",
        "application_id",
        "auto_vacuum",
        "page_size",
        "foreign_keys",
        "legacy_file_format",
    ]
    .iter()
    .filter_map(|name| {
        conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
            .ok()
    })
    .collect()
}

#[test]
fn ca_detaching_restores_the_schema_byte_for_byte() {
    let conn = database(APP);
    let (before, before_settings) = (schema(&conn), settings(&conn));
    let db = Captured::on(conn);
    db.run(
        "INSERT INTO notes(id, title) VALUES ('c', 'C'); DELETE FROM pairs; INSERT INTO counted(v) VALUES (3);
         ANALYZE; UPDATE syncline_tx SET n = n + 1; REPLACE INTO notes(id, title) VALUES ('d', 'a')",
    );
    assert!(schema(&db.conn).len() > before.len() + 10);
    let rows = dump(&db.conn, &db.tables);
    db.run("BEGIN");
    remove_everything(&db.conn).unwrap();
    db.run("COMMIT");
    assert_eq!(schema(&db.conn), before);
    assert_eq!(settings(&db.conn), before_settings);
    assert_eq!(dump(&db.conn, &db.tables), rows);
    let left: i64 = db
        .conn
        .query_row(
            "SELECT count(*) FROM sqlite_stat1 WHERE tbl LIKE 'syncline%'",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(left, 0);
    db.run("INSERT INTO search(search) VALUES ('integrity-check'); PRAGMA integrity_check");
}

fn findings(db: &Captured) -> Vec<Finding> {
    check(&db.conn, &Objects::read(&db.conn).unwrap(), &db.tables).unwrap()
}

#[test]
fn ca8_what_changes_the_schema_under_capture_is_found() {
    use Finding::{Altered, Changed, Gone, Intact};
    let setup = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u, v); CREATE TABLE s(id INTEGER PRIMARY KEY)";
    let trigger = |db: &Captured, name: &str| -> String {
        let sql = "SELECT sql FROM sqlite_schema WHERE name = ?1";
        db.conn.query_row(sql, [name], |row| row.get(0)).unwrap()
    };
    let after = |sql: &str| {
        let db = Captured::new(setup);
        let version = schema_version(&db.conn).unwrap();
        assert_eq!(findings(&db), [Intact, Intact]);
        db.run(sql);
        assert_ne!(schema_version(&db.conn).unwrap(), version, "{sql}");
        findings(&db)
    };
    for harmless in [
        "CREATE TABLE other(a)",
        "CREATE INDEX i ON t(u)",
        "CREATE TRIGGER app AFTER UPDATE ON t BEGIN SELECT 1; END",
        "CREATE VIEW v AS SELECT * FROM t",
    ] {
        assert_eq!(after(harmless), [Intact, Intact], "{harmless}");
    }
    for altering in [
        "ALTER TABLE t ADD COLUMN w",
        "ALTER TABLE t DROP COLUMN v",
        "ALTER TABLE t RENAME COLUMN v TO w",
        "ALTER TABLE t RENAME COLUMN id TO key",
    ] {
        assert_eq!(after(altering), [Altered, Intact], "{altering}");
    }
    for changing in [
        "DROP TRIGGER syncline_16_update",
        "CREATE UNIQUE INDEX i ON t(u)",
        "DROP TABLE syncline_mark_16",
        "DROP INDEX syncline_mark_16_key",
        "CREATE TABLE n(id TEXT PRIMARY KEY NOT NULL, u, v); INSERT INTO n SELECT * FROM t; DROP TABLE t;
         ALTER TABLE n RENAME TO t",
    ] {
        assert_eq!(after(changing), [Changed, Intact], "{changing}");
    }
    assert_eq!(after("DROP TABLE t"), [Gone, Intact]);
    assert_eq!(after("ALTER TABLE t RENAME TO renamed"), [Gone, Intact]);
    assert_eq!(after("DROP TABLE syncline_tx"), [Changed, Changed]);
    assert_eq!(after("DROP TABLE syncline_capture"), [Changed, Changed]);

    // Tools save triggers and make them again, with the same text.
    let db = Captured::new(setup);
    let saved = trigger(&db, "syncline_16_delete");
    db.run(&format!(
        "DROP TRIGGER syncline_16_delete; DELETE FROM t; {saved}"
    ));
    assert_eq!(findings(&db), [Changed, Intact]);
    install(&db.conn, &db.tables).unwrap();
    assert_eq!(findings(&db), [Intact, Intact]);
}

#[test]
fn ca8_the_app_can_change_its_columns_while_capture_is_there() {
    let db = Captured::new(
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a, b, c); INSERT INTO t VALUES ('x', 1, 2, 3)",
    );
    db.run(
        "ALTER TABLE t DROP COLUMN a; UPDATE t SET b = 20; INSERT INTO t VALUES ('y', 5, 6);
         ALTER TABLE t RENAME COLUMN b TO bb; ALTER TABLE t ADD COLUMN d DEFAULT 'new';
         UPDATE t SET c = 30 WHERE id = 'x'; DELETE FROM t WHERE id = 'y'; INSERT INTO t VALUES ('z', 1, 2, 3)",
    );
    assert_eq!(findings(&db), [Finding::Altered]);
    // What the app has now.
    let mut table =
        syncline_replica::introspect::read_table(&db.conn, &Objects::read(&db.conn).unwrap(), "t")
            .unwrap()
            .unwrap();
    for (column, number) in table.columns.iter_mut().zip([1, 9, 4, 5]) {
        column.number.0 = number;
    }
    let after = Captured {
        sql: vec![TableSql::new(&table)],
        tables: vec![table],
        conn: db.conn,
    };
    assert_snapshot!(after.changes("SELECT 1"), @r"
    t: x,20,3,new -> x,20,30,new
    t: - -> z,1,2,3
    ");
    install(&after.conn, &after.tables).unwrap();
    assert_eq!(findings(&after), [Finding::Intact]);
    assert_snapshot!(after.changes("UPDATE t SET d = 'more' WHERE id = 'x'"),
        @"t: x,20,30,new -> x,20,30,more");
}

/// What an engine would know: a hash for each row.
struct Known<'a> {
    sql: &'a TableSql,
    hashes: BTreeMap<RowKey, u64>,
    found: Vec<DraftChange>,
    unfit: Vec<String>,
}

impl<'a> Known<'a> {
    fn new(db: &'a Captured) -> Self {
        let sql = &db.sql[0];
        let hash = |row: Row| {
            (
                row.key(sql.table()).unwrap(),
                content_hash(sql.table(), &row),
            )
        };
        let hashes = sql
            .scan(&db.conn, None, usize::MAX)
            .unwrap()
            .into_iter()
            .map(hash)
            .collect();
        Self {
            sql,
            hashes,
            found: Vec::new(),
            unfit: Vec::new(),
        }
    }
}

impl KnownRows for Known<'_> {
    type Error = RowError;

    fn compare(&mut self, key: &RowKey, row: &Row) -> Result<Comparison, RowError> {
        Ok(match self.hashes.get(key) {
            None => Comparison::Unknown,
            Some(&hash) if hash == content_hash(self.sql.table(), row) => Comparison::Same,
            Some(_) => Comparison::Different,
        })
    }

    fn keys_after(
        &mut self,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<RowKey>, RowError> {
        let later = self
            .hashes
            .keys()
            .filter(|key| after.is_none_or(|after| *key > after));
        Ok(later.take(limit).cloned().collect())
    }

    fn found(&mut self, change: DraftChange) -> Result<(), RowError> {
        self.found.push(change);
        Ok(())
    }

    fn unfit(&mut self, error: RowError) -> Result<(), RowError> {
        self.unfit.push(error.to_string());
        Ok(())
    }
}

#[test]
fn ca8_rescan_finds_what_was_written_unmarked() {
    let db = Captured::new("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let numbers = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3000)";
    db.run(&format!("INSERT INTO t {numbers} SELECT i, i FROM c"));
    db.take();
    let mut known = Known::new(&db);
    db.run(
        "CREATE TABLE n(id INTEGER PRIMARY KEY, v); INSERT INTO n SELECT * FROM t; DROP TABLE t;
         ALTER TABLE n RENAME TO t; UPDATE t SET v = 'changed' WHERE id = 7; DELETE FROM t WHERE id > 2999;
         INSERT INTO t VALUES (-1, 'new'); UPDATE t SET v = CAST(x'ff' AS TEXT) WHERE id = 9",
    );
    assert_eq!(findings(&db), [Finding::Changed]);
    assert_eq!(db.take().drafts, []);
    install(&db.conn, &db.tables).unwrap();
    let now = Timestamp(5);
    let total = rescan(&db.conn, &db.sql[0], &mut known, now).unwrap();
    assert_eq!((total.rows, total.changed), (3000, 3));
    let found: Vec<_> = known
        .found
        .iter()
        .map(|c| {
            (
                c.key.to_string(),
                c.before == Before::Unknown,
                c.after.is_some(),
            )
        })
        .collect();
    let expected = [
        ("-1", false, true),
        ("7", true, true),
        ("3000", true, false),
    ];
    assert_eq!(
        found,
        expected.map(|(key, unknown, present)| (key.to_owned(), unknown, present))
    );
    assert!(
        known
            .found
            .iter()
            .all(|change| change.first_marked_at == now)
    );
    assert_eq!(known.unfit.len(), 1);
}

#[test]
fn ca1_two_hundred_tables() {
    let setup: String = (0..200)
        .map(|i| format!("CREATE TABLE t{i}(id TEXT PRIMARY KEY NOT NULL, a UNIQUE, b, c, d, e);"))
        .collect();
    let db = Captured::new(&setup);
    db.conn.set_prepared_statement_cache_capacity(2000);
    assert_eq!(findings(&db), vec![Finding::Intact; 200]);
    assert!(!has_marks(&db.conn).unwrap());
    db.run("INSERT INTO t7(id) VALUES ('x'); UPDATE syncline_tx SET n = n + 1; INSERT INTO t199(id) VALUES ('y')");
    let taken = db.take();
    assert_eq!(taken.drafts.len(), 2);
    assert!(!has_marks(&db.conn).unwrap());
    remove_everything(&db.conn).unwrap();
    assert_eq!(schema(&db.conn).len(), 200 * 3);
}

#[test]
fn ca8_damaged_marks_do_not_stop_sealing() {
    let db = Captured::new(
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES ('a', 1)",
    );
    db.run("DELETE FROM syncline_tx; UPDATE t SET v = 2");
    assert_eq!(findings(&db), [Finding::Changed]);
    assert!(has_marks(&db.conn).unwrap());
    assert_snapshot!(db.changes("SELECT 1"), @"t: a,1 -> a,2");
    db.run("UPDATE t SET v = 3; DROP TABLE syncline_tx; DROP TABLE syncline_unmarked");
    assert_snapshot!(db.changes("SELECT 1"), @"t: a,2 -> a,3");
    install(&db.conn, &db.tables).unwrap();
    assert_snapshot!(db.changes("UPDATE t SET v = 4"), @"t: a,3 -> a,4");
}
