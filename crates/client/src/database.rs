//! Opening the app's file politely.

use std::{path::Path, time::Duration};

use rusqlite::{Connection as Sqlite, OpenFlags};
use syncline_core::sql;
use syncline_replica::{Keyring, Replica};

use crate::{error::ClientError, system};

/// How long another program's transaction is waited for.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// Opens an existing database for reading and writing; creates nothing, sets nothing in the file.
pub(crate) fn open(path: &Path) -> Result<Sqlite, ClientError> {
    if !path.exists() {
        return Err(ClientError::NotFound(path.to_owned()));
    }
    if path.is_dir() {
        return Err(ClientError::NotADatabase(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sqlite = |error: rusqlite::Error| database_error(path, error);
    let conn = Sqlite::open_with_flags(path, flags).map_err(sqlite)?;
    prepare(&conn).map_err(sqlite)?;
    // The first read finds out what the file really is.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        .map_err(sqlite)?;
    if conn.is_readonly("main").map_err(sqlite)? {
        let reason = "it or its folder is read-only for this user".to_owned();
        return Err(ClientError::ReadOnly {
            path: path.to_owned(),
            reason,
        });
    }
    Ok(conn)
}

/// Whether nothing is in the file: what a run that was interrupted at its very start leaves.
pub(crate) fn is_blank(path: &Path) -> Result<bool, ClientError> {
    open(path)?
        .query_row(
            "SELECT count(*) = 0 FROM sqlite_schema WHERE name NOT LIKE 'syncline\\_%' ESCAPE '\\'",
            [],
            |row| row.get(0),
        )
        .map_err(|error| database_error(path, error))
}

/// Creates a new, empty database.
pub(crate) fn create(path: &Path) -> Result<Sqlite, ClientError> {
    if let Some(folder) = path.parent()
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        return Err(ClientError::ReadOnly {
            path: path.to_owned(),
            reason: format!("there is no folder {}", folder.display()),
        });
    }
    let sqlite = |error: rusqlite::Error| database_error(path, error);
    let conn = Sqlite::open(path).map_err(sqlite)?;
    prepare(&conn).map_err(sqlite)?;
    Ok(conn)
}

/// What holds for our connection alone. What we tell a server is on the disk before (spec SE2,
/// OB14): in a rollback journal a commit is only once the folder has been synced, too, else a
/// power cut brings the journal back, and the file to the state before. In WAL mode this is FULL.
fn prepare(conn: &Sqlite) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_MAX)?;
    conn.pragma_update(None, "synchronous", "EXTRA")
}

pub(crate) fn database_error(path: &Path, error: rusqlite::Error) -> ClientError {
    ClientError::sqlite(path, &error).unwrap_or_else(|| {
        let doing = "opening it";
        let source = syncline_replica::ReplicaError::Database {
            doing,
            source: error,
        };
        ClientError::Replica {
            path: path.to_owned(),
            source,
        }
    })
}

/// Whether the file carries Syncline's metadata.
///
/// # Errors
/// The file cannot be opened.
pub fn is_attached(path: &Path) -> Result<bool, ClientError> {
    let conn = open(path)?;
    Replica::is_attached(&conn).map_err(|error| ClientError::replica(path, error))
}

/// Opens an attached file.
///
/// # Errors
/// The file cannot be opened, or is not attached.
pub fn open_replica(path: &Path) -> Result<Replica, ClientError> {
    open_replica_with(path, Keyring::default())
}

/// Opens an attached file, with the keys of its encrypted columns.
///
/// # Errors
/// As [`open_replica`].
pub fn open_replica_with(path: &Path, keys: Keyring) -> Result<Replica, ClientError> {
    replica_of(open(path)?, path, keys)
}

/// The same, if the file is attached: with many tables opening a file twice takes twice as long.
pub(crate) fn open_attached(path: &Path, keys: Keyring) -> Result<Option<Replica>, ClientError> {
    let conn = open(path)?;
    match Replica::is_attached(&conn).map_err(|error| ClientError::replica(path, error))? {
        true => replica_of(conn, path, keys).map(Some),
        false => Ok(None),
    }
}

/// Opens what is attached behind `conn`, the file at `path`.
pub(crate) fn replica_of(conn: Sqlite, path: &Path, keys: Keyring) -> Result<Replica, ClientError> {
    Replica::open_with_keys(conn, Box::new(system::entropy), system::now(), keys)
        .map_err(|error| ClientError::replica(path, error))
}

/// How many rows there are in the tables that are still to be sent as a whole.
///
/// # Errors
/// The file cannot be read.
pub fn rows_to_seed(replica: &Replica, path: &Path) -> Result<u64, ClientError> {
    let status = replica
        .status()
        .map_err(|error| ClientError::replica(path, error))?;
    let mut rows = 0;
    for table in status.tables.iter().filter(|table| table.seeding) {
        let count = format!("SELECT count(*) FROM {}", sql::quote(&table.name));
        let count: i64 = replica
            .connection()
            .query_row(&count, [], |row| row.get(0))
            .map_err(|error| database_error(path, error))?;
        rows += count.unsigned_abs();
    }
    Ok(rows)
}
