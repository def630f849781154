//! Copies of a data file: taken while a server works on it, put back when none does.
//!
//! A copy is one SQLite file like any other. What else belongs to a server (its token secret)
//! travels in a table of its own, which the restored file no longer has.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};

use crate::{
    format::{self, FORMAT},
    lock::{DataLock, private, side_file},
    open::OpenError,
};

/// Pages copied between two reports of progress: 4 MiB.
const STEP_PAGES: i32 = 1024;

/// What a copy is named until it takes the place of a data file.
pub(crate) const RESTORING: &str = "-restoring";

/// What SQLite names a database and its side files, in the order in which they are moved: a log
/// never stays beside another database.
const SIDES: [&str; 4] = ["-wal", "-shm", "-journal", ""];

/// Small files that belong to a server, by name.
pub type SideFiles = Vec<(String, Vec<u8>)>;

/// Why a copy was not made or not put back. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0} is not there")]
    NotFound(PathBuf),
    #[error("{0} is there already")]
    Exists(PathBuf),
    #[error("{0} is no backup of a Syncline server: `syncline backup FILE` makes one")]
    NotABackup(PathBuf),
    #[error("{0} holds no data of a Syncline server")]
    NotAServer(PathBuf),
    #[error("the disk is full: {0} could not be written")]
    DiskFull(PathBuf),
}

/// Copies the data file `database` into the new file `to`, at one moment of it, while servers
/// and other programs go on writing. Answers the copy's size in bytes.
///
/// `on_progress` hears pages done and pages in all, every 4 MiB. The write-ahead log of the
/// source cannot shrink meanwhile.
///
/// # Errors
/// [`BackupError`]; a copy that was not finished is removed.
pub fn back_up(
    database: &Path,
    to: &Path,
    files: &SideFiles,
    on_progress: impl FnMut(u32, u32),
) -> Result<u64, BackupError> {
    if !database.exists() {
        return Err(BackupError::NotFound(database.to_owned()));
    }
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let source = open(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    if found_format(&source, database)?.is_none() {
        return Err(BackupError::NotAServer(database.to_owned()));
    }
    let new = side_file(to, "-unfinished");
    let made = copy(&source, database, &new, on_progress).and_then(|copy| {
        let sqlite = |error| fault(&new, error);
        copy.execute_batch(
            "BEGIN;
             CREATE TABLE syncline_backup(name TEXT PRIMARY KEY, content BLOB NOT NULL);",
        )
        .map_err(sqlite)?;
        for (name, content) in files {
            let row = (name, content);
            copy.execute("INSERT INTO syncline_backup VALUES (?1, ?2)", row)
                .map_err(sqlite)?;
        }
        copy.execute_batch("COMMIT").map_err(sqlite)?;
        copy.close().map_err(|(_, error)| sqlite(error))?;
        move_into_place(&new, to)?;
        let bytes = fs::metadata(to).map_err(|error| io_error(to, error))?.len();
        Ok(bytes)
    });
    if made.is_err() {
        remove(&new);
    }
    made
}

/// Puts the copy `from` back as the data file `database`, and answers the files that were kept
/// with it. What was there before stays beside it, under a name that ends in `before`.
///
/// # Errors
/// [`BackupError`]: among others, a server works on `database`, or it exists and `before` is
/// `None`; the copy is damaged or was made by a newer program.
pub fn restore(
    from: &Path,
    database: &Path,
    before: Option<&str>,
    on_progress: impl FnMut(u32, u32),
) -> Result<SideFiles, BackupError> {
    if !from.exists() {
        return Err(BackupError::NotFound(from.to_owned()));
    }
    // A log without its database would be taken for the new file's: it counts as data, too.
    let there = SIDES.map(|side| side_file(database, side));
    if before.is_none()
        && let Some(found) = there.iter().find(|path| path.exists())
    {
        return Err(BackupError::Exists(found.clone()));
    }
    let source = open(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let files = check(&source, from)?;
    if let Some(folder) = database
        .parent()
        .filter(|path| !path.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(|error| io_error(folder, error))?;
    }
    let _lock = DataLock::take(database)?;
    let new = side_file(database, RESTORING);
    let placed = copy(&source, from, &new, on_progress).and_then(|copy| {
        let sqlite = |error| fault(&new, error);
        copy.execute_batch("DROP TABLE syncline_backup")
            .map_err(sqlite)?;
        copy.close().map_err(|(_, error)| sqlite(error))?;
        if let Some(before) = before {
            move_aside(database, before)?;
        }
        move_into_place(&new, database)
    });
    if placed.is_err() {
        remove(&new);
    }
    placed.map(|()| files)
}

/// Renames the data that is there, a name at a time: cut in between, what is left is refused by
/// the next `restore` without `before`, and never opened with a log that is not its own.
fn move_aside(database: &Path, before: &str) -> Result<(), BackupError> {
    if database.exists() {
        // With an empty log nothing is lost whichever of the names a cut leaves behind. A file
        // that is too damaged for that is moved as it is.
        let emptied = open(database, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|conn| {
            conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .map_err(|error| fault(database, error))
        });
        drop(emptied);
    }
    for side in SIDES {
        let old = side_file(database, side);
        let aside = side_file(database, &format!("-{before}{side}"));
        match fs::rename(&old, aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(&old, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether every page is sound and the data is of a format that this program reads.
fn check(source: &Connection, from: &Path) -> Result<SideFiles, BackupError> {
    let sqlite = |error| fault(from, error);
    let is_backup = source
        .table_exists(None, "syncline_backup")
        .map_err(sqlite)?;
    let Some(found) = found_format(source, from)?.filter(|_| is_backup) else {
        return Err(BackupError::NotABackup(from.to_owned()));
    };
    if found > FORMAT {
        let path = from.to_owned();
        return Err(OpenError::Newer {
            path,
            found,
            supported: FORMAT,
        }
        .into());
    }
    let sound: String = source
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(sqlite)?;
    if sound != "ok" {
        let path = from.to_owned();
        return Err(OpenError::Damaged { path, what: sound }.into());
    }
    source
        .prepare("SELECT name, content FROM syncline_backup ORDER BY name")
        .and_then(|mut files| {
            files
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
        .map_err(sqlite)
}

/// The whole of `source` in a new file that is for its owner alone, with no side files.
fn copy(
    source: &Connection,
    source_path: &Path,
    new: &Path,
    mut on_progress: impl FnMut(u32, u32),
) -> Result<Connection, BackupError> {
    remove(new);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    private(&mut options);
    drop(options.open(new).map_err(|error| io_error(new, error))?);
    let mut copy = open(new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // With a read transaction of its own the copy is of one moment and never begins anew.
    source
        .execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")
        .map_err(|error| fault(source_path, error))?;
    {
        let backup = Backup::new(source, &mut copy).map_err(|error| fault(new, error))?;
        loop {
            let step = backup.step(STEP_PAGES).map_err(|error| fault(new, error))?;
            let progress = backup.progress();
            let pages = |count: i32| count.unsigned_abs();
            on_progress(
                pages(progress.pagecount - progress.remaining),
                pages(progress.pagecount),
            );
            if step == StepResult::Done {
                break;
            }
        }
    }
    source
        .execute_batch("COMMIT")
        .map_err(|error| fault(source_path, error))?;
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        .map_err(|error| fault(new, error))?;
    Ok(copy)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, BackupError> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).and_then(
        |conn| {
            conn.busy_timeout(std::time::Duration::from_secs(10))?;
            Ok(conn)
        },
    );
    conn.map_err(|error| fault(path, error))
}

fn found_format(conn: &Connection, path: &Path) -> Result<Option<i64>, BackupError> {
    format::found_format(conn).map_err(|error| fault(path, error))
}

/// Renames a finished file and makes sure that the name outlives a power cut.
fn move_into_place(new: &Path, to: &Path) -> Result<(), BackupError> {
    let renamed = File::open(new)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(new, to));
    renamed.map_err(|error| io_error(to, error))?;
    let folder = match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| io_error(folder, error))
}

/// Best effort: what is left says by its name what it is.
fn remove(new: &Path) {
    for side in SIDES {
        let _absent = fs::remove_file(side_file(new, side));
    }
}

fn io_error(path: &Path, source: io::Error) -> BackupError {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::StorageFull {
        return BackupError::DiskFull(path);
    }
    OpenError::Io { path, source }.into()
}

fn fault(path: &Path, error: rusqlite::Error) -> BackupError {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
        return BackupError::DiskFull(path.to_owned());
    }
    format::describe(path, error).into()
}
