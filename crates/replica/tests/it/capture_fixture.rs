//! A database with capture, and drafts in words.

use rusqlite::{Connection, types::ValueRef};
use syncline_core::{Row, Table, Value};
use syncline_replica::{
    capture::{Before, Draft, Drafts, install, take_drafts},
    introspect::{ProblemReason, introspect},
    rows::TableSql,
};

pub(crate) struct Captured {
    pub(crate) conn: Connection,
    pub(crate) tables: Vec<Table>,
    pub(crate) sql: Vec<TableSql>,
}

impl Captured {
    /// Runs `setup`, then captures every table.
    pub(crate) fn new(setup: &str) -> Self {
        Self::on(crate::fixture::database(setup))
    }

    pub(crate) fn on(conn: Connection) -> Self {
        let found = introspect(&conn).unwrap();
        assert!(
            found
                .problems
                .iter()
                .all(|problem| problem.reason == ProblemReason::Virtual)
        );
        let tables: Vec<Table> = found.tables.into_iter().map(|local| local.table).collect();
        install(&conn, &tables).unwrap();
        let sql = tables.iter().map(TableSql::new).collect();
        Self { conn, tables, sql }
    }

    pub(crate) fn run(&self, sql: &str) {
        self.conn.execute_batch(sql).unwrap();
    }

    pub(crate) fn take(&self) -> Drafts {
        take_drafts(&self.conn, &self.sql, 100_000).unwrap()
    }

    /// Runs `sql` and says what it changed.
    pub(crate) fn changes(&self, sql: &str) -> String {
        self.run(sql);
        let taken = self.take();
        assert_eq!(taken.problems, []);
        self.describe(&taken.drafts)
    }

    /// One line for each change: `table: before -> after`. Numbers are shown when there are
    /// several.
    pub(crate) fn describe(&self, drafts: &[Draft]) -> String {
        let mut out = String::new();
        for draft in drafts {
            if drafts.len() > 1 {
                out.push_str(if draft.marked { "marked\n" } else { "joined\n" });
            }
            for change in &draft.changes {
                let table = self
                    .tables
                    .iter()
                    .find(|t| t.number == change.table)
                    .unwrap();
                let before = match &change.before {
                    Before::Absent => "-".into(),
                    Before::Image(row) => words(row),
                    Before::Unknown => "?".into(),
                };
                let after = change.after.as_ref().map_or("-".into(), words);
                out.push_str(&format!("{}: {before} -> {after}\n", table.name));
            }
        }
        out
    }
}

fn words(row: &Row) -> String {
    row.0.iter().map(word).collect::<Vec<_>>().join(",")
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Integer(n) => n.to_string(),
        Value::Real(x) => format!("{x:?}"),
        Value::Text(text) => format!("{text:?}").trim_matches('"').to_owned(),
        Value::Blob(bytes) => format!("x{bytes:?}"),
    }
}

/// Every row of every table that is not ours, by name; values with their storage classes.
pub(crate) fn dump(conn: &Connection, tables: &[Table]) -> Vec<(String, Vec<String>)> {
    let one = |table: &Table| {
        let mut statement = conn
            .prepare(&format!("SELECT * FROM \"{}\"", table.name))
            .unwrap();
        let width = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        let mut out = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> = (0..width)
                .map(|i| match row.get_ref(i).unwrap() {
                    ValueRef::Text(bytes) => format!("t{bytes:?}"),
                    other @ (ValueRef::Null
                    | ValueRef::Integer(_)
                    | ValueRef::Real(_)
                    | ValueRef::Blob(_)) => format!("{other:?}"),
                })
                .collect();
            out.push(values.join("|"));
        }
        out.sort();
        (table.name.clone(), out)
    };
    tables.iter().map(one).collect()
}
