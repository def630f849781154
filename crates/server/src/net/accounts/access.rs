//! Access that changesets gave and took, for the audit log (spec AC16).

use std::collections::BTreeMap;

use syncline_core::{Schema, Timestamp};
use syncline_store::{AccessChange, accounts::AuditEvent};

use super::{
    Accounts,
    repeats::{Repeated, times},
};

/// Somebody's access that somebody gave or took; never to which row.
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
            what: format!("{to}to rows of {tables} by a row of {via}{by}"),
            by: change.by.map(|by| by.0).unwrap_or_default(),
            user: change.user.map(|user| user.0).unwrap_or_default(),
        }
    }
}

impl Repeated for Access {
    fn others(&self) -> Self {
        Self {
            granted: self.granted,
            by: String::new(),
            user: String::new(),
            what: "of several people".to_owned(),
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
