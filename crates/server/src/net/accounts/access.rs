//! Access that changesets gave and took, for the audit log (spec AC16).

use std::collections::BTreeMap;

use syncline_core::{Schema, Timestamp, UserId};
use syncline_store::{AccessChange, accounts::AuditEvent};

use super::{
    Accounts, audit,
    repeats::{Repeated, times},
};

/// Leaves room for how often, in the field it is told in.
const WHAT_BYTES_MAX: usize = audit::FIELD_BYTES_MAX - 50;

/// Somebody's access that somebody gave or took; never to which row. Names come from rows: they
/// are cut as in the log before they are kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Access {
    granted: bool,
    /// Empty: another program.
    by: String,
    user: String,
    what: String,
}

impl Access {
    /// What the committer found, in words.
    pub(crate) fn of(schema: &Schema, change: AccessChange) -> Self {
        let name = |number| {
            schema
                .by_number(number)
                .map_or("a table that is gone", |table| table.name.as_str())
        };
        let tables: Vec<&str> = change.tables.iter().map(|table| name(*table)).collect();
        let to = match &change.user {
            Some(_) => "",
            None => "of whoever fulfils the rule ",
        };
        let by = match change.by {
            Some(_) => "",
            None => ", by another program",
        };
        let (tables, via) = (tables.join(", "), name(change.via));
        Self {
            granted: change.granted,
            what: audit::cut(
                format!("{to}to rows of {tables} by a row of {via}{by}"),
                WHAT_BYTES_MAX,
            ),
            by: name_of(change.by),
            user: name_of(change.user),
        }
    }

    /// What it holds in memory.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.by.capacity() + self.user.capacity() + self.what.capacity()
    }
}

fn name_of(user: Option<UserId>) -> String {
    user.map_or_else(String::new, |user| {
        audit::cut(user.0, audit::FIELD_BYTES_MAX)
    })
}

impl Repeated for Access {
    fn actor(&self) -> &str {
        &self.by
    }

    fn others(&self) -> Self {
        let by = match self.by.as_str() {
            "" => ", by another program",
            _ => "",
        };
        Self {
            granted: self.granted,
            by: self.by.clone(),
            user: String::new(),
            what: format!("of several people{by}"),
        }
    }

    fn of_anybody(&self) -> Self {
        Self {
            granted: self.granted,
            by: String::new(),
            user: String::new(),
            what: "of several people, by several".to_owned(),
        }
    }

    fn event(&self, count: u64, now: Timestamp) -> AuditEvent {
        let kind = match self.granted {
            true => "access_given",
            false => "access_taken",
        };
        AuditEvent {
            at: now,
            kind: kind.into(),
            actor: self.by.clone(),
            subject: self.user.clone(),
            detail: format!("access {}{}", self.what, times(count)),
            ..AuditEvent::default()
        }
    }
}

impl Accounts {
    /// Changesets gave or took this access. Waits for nothing.
    pub(crate) fn access_changed(&self, schema: &Schema, changes: &BTreeMap<AccessChange, u64>) {
        let mut access = self.access.lock();
        for (change, times) in changes {
            access.add(Access::of(schema, change.clone()), *times);
        }
    }
}
