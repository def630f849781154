//! What the server had given of a table that went away: its rows are still in the file when it is
//! back, and nobody wrote them here (spec OB12).

use rusqlite::{Connection, OptionalExtension};
use syncline_core::{ColumnNumber, Row, RowKey, TableNumber, Value, Version};

use crate::{codec, db::Doing, error::ReplicaError, tables::SyncedTable};

const READING: &str = "reading what the server had given";
const WRITING: &str = "writing what the server had given";

/// A row as the server gave it.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) version: Version,
    hash: u64,
    /// Columns that the file did not have.
    extra: Vec<(ColumnNumber, Value)>,
}

impl Given {
    /// Whether the row is what it was.
    pub(crate) fn is(&self, table: &SyncedTable, row: &Row) -> bool {
        self.hash == table.hash(row, &self.extra)
    }
}

/// Remembers the rows that the server gave and that nothing waits to be sent of.
pub(crate) fn remember(conn: &Connection, t: TableNumber) -> Result<(), ReplicaError> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO syncline_given(t, key, version, hash, extra, server)
         SELECT r.t, r.key, r.version, r.hash, r.extra, known.server
         FROM syncline_rows r JOIN syncline_tables known ON known.t = r.t
         WHERE r.t = ?1 AND known.server IS NOT NULL AND NOT EXISTS
           (SELECT 1 FROM syncline_shadow s WHERE s.t = r.t AND s.key = r.key)",
    )
    .and_then(|mut s| s.execute([t.0]))
    .map(drop)
    .doing(WRITING)
}

/// The row as the server gave it, if it was of the table that the server has now.
pub(crate) fn get(
    conn: &Connection,
    table: &SyncedTable,
    key: &RowKey,
) -> Result<Option<Given>, ReplicaError> {
    let Some(remote) = &table.remote else {
        return Ok(None);
    };
    let found = conn
        .prepare_cached(
            "SELECT version, hash, extra FROM syncline_given
             WHERE t = ?1 AND key = ?2 AND server = ?3",
        )
        .and_then(|mut s| {
            let place = (table.number().0, key.as_bytes(), remote.table.number.0);
            let row = s.query_row(place, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            row.optional()
        })
        .doing(READING)?;
    let Some((version, hash, extra)): Option<(i64, i64, Option<Vec<u8>>)> = found else {
        return Ok(None);
    };
    Ok(Some(Given {
        version: Version(version.cast_unsigned()),
        hash: hash.cast_unsigned(),
        extra: extra.map_or(Ok(Vec::new()), |bytes| codec::decode_values(&bytes))?,
    }))
}

pub(crate) fn forget(conn: &Connection, t: TableNumber) -> Result<(), ReplicaError> {
    conn.prepare_cached("DELETE FROM syncline_given WHERE t = ?1")
        .and_then(|mut s| s.execute([t.0]))
        .map(drop)
        .doing(WRITING)
}
