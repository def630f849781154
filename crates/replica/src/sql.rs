//! Safe pieces of SQL text.

use syncline_core::Table;

/// `name` as a quoted identifier.
#[must_use]
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a string literal.
#[must_use]
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `items` mapped to text and separated by commas.
pub(crate) fn list<T>(items: impl IntoIterator<Item = T>, f: impl FnMut(T) -> String) -> String {
    items.into_iter().map(f).collect::<Vec<_>>().join(", ")
}

/// An insert of values for these positions of a table, in their order; other columns get their
/// defaults.
pub(crate) fn insert_some(table: &Table, positions: impl Iterator<Item = usize> + Clone) -> String {
    format!(
        "INSERT INTO {}({}) VALUES({})",
        quoted(&table.name),
        list(positions.clone(), |p| quoted(&table.columns[p].name)),
        list(positions, |_| "?".to_owned()),
    )
}

/// `items` mapped to conditions that must all hold.
pub(crate) fn all<T>(items: impl IntoIterator<Item = T>, f: impl FnMut(T) -> String) -> String {
    items.into_iter().map(f).collect::<Vec<_>>().join(" AND ")
}
