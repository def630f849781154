//! What the server remembers of rows and devices.

use std::collections::BTreeMap;

use syncline_core::{
    BucketId, ColumnNumber, DeviceId, Lease, Timestamp, UserId, Value, Version,
    merge::{Clock, ColumnState},
};

/// The metadata of a row, also of a deleted one (then it is its tombstone).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowMeta {
    pub version: Version,
    /// Version of the insert that began this life of the row.
    pub created: Version,
    /// Who inserted it; `None` when another program did.
    pub owner: Option<UserId>,
    /// Who changed it last.
    pub author: Option<UserId>,
    /// The clock of every column that is not in `columns`; a tombstone's is the deletion's.
    pub clock: Clock,
    /// Columns whose state differs from `clock`.
    pub columns: BTreeMap<ColumnNumber, ColumnState>,
    /// Where the row lies: sorted, without doubles, empty for a tombstone.
    pub buckets: Vec<BucketId>,
    pub deleted: bool,
    /// The last values of a deleted row, kept where a later update may revive it
    /// ([`syncline_core::Table::update_wins`]); else empty.
    pub remains: Vec<(ColumnNumber, Value)>,
    /// Where a deleted row lay, else empty: who could see it then may be told that it is gone.
    pub grave: Vec<BucketId>,
}

impl RowMeta {
    /// The state of one column.
    #[must_use]
    pub fn column(&self, number: ColumnNumber) -> ColumnState {
        self.columns
            .get(&number)
            .cloned()
            .unwrap_or_else(|| ColumnState {
                clock: self.clock,
                members: BTreeMap::new(),
            })
    }
}

/// What the server remembers of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceState {
    pub id: DeviceId,
    pub user: UserId,
    pub name: String,
    pub platform: String,
    /// The lease that the next Hello must show.
    pub lease: Lease,
    /// The lease that was exchanged for `lease`, in case the Welcome was lost.
    pub previous_lease: Lease,
    /// The last number taken from this device, accepted or refused.
    pub last_number: u64,
    /// Split off from another device's file (a copy, a restored backup).
    pub forked: bool,
    pub first_seen: Timestamp,
    /// When it was last connected, at most a minute late.
    pub last_seen: Timestamp,
    /// The newest checkpoint that it is known to have applied; zero for none.
    pub checkpoint: Version,
    /// Since when its user does not want it any more (spec DE4): it stays known by its id, and
    /// opens no session.
    pub deregistered: Option<Timestamp>,
}
