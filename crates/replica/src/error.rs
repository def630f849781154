//! What can go wrong on this side of the connection.

use syncline_core::{RowKey, TableNumber};

/// Why an operation of a [`crate::Replica`] failed. The file is unchanged by the operation.
///
/// A misbehaving server is never an error: the session closes with a reason instead.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The database failed: disk, lock, damage.
    #[error("the database failed while {doing}")]
    Database {
        doing: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    /// The database failed on rows of one of the app's tables.
    #[error("the database failed on rows of table {table}")]
    Rows {
        table: String,
        #[source]
        source: rusqlite::Error,
    },
    /// A row of the app's cannot be read as the schema says.
    #[error("{reason}")]
    Row { reason: String },
    /// The app's schema is not what syncs any more.
    #[error("{reason}")]
    Schema { reason: String },
    /// The file carries no metadata of Syncline.
    #[error("the file is not attached; attach it first")]
    NotAttached,
    #[error("the file is attached already; detach it first or open it")]
    AlreadyAttached,
    /// The file was written by a newer program.
    #[error(
        "the file's sync metadata has format {found}, this program knows up to {known}; update the program"
    )]
    NewerFormat { found: u32, known: u32 },
    /// The metadata contradicts itself: a flipped bit or somebody wrote to `syncline_*`.
    #[error(
        "the sync metadata is damaged: {what}; run `verify --repair`, or detach and attach again"
    )]
    Damaged { what: String },
    /// A changeset in the outbox cannot be read. The calls that a driver makes put it aside by
    /// themselves (spec OB13); others fail until one of those was made.
    #[error("a stored changeset is damaged: {what}")]
    DamagedChangeset { seq: i64, what: String },
    /// What is kept of the server's image of a row cannot be read. As for a changeset.
    #[error("what is kept of a row is damaged: {what}")]
    DamagedImage {
        table: TableNumber,
        key: RowKey,
        what: String,
    },
    #[error("no table called {name} syncs in this file")]
    UnknownTable { name: String },
    /// A table that was chosen cannot sync.
    #[error("table {table} cannot sync: {reason}")]
    TableUnfit { table: String, reason: String },
    /// Rows are on their way that have to be here first.
    #[error("not everything is here yet: sync first, with the same keys")]
    StillLoading,
    #[error("there is no changeset {id} in the queue")]
    UnknownChangeset { id: String },
    #[error("there is no open conflict {id}")]
    UnknownConflict { id: String },
    /// A resolution that the column or row does not take.
    #[error("the conflict cannot be resolved so: {reason}")]
    BadResolution { reason: String },
    /// The caller passed values that are no key of the table.
    #[error("not a key of table {table}: {reason}")]
    BadKey { table: String, reason: String },
    /// Nobody can subscribe to this.
    #[error("nothing of {table} can be subscribed to by this: {reason}")]
    BadTopic { table: String, reason: String },
    /// A row cannot be made what it was.
    #[error("the row of {table} cannot be restored: {reason}")]
    BadRestore { table: String, reason: String },
    /// Values of encrypted columns were to be compared with the server's, without the key.
    #[error(
        "{table} has encrypted columns, and no key was given: give it the key (`--encryption-key-file`, or `encryption_key` of the library)"
    )]
    NoKey { table: String },
    #[error("table {table} has no column {column}")]
    UnknownColumn { table: String, column: String },
    /// As many subscriptions as a device may have.
    #[error(
        "a device may subscribe to {max} things at a time; unsubscribe from what is not needed"
    )]
    TooManySubscriptions { max: u64 },
    /// Another transaction is open on the connection.
    #[error("a transaction is open on the connection; commit it first")]
    InTransaction,
}

impl ReplicaError {
    /// A stable name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Database { .. } => "database",
            Self::Rows { .. } => "rows",
            Self::Row { .. } => "row",
            Self::Schema { .. } => "schema",
            Self::NotAttached => "not_attached",
            Self::AlreadyAttached => "already_attached",
            Self::NewerFormat { .. } => "newer_format",
            Self::Damaged { .. } | Self::DamagedChangeset { .. } | Self::DamagedImage { .. } => {
                "damaged"
            }
            Self::UnknownTable { .. } => "unknown_table",
            Self::TableUnfit { .. } => "table_unfit",
            Self::UnknownChangeset { .. } => "unknown_changeset",
            Self::StillLoading => "still_loading",
            Self::UnknownConflict { .. } => "unknown_conflict",
            Self::BadResolution { .. } => "bad_resolution",
            Self::BadKey { .. } => "bad_key",
            Self::BadTopic { .. } => "bad_topic",
            Self::BadRestore { .. } => "bad_restore",
            Self::NoKey { .. } => crate::session::ENCRYPTION_KEY_MISSING,
            Self::UnknownColumn { .. } => "unknown_column",
            Self::TooManySubscriptions { .. } => "too_many_subscriptions",
            Self::InTransaction => "in_transaction",
        }
    }

    /// Whether the same call may succeed later: the file was locked by another program.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        matches!(self, Self::Database { source, .. } | Self::Rows { source, .. }
            if matches!(source.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked)))
    }
}
