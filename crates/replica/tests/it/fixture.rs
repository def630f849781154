//! Tables and databases that several subjects use.

use std::collections::BTreeMap;

use rusqlite::Connection;
use syncline_core::{
    Column, ColumnNumber, ColumnType, MergeStrategy, Table, TableNumber,
    schema::{RuleTexts, SyncMode},
};

/// How many cases a property is tried on: `PROPTEST_CASES`, or as many as usual.
#[expect(
    clippy::disallowed_methods,
    reason = "what looks further is asked for from outside"
)]
pub(crate) fn cases(usual: u32) -> u32 {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// A database in memory after `sql`.
pub(crate) fn database(sql: &str) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(sql).unwrap();
    conn
}

/// A table by the names and types of its columns; columns are numbered from 1.
pub(crate) fn table(
    number: u32,
    name: &str,
    columns: &[(&str, ColumnType)],
    key: &[usize],
) -> Table {
    let column = |(i, &(name, ty)): (usize, &(&str, ColumnType))| Column {
        name: name.into(),
        number: ColumnNumber(u32::try_from(i).unwrap() + 1),
        ty,
        not_null: key.contains(&i),
        default: None,
        check: None,
        collate: None,
        generated: false,
        computed: None,
        declared: None,
        merge: MergeStrategy::LastWriteWins,
        encrypted: None,
        merge_paths: BTreeMap::new(),
    };
    Table {
        name: name.into(),
        number: TableNumber(number),
        columns: columns.iter().enumerate().map(column).collect(),
        primary_key: key.to_vec(),
        uniques: Vec::new(),
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        without_rowid: false,
        autoincrement: false,
        further_indexes: Vec::new(),
        checks: Vec::new(),
        strict: false,
        sync: SyncMode::Auto,
        update_wins: false,
        rules: RuleTexts::default(),
        force: BTreeMap::new(),
    }
}
