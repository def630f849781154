//! Finds the rows that another row cannot stand beside.

use rusqlite::Connection;
use syncline_core::{Row, RowKey, Table};

use super::{Bind, Raw, RowError, TableSql};
use crate::{
    capture,
    introspect::shape::Shape,
    sql::{list, quoted},
};

/// What there is to ask of one table, as it is in this database.
#[derive(Debug)]
pub(crate) struct Rivals {
    /// Parameters: the columns of the database's table. Gives stored keys.
    statements: Vec<String>,
    /// Those columns, as positions in the rows of [`TableSql`].
    columns: Vec<Option<usize>>,
}

impl Rivals {
    /// `None` if the table is gone.
    pub(crate) fn of(conn: &Connection, table: &Table) -> Result<Option<Self>, RowError> {
        let shape = Shape::read(conn, &table.name).map_err(RowError::database(table))?;
        let Some(shape) = shape else { return Ok(None) };
        let keys = list(&table.primary_key, |&p| {
            format!("r.{}", quoted(&table.columns[p].name))
        });
        let name = quoted(&table.name);
        let statement =
            |condition: String| format!("SELECT {keys} FROM {name} AS r WHERE {condition}");
        Ok(Some(Self {
            statements: capture::rivals(table, &shape)
                .into_iter()
                .map(statement)
                .collect(),
            columns: shape
                .columns
                .iter()
                .map(|column| table.position(&column.name))
                .collect(),
        }))
    }

    /// The keys of the rows that are in the place of `row`: they have its values of a unique
    /// index. Not those that have no canonical key, nor those that share a value which the
    /// database computes.
    pub(crate) fn find(
        &self,
        conn: &Connection,
        sql: &TableSql,
        row: &Row,
    ) -> Result<Vec<RowKey>, RowError> {
        let own = sql.key_of(row)?;
        let null = syncline_core::Value::Null;
        let mut found = Vec::new();
        for text in &self.statements {
            // An index may need a function that only the app's own program has.
            let Ok(mut statement) = conn.prepare_cached(text) else {
                continue;
            };
            // A statement has no more parameters than its largest number says.
            let values = self.columns.iter().take(statement.parameter_count());
            let values = values.map(|p| Bind(p.map_or(&null, |p| &row.0[p])));
            let keys = statement
                .query_map(rusqlite::params_from_iter(values), |row| {
                    (0..sql.table().primary_key.len())
                        .map(|i| row.get_ref(i).map(Raw::new))
                        .collect::<rusqlite::Result<Vec<_>>>()
                })
                .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
                .map_err(RowError::executing(sql.table()));
            let keys = match keys {
                // No row has a value that cannot be computed.
                Err(error) if error.is_constraint() => continue,
                keys => keys?,
            };
            let keys = keys.into_iter().filter_map(|key| sql.canonical_key(key));
            found.extend(keys.filter(|key| *key != own));
        }
        Ok(found)
    }
}
