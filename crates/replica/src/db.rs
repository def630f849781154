//! Small helpers around SQLite: named failures and transactions.

use rusqlite::{Connection, Transaction, TransactionBehavior, config::DbConfig};

use crate::{
    capture::CaptureError, error::ReplicaError, introspect::IntrospectError, rows::RowError,
};

/// Says what was being done when the database failed.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, ReplicaError>;
}

impl<T> Doing<T> for rusqlite::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, ReplicaError> {
        self.map_err(|source| ReplicaError::Database { doing, source })
    }
}

/// Most prepared statements kept by the connection: six for each of 200 tables and our own.
const STATEMENTS_MAX: usize = 1_400;
/// How long a statement waits for another program's transaction.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// What every connection of a replica has; nothing of it is stored in the file.
pub(crate) fn prepare_connection(conn: &Connection) -> Result<(), ReplicaError> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    let waits: i64 = conn
        .query_row("PRAGMA busy_timeout", [], |row| row.get(0))
        .doing("reading the busy timeout")?;
    if waits == 0 {
        conn.busy_timeout(BUSY).doing("setting the busy timeout")?;
    }
    // Plans that do not look at what is bound: else SQLite prepares many a cached statement anew
    // for each row.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .doing("asking for stable plans")?;
    // Images of rows pass through marks, shadows and the outbox: what is deleted there must not
    // stay in free pages once a row may not be seen any more (spec AP8).
    conn.pragma_update(None, "secure_delete", true)
        .doing("having deleted rows overwritten")
}

/// Runs `work` in one immediate transaction.
pub(crate) fn immediate<T, E: From<ReplicaError>>(
    conn: &Connection,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    if !conn.is_autocommit() {
        return Err(ReplicaError::InTransaction.into());
    }
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)
        .doing("beginning a transaction")?;
    let done = work()?;
    transaction.commit().doing("committing a transaction")?;
    Ok(done)
}

/// Runs `work`, which only reads, on one state of the file: the file is locked once and not for
/// each statement.
pub(crate) fn snapshot<T>(
    conn: &Connection,
    work: impl FnOnce() -> Result<T, ReplicaError>,
) -> Result<T, ReplicaError> {
    if !conn.is_autocommit() {
        return work();
    }
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Deferred)
        .doing("beginning to read")?;
    let done = work()?;
    transaction.commit().doing("ending to read")?;
    Ok(done)
}

/// Has old content leave the write-ahead log too, where nobody reads it at the moment.
pub(crate) fn empty_log(conn: &Connection) -> Result<(), ReplicaError> {
    const DOING: &str = "erasing rows";
    let mode: String = conn
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .doing(DOING)?;
    if mode.eq_ignore_ascii_case("wal") {
        let waits: i64 = conn
            .query_row("PRAGMA busy_timeout", [], |row| row.get(0))
            .doing(DOING)?;
        conn.busy_timeout(std::time::Duration::ZERO).doing(DOING)?;
        // A reader elsewhere keeps it from happening now; the next checkpoint will do it.
        let _truncated: i64 = conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .doing(DOING)?;
        let waits = std::time::Duration::from_millis(waits.max(0).cast_unsigned());
        conn.busy_timeout(waits).doing(DOING)?;
    }
    Ok(())
}

impl From<RowError> for ReplicaError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Database { table, source } | RowError::Expression { table, source } => {
                Self::Rows { table, source }
            }
            other @ (RowError::NotUtf8 { .. }
            | RowError::Key { .. }
            | RowError::KeyChanges { .. }) => Self::Row {
                reason: other.to_string(),
            },
        }
    }
}

impl From<CaptureError> for ReplicaError {
    fn from(error: CaptureError) -> Self {
        match error {
            CaptureError::Database { doing, source } => Self::Database { doing, source },
            CaptureError::Table { table, source } => Self::Rows { table, source },
            CaptureError::Rows { source, .. } => (*source).into(),
            // A table of the engine's own, as the inbox is: no app leaves it out.
            CaptureError::TableGone { table } | CaptureError::ColumnGone { table, .. }
                if table.starts_with("syncline_") =>
            {
                Self::Damaged {
                    what: format!("{table} was taken out or changed"),
                }
            }
            other @ (CaptureError::TableGone { .. }
            | CaptureError::ColumnGone { .. }
            | CaptureError::OtherKey { .. }) => Self::Schema {
                reason: other.to_string(),
            },
        }
    }
}

impl From<IntrospectError> for ReplicaError {
    fn from(IntrospectError(source): IntrospectError) -> Self {
        Self::Database {
            doing: "reading the tables of the database",
            source,
        }
    }
}
