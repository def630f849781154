//! Writes that are easy to miss or to get wrong.

use insta::assert_snapshot;

use crate::capture_fixture::Captured;

const BASE: &str = "
    CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u TEXT UNIQUE, v);
    INSERT INTO t VALUES ('a', 'x', 1), ('b', 'y', 2), ('c', NULL, 3);";

#[test]
fn ca1_insert_update_delete() {
    let db = Captured::new(BASE);
    let changes = db.changes(
        "INSERT INTO t VALUES ('d', 'z', 4); UPDATE t SET v = 9 WHERE id = 'a';
         DELETE FROM t WHERE id = 'b'",
    );
    assert_snapshot!(changes, @r"
    t: - -> d,z,4
    t: a,x,1 -> a,x,9
    t: b,y,2 -> -
    ");
    assert_eq!(db.changes("SELECT 1"), "");
}

#[test]
fn ca3_replace_eviction_is_captured() {
    for recursive in ["OFF", "ON"] {
        let db = Captured::new(BASE);
        db.run(&format!("PRAGMA recursive_triggers = {recursive}"));
        insta::allow_duplicates! {
        assert_snapshot!(db.changes("REPLACE INTO t VALUES ('a', 'y', 5)"), @r"
        t: b,y,2 -> -
        t: a,x,1 -> a,y,5
        ");
                let changes = db.changes("UPDATE OR REPLACE t SET id = 'c', u = 'w' WHERE id = 'a'");
                assert_snapshot!(changes, @r"
        t: a,y,5 -> -
        t: c,NULL,3 -> c,w,5
        ");
        }
    }
}

#[test]
fn ca3_eviction_through_further_indexes_is_captured() {
    let db = Captured::new(
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a, b, c, d TEXT, gone INTEGER,
             up TEXT GENERATED ALWAYS AS (c || c) VIRTUAL);
         CREATE UNIQUE INDEX plain ON t(a, b);
         CREATE UNIQUE INDEX part ON t(c) WHERE gone = 0;
         CREATE UNIQUE INDEX folded ON t(lower(d), gone);
         CREATE UNIQUE INDEX anycase ON t(d COLLATE NOCASE) WHERE gone = 2;
         CREATE UNIQUE INDEX made ON t(up) WHERE gone = 3;
         INSERT INTO t VALUES ('1', 1, 1, 'c1', 'D1', 0), ('2', 2, 2, 'c2', 'D2', 1),
             ('3', 3, 3, 'c3', 'D3', 2), ('4', 4, 4, 'c4', 'D4', 3)",
    );
    db.run("BEGIN");
    let of = |sql: &str| {
        db.run("SAVEPOINT s");
        let changes = db.changes(sql);
        db.run("ROLLBACK TO s");
        changes
    };
    assert_snapshot!(of("REPLACE INTO t VALUES ('n', 1, 1, 0, 0, 9)"), @r"
    t: 1,1,1,c1,D1,0,NULL -> -
    t: - -> n,1,1,0,0,9,NULL
    ");
    assert_snapshot!(of("REPLACE INTO t VALUES ('n', 1, 2, 'c1', 0, 0)"), @r"
    t: 1,1,1,c1,D1,0,NULL -> -
    t: - -> n,1,2,c1,0,0,NULL
    ");
    assert_snapshot!(of("REPLACE INTO t VALUES ('n', 1, 2, 'c2', 'd2', 1)"), @r"
    t: 2,2,2,c2,D2,1,NULL -> -
    t: - -> n,1,2,c2,d2,1,NULL
    ");
    assert_snapshot!(of("UPDATE OR REPLACE t SET gone = 2, d = 'd3' WHERE id = '1'"), @r"
    t: 3,3,3,c3,D3,2,NULL -> -
    t: 1,1,1,c1,D1,0,NULL -> 1,1,1,c1,d3,2,NULL
    ");
    assert_snapshot!(of("UPDATE OR REPLACE t SET gone = 3, c = 'c4' WHERE id = '1'"), @r"
    t: 4,4,4,c4,D4,3,NULL -> -
    t: 1,1,1,c1,D1,0,NULL -> 1,1,1,c4,D1,3,NULL
    ");
    assert_snapshot!(of("REPLACE INTO t VALUES ('n', 0, 0, 'c4', 'x', 3)"), @r"
    t: 4,4,4,c4,D4,3,NULL -> -
    t: - -> n,0,0,c4,x,3,NULL
    ");
}

#[test]
fn ca3_rivals_that_the_apps_triggers_take_away_or_bring_are_captured() {
    let table = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, u UNIQUE)";
    let takes = "CREATE TRIGGER takes BEFORE INSERT ON t WHEN NEW.id <> 'B2' BEGIN \
                 DELETE FROM t WHERE u = NEW.u OR id = NEW.id; END";
    let brings = "CREATE TRIGGER brings BEFORE INSERT ON t WHEN NEW.id <> 'B2' BEGIN \
                  INSERT INTO t VALUES ('B2', NEW.u); END";
    let rows = "INSERT INTO t VALUES ('a', 1), ('b', 2)";
    // SQLite fires the newest trigger first: the app's is older than ours, or newer.
    for trigger in [takes, brings] {
        for is_older in [true, false] {
            let older = if is_older { trigger } else { "" };
            let newer = if is_older { "" } else { trigger };
            let db = Captured::new(&format!("{table}; {older}"));
            db.run(newer);
            let setup = if trigger == takes { rows } else { "" };
            db.run(setup);
            db.take();
            let changes = db.changes("INSERT OR REPLACE INTO t VALUES ('B', 1)");
            let expected = match trigger == takes {
                true => vec!["t: a,1 -> -", "t: b,2 -> -", "t: - -> B,1"],
                false => vec!["t: - -> B,1"],
            };
            let mut found: Vec<_> = changes.lines().collect();
            found.sort_by_key(|line| expected.iter().position(|e| e == line));
            assert_eq!(found, expected, "{trigger}, older: {is_older}");
        }
    }
}

#[test]
fn ca3_eviction_through_a_rowid_that_is_no_key_is_captured() {
    let db = Captured::new(BASE);
    assert_snapshot!(db.changes("REPLACE INTO t(rowid, id) VALUES (1, 'n')"), @r"
    t: a,x,1 -> -
    t: - -> n,NULL,NULL
    ");
    assert_snapshot!(db.changes("UPDATE OR REPLACE t SET rowid = 2 WHERE id = 'n'"), @"t: b,y,2 -> -");
}

#[test]
fn ca3_eviction_through_a_default_that_replace_puts_for_null_is_captured() {
    let db = Captured::new(
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL DEFAULT 'd', u NOT NULL DEFAULT -1 UNIQUE);
         INSERT INTO t VALUES ('a', -1), ('d', 2), ('c', 3)",
    );
    assert_snapshot!(db.changes("REPLACE INTO t VALUES ('n', NULL)"), @r"
    t: a,-1 -> -
    t: - -> n,-1
    ");
    assert_snapshot!(db.changes("REPLACE INTO t VALUES (NULL, 5)"), @"t: d,2 -> d,5");
    assert_snapshot!(db.changes("UPDATE OR REPLACE t SET id = NULL, u = NULL WHERE id = 'c'"), @r"
    t: c,3 -> -
    t: n,-1 -> -
    t: d,5 -> d,-1
    ");
}

#[test]
fn ca4_a_change_of_key_is_a_delete_and_an_insert() {
    let db = Captured::new(BASE);
    assert_snapshot!(db.changes("UPDATE t SET id = 'z' WHERE id = 'a'"), @r"
    t: a,x,1 -> -
    t: - -> z,x,1
    ");
    let db =
        Captured::new("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1)");
    assert_snapshot!(db.changes("UPDATE t SET rowid = 7"), @r"
    t: 1,1 -> -
    t: - -> 7,1
    ");
    assert_snapshot!(db.changes("UPDATE t SET id = id + 1, v = 2"), @r"
    t: 7,1 -> -
    t: - -> 8,2
    ");
}

#[test]
fn ca4_keys_that_sqlite_finds_equal() {
    let db = Captured::new(
        "CREATE TABLE t(id TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES ('a', 1)",
    );
    assert_snapshot!(db.changes("UPDATE t SET id = 'A'"), @r"
    t: a,1 -> -
    t: - -> A,1
    ");
    assert_snapshot!(db.changes("REPLACE INTO t VALUES ('a', 2)"), @r"
    t: A,1 -> -
    t: - -> a,2
    ");
    let db =
        Captured::new("CREATE TABLE t(id PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES (1, 1)");
    assert_eq!(db.changes("UPDATE t SET id = 1.0"), "");
    assert_snapshot!(
        db.changes("UPDATE t SET v = 2; UPDATE syncline_tx SET n = n + 1; UPDATE t SET id = 1, v = 3"),
        @r"
    marked
    t: 1.0,1 -> 1.0,2
    joined
    t: 1.0,2 -> 1,3
    "
    );
    let db = Captured::new(
        "CREATE TABLE t(id UUID PRIMARY KEY NOT NULL, v);
         INSERT INTO t VALUES ('3F2504E0-4F89-11D3-9A0C-0305E82C3301', 1)",
    );
    assert_eq!(db.changes("UPDATE t SET id = lower(id)"), "");
    assert_snapshot!(db.changes("UPDATE t SET id = upper(replace(id, '-', '')), v = 2"),
        @"t: 3f2504e0-4f89-11d3-9a0c-0305e82c3301,1 -> 3f2504e0-4f89-11d3-9a0c-0305e82c3301,2");
}

#[test]
fn ca3_rows_that_are_one_uuid_are_a_problem() {
    let db = Captured::new(
        "CREATE TABLE t(id UUID PRIMARY KEY NOT NULL, v);
         INSERT INTO t VALUES ('3F2504E0-4F89-11D3-9A0C-0305E82C3301', 1)",
    );
    db.run("INSERT INTO t SELECT lower(id), 2 FROM t");
    let taken = db.take();
    assert_eq!(taken.drafts, []);
    assert_snapshot!(taken.problems[0], @"row 3f2504e0-4f89-11d3-9a0c-0305e82c3301 of table t cannot sync: another row has the same UUID spelled differently; delete one of the two");
}

#[test]
fn ca3_one_row_that_its_key_finds_under_two_spellings_is_no_problem() {
    for (columns, row) in [
        ("id UUID COLLATE NOCASE PRIMARY KEY NOT NULL, v", ""),
        ("id UUID PRIMARY KEY NOT NULL, v", ""),
        (
            "n INTEGER, id UUID COLLATE NOCASE, v, PRIMARY KEY(n, id)",
            "7,",
        ),
    ] {
        let db = Captured::new(&format!("CREATE TABLE t({columns})"));
        let written = format!("({row}'3F2504E0-4F89-11D3-9A0C-0305E82C3301', 1)");
        let changes = db.changes(&format!("INSERT INTO t VALUES {written}"));
        let seen = format!("t: - -> {row}3f2504e0-4f89-11d3-9a0c-0305e82c3301,1");
        assert_eq!(changes.trim(), seen, "{columns}");
    }
}

#[test]
fn ca5_savepoints_and_rollbacks_undo_marks() {
    let db = Captured::new(BASE);
    assert_eq!(db.changes("BEGIN; DELETE FROM t; ROLLBACK"), "");
    let changes = db.changes(
        "BEGIN; UPDATE t SET v = 5 WHERE id = 'a'; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s;
         UPDATE t SET v = 6 WHERE id = 'b'; RELEASE s; COMMIT",
    );
    assert_snapshot!(changes, @r"
    t: a,x,1 -> a,x,5
    t: b,y,2 -> b,y,6
    ");
    db.conn
        .execute("INSERT OR FAIL INTO t SELECT 'n' || v, 'u', 0 FROM t", [])
        .unwrap_err();
    assert_snapshot!(db.changes("SELECT 1"), @"t: - -> n5,u,0");
    db.conn
        .execute("INSERT INTO t SELECT 'm' || v, 'w', 0 FROM t", [])
        .unwrap_err();
    assert_eq!(
        db.changes("INSERT OR IGNORE INTO t VALUES ('a', 'q', 0), ('k', 'x', 0)"),
        ""
    );
}

#[test]
fn ca6_changes_by_the_apps_triggers_are_captured() {
    let setup = |when: &str| {
        format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v, at DEFAULT 0);
             CREATE TABLE log(id INTEGER PRIMARY KEY AUTOINCREMENT, what);
             INSERT INTO t VALUES (1, 1, 0);
             {when}
             CREATE TRIGGER u AFTER UPDATE OF v ON t BEGIN UPDATE t SET at = at + 1 WHERE id = NEW.id; END;
             CREATE TRIGGER i AFTER INSERT ON t BEGIN UPDATE t SET at = 9 WHERE id = NEW.id;
                 INSERT INTO log(what) VALUES ('new ' || NEW.id); END;
             CREATE TRIGGER d BEFORE DELETE ON t BEGIN UPDATE t SET v = -1 WHERE id = OLD.id;
                 INSERT INTO log(what) VALUES ('gone'); END;"
        )
    };
    let triggers_before_ours = Captured::new(&setup(""));
    let ours_before_triggers = Captured::new(setup("--").split("--").next().unwrap());
    ours_before_triggers.run(setup("--").split("--").nth(1).unwrap());
    for db in [triggers_before_ours, ours_before_triggers] {
        insta::allow_duplicates! {
        assert_snapshot!(db.changes("UPDATE t SET v = 2"), @"t: 1,1,0 -> 1,2,1");
        assert_snapshot!(db.changes("INSERT INTO t(v) VALUES (5), (6)"), @r"
        t: - -> 2,5,9
        log: - -> 1,new 2
        t: - -> 3,6,9
        log: - -> 2,new 3
        ");
        assert_snapshot!(db.changes("DELETE FROM log; DELETE FROM t WHERE id < 3"), @r"
        log: 1,new 2 -> -
        log: 2,new 3 -> -
        t: 1,2,1 -> -
        log: - -> 3,gone
        t: 2,5,9 -> -
        log: - -> 4,gone
        ");
        }
    }
}

#[test]
fn ca6_cascades_are_captured() {
    let db = Captured::new(
        "PRAGMA foreign_keys = ON;
         CREATE TABLE p(id TEXT PRIMARY KEY NOT NULL);
         CREATE TABLE c(id TEXT PRIMARY KEY NOT NULL, p REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE n(id TEXT PRIMARY KEY NOT NULL, p REFERENCES p ON DELETE SET NULL);
         INSERT INTO p VALUES ('p'), ('q'); INSERT INTO c VALUES ('c', 'p'), ('d', 'q');
         INSERT INTO n VALUES ('n', 'q');",
    );
    assert_snapshot!(db.changes("UPDATE p SET id = 'r' WHERE id = 'p'"), @r"
    p: p -> -
    p: - -> r
    c: c,p -> c,r
    ");
    assert_snapshot!(db.changes("REPLACE INTO p VALUES ('q')"), @r"
    n: n,q -> n,NULL
    c: d,q -> -
    ");
    assert_snapshot!(db.changes("DELETE FROM p"), @r"
    p: r -> -
    c: c,r -> -
    p: q -> -
    ");
}

#[test]
fn ca2_upsert_is_captured() {
    let db = Captured::new(BASE);
    let changes = db.changes(
        "INSERT INTO t VALUES ('a', 'n', 1), ('e', 'm', 2)
         ON CONFLICT(id) DO UPDATE SET v = v + 10, u = excluded.u;
         INSERT INTO t VALUES ('f', 'y', 1) ON CONFLICT DO NOTHING",
    );
    assert_snapshot!(changes, @r"
    t: a,x,1 -> a,n,11
    t: - -> e,m,2
    ");
}

#[test]
fn ca3_swapping_unique_values_is_captured() {
    let db = Captured::new(BASE);
    let changes = db.changes(
        "UPDATE t SET u = 'tmp' WHERE id = 'a'; UPDATE t SET u = 'x' WHERE id = 'b';
         UPDATE t SET u = 'y' WHERE id = 'a'",
    );
    assert_snapshot!(changes, @r"
    t: a,x,1 -> a,y,1
    t: b,y,2 -> b,x,2
    ");
}

#[test]
fn sl2_differences_are_typed_and_bytewise() {
    let db = Captured::new(
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, any, i INTEGER, r REAL, n TEXT COLLATE NOCASE);
         INSERT INTO t VALUES ('a', 1, 1, 1, 'text')",
    );
    assert_eq!(
        db.changes("UPDATE t SET any = 1, i = 1.0, r = 1, n = 'text'"),
        ""
    );
    assert_snapshot!(db.changes("UPDATE t SET any = 1.0"), @"t: a,1,1,1.0,text -> a,1.0,1,1.0,text");
    assert_snapshot!(db.changes("UPDATE t SET any = '1'"), @"t: a,1.0,1,1.0,text -> a,1,1,1.0,text");
    assert_snapshot!(db.changes("UPDATE t SET n = 'TEXT'"), @"t: a,1,1,1.0,text -> a,1,1,1.0,TEXT");
    assert_snapshot!(db.changes("UPDATE t SET any = x'31', i = 9223372036854775807"),
        @"t: a,1,1,1.0,TEXT -> a,x[49],9223372036854775807,1.0,TEXT");
    db.run("UPDATE t SET any = 0.0");
    db.take();
    assert_eq!(db.changes("UPDATE t SET any = -0.0"), "", "canonical zero");
    assert_snapshot!(db.changes("UPDATE t SET any = 9e999 - 9e999"),
        @"t: a,0.0,9223372036854775807,1.0,TEXT -> a,NULL,9223372036854775807,1.0,TEXT");
    assert_snapshot!(db.changes("UPDATE t SET any = 'x' || char(0) || 'y'"),
        @r"t: a,NULL,9223372036854775807,1.0,TEXT -> a,x\0y,9223372036854775807,1.0,TEXT");
    assert_eq!(
        db.changes("UPDATE t SET any = 'z'; UPDATE t SET any = 'x' || char(0) || 'y'"),
        ""
    );
}

#[test]
fn ca1_rows_without_rowid_and_composite_keys() {
    let db = Captured::new(
        "CREATE TABLE \"or der\"(\"a\"\"b\" TEXT, \"select\" INT, v, PRIMARY KEY(\"select\", \"a\"\"b\"))
             WITHOUT ROWID;
         INSERT INTO \"or der\" VALUES ('x', 1, 'one'), ('x', 2, 'two')",
    );
    let changes = db.changes(
        "UPDATE OR REPLACE \"or der\" SET \"select\" = 2 WHERE \"select\" = 1;
         INSERT INTO \"or der\" VALUES ('y', 2, NULL)",
    );
    assert_snapshot!(changes, @r"
    or der: x,1,one -> -
    or der: x,2,two -> x,2,one
    or der: - -> y,2,NULL
    ");
}

#[test]
fn ca1_integer_keys_chosen_by_sqlite() {
    let db = Captured::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v UNIQUE);
         INSERT INTO t VALUES (-1, 'minus one'), (5, 'five'); DELETE FROM t WHERE id = 5;",
    );
    assert_snapshot!(db.changes("INSERT INTO t(v) VALUES ('a'), ('b')"), @r"
    t: - -> 6,a
    t: - -> 7,b
    ");
    assert_snapshot!(db.changes("REPLACE INTO t(v) VALUES ('a')"), @r"
    t: 6,a -> -
    t: - -> 8,a
    ");
    assert_snapshot!(db.changes("REPLACE INTO t VALUES (-1, 'x')"), @"t: -1,minus one -> -1,x");
    db.run("INSERT INTO t VALUES (9223372036854775807, 'last')");
    assert_snapshot!(db.changes("SELECT 1"), @"t: - -> 9223372036854775807,last");
    let db = Captured::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (9223372036854775807, 0)",
    );
    db.run("INSERT INTO t(v) VALUES ('somewhere')");
    assert_eq!(db.take().drafts[0].changes.len(), 1);
}

#[test]
fn ca1_keys_made_by_a_default() {
    let db = Captured::new(
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL DEFAULT (hex(randomblob(8))), v)",
    );
    db.run("INSERT INTO t(v) VALUES (1), (2), (3)");
    assert_eq!(db.take().drafts[0].changes.len(), 3);
}

#[test]
fn sl1_marked_transactions_stay_apart() {
    let db = Captured::new(BASE);
    let changes = db.changes(
        "BEGIN; UPDATE t SET v = 10 WHERE id = 'a'; INSERT INTO t VALUES ('n', NULL, 1);
         UPDATE syncline_tx SET n = n + 1; COMMIT;
         BEGIN; UPDATE t SET v = 11 WHERE id = 'a'; UPDATE t SET v = 2 WHERE id = 'n';
         UPDATE syncline_tx SET n = n + 1; COMMIT;
         UPDATE t SET v = 12 WHERE id = 'a'; DELETE FROM t WHERE id = 'n';
         UPDATE t SET v = 0 WHERE id = 'b'",
    );
    assert_snapshot!(changes, @r"
    marked
    t: a,x,1 -> a,x,10
    t: - -> n,NULL,1
    marked
    t: a,x,10 -> a,x,11
    t: n,NULL,1 -> n,NULL,2
    joined
    t: a,x,11 -> a,x,12
    t: n,NULL,2 -> -
    t: b,y,2 -> b,y,0
    ");
    assert_eq!(
        db.changes("UPDATE t SET v = 1 WHERE id = 'b'; UPDATE t SET v = 0 WHERE id = 'b'"),
        ""
    );
}

#[test]
fn sl1_our_transactions_do_not_join_what_others_committed_before() {
    use syncline_replica::capture::{begin_marked, end_marked, has_marks};
    let db = Captured::new(BASE);
    assert!(!has_marks(&db.conn).unwrap());
    db.run("UPDATE t SET v = 7 WHERE id = 'c'");
    assert!(has_marks(&db.conn).unwrap());
    db.run("BEGIN IMMEDIATE");
    begin_marked(&db.conn).unwrap();
    db.run("UPDATE t SET v = 8 WHERE id = 'c'");
    end_marked(&db.conn).unwrap();
    db.run("COMMIT");
    assert_snapshot!(db.changes("SELECT 1"), @r"
    joined
    t: c,NULL,3 -> c,NULL,7
    marked
    t: c,NULL,7 -> c,NULL,8
    ");
    assert!(!has_marks(&db.conn).unwrap());
}

#[test]
fn sl7_marks_are_taken_a_part_at_a_time() {
    use syncline_replica::capture::take_drafts;
    let db = Captured::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE s(id TEXT PRIMARY KEY NOT NULL)",
    );
    let numbers = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 40)";
    db.run(&format!(
        "INSERT INTO t {numbers} SELECT i, 0 FROM c; INSERT INTO s VALUES ('x')"
    ));
    db.run("UPDATE syncline_tx SET n = n + 1; UPDATE t SET v = 1 WHERE id <= 30");
    db.run("UPDATE t SET v = 2 WHERE id = 1");
    let mut sizes = Vec::new();
    let mut last = None;
    loop {
        let taken = take_drafts(&db.conn, &db.sql, 20).unwrap();
        for draft in taken.drafts {
            sizes.push((draft.marked, draft.changes.len()));
            last = draft
                .changes
                .into_iter()
                .find(|c| c.key.to_string() == "1")
                .or(last);
        }
        if !taken.more {
            break;
        }
    }
    assert_eq!(sizes[0], (true, 41), "a closed transaction is never cut");
    assert!(
        sizes[1..]
            .iter()
            .all(|(marked, changes)| !marked && *changes <= 20),
        "{sizes:?}"
    );
    assert_eq!(
        sizes[1..].iter().map(|(_, changes)| changes).sum::<usize>(),
        30
    );
    assert_eq!(last.unwrap().after.unwrap().0[1], 2.into());
}

#[test]
fn sl10_what_cannot_be_expressed_is_a_problem_and_heals() {
    let db = Captured::new(
        "CREATE TABLE t(id TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 'fine'), ('b', 'fine')",
    );
    db.run(
        "UPDATE t SET v = CAST(x'ff' AS TEXT) WHERE id = 'a';
         INSERT INTO t VALUES (NULL, 'no key'); INSERT INTO t VALUES (CAST(x'fe' AS TEXT), 1);
         INSERT INTO t VALUES (printf('%09000d', 1), 'long'); UPDATE t SET v = 'good' WHERE id = 'b'",
    );
    let taken = db.take();
    let mut problems: Vec<_> = taken.problems.iter().map(ToString::to_string).collect();
    problems.iter_mut().for_each(|p| p.truncate(150));
    problems.sort();
    assert_snapshot!(problems.join("\n"), @r#"
    row (v = no key) of table t cannot sync: its key column id is NULL; give it a value
    row [Text("0000000000000000000000000000000000000000000000000000000000000000000000000 of table t cannot sync: its key is too long; keep keys under 8 Ki
    row a of table t cannot sync: v is text that is not UTF-8; store it as UTF-8 or as a blob
    row � of table t cannot sync: id is text that is not UTF-8; store it as UTF-8 or as a blob
    "#);
    assert_snapshot!(db.describe(&taken.drafts), @"t: b,fine -> b,good");
    assert_snapshot!(db.changes("UPDATE t SET v = 'mended' WHERE id = 'a'"), @"t: ? -> a,mended");
    db.run("UPDATE t SET v = CAST(x'ff' AS TEXT) WHERE id = 'a'");
    assert_eq!(db.take().problems.len(), 1);
    assert_snapshot!(db.changes("DELETE FROM t WHERE id = 'a'"), @"t: ? -> -");
    // Within one sealing the damaged image is skipped.
    db.run(
        "UPDATE t SET v = CAST(x'ff' AS TEXT) WHERE id = 'b'; UPDATE syncline_tx SET n = n + 1;
         UPDATE t SET v = 'again' WHERE id = 'b'",
    );
    let taken = db.take();
    assert_eq!(taken.problems.len(), 1);
    assert_snapshot!(db.describe(&taken.drafts), @"t: b,good -> b,again");
}

#[test]
fn sl2_the_time_of_the_first_mark_is_kept() {
    let db = Captured::new(BASE);
    db.run("UPDATE t SET v = 4 WHERE id = 'a'");
    let millis: i64 = db
        .conn
        .query_row(
            "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
            [],
            |r| r.get(0),
        )
        .unwrap();
    let at = db.take().drafts[0].changes[0].first_marked_at.as_millis();
    assert!(millis.unsigned_abs().abs_diff(at) < 5_000, "{at} {millis}");
}

#[test]
fn ca1_a_table_of_a_thousand_columns() {
    let columns: Vec<String> = (0..1000).map(|i| format!("c{i}")).collect();
    let db = Captured::new(&format!(
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, {})",
        columns.join(",")
    ));
    db.run("INSERT INTO t(id, c7) VALUES ('a', 7)");
    assert_eq!(db.take().drafts[0].changes.len(), 1);
    db.run("UPDATE t SET c999 = 1");
    assert_eq!(db.take().drafts[0].changes.len(), 1);
}

#[test]
fn ca1_odd_names() {
    let db = Captured::new(
        "CREATE TABLE \"new\"(\"old\" TEXT PRIMARY KEY NOT NULL, n, seq, \"at\", present, r, m, rowid, oid,
             touched, \"it's\", \"[x]\");
         CREATE TABLE \"a'b\"\"c\"(_rowid_ TEXT, rowid TEXT, oid TEXT, PRIMARY KEY(oid, rowid));
         CREATE UNIQUE INDEX \"i\"\"x\" ON \"new\"(n, \"it's\")",
    );
    assert_snapshot!(db.changes("INSERT INTO \"new\" VALUES ('k', 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
        REPLACE INTO \"new\" VALUES ('l', 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12);
        INSERT INTO \"a'b\"\"c\" VALUES ('x', 'y', 'z'); UPDATE \"a'b\"\"c\" SET _rowid_ = 'w'"), @r#"
    new: - -> l,1,2,3,4,5,6,7,8,9,10,12
    a'b"c: - -> w,y,z
    "#);
    assert_snapshot!(db.changes("UPDATE \"new\" SET n = 0; DELETE FROM \"a'b\"\"c\""), @r#"
    new: l,1,2,3,4,5,6,7,8,9,10,12 -> l,0,2,3,4,5,6,7,8,9,10,12
    a'b"c: w,y,z -> -
    "#);
}
