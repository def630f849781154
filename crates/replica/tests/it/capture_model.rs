//! Random scripts: drafts applied in order to the state before give the state after, bytewise,
//! and after each marked draft the state that its transaction committed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use syncline_core::{Row, RowKey, Table, TableNumber};
use syncline_replica::{
    capture::{Before, Draft, take_drafts},
    rows::TableSql,
};

use crate::{capture_fixture::Captured, fixture::cases};

type State = BTreeMap<(TableNumber, RowKey), Row>;

/// Table shapes that have little in common. All have columns `k` (in the key), `u`, `v`.
const SHAPES: &[&str] = &[
    "CREATE TABLE t(k INTEGER PRIMARY KEY, u UNIQUE, v)",
    "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, u TEXT, v);
     CREATE UNIQUE INDEX part ON t(u COLLATE NOCASE) WHERE v > 0",
    "CREATE TABLE t(u NOT NULL, k NOT NULL, v, PRIMARY KEY(k, u)) WITHOUT ROWID;
     CREATE UNIQUE INDEX other ON t(v, u)",
    "CREATE TABLE t(k NOT NULL PRIMARY KEY, u, v, g GENERATED ALWAYS AS (u || v) VIRTUAL);
     CREATE UNIQUE INDEX made ON t(g); CREATE UNIQUE INDEX expr ON t(abs(u), v)",
    "CREATE TABLE t(k INTEGER PRIMARY KEY AUTOINCREMENT, u REAL UNIQUE, v NUMERIC);
     CREATE TABLE log(k INTEGER PRIMARY KEY, u UNIQUE, v REFERENCES t ON DELETE CASCADE ON UPDATE SET NULL);
     CREATE TRIGGER i AFTER INSERT ON t WHEN NEW.u IS NOT NULL BEGIN
         UPDATE t SET v = NEW.u WHERE k = NEW.k; REPLACE INTO log VALUES (NULL, NEW.u, NEW.k); END;
     CREATE TRIGGER u AFTER UPDATE ON t BEGIN UPDATE t SET v = 7 WHERE k = NEW.k;
         DELETE FROM log WHERE u = OLD.v; END;
     CREATE TRIGGER d BEFORE DELETE ON t BEGIN UPDATE t SET v = 8 WHERE k = OLD.k; END",
    "CREATE TABLE t(k TEXT PRIMARY KEY NOT NULL DEFAULT (hex(randomblob(8))), u INT, v BLOB);
     CREATE UNIQUE INDEX both ON t(u DESC, v)",
    "CREATE TABLE t(k TEXT NOT NULL DEFAULT 'a', u INT NOT NULL DEFAULT 1 UNIQUE,
         v NOT NULL DEFAULT b UNIQUE, PRIMARY KEY (k COLLATE NOCASE))",
];

const VALUES: &[&str] = &[
    "NULL",
    "0",
    "1",
    "1.0",
    "2",
    "-1",
    "'a'",
    "'A'",
    "'b'",
    "'1'",
    "x'61'",
    "-0.0",
    "0.5",
    "''",
    "9223372036854775807",
    "9e999",
    "'a' || char(0)",
];

#[derive(Debug, Clone)]
enum Step {
    Write(String),
    Savepoint,
    RollbackTo,
    Release,
    /// Commits what is open, closed by the mark or not.
    Commit {
        marked: bool,
    },
    Rollback,
    /// Takes drafts, a few marks at a time or all.
    Seal {
        marks_max: usize,
    },
}

fn value() -> impl Strategy<Value = &'static str> {
    prop::sample::select(VALUES)
}

fn condition() -> impl Strategy<Value = String> {
    prop_oneof![
        (prop::sample::select(&["k", "u", "v"][..]), value())
            .prop_map(|(c, v)| format!("{c} IS {v}")),
        Just("1".to_owned()),
        Just("rowid % 2".to_owned()),
    ]
}

fn conflict() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &[
            "",
            "OR REPLACE ",
            "OR REPLACE ",
            "OR IGNORE ",
            "OR FAIL ",
            "OR ABORT ",
        ][..],
    )
}

fn write() -> impl Strategy<Value = String> {
    let set = || {
        prop_oneof![
            (prop::sample::select(&["k", "u", "v", "rowid"][..]), value())
                .prop_map(|(c, v)| format!("{c} = {v}")),
            Just("k = k + 1".to_owned()),
            Just("u = v, v = u".to_owned()),
            Just("u = upper(u)".to_owned()),
        ]
    };
    prop_oneof![
        4 => (conflict(), value(), value(), value())
            .prop_map(|(or, k, u, v)| format!("INSERT {or}INTO t(k, u, v) VALUES ({k}, {u}, {v})")),
        1 => (conflict(), value(), value())
            .prop_map(|(or, u, v)| format!("INSERT {or}INTO t(u, v) VALUES ({u}, {v}), ({v}, {u})")),
        1 => (conflict(), value(), value())
            .prop_map(|(or, r, k)| format!("INSERT {or}INTO t(rowid, k, u) VALUES ({r}, {k}, {k})")),
        1 => (value(), value(), value(), set()).prop_map(|(k, u, v, set)| format!(
            "INSERT INTO t(k, u, v) VALUES ({k}, {u}, {v}) ON CONFLICT DO UPDATE SET {set}"
        )),
        4 => (conflict(), set(), condition())
            .prop_map(|(or, set, on)| format!("UPDATE {or}t SET {set} WHERE {on}")),
        1 => condition().prop_map(|on| format!("DELETE FROM t WHERE {on}")),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => write().prop_map(Step::Write),
        1 => Just(Step::Savepoint),
        1 => Just(Step::RollbackTo),
        1 => Just(Step::Release),
        4 => any::<bool>().prop_map(|marked| Step::Commit { marked }),
        1 => Just(Step::Rollback),
        1 => prop::sample::select(&[1, 3, 1000][..]).prop_map(|marks_max| Step::Seal { marks_max }),
    ]
}

fn state(db: &Captured) -> State {
    let mut state = State::new();
    for sql in &db.sql {
        for row in sql.scan(&db.conn, None, usize::MAX).unwrap() {
            let key = row.key(sql.table()).unwrap();
            let row = with_key(sql.table(), &key, &row);
            assert!(state.insert((sql.table().number, key), row).is_none());
        }
    }
    state
}

/// The row with its key in the one spelling that the encoded key has: 1 for 1.0.
fn with_key(table: &Table, key: &RowKey, row: &Row) -> Row {
    let mut row = row.clone();
    for (&position, value) in table.primary_key.iter().zip(key.decode().unwrap()) {
        row.0[position] = value;
    }
    row
}

fn apply(db: &Captured, state: &mut State, draft: &Draft) {
    assert!(!draft.changes.is_empty());
    let mut seen = Vec::new();
    for change in &draft.changes {
        let place = (change.table, change.key.clone());
        let table = db
            .tables
            .iter()
            .find(|table| table.number == change.table)
            .unwrap();
        assert!(!seen.contains(&place), "one change for each row: {place:?}");
        seen.push(place.clone());
        let before = state.remove(&place);
        let expected = match &change.before {
            Before::Absent => None,
            Before::Image(row) => Some(with_key(table, &change.key, row)),
            Before::Unknown => panic!("nothing is unknown here"),
        };
        assert_eq!(
            before, expected,
            "image before of {place:?} in number {}",
            draft.n
        );
        let after = change
            .after
            .as_ref()
            .map(|row| with_key(table, &change.key, row));
        assert_ne!(before, after, "no difference, no change");
        if let Some(row) = after {
            state.insert(place, row);
        }
    }
}

/// The model: what was committed last and sealed last, and what marked transactions committed.
struct Run {
    db: Captured,
    sealed: State,
    /// States after marked transactions, by number; only the last for each number counts.
    committed: BTreeMap<i64, State>,
}

impl Run {
    fn new(shape: &str, recursive: bool, foreign_keys: bool) -> Self {
        let db = Captured::new(shape);
        db.run(&format!(
            "PRAGMA recursive_triggers = {recursive}; PRAGMA foreign_keys = {foreign_keys}"
        ));
        let sealed = state(&db);
        Self {
            db,
            sealed,
            committed: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        let conn = &self.db.conn;
        match step {
            Step::Write(sql) => {
                if conn.is_autocommit() {
                    self.db.run("BEGIN");
                }
                // Constraint errors are part of the game.
                drop(conn.execute_batch(sql));
            }
            Step::Savepoint => self.db.run("SAVEPOINT s"),
            Step::RollbackTo => drop(conn.execute_batch("ROLLBACK TO s")),
            Step::Release => drop(conn.execute_batch("RELEASE s")),
            Step::Rollback => drop(conn.execute_batch("ROLLBACK")),
            Step::Commit { marked } => {
                if *marked && !conn.is_autocommit() {
                    let n = self.number();
                    self.db.run("UPDATE syncline_tx SET n = n + 1");
                    self.committed.insert(n, state(&self.db));
                }
                self.commit();
            }
            Step::Seal { marks_max } => self.seal(*marks_max),
        }
    }

    fn number(&self) -> i64 {
        self.db
            .conn
            .query_row("SELECT n FROM syncline_tx", [], |row| row.get(0))
            .unwrap()
    }

    fn commit(&mut self) {
        if !self.db.conn.is_autocommit() && self.db.conn.execute_batch("COMMIT").is_err() {
            // A deferred constraint.
            self.db.run("ROLLBACK");
            let n = self.number();
            self.committed.retain(|number, _| *number < n);
        }
    }

    fn seal(&mut self, marks_max: usize) {
        self.commit();
        let now = state(&self.db);
        let sql: Vec<TableSql> = self.db.tables.iter().map(TableSql::new).collect();
        loop {
            let taken = take_drafts(&self.db.conn, &sql, marks_max).unwrap();
            assert_eq!(taken.problems, []);
            for draft in &taken.drafts {
                apply(&self.db, &mut self.sealed, draft);
                let committed = self.committed.remove(&draft.n);
                if draft.marked {
                    assert_eq!(Some(&self.sealed), committed.as_ref(), "number {}", draft.n);
                }
            }
            if !taken.more {
                break;
            }
        }
        assert_eq!(self.sealed, now);
        self.committed.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(200), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn sl2_drafts_lead_from_the_state_before_to_the_state_after(
        shape in prop::sample::select(SHAPES),
        recursive in any::<bool>(),
        foreign_keys in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut run = Run::new(shape, recursive, foreign_keys);
        for step in &steps {
            run.step(step);
        }
        run.seal(1000);
    }
}
