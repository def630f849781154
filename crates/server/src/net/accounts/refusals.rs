//! What rules refused, for the audit log (spec AC15).

use syncline_core::Timestamp;
use syncline_store::accounts::AuditEvent;

use super::{
    Accounts,
    repeats::{Repeated, times},
};

/// Something that rules refused; never what the row holds or which it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Refused {
    pub(crate) user: String,
    pub(crate) table: String,
    /// `create`, `update` or `delete`: the rule that refused it.
    pub(crate) action: &'static str,
}

impl Repeated for Refused {
    fn actor(&self) -> &str {
        &self.user
    }

    fn others(&self) -> Self {
        Self {
            user: self.user.clone(),
            ..Self::default()
        }
    }

    fn of_anybody(&self) -> Self {
        Self::default()
    }

    fn event(&self, count: u64, now: Timestamp) -> AuditEvent {
        let Self {
            user,
            table,
            action,
        } = self;
        let times = times(count);
        let detail = match (table.as_str(), user.as_str()) {
            ("", "") => format!("by the rules, of several people and tables{times}"),
            ("", _) => format!("by the rules, in several tables{times}"),
            _ => format!("{action} in {table} by the rules{times}"),
        };
        AuditEvent {
            at: now,
            kind: "refused".into(),
            actor: user.clone(),
            detail,
            ..AuditEvent::default()
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
}
