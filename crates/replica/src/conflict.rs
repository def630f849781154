//! The inbox of conflicts: edits that somebody has to decide.

use syncline_core::{Timestamp, Value};

/// One conflict.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// The uuid of its row in `syncline_conflicts`.
    pub id: String,
    pub table: String,
    /// The key's values, in key order.
    pub key: Vec<Value>,
    /// `None` for the whole row.
    pub column: Option<String>,
    pub kind: ConflictKind,
    /// JSON.
    pub base: Option<String>,
    /// JSON: what this user wrote.
    pub mine: Option<String>,
    /// JSON: what the server has.
    pub theirs: Option<String>,
    /// User who wrote `theirs`; `None` for another program.
    pub other: Option<String>,
    pub opened_at: Timestamp,
    pub open: bool,
}

/// Why somebody has to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// Two people changed a column that merges by hand.
    Manual,
    /// An update lost against a delete.
    Deleted,
}

/// A decision.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// What this user wrote; for a deleted row: bring it back with it.
    Mine,
    /// What the server has.
    Theirs,
    /// Something else.
    Value(Value),
}
