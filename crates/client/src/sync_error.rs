//! What can go wrong, as apps see it.

use std::fmt;

use crate::error::ClientError;

/// Why something was not done. Nothing is lost: what was not sent waits in the file.
///
/// Can be cloned, and names no type of the storage engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    code: String,
    message: String,
    retryable: bool,
}

/// What kind of trouble it is: what a program decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No server or no token is configured: the app runs offline.
    NotConfigured,
    /// The server cannot be reached now; changes wait in the file.
    NotConnected,
    /// The server does not take the token, or somebody has to sign in again (code `signed_out`).
    Authentication,
    /// The user took this device off the list; [`crate::SyncManager::register_device`] brings it
    /// back.
    Deregistered,
    /// The server said no for another reason, or is not a Syncline server.
    Refused,
    /// A table cannot sync, or not with this server.
    Table,
    /// Attaching would guess: rows differ under the same keys. Nothing was changed.
    Doubt,
    /// The file is missing, damaged, locked, read-only, or its disk is full.
    File,
    /// A setting or an argument has a value that makes no sense.
    Invalid,
    /// There is no such conflict, changeset, operation or row.
    NotFound,
    /// SQL that cannot be run, or returns more than a live query holds.
    Query,
    /// The app interrupted it; the next call goes on from there.
    Interrupted,
    /// More calls wait than are held.
    Busy,
    /// The manager was closed.
    Closed,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            retryable: false,
        }
    }

    pub(crate) fn of_client(error: &ClientError) -> Self {
        Self {
            kind: kind_of(error),
            code: error.code().to_owned(),
            message: chain(error),
            retryable: error.is_retryable(),
        }
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "closed", "the sync manager was closed")
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, "invalid", message)
    }

    pub(crate) fn table(name: &str, reason: &str) -> Self {
        let message = format!("table {name} cannot sync: {reason}");
        Self::new(ErrorKind::Table, "table_unfit", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, "not_found", message)
    }

    pub(crate) fn interrupted() -> Self {
        ClientError::Interrupted.into()
    }

    /// What a program decides by.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// A stable, finer name: the server's code, or what happened to the file.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Whether the same call may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::of_client(&error)
    }
}

pub(crate) fn kind_of(error: &ClientError) -> ErrorKind {
    match error {
        ClientError::NoServer | ClientError::NoToken => ErrorKind::NotConfigured,
        ClientError::Unreachable { .. } | ClientError::NoTokenNow { .. } => ErrorKind::NotConnected,
        ClientError::SignedOut { .. } => ErrorKind::Authentication,
        ClientError::Refused { code, .. } if code == "unauthorized" => ErrorKind::Authentication,
        ClientError::Refused { code, .. } if code == "deregistered" => ErrorKind::Deregistered,
        ClientError::Refused { code, .. } if code == "not_found" => ErrorKind::NotFound,
        ClientError::Refused { code, .. } if code == "unknown_version" => ErrorKind::NotFound,
        ClientError::Refused { .. } | ClientError::NotASyncline { .. } => ErrorKind::Refused,
        ClientError::TableUnfit { .. } => ErrorKind::Table,
        ClientError::Doubt(_) => ErrorKind::Doubt,
        ClientError::BadUrl { .. } => ErrorKind::Invalid,
        ClientError::Interrupted => ErrorKind::Interrupted,
        ClientError::NotFound(_)
        | ClientError::Exists(_)
        | ClientError::NotADatabase(_)
        | ClientError::Corrupt { .. }
        | ClientError::ReadOnly { .. }
        | ClientError::Locked(_)
        | ClientError::DiskFull(_)
        | ClientError::NotAttached(_)
        | ClientError::AlreadyAttached(_)
        | ClientError::Credentials { .. } => ErrorKind::File,
        ClientError::Replica { source, .. } => match source.code() {
            "unknown_changeset" | "unknown_conflict" => ErrorKind::NotFound,
            "bad_resolution" | "bad_key" | "bad_restore" | "still_loading" => ErrorKind::Invalid,
            "unknown_table" | "table_unfit" => ErrorKind::Table,
            _ => ErrorKind::File,
        },
    }
}

/// The error with its causes, none of them twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
