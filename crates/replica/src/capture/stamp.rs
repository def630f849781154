//! Notices that the schema changed under capture (spec CA8).
//!
//! For each table a hash is kept of everything that decides whether a write was marked: the text
//! of the table, its unique indexes and our triggers, where the table's tree begins, and where in
//! `sqlite_schema` our triggers stand. A migration tool may drop a table and its triggers, write,
//! and create them again with the same text; but objects made again stand in another place,
//! because one view, `syncline_last`, was made after all of ours and keeps theirs from being the
//! last. (VACUUM moves everything: then the rows are compared once for nothing.)

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use syncline_core::{Table, TableNumber};

use super::{
    install::{CaptureError, database},
    triggers::mark_table,
};
use crate::objects::{Object, Objects};

/// Raised when other triggers are installed for the same schema.
const FORMAT: u8 = 3;
/// Its triggers marked every write, too.
const FORMAT_BEFORE: u8 = 2;
/// Bytes of each half of a stamp.
const HALF: usize = 16;

/// What [`check`] found for one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Every write since [`install`](super::install()) was marked.
    Intact,
    /// The text of the table changed, its columns for example, and every write was marked: install
    /// anew.
    Altered,
    /// The table or our triggers changed: writes may have gone unmarked. Take the drafts that
    /// there are, install anew, then compare all rows ([`rescan`](super::rescan())).
    Changed,
    /// The app dropped or renamed the table.
    Gone,
}

/// Looks whether the schema is as it was when these tables were installed; one finding each.
///
/// `schema` is the file's. As long as [`schema_version`] stays the same, so does the answer.
///
/// # Errors
/// The database's.
pub fn check(
    conn: &Connection,
    schema: &Objects,
    tables: &[Table],
) -> Result<Vec<Finding>, CaptureError> {
    let doing = "compare the schema with what was installed";
    let ours = ["syncline_tx", "syncline_unmarked", "syncline_capture"];
    let is_complete = ours.iter().all(|name| schema.table(name).is_some())
        && conn
            .query_row("SELECT count(*) = 1 FROM syncline_tx", [], |row| row.get(0))
            .map_err(database(doing))?;
    let installed = match is_complete {
        true => installed(conn).map_err(database(doing))?,
        false => BTreeMap::new(),
    };
    let finding = |table: &Table| {
        if schema.table(&table.name).is_none() {
            return Finding::Gone;
        }
        let Some(installed) = installed.get(&table.number) else {
            return Finding::Changed;
        };
        let stamp_now = stamp(schema, table, FORMAT);
        if *installed == stamp_now {
            return Finding::Intact;
        }
        let is_marked_as = |stamp: &[u8]| installed.get(..HALF) == stamp.get(..HALF);
        match is_marked_as(&stamp_now) || is_marked_as(&stamp(schema, table, FORMAT_BEFORE)) {
            true => Finding::Altered,
            false => Finding::Changed,
        }
    };
    Ok(tables.iter().map(finding).collect())
}

/// The stamps of all captured tables.
fn installed(conn: &Connection) -> rusqlite::Result<BTreeMap<TableNumber, Vec<u8>>> {
    let mut statement = conn.prepare_cached("SELECT table_no, stamp FROM syncline_capture")?;
    let rows = statement.query_map([], |row| Ok((TableNumber(row.get(0)?), row.get(1)?)))?;
    rows.collect()
}

/// Names, in lower case, of captured tables that were dropped since [`install`](super::install()),
/// whether another table has the name now or not: our triggers went along, and were made anew
/// behind `syncline_last` if at all. Dropping a table changes rows that refer to it.
///
/// # Errors
/// The database's.
pub fn dropped(conn: &Connection, schema: &Objects) -> Result<BTreeSet<String>, CaptureError> {
    let doing = "look for tables that were dropped";
    if schema.table("syncline_capture").is_none() {
        return Ok(BTreeSet::new());
    }
    let last = schema.of("syncline_last").first().map(|view| view.place);
    let mut statement = conn
        .prepare_cached("SELECT table_no, name FROM syncline_capture")
        .map_err(database(doing))?;
    let installed = statement
        .query_map([], |row| {
            Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?))
        })
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(database(doing))?;
    let is_dropped = |number: u32| {
        let ours = format!("syncline_{number}_");
        let triggers = schema.triggers(&ours);
        let mut places = triggers.map(|trigger| trigger.place).peekable();
        places.peek().is_none() || places.any(|place| last.is_some_and(|last| place > last))
    };
    Ok(installed
        .into_iter()
        .filter(|(number, _)| is_dropped(*number))
        .map(|(_, name)| name.to_ascii_lowercase())
        .collect())
}

/// A number that changes with the schema, whoever changes it. Cheap to read.
///
/// # Errors
/// The database's.
pub fn schema_version(conn: &Connection) -> Result<i64, CaptureError> {
    conn.prepare_cached("PRAGMA main.schema_version")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(database("read the schema's version"))
}

/// Whether `syncline_last` is there.
pub(super) fn has_last(conn: &Connection) -> Result<bool, CaptureError> {
    conn.prepare_cached(
        "SELECT 1 FROM sqlite_schema WHERE type = 'view' AND name = 'syncline_last'",
    )
    .and_then(|mut statement| statement.exists([]))
    .map_err(database("look for the end of the list of triggers"))
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
    let schema = Objects::read(conn).map_err(database(doing))?;
    for table in tables {
        conn.execute(
            "INSERT OR REPLACE INTO syncline_capture(table_no, name, stamp) VALUES (?1, ?2, ?3)",
            params![table.number.0, table.name, stamp(&schema, table, FORMAT)],
        )
        .map_err(database(doing))?;
    }
    Ok(())
}

/// Others evict no row. The indexes that SQLite makes for constraints have no text.
fn is_unique_index(object: &Object) -> bool {
    !object
        .sql
        .as_deref()
        .is_some_and(|sql| sql.starts_with("CREATE INDEX"))
}

fn add(object: &Object, hash: &mut blake3::Hasher) {
    let sql = object.sql.as_deref().unwrap_or_default();
    for part in [&object.kind, &object.name, sql] {
        hash.update(&(part.len() as u64).to_le_bytes())
            .update(part.as_bytes());
    }
    // A place was hashed here once: stamps that are in files have this.
    hash.update(&0_i64.to_le_bytes());
}

/// Half of it says whether writes were marked, the other what the table is.
fn stamp(schema: &Objects, table: &Table, format: u8) -> Vec<u8> {
    let (mut marking, mut text) = (blake3::Hasher::new(), blake3::Hasher::new());
    marking.update(&[format]);
    for column in table.columns.iter().filter(|column| !column.generated) {
        text.update(&column.number.0.to_le_bytes());
        text.update(column.name.to_ascii_lowercase().as_bytes())
            .update(&[0]);
    }
    let ours = format!("syncline_{}_", table.number.0);
    for object in schema.of(&table.name) {
        match object.kind.as_str() {
            "table" => {
                marking.update(&object.root_page.to_le_bytes());
                add(object, &mut text);
            }
            // ALTER TABLE writes new names into them; whoever makes them again puts them
            // elsewhere.
            "trigger" if object.name.starts_with(&ours) => {
                marking
                    .update(object.name.as_bytes())
                    .update(&object.place.to_le_bytes());
                add(object, &mut text);
            }
            "index" if is_unique_index(object) => add(object, &mut marking),
            _ => {}
        }
    }
    for object in schema.of(&mark_table(table)) {
        add(object, &mut marking);
    }
    let mut stamp = marking.finalize().as_bytes()[..HALF].to_vec();
    stamp.extend_from_slice(&text.finalize().as_bytes()[..HALF]);
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{capture::install, introspect::introspect};

    #[test]
    fn ca8_triggers_of_the_program_before_marked_every_write() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v)")
            .unwrap();
        let table = introspect(&conn).unwrap().tables.remove(0).table;
        let tables = [table];
        install(&conn, &tables).unwrap();
        let found = || check(&conn, &Objects::read(&conn).unwrap(), &tables).unwrap();
        assert_eq!(found(), [Finding::Intact]);
        for (format, expected) in [
            (FORMAT_BEFORE, Finding::Altered),
            (FORMAT_BEFORE - 1, Finding::Changed),
        ] {
            let stamp = stamp(&Objects::read(&conn).unwrap(), &tables[0], format);
            conn.execute("UPDATE syncline_capture SET stamp = ?1", [stamp])
                .unwrap();
            assert_eq!(found(), [expected]);
        }
    }
}
