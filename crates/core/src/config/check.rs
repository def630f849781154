//! What a table must be to sync, and what tables must be to each other.

use std::ops::Range;

use super::{
    Renamed,
    column::ColumnText,
    error::Mistakes,
    keys::{Keys, Texts, joined},
    nearest::{nearest, one_of},
    table::TableText,
};
use crate::schema::{ColumnType, ForeignKey, OnDelete, Schema, Table};

/// SQLite's limit, unless somebody compiled another one in.
const COLUMNS_MAX: usize = 2000;

/// Whether a table may be called `name` beside those read before it.
pub(super) fn table_name(name: &str, at: usize, schema: &Schema, m: &mut Mistakes) -> bool {
    let lower = name.to_ascii_lowercase();
    let (what, expected, suggestion) = if name.trim().is_empty() || name.contains('\0') {
        ("has no name", "a name", "write [tables.name]")
    } else if lower.starts_with("syncline_") || lower.starts_with("sqlite_") {
        (
            "has a reserved name",
            "a table of an app",
            "take it out, or rename the table",
        )
    } else if schema.table(name).is_some() {
        (
            "is there already: SQL does not tell upper from lower case",
            "each table once",
            "keep one of the two",
        )
    } else {
        return true;
    };
    m.add(at, format!("tables.{name} {what}"), expected, suggestion);
    false
}

/// Whether a column may be called `name` beside those read before it.
pub(super) fn column_name(name: &str, at: usize, table: &Table, m: &mut Mistakes) -> bool {
    let path = format!("tables.{}.columns.{name}", table.name);
    if name.trim().is_empty() || name.contains('\0') {
        m.add(
            at,
            format!("{path} has no name"),
            "a name",
            "write name = \"text\"",
        );
    } else if table.position(name).is_some() {
        m.add(
            at,
            format!("{path} is there already: SQL does not tell upper from lower case"),
            "each column once",
            "keep one of the two",
        );
    } else if table.columns.len() >= COLUMNS_MAX {
        let message = format!("tables.{} has more than {COLUMNS_MAX} columns", table.name);
        m.add(
            at,
            message,
            format!("at most {COLUMNS_MAX}"),
            "move some to another table",
        );
    } else {
        return true;
    }
    false
}

/// The name of a column as it is declared. A table without columns takes every name.
pub(super) fn known_column(
    table: &Table,
    name: &str,
    path: &str,
    at: usize,
    m: &mut Mistakes,
) -> Option<String> {
    if table.columns.is_empty() {
        return Some(name.to_owned());
    }
    if let Some(position) = table.position(name) {
        return Some(table.columns[position].name.clone());
    }
    let names = || table.columns.iter().map(|column| column.name.as_str());
    let suggestion = match nearest(name, names()) {
        Some(meant) => format!("write `{meant}`"),
        None => "add the column, or take this out".to_owned(),
    };
    m.add(
        at,
        format!("{path}: no column `{name}`"),
        one_of(names()),
        suggestion,
    );
    None
}

/// The positions of named columns, each once.
pub(super) fn positions(
    table: &Table,
    names: &[(&str, Range<usize>)],
    path: &str,
    at: usize,
    m: &mut Mistakes,
) -> Option<Vec<usize>> {
    if names.is_empty() {
        m.add(
            at,
            format!("{path} names no column"),
            "names of columns",
            "take it out",
        );
        return None;
    }
    let mut positions = Vec::new();
    for (name, span) in names {
        known_column(table, name, path, span.start, m)?;
        let position = table.position(name)?;
        if positions.contains(&position) {
            m.add(
                span.start,
                format!("{path} names `{name}` twice"),
                "each column once",
                "take one out",
            );
            return None;
        }
        positions.push(position);
    }
    Some(positions)
}

/// Finds the primary key, in the columns or in the key `primary_key`.
pub(super) fn primary_key(
    table: &mut Table,
    texts: &[(ColumnText, Range<usize>)],
    is_known: bool,
    keys: &mut Keys<'_, '_>,
    at: usize,
    m: &mut Mistakes,
) {
    let in_columns: Vec<_> = (0..texts.len())
        .filter(|&position| texts[position].0.primary_key)
        .collect();
    let path = keys.path("primary_key");
    let list_at = keys.take("primary_key");
    let list: Option<Texts<'_>> = list_at.and_then(|(_, node)| super::keys::texts(node, &path, m));
    let names = |positions: &[usize]| {
        let names = positions
            .iter()
            .map(|&p| super::keys::quoted(&table.columns[p].name));
        names.collect::<Vec<_>>().join(", ")
    };
    match (&in_columns[..], list, list_at) {
        (_, None, Some(_)) => {}
        ([], Some(list), Some((_, node))) => {
            if let Some(found) = positions(table, &list, &path, node.span().start, m) {
                table.primary_key = found;
            }
        }
        ([first, ..], Some(_), _) => m.add(
            texts[*first].1.start,
            format!("tables.{} has two primary keys", table.name),
            "the key in one place",
            "take `primary key` out of the column, or take out `primary_key`",
        ),
        // It may have been in a column that could not be read.
        ([], ..) if !is_known || texts.iter().any(|(text, _)| text.ty.is_none()) => {}
        ([], ..) => m.add(
            at,
            format!("tables.{} has no primary key", table.name),
            "a primary key: it is how devices know that they mean the same row",
            "write id = \"uuid primary key\", or primary_key = [\"a\", \"b\"] for several columns",
        ),
        ([only], ..) => table.primary_key = vec![*only],
        ([_, second, ..], ..) => m.add(
            texts[*second].1.start,
            format!(
                "tables.{} has `primary key` on {} columns",
                table.name,
                in_columns.len()
            ),
            "one",
            format!(
                "take it out of both and write primary_key = [{}]",
                names(&in_columns)
            ),
        ),
    }
    for &position in &table.primary_key {
        table.columns[position].not_null = true;
    }
}

/// What a column's text says that does not go together.
pub(super) fn columns(table: &mut Table, texts: &[(ColumnText, Range<usize>)], m: &mut Mistakes) {
    for (position, (text, span)) in texts.iter().enumerate() {
        let column = &table.columns[position];
        let path = format!("tables.{}.columns.{}", table.name, column.name);
        let is_key = table.primary_key.contains(&position);
        let mut mistake = |message: &str, expected: &str, suggestion: &str| {
            m.add(
                span.start,
                format!("{path} {message}"),
                expected,
                suggestion,
            );
        };
        if text.null && is_key {
            mistake(
                "is a key and may be NULL",
                "a key that every row has",
                "take out `null`: two rows without a key could not be told apart",
            );
        }
        if text.null && text.not_null {
            mistake("is `null` and `not null`", "one of the two", "take one out");
        }
        if text.generated && is_key {
            mistake(
                "is a key and generated",
                "a key that the app gives",
                "take out `generated`: generated columns do not travel",
            );
        }
        if text.autoincrement {
            if column.ty == ColumnType::Integer {
                table.autoincrement = true;
            } else {
                mistake(
                    "is `autoincrement` and no integer",
                    "`integer primary key autoincrement`",
                    "make it an integer, or take out `autoincrement`",
                );
            }
        }
        let on_delete = text
            .references
            .as_ref()
            .map(|reference| reference.on_delete);
        if on_delete == Some(OnDelete::SetNull) && (text.not_null || is_key) {
            mistake(
                "is `not null` and `on delete set null`",
                "a column that may be NULL",
                "take out `not null`, or write `on delete cascade`",
            );
        }
    }
}

/// References to tables and columns that are there.
pub(super) fn references(schema: &Schema, texts: &[TableText], m: &mut Mistakes) {
    for (table, text) in schema.tables.iter().zip(texts) {
        for (key, &at) in table.foreign_keys.iter().zip(&text.references) {
            reference(schema, table, key, at, m);
        }
    }
}

fn reference(schema: &Schema, table: &Table, key: &ForeignKey, at: usize, m: &mut Mistakes) {
    let path = format!("tables.{}", table.name);
    let Some(parent) = schema.table(&key.parent) else {
        let names = schema.tables.iter().map(|table| table.name.as_str());
        let suggestion = match nearest(&key.parent, names) {
            Some(meant) => format!("write `references {meant}`"),
            None => format!("add [tables.{}], or take the reference out", key.parent),
        };
        let message = format!("{path}: reference to the unknown table `{}`", key.parent);
        m.add(at, message, "a table of this file", suggestion);
        return;
    };
    // A table without columns is as the database has it: the server sees whether this fits.
    if parent.columns.is_empty() || parent.primary_key.is_empty() {
        return;
    }
    let mut positions = Vec::new();
    for name in &key.parent_columns {
        match parent.position(name) {
            Some(position) => positions.push(position),
            None => {
                let names = || parent.columns.iter().map(|column| column.name.as_str());
                let suggestion = match nearest(name, names()) {
                    Some(meant) => format!("write `references {} ({meant})`", parent.name),
                    None => format!("write `references {}` for its primary key", parent.name),
                };
                let message = format!("{path}: {} has no column `{name}`", parent.name);
                m.add(at, message, one_of(names()), suggestion);
                return;
            }
        }
    }
    if positions.is_empty() {
        positions.clone_from(&parent.primary_key);
    }
    if positions.len() != key.columns.len() {
        m.add(
            at,
            format!(
                "{path}: the reference is of {}, what it refers to in {} of {}",
                key.columns.len(),
                parent.name,
                positions.len(),
            ),
            "as many columns on both sides",
            "write foreign_keys = [\"(a, b) references parent (x, y)\"]",
        );
        return;
    }
    let same = |list: &[usize]| {
        list.len() == positions.len() && positions.iter().all(|position| list.contains(position))
    };
    if !same(&parent.primary_key) && !parent.uniques.iter().any(|unique| same(unique)) {
        m.add(
            at,
            format!("{path}: what it refers to in {} is not unique", parent.name),
            "the parent's primary key or a unique column",
            format!(
                "write `references {}`, or make the column there `unique`",
                parent.name
            ),
        );
    }
}

/// Renames from names that are free, to names that are there.
pub(super) fn renames(schema: &Schema, texts: &[TableText], m: &mut Mistakes) {
    for (
        Renamed {
            table,
            column,
            from,
        },
        at,
    ) in texts.iter().flat_map(|text| &text.renamed)
    {
        let path = joined("tables", table);
        let present = match column {
            None => schema.table(from).is_some(),
            Some(_) => schema
                .table(table)
                .is_some_and(|table| table.position(from).is_some()),
        };
        if from.trim().is_empty() {
            m.add(
                *at,
                format!("{path} was renamed from nothing"),
                "the old name",
                "write it",
            );
        } else if present {
            m.add(
                *at,
                format!("{path}: `{from}` was renamed and is still there"),
                "an old name that is gone",
                "take out the rename, or what still has the old name",
            );
        }
    }
}
