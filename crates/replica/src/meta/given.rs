//! What the server had given of a table that went away: its rows are still in the file when it is
//! back, and nobody wrote them here (spec OB12).

use rusqlite::{Connection, OptionalExtension};
use syncline_core::{Row, RowKey, TableNumber, Version};

use crate::{db::Doing, error::ReplicaError, tables::SyncedTable};

const READING: &str = "reading what the server had given";
const WRITING: &str = "writing what the server had given";

/// A row as the server gave it.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) version: Version,
    hash: u64,
}

impl Given {
    /// Whether the row is what it was.
    pub(crate) fn is(&self, table: &SyncedTable, row: &Row) -> bool {
        self.hash == table.hash(row, &[])
    }
}

/// Remembers the rows that the server gave and that nothing waits to be sent of. Not those of which
/// something is kept beside the file: a column for it may be there by then, and be empty.
pub(crate) fn remember(conn: &Connection, t: TableNumber) -> Result<(), ReplicaError> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO syncline_given(t, key, version, hash, server)
         SELECT r.t, r.key, r.version, r.hash, known.server
         FROM syncline_rows r JOIN syncline_tables known ON known.t = r.t
         WHERE r.t = ?1 AND known.server IS NOT NULL AND r.extra IS NULL AND NOT EXISTS
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
    conn.prepare_cached(
        "SELECT version, hash FROM syncline_given WHERE t = ?1 AND key = ?2 AND server = ?3",
    )
    .and_then(|mut s| {
        let place = (table.number().0, key.as_bytes(), remote.table.number.0);
        let row = s.query_row(place, |row| {
            Ok(Given {
                version: Version(row.get::<_, i64>(0)?.cast_unsigned()),
                hash: row.get::<_, i64>(1)?.cast_unsigned(),
            })
        });
        row.optional()
    })
    .doing(READING)
}

pub(crate) fn forget(conn: &Connection, t: TableNumber) -> Result<(), ReplicaError> {
    conn.prepare_cached("DELETE FROM syncline_given WHERE t = ?1")
        .and_then(|mut s| s.execute([t.0]))
        .map(drop)
        .doing(WRITING)
}
