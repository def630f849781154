//! Why a data file cannot be opened.

use std::path::PathBuf;

/// Why a data file cannot be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server works on it.
    #[error(
        "{path} is in use by another Syncline server{}: stop it first, or use another data folder",
        if holder.is_empty() { String::new() } else { format!(" (process {holder})") }
    )]
    InUse {
        path: PathBuf,
        /// Its process id; empty when unknown.
        holder: String,
    },
    /// A restore was cut after it had moved the old file aside.
    #[error(
        "{path} is missing: a `syncline restore` was interrupted; run it again (what was there \
         before it is beside it)"
    )]
    Restoring { path: PathBuf },
    #[error("{path} is not an SQLite database, or it is damaged")]
    NotADatabase { path: PathBuf },
    /// It has metadata of a replica.
    #[error(
        "{path} is a device's database, attached to a Syncline server: give the server a \
         database of its own, or detach this one first"
    )]
    Replica { path: PathBuf },
    #[error(
        "{path} was written by a newer Syncline (data format {found}; this one reads up to \
         {supported}): use that version again, or restore a backup"
    )]
    Newer {
        path: PathBuf,
        found: i64,
        supported: i64,
    },
    #[error("metadata in {path} is damaged: {what}")]
    Damaged { path: PathBuf, what: String },
    #[error("this program contains SQLite {found}, which can corrupt a database; it needs 3.51.3")]
    Sqlite { found: &'static str },
    /// A folder or side file.
    #[error("cannot use {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot open {path}: {source}")]
    Database {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
}
