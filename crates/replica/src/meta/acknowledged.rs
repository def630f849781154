//! Changesets that are in the server's log, kept for a server that lost its tail (spec OB4).

use rusqlite::{Connection, types::ValueRef};
use syncline_core::{Timestamp, Version};

use super::outbox::Seq;
use crate::{db::Doing, error::ReplicaError};

/// How long they are kept.
const KEPT_MILLIS: u64 = 7 * 24 * 3600 * 1000;
/// How many bytes of them are kept.
const KEPT_BYTES: u64 = 64 * 1024 * 1024;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) seq: Seq,
    pub(crate) version: Version,
    pub(crate) at: Timestamp,
    pub(crate) marked: bool,
    /// Encoded changeset with local numbers.
    pub(crate) body: Vec<u8>,
}

/// One that is taken out, and whether it is what was kept (spec OB15).
pub(crate) struct Taken {
    pub(crate) kept: Acknowledged,
    pub(crate) is_sound: bool,
}

/// Of everything that is kept of it.
fn sum(kept: &Acknowledged) -> i64 {
    let mut hash = blake3::Hasher::new();
    hash.update(&kept.seq.to_le_bytes());
    hash.update(&kept.version.0.to_le_bytes());
    hash.update(&[u8::from(kept.marked)]);
    hash.update(&kept.body);
    let hash = hash.finalize();
    i64::from_le_bytes(*hash.as_bytes().first_chunk::<8>().expect("32 bytes"))
}

const READING: &str = "reading acknowledged changesets";
const WRITING: &str = "keeping an acknowledged changeset";

pub(crate) fn put(conn: &Connection, kept: &Acknowledged) -> Result<(), ReplicaError> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO syncline_acknowledged(seq, version, at, marked, bytes, body, sum)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .and_then(|mut s| {
        s.execute((
            kept.seq,
            kept.version.0.cast_signed(),
            kept.at.0.cast_signed(),
            kept.marked,
            (kept.body.len() as u64).cast_signed(),
            &kept.body,
            sum(kept),
        ))
    })
    .map(drop)
    .doing(WRITING)
}

/// Forgets what is too old or too much, the oldest first. `now` is the server's clock, as their
/// versions are: the device's own may jump by years.
pub(crate) fn expire(conn: &Connection, now: Timestamp) -> Result<(), ReplicaError> {
    let horizon = now.0.saturating_sub(KEPT_MILLIS * 1000);
    conn.prepare_cached("DELETE FROM syncline_acknowledged WHERE version < ?1")
        .and_then(|mut s| s.execute([horizon.cast_signed()]))
        .doing(WRITING)?;
    let mut kept: u64 = conn
        .prepare_cached("SELECT ifnull(sum(bytes), 0) FROM syncline_acknowledged")
        .and_then(|mut s| s.query_row([], |row| row.get::<_, i64>(0)))
        .map(i64::cast_unsigned)
        .doing(READING)?;
    while kept > KEPT_BYTES {
        let freed: i64 = conn
            .query_row(
                "SELECT bytes FROM syncline_acknowledged ORDER BY seq LIMIT 1",
                [],
                |row| row.get(0),
            )
            .doing(READING)?;
        conn.execute(
            "DELETE FROM syncline_acknowledged
             WHERE seq = (SELECT min(seq) FROM syncline_acknowledged)",
            [],
        )
        .doing(WRITING)?;
        kept = kept.saturating_sub(freed.cast_unsigned());
    }
    Ok(())
}

/// The contents of the newest ones, the newest first.
pub(crate) fn newest(conn: &Connection, limit: usize) -> Result<Vec<Vec<u8>>, ReplicaError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn
        .prepare_cached("SELECT body FROM syncline_acknowledged ORDER BY seq DESC LIMIT ?1")
        .doing(READING)?;
    let found = statement.query_map([limit], |row| row.get(0));
    found.and_then(Iterator::collect).doing(READING)
}

/// Takes out those later than `common`, in order.
pub(crate) fn take_after(conn: &Connection, common: Version) -> Result<Vec<Taken>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT seq, version, at, marked, body, sum FROM syncline_acknowledged
             WHERE version > ?1 ORDER BY seq",
        )
        .doing(READING)?;
    let found = statement.query_map([common.0.cast_signed()], |row| {
        let kept = Acknowledged {
            seq: row.get(0)?,
            version: Version(row.get::<_, i64>(1)?.cast_unsigned()),
            at: Timestamp(row.get::<_, i64>(2)?.cast_unsigned()),
            marked: row.get(3)?,
            body: match row.get_ref(4)? {
                ValueRef::Blob(body) => body.to_vec(),
                ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) => {
                    Vec::new()
                }
            },
        };
        let stored: Option<i64> = row.get(5)?;
        let is_sound = stored.is_none_or(|stored| stored == sum(&kept));
        Ok(Taken { kept, is_sound })
    });
    let found = found
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .doing(READING)?;
    conn.execute(
        "DELETE FROM syncline_acknowledged WHERE version > ?1",
        [common.0.cast_signed()],
    )
    .doing(WRITING)?;
    Ok(found)
}
