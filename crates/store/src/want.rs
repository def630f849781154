//! Planning in rounds: the planner asks for what it misses, the storage loads it in bulk, and
//! the planner runs again. So planning is pure and a database with a long way needs few trips.

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::{
    BucketId, ChangesetId, DeviceId, RowKey, TableNumber, Value, Version,
    digest::Digest,
    rules::{Grant, RuleColumn},
};

use crate::meta::{DeviceState, RowMeta};

/// One thing to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// A row with its metadata, or its tombstone, or its absence.
    Row(TableNumber, RowKey),
    /// The keys of all live rows whose column equals the value, and those rows.
    Matching(TableNumber, RuleColumn, Value),
    /// Whether this changeset is in the log.
    Changeset(ChangesetId),
    Device(DeviceId),
    /// How many paths give the bucket to the grantee.
    GrantCount(Grant),
    Digest(BucketId, TableNumber),
}

/// What has been loaded so far in this group; every answer is of the group's own snapshot.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// `None`: neither row nor tombstone. A row without metadata is not here but in the inbox.
    pub rows: BTreeMap<(TableNumber, RowKey), Option<LoadedRow>>,
    /// Canonical text of the value (see [`matching_key`]) → keys, in key order.
    pub matching: BTreeMap<(TableNumber, RuleColumn, Vec<u8>), Vec<RowKey>>,
    /// `None`: not in the log.
    pub changesets: BTreeMap<ChangesetId, Option<KnownChangeset>>,
    pub devices: BTreeMap<DeviceId, Option<DeviceState>>,
    pub grants: BTreeMap<Grant, u64>,
    pub digests: BTreeMap<(BucketId, TableNumber), Digest>,
}

/// A row as loaded: `row` is `None` for a tombstone.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedRow {
    pub row: Option<syncline_core::Row>,
    pub meta: RowMeta,
}

/// A changeset that the log has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownChangeset {
    pub version: Version,
    pub user: Option<syncline_core::UserId>,
    pub device: DeviceId,
}

/// What a planning round could not do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub Vec<Want>);

/// A value as key of [`Loaded::matching`]: its row-key encoding.
///
/// # Panics
/// If the value is NULL: NULL matches nothing and is never asked for.
#[must_use]
pub fn matching_key(value: &Value) -> Vec<u8> {
    RowKey::encode([value]).expect("NULL and oversized values are never looked up").as_bytes().to_vec()
}

/// Drops doubles, keeping the first of each.
#[must_use]
pub fn without_doubles(wants: Vec<Want>) -> Vec<Want> {
    let mut seen = BTreeSet::new();
    wants.into_iter().filter(|want| seen.insert(format!("{want:?}"))).collect()
}
