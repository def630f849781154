//! The server's images of rows whose visible ones may differ (spec SL5).

use rusqlite::{Connection, OptionalExtension};
use syncline_core::{Row, RowKey, TableNumber};

use super::ledger::row_key;
use crate::{codec, db::Doing, error::ReplicaError, tables::SyncedTable};

/// The server's image of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shadow {
    /// `None`: the server has no such row.
    pub(crate) image: Option<Row>,
    /// The visible row could not be made what it should be: it is tried again.
    pub(crate) hidden: bool,
}

const READING: &str = "reading a shadow";
const WRITING: &str = "writing a shadow";

pub(crate) fn get(
    conn: &Connection,
    table: &SyncedTable,
    key: &RowKey,
) -> Result<Option<Shadow>, ReplicaError> {
    let found = conn
        .prepare_cached("SELECT image, hidden FROM syncline_shadow WHERE t = ?1 AND key = ?2")
        .and_then(|mut s| {
            s.query_row((table.number().0, key.as_bytes()), |row| {
                Ok((row.get::<_, Option<Vec<u8>>>(0)?, row.get::<_, bool>(1)?))
            })
            .optional()
        })
        .doing(READING)?;
    let Some((image, hidden)) = found else {
        return Ok(None);
    };
    let image = image
        .map(|bytes| codec::decode_row(&table.table, &bytes))
        .transpose()
        .map_err(|error| ReplicaError::DamagedImage {
            table: table.number(),
            key: key.clone(),
            what: error.to_string(),
        })?;
    Ok(Some(Shadow { image, hidden }))
}

/// Whether any row of the table has a shadow.
pub(crate) fn any(conn: &Connection, t: TableNumber) -> Result<bool, ReplicaError> {
    conn.prepare_cached("SELECT 1 FROM syncline_shadow WHERE t = ?1 LIMIT 1")
        .and_then(|mut s| s.query_row([t.0], |_| Ok(())).optional())
        .map(|found| found.is_some())
        .doing(READING)
}

pub(crate) fn put(
    conn: &Connection,
    table: &SyncedTable,
    key: &RowKey,
    shadow: &Shadow,
) -> Result<(), ReplicaError> {
    let image = shadow
        .image
        .as_ref()
        .map(|row| codec::encode_row(&table.table, row));
    conn.prepare_cached(
        "INSERT OR REPLACE INTO syncline_shadow(t, key, image, hidden) VALUES(?1, ?2, ?3, ?4)",
    )
    .and_then(|mut s| s.execute((table.number().0, key.as_bytes(), image, shadow.hidden)))
    .map(drop)
    .doing(WRITING)
}

/// Gives a row another key.
pub(crate) fn move_to(
    conn: &Connection,
    t: TableNumber,
    from: &RowKey,
    to: &RowKey,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_shadow SET key = ?3 WHERE t = ?1 AND key = ?2")
        .and_then(|mut s| s.execute((t.0, from.as_bytes(), to.as_bytes())))
        .map(drop)
        .doing(WRITING)
}

/// Forgets an image that cannot be read.
pub(crate) fn forget_image(
    conn: &Connection,
    t: TableNumber,
    key: &RowKey,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_shadow SET image = NULL WHERE t = ?1 AND key = ?2")
        .and_then(|mut s| s.execute((t.0, key.as_bytes())))
        .map(drop)
        .doing(WRITING)
}

pub(crate) fn delete(conn: &Connection, t: TableNumber, key: &RowKey) -> Result<(), ReplicaError> {
    conn.prepare_cached("DELETE FROM syncline_shadow WHERE t = ?1 AND key = ?2")
        .and_then(|mut s| s.execute((t.0, key.as_bytes())))
        .map(drop)
        .doing(WRITING)
}

/// The keys that a query gives of a table (`?1`), after a key (`?2`), at most so many (`?3`).
fn keys(
    conn: &Connection,
    sql: &str,
    t: TableNumber,
    after: Option<&RowKey>,
    limit: usize,
) -> Result<Vec<RowKey>, ReplicaError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = after.map(RowKey::as_bytes).unwrap_or_default();
    let mut statement = conn.prepare_cached(sql).doing(READING)?;
    let mut rows = statement.query((t.0, after, limit)).doing(READING)?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        keys.push(row_key(row.get_ref(0).doing(READING)?)?);
    }
    Ok(keys)
}

/// At most `limit` hidden rows of the table, ascending, those after `after`.
pub(crate) fn hidden(
    conn: &Connection,
    t: TableNumber,
    after: Option<&RowKey>,
    limit: usize,
) -> Result<Vec<RowKey>, ReplicaError> {
    let sql = "SELECT key FROM syncline_shadow WHERE hidden = 1 AND t = ?1 AND key > ?2
             ORDER BY key LIMIT ?3";
    keys(conn, sql, t, after, limit)
}

/// At most `limit` keys after `after`, ascending, of rows that are dirty or hidden.
pub(crate) fn keys_after(
    conn: &Connection,
    t: TableNumber,
    after: Option<&RowKey>,
    limit: usize,
) -> Result<Vec<RowKey>, ReplicaError> {
    let sql = "SELECT key FROM syncline_shadow WHERE t = ?1 AND key > ?2 ORDER BY key LIMIT ?3";
    keys(conn, sql, t, after, limit)
}

/// At most `limit` keys after `after`, ascending, of rows that the server gave or that are dirty.
pub(crate) fn keys_with_rows(
    conn: &Connection,
    t: TableNumber,
    after: Option<&RowKey>,
    limit: usize,
) -> Result<Vec<RowKey>, ReplicaError> {
    let sql = "SELECT key FROM (SELECT key FROM syncline_rows WHERE t = ?1 AND key > ?2
                              ORDER BY key LIMIT ?3)
             UNION
             SELECT key FROM (SELECT key FROM syncline_shadow WHERE t = ?1 AND key > ?2
                              ORDER BY key LIMIT ?3)
             ORDER BY key LIMIT ?3";
    keys(conn, sql, t, after, limit)
}

/// Rows that no change that waits is of.
pub(crate) fn without_changes(
    conn: &Connection,
) -> Result<Vec<(TableNumber, RowKey)>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT t, key FROM syncline_shadow AS s WHERE NOT EXISTS (
               SELECT 1 FROM syncline_changes c JOIN syncline_outbox o ON o.seq = c.seq
               WHERE c.t = s.t AND c.key = s.key AND o.state <> 2)",
        )
        .doing(READING)?;
    let mut rows = statement.query([]).doing(READING)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        let t = TableNumber(row.get(0).doing(READING)?);
        let key = row_key(row.get_ref(1).doing(READING)?);
        found.extend(key.ok().map(|key| (t, key)));
    }
    Ok(found)
}

/// Rows of the server that this database cannot hold. Those with an unsent change are as they
/// are because of it, until the server has judged it.
pub(crate) fn count_hidden(conn: &Connection) -> Result<u64, ReplicaError> {
    conn.prepare_cached(
        "SELECT count(*) FROM syncline_shadow AS s WHERE hidden = 1 AND NOT EXISTS (
           SELECT 1 FROM syncline_changes c JOIN syncline_outbox o ON o.seq = c.seq
           WHERE c.t = s.t AND c.key = s.key AND o.state <> 2)",
    )
    .and_then(|mut s| s.query_row([], |row| row.get::<_, i64>(0)))
    .map(i64::cast_unsigned)
    .doing(READING)
}
