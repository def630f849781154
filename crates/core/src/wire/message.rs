//! The messages. Field numbers are for ever; new fields are optional or have a default.

use minicbor::{Decode, Encode};

use super::{limits, schema::SchemaInfo};
use crate::ids::{
    BucketId, ChangesetId, ColumnNumber, Cursor, DeviceId, Lease, TableNumber, Timestamp, Version,
};

/// The protocol this build speaks; a peer with another major number is refused by name.
pub const PROTOCOL: u32 = 1;

/// From a replica to a server.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time for each connection, never kept in numbers"
)]
pub enum ClientMessage {
    Hello(Hello),
    Push(Push),
    PushPart(PushPart),
    Credit(Credit),
    Token(TokenRenewal),
    Ping(Ping),
    Load(Load),
    Subscribe(Subscribe),
    /// A kind this build does not know: ignored.
    Unknown(u32),
}

/// From a server to a replica.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    Welcome(Box<Welcome>),
    PushResult(PushResult),
    Grants(Grants),
    Page(Page),
    Changes(Changes),
    Checkpoint(Checkpoint),
    Refusal(Refusal),
    Pong(Ping),
    /// A kind this build does not know: ignored.
    Unknown(u32),
}

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
    /// The buckets this replica holds, live or loading: count and sum mod 2^64 of the first
    /// eight bytes (little endian) of their ids.
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

/// One changeset on its way to the log.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Push {
    #[n(0)]
    pub id: ChangesetId,
    /// [`super::encode_changeset`], unless `parts` announces that it follows in parts.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Number of [`PushPart`]s that follow, 0 when `body` is whole.
    #[n(2)]
    pub parts: u32,
}

/// Encoded changesets longer than this travel in parts of at most this many bytes.
pub const PUSH_PART_BYTES: usize = 256 * 1024;
/// Most changes of one changeset.
pub const CHANGES_MAX: usize = 100_000;
/// Most encoded bytes of one changeset.
pub const CHANGESET_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct PushPart {
    #[n(0)]
    pub id: ChangesetId,
    #[n(1)]
    pub index: u32,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// The verdict on one changeset.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct PushResult {
    #[n(0)]
    pub id: ChangesetId,
    #[n(1)]
    pub verdict: Verdict,
    /// Edits that were accepted and lost against somebody else's, for the app to tell.
    #[n(2)]
    pub lost: Vec<LostEdit>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Verdict {
    /// In the log, durable, ending at this version.
    #[n(0)]
    Accepted(#[n(0)] Version),
    /// Nothing of it was applied.
    #[n(1)]
    Refused(#[n(0)] Refusal),
}

/// An accepted edit without its effect.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LostEdit {
    #[n(0)]
    pub table: TableNumber,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// `None` for the whole row.
    #[n(2)]
    pub column: Option<u32>,
    /// `older`, `server_wins`, `conflict`, `deleted`, `row_gone`.
    #[n(3)]
    pub reason: String,
}

/// Why something was refused; also ends a session when `fatal`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refusal {
    /// Stable: one of [`super::code`].
    #[n(0)]
    pub code: String,
    /// A sentence for people.
    #[n(1)]
    pub message: String,
    /// Whether the same thing may succeed later, unchanged.
    #[n(2)]
    pub retry: bool,
    /// Do not try before this many milliseconds.
    #[n(3)]
    pub retry_after_ms: Option<u64>,
    /// Position of the change in the changeset that caused it.
    #[n(4)]
    pub change: Option<u32>,
    /// The session ends after this message.
    #[n(5)]
    pub fatal: bool,
}

/// Stable codes of [`Refusal`].
pub mod code {
    /// Another protocol version.
    pub const PROTOCOL: &str = "protocol";
    /// A message or body that cannot be decoded.
    pub const MALFORMED: &str = "malformed";
    /// No token, or one that is forged, expired or not yet valid.
    pub const UNAUTHORIZED: &str = "unauthorized";
    /// The file belongs to another server.
    pub const WRONG_SERVER: &str = "wrong_server";
    /// The file belongs to another user.
    pub const WRONG_USER: &str = "wrong_user";
    /// The user has taken the device off their list.
    pub const DEREGISTERED: &str = "deregistered";
    /// A changeset's number is not the next one.
    pub const GAP: &str = "gap";
    /// A changeset it depends on was refused.
    pub const DEPENDS_ON: &str = "depends_on";
    /// A rule does not allow it, or the row is not there for this user.
    pub const FORBIDDEN: &str = "forbidden";
    /// An integer key that is somebody else's row already.
    pub const ID_TAKEN: &str = "id_taken";
    /// An update of a row the server does not have.
    pub const ROW_GONE: &str = "row_gone";
    /// A constraint of the database.
    pub const CONSTRAINT: &str = "constraint";
    /// A table or column that does not sync, or an edit its type or strategy does not take.
    pub const SCHEMA: &str = "schema";
    /// A base version this device was never sent.
    pub const BASE: &str = "base_in_future";
    /// `require_unchanged`, and a row changed.
    pub const CHANGED: &str = "changed";
    /// Too many changes or bytes.
    pub const TOO_LARGE: &str = "too_large";
    /// Based before the horizon and from a restored or copied device.
    pub const MAYBE_APPLIED: &str = "may_be_applied_already";
    /// The same changeset id was used by somebody else.
    pub const ID_REUSED: &str = "changeset_id_reused";
    /// The server is stopping or overloaded.
    pub const UNAVAILABLE: &str = "unavailable";
    /// More messages or bytes in a time than one connection may send.
    pub const TOO_FAST: &str = "too_fast";
    /// The rows that a user owns would be more, or larger, than the server keeps for one.
    pub const OVER_QUOTA: &str = "over_quota";
    /// More rows to load than a device may hold.
    pub const TOO_MANY_ROWS: &str = "too_many_rows";
    /// More subscriptions than a device may have.
    pub const TOO_MANY_SUBSCRIPTIONS: &str = "too_many_subscriptions";
    /// The server's disk failed or is full.
    pub const STORAGE: &str = "storage";
}

/// Bytes the server may send on top of what it was allowed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Credit {
    #[n(0)]
    pub bytes: u64,
    /// The last checkpoint that the replica applied, for the device list.
    #[n(1)]
    pub checkpoint: Option<Version>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ping {
    #[n(0)]
    pub sent: Timestamp,
    /// The answerer's clock, in a Pong.
    #[n(1)]
    pub now: Timestamp,
}

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
    /// Encoded [`super::RowBody`]s (whole rows), one after the other, in key order.
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
    /// An encoded [`super::RowBody`]: shared by every subscriber that gets the same kind.
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

fn is_zero(number: &u64) -> bool {
    *number == 0
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
