//! Errors on their way to JavaScript.

use std::{any::Any, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use serde_json::json;
use syncline::{AccountError, Error, ErrorKind};

/// An error with everything that JavaScript is told of it.
///
/// Node-API's own errors have a message alone, so the message is JSON: packages/node makes its
/// `SyncError` of it.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    code: String,
    kind: &'static str,
    message: String,
    retryable: bool,
}

impl Failure {
    pub(crate) fn new(code: &str, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            kind,
            message: message.into(),
            retryable: false,
        }
    }

    /// A call that does not say what it should: packages/node and this addon do not fit.
    pub(crate) fn call(error: &dyn std::fmt::Display) -> Self {
        Self::new(
            "invalid",
            "invalid",
            format!("the call cannot be read: {error}"),
        )
    }

    /// As part of an answer.
    pub(crate) fn json(&self) -> serde_json::Value {
        json!({
            "code": self.code,
            "kind": self.kind,
            "message": self.message,
            "retryable": self.retryable,
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        // What programs and people look for in a message.
        let message = match error.kind() {
            ErrorKind::NotConfigured | ErrorKind::NotConnected => {
                format!("Not connected: {error}")
            }
            ErrorKind::Authentication => format!("Authentication failed: {error}"),
            ErrorKind::Deregistered
            | ErrorKind::Refused
            | ErrorKind::Table
            | ErrorKind::Doubt
            | ErrorKind::File
            | ErrorKind::Invalid
            | ErrorKind::NotFound
            | ErrorKind::Query
            | ErrorKind::Interrupted
            | ErrorKind::Busy
            | ErrorKind::Closed
            | _ => error.to_string(),
        };
        Self {
            code: error.code().to_owned(),
            kind: kind_name(error.kind()),
            message,
            retryable: error.is_retryable(),
        }
    }
}

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Self {
        let kind = match &error {
            AccountError::Credentials | AccountError::SignedOut(_) => "authentication",
            AccountError::Unreachable(_) => "not_connected",
            AccountError::WeakPassword(_) | AccountError::Malformed(_) => "invalid",
            AccountError::Kept { .. } => "file",
            AccountError::TooFast { .. }
            | AccountError::Stale(_)
            | AccountError::EmailTaken
            | AccountError::SignUpClosed
            | AccountError::NoAccounts
            | AccountError::Refused { .. }
            | _ => "refused",
        };
        Self {
            code: error.code().to_owned(),
            kind,
            message: error.to_string(),
            retryable: error.is_retryable(),
        }
    }
}

impl From<Failure> for napi::Error {
    fn from(failure: Failure) -> Self {
        Self::from_reason(failure.json().to_string())
    }
}

/// A stable name.
fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotConfigured => "not_configured",
        ErrorKind::NotConnected => "not_connected",
        ErrorKind::Authentication => "authentication",
        ErrorKind::Deregistered => "deregistered",
        ErrorKind::Refused => "refused",
        ErrorKind::Table => "table",
        ErrorKind::Doubt => "doubt",
        ErrorKind::File => "file",
        ErrorKind::Invalid => "invalid",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Query => "query",
        ErrorKind::Interrupted => "interrupted",
        ErrorKind::Busy => "busy",
        ErrorKind::Closed => "closed",
        // The library may learn more of them.
        _ => "other",
    }
}

/// Runs what was called for; a panic of it is an error, and goes no further.
pub(crate) async fn guarded<T>(work: impl Future<Output = Result<T, Failure>>) -> napi::Result<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => Ok(result?),
        Err(panic) => Err(panicked(&*panic).into()),
    }
}

/// The same for what does not wait.
pub(crate) fn guarded_now<T>(work: impl FnOnce() -> Result<T, Failure>) -> napi::Result<T> {
    match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Ok(result?),
        Err(panic) => Err(panicked(&*panic).into()),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure::new(
        "panic",
        "other",
        format!("a bug in Syncline: {}", said.unwrap_or("a panic")),
    )
}
