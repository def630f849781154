//! What rules refused, for the audit log: the first time at once, repetitions once a minute.

use std::collections::BTreeMap;

use syncline_core::Timestamp;
use syncline_store::{
    StorageError,
    accounts::{AuditEvent, transact},
};

use super::{Accounts, audit};

/// Between two records of the same.
const PAUSE_MILLIS: u64 = 60_000;
/// Different refusals that are told apart at once; whoever makes more of them is told as others.
const KINDS_MAX: usize = 200;

/// Something that rules refused; never what the row holds or which it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Refused {
    pub(crate) user: String,
    pub(crate) table: String,
    /// `create`, `update` or `delete`: the rule that refused it.
    pub(crate) action: &'static str,
}

/// Refusals that are not written down yet, and those that were a short time ago.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    waiting: BTreeMap<Refused, u64>,
    noted: BTreeMap<Refused, Timestamp>,
}

impl Refusals {
    fn add(&mut self, refused: Refused, count: u64) {
        let is_known = self.waiting.contains_key(&refused) || self.noted.contains_key(&refused);
        let has_room = self.waiting.len() + self.noted.len() < KINDS_MAX;
        let key = if is_known || has_room {
            refused
        } else {
            Refused::default()
        };
        *self.waiting.entry(key).or_insert(0) += count;
    }

    /// Takes what is to be written now.
    fn due(&mut self, now: Timestamp) -> BTreeMap<Refused, u64> {
        self.noted
            .retain(|_, at| at.plus_millis(PAUSE_MILLIS) > now);
        let waiting = std::mem::take(&mut self.waiting);
        let (later, due) = waiting
            .into_iter()
            .partition(|(refused, _)| self.noted.contains_key(refused));
        self.waiting = later;
        for refused in BTreeMap::keys(&due) {
            self.noted.insert(Refused::clone(refused), now);
        }
        due
    }

    /// Puts back what could not be written.
    fn put_back(&mut self, due: BTreeMap<Refused, u64>) {
        for (refused, count) in due {
            self.noted.remove(&refused);
            self.add(refused, count);
        }
    }
}

impl Accounts {
    /// Rules refused these. Waits for nothing.
    pub(crate) fn refused(&self, refused: Vec<Refused>) {
        let mut refusals = self.refusals.lock();
        for refused in refused {
            refusals.add(refused, 1);
        }
    }

    /// Writes down what rules refused.
    pub(super) fn write_refusals(&self, now: Timestamp) -> Result<(), StorageError> {
        let due = self.refusals.lock().due(now);
        if due.is_empty() {
            return Ok(());
        }
        let written = transact(&*self.store, |records| {
            for (refused, count) in &due {
                audit::note(records, event(refused, *count, now))?;
            }
            Ok(())
        });
        if written.is_err() {
            self.refusals.lock().put_back(due);
        }
        written
    }
}

fn event(refused: &Refused, count: u64, now: Timestamp) -> AuditEvent {
    let Refused {
        user,
        table,
        action,
    } = refused;
    let times = if count == 1 {
        String::new()
    } else {
        format!(", {count} times")
    };
    let detail = if table.is_empty() {
        format!("by the rules, of several people and tables{times}")
    } else {
        format!("{action} in {table} by the rules{times}")
    };
    AuditEvent {
        at: now,
        kind: "refused".into(),
        actor: user.clone(),
        detail,
        ..AuditEvent::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(user: usize) -> Refused {
        Refused {
            user: user.to_string(),
            table: "notes".into(),
            action: "update",
        }
    }

    #[test]
    fn ac15_repetitions_are_counted_and_a_flood_takes_no_room() {
        let mut refusals = Refusals::default();
        let at = |millis| Timestamp::from_millis(1_000_000 + millis);
        refusals.add(refused(1), 1);
        assert_eq!(refusals.due(at(0)), [(refused(1), 1)].into());
        for _ in 0..1_000 {
            refusals.add(refused(1), 1);
        }
        assert_eq!(refusals.due(at(PAUSE_MILLIS - 1)), BTreeMap::new());
        assert_eq!(refusals.due(at(PAUSE_MILLIS)), [(refused(1), 1_000)].into());

        for user in 0..10_000 {
            refusals.add(refused(user), 1);
        }
        let due = refusals.due(at(3 * PAUSE_MILLIS));
        assert!(due.len() <= KINDS_MAX + 1, "{}", due.len());
        assert_eq!(due.values().sum::<u64>(), 10_000, "none is forgotten");
        refusals.put_back(due);
        let again = refusals.due(at(3 * PAUSE_MILLIS));
        assert_eq!(again.values().sum::<u64>(), 10_000);
    }
}
