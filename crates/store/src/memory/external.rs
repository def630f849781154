//! What another program does to the tables, behind the pipeline's back.

use syncline_core::{Row, RowKey, Table, Value};

use super::{
    data::{Data, violated},
    group::default,
};
use crate::{storage::StorageError, testkit::External};

pub(super) fn execute(data: &mut Data, statement: &External<'_>) -> Result<(), StorageError> {
    match statement {
        External::Insert { table, values } => {
            let table = find(data, table)?;
            let mut row = Row(table.columns.iter().map(default).collect());
            set(&table, &mut row, values)?;
            let row = row.canonical(&table);
            let key = row
                .key(&table)
                .map_err(|error| violated(&table, &error.to_string()))?;
            if data
                .rows
                .get(&table.number)
                .is_some_and(|rows| rows.contains_key(&key))
            {
                return Err(violated(&table, "the key is taken"));
            }
            data.write_marked(table.number, &key, Some(row));
        }
        External::Update {
            table,
            key,
            set: values,
        } => {
            let table = find(data, table)?;
            let (key, row) = present(data, &table, key)?;
            let mut changed = row;
            set(&table, &mut changed, values)?;
            let changed = changed.canonical(&table);
            let new_key = changed
                .key(&table)
                .map_err(|e| violated(&table, &e.to_string()))?;
            if new_key != key {
                data.write_marked(table.number, &key, None);
            }
            data.write_marked(table.number, &new_key, Some(changed));
        }
        External::Delete { table, key } => {
            let table = find(data, table)?;
            let (key, row) = present(data, &table, key)?;
            data.write_marked(table.number, &key, None);
            data.cascade(table.number, &row)?;
        }
    }
    Ok(())
}

fn find(data: &Data, name: &str) -> Result<Table, StorageError> {
    let missing = || StorageError::Corrupt(format!("there is no table {name}"));
    data.schema.table(name).cloned().ok_or_else(missing)
}

fn present(
    data: &Data,
    table: &Table,
    key: &[(&str, Value)],
) -> Result<(RowKey, Row), StorageError> {
    let key = RowKey::encode(key.iter().map(|(_, value)| value));
    let key = key.map_err(|error| violated(table, &error.to_string()))?;
    let row = data
        .rows
        .get(&table.number)
        .and_then(|rows| rows.get(&key))
        .cloned();
    row.map(|row| (key, row))
        .ok_or_else(|| violated(table, "there is no such row"))
}

fn set(table: &Table, row: &mut Row, values: &[(&str, Value)]) -> Result<(), StorageError> {
    for (name, value) in values {
        let missing = || violated(table, &format!("there is no column {name}"));
        let position = table.position(name).ok_or_else(missing)?;
        row.0[position] = value.clone();
    }
    Ok(())
}
