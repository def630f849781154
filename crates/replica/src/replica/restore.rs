//! Writing a row as it was once.

use rusqlite::params_from_iter;
use syncline_core::{ColumnNumber, ColumnType, RowKey, Timestamp, Value, Version};

use super::{Replica, inspect::row_key};
use crate::{
    cipher::Keyring,
    db::Doing as _,
    error::ReplicaError,
    meta::{cursors, outbox},
    rows::{Bind, RowError},
    sql,
    tables::{Remote, SyncedTable},
};

/// A row of this file, and what the server calls its table and columns.
#[derive(Debug, Clone, PartialEq)]
pub struct RowThere {
    /// The server's name of the table.
    pub table: String,
    /// The values of the primary key, canonical, in the order of its columns.
    pub key: Vec<Value>,
    /// In the server's order.
    pub columns: Vec<ColumnThere>,
    keys: Keyring,
}

impl RowThere {
    /// A value that the server has, or had, in one of the columns, as the app has it: opened where
    /// it is sealed. An envelope that cannot be opened stays as it is.
    #[must_use]
    pub fn opened(&self, column: &ColumnThere, value: Value) -> Value {
        let (Some(ty), Ok(key)) = (column.encrypted, RowKey::encode(&self.key)) else {
            return value;
        };
        self.keys
            .opened((&self.table, &column.name), ty, &key, value)
    }
}

/// A column of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnThere {
    pub number: ColumnNumber,
    pub name: String,
    pub ty: ColumnType,
    /// The type of what is sealed in it.
    pub encrypted: Option<ColumnType>,
    /// What this file calls it; `None` if it has no such column.
    pub here: Option<String>,
}

/// What restoring a row came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowRestored {
    /// The row was there no more: it was inserted.
    Inserted,
    /// Columns were set back.
    Updated,
    /// The row is as it was.
    Unchanged,
}

impl Replica {
    /// Names and types of the columns of a table's primary key, in its order.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownTable`].
    pub fn key_columns(&self, table: &str) -> Result<Vec<(String, ColumnType)>, ReplicaError> {
        let table = &self.synced(table)?.table;
        let columns = table.primary_key.iter().map(|&p| &table.columns[p]);
        Ok(columns
            .map(|column| (column.name.clone(), column.ty))
            .collect())
    }

    /// The type of a column; `_owner`, which every row has, is text.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownTable`], [`ReplicaError::UnknownColumn`].
    pub fn column_type(&self, table: &str, column: &str) -> Result<ColumnType, ReplicaError> {
        let table = &self.synced(table)?.table;
        if column.eq_ignore_ascii_case(super::subscribe::OWNER) {
            return Ok(ColumnType::Text);
        }
        let mut columns = table.columns.iter();
        let found = columns.find(|known| known.name.eq_ignore_ascii_case(column));
        found
            .map(|column| column.ty)
            .ok_or_else(|| ReplicaError::UnknownColumn {
                table: table.name.clone(),
                column: column.to_owned(),
            })
    }

    /// What the server calls a row with this key.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownTable`], [`ReplicaError::BadKey`], or [`ReplicaError::TableUnfit`]
    /// if the server does not have the table.
    pub fn row_there(&self, table: &str, key: &[Value]) -> Result<RowThere, ReplicaError> {
        let table = self.synced(table)?;
        let remote = remote(table)?;
        let key = row_key(table, key)?;
        let columns = remote.table.columns.iter().enumerate();
        Ok(RowThere {
            table: remote.table.name.clone(),
            key: decoded(table, &key)?,
            columns: columns
                .map(|(position, column)| ColumnThere {
                    number: column.number,
                    name: column.name.clone(),
                    ty: column.ty,
                    encrypted: column.encrypted,
                    here: here(table, remote, position)
                        .map(|p| table.table.columns[p].name.clone()),
                })
                .collect(),
            keys: table.keys.clone(),
        })
    }

    /// Makes the row with this key what it was: `columns` have the server's numbers, and those
    /// that are not named stay as they are. It is an ordinary change of this device, a changeset of
    /// its own, that is sent, merged and judged like any other; a row that is not there is inserted.
    ///
    /// # Errors
    /// [`ReplicaError::BadRestore`] if the file has no place for a value of it, or a constraint is
    /// in the way; as [`Replica::row_there`]; or the database's. Nothing was changed then.
    pub fn restore_row(
        &mut self,
        table: &str,
        key: &[Value],
        columns: &[(ColumnNumber, Value)],
        now: Timestamp,
    ) -> Result<RowRestored, ReplicaError> {
        self.seal(now)?;
        let table = self.synced(table)?.clone();
        let key = row_key(&table, key)?;
        let values = values_here(&table, &key, columns)?;
        let done = self.write(|conn| {
            let Some(mut row) = table.sql.read(conn, &key)? else {
                insert(conn, &table, &key, &values)?;
                return Ok(RowRestored::Inserted);
            };
            let mut changed = Vec::new();
            for (position, value) in values {
                if row.0[position] != value {
                    row.0[position] = value;
                    changed.push(position);
                }
            }
            if changed.is_empty() {
                return Ok(RowRestored::Unchanged);
            }
            let updated = table.sql.update(conn, &key, &row, &changed);
            updated.map_err(|error| unfit(&table, error))?;
            Ok::<_, ReplicaError>(RowRestored::Updated)
        })?;
        self.seal(now)?;
        if done == RowRestored::Inserted {
            // Else the server would take it for another row whose key was given twice (spec PL18).
            let newest = cursors::newest(&self.conn)?.unwrap_or(Version::ZERO);
            outbox::set_insert_base(&self.conn, table.number(), &key, newest)?;
        }
        self.pump(now)?;
        Ok(done)
    }

    fn synced(&self, table: &str) -> Result<&SyncedTable, ReplicaError> {
        let found = self.tables.named(table).filter(|found| found.is_here);
        found.ok_or_else(|| ReplicaError::UnknownTable {
            name: table.to_owned(),
        })
    }
}

fn remote(table: &SyncedTable) -> Result<&Remote, ReplicaError> {
    table
        .remote
        .as_ref()
        .ok_or_else(|| ReplicaError::TableUnfit {
            table: table.name().to_owned(),
            reason: "the server does not have it, or was not met yet; sync first".to_owned(),
        })
}

/// Our position of the server's column, if the file has it as a column of its own.
fn here(table: &SyncedTable, remote: &Remote, position: usize) -> Option<usize> {
    let local = remote.local_position(position)?;
    (!table.table.columns[local].generated).then_some(local)
}

fn decoded(table: &SyncedTable, key: &RowKey) -> Result<Vec<Value>, ReplicaError> {
    let values = key.decode().map_err(|error| ReplicaError::BadKey {
        table: table.name().to_owned(),
        reason: error.to_string(),
    })?;
    let types = table
        .table
        .primary_key
        .iter()
        .map(|&p| table.table.columns[p].ty);
    let typed = values.into_iter().zip(types);
    Ok(typed.map(|(value, ty)| value.canonical(ty)).collect())
}

fn bad(table: &SyncedTable, reason: impl Into<String>) -> ReplicaError {
    ReplicaError::BadRestore {
        table: table.name().to_owned(),
        reason: reason.into(),
    }
}

/// The values by our positions, without the key's, in order of position.
fn values_here(
    table: &SyncedTable,
    key: &RowKey,
    columns: &[(ColumnNumber, Value)],
) -> Result<Vec<(usize, Value)>, ReplicaError> {
    let remote = remote(table)?;
    let mut values = Vec::new();
    for (number, value) in columns {
        let Some(position) = remote.table.position_of(*number) else {
            let reason = "it has a column that this file has not heard of yet; sync first";
            return Err(bad(table, reason));
        };
        match here(table, remote, position) {
            Some(local) if table.table.is_key(local) => {}
            Some(local) => {
                let (opened, _) = table.opened(key, *number, value);
                let value = opened.map_err(|why| {
                    let name = &table.table.columns[local].name;
                    bad(table, format!("its {name} cannot be read here: {why}"))
                })?;
                let value = value.canonical(table.table.columns[local].ty);
                values.push((local, value));
            }
            None if value.is_null() || remote.table.columns[position].generated => {}
            None => {
                let name = &remote.table.columns[position].name;
                let reason = format!(
                    "its column {name} is not in this file any more; add it, or set the other \
                     columns by hand"
                );
                return Err(bad(table, reason));
            }
        }
    }
    values.sort_by_key(|(position, _)| *position);
    Ok(values)
}

/// Columns without a value get their defaults.
fn insert(
    conn: &rusqlite::Connection,
    table: &SyncedTable,
    key: &RowKey,
    values: &[(usize, Value)],
) -> Result<(), ReplicaError> {
    let structure = &table.table;
    let keys = structure.primary_key.iter().copied();
    let mut row: Vec<(usize, Value)> = keys.zip(decoded(table, key)?).collect();
    row.extend_from_slice(values);
    let text = sql::insert_some(structure, row.iter().map(|(position, _)| *position));
    let values = row.iter().map(|(_, value)| Bind(value));
    match conn.execute(&text, params_from_iter(values)) {
        Ok(_) => Ok(()),
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) =>
        {
            Err(bad(
                table,
                format!("it does not fit beside what is there: {error}"),
            ))
        }
        Err(error) => Err(error).doing("restoring a row"),
    }
}

fn unfit(table: &SyncedTable, error: RowError) -> ReplicaError {
    if error.is_constraint() {
        bad(
            table,
            format!("it does not fit beside what is there: {error}"),
        )
    } else {
        error.into()
    }
}
