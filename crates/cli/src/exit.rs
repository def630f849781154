//! Exit codes: one for each kind of trouble, so that scripts can tell them apart.

use std::process::ExitCode;

use syncline::{AccountError, ErrorKind, engine::ClientError};
use syncline_core::wire::code;
use syncline_server::net::ServeError;
use syncline_store::SchemaError;

/// What the process ends with. The numbers are documented in `syncline --help` and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Unexpected = 1,
    Usage = 2,
    Config = 3,
    NotFound = 4,
    NotADatabase = 5,
    Corrupt = 6,
    ReadOnly = 7,
    Locked = 8,
    DiskFull = 9,
    NotAttached = 10,
    AlreadyThere = 11,
    NoServer = 12,
    Unreachable = 13,
    NotASyncline = 14,
    Unauthorized = 15,
    WrongServer = 16,
    WrongUser = 17,
    Protocol = 18,
    NewerFormat = 19,
    Doubt = 20,
    Differs = 21,
    TableUnfit = 22,
    Refused = 23,
    CannotListen = 24,
    ServerData = 25,
    CommandFailed = 26,
    Deregistered = 27,
    EncryptionKey = 28,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure of this program itself that has an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }
}

/// The exit code of whatever went wrong.
pub(crate) fn code_of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.exit;
        }
        if let Some(error) = cause.downcast_ref::<ClientError>() {
            return of_client(error);
        }
        if let Some(error) = cause.downcast_ref::<syncline::Error>() {
            return of_library(error);
        }
        if let Some(error) = cause.downcast_ref::<AccountError>() {
            return of_account(error);
        }
        if let Some(error) = cause.downcast_ref::<ServeError>() {
            return of_server(error);
        }
    }
    Exit::Unexpected
}

/// A stable name of whatever went wrong, where the library has one.
pub(crate) fn name_of(error: &anyhow::Error) -> Option<&str> {
    error.chain().find_map(|cause| {
        let client = cause.downcast_ref::<ClientError>().map(ClientError::code);
        let library = || cause.downcast_ref().map(syncline::Error::code);
        let account = || cause.downcast_ref().map(AccountError::code);
        client.or_else(library).or_else(account)
    })
}

/// As [`of_client`], of what a manager says.
fn of_library(error: &syncline::Error) -> Exit {
    match (error.kind(), error.code()) {
        (ErrorKind::NotConfigured, "no_token") | (ErrorKind::Authentication, _) => {
            Exit::Unauthorized
        }
        (ErrorKind::NotConfigured, _) => Exit::NoServer,
        (ErrorKind::NotConnected, _) => Exit::Unreachable,
        (ErrorKind::Deregistered, _) => Exit::Deregistered,
        (ErrorKind::Refused, "not_a_syncline") => Exit::NotASyncline,
        (ErrorKind::Refused, name) => of_refusal(name),
        (ErrorKind::Table, _) => Exit::TableUnfit,
        (ErrorKind::Doubt, _) => Exit::Doubt,
        (ErrorKind::Invalid, "bad_url") => Exit::NoServer,
        (ErrorKind::Invalid | ErrorKind::Query, _) => Exit::Usage,
        (ErrorKind::NotFound, _) | (ErrorKind::File, "not_found") => Exit::NotFound,
        (ErrorKind::Interrupted, _) => Exit::Interrupted,
        (ErrorKind::File, name) => match name {
            "exists" | "already_attached" => Exit::AlreadyThere,
            "not_a_database" => Exit::NotADatabase,
            "corrupt" | "damaged" => Exit::Corrupt,
            "read_only" => Exit::ReadOnly,
            "locked" => Exit::Locked,
            "disk_full" => Exit::DiskFull,
            "not_attached" => Exit::NotAttached,
            "newer_format" => Exit::NewerFormat,
            _ => Exit::Unexpected,
        },
        _ => Exit::Unexpected,
    }
}

fn of_refusal(name: &str) -> Exit {
    match name {
        code::UNAUTHORIZED => Exit::Unauthorized,
        code::DEREGISTERED => Exit::Deregistered,
        code::WRONG_SERVER => Exit::WrongServer,
        code::WRONG_USER => Exit::WrongUser,
        code::PROTOCOL => Exit::Protocol,
        code::SCHEMA => Exit::TableUnfit,
        "encryption_key_missing" | "encryption_key_wrong" | "encryption_ended" => {
            Exit::EncryptionKey
        }
        "unknown_version" | "not_found" => Exit::NotFound,
        code::UNAVAILABLE => Exit::Unreachable,
        _ => Exit::Refused,
    }
}

fn of_client(error: &ClientError) -> Exit {
    match error {
        ClientError::NotFound(_) => Exit::NotFound,
        ClientError::Exists(_) | ClientError::AlreadyAttached(_) => Exit::AlreadyThere,
        ClientError::NotADatabase(_) => Exit::NotADatabase,
        ClientError::Corrupt { .. } => Exit::Corrupt,
        ClientError::ReadOnly { .. } => Exit::ReadOnly,
        ClientError::Locked(_) => Exit::Locked,
        ClientError::DiskFull(_) => Exit::DiskFull,
        ClientError::NotAttached(_) => Exit::NotAttached,
        ClientError::NoServer | ClientError::BadUrl { .. } => Exit::NoServer,
        ClientError::NoToken | ClientError::Credentials { .. } | ClientError::SignedOut { .. } => {
            Exit::Unauthorized
        }
        ClientError::Unreachable { .. } | ClientError::NoTokenNow { .. } => Exit::Unreachable,
        ClientError::NotASyncline { .. } => Exit::NotASyncline,
        ClientError::Refused { code, .. } => of_refusal(code),
        ClientError::TableUnfit { .. } => Exit::TableUnfit,
        ClientError::Doubt(_) => Exit::Doubt,
        ClientError::Interrupted => Exit::Interrupted,
        ClientError::Replica { source, .. } => match source.code() {
            "newer_format" => Exit::NewerFormat,
            "damaged" => Exit::Corrupt,
            "table_unfit" | "unknown_table" => Exit::TableUnfit,
            "unknown_changeset" | "unknown_conflict" => Exit::NotFound,
            "bad_resolution" | "bad_key" => Exit::Usage,
            "bad_restore" => Exit::TableUnfit,
            "encryption_key_missing" => Exit::EncryptionKey,
            _ => Exit::Unexpected,
        },
    }
}

/// Wrong credentials and a login that is over are a matter of signing in.
fn of_account(error: &AccountError) -> Exit {
    match error {
        AccountError::Credentials | AccountError::SignedOut(_) | AccountError::Kept { .. } => {
            Exit::Unauthorized
        }
        AccountError::EmailTaken => Exit::AlreadyThere,
        AccountError::WeakPassword(_) | AccountError::Malformed(_) => Exit::Usage,
        AccountError::Unreachable(_) => Exit::Unreachable,
        AccountError::Refused { code, .. } if code == "not_a_syncline" => Exit::NotASyncline,
        AccountError::TooFast { .. }
        | AccountError::Stale(_)
        | AccountError::SignUpClosed
        | AccountError::NoAccounts
        | AccountError::Refused { .. }
        | _ => Exit::Refused,
    }
}

fn of_server(error: &ServeError) -> Exit {
    match error {
        ServeError::Listen { .. } | ServeError::DevNotLoopback(_) => Exit::CannotListen,
        ServeError::Schema(SchemaError::Storage(_)) | ServeError::Storage(_) => Exit::ServerData,
        ServeError::Schema(SchemaError::Destructive { .. } | SchemaError::Unsupported(_))
        | ServeError::AdminAddress(_)
        | ServeError::Tls(_)
        | ServeError::Rules(_)
        | ServeError::Accounts(_) => Exit::Config,
        ServeError::Stopped(_) => Exit::Unexpected,
    }
}
