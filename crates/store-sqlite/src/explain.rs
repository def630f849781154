//! Constraint errors in words that name only what the writer sent: tables and columns, never
//! values of rows that somebody else may not see.

use rusqlite::{Connection, Error, ffi};
use syncline_core::{RowKey, Table, TableNumber, sql::quote};
use syncline_store::StorageError;

use crate::{catalog::Catalog, fault::Fault, introspect};

/// What a failed write of a row of `table` is to the pipeline.
pub(crate) fn constraint(conn: &Connection, table: &Table, fault: Fault) -> StorageError {
    if matches!(fault, Fault::Expression) {
        let name = &table.name;
        return StorageError::Constraint {
            message: format!("{name}: an expression of the table cannot be computed for this row"),
            table: Some(name.clone()),
        };
    }
    let Fault::Sqlite(Error::SqliteFailure(code, ref text)) = fault else {
        return fault.into();
    };
    let text = text.as_deref().unwrap_or_default();
    let name = &table.name;
    let detail = text.split_once("failed: ").map_or("", |(_, detail)| detail);
    let message = match code.extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => match columns(table, detail) {
            Some(columns) => format!("another row of {name} has the same {columns}"),
            None if detail.starts_with("index ") => {
                format!("another row of {name} has the same value in a unique index")
            }
            None => elsewhere(name),
        },
        ffi::SQLITE_CONSTRAINT_NOTNULL => match columns(table, detail) {
            Some(column) => format!("{name}.{column} must not be NULL"),
            None => elsewhere(name),
        },
        ffi::SQLITE_CONSTRAINT_CHECK => format!("{name}: the check {detail} does not hold"),
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => {
            format!("{name}: a reference between rows would be broken")
        }
        ffi::SQLITE_CONSTRAINT_DATATYPE | ffi::SQLITE_MISMATCH => {
            format!("{name}: a value does not have the type of its column")
        }
        ffi::SQLITE_TOOBIG => format!("{name}: the row is too large for the database"),
        ffi::SQLITE_CONSTRAINT_TRIGGER if is_said_by_a_trigger(conn, text) => {
            format!("{name}: {text}")
        }
        ffi::SQLITE_CONSTRAINT_TRIGGER => format!("a trigger of {name} refuses the row"),
        other if other & 0xFF == ffi::SQLITE_CONSTRAINT => elsewhere(name),
        _ => return fault.into(),
    };
    StorageError::Constraint {
        message,
        table: Some(name.clone()),
    }
}

fn elsewhere(table: &str) -> String {
    format!("{table}: storing the row breaks a constraint of the database")
}

/// The columns in `table.a, table.b`; `None` unless all are of this table.
fn columns(table: &Table, detail: &str) -> Option<String> {
    let names = detail.split(", ").map(|item| {
        let column = item.strip_prefix(table.name.as_str())?.strip_prefix('.')?;
        table.position(column).map(|_| column)
    });
    Some(names.collect::<Option<Vec<_>>>()?.join(", "))
}

/// A message that stands literally in a trigger was written for people; one that is computed
/// might contain anything.
fn is_said_by_a_trigger(conn: &Connection, message: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema
               WHERE type = 'trigger' AND instr(sql, ?1) > 0)";
    let literal = format!("'{}'", message.replace('\'', "''"));
    conn.query_row(sql, [literal], |row| row.get(0))
        .unwrap_or(false)
}

/// Why a commit failed on a deferred foreign key: looks at the rows that were written.
///
/// The transaction is still open.
pub(crate) fn broken_reference(
    conn: &Connection,
    catalog: &Catalog,
    written: &[&(TableNumber, RowKey)],
) -> StorageError {
    let mut deleted = None;
    for (number, key) in written.iter().copied() {
        let Some(entry) = catalog.entries.get(number) else {
            continue;
        };
        let Ok(Some(row)) = entry.read(conn, key) else {
            deleted = deleted.or(Some(&entry.table.name));
            continue;
        };
        for foreign in &entry.table.foreign_keys {
            let values: Vec<_> = foreign.columns.iter().map(|&p| &row.0[p]).collect();
            if values.iter().any(|value| value.is_null()) {
                continue;
            }
            let found = parent_exists(conn, &foreign.parent, &foreign.parent_columns, &values);
            if found == Some(false) {
                let columns: Vec<_> = foreign
                    .columns
                    .iter()
                    .map(|&p| entry.table.columns[p].name.as_str())
                    .collect();
                let message = format!(
                    "{}.{} refers to a row of {} that does not exist",
                    entry.table.name,
                    columns.join(", "),
                    foreign.parent
                );
                return StorageError::Constraint {
                    message,
                    table: Some(entry.table.name.clone()),
                };
            }
        }
    }
    StorageError::Constraint {
        message: match deleted {
            Some(table) => format!("other rows still refer to a row of {table} that is deleted"),
            None => "a reference between rows would be broken".into(),
        },
        table: deleted.cloned(),
    }
}

/// `None` when that cannot be told.
fn parent_exists(
    conn: &Connection,
    parent: &str,
    columns: &[String],
    values: &[&syncline_core::Value],
) -> Option<bool> {
    let found = introspect::find(conn, parent).ok()??;
    let of_key = found.key.iter().map(|&p| found.columns[p].name.clone());
    let columns: Vec<String> = if columns.is_empty() {
        of_key.collect()
    } else {
        columns.to_vec()
    };
    let conditions: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(i, column)| format!("{} = ?{}", quote(column), i + 1))
        .collect();
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {} WHERE {})",
        quote(parent),
        conditions.join(" AND ")
    );
    let bound = values.iter().map(|value| crate::value::Bind(value));
    conn.query_row(&sql, rusqlite::params_from_iter(bound), |row| row.get(0))
        .ok()
}
