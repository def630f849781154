//! Puts capture into a file and takes it out again.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_core::{ColumnNumber, Table, TableNumber};

use super::{
    stamp,
    triggers::{Plan, mark_column, mark_table},
};
use crate::{introspect::shape::Shape, objects::Objects, rows::RowError, sql::quoted};

/// Why capture could not be put in, taken out or read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("{doing}")]
    Database {
        doing: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    /// A trigger for this table could not be made.
    #[error("capture table {table}")]
    Table {
        table: String,
        #[source]
        source: rusqlite::Error,
    },
    /// A row of the app's could not be read.
    #[error("{doing}")]
    Rows {
        doing: &'static str,
        #[source]
        source: Box<RowError>,
    },
    #[error("the database has no table {table} any more; leave it out, or create it")]
    TableGone { table: String },
    #[error("table {table} has no column {column} any more; leave it out, or add it")]
    ColumnGone { table: String, column: String },
    #[error("table {table} has another primary key here than in the schema that syncs")]
    OtherKey { table: String },
}

/// To be used as `map_err(database("open the file"))`.
pub(super) fn database(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> CaptureError {
    move |source| CaptureError::Database { doing, source }
}

/// The one row (transaction number, marks made since the last sealing), the numbers whose
/// transactions nobody closed, and what was installed for each table.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS syncline_tx(n INTEGER NOT NULL, touched INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS syncline_unmarked(n INTEGER PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS syncline_capture(
        table_no INTEGER PRIMARY KEY, name TEXT NOT NULL, stamp BLOB NOT NULL);
    INSERT INTO syncline_tx SELECT 1, 0 WHERE NOT EXISTS (SELECT 1 FROM syncline_tx);
    DELETE FROM syncline_tx WHERE rowid > (SELECT min(rowid) FROM syncline_tx);";

/// Captures these tables from now on. Whatever was installed for them before is replaced, and
/// their marks are gone: [`take_drafts`](super::take_drafts) first.
///
/// Runs in the caller's transaction. Every column of `tables` that is not generated must exist.
///
/// # Errors
/// [`CaptureError`]; the caller rolls back.
pub fn install(conn: &Connection, tables: &[Table]) -> Result<(), CaptureError> {
    make_tables(conn)?;
    if tables.is_empty() && stamp::has_last(conn)? {
        // Whoever has the schema in memory would have to read it again.
        return Ok(());
    }
    let schema = Objects::read(conn).map_err(database("read the schema"))?;
    for table in tables {
        let shape = Shape::of(conn, &schema, &table.name)
            .map_err(database("read the table's shape"))?
            .ok_or_else(|| CaptureError::TableGone {
                table: table.name.clone(),
            })?;
        verify(table, &shape)?;
        uninstall_table(conn, table.number)?;
        let plan = Plan::new(table, &shape);
        for object in plan.storage().into_iter().chain(plan.triggers()) {
            conn.execute_batch(&object.sql)
                .map_err(|source| CaptureError::Table {
                    table: table.name.clone(),
                    source,
                })?;
        }
    }
    stamp::put_last(conn)?;
    stamp::record(conn, tables)
}

/// The positions of columns that are to be captured and are not as it is installed: the app
/// added them since. None where nothing is installed.
///
/// # Errors
/// The database's.
pub fn uncaptured(conn: &Connection, table: &Table) -> Result<Vec<usize>, CaptureError> {
    let doing = "read which columns are captured";
    let captured = conn
        .prepare_cached("SELECT name FROM pragma_table_info(?1, 'main')")
        .and_then(|mut statement| {
            let names = statement.query_map([mark_table(table)], |row| row.get(0))?;
            names.collect::<rusqlite::Result<Vec<String>>>()
        })
        .map_err(database(doing))?;
    if captured.is_empty() {
        return Ok(Vec::new());
    }
    let is_new =
        |&p: &usize| !table.columns[p].generated && !captured.contains(&mark_column(table, p));
    Ok((0..table.columns.len()).filter(is_new).collect())
}

/// Numbers of the columns that marks of the table with this number hold; `None` if it is not
/// captured.
pub(crate) fn captured_columns(
    conn: &Connection,
    number: TableNumber,
) -> Result<Option<BTreeSet<ColumnNumber>>, CaptureError> {
    let doing = "read which columns are captured";
    let mut statement = conn
        .prepare_cached("SELECT name FROM pragma_table_info(?1, 'main')")
        .map_err(database(doing))?;
    let names: Vec<String> = statement
        .query_map([format!("syncline_mark_{}", number.0)], |row| row.get(0))
        .and_then(Iterator::collect)
        .map_err(database(doing))?;
    let of_name = |name: &String| name.strip_prefix('c')?.parse().ok().map(ColumnNumber);
    Ok((!names.is_empty()).then(|| names.iter().filter_map(of_name).collect()))
}

/// Makes what is missing of the tables that all captured tables share.
pub(super) fn make_tables(conn: &Connection) -> Result<(), CaptureError> {
    conn.execute_batch(TABLES)
        .map_err(database("create the tables of capture"))
}

/// Captures the table with this number no longer; its marks are gone. The table itself may be.
///
/// # Errors
/// The database's.
pub fn uninstall_table(conn: &Connection, number: TableNumber) -> Result<(), CaptureError> {
    let prefix = format!("syncline_{}_", number.0);
    drop_objects(conn, |kind, name| {
        kind == "trigger" && name.starts_with(&prefix)
    })?;
    let doing = "take capture of a table out";
    conn.execute_batch(&format!("DROP TABLE IF EXISTS syncline_mark_{}", number.0))
        .map_err(database(doing))?;
    conn.execute(
        "DELETE FROM syncline_capture WHERE table_no = ?1",
        [number.0],
    )
    .map_err(database(doing))?;
    Ok(())
}

/// Removes every object whose name begins with `syncline_`, capture or not. The schema of the
/// file is then byte for byte what it was before [`install`].
///
/// # Errors
/// The database's.
pub fn remove_everything(conn: &Connection) -> Result<(), CaptureError> {
    // Triggers and views first: what they name must exist when a table goes.
    for wanted in ["trigger", "view", "table"] {
        drop_objects(conn, |kind, name| {
            kind == wanted && name.starts_with("syncline_")
        })?;
    }
    Ok(())
}

fn drop_objects(
    conn: &Connection,
    wanted: impl Fn(&str, &str) -> bool,
) -> Result<(), CaptureError> {
    let doing = "list the schema";
    let mut statement = conn
        .prepare_cached(
            "SELECT type, name FROM sqlite_schema WHERE name LIKE 'syncline\\_%' ESCAPE '\\'",
        )
        .map_err(database(doing))?;
    let found = statement
        .query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(database(doing))?;
    drop(statement);
    for (kind, name) in found.iter().filter(|(kind, name)| wanted(kind, name)) {
        let sql = format!("DROP {} {}", kind.to_ascii_uppercase(), quoted(name));
        conn.execute_batch(&sql)
            .map_err(database("drop an object of Syncline's"))?;
    }
    Ok(())
}

fn verify(table: &Table, shape: &Shape) -> Result<(), CaptureError> {
    for column in table.columns.iter().filter(|column| !column.generated) {
        if shape.position(&column.name).is_none() {
            let (table, column) = (table.name.clone(), column.name.clone());
            return Err(CaptureError::ColumnGone { table, column });
        }
    }
    let mut expected: Vec<Option<usize>> = table
        .primary_key
        .iter()
        .map(|&p| shape.position(&table.columns[p].name))
        .collect();
    let mut local: Vec<Option<usize>> = shape.primary_key.iter().copied().map(Some).collect();
    expected.sort_unstable();
    local.sort_unstable();
    if expected == local {
        Ok(())
    } else {
        Err(CaptureError::OtherKey {
            table: table.name.clone(),
        })
    }
}

/// Whether the mark table of `table` exists.
pub(super) fn is_installed(conn: &Connection, table: &Table) -> rusqlite::Result<bool> {
    exists(conn, &mark_table(table))
}

/// Whether there is a table of this name. To be asked in a transaction that has read: SQLite then
/// knows the schema as it is, and nobody has to look through `sqlite_schema` for each table.
pub(super) fn exists(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    conn.table_exists(Some("main"), table)
}
