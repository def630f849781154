//! What can go wrong between a file and a server, for people and for programs.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use syncline_core::wire::{Refusal, code};
use syncline_replica::ReplicaError;

/// The longest wait that is kept to.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// Why an errand failed. Nothing is lost: what was not sent waits in the file.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("there is no file {}", .0.display())]
    NotFound(PathBuf),
    #[error("{} exists already; hydrate wants a new file (or `syncline sync` for one that is attached)", .0.display())]
    Exists(PathBuf),
    #[error("{} is no SQLite database", .0.display())]
    NotADatabase(PathBuf),
    #[error("{} is damaged: SQLite says \"{message}\"; restore it from a backup, or hydrate a new file", path.display())]
    Corrupt { path: PathBuf, message: String },
    #[error("{} cannot be written: {reason}", path.display())]
    ReadOnly { path: PathBuf, reason: String },
    #[error("another program holds {} locked; close its transaction and try again", .0.display())]
    Locked(PathBuf),
    #[error("the disk of {} is full; free some space and run the command again", .0.display())]
    DiskFull(PathBuf),
    #[error("{} is not attached; `syncline attach {}` does that", .0.display(), .0.display())]
    NotAttached(PathBuf),
    #[error("{} is attached already", .0.display())]
    AlreadyAttached(PathBuf),
    #[error("no server is known: give --server URL or set SYNCLINE_URL")]
    NoServer,
    #[error(
        "no token is known: give --token, --token-file or set SYNCLINE_TOKEN (`syncline token --user NAME` makes one), or sign in with `syncline login`"
    )]
    NoToken,
    /// A provider of tokens has none at the moment.
    #[error("there is no token for {url} now: {reason}; your changes wait in the file")]
    NoTokenNow { url: String, reason: String },
    /// A login has ended, or there is none: somebody has to sign in.
    #[error("{message}")]
    SignedOut { message: String },
    #[error("{url} is no address of a server: {reason}; it looks like http://127.0.0.1:7117")]
    BadUrl { url: String, reason: String },
    #[error("the server at {url} cannot be reached: {reason}; your changes wait in the file")]
    Unreachable {
        url: String,
        reason: String,
        /// How long not to ask again, if something in between said so.
        retry_after: Option<Duration>,
    },
    #[error("{url} answers, but not like a Syncline server: {reason}")]
    NotASyncline { url: String, reason: String },
    /// The server says no, or the session ended for a reason that trying again does not mend.
    #[error("{message}")]
    Refused {
        code: String,
        message: String,
        retry: bool,
        /// How long not to ask again.
        retry_after: Option<Duration>,
    },
    #[error("{message}")]
    TableUnfit { message: String },
    #[error("{0}")]
    Doubt(String),
    #[error("interrupted; the next run goes on from here")]
    Interrupted,
    #[error("the credentials in {} cannot be used: {reason}", path.display())]
    Credentials { path: PathBuf, reason: String },
    #[error("in {}: {source}", path.display())]
    Replica {
        path: PathBuf,
        #[source]
        source: ReplicaError,
    },
}

impl ClientError {
    /// A stable name for programs.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Exists(_) => "exists",
            Self::NotADatabase(_) => "not_a_database",
            Self::Corrupt { .. } => "corrupt",
            Self::ReadOnly { .. } => "read_only",
            Self::Locked(_) => "locked",
            Self::DiskFull(_) => "disk_full",
            Self::NotAttached(_) => "not_attached",
            Self::AlreadyAttached(_) => "already_attached",
            Self::NoServer => "no_server",
            Self::NoToken => "no_token",
            Self::NoTokenNow { .. } => "no_token_now",
            Self::SignedOut { .. } => "signed_out",
            Self::BadUrl { .. } => "bad_url",
            Self::Unreachable { .. } => "unreachable",
            Self::NotASyncline { .. } => "not_a_syncline",
            Self::Refused { code, .. } => code,
            Self::TableUnfit { .. } => "table_unfit",
            Self::Doubt(_) => "doubt",
            Self::Interrupted => "interrupted",
            Self::Credentials { .. } => "credentials",
            Self::Replica { source, .. } => source.code(),
        }
    }

    /// How long not to ask again, as the server or something in between said; an hour at most, so
    /// that no mistake of theirs keeps a device away for ever.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Self::Unreachable { retry_after, .. } | Self::Refused { retry_after, .. } = self {
            retry_after.map(|wait| wait.min(RETRY_AFTER_MAX))
        } else {
            None
        }
    }

    /// Whether the same call may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Locked(_) | Self::Unreachable { .. } | Self::NoTokenNow { .. } => true,
            Self::Refused { retry, .. } => *retry,
            Self::Replica { source, .. } => source.is_retryable(),
            Self::NotFound(_)
            | Self::Exists(_)
            | Self::NotADatabase(_)
            | Self::Corrupt { .. }
            | Self::ReadOnly { .. }
            | Self::DiskFull(_)
            | Self::NotAttached(_)
            | Self::AlreadyAttached(_)
            | Self::NoServer
            | Self::NoToken
            | Self::SignedOut { .. }
            | Self::BadUrl { .. }
            | Self::NotASyncline { .. }
            | Self::TableUnfit { .. }
            | Self::Doubt(_)
            | Self::Interrupted
            | Self::Credentials { .. } => false,
        }
    }

    /// The user took this device off the list; `unsent` changesets wait in the file.
    pub(crate) fn deregistered(unsent: u64) -> Self {
        let waits = match unsent {
            0 => String::new(),
            1 => " (1 changeset that was not sent waits in the file)".to_owned(),
            unsent => format!(" ({unsent} changesets that were not sent wait in the file)"),
        };
        Self::Refused {
            code: code::DEREGISTERED.to_owned(),
            message: format!(
                "this device was removed from its user's list of devices and does not sync any \
                 more; what is in the file stays{waits}; register it anew to go on"
            ),
            retry: false,
            retry_after: None,
        }
    }

    /// Somebody has to sign in at `url`; `said`: by whom else that was said, and how.
    pub(crate) fn signed_out(url: &str, said: Option<&str>) -> Self {
        let said = said.map_or_else(String::new, |said| format!(" ({said})"));
        Self::SignedOut {
            message: format!(
                "sign in again at {url}: nobody is signed in there any more{said}; what is in the \
                 file stays, and your changes wait"
            ),
        }
    }

    /// Whether the server does not want this device, or not as who it comes.
    pub(crate) fn is_about_us(&self) -> bool {
        self.is_unauthorized()
            || self.code() == code::DEREGISTERED
            || matches!(self, Self::SignedOut { .. })
    }

    /// Whether it is the token that the server does not take.
    pub(crate) fn is_unauthorized(&self) -> bool {
        self.code() == code::UNAUTHORIZED
    }

    /// The user took this device off the list, and had it wiped.
    pub(crate) fn wiped() -> Self {
        Self::Refused {
            code: code::DEREGISTERED.to_owned(),
            message: "this device was removed from its user's list of devices, and what it had \
                      synced from this file, as the user asked; register it anew to load it again"
                .to_owned(),
            retry: false,
            retry_after: None,
        }
    }

    pub(crate) fn refused(refusal: &Refusal) -> Self {
        let hint = match refusal.code.as_str() {
            code::UNAUTHORIZED => " (`syncline token --user NAME` makes a token)",
            _ => "",
        };
        Self::Refused {
            code: refusal.code.clone(),
            message: format!("the server refused: {}{hint}", refusal.message),
            retry: refusal.retry,
            retry_after: refusal.retry_after_ms.map(Duration::from_millis),
        }
    }

    /// Files a replica's error under what happened to the file.
    pub fn replica(path: &Path, source: ReplicaError) -> Self {
        let path = path.to_owned();
        match source {
            ReplicaError::NotAttached => Self::NotAttached(path),
            ReplicaError::AlreadyAttached => Self::AlreadyAttached(path),
            ReplicaError::TableUnfit { table, reason } => Self::TableUnfit {
                message: format!("table {table} cannot sync: {reason}"),
            },
            // The engine reads what it wrote itself, and the schema.
            ReplicaError::Database {
                source: error,
                doing,
            } if is_unreadable(&error) => Self::Corrupt {
                path,
                message: format!("{error}, {doing}"),
            },
            ReplicaError::Database {
                source: error,
                doing,
            } => Self::sqlite(&path, &error).unwrap_or(Self::Replica {
                path,
                source: ReplicaError::Database {
                    source: error,
                    doing,
                },
            }),
            // A damaged, full or locked file is that, whatever was being done with it.
            ReplicaError::Rows {
                table,
                source: error,
            } => Self::sqlite(&path, &error).unwrap_or(Self::Replica {
                path,
                source: ReplicaError::Rows {
                    table,
                    source: error,
                },
            }),
            source @ (ReplicaError::Row { .. }
            | ReplicaError::Schema { .. }
            | ReplicaError::NewerFormat { .. }
            | ReplicaError::Damaged { .. }
            | ReplicaError::DamagedChangeset { .. }
            | ReplicaError::DamagedImage { .. }
            | ReplicaError::UnknownTable { .. }
            | ReplicaError::UnknownChangeset { .. }
            | ReplicaError::StillLoading
            | ReplicaError::UnknownConflict { .. }
            | ReplicaError::BadResolution { .. }
            | ReplicaError::BadKey { .. }
            | ReplicaError::BadTopic { .. }
            | ReplicaError::BadRestore { .. }
            | ReplicaError::NoKey { .. }
            | ReplicaError::UnknownColumn { .. }
            | ReplicaError::TooManySubscriptions { .. }
            | ReplicaError::InTransaction) => Self::Replica { path, source },
        }
    }

    /// The kinds of SQLite errors that say something to a person.
    pub(crate) fn sqlite(path: &Path, error: &rusqlite::Error) -> Option<Self> {
        use rusqlite::ErrorCode;
        let path = path.to_owned();
        let message = error.to_string();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the other kinds say nothing about the file"
        )]
        Some(match error.sqlite_error_code()? {
            ErrorCode::NotADatabase => Self::NotADatabase(path),
            ErrorCode::DatabaseCorrupt => Self::Corrupt { path, message },
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied => Self::ReadOnly {
                path,
                reason: "it or its folder is read-only for this user".to_owned(),
            },
            ErrorCode::CannotOpen => Self::ReadOnly {
                path,
                reason: message,
            },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Locked(path),
            ErrorCode::DiskFull => Self::DiskFull(path),
            // What our own statements write fits into our own tables, unless a disk changed these.
            ErrorCode::ConstraintViolation if message.contains(OURS_REFUSES) => {
                let message = format!("the sync metadata contradicts itself: {message}");
                Self::Corrupt { path, message }
            }
            // Of our own statements none names what was never there.
            _ if OURS_GONE.iter().any(|gone| message.contains(gone)) => {
                let message = format!("a part of the sync metadata was taken out: {message}");
                Self::Corrupt { path, message }
            }
            _ => return None,
        })
    }
}

/// What SQLite says of tables of the metadata that are not there any more.
const OURS_GONE: [&str; 2] = ["no such table: syncline_", "no such table: main.syncline_"];

/// Whether a value is not of the kind that it was written as: text that is not UTF-8, for instance.
fn is_unreadable(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
    )
}

/// What SQLite says of a table of the metadata that does not take a row.
const OURS_REFUSES: &str = "constraint failed: syncline_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_or_full_file_is_told_as_such_also_where_rows_of_a_table_were_touched() {
        let told = |code: std::ffi::c_int| {
            let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            let table = "notes".to_owned();
            ClientError::replica(Path::new("a.db"), ReplicaError::Rows { table, source })
        };
        let corrupt = told(rusqlite::ffi::SQLITE_CORRUPT);
        assert!(matches!(corrupt, ClientError::Corrupt { .. }), "{corrupt}");
        let full = told(rusqlite::ffi::SQLITE_FULL);
        assert!(matches!(full, ClientError::DiskFull(_)), "{full}");
        let said = |code, said: &str| {
            let error = rusqlite::ffi::Error::new(code);
            let error = rusqlite::Error::SqliteFailure(error, Some(said.to_owned()));
            ClientError::sqlite(Path::new("a.db"), &error)
        };
        let gone = said(
            rusqlite::ffi::SQLITE_ERROR,
            "no such table: syncline_acknowledged",
        );
        let unique = rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY;
        let twice = said(unique, "UNIQUE constraint failed: syncline_members.b");
        for ours in [gone, twice] {
            assert!(
                matches!(ours, Some(ClientError::Corrupt { .. })),
                "{ours:?}"
            );
        }
        let text = String::from_utf8(vec![0xFF]).expect_err("no text");
        let unreadable = ClientError::replica(
            Path::new("a.db"),
            ReplicaError::Database {
                source: rusqlite::Error::Utf8Error(0, text.utf8_error()),
                doing: "reading the schema",
            },
        );
        assert!(
            matches!(unreadable, ClientError::Corrupt { .. }),
            "{unreadable}"
        );
        let theirs = said(unique, "UNIQUE constraint failed: notes.id");
        assert!(theirs.is_none(), "{theirs:?}");
        let other = told(rusqlite::ffi::SQLITE_IOERR);
        assert!(matches!(other, ClientError::Replica { .. }), "{other}");
    }
}
