//! Attaching and detaching a file with any schema and any settings.

use proptest::{collection::vec, prelude::*, sample::select};
use rusqlite::{Connection, types::Value};
use syncline_core::Timestamp;
use syncline_replica::{AttachOptions, Replica};
use tempfile::TempDir;

use crate::device::entropy;

/// Everything that the app put into its file, and what SQLite has in its header for it.
#[derive(Debug, PartialEq)]
struct Print {
    schema: Vec<Vec<Value>>,
    settings: Vec<(String, Value)>,
    rows: Vec<Vec<Value>>,
    check: Vec<Vec<Value>>,
}

fn query(conn: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = conn.prepare(sql).unwrap();
    let columns = statement.column_count();
    statement
        .query_map([], |row| (0..columns).map(|i| row.get(i)).collect())
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn print(conn: &Connection, tables: usize) -> Print {
    let settings = [
        "journal_mode",
        "page_size",
        "auto_vacuum",
        "encoding",
        "user_version",
        "application_id",
    ];
    let setting = |name: &&str| {
        let found = query(conn, &format!("PRAGMA {name}")).remove(0).remove(0);
        ((*name).to_owned(), found)
    };
    let rows = (0..tables).flat_map(|i| query(conn, &format!("SELECT * FROM \"t {i}\"")));
    Print {
        schema: query(conn, "SELECT type, name, tbl_name, sql FROM sqlite_schema"),
        settings: settings.iter().map(setting).collect(),
        rows: rows.collect(),
        check: query(conn, "PRAGMA integrity_check"),
    }
}

/// A table's statements; `{}` stands for its name.
fn table() -> impl Strategy<Value = Vec<&'static str>> {
    let made = select(vec![
        "CREATE TABLE {} (id INTEGER PRIMARY KEY, a TEXT, b)",
        "create table {} -- a comment\n(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT DEFAULT 'x', b)",
        "CREATE TABLE {}(id TEXT NOT NULL, a TEXT COLLATE NOCASE, b INT CHECK (b <> 3), PRIMARY KEY (id)) WITHOUT ROWID",
        "CREATE TABLE {} (id INT NOT NULL, a TEXT, b ANY, PRIMARY KEY (id, a)) STRICT",
        "CREATE TABLE {} (id UUID PRIMARY KEY NOT NULL, a TEXT UNIQUE, b AS (upper(a)) VIRTUAL)",
        "CREATE TABLE {} (id REAL PRIMARY KEY NOT NULL, a TEXT, b GENERATED ALWAYS AS (a || '!') STORED)",
        "CREATE TABLE {} (id TEXT, a TEXT, b)",
        "CREATE VIRTUAL TABLE {} USING fts5(id, a, b)",
        "CREATE TABLE {} (id TEXT PRIMARY KEY NOT NULL, a TEXT REFERENCES \"t 0\" ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, b JSON)",
    ]);
    let more = select(vec![
        "CREATE INDEX \"i {}\" ON {} (a DESC, b)",
        "CREATE UNIQUE INDEX \"u {}\" ON {} (lower(a)) WHERE a > 'm'",
        "CREATE VIEW \"v {}\" AS SELECT a, b FROM {} -- trailing",
        "CREATE TRIGGER \"g {}\" AFTER UPDATE ON {} BEGIN SELECT 1; END",
        "INSERT OR IGNORE INTO {} (id, a) VALUES (1, 'ä😀'), (2, NULL)",
        "ANALYZE",
    ]);
    (made, vec(more, 0..5)).prop_map(|(made, more)| {
        let mut all = vec![made];
        all.extend(more);
        all
    })
}

fn make(file: &std::path::Path, tables: &[Vec<&str>], settings: &str) -> Connection {
    let conn = Connection::open(file).unwrap();
    for statement in settings.split(';') {
        // Some of them answer with a row.
        drop(query(&conn, statement));
    }
    conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    for (i, statements) in tables.iter().enumerate() {
        for statement in statements {
            let name = format!("\"t {i}\"");
            let sql = statement
                .replace("\"i {}\"", &format!("\"i {i}\""))
                .replace("\"u {}\"", &format!("\"u {i}\""))
                .replace("\"v {}\"", &format!("\"v {i}\""))
                .replace("\"g {}\"", &format!("\"g {i}\""))
                .replace("{}", &name);
            // What does not fit the table (an index on a virtual one, the same one twice) is left
            // out.
            drop(conn.execute_batch(&sql));
        }
    }
    conn
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn ca13_detaching_leaves_schema_settings_and_rows_as_they_were(
        tables in vec(table(), 1..5),
        journal in select(vec!["wal", "delete"]),
        page in select(vec![512, 1024, 4096, 65536]),
        vacuum in 0..3,
        encoding in select(vec!["UTF-8", "UTF-16le", "UTF-16be"]),
        version in any::<i32>(),
    ) {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("app.db");
        let settings = format!(
            "PRAGMA encoding = '{encoding}'; PRAGMA page_size = {page}; PRAGMA auto_vacuum = {vacuum};
             PRAGMA journal_mode = {journal}; PRAGMA user_version = {version}; PRAGMA application_id = {version}"
        );
        let conn = make(&file, &tables, &settings);
        let before = print(&conn, tables.len());
        let replica = Replica::attach(conn, AttachOptions::default(), entropy(1)).unwrap();
        drop(replica);
        let conn = Connection::open(&file).unwrap();
        prop_assert_eq!(&print(&conn, tables.len()).settings, &before.settings);
        // The app goes on writing.
        conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        for i in 0..tables.len() {
            drop(conn.execute_batch(&format!("UPDATE \"t {i}\" SET a = a")));
        }
        let now = Timestamp(1_700_000_000_000_000);
        let mut replica = Replica::open(conn, entropy(2), now).unwrap();
        replica.seal(now).unwrap();
        drop(replica.detach().unwrap());
        let conn = Connection::open(&file).unwrap();
        prop_assert_eq!(print(&conn, tables.len()), before);
    }
}
