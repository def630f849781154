//! Where one transaction ends and the next begins.

use rusqlite::Connection;

use super::install::{CaptureError, database};

/// Whether anything was touched since the last sealing. One read of one row, however many tables
/// there are.
///
/// # Errors
/// The database's.
pub fn has_marks(conn: &Connection) -> Result<bool, CaptureError> {
    conn.prepare_cached("SELECT ifnull((SELECT touched > 0 FROM syncline_tx), 1)")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(database("look for marks"))
}

/// Begins a transaction whose changes become one changeset, never joined with what other
/// programs committed before. To be called first in the caller's transaction; end it with
/// [`end_marked`].
///
/// # Errors
/// The database's.
pub fn begin_marked(conn: &Connection) -> Result<(), CaptureError> {
    if !has_marks(conn)? {
        return Ok(());
    }
    conn.execute_batch(
        "INSERT INTO syncline_unmarked SELECT n FROM syncline_tx \
         WHERE n NOT IN (SELECT n FROM syncline_unmarked); \
         UPDATE syncline_tx SET n = n + 1",
    )
    .map_err(database("begin a marked transaction"))
}

/// Ends a marked transaction: what follows is another changeset. To be called last, before the
/// commit. Any program may run the same statement, `UPDATE syncline_tx SET n = n + 1`.
///
/// # Errors
/// The database's.
pub fn end_marked(conn: &Connection) -> Result<(), CaptureError> {
    conn.prepare_cached("UPDATE syncline_tx SET n = n + 1")
        .and_then(|mut statement| statement.execute([]))
        .map_err(database("end a marked transaction"))?;
    Ok(())
}
