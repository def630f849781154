//! The log: one entry for each changeset, in the order of versions.

use std::sync::Arc;

use syncline_core::{
    BucketId, ChangesetId, DeviceId, Hlc, RowKey, TableNumber, Tag, UserId, Version,
    digest::Digest,
    rules::{Allowed, GranteeId},
};

/// One committed changeset, as subscribers read it.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// Version of its last change.
    pub version: Version,
    pub tag: Tag,
    pub changeset: ChangesetId,
    /// `None`: another program wrote into the server's database.
    pub user: Option<UserId>,
    pub device: DeviceId,
    pub number: u64,
    pub hlc: Hlc,
    /// Act on these before the rows.
    pub grants: Vec<GrantChange>,
    /// In order of version, one for each changed row.
    pub records: Vec<LogRecord>,
    /// Receipt digests after this entry of every (bucket, table) it touched.
    pub digests: Vec<(BucketId, TableNumber, Digest)>,
}

/// A grantee gained a bucket or lost it for good (paths are counted: only 0 ↔ 1 is logged).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantChange {
    pub grantee: GranteeId,
    pub bucket: BucketId,
    pub granted: bool,
}

/// One row's change. Bodies are encoded [`syncline_core::wire::RowBody`]s, shared by everybody
/// who gets them.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    pub table: TableNumber,
    pub key: RowKey,
    pub version: Version,
    /// Buckets before and after; both sorted.
    pub before: Vec<BucketId>,
    pub after: Vec<BucketId>,
    /// The whole row, for readers who did not see it before; present unless the row was
    /// deleted or `after` holds nothing that `before` does not.
    pub whole: Option<Arc<[u8]>>,
    /// The changed columns, for readers who did; present when both share a bucket.
    pub columns: Option<Arc<[u8]>>,
    pub deleted: bool,
}

/// A user's access that a changeset gave or took, as the audit log tells it: never which row gives
/// it, nor to which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccessChange {
    /// `None`: another program.
    pub by: Option<UserId>,
    /// `None`: whoever has a claim, or everybody.
    pub user: Option<UserId>,
    /// Where the row is that gives or gave it.
    pub via: TableNumber,
    pub to: AccessTo,
    pub granted: bool,
}

/// What somebody may do that the audit log tells of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessTo {
    /// See rows of these tables.
    See(Vec<TableNumber>),
    /// Write rows of these tables.
    Write(Allowed),
}
