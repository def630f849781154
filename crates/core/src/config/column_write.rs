//! A column's text again, from the column.

use super::column;
use crate::{
    schema::{Column, ForeignKey, OnDelete, Table},
    sql::without_comments,
};

/// What the file says of the column at `position`; its reference, where it has one of its own.
pub(super) fn column_text(
    table: &Table,
    position: usize,
    reference: Option<&ForeignKey>,
) -> String {
    let Column {
        ty,
        encrypted,
        not_null,
        default,
        check,
        collate,
        generated,
        computed,
        declared,
        ..
    } = &table.columns[position];
    let mut out = encrypted.unwrap_or(*ty).as_str().to_owned();
    let mut add = |text: &str| {
        out.push(' ');
        out.push_str(text);
    };
    let alone = table.primary_key == [position];
    if alone {
        add(if table.autoincrement {
            "primary key autoincrement"
        } else {
            "primary key"
        });
    }
    if *not_null && !table.is_key(position) {
        add("not null");
    }
    if !alone && table.uniques.iter().any(|unique| *unique == [position]) {
        add("unique");
    }
    if let Some(default) = default.as_deref().map(without_comments) {
        if stands_alone(&default) {
            add(&format!("default {default}"));
        } else {
            add(&format!("default ({default})"));
        }
    }
    if let Some(check) = check.as_deref().map(without_comments) {
        add(&format!("check ({check})"));
    }
    if let Some(collate) = collate {
        add(&format!("collate {}", name(collate)));
    }
    match computed {
        Some(computed) => {
            let expression = without_comments(&computed.expression);
            let kind = if computed.stored { "stored" } else { "virtual" };
            add(&format!("generated always as ({expression}) {kind}"));
        }
        None if *generated => add("generated"),
        None => {}
    }
    if encrypted.is_some() {
        add("encrypted");
    }
    if let Some(declared) = declared {
        add(&format!("declared '{declared}'"));
    }
    if let Some(key) = reference {
        add(&reference_text(key));
    }
    out
}

/// `(a, b) references parent (x, y) on delete …`.
pub(super) fn foreign_key_text(table: &Table, key: &ForeignKey) -> String {
    let columns = key
        .columns
        .iter()
        .map(|&position| table.columns[position].name.as_str());
    format!("({}) {}", names(columns), reference_text(key))
}

fn reference_text(key: &ForeignKey) -> String {
    let mut out = format!("references {}", name(&key.parent));
    if !key.parent_columns.is_empty() {
        out.push_str(&format!(
            " ({})",
            names(key.parent_columns.iter().map(String::as_str))
        ));
    }
    if key.on_delete != OnDelete::NoAction {
        out.push_str(&format!(" on delete {}", key.on_delete.as_sql()));
    }
    out
}

fn names<'a>(columns: impl Iterator<Item = &'a str>) -> String {
    columns.map(name).collect::<Vec<_>>().join(", ")
}

/// A name as SQL writes it: in quotes where it has to be.
fn name(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.bytes().next().is_none_or(|b| b.is_ascii_digit());
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Whether DEFAULT takes this without parentheses.
fn stands_alone(default: &str) -> bool {
    let parsed = column::parse(&format!("any default {default}"));
    parsed.is_ok_and(|column| {
        !default.starts_with('(')
            && column
                == column::ColumnText {
                    default: Some(default.to_owned()),
                    ..any()
                }
    })
}

fn any() -> column::ColumnText {
    column::ColumnText {
        ty: Some(crate::schema::ColumnType::Any),
        ..column::ColumnText::default()
    }
}
