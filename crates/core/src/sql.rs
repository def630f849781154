//! SQLite's spelling of a schema: declared types, affinities and the statements that create a
//! table. Text only; whoever has a database runs it.

mod parse;
mod tokens;

pub use parse::{
    ColumnText, IndexText, TableText, default_text, index_text, table_text, trigger_events,
    without_comments,
};
pub use tokens::{Kind, Token, is_closed_expression, tokens};

use crate::{
    merge::path,
    schema::{Column, ColumnType, ForeignKey, OnDelete, Table},
    value::Value,
};

/// `name` as an SQL identifier.
#[must_use]
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What SQLite does to values on their way into a column (datatype3.html, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    Text,
    Numeric,
    Integer,
    Real,
    Blob,
}

impl Affinity {
    /// The affinity of a column declared with this type; empty for none.
    #[must_use]
    pub fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |part| declared.contains(part);
        if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") || declared.trim().is_empty() {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    /// Whether a column of this affinity stores every canonical value of type `ty` as it is.
    #[must_use]
    pub fn fits(self, ty: ColumnType) -> bool {
        match ty {
            ColumnType::Text | ColumnType::Json | ColumnType::Uuid => {
                matches!(self, Self::Text | Self::Blob)
            }
            ColumnType::Integer | ColumnType::Boolean | ColumnType::Timestamp => {
                matches!(self, Self::Integer | Self::Numeric | Self::Blob)
            }
            ColumnType::Real => matches!(self, Self::Real | Self::Blob),
            ColumnType::Blob | ColumnType::Any => self == Self::Blob,
        }
    }

    /// Whether a column of this affinity stores `value` as it is.
    #[must_use]
    pub fn keeps(self, value: &Value) -> bool {
        let like = match self {
            Self::Text => ColumnType::Text,
            Self::Numeric | Self::Integer => ColumnType::Integer,
            Self::Real => ColumnType::Real,
            Self::Blob => ColumnType::Blob,
        };
        value.clone().canonical(like) == *value
    }
}

/// The portable type that a declared SQLite type stands for.
///
/// NUMERIC and DECIMAL hold integers and reals side by side, so their values travel as stored.
#[must_use]
pub fn column_type(declared: &str) -> ColumnType {
    let upper = declared.to_ascii_uppercase();
    let has = |part| upper.contains(part);
    if has("UUID") || has("GUID") || has("UNIQUEIDENTIFIER") {
        ColumnType::Uuid
    } else if has("JSON") {
        ColumnType::Json
    } else if has("BOOL") {
        ColumnType::Boolean
    } else if has("DATE") || has("TIME") {
        ColumnType::Timestamp
    } else {
        match Affinity::of(declared) {
            Affinity::Integer => ColumnType::Integer,
            Affinity::Text => ColumnType::Text,
            Affinity::Real => ColumnType::Real,
            Affinity::Blob if declared.trim().is_empty() => ColumnType::Any,
            Affinity::Blob => ColumnType::Blob,
            Affinity::Numeric => ColumnType::Any,
        }
    }
}

/// The type that a column is created with, chosen so that its affinity keeps every canonical
/// value: JSON and UUIDs as TEXT, because `5` is JSON and a NUMERIC column would make it a number.
#[must_use]
pub fn declared_type(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Text | ColumnType::Json | ColumnType::Uuid => "TEXT",
        ColumnType::Integer => "INTEGER",
        ColumnType::Real => "REAL",
        ColumnType::Boolean => "BOOLEAN",
        ColumnType::Timestamp => "TIMESTAMP",
        ColumnType::Blob => "BLOB",
        ColumnType::Any => "",
    }
}

/// `CREATE TABLE` with all constraints of `table`; generated columns are left out, because a
/// [`Table`] does not hold their expressions, and so are constraints that name them.
#[must_use]
pub fn create_table(table: &Table) -> String {
    let mut parts: Vec<String> = table
        .columns
        .iter()
        .enumerate()
        .filter(|(_, column)| !column.generated)
        .map(|(position, _)| column_definition(table, position))
        .collect();
    if table.primary_key.len() > 1 {
        parts.push(format!(
            "PRIMARY KEY ({})",
            names(table, &table.primary_key)
        ));
    }
    let uniques = table.uniques.iter().filter(|unique| is_made(table, unique));
    parts.extend(uniques.map(|unique| format!("UNIQUE ({})", names(table, unique))));
    let keys = table.foreign_keys.iter();
    parts.extend(
        keys.filter(|key| is_made(table, &key.columns))
            .map(|key| foreign_key(table, key)),
    );
    let options = if table.without_rowid {
        " WITHOUT ROWID"
    } else {
        ""
    };
    format!(
        "CREATE TABLE {} (\n  {}\n){options}",
        quote(&table.name),
        parts.join(",\n  ")
    )
}

/// The definition of the column at `position`, as CREATE TABLE and ADD COLUMN take it. A foreign
/// key is not part of it.
#[must_use]
pub fn column_definition(table: &Table, position: usize) -> String {
    let column = &table.columns[position];
    let mut out = quote(&column.name);
    let mut add = |text: &str| {
        out.push(' ');
        out.push_str(text);
    };
    if column.ty != ColumnType::Any {
        add(declared_type(column.ty));
    }
    let alone = table.primary_key == [position];
    if alone {
        add("PRIMARY KEY");
        if table.autoincrement {
            add("AUTOINCREMENT");
        }
    }
    let rowid = alone && column.ty == ColumnType::Integer && !table.without_rowid;
    if column.not_null || (table.is_key(position) && !rowid) {
        add("NOT NULL");
    }
    constraints(column, &mut add);
    out
}

fn constraints(column: &Column, add: &mut impl FnMut(&str)) {
    if let Some(default) = &column.default {
        // Parenthesised, any expression is allowed; a literal stays as people write it.
        if is_literal(default) {
            add(&format!("DEFAULT {default}"));
        } else {
            add(&format!("DEFAULT ({default})"));
        }
    }
    if let Some(check) = &column.check {
        add(&format!("CHECK ({check})"));
    }
    if let Some(collate) = &column.collate {
        add(&format!("COLLATE {}", quote(collate)));
    }
}

fn is_literal(text: &str) -> bool {
    let text = text.trim();
    let number = text.strip_prefix(['-', '+']).unwrap_or(text);
    let quoted = text.len() >= 2 && text.starts_with('\'') && text.ends_with('\'');
    let word = [
        "NULL",
        "TRUE",
        "FALSE",
        "CURRENT_TIME",
        "CURRENT_DATE",
        "CURRENT_TIMESTAMP",
    ];
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
        || (quoted && !text[1..text.len() - 1].replace("''", "").contains('\''))
        || word.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// The table constraint of one foreign key.
#[must_use]
pub fn foreign_key(table: &Table, key: &ForeignKey) -> String {
    let mut out = format!(
        "FOREIGN KEY ({}) REFERENCES {}",
        names(table, &key.columns),
        quote(&key.parent)
    );
    if !key.parent_columns.is_empty() {
        let columns: Vec<_> = key.parent_columns.iter().map(|name| quote(name)).collect();
        out.push_str(&format!(" ({})", columns.join(", ")));
    }
    out.push_str(match key.on_delete {
        OnDelete::NoAction => "",
        OnDelete::Restrict => " ON DELETE RESTRICT",
        OnDelete::Cascade => " ON DELETE CASCADE",
        OnDelete::SetNull => " ON DELETE SET NULL",
        OnDelete::SetDefault => " ON DELETE SET DEFAULT",
    });
    out
}

/// `CREATE INDEX` for each of [`Table::indexes`] that names no generated column. Existing ones are
/// left alone.
#[must_use]
pub fn create_indexes(table: &Table) -> Vec<String> {
    let indexes = table.indexes.iter();
    indexes
        .filter(|columns| is_made(table, columns))
        .map(|columns| create_index(table, columns, false))
        .collect()
}

/// `CREATE INDEX` over the columns at these positions, named after table and columns:
/// `tasks.project_id.idx`.
///
/// Names of indexes are one space for all tables of a database. Joined by underscores, `user` and
/// `role_name` would be `user_role` and `name`, and the second index would be there already.
#[must_use]
pub fn create_index(table: &Table, columns: &[usize], unique: bool) -> String {
    let parts = columns.iter().map(|&i| table.columns[i].name.as_str());
    let suffix = if unique { "key" } else { "idx" };
    let name = std::iter::once(table.name.as_str())
        .chain(parts)
        .chain([suffix])
        .fold(String::new(), |name, part| path::child(&name, part));
    format!(
        "CREATE {}INDEX IF NOT EXISTS {} ON {} ({})",
        if unique { "UNIQUE " } else { "" },
        quote(&name),
        quote(&table.name),
        names(table, columns),
    )
}

/// Whether [`create_table`] makes all of these columns.
fn is_made(table: &Table, columns: &[usize]) -> bool {
    columns.iter().all(|&i| !table.columns[i].generated)
}

fn names(table: &Table, columns: &[usize]) -> String {
    columns
        .iter()
        .map(|&i| quote(&table.columns[i].name))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests;
