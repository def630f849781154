//! What can go wrong with an account.

use std::{path::PathBuf, time::Duration};

use crate::error::ClientError;

/// Why something was not done with an account. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The address or the password is wrong, or the address was not confirmed yet: servers do not
    /// tell which.
    #[error(
        "e-mail address or password is wrong, or the address was not confirmed yet: look for a \
         mail of the server, or ask for another password"
    )]
    Credentials,
    /// Too many attempts; also the right password is not taken before this time has passed.
    #[error("too many attempts: try again in {}", spoken(*wait))]
    TooFast {
        /// How long to wait.
        wait: Duration,
    },
    /// Nobody is signed in, or the login was ended: by its user, an operator, a changed password,
    /// or because it was not used for long. Sign in again.
    #[error("{0}")]
    SignedOut(String),
    /// A code from a mail that was used, is too old, or was none. Ask for another.
    #[error("{0}")]
    Stale(String),
    /// The address has an account: sign in.
    #[error("this address has an account: sign in, or ask for another password")]
    EmailTaken,
    /// Only the operator makes accounts there.
    #[error("nobody signs up at this server by himself: ask who runs it for an account")]
    SignUpClosed,
    /// The password is too short, or one of those that are guessed first.
    #[error("{0}")]
    WeakPassword(String),
    /// What was given is no address, or too long.
    #[error("{0}")]
    Malformed(String),
    /// The server keeps no accounts: tokens come from its operator or a provider.
    #[error("this server keeps no accounts: its operator, or another service, gives tokens")]
    NoAccounts,
    /// The server cannot be reached, or could not do it now. Try again later.
    #[error("{0}")]
    Unreachable(String),
    /// The server refused for another reason.
    #[error("{message}")]
    Refused {
        /// Stable.
        code: String,
        /// A sentence for people.
        message: String,
    },
    /// The login cannot be kept on this machine, or what is kept cannot be read.
    #[error("the login in {} cannot be used: {reason}", path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl AccountError {
    /// A stable name for programs.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Credentials => "wrong_credentials",
            Self::TooFast { .. } => "too_fast",
            Self::SignedOut(_) => "signed_out",
            Self::Stale(_) => "stale",
            Self::EmailTaken => "email_taken",
            Self::SignUpClosed => "sign_up_closed",
            Self::WeakPassword(_) => "weak_password",
            Self::Malformed(_) => "malformed",
            Self::NoAccounts => "no_accounts",
            Self::Unreachable(_) => "unreachable",
            Self::Refused { code, .. } => code,
            Self::Kept { .. } => "credentials",
        }
    }

    /// Whether the same call may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::TooFast { .. } | Self::Unreachable(_))
    }

    pub(crate) fn thread(error: &std::io::Error) -> Self {
        Self::Unreachable(format!("no thread can be started: {error}"))
    }

    pub(crate) fn nobody(url: &str) -> Self {
        Self::SignedOut(format!("nobody is signed in at {url}: sign in"))
    }

    pub(crate) fn of_client(error: &ClientError) -> Self {
        if let ClientError::Credentials { path, reason } = error {
            let (path, reason) = (path.clone(), reason.clone());
            return Self::Kept { path, reason };
        }
        let message = error.to_string();
        if error.is_retryable() {
            return Self::Unreachable(message);
        }
        let code = error.code().to_owned();
        Self::Refused { code, message }
    }
}

/// A length of time, never less than it is.
fn spoken(wait: Duration) -> String {
    match wait.as_millis().div_ceil(1_000) {
        0 | 1 => "a second".to_owned(),
        seconds @ 2..120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}
