//! What pages told that is later than the last checkpoint.
//!
//! A page of a loading bucket may be newer than the stream. A row of it that changed after the
//! last checkpoint may lie in a live bucket too, where it must not show before that bucket's
//! checkpoint does, nor disturb its digest. It waits here until the checkpoint passes it.

use rusqlite::{Connection, OptionalExtension};
use syncline_core::{RowKey, TableNumber, Version};

use super::ledger::{Bucket, row_key};
use crate::{db::Doing, error::ReplicaError};

/// One row of a page, or its absence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ahead {
    pub(crate) t: TableNumber,
    pub(crate) key: RowKey,
    pub(crate) b: Bucket,
    pub(crate) version: Version,
    /// An encoded row body of the server; `None`: the row is not in the bucket at this version.
    pub(crate) body: Option<Vec<u8>>,
}

const READING: &str = "reading rows ahead of the checkpoint";
const WRITING: &str = "writing rows ahead of the checkpoint";

pub(crate) fn put(conn: &Connection, ahead: &Ahead) -> Result<(), ReplicaError> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO syncline_ahead(t, key, b, version, body)
         VALUES(?1, ?2, ?3, ?4, ?5)",
    )
    .and_then(|mut s| {
        let version = ahead.version.0.cast_signed();
        s.execute((
            ahead.t.0,
            ahead.key.as_bytes(),
            ahead.b,
            version,
            &ahead.body,
        ))
    })
    .map(drop)
    .doing(WRITING)
}

pub(crate) fn any(conn: &Connection) -> Result<bool, ReplicaError> {
    conn.prepare_cached("SELECT 1 FROM syncline_ahead LIMIT 1")
        .and_then(|mut s| s.query_row([], |_| Ok(())).optional())
        .map(|found| found.is_some())
        .doing(READING)
}

/// Takes out what is known of one row up to `version`, oldest first.
pub(crate) fn take(
    conn: &Connection,
    t: TableNumber,
    key: &RowKey,
    version: Version,
) -> Result<Vec<Ahead>, ReplicaError> {
    let version = version.0.cast_signed();
    let found = read(
        conn,
        "SELECT t, key, b, version, body FROM syncline_ahead
         WHERE t = ?1 AND key = ?2 AND version <= ?3 ORDER BY version",
        (t.0, key.as_bytes(), version),
    )?;
    if !found.is_empty() {
        conn.prepare_cached(
            "DELETE FROM syncline_ahead WHERE t = ?1 AND key = ?2 AND version <= ?3",
        )
        .and_then(|mut s| s.execute((t.0, key.as_bytes(), version)))
        .doing(WRITING)?;
    }
    Ok(found)
}

/// At most `limit` entries up to `version`; the caller deletes them with [`take`].
pub(crate) fn due(
    conn: &Connection,
    version: Version,
    limit: usize,
) -> Result<Vec<(TableNumber, RowKey)>, ReplicaError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = read(
        conn,
        "SELECT t, key, b, version, NULL FROM syncline_ahead WHERE version <= ?1 LIMIT ?2",
        (version.0.cast_signed(), limit),
    )?;
    Ok(found
        .into_iter()
        .map(|ahead| (ahead.t, ahead.key))
        .collect())
}

fn read(
    conn: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Ahead>, ReplicaError> {
    let mut statement = conn.prepare_cached(sql).doing(READING)?;
    let mut rows = statement.query(params).doing(READING)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        found.push(Ahead {
            t: TableNumber(row.get(0).doing(READING)?),
            key: row_key(row.get_ref(1).doing(READING)?)?,
            b: row.get(2).doing(READING)?,
            version: Version(row.get::<_, i64>(3).doing(READING)?.cast_unsigned()),
            body: row.get(4).doing(READING)?,
        });
    }
    Ok(found)
}
