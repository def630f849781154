//! Counting rows that came and went, for what a sync reports.

use std::collections::BTreeMap;

use syncline_core::{Op, TableNumber};

/// How many rows were created, updated and deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows that were not there before.
    pub created: u64,
    /// Rows that were and are there.
    pub updated: u64,
    /// Rows that are not there any more.
    pub deleted: u64,
}

impl RowCounts {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.created + self.updated + self.deleted
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: Self) {
        self.created += other.created;
        self.updated += other.updated;
        self.deleted += other.deleted;
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: Self) -> Self {
        Self {
            created: self.created.saturating_sub(earlier.created),
            updated: self.updated.saturating_sub(earlier.updated),
            deleted: self.deleted.saturating_sub(earlier.deleted),
        }
    }

    pub(crate) fn count(&mut self, kind: RowChange) {
        match kind {
            RowChange::Created => self.created += 1,
            RowChange::Updated => self.updated += 1,
            RowChange::Deleted => self.deleted += 1,
        }
    }
}

/// What was exchanged about one table since the replica was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableTally {
    /// Changes of this file that the server took.
    pub sent: RowCounts,
    /// Rows that changed in this file because of the server.
    pub received: RowCounts,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowChange {
    Created,
    Updated,
    Deleted,
}

impl RowChange {
    /// From whether the row is there before and after.
    pub(crate) fn of(before: bool, after: bool) -> Self {
        match (before, after) {
            (_, false) => Self::Deleted,
            (true, true) => Self::Updated,
            (false, true) => Self::Created,
        }
    }

    pub(crate) fn of_op(op: &Op) -> Self {
        match op {
            Op::Insert(_) => Self::Created,
            Op::Update(_) => Self::Updated,
            Op::Delete => Self::Deleted,
        }
    }
}

/// Counts by table.
pub(crate) type Counted = BTreeMap<TableNumber, RowCounts>;
