//! Why a row could not be read or written.

use rusqlite::ErrorCode;
use syncline_core::{RowKey, Table, key::KeyError};

/// Why a row could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The database failed or refused: see [`RowError::is_constraint`].
    #[error("access a row of table {table}")]
    Database {
        table: String,
        #[source]
        source: rusqlite::Error,
    },
    /// An expression of the database (of an index, a CHECK, a generated column) cannot be
    /// computed from the row's values. Nothing was written.
    #[error("compute an expression of table {table}")]
    Expression {
        table: String,
        #[source]
        source: rusqlite::Error,
    },
    /// A stored text has no canonical form (spec SL10). The app's fault.
    #[error(
        "column {column} of row {row} of table {table} holds text that is not UTF-8; store it as \
         UTF-8 or as a blob"
    )]
    NotUtf8 {
        table: String,
        row: String,
        column: String,
    },
    /// A stored row has no key. The app's fault.
    #[error("row {row} of table {table} has no usable key")]
    Key {
        table: String,
        row: String,
        #[source]
        source: KeyError,
    },
    /// The column's type affinity turns this key into another one, so the row cannot be kept
    /// under it. Nothing was written.
    #[error(
        "table {table} cannot hold the key {key}: the declared type of a key column changes it"
    )]
    KeyChanges { table: String, key: RowKey },
}

impl RowError {
    pub(crate) fn database(table: &Table) -> impl FnOnce(rusqlite::Error) -> Self + use<> {
        let table = table.name.clone();
        |source| Self::Database { table, source }
    }

    /// What happened while a prepared statement ran: an error without a code of its own comes from
    /// an expression then, `malformed JSON` or `integer overflow`; while preparing it would mean
    /// that something is missing.
    pub(super) fn executing(table: &Table) -> impl FnOnce(rusqlite::Error) -> Self + use<> {
        let table = table.name.clone();
        |source| match source.sqlite_error() {
            Some(error) if error.extended_code == rusqlite::ffi::SQLITE_ERROR => {
                Self::Expression { table, source }
            }
            _ => Self::Database { table, source },
        }
    }

    /// Whether this database cannot hold the row beside the rows it has (UNIQUE, NOT NULL, CHECK,
    /// a STRICT type, an expression that fails, a key that changes), as opposed to a failing disk
    /// or a locked file.
    #[must_use]
    pub fn is_constraint(&self) -> bool {
        match self {
            Self::Database { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
            ),
            Self::Expression { .. } | Self::KeyChanges { .. } => true,
            Self::NotUtf8 { .. } | Self::Key { .. } => false,
        }
    }
}
