//! Declared tables become maps; numbers are given once and for ever.

use std::collections::BTreeMap;

use syncline_core::{
    ColumnNumber, Row, Schema, Table, TableNumber,
    builtin::{FIRST_OWN, conflicts_table},
    config::{Config, Renamed},
};

use super::{data::Data, group::default};
use crate::storage::{SchemaError, SchemaOptions, SchemaReport};

pub(super) fn apply(
    data: &mut Data,
    config: &Config,
    options: &SchemaOptions,
) -> Result<SchemaReport, SchemaError> {
    let mut notes = Vec::new();
    let mut schema = Schema {
        tables: vec![conflicts_table()],
    };
    for declared in &config.schema.tables {
        let old = before(&data.schema, declared, &config.renamed);
        let old = old.filter(|old| old.number >= FIRST_OWN).cloned();
        if old.is_none() && !options.managed {
            let what = format!("table {} does not exist", declared.name);
            return Err(SchemaError::Unsupported(what));
        }
        let table = number(data, declared, old.as_ref(), &config.renamed);
        match old {
            None => notes.push(format!("created table {}", table.name)),
            Some(old) => alter(data, &old, &table, options, &mut notes)?,
        }
        schema.tables.push(table);
    }
    let gone = data
        .schema
        .tables
        .iter()
        .filter(|old| schema.by_number(old.number).is_none());
    for old in gone.cloned().collect::<Vec<_>>() {
        permit(
            options,
            &format!("table {}", old.name),
            &format!("drop:{}", old.name),
        )?;
        data.rows.remove(&old.number);
        data.metas.remove(&old.number);
        notes.push(format!("dropped table {}", old.name));
    }
    schema.tables.sort_by_key(|table| table.number);
    data.schema = schema.clone();
    mark_unknown(data);
    Ok(SchemaReport {
        schema,
        notes,
        rules: data.rules,
    })
}

/// The table as it was, under its present name or the one it is renamed from.
fn before<'a>(schema: &'a Schema, table: &Table, renamed: &[Renamed]) -> Option<&'a Table> {
    let renamed = renamed
        .iter()
        .find(|r| r.table == table.name && r.column.is_none());
    let from = renamed.and_then(|renamed| schema.table(&renamed.from));
    schema.table(&table.name).or(from)
}

/// The declared table with the numbers of the one before, and new ones for what is new.
fn number(data: &mut Data, declared: &Table, old: Option<&Table>, renamed: &[Renamed]) -> Table {
    let mut table = declared.clone();
    table.number = old.map_or_else(
        || {
            data.last_table = (data.last_table + 1).max(FIRST_OWN.0);
            TableNumber(data.last_table)
        },
        |old| old.number,
    );
    let last = data.last_columns.entry(table.number).or_default();
    for column in &mut table.columns {
        let from = renamed.iter().find(|r| {
            r.table == declared.name && r.column.as_deref() == Some(column.name.as_str())
        });
        let position = old.and_then(|old| {
            old.position(&column.name)
                .or_else(|| old.position(&from?.from))
        });
        column.number = match (old, position) {
            (Some(old), Some(position)) => old.columns[position].number,
            _ => {
                *last += 1;
                ColumnNumber(*last)
            }
        };
    }
    table
}

fn alter(
    data: &mut Data,
    old: &Table,
    table: &Table,
    options: &SchemaOptions,
    notes: &mut Vec<String>,
) -> Result<(), SchemaError> {
    let key = |table: &Table| -> Vec<ColumnNumber> {
        table
            .primary_key
            .iter()
            .map(|&i| table.columns[i].number)
            .collect()
    };
    if key(old) != key(table) {
        return Err(SchemaError::Unsupported(format!(
            "the key of {} changes",
            table.name
        )));
    }
    if old.name != table.name {
        notes.push(format!("renamed table {} to {}", old.name, table.name));
    }
    for column in &old.columns {
        if table.position_of(column.number).is_none() {
            let (what, allow) = (
                format!("column {}.{}", old.name, column.name),
                format!("drop:{}.{}", old.name, column.name),
            );
            permit(options, &what, &allow)?;
            notes.push(format!("dropped {what}"));
        }
    }
    let rows = data.rows.entry(table.number).or_default();
    for column in &table.columns {
        let added = old.position_of(column.number).is_none();
        if added && column.not_null && column.default.is_none() && !rows.is_empty() {
            let what = format!("column {}.{} may not be NULL", table.name, column.name);
            return Err(SchemaError::Unsupported(format!(
                "{what} and has no default"
            )));
        }
        if added {
            notes.push(format!("added column {}.{}", table.name, column.name));
        }
    }
    for row in rows.values_mut() {
        let values = table
            .columns
            .iter()
            .map(|column| match old.position_of(column.number) {
                Some(position) => row.0[position].clone(),
                None => default(column),
            });
        *row = Row(values.collect());
    }
    Ok(())
}

fn permit(options: &SchemaOptions, what: &str, allow: &str) -> Result<(), SchemaError> {
    if options.managed && options.allow.iter().any(|allowed| allowed == allow) {
        return Ok(());
    }
    Err(SchemaError::Destructive {
        what: format!("dropping {what}"),
        allow: allow.to_owned(),
    })
}

/// Rows that the log does not know yet count as inserted by another program.
fn mark_unknown(data: &mut Data) {
    let empty = BTreeMap::new();
    let mut unknown = Vec::new();
    for (table, rows) in &data.rows {
        let metas = data.metas.get(table).unwrap_or(&empty);
        let new = rows.keys().filter(|key| !metas.contains_key(key));
        unknown.extend(new.map(|key| (*table, key.clone())));
    }
    for row in unknown {
        data.marks.entry(row).or_insert(None);
    }
}
