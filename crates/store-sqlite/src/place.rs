//! Where the database is, and how a connection to it is set up.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

/// A file, or memory that all connections of this process with the same name share.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    File(PathBuf),
    Memory(String),
}

/// How long a connection waits for another program's write transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Enough for some five statements for each of 200 tables.
const STATEMENTS_MAX: usize = 1_200;
const WAL_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// Negative: KiB. Filled as pages are read.
const WRITER_CACHE: i64 = -32 * 1024;
const READER_CACHE: i64 = -8 * 1024;

impl Place {
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Memory(_) => None,
        }
    }

    /// The one connection that writes.
    pub(crate) fn writer(&self) -> rusqlite::Result<Connection> {
        let conn = self.connect(true)?;
        if matches!(self, Self::File(_)) {
            conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
            // In WAL mode only FULL syncs before a commit returns (spec PL17).
            conn.pragma_update(None, "synchronous", "FULL")?;
            conn.pragma_update(None, "wal_autocheckpoint", 1000)?;
            conn.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_MAX, |_| Ok(()))?;
        }
        conn.pragma_update(None, "cache_size", WRITER_CACHE)?;
        Ok(conn)
    }

    /// A connection that cannot write.
    pub(crate) fn reader(&self) -> rusqlite::Result<Connection> {
        let conn = self.connect(false)?;
        conn.pragma_update(None, "query_only", true)?;
        conn.pragma_update(None, "cache_size", READER_CACHE)?;
        Ok(conn)
    }

    fn connect(&self, create: bool) -> rusqlite::Result<Connection> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
        let conn = match self {
            Self::File(path) => Connection::open_with_flags(path, flags)?,
            Self::Memory(name) => Connection::open_with_flags(
                format!("file:/{name}?vfs=memdb"),
                flags | OpenFlags::SQLITE_OPEN_URI,
            )?,
        };
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        // Plans that do not look at what is bound: else SQLite prepares many a cached statement
        // anew for each row.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        conn.pragma_update(None, "foreign_keys", true)?;
        conn.pragma_update(None, "trusted_schema", false)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        Ok(conn)
    }
}
