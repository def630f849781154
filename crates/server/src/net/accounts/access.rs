//! Access that changesets gave and took, for the audit log (spec AC16, AC17).

use std::collections::BTreeMap;

use syncline_core::{
    Schema, TableNumber, Timestamp, UserId,
    rules::{Action, Allowed},
};
use syncline_store::{
    AccessChange, AccessTo, Auditor, StorageError,
    accounts::{AccountRecords, AuditEvent},
};

use super::{
    Accounts, audit,
    repeats::{self, Repeated, times},
};

/// Leaves room for how often, in the field it is told in.
const WHAT_BYTES_MAX: usize = audit::FIELD_BYTES_MAX - 50;

/// Somebody's access that somebody gave or took; never to which row. Names come from rows: they
/// are cut as in the log before they are kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Access {
    kind: Kind,
    /// Empty: another program.
    by: String,
    user: String,
    what: String,
}

/// The kinds of records, by what is given or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    AccessGiven,
    AccessTaken,
    RightsGiven,
    RightsTaken,
}

impl Kind {
    fn of(to: &AccessTo, granted: bool) -> Self {
        match (to, granted) {
            (AccessTo::See(_), true) => Self::AccessGiven,
            (AccessTo::See(_), false) => Self::AccessTaken,
            (AccessTo::Write(_), true) => Self::RightsGiven,
            (AccessTo::Write(_), false) => Self::RightsTaken,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::AccessGiven => "access_given",
            Self::AccessTaken => "access_taken",
            Self::RightsGiven => "rights_given",
            Self::RightsTaken => "rights_taken",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::AccessGiven | Self::AccessTaken => "access",
            Self::RightsGiven | Self::RightsTaken => "rights",
        }
    }
}

impl Access {
    /// What the committer found, in words.
    pub(crate) fn of(schema: &Schema, change: AccessChange) -> Self {
        let name = |number| {
            schema
                .by_number(number)
                .map_or("a table that is gone", |table| table.name.as_str())
        };
        let kind = Kind::of(&change.to, change.granted);
        let what = match &change.to {
            AccessTo::See(tables) => {
                let tables: Vec<&str> = tables.iter().map(|table| name(*table)).collect();
                format!("to rows of {}", tables.join(", "))
            }
            AccessTo::Write(allowed) => in_words(allowed, name),
        };
        let to = match &change.user {
            Some(_) => "",
            None => "of whoever fulfils the rule ",
        };
        let by = match change.by {
            Some(_) => "",
            None => ", by another program",
        };
        let via = name(change.via);
        Self {
            kind,
            what: audit::cut(format!("{to}{what} by a row of {via}{by}"), WHAT_BYTES_MAX),
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

/// Tables of which the same is allowed are told together.
fn in_words<'a>(allowed: &Allowed, name: impl Fn(TableNumber) -> &'a str) -> String {
    let mut by_table: BTreeMap<TableNumber, Vec<Action>> = BTreeMap::new();
    for (table, action) in allowed {
        by_table.entry(*table).or_default().push(*action);
    }
    let mut by_actions: BTreeMap<Vec<Action>, Vec<&str>> = BTreeMap::new();
    for (table, actions) in by_table {
        by_actions.entry(actions).or_default().push(name(table));
    }
    let parts = by_actions.into_iter().map(|(actions, tables)| {
        let actions: Vec<&str> = actions.into_iter().map(Action::as_str).collect();
        format!("to {} rows of {}", actions.join(", "), tables.join(", "))
    });
    parts.collect::<Vec<_>>().join(" and ")
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
            kind: self.kind,
            by: self.by.clone(),
            user: String::new(),
            what: format!("of several people{by}"),
        }
    }

    fn of_anybody(&self) -> Self {
        Self {
            kind: self.kind,
            by: String::new(),
            user: String::new(),
            what: "of several people, by several".to_owned(),
        }
    }

    fn event(&self, count: u64, now: Timestamp) -> AuditEvent {
        AuditEvent {
            at: now,
            kind: self.kind.name().into(),
            actor: self.by.clone(),
            subject: self.user.clone(),
            detail: format!("{} {}{}", self.kind.noun(), self.what, times(count)),
            ..AuditEvent::default()
        }
    }
}

impl Auditor for Accounts {
    fn note(
        &self,
        records: &mut dyn AccountRecords,
        schema: &Schema,
        access: &BTreeMap<AccessChange, u64>,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let told = access.iter();
        let told = told.map(|(change, times)| (Access::of(schema, change.clone()), *times));
        repeats::write_within(&self.access, records, told, now)
    }

    fn committed(&self) {
        self.access.lock().committed();
    }
}

impl Accounts {
    /// Before the server began, other programs gave or took this access. Waits for nothing.
    pub(crate) fn access_changed(&self, schema: &Schema, changes: &BTreeMap<AccessChange, u64>) {
        let mut access = self.access.lock();
        for (change, times) in changes {
            access.add(Access::of(schema, change.clone()), *times);
        }
    }
}
