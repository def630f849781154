//! The login of a server on this machine's disk: one file, read by this user alone.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use syncline_core::Timestamp;

use super::{AccountError, User, requests::Tokens};
use crate::{credentials::Token, private, system::now};

/// A login as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) url: String,
    pub(super) user: User,
    pub(super) signed_in_ms: u64,
    pub(super) access_token: Token,
    /// By this machine's clock.
    pub(super) expires_ms: u64,
    /// `None`: the server has ended the login.
    pub(super) refresh_token: Option<Token>,
}

impl Kept {
    /// After a renewal.
    pub(super) fn renewed(&self, tokens: &Tokens) -> Self {
        Self {
            signed_in_ms: self.signed_in_ms,
            ..Self::begun(&self.url, tokens)
        }
    }

    pub(super) fn expires(&self) -> Timestamp {
        Timestamp::from_millis(self.expires_ms)
    }

    fn begun(url: &str, tokens: &Tokens) -> Self {
        let lifetime = tokens.expires_in.saturating_mul(1_000);
        Self {
            url: url.to_owned(),
            user: tokens.user.clone(),
            signed_in_ms: now().as_millis(),
            access_token: tokens.access_token.clone(),
            expires_ms: now().plus_millis(lifetime).as_millis(),
            refresh_token: Some(tokens.refresh_token.clone()),
        }
    }
}

/// Where the login of one server is kept.
#[derive(Debug, Clone)]
pub(super) struct Place {
    url: String,
    path: PathBuf,
}

impl Place {
    pub(super) fn new(folder: &Path, url: &str) -> Self {
        let name = blake3::hash(url.as_bytes()).to_hex();
        Self {
            url: url.to_owned(),
            path: folder.join(format!("{name}.json")),
        }
    }

    /// Those who are kept in `folder`, whoever signed in last first.
    pub(super) fn all(folder: &Path) -> Vec<Kept> {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut all: Vec<Kept> = paths
            .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
            // One that cannot be read is told of when its server is meant.
            .filter_map(|path| serde_json::from_str(&private::read(&path).ok()??).ok())
            .collect();
        all.sort_by_key(|kept| std::cmp::Reverse(kept.signed_in_ms));
        all
    }

    /// Programs that share a login use its refresh token one after the other.
    pub(super) fn lock(&self) -> Result<File, AccountError> {
        private::lock(&self.path.with_extension("lock")).map_err(|error| self.failed(&error))
    }

    pub(super) fn read(&self) -> Result<Option<Kept>, AccountError> {
        let Some(text) = private::read(&self.path).map_err(|error| self.failed(&error))? else {
            return Ok(None);
        };
        let kept: Kept = serde_json::from_str(&text).map_err(|error| self.failed(&error))?;
        Ok((kept.url == self.url).then_some(kept))
    }

    pub(super) fn write(&self, kept: &Kept) -> Result<(), AccountError> {
        let text = serde_json::to_string(kept).map_err(|error| self.failed(&error))?;
        private::write(&self.path, &text).map_err(|error| self.failed(&error))
    }

    /// Keeps a new login; the refresh token of the one whose place it takes.
    pub(super) fn begin(&self, tokens: &Tokens) -> Result<Option<Token>, AccountError> {
        let _lock = self.lock()?;
        // One that cannot be read makes room.
        let former = self.read().ok().flatten();
        self.write(&Kept::begun(&self.url, tokens))?;
        Ok(former.and_then(|former| former.refresh_token))
    }

    pub(super) fn forget(&self) -> Result<(), AccountError> {
        private::remove(&self.path).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> AccountError {
        AccountError::Kept {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }
}
