//! Columns that a file has for itself: no statement of a row's writes them.

use rusqlite::{Connection, OptionalExtension as _};
use syncline_core::RowKey;

use super::{Raw, RowError, TableSql};
use crate::sql::{list, quoted};

impl TableSql {
    /// Names of the columns that neither travel nor are computed.
    fn own_columns(&self) -> Vec<String> {
        let columns = self.table.columns.iter();
        let own = columns.filter(|column| column.generated && column.computed.is_none());
        own.map(|column| quoted(&column.name)).collect()
    }

    /// What the row has in them, as it is stored; empty if there are none, or no such row.
    pub(crate) fn read_own(&self, conn: &Connection, key: &RowKey) -> Result<Vec<Raw>, RowError> {
        let own = self.own_columns();
        if own.is_empty() {
            return Ok(Vec::new());
        }
        let Some(image) = self.find(conn, key)? else {
            return Ok(Vec::new());
        };
        let (name, keys) = (quoted(&self.table.name), self.text.by_key(&self.table, 1));
        let sql = format!("SELECT {} FROM {name} WHERE {keys}", own.join(", "));
        let mut statement = conn.prepare_cached(&sql).map_err(self.db())?;
        let key = rusqlite::params_from_iter(self.stored_key(&image));
        let values = |row: &rusqlite::Row<'_>| {
            let value = |i| Ok(Raw::new(row.get_ref(i)?));
            (0..own.len()).map(value).collect()
        };
        let found = statement.query_row(key, values).optional();
        Ok(found.map_err(self.db())?.unwrap_or_default())
    }

    /// Writes what [`TableSql::read_own`] gave.
    pub(crate) fn write_own(
        &self,
        conn: &Connection,
        key: &RowKey,
        values: &[Raw],
    ) -> Result<(), RowError> {
        let Some(image) = self.find(conn, key)? else {
            return Ok(());
        };
        let (own, name) = (self.own_columns(), quoted(&self.table.name));
        let sets = list(own.iter().enumerate(), |(i, own)| {
            format!("{own} = ?{}", i + 1)
        });
        let keys = self.text.by_key(&self.table, own.len() + 1);
        let sql = format!("UPDATE {name} SET {sets} WHERE {keys}");
        let key = self.stored_key(&image);
        self.run(conn, &sql, values.iter().chain(&key)).map(drop)
    }
}
