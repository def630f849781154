//! Encoded once, shared by all: changesets on their way in, rows on their way out.

use crate::{
    change::Changeset,
    hlc::Hlc,
    ids::{ChangesetId, ColumnNumber, TableNumber, Version},
    key::RowKey,
    value::Value,
};

/// One row as the server sends it, in pages (always whole) and in log records.
#[derive(Debug, Clone, PartialEq)]
pub struct RowBody {
    pub table: TableNumber,
    pub key: RowKey,
    /// The version of the row after the change.
    pub version: Version,
    pub state: RowState,
    /// Who changed it last. Empty in `Removed` that is a loss of sight.
    pub author: String,
    /// The changeset that did; zero in pages.
    pub changeset: ChangesetId,
    /// The clock the changed columns carry now; zero in pages.
    pub hlc: Hlc,
}

/// What the receiver does with the row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowState {
    /// The whole row, every column but generated ones; replaces what is there.
    Whole { columns: Vec<(ColumnNumber, Value)>, owner: String, created: Version },
    /// The row is there already; these columns changed.
    Columns(Vec<(ColumnNumber, Value)>),
    /// The row was deleted.
    Deleted,
    /// The row is not the reader's any more; whether it still exists is not said.
    Removed,
}
