//! Notices that the schema changed under capture (spec CA8).
//!
//! For each table a hash is kept of everything that decides whether a write was marked: the text
//! of the table, its unique indexes and our triggers, where the table's tree begins, and where in
//! `sqlite_schema` our triggers stand. A migration tool may drop a table and its triggers, write,
//! and create them again with the same text; but objects made again stand in another place,
//! because one view, `syncline_last`, was made after all of ours and keeps theirs from being the
//! last. (VACUUM moves everything: then the rows are compared once for nothing.)

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension as _, params};
use syncline_core::Table;

use super::{
    install::{CaptureError, database},
    triggers::mark_table,
};

/// Raised when other triggers are installed for the same schema.
const FORMAT: u8 = 2;
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
/// Reads `sqlite_schema` once. As long as [`schema_version`] stays the same, so does the answer.
///
/// # Errors
/// The database's.
pub fn check(conn: &Connection, tables: &[Table]) -> Result<Vec<Finding>, CaptureError> {
    let doing = "compare the schema with what was installed";
    let schema = Objects::read(conn).map_err(database(doing))?;
    let ours = ["syncline_tx", "syncline_unmarked", "syncline_capture"];
    let complete = ours.iter().all(|name| schema.has_table(name))
        && conn
            .query_row("SELECT count(*) = 1 FROM syncline_tx", [], |row| row.get(0))
            .map_err(database(doing))?;
    tables
        .iter()
        .map(|table| {
            if !schema.has_table(&table.name) {
                return Ok(Finding::Gone);
            }
            if !complete {
                return Ok(Finding::Changed);
            }
            let installed: Option<Vec<u8>> = conn
                .prepare_cached("SELECT stamp FROM syncline_capture WHERE table_no = ?1")
                .and_then(|mut s| s.query_row([table.number.0], |row| row.get(0)).optional())
                .map_err(database(doing))?;
            let stamp = schema.stamp(table);
            let half = |stamp: &[u8]| stamp.get(..HALF).map(<[u8]>::to_vec);
            Ok(match installed {
                Some(installed) if installed == stamp => Finding::Intact,
                Some(installed) if half(&installed) == half(&stamp) => Finding::Altered,
                Some(_) | None => Finding::Changed,
            })
        })
        .collect()
}

/// Names, in lower case, of captured tables that were dropped since [`install`](super::install()),
/// whether another table has the name now or not: our triggers went along, and were made anew
/// behind `syncline_last` if at all. Dropping a table changes rows that refer to it.
///
/// # Errors
/// The database's.
pub fn dropped(conn: &Connection) -> Result<BTreeSet<String>, CaptureError> {
    let doing = "look for tables that were dropped";
    let schema = Objects::read(conn).map_err(database(doing))?;
    if !schema.has_table("syncline_capture") {
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
            params![table.number.0, table.name, schema.stamp(table)],
        )
        .map_err(database(doing))?;
    }
    Ok(())
}

/// The objects of the schema by the table they belong to, in lower case.
struct Objects(BTreeMap<String, Vec<Object>>);

struct Object {
    kind: String,
    name: String,
    sql: String,
    root_page: i64,
    place: i64,
}

impl Object {
    /// Others evict no row. The indexes that SQLite makes for constraints have no text.
    fn is_unique_index(&self) -> bool {
        !self.sql.starts_with("CREATE INDEX")
    }

    fn add(&self, hash: &mut blake3::Hasher, place: i64) {
        for part in [&self.kind, &self.name, &self.sql] {
            hash.update(&(part.len() as u64).to_le_bytes())
                .update(part.as_bytes());
        }
        hash.update(&place.to_le_bytes());
    }
}

impl Objects {
    fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut statement = conn.prepare(
            "SELECT tbl_name, type, name, ifnull(sql, ''), ifnull(rootpage, 0), rowid \
             FROM sqlite_schema ORDER BY name",
        )?;
        let mut rows = statement.query([])?;
        let mut objects: BTreeMap<String, Vec<Object>> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let table: String = row.get(0)?;
            objects
                .entry(table.to_ascii_lowercase())
                .or_default()
                .push(Object {
                    kind: row.get(1)?,
                    name: row.get(2)?,
                    sql: row.get(3)?,
                    root_page: row.get(4)?,
                    place: row.get(5)?,
                });
        }
        Ok(Self(objects))
    }

    fn of(&self, table: &str) -> &[Object] {
        self.0
            .get(&table.to_ascii_lowercase())
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    fn has_table(&self, name: &str) -> bool {
        self.of(name).iter().any(|object| object.kind == "table")
    }

    /// Triggers whose names begin so, on any table.
    fn triggers<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Object> {
        let all = self.0.values().flatten();
        all.filter(move |object| object.kind == "trigger" && object.name.starts_with(prefix))
    }

    /// Half of it says whether writes were marked, the other what the table is.
    fn stamp(&self, table: &Table) -> Vec<u8> {
        let (mut marking, mut text) = (blake3::Hasher::new(), blake3::Hasher::new());
        marking.update(&[FORMAT]);
        for column in table.columns.iter().filter(|column| !column.generated) {
            text.update(&column.number.0.to_le_bytes());
            text.update(column.name.to_ascii_lowercase().as_bytes())
                .update(&[0]);
        }
        let ours = format!("syncline_{}_", table.number.0);
        for object in self.of(&table.name) {
            match object.kind.as_str() {
                "table" => {
                    marking.update(&object.root_page.to_le_bytes());
                    object.add(&mut text, 0);
                }
                // ALTER TABLE writes new names into them; whoever makes them again puts them
                // elsewhere.
                "trigger" if object.name.starts_with(&ours) => {
                    marking
                        .update(object.name.as_bytes())
                        .update(&object.place.to_le_bytes());
                    object.add(&mut text, 0);
                }
                "index" if object.is_unique_index() => object.add(&mut marking, 0),
                _ => {}
            }
        }
        for object in self.of(&mark_table(table)) {
            object.add(&mut marking, 0);
        }
        let mut stamp = marking.finalize().as_bytes()[..HALF].to_vec();
        stamp.extend_from_slice(&text.finalize().as_bytes()[..HALF]);
        stamp
    }
}
