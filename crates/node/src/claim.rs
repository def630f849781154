//! Which files this process has a manager of, on any of its threads.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::failure::Failure;

static CLAIMED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A file that is this manager's until it is dropped.
pub(crate) struct Claim(String);

impl Claim {
    /// Claims the file at `path`, which is its only name: absolute, without links.
    pub(crate) fn of(path: &str) -> Result<Self, Failure> {
        if claimed().insert(path.to_owned()) {
            return Ok(Self(path.to_owned()));
        }
        let message = format!("{path} has a sync manager already; close it first");
        Err(Failure::new("already_open", "file", message))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        claimed().remove(&self.0);
    }
}

fn claimed() -> MutexGuard<'static, BTreeSet<String>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}
