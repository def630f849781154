//! What a replica wrote, and what became of it.

use minicbor::{Decode, Encode};

use crate::ids::{ChangesetId, TableNumber, Version};

/// One changeset on its way to the log.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Push {
    #[n(0)]
    pub id: ChangesetId,
    /// [`crate::wire::encode_changeset`], unless `parts` announces that it follows in parts.
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
    /// It was cut in another file, and pieces of that are applied which have some of its changes:
    /// cut it, too.
    pub const PARTLY_APPLIED: &str = "partly_applied_already";
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
