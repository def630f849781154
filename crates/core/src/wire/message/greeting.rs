//! How a session begins: who is there, what it has, what it asks for.

use minicbor::{Decode, Encode};

use super::{
    super::{limits, schema::SchemaInfo},
    is_zero,
};
use crate::ids::{
    BucketId, ColumnNumber, Cursor, DeviceId, Lease, TableNumber, Timestamp, Version,
};

/// Opens a session. The first message of a connection, exactly once.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    #[n(0)]
    pub protocol: u32,
    #[n(1)]
    pub device: DeviceId,
    /// The lease of the last Welcome, all zero on first contact.
    #[n(2)]
    pub lease: Lease,
    /// The lease this session is to get, on the device's disk before it is sent.
    #[n(3)]
    pub next_lease: Lease,
    #[n(4)]
    pub device_name: String,
    /// Operating system and program, for the device list; both as the server keeps them: short,
    /// control characters spelled out.
    #[n(5)]
    pub platform: String,
    /// The server this file belongs to; all zero when it has never met one.
    #[n(6)]
    pub server: DeviceId,
    /// Hash of the [`SchemaInfo`] the replica holds; zero for none.
    #[n(7)]
    pub schema_hash: u64,
    /// Newest first, at most [`CURSORS_MAX`]; empty on first contact.
    #[n(8)]
    #[cbor(decode_with = "limits::cursors")]
    pub cursors: Vec<Cursor>,
    /// Tables to sync, at most [`TABLES_MAX`]; `None` means all the user may see.
    #[n(9)]
    #[cbor(decode_with = "limits::tables", default)]
    pub tables: Option<Vec<TableNumber>>,
    /// The buckets this replica holds, live or loading: count and sum mod 2^64 of both
    /// halves (little endian) of their ids.
    #[n(10)]
    pub buckets_count: u64,
    #[n(11)]
    pub buckets_sum: u64,
    /// What is still loading and how far it came; at most [`LOAD_POSITIONS_MAX`].
    #[n(12)]
    #[cbor(decode_with = "limits::positions")]
    pub loading: Vec<LoadPosition>,
    /// Credit for the first messages, in bytes.
    #[n(13)]
    pub credit: u64,
    /// The device's clock when this was sent.
    #[n(14)]
    pub now: Timestamp,
    /// `device_name` was given here since the last Welcome, so it takes the place of the one that
    /// the server has.
    #[n(15)]
    #[cbor(skip_if = "is_false")]
    pub renamed: bool,
    /// The device was deregistered, and its user wants it back: under an id of its own.
    #[n(16)]
    #[cbor(skip_if = "is_false")]
    pub register_anew: bool,
    /// What this device wants of the tables that sync on demand, at most [`SUBSCRIPTIONS_MAX`].
    /// `None` from replicas that do not know such tables: they are sent all of them.
    #[n(17)]
    #[cbor(decode_with = "limits::subscriptions", default)]
    pub subscriptions: Option<Vec<Subscription>>,
    /// As [`Subscribe::number`], of the list above.
    #[n(18)]
    #[cbor(default, skip_if = "is_zero")]
    pub subscribed: u64,
    /// What this device held when a session began to load everything again, for another reason
    /// than [`ReloadReason::New`], is not all loaded yet.
    #[n(19)]
    #[cbor(default, skip_if = "is_false")]
    pub loads_again: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// At most this many cursors are kept and sent.
pub const CURSORS_MAX: usize = 32;

/// At most this many tables are named; a device that wants more takes all.
pub const TABLES_MAX: usize = 10_000;

/// At most this many positions are sent; tables with more load from the start.
pub const LOAD_POSITIONS_MAX: usize = 20_000;

/// A table of a bucket that is still loading: pages after `after` are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LoadPosition {
    /// `None`: all granted buckets of the table, from the start.
    #[n(0)]
    pub bucket: Option<BucketId>,
    #[n(1)]
    pub table: TableNumber,
    /// Encoded row key; `None` from the start.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub after: Option<Vec<u8>>,
}

/// Asks for pages: sent after every `Grants(full)` that did not follow a Reload (also when there
/// is nothing to load), and when a receipt digest did not match.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Load {
    /// These become loading; what was loading already and is not named goes on. At most
    /// [`LOAD_POSITIONS_MAX`].
    #[n(0)]
    #[cbor(decode_with = "limits::positions")]
    pub positions: Vec<LoadPosition>,
}

/// At most this many subscriptions are sent at once, whatever a server allows.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;

/// Most bytes of all keys of what a device subscribes to: a Hello has to hold them.
pub const SUBSCRIPTION_KEYS_BYTES_MAX: usize = 1024 * 1024;

/// Rows of tables that sync on demand, asked for by what they hang below (spec SU1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct Subscription {
    #[n(0)]
    pub table: TableNumber,
    /// `None`: a row of the table. Else a column of it, where zero is `_owner`.
    #[n(1)]
    pub column: Option<ColumnNumber>,
    /// Encoded row key, or the column's value encoded like one, and no longer than a key may be;
    /// `None`: what is in the table for all alike.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub key: Option<Vec<u8>>,
}

/// Changes what Hello asked for. Answered by a checkpoint at the latest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Subscribe {
    /// Grows with each change on the device; the checkpoints after it say up to which it was heard.
    #[n(0)]
    pub number: u64,
    #[n(1)]
    #[cbor(decode_with = "limits::some_subscriptions")]
    pub add: Vec<Subscription>,
    #[n(2)]
    #[cbor(decode_with = "limits::some_subscriptions")]
    pub drop: Vec<Subscription>,
}

/// Answers Hello.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    #[n(0)]
    pub protocol: u32,
    #[n(1)]
    pub server: DeviceId,
    /// Another id than the Hello's when the file turned out to be a copy or a restored backup:
    /// the replica takes it, numbers its unsent changesets anew and keeps their ids.
    #[n(2)]
    pub device: DeviceId,
    #[n(3)]
    pub lease: Lease,
    #[n(4)]
    pub user: String,
    #[n(5)]
    pub now: Timestamp,
    /// Present when the replica's differs.
    #[n(6)]
    pub schema: Option<SchemaInfo>,
    #[n(7)]
    pub resume: Resume,
    /// The next number the server takes from this device.
    #[n(8)]
    pub next_number: u64,
    /// Most changesets that may be sent and not yet answered.
    #[n(9)]
    pub pushes_max: u32,
    /// The oldest version the log still has.
    #[n(10)]
    pub horizon: Version,
    /// What the user's device list calls this device.
    #[n(11)]
    pub device_name: Option<String>,
    /// How many subscriptions a device may have; `None` from servers that do not know them and
    /// send everything.
    #[n(12)]
    pub subscriptions_max: Option<u32>,
    /// What the user owns; `None` from servers that do not tell.
    #[n(13)]
    pub quota: Option<Quota>,
    /// The newest version of the log; `None` from servers that do not tell.
    #[n(14)]
    pub head: Option<Version>,
}

/// What a user owns, as far as the server keeps only so much for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Quota {
    #[n(0)]
    pub rows: Option<Share>,
    /// Of keys and values.
    #[n(1)]
    pub bytes: Option<Share>,
}

/// A part of what is kept for one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Share {
    #[n(0)]
    pub owned: u64,
    #[n(1)]
    pub max: u64,
}

/// How the stream starts.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Resume {
    /// From the Hello's newest cursor.
    #[n(0)]
    Continue,
    /// Everything loads again from pages; rows stay until the pages replace them. A first
    /// Checkpoint with the starting cursor follows at once.
    #[n(1)]
    Reload {
        #[n(0)]
        reason: ReloadReason,
        /// The newest of the Hello's cursors that this log contains. After a divergence the
        /// replica treats its own changesets accepted later than this as unsent.
        #[n(1)]
        common: Option<Cursor>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ReloadReason {
    /// First contact.
    #[n(0)]
    New,
    /// The newest cursor is older than the log.
    #[n(1)]
    Horizon,
    /// The log does not contain the newest cursor: the server was restored.
    #[n(2)]
    Diverged,
    /// The rules or tables changed so that buckets got new names.
    #[n(3)]
    Rules,
}

/// A fresh token for the live session, of the same user. Never printed.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TokenRenewal {
    #[n(0)]
    pub token: String,
}

impl std::fmt::Debug for TokenRenewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenRenewal(secret)")
    }
}
