//! Single values of the replica, one row each in `syncline_meta`.

use rusqlite::{Connection, OptionalExtension, ToSql, types::FromSql};
use syncline_core::{RowKey, TableNumber};

use crate::{db::Doing, error::ReplicaError};

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// The metadata's format number.
    Format,
    /// Device id, 16 bytes.
    Device,
    /// Lease of the last Welcome.
    Lease,
    /// Lease of the last Hello, written before it was sent (spec SE2).
    NextLease,
    /// The server's id; absent before first contact.
    Server,
    User,
    Url,
    DeviceName,
    /// The device's name was given here since the last Welcome.
    NamedHere,
    Platform,
    /// The server said that the user took this device off the list.
    Deregistered,
    /// The next Hello asks for another device id, because this one was deregistered.
    RegisterAnew,
    /// Its user had everything removed: how far that is.
    Wiped,
    /// Chosen tables: names, one a line; absent for all.
    Tables,
    /// Whether missing tables are created.
    CreateMissing,
    /// Whether rows that are there are sent.
    Seeding,
    /// The server's schema as CBOR.
    Schema,
    /// The number the next changeset gets when it is first sent.
    NextNumber,
    /// The last place in the order of changesets that was given out.
    LastSeq,
    /// The last place that was given out when the file was opened: up to there nothing grows.
    JoinsAfter,
    /// Server's clock minus device's, microseconds.
    ClockOffset,
    /// The last HLC given out or seen.
    Hlc,
    /// The last checkpoint had nothing after it.
    CaughtUp,
    /// Rows received since loading began.
    LoadedRows,
    /// Rows to come.
    RemainingRows,
    /// The version at which everything began to load again, until it is all here: what was
    /// accepted up to it comes with pages only.
    ReloadedAt,
    /// New rules renamed the buckets, and what has new names is not all loaded yet.
    Renamed,
    /// Meanwhile: tables of which the user may see rows that nobody asks for, by the server's
    /// numbers, one a line.
    RenamedReleased,
    /// What this file held when everything began to load again is not all loaded yet.
    LoadsAgain,
    /// The newest version that the server's log had at the last Welcome.
    Head,
    /// Names of the encryption keys that this file was last opened with, the one that seals first.
    KeysHeld,
    /// Name of the encryption key that was seen to be the right one.
    Proven,
    /// Envelopes were met that none of those keys opens, and none that one does.
    KeysDoubted,
    /// Columns that were told to be encrypted: table and column by the file's numbers, one a line.
    Encrypted,
    /// How often the subscriptions changed.
    Subscribed,
    /// What the user owns of what is kept for one: rows, how many at most, bytes, how many at
    /// most; `-` for what has no limit.
    Quota,
    /// How many subscriptions the server allows, plus one; absent where it does not know them.
    SubscriptionsMax,
}

impl Key {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Device => "device",
            Self::Lease => "lease",
            Self::NextLease => "next_lease",
            Self::Server => "server",
            Self::User => "user",
            Self::Url => "url",
            Self::DeviceName => "device_name",
            Self::NamedHere => "named_here",
            Self::Platform => "platform",
            Self::Deregistered => "deregistered",
            Self::RegisterAnew => "register_anew",
            Self::Wiped => "wiped",
            Self::Tables => "tables",
            Self::CreateMissing => "create_missing",
            Self::Seeding => "seeding",
            Self::Schema => "schema",
            Self::NextNumber => "next_number",
            Self::LastSeq => "last_seq",
            Self::JoinsAfter => "joins_after",
            Self::ClockOffset => "clock_offset",
            Self::Hlc => "hlc",
            Self::CaughtUp => "caught_up",
            Self::LoadedRows => "loaded_rows",
            Self::RemainingRows => "remaining_rows",
            Self::ReloadedAt => "reloaded_at",
            Self::Renamed => "renamed",
            Self::RenamedReleased => "renamed_released",
            Self::LoadsAgain => "loads_again",
            Self::Head => "head",
            Self::KeysHeld => "keys_held",
            Self::Proven => "key_proven",
            Self::KeysDoubted => "keys_doubted",
            Self::Encrypted => "encrypted",
            Self::Subscribed => "subscribed",
            Self::Quota => "quota",
            Self::SubscriptionsMax => "subscriptions_max",
        }
    }
}

pub(crate) fn get<T: FromSql>(conn: &Connection, key: Key) -> Result<Option<T>, ReplicaError> {
    conn.prepare_cached("SELECT value FROM syncline_meta WHERE key = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([key.name()], |row| row.get(0))
                .optional()
        })
        .doing("reading a setting of the replica")
}

pub(crate) fn put(conn: &Connection, key: Key, value: impl ToSql) -> Result<(), ReplicaError> {
    conn.prepare_cached("INSERT OR REPLACE INTO syncline_meta(key, value) VALUES(?1, ?2)")
        .and_then(|mut statement| statement.execute((key.name(), value)))
        .map(drop)
        .doing("writing a setting of the replica")
}

pub(crate) fn remove(conn: &Connection, key: Key) -> Result<(), ReplicaError> {
    conn.prepare_cached("DELETE FROM syncline_meta WHERE key = ?1")
        .and_then(|mut statement| statement.execute([key.name()]))
        .map(drop)
        .doing("writing a setting of the replica")
}

/// The last hidden row of a table that was tried again; `None` while all are tried each time.
pub(crate) fn hidden_after(
    conn: &Connection,
    t: TableNumber,
) -> Result<Option<RowKey>, ReplicaError> {
    let stored: Option<Vec<u8>> = conn
        .prepare_cached("SELECT value FROM syncline_meta WHERE key = 'hidden_after_' || ?1")
        .and_then(|mut s| s.query_row([t.0], |row| row.get(0)).optional())
        .doing("reading a setting of the replica")?;
    // Of one that cannot be read nothing is lost by beginning anew.
    Ok(stored.and_then(|bytes| RowKey::from_bytes(&bytes).ok()))
}

/// Writes which hidden row of a table was tried last.
pub(crate) fn set_hidden_after(
    conn: &Connection,
    t: TableNumber,
    after: Option<&RowKey>,
) -> Result<(), ReplicaError> {
    const DOING: &str = "writing a setting of the replica";
    let Some(after) = after else {
        return conn
            .prepare_cached("DELETE FROM syncline_meta WHERE key = 'hidden_after_' || ?1")
            .and_then(|mut s| s.execute([t.0]))
            .map(drop)
            .doing(DOING);
    };
    conn.prepare_cached(
        "INSERT OR REPLACE INTO syncline_meta(key, value) VALUES('hidden_after_' || ?1, ?2)",
    )
    .and_then(|mut s| s.execute((t.0, after.as_bytes())))
    .map(drop)
    .doing(DOING)
}

/// A 16-byte id.
pub(crate) fn get_id(conn: &Connection, key: Key) -> Result<Option<[u8; 16]>, ReplicaError> {
    let Some(bytes) = get::<Vec<u8>>(conn, key)? else {
        return Ok(None);
    };
    bytes
        .try_into()
        .map(Some)
        .map_err(|_| ReplicaError::Damaged {
            what: format!("the setting {} is not 16 bytes long", key.name()),
        })
}

/// A number that is never negative; zero when absent.
pub(crate) fn get_count(conn: &Connection, key: Key) -> Result<u64, ReplicaError> {
    Ok(get::<i64>(conn, key)?.unwrap_or(0).cast_unsigned())
}
