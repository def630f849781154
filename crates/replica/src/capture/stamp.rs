//! Notices that the schema changed under capture (spec CA8).
//!
//! For each table a hash is kept of everything that decides whether a write was marked: the text
//! of the table, its indexes and our triggers, where the table's tree begins, and where in
//! `sqlite_schema` our triggers stand. A migration tool may drop a table and its triggers, write,
//! and create them again with the same text; but objects made again stand in another place,
//! because one view, `syncline_last`, was made after all of ours and keeps theirs from being the
//! last. (VACUUM moves everything: then the rows are compared once for nothing.)

use rusqlite::{Connection, OptionalExtension as _, params};
use syncline_core::Table;

use super::install::{CaptureError, database};

/// Raised when other triggers are installed for the same schema.
const FORMAT: u8 = 1;

/// What [`check`] found for one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Every write since [`install`](super::install) was marked.
    Intact,
    /// The table or our triggers changed: writes may have gone unmarked. Take the drafts that
    /// there are, install anew, then compare all rows ([`rescan`](super::rescan)).
    Changed,
    /// The app dropped or renamed the table.
    Gone,
}

/// Looks whether the schema is as it was when these tables were installed; one finding each.
///
/// Reads `sqlite_schema` once. As long as [`schema_version`] stays the same, so does the answer.
///
/// # Errors
/// The database's.
pub fn check(conn: &Connection, tables: &[Table]) -> Result<Vec<Finding>, CaptureError> {
    let doing = "compare the schema with what was installed";
    let complete: bool = conn
        .query_row(
            "SELECT count(*) = 3 FROM sqlite_schema WHERE type = 'table' \
             AND name IN ('syncline_tx', 'syncline_unmarked', 'syncline_capture')",
            [],
            |row| row.get(0),
        )
        .map_err(database(doing))?;
    let complete = complete
        && conn
            .query_row("SELECT count(*) = 1 FROM syncline_tx", [], |row| row.get(0))
            .map_err(database(doing))?;
    tables
        .iter()
        .map(|table| {
            if !exists(conn, table).map_err(database(doing))? {
                return Ok(Finding::Gone);
            }
            if !complete {
                return Ok(Finding::Changed);
            }
            let installed: Option<Vec<u8>> = conn
                .prepare_cached("SELECT stamp FROM syncline_capture WHERE table_no = ?1")
                .and_then(|mut s| s.query_row([table.number.0], |row| row.get(0)).optional())
                .map_err(database(doing))?;
            let now = stamp(conn, table).map_err(database(doing))?;
            let same = installed.is_some_and(|installed| installed == now);
            Ok(if same {
                Finding::Intact
            } else {
                Finding::Changed
            })
        })
        .collect()
}

/// A number that changes with the schema, whoever changes it. Cheap to read.
///
/// # Errors
/// The database's.
pub fn schema_version(conn: &Connection) -> Result<i64, CaptureError> {
    conn.prepare_cached("SELECT schema_version FROM pragma_schema_version('main')")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(database("read the schema's version"))
}

/// Makes `syncline_last` the last object of the schema.
pub(super) fn put_last(conn: &Connection) -> Result<(), CaptureError> {
    conn.execute_batch(
        "DROP VIEW IF EXISTS syncline_last; CREATE VIEW syncline_last AS SELECT n FROM syncline_tx",
    )
    .map_err(database("close the list of triggers"))
}

/// Remembers the schema of these tables as the one that capture is installed for.
pub(super) fn record(conn: &Connection, tables: &[Table]) -> Result<(), CaptureError> {
    let doing = "remember what was installed";
    for table in tables {
        let stamp = stamp(conn, table).map_err(database(doing))?;
        conn.execute(
            "INSERT OR REPLACE INTO syncline_capture(table_no, name, stamp) VALUES (?1, ?2, ?3)",
            params![table.number.0, table.name, stamp],
        )
        .map_err(database(doing))?;
    }
    Ok(())
}

fn exists(conn: &Connection, table: &Table) -> rusqlite::Result<bool> {
    conn.prepare_cached(
        "SELECT EXISTS(SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE)",
    )?
    .query_row([&table.name], |row| row.get(0))
}

fn stamp(conn: &Connection, table: &Table) -> rusqlite::Result<Vec<u8>> {
    let mut hash = blake3::Hasher::new();
    hash.update(&[FORMAT]);
    for column in table.columns.iter().filter(|column| !column.generated) {
        hash.update(&column.number.0.to_le_bytes());
        text(&mut hash, &column.name.to_ascii_lowercase());
    }
    let mut statement = conn.prepare_cached(
        "SELECT type, name, ifnull(sql, ''), rootpage, rowid FROM sqlite_schema \
         WHERE tbl_name = ?1 COLLATE NOCASE AND (type <> 'trigger' OR substr(name, 1, length(?2)) = ?2) \
         OR tbl_name = ?3 ORDER BY name",
    )?;
    let triggers = format!("syncline_{}_", table.number.0);
    let mark = super::triggers::mark_table(table);
    let mut rows = statement.query(params![table.name, triggers, mark])?;
    while let Some(row) = rows.next()? {
        let kind: String = row.get(0)?;
        text(&mut hash, &kind);
        text(&mut hash, &row.get::<_, String>(1)?);
        text(&mut hash, &row.get::<_, String>(2)?);
        let place: i64 = match kind.as_str() {
            "table" => row.get(3)?,
            "trigger" => row.get(4)?,
            _ => 0,
        };
        hash.update(&place.to_le_bytes());
    }
    Ok(hash.finalize().as_bytes()[..16].to_vec())
}

fn text(hash: &mut blake3::Hasher, text: &str) {
    hash.update(&(text.len() as u64).to_le_bytes())
        .update(text.as_bytes());
}
