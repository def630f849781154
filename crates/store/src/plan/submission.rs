//! What arrives from devices.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use syncline_core::{
    Changeset, DeviceId, Lease, Version,
    rules::Identity,
    wire::{Refusal, Verdict, code},
};

use crate::meta::DeviceState;

/// A changeset as it arrived, with what the server knows of its sender.
#[derive(Debug, Clone)]
pub struct Submission {
    pub identity: Arc<Identity>,
    /// The session's device.
    pub device: DeviceId,
    /// The lease that the session took for it (spec SE2): once another session has spent that one,
    /// nothing of this session counts. `None` where devices have no sessions.
    pub lease: Option<Lease>,
    pub changeset: Changeset,
    /// No row of a later version was ever sent to this device.
    pub sent: Version,
    /// Numbers of the device that were refused on this connection (for good, not to be retried).
    pub refused: Arc<Refusals>,
}

impl Submission {
    /// Whether another session has its device by now, or nobody any more (spec PL20, DE4).
    pub(crate) fn is_spent(&self, device: &DeviceState) -> bool {
        self.lease.is_some_and(|held| held != device.lease) || device.deregistered.is_some()
    }
}

/// Numbers of a device that were refused for good on one connection.
///
/// Shared by everything that the connection sends, and written by the pipeline: so what waits for
/// its turn knows what was refused since it arrived, and is refused with it (spec PL5).
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeSet<u64>>);

impl Refusals {
    /// Most numbers that are remembered, the newest ones.
    pub const MAX: usize = 4_096;

    /// Whether the number was refused and not accepted since.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.numbers().contains(&number)
    }

    /// The number was judged.
    pub(crate) fn note(&self, number: u64, verdict: &Verdict) {
        let mut numbers = self.numbers();
        match verdict {
            Verdict::Accepted(_) => drop(numbers.remove(&number)),
            Verdict::Refused(refusal) if refusal.retry => {}
            Verdict::Refused(_) => {
                numbers.insert(number);
                if numbers.len() > Self::MAX {
                    numbers.pop_first();
                }
            }
        }
    }

    fn numbers(&self) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<BTreeSet<u64>> for Refusals {
    fn from(numbers: BTreeSet<u64>) -> Self {
        Self(Mutex::new(numbers))
    }
}

/// Why a changeset is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) refusal: Box<Refusal>,
    /// Whether its number counts as answered.
    pub(crate) counts: bool,
}

impl Refused {
    /// For good, because of the change at this position.
    pub(crate) fn change(code: &str, change: usize, message: String) -> Self {
        let mut refused = Self::whole(code, message);
        refused.refusal.change = u32::try_from(change).ok();
        refused
    }

    /// For good.
    pub(crate) fn whole(code: &str, message: String) -> Self {
        let refusal = Refusal {
            code: code.to_owned(),
            message,
            retry: false,
            retry_after_ms: None,
            change: None,
            fatal: false,
        };
        Self {
            refusal: Box::new(refusal),
            counts: true,
        }
    }

    /// Without counting the number: it was not the changeset's turn.
    pub(crate) fn out_of_turn(code: &str, message: String, retry: bool) -> Self {
        let mut refused = Self::whole(code, message);
        refused.refusal.retry = retry;
        Self {
            counts: false,
            ..refused
        }
    }

    /// The server's fault; the same changeset may succeed later.
    pub(crate) fn later(code: &str, message: &str) -> Refusal {
        Refusal {
            code: code.to_owned(),
            message: message.to_owned(),
            retry: true,
            retry_after_ms: Some(RETRY_AFTER_MILLIS),
            change: None,
            fatal: false,
        }
    }

    /// A constraint of the database refused what it stored.
    pub(crate) fn constraint(message: &str) -> Refusal {
        *Self::whole(code::CONSTRAINT, message.to_owned()).refusal
    }
}

/// How long a device waits before it tries again what the server could not store.
const RETRY_AFTER_MILLIS: u64 = 1_000;
