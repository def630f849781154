//! SQLite's spelling of a schema: declared types, affinities and the statements that create a
//! table. Text only; whoever has a database runs it.

mod parse;
mod tokens;

pub use parse::{
    ColumnText, IndexText, TableText, default_text, index_text, table_text, trigger_events,
    without_comments,
};
pub use tokens::{Kind, Token, is_closed_expression, is_type_name, tokens};

use crate::{
    merge::path,
    schema::{Column, ColumnType, ForeignKey, FurtherIndex, OnDelete, Table},
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

/// The type that a STRICT table declares for it: those know six names only.
fn strict_type(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Text | ColumnType::Json | ColumnType::Uuid => "TEXT",
        ColumnType::Integer | ColumnType::Boolean => "INTEGER",
        ColumnType::Real => "REAL",
        ColumnType::Blob => "BLOB",
        ColumnType::Timestamp | ColumnType::Any => "ANY",
    }
}

/// The declared type of a column, if a table made without it would have another one, and if the
/// column then keeps what [`declared_type`] keeps.
#[must_use]
pub fn unusual_type(declared: &str, ty: ColumnType, is_strict: bool) -> Option<String> {
    let usual = if is_strict {
        strict_type(ty)
    } else {
        declared_type(ty)
    };
    let affinity = Affinity::of(declared);
    // DECIMAL: numbers in texts become numbers on every device alike.
    let keeps = affinity.fits(ty) || (ty == ColumnType::Any && affinity == Affinity::Numeric);
    let is_known = !is_strict
        || ["INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY"]
            .iter()
            .any(|name| name.eq_ignore_ascii_case(declared));
    let is_unusual = !declared.eq_ignore_ascii_case(usual) && is_type_name(declared);
    (keeps && is_known && is_unusual).then(|| declared.to_owned())
}

/// `CREATE TABLE` with all constraints of `table`. Generated columns are left out where it is not
/// known how they are computed, and so are constraints that name them.
#[must_use]
pub fn create_table(table: &Table) -> String {
    let mut parts: Vec<String> = (0..table.columns.len())
        .filter(|&position| is_made(table, &[position]))
        .map(|position| column_definition(table, position))
        .collect();
    if table.primary_key.len() > 1 {
        parts.push(format!(
            "PRIMARY KEY ({})",
            names(table, &table.primary_key)
        ));
    }
    let uniques = table.uniques.iter().filter(|unique| is_made(table, unique));
    parts.extend(uniques.map(|unique| format!("UNIQUE ({})", names(table, unique))));
    parts.extend(table.checks.iter().map(|check| format!("CHECK ({check})")));
    let keys = table.foreign_keys.iter();
    parts.extend(
        keys.filter(|key| is_made(table, &key.columns))
            .map(|key| foreign_key(table, key)),
    );
    let options = match (table.without_rowid, table.strict) {
        (false, false) => "",
        (true, false) => " WITHOUT ROWID",
        (false, true) => " STRICT",
        (true, true) => " WITHOUT ROWID, STRICT",
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
        if !text.is_empty() {
            out.push(' ');
            out.push_str(text);
        }
    };
    add(match &column.declared {
        Some(declared) => declared,
        None if table.strict => strict_type(column.ty),
        None => declared_type(column.ty),
    });
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
    if let Some(computed) = &column.computed {
        let kind = if computed.stored { "STORED" } else { "VIRTUAL" };
        add(&format!(
            "GENERATED ALWAYS AS ({}) {kind}",
            computed.expression
        ));
    }
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

/// Whether the text of a default is one value or the current time, and no other expression.
#[must_use]
pub fn is_literal(text: &str) -> bool {
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

/// `CREATE INDEX` for each of [`Table::indexes`] that names no generated column that is not made,
/// and for each of [`Table::further_indexes`]. Existing ones are left alone.
#[must_use]
pub fn create_indexes(table: &Table) -> Vec<String> {
    let indexes = table.indexes.iter();
    let plain = indexes
        .filter(|columns| is_made(table, columns))
        .map(|columns| create_index(table, columns, false));
    let further = table.further_indexes.iter();
    plain
        .chain(further.map(|index| create_further_index(table, index)))
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
    format!(
        "CREATE {}INDEX IF NOT EXISTS {} ON {} ({})",
        if unique { "UNIQUE " } else { "" },
        quote(&index_name(table, parts, unique)),
        quote(&table.name),
        names(table, columns),
    )
}

/// `CREATE INDEX` for an index that is more than a list of columns, named after table, terms and
/// condition.
#[must_use]
pub fn create_further_index(table: &Table, index: &FurtherIndex) -> String {
    let mut out = format!(
        "CREATE {}INDEX IF NOT EXISTS {} ON {} ({})",
        if index.unique { "UNIQUE " } else { "" },
        quote(&index_name_of(table, index)),
        quote(&table.name),
        index.terms,
    );
    if let Some(condition) = &index.condition {
        out.push_str(&format!(" WHERE {condition}"));
    }
    out
}

/// The name that [`create_further_index`] gives the index.
#[must_use]
pub fn index_name_of(table: &Table, index: &FurtherIndex) -> String {
    let condition = index.condition.as_deref();
    let parts = [index.terms.as_str()].into_iter().chain(condition);
    index_name(table, parts, index.unique)
}

/// A column as a term of [`FurtherIndex::terms`]. `collation`: where it is not the column's.
#[must_use]
pub fn index_term(text: &str, collation: Option<&str>, descending: bool) -> String {
    let mut out = text.to_owned();
    if let Some(collation) = collation {
        out.push_str(&format!(" COLLATE {}", quote(collation)));
    }
    if descending {
        out.push_str(" DESC");
    }
    out
}

fn index_name<'a>(table: &'a Table, parts: impl Iterator<Item = &'a str>, unique: bool) -> String {
    let suffix = if unique { "key" } else { "idx" };
    std::iter::once(table.name.as_str())
        .chain(parts)
        .chain([suffix])
        .fold(String::new(), |name, part| path::child(&name, part))
}

/// Whether [`create_table`] makes all of these columns.
#[must_use]
pub fn is_made(table: &Table, columns: &[usize]) -> bool {
    columns
        .iter()
        .map(|&i| &table.columns[i])
        .all(|column| !column.generated || column.computed.is_some())
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
