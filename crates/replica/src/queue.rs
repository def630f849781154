//! The queue as people see it.

use syncline_core::{Change, ChangesetId, Timestamp, Version};

/// One changeset in the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedChangeset {
    pub id: ChangesetId,
    pub state: QueueState,
    /// When its first and its last row were touched, by the device's clock.
    pub first_marked_at: Timestamp,
    pub last_marked_at: Timestamp,
    /// Number of its changes; `changes` holds the first of them.
    pub changes_total: u64,
    /// At most [`QueuedChangeset::CHANGES_LISTED`].
    pub changes: Vec<QueuedChange>,
}

impl QueuedChangeset {
    /// Most changes that a listing shows of one changeset.
    pub const CHANGES_LISTED: usize = 100;
}

/// One change, with names instead of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedChange {
    pub table: String,
    /// Names of the columns that it writes.
    pub columns: Vec<String>,
    /// Numbers in it are local ones.
    pub change: Change,
}

/// Where a changeset stands (docs/spec/outbox.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueState {
    /// On disk, waiting to be sent.
    Sealed,
    /// Sent on this connection, not answered yet.
    Sent,
    /// In the server's log at this version; gone with the next checkpoint.
    Accepted { version: Version },
    /// Refused.
    Parked {
        code: String,
        message: String,
        at: Timestamp,
    },
}
