//! Other programs write the file while our connection is open, with whatever SQLite they have.

use std::process::{Command, Output};

use insta::assert_snapshot;
use rusqlite::Connection;

use crate::capture_fixture::Captured;

const SETUP: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u UNIQUE, v);
    CREATE TABLE p(id INTEGER PRIMARY KEY, name COLLATE NOCASE);
    CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE);
    CREATE TABLE w(a, b NOT NULL DEFAULT 'd', PRIMARY KEY(a, b)) WITHOUT ROWID;
    CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT, v); CREATE UNIQUE INDEX part ON s(v) WHERE id > 0;
    INSERT INTO t VALUES ('a', 'x', 1), ('b', 'y', 2); INSERT INTO p VALUES (1, 'one');
    INSERT INTO c VALUES (5, 1);";

/// Runs `program` with the file's name as its last argument; `None` where it is not installed.
fn run(file: &str, program: &str, args: &[&str]) -> Option<Output> {
    let mut command = Command::new(program);
    let output = command.args(args).arg(file).output();
    match output {
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program}: {error}");
            Some(output)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("{program} is not installed: nothing was tested");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

fn captured_file() -> (tempfile::TempDir, String, Captured) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db").to_str().unwrap().to_owned();
    let conn = Connection::open(&file).unwrap();
    conn.execute_batch(SETUP).unwrap();
    let db = Captured::on(conn);
    (folder, file, db)
}

#[test]
fn ca2_python_is_captured() {
    let (_folder, file, db) = captured_file();
    let script = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('PRAGMA foreign_keys = ON')
with db:
    db.execute('INSERT INTO t VALUES (?, ?, ?)', ('ü', None, b'\\x00\\xff'))
    db.executemany('UPDATE t SET v = ? WHERE id = ?', [(1.5, 'a'), (2**62, 'b')])
    db.execute('UPDATE syncline_tx SET n = n + 1')
with db:
    db.execute('REPLACE INTO t VALUES (?, ?, ?)', ('n', 'x', 'a\\0b'))
    db.execute('DELETE FROM p')
    cursor = db.execute('INSERT INTO p(name) VALUES (?)', ('new',))
    assert cursor.lastrowid == 1, cursor.lastrowid
    assert db.execute('UPDATE p SET name = ?', ('NEW',)).rowcount == 1
try:
    with db:
        db.execute('DELETE FROM t')
        raise KeyError
except KeyError:
    pass
";
    if run(&file, "python3", &["-c", script]).is_none() {
        return;
    }
    let taken = db.take();
    assert_eq!(taken.problems, []);
    assert_snapshot!(db.describe(&taken.drafts), @r"
    marked
    t: - -> ü,NULL,x[0, 255]
    t: a,x,1 -> a,x,1.5
    t: b,y,2 -> b,y,4611686018427387904
    joined
    t: a,x,1.5 -> -
    t: - -> n,x,a\0b
    p: 1,one -> 1,NEW
    c: 5,1 -> -
    ");
}

#[test]
fn ca2_the_sqlite_shell_is_captured() {
    let (_folder, file, db) = captured_file();
    let script = "PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON;
        BEGIN; INSERT OR IGNORE INTO t VALUES ('c', 'z', 3); REPLACE INTO t VALUES ('d', 'y', 4);
        UPDATE OR REPLACE t SET id = 'a', v = -0.0 WHERE id = 'c'; UPDATE syncline_tx SET n = n + 1; COMMIT;
        UPDATE p SET name = 'ONE'; DELETE FROM c; DELETE FROM p;
        INSERT INTO w(a) VALUES (1); INSERT INTO s(v) VALUES ('s'); REPLACE INTO s(v) VALUES ('s');";
    // Nothing newer than SQLite 3.8.3, so that any shell can stand in. The file comes last, so the script is read from a command.
    let script = format!("sqlite3 -bail \"$0\" \"{script}\"");
    if run(&file, "sqlite3", &["-version"]).is_none() {
        return;
    }
    run(&file, "sh", &["-c", &script]);
    let taken = db.take();
    assert_eq!(taken.problems, []);
    assert_snapshot!(db.describe(&taken.drafts), @r"
    marked
    t: b,y,2 -> -
    t: - -> d,y,4
    t: a,x,1 -> a,z,0.0
    joined
    p: 1,one -> -
    c: 5,1 -> -
    w: - -> 1,d
    s: - -> 2,s
    ");
}

#[test]
fn sl7_a_writer_that_is_killed_leaves_no_half_marks() {
    let (_folder, file, db) = captured_file();
    let script = "
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('UPDATE t SET v = 100')
db.execute('INSERT INTO t(id) VALUES (1)')
os._exit(0)
";
    if run(&file, "python3", &["-c", script]).is_none() {
        return;
    }
    assert_eq!(db.take().drafts, []);
    assert_snapshot!(db.changes("UPDATE t SET v = 100 WHERE id = 'a'"), @"t: a,x,1 -> a,x,100");
}
