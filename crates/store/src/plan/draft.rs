//! What one changeset would do, complete but not yet part of the group.

use std::collections::BTreeMap;

use syncline_core::{
    BucketId, Row, RowKey, TableNumber, UserId, Version,
    rules::{Allowed, Grant},
    wire::LostEdit,
};

use super::owned::Differences;
use crate::meta::RowMeta;

/// The outcome of planning one changeset or one observation.
#[derive(Debug)]
pub(crate) struct Draft {
    /// One for each changed row, in order of version.
    pub(crate) rows: Vec<RowDraft>,
    /// How many paths more or less each grant has.
    pub(crate) grants: BTreeMap<Grant, i64>,
    /// Who a grant among them is for, and in which table the row is that gives or takes it.
    pub(crate) named: BTreeMap<Grant, Named>,
    /// Rights to write that rows give and take, and how often: for the audit log.
    pub(crate) rights: BTreeMap<WriteRight, u64>,
    /// What users own more or less.
    pub(crate) owned: Differences,
    pub(crate) lost: Vec<LostEdit>,
    /// The last version given out.
    pub(crate) last: Version,
}

/// What the audit log says of a grant.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// `None`: whoever has a claim, or everybody.
    pub(crate) user: Option<UserId>,
    pub(crate) via: TableNumber,
}

/// What the audit log says of rights to write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WriteRight {
    /// `None`: several people, whoever fulfils the rule.
    pub(crate) user: Option<UserId>,
    pub(crate) via: TableNumber,
    pub(crate) allowed: Allowed,
    pub(crate) given: bool,
    /// The row that it leads to, in most rules.
    pub(crate) link: Option<(TableNumber, RowKey)>,
}

/// One row after the changeset.
#[derive(Debug)]
pub(crate) struct RowDraft {
    pub(crate) table: TableNumber,
    pub(crate) key: RowKey,
    pub(crate) row: Option<Row>,
    pub(crate) meta: RowMeta,
    /// Where the row lay before, and its version there (zero: no live row).
    pub(crate) before: Vec<BucketId>,
    pub(crate) before_version: Version,
    /// Whether the image changed, not only the buckets.
    pub(crate) image: bool,
    /// The image before; `None` where there was no live row, or nobody knows what it was.
    pub(crate) old: Option<Row>,
    /// Update: positions that changed. Insert: positions that the database's defaults fill.
    pub(crate) columns: Vec<usize>,
}

impl RowDraft {
    /// Whether there was no live row before.
    pub(crate) fn is_insert(&self) -> bool {
        self.before_version == Version::ZERO && self.row.is_some()
    }
}
