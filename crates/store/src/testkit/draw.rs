//! Changes by the names of tables and columns.

use syncline_core::{Change, Column, ColumnEdit, Edit, Op, RowKey, Schema, Table, Value, Version};

/// A change of a named table with named columns.
#[derive(Debug, Clone)]
pub struct Draw<'a> {
    schema: &'a Schema,
    changes: Vec<Change>,
}

impl<'a> Draw<'a> {
    /// No changes yet, of tables of `schema`.
    #[must_use]
    pub fn new(schema: &'a Schema) -> Self {
        Self {
            schema,
            changes: Vec::new(),
        }
    }

    fn table(&self, name: &str) -> &'a Table {
        self.schema.table(name).expect("the table is declared")
    }

    fn edits(table: &Table, values: &[(&str, Edit)]) -> Vec<ColumnEdit> {
        let number = |name: &str| {
            let position = table.position(name).expect("the column is declared");
            table.columns[position].number
        };
        let edit = |(name, edit): &(&str, Edit)| ColumnEdit {
            column: number(name),
            edit: edit.clone(),
        };
        values.iter().map(edit).collect()
    }

    fn add(mut self, table: &Table, key: Value, base: Version, op: Op) -> Self {
        let key = RowKey::encode([&key]).expect("a key has a value");
        self.changes.push(Change {
            table: table.number,
            key,
            base,
            op,
        });
        self
    }

    /// Inserts a row; the first column is the key, columns not named are NULL.
    #[must_use]
    pub fn insert(self, table: &str, key: impl Into<Value>, values: &[(&str, Value)]) -> Self {
        let table = self.table(table);
        let key = key.into();
        let set = |column: &Column| {
            let named = values.iter().find(|(name, _)| *name == column.name);
            let value = named.map_or(Value::Null, |(_, value)| value.clone());
            ColumnEdit {
                column: column.number,
                edit: Edit::Set(value),
            }
        };
        let mut edits: Vec<_> = table.columns.iter().map(set).collect();
        edits[0].edit = Edit::Set(key.clone());
        self.add(table, key, Version::ZERO, Op::Insert(edits))
    }

    /// Inserts a row that names only some columns.
    #[must_use]
    pub fn insert_some(self, table: &str, key: impl Into<Value>, values: &[(&str, Value)]) -> Self {
        let table = self.table(table);
        let values: Vec<_> = values
            .iter()
            .map(|(name, value)| (*name, Edit::Set(value.clone())))
            .collect();
        let edits = Self::edits(table, &values);
        self.add(table, key.into(), Version::ZERO, Op::Insert(edits))
    }

    /// Sets columns of a row as of `base`.
    #[must_use]
    pub fn set(
        self,
        table: &str,
        key: impl Into<Value>,
        base: Version,
        values: &[(&str, Value)],
    ) -> Self {
        let values: Vec<_> = values
            .iter()
            .map(|(name, value)| (*name, Edit::Set(value.clone())))
            .collect();
        self.edit(table, key, base, &values)
    }

    /// Updates a row with any edits.
    #[must_use]
    pub fn edit(
        self,
        table: &str,
        key: impl Into<Value>,
        base: Version,
        edits: &[(&str, Edit)],
    ) -> Self {
        let table = self.table(table);
        let edits = Self::edits(table, edits);
        self.add(table, key.into(), base, Op::Update(edits))
    }

    /// Deletes a row as of `base`.
    #[must_use]
    pub fn delete(self, table: &str, key: impl Into<Value>, base: Version) -> Self {
        let table = self.table(table);
        self.add(table, key.into(), base, Op::Delete)
    }

    /// The changes, in the order they were drawn.
    #[must_use]
    pub fn done(self) -> Vec<Change> {
        self.changes
    }
}
