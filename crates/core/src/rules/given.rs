//! A handful of rows for rules to look at: what a test of rules or an example gives.

use std::{collections::BTreeMap, convert::Infallible};

use super::{
    Facts, RuleColumn, Stored,
    term::{Field, Seen},
};
use crate::{ids::TableNumber, key::RowKey, value::Value};

/// Rows that were given, and no others. Each lookup goes through all of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Given {
    rows: BTreeMap<(TableNumber, RowKey), Stored>,
}

impl Given {
    /// Adds a row, or puts it in the place of the one with its key.
    pub fn put(&mut self, row: Stored) {
        self.rows.insert((row.table, row.key.clone()), row);
    }
}

impl Facts for Given {
    type Missing = Infallible;

    fn stored(&self, table: TableNumber, key: &RowKey) -> Result<Option<Stored>, Infallible> {
        Ok(self.rows.get(&(table, key.clone())).cloned())
    }

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, Infallible> {
        let value = Seen::from(value);
        let rows = self.rows.values().filter(|row| row.table == table);
        let equal = rows.filter(|row| Field::from(column).of(row).equals(&value));
        Ok(equal.cloned().collect())
    }
}
