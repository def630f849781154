//! A row's image: one canonical value for each column of its table, in the table's order.

use crate::{
    key::{KeyError, RowKey},
    schema::Table,
    value::Value,
};

/// The values of one row, aligned with [`Table::columns`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row(pub Vec<Value>);

impl Row {
    /// The row's key under `table`'s primary key.
    ///
    /// # Errors
    /// [`KeyError::Null`] or [`KeyError::TooLong`].
    ///
    /// # Panics
    /// If the row does not have one value for each column of `table`.
    pub fn key(&self, table: &Table) -> Result<RowKey, KeyError> {
        assert_eq!(
            self.0.len(),
            table.columns.len(),
            "a row is aligned with its table"
        );
        RowKey::encode(table.primary_key.iter().map(|&i| &self.0[i]))
    }

    /// Every value brought to the canonical form of its column.
    #[must_use]
    pub fn canonical(self, table: &Table) -> Self {
        let values = self.0.into_iter().zip(&table.columns);
        Self(
            values
                .map(|(value, column)| value.canonical(column.ty))
                .collect(),
        )
    }
}
