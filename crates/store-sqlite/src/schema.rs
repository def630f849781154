//! Bringing the tables to what is declared, and keeping track of what is there.

mod alter;
mod apply;
mod numbers;
mod rebuild;

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::Connection;
use syncline_core::{Table, TableNumber, sql::trigger_events};
use syncline_store::StorageError;

use crate::{
    capture,
    catalog::{Catalog, Child, Entry},
    fault::{Fault, Result},
    introspect::{self, Found},
};

pub(crate) use apply::apply;

/// A number that changes whenever any program changes the schema.
pub(crate) fn version(conn: &Connection) -> Result<i64> {
    Ok(conn
        .prepare_cached("PRAGMA schema_version")?
        .query_row([], |row| row.get(0))?)
}

/// Reads the tables of `old` again after another program changed the schema.
///
/// # Errors
/// When a table lost its triggers or columns: then rows may have changed unseen, and the schema
/// has to be applied again, which compares them.
pub(crate) fn reload(conn: &Connection, old: &Catalog) -> Result<Catalog> {
    let numbers = numbers::Numbers::load(conn)?;
    for entry in old.entries.values() {
        let table = &entry.table;
        let installed = capture::fingerprint(&capture::installed(conn, &table.name)?);
        let expected = numbers
            .by_number(table.number)
            .and_then(|known| known.triggers);
        let found = introspect::find(conn, &table.name)?;
        let has_columns = found.is_some_and(|found| {
            table
                .columns
                .iter()
                // A generated column that the database does not have holds nothing.
                .all(|column| column.generated || found.position(&column.name).is_some())
        });
        if expected != Some(installed) || !has_columns {
            let message = format!(
                "another program changed the table {} so that its changes are not seen any more; \
                 start the server again to take it over",
                table.name
            );
            return Err(Fault::Storage(StorageError::Failed(message.into())));
        }
    }
    catalog(
        conn,
        old.entries
            .values()
            .map(|entry| entry.table.clone())
            .collect(),
    )
}

/// The catalog of these tables as the database has them now.
fn catalog(conn: &Connection, tables: Vec<Table>) -> Result<Catalog> {
    let triggers = app_triggers(conn)?;
    let children = children(conn)?;
    let mut entries: BTreeMap<TableNumber, Arc<Entry>> = BTreeMap::new();
    for table in tables {
        let Some(found) = introspect::find(conn, &table.name)? else {
            return Err(Fault::corrupt(format!(
                "the table {} is missing",
                table.name
            )));
        };
        let name = table.name.to_ascii_lowercase();
        let own = triggers.get(&name).map_or(&[][..], Vec::as_slice);
        let refer = children.get(&name).map_or(&[][..], Vec::as_slice);
        entries.insert(
            table.number,
            Arc::new(Entry::new(table, &found, own, refer)),
        );
    }
    Ok(Catalog {
        entries,
        schema_version: version(conn)?,
    })
}

/// What the apps' own triggers fire on, by lower-case name of the table.
fn app_triggers(conn: &Connection) -> Result<BTreeMap<String, Vec<[bool; 3]>>> {
    let sql = r"SELECT tbl_name, sql FROM sqlite_schema
                WHERE type = 'trigger' AND name NOT LIKE 'syncline\_%' ESCAPE '\'";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut out: BTreeMap<String, Vec<[bool; 3]>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let table: String = row.get(0)?;
        let sql: String = row.get(1)?;
        out.entry(table.to_ascii_lowercase())
            .or_default()
            .push(trigger_events(&sql));
    }
    Ok(out)
}

/// Foreign keys of all tables, synced or not, by lower-case name of the parent.
fn children(conn: &Connection) -> Result<BTreeMap<String, Vec<Child>>> {
    let mut statement =
        conn.prepare_cached("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let names: Vec<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut out: BTreeMap<String, Vec<Child>> = BTreeMap::new();
    for name in names {
        for key in introspect::foreign_keys(conn, &name)? {
            let parent = introspect::find(conn, &key.parent)?;
            let of_key = parent.is_some_and(|parent| references_key(&parent, &key.parent_columns));
            let child = Child {
                on_delete: key.on_delete,
                on_update: (!of_key).then_some(key.on_update),
            };
            out.entry(key.parent.to_ascii_lowercase())
                .or_default()
                .push(child);
        }
    }
    Ok(out)
}

/// Whether the columns are the parent's primary key, which never changes.
fn references_key(parent: &Found, columns: &[String]) -> bool {
    columns.is_empty()
        || columns.iter().all(|name| {
            parent
                .position(name)
                .is_some_and(|position| parent.key.contains(&position))
        })
}
