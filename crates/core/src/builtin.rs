//! Tables of Syncline's own that sync like any other. Their numbers are below [`FIRST_OWN`].

use std::collections::BTreeMap;

use crate::{
    ids::{ColumnNumber, TableNumber},
    schema::{Column, ColumnType, MergeStrategy, RuleTexts, SyncMode, Table},
};

/// Tables of apps are numbered from here.
pub const FIRST_OWN: TableNumber = TableNumber(16);

/// Number of [`conflicts_table`].
pub const CONFLICTS: TableNumber = TableNumber(1);

/// Columns of [`conflicts_table`], by position.
pub mod conflicts {
    /// uuid: the first 16 bytes of BLAKE3 of table number, key, column number and author.
    pub const ID: usize = 0;
    pub const TABLE_NAME: usize = 1;
    /// JSON array of the key's values.
    pub const ROW_KEY: usize = 2;
    /// NULL for the whole row.
    pub const COLUMN_NAME: usize = 3;
    /// `manual`: somebody has to decide; `deleted`: an update lost against a delete.
    pub const KIND: usize = 4;
    /// JSON: the value both started from (for `deleted`: null).
    pub const BASE: usize = 5;
    /// JSON: what the author wrote (for `deleted`: an object of columns).
    pub const MINE: usize = 6;
    /// JSON: what the server has.
    pub const THEIRS: usize = 7;
    /// User whose edit waits; the row is theirs alone.
    pub const AUTHOR: usize = 8;
    /// User who wrote `theirs`; NULL for another program.
    pub const OTHER: usize = 9;
    /// Milliseconds since 1970 by the server's clock.
    pub const OPENED_AT: usize = 10;
    /// `open` or `resolved`.
    pub const STATE: usize = 11;
    /// `mine`, `theirs` or `value`; NULL while open.
    pub const RESOLUTION: usize = 12;
    pub const RESOLVED_AT: usize = 13;
}

/// The conflict inbox: one row for each (row, column, author), written by the server, seen and
/// resolved by its author alone.
#[must_use]
pub fn conflicts_table() -> Table {
    let column = |index: u32, name: &str, ty: ColumnType, not_null: bool| Column {
        name: name.into(),
        number: ColumnNumber(index + 1),
        ty,
        not_null,
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
    use ColumnType::{Integer, Json, Text, Uuid};
    Table {
        name: "syncline_conflicts".into(),
        number: CONFLICTS,
        columns: vec![
            column(0, "id", Uuid, true),
            column(1, "table_name", Text, true),
            column(2, "row_key", Json, true),
            column(3, "column_name", Text, false),
            column(4, "kind", Text, true),
            column(5, "base", Json, false),
            column(6, "mine", Json, false),
            column(7, "theirs", Json, false),
            column(8, "author", Text, true),
            column(9, "other", Text, false),
            column(10, "opened_at", Integer, true),
            column(11, "state", Text, true),
            column(12, "resolution", Text, false),
            column(13, "resolved_at", Integer, false),
        ],
        primary_key: vec![conflicts::ID],
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
        rules: RuleTexts {
            read: Some("author = auth.uid()".into()),
            create: None,
            update: Some("author = auth.uid()".into()),
            delete: Some("author = auth.uid()".into()),
            write: None,
        },
        force: BTreeMap::new(),
    }
}
