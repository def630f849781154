//! Marks: rows that something other than the pipeline changed, a portion at a time (spec PL13).

use syncline_core::{Row, RowKey, TableNumber};

/// A row that something other than the pipeline changed, deleted or inserted.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub table: TableNumber,
    pub key: RowKey,
    /// The row before the first change since marks were last taken; `None` when it did not
    /// exist. What the row is now is loaded.
    pub before: Option<Row>,
}

/// Marks that were taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MarksTaken {
    pub marks: Vec<Mark>,
    /// There was no room for all: others may wait. Never without a mark.
    pub more: bool,
}
