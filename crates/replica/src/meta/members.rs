//! The rows of a table by bucket.
//!
//! Rows know their buckets; the list in the other direction is only needed to take a bucket's
//! rows away, or to find those that a page does not have any more. Most tables never need it: it
//! is made of the rows when it is asked for first, and kept up to date from then on.

use rusqlite::Connection;
use syncline_core::{RowKey, TableNumber};

use super::ledger::{Bucket, row_key, unpack};
use crate::{db::Doing, error::ReplicaError};

const READING: &str = "reading a bucket's rows";
const WRITING: &str = "writing a bucket's rows";

/// Whether the rows of `t` are listed by bucket, so that every change has to be told.
pub(crate) fn are_listed(conn: &Connection, t: TableNumber) -> Result<bool, ReplicaError> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM syncline_tables WHERE t = ?1 AND members)")
        .and_then(|mut s| s.query_row([t.0], |row| row.get(0)))
        .doing(READING)
}

/// Lists the rows of `t` by bucket, anew.
pub(crate) fn list(conn: &Connection, t: TableNumber) -> Result<(), ReplicaError> {
    // One bucket is an integer: most rows need not be looked at one by one.
    for sql in [
        "DELETE FROM syncline_members WHERE t = ?1",
        "INSERT INTO syncline_members(b, t, key)
           SELECT buckets, t, key FROM syncline_rows
           WHERE t = ?1 AND typeof(buckets) = 'integer' ORDER BY buckets, key",
        "UPDATE syncline_tables SET members = 1 WHERE t = ?1",
    ] {
        conn.prepare_cached(sql)
            .and_then(|mut s| s.execute([t.0]))
            .doing(WRITING)?;
    }
    let mut statement = conn
        .prepare_cached(
            "SELECT key, buckets FROM syncline_rows
             WHERE t = ?1 AND typeof(buckets) <> 'integer'",
        )
        .doing(READING)?;
    let mut rows = statement.query([t.0]).doing(READING)?;
    while let Some(row) = rows.next().doing(READING)? {
        let key = row_key(row.get_ref(0).doing(READING)?)?;
        for b in unpack(row.get_ref(1).doing(READING)?) {
            join(conn, b, t, &key)?;
        }
    }
    Ok(())
}

pub(crate) fn join(
    conn: &Connection,
    b: Bucket,
    t: TableNumber,
    key: &RowKey,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("INSERT OR IGNORE INTO syncline_members(b, t, key) VALUES(?1, ?2, ?3)")
        .and_then(|mut statement| statement.execute((b, t.0, key.as_bytes())))
        .map(drop)
        .doing(WRITING)
}

pub(crate) fn leave(
    conn: &Connection,
    b: Bucket,
    t: TableNumber,
    key: &RowKey,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("DELETE FROM syncline_members WHERE b = ?1 AND t = ?2 AND key = ?3")
        .and_then(|mut statement| statement.execute((b, t.0, key.as_bytes())))
        .map(drop)
        .doing(WRITING)
}

/// At most `limit` keys of `t` in bucket `b` within `(after, to]`, ascending.
pub(crate) fn within(
    conn: &Connection,
    b: Bucket,
    t: TableNumber,
    after: Option<&[u8]>,
    to: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<RowKey>, ReplicaError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn
        .prepare_cached(
            "SELECT key FROM syncline_members
             WHERE b = ?1 AND t = ?2 AND key > ?3 AND (?4 IS NULL OR key <= ?4)
             ORDER BY key LIMIT ?5",
        )
        .doing(READING)?;
    let mut rows = statement
        .query((b, t.0, after.unwrap_or_default(), to, limit))
        .doing(READING)?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        keys.push(row_key(row.get_ref(0).doing(READING)?)?);
    }
    Ok(keys)
}
