//! Why a row's change cannot be expressed.

use std::fmt;

use syncline_core::TableNumber;

use super::Step;
use crate::rows::{Raw, TableSql};

/// A row that was changed and cannot sync as it is (spec SL10). The app's data is untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftProblem {
    pub table: TableNumber,
    /// The table's name and the row's key, or its content where it has none.
    pub table_name: String,
    pub row: String,
    pub fault: DraftFault,
}

/// What is wrong with the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DraftFault {
    /// A column holds text that is not UTF-8.
    NotUtf8 { column: String },
    /// A key column is NULL.
    NullKey { column: String },
    /// The key is longer than [`syncline_core::key::KEY_BYTES_MAX`].
    KeyTooLong,
    /// Another row has the same key, spelled differently.
    SameKey,
}

impl DraftProblem {
    pub(super) fn same_key(sql: &TableSql, step: &Step) -> Self {
        Self::new(sql, step.key.to_string(), DraftFault::SameKey)
    }

    pub(super) fn null_key(sql: &TableSql, image: &[Raw]) -> Option<Self> {
        let table = sql.table();
        let &position = table.primary_key.iter().find(|&&p| image[p] == Raw::Null)?;
        let column = table.columns[position].name.clone();
        Some(Self::new(
            sql,
            describe(sql, image),
            DraftFault::NullKey { column },
        ))
    }

    pub(in crate::capture) fn new(sql: &TableSql, row: String, fault: DraftFault) -> Self {
        let table = sql.table();
        Self {
            table: table.number,
            table_name: table.name.clone(),
            row,
            fault,
        }
    }
}

/// A row without a key by its first values.
fn describe(sql: &TableSql, image: &[Raw]) -> String {
    const COLUMNS_MAX: usize = 4;
    const CHARS_MAX: usize = 40;
    let shown = sql
        .table()
        .columns
        .iter()
        .zip(image)
        .filter(|(_, raw)| **raw != Raw::Null);
    let parts: Vec<String> = shown
        .take(COLUMNS_MAX)
        .map(|(column, raw)| {
            let value: String = raw.describe().chars().take(CHARS_MAX).collect();
            format!("{} = {value}", column.name)
        })
        .collect();
    format!("({})", parts.join(", "))
}

impl fmt::Display for DraftFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 { column } => {
                write!(
                    f,
                    "{column} is text that is not UTF-8; store it as UTF-8 or as a blob"
                )
            }
            Self::NullKey { column } => {
                write!(f, "its key column {column} is NULL; give it a value")
            }
            Self::KeyTooLong => f.write_str("its key is too long; keep keys under 8 KiB"),
            Self::SameKey => f.write_str(
                "another row has the same UUID spelled differently; delete one of the two",
            ),
        }
    }
}

impl fmt::Display for DraftProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "row {} of table {} cannot sync: {}",
            self.row, self.table_name, self.fault
        )
    }
}
