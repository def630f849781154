//! What a server sends: grants, pages, changes, checkpoints.

use minicbor::{Decode, Encode};

use super::is_zero;
use crate::ids::{BucketId, Cursor, TableNumber, Timestamp, Version};

/// A change of what this device's user may see, at its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Grants {
    /// `add` is the whole list: every other bucket is lost.
    #[n(0)]
    pub full: bool,
    /// Buckets that are granted; those the replica does not hold start loading.
    #[n(1)]
    pub add: Vec<BucketId>,
    /// Buckets that are lost: rows left with none go from the device at once.
    #[n(2)]
    pub drop: Vec<BucketId>,
    /// Buckets lost and granted again since the cursor: load again from the start.
    #[n(3)]
    pub reload: Vec<BucketId>,
    /// Those of the lost ones that are granted still: only the subscriptions to them have ended, or
    /// were too many.
    #[n(4)]
    #[cbor(default, skip_if = "Vec::is_empty")]
    pub released: Vec<BucketId>,
    /// With new rules, where old names of buckets say nothing: tables of which the user may see
    /// rows that the replica does not ask for.
    #[n(5)]
    #[cbor(default, skip_if = "Vec::is_empty")]
    pub released_tables: Vec<TableNumber>,
}

/// Rows of loading buckets, read at one version. Applied in a transaction of its own.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Page {
    /// Everything up to this version is in the rows.
    #[n(0)]
    pub version: Version,
    #[n(1)]
    pub parts: Vec<PagePart>,
    /// Rows to come as far as the server knows, for progress; `None` when it does not.
    #[n(2)]
    pub remaining: Option<u64>,
}

/// The rows of one (bucket, table) within `(after, to]` in key order, all of them.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct PagePart {
    #[n(0)]
    pub bucket: BucketId,
    #[n(1)]
    pub table: TableNumber,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub after: Option<Vec<u8>>,
    /// `None`: to the end, this was the last part of the (bucket, table).
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub to: Option<Vec<u8>>,
    /// Encoded [`crate::wire::RowBody`]s (whole rows), one after the other, in key order.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub rows: Vec<u8>,
    #[n(5)]
    pub count: u32,
}

/// Log records the device may see, since the last Changes or Checkpoint, in log order.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Changes {
    /// Buckets that `records` refer to by position.
    #[n(0)]
    pub buckets: Vec<BucketId>,
    #[n(1)]
    pub records: Vec<Record>,
}

/// One row change of the log, as this reader may see it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Record {
    /// An encoded [`crate::wire::RowBody`]: shared by every subscriber that gets the same kind.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// The buckets the row is in afterwards ∩ the reader's: positions in [`Changes::buckets`].
    #[n(1)]
    pub buckets: Vec<u32>,
}

/// A place where the replica may stop: apply everything received since the last one, at once.
///
/// Always falls on a changeset's end.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Checkpoint {
    #[n(0)]
    pub cursor: Cursor,
    /// Receipt digests at exactly this version: of every live (bucket, table) that changed since
    /// the last checkpoint and of those that become live here.
    #[n(1)]
    pub digests: Vec<BucketDigest>,
    /// Every (bucket, table) that was loading and is complete now.
    #[n(2)]
    pub live: Vec<LiveBucket>,
    /// Nothing more was in the log when this was sent.
    #[n(3)]
    pub caught_up: bool,
    #[n(4)]
    pub now: Timestamp,
    /// How many (bucket, table) of this reader are still loading; 0 makes every granted bucket
    /// live, also in tables where it has no rows.
    #[n(5)]
    #[cbor(default)]
    pub loading: u64,
    /// The number of the last change of subscriptions that was heard.
    #[n(6)]
    #[cbor(default, skip_if = "is_zero")]
    pub subscribed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BucketDigest {
    #[n(0)]
    pub bucket: BucketId,
    #[n(1)]
    pub table: TableNumber,
    #[n(2)]
    pub count: u64,
    #[n(3)]
    pub sum: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct LiveBucket {
    #[n(0)]
    pub bucket: BucketId,
    #[n(1)]
    pub table: TableNumber,
}
