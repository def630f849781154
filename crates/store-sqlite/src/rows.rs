//! Reading rows of the apps' tables by canonical key.

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params_from_iter};
use syncline_core::{Row, RowKey, Value};

use crate::{
    catalog::Entry,
    fault::{Fault, Result},
    value::{self, Bind},
};

/// Reads rows of one table with a statement that stays at hand.
pub(crate) struct RowReader<'e, 'c> {
    entry: &'e Entry,
    conn: &'c Connection,
    statement: CachedStatement<'c>,
}

impl RowReader<'_, '_> {
    /// The live row with this key: canonical, NULL in generated columns.
    pub(crate) fn read(&mut self, key: &RowKey) -> Result<Option<Row>> {
        let values = key_values(key)?;
        // A collation or affinity may find another row than was asked for.
        if let Some(row) = self.read_spelled(&values)?
            && row.key(&self.entry.table).as_ref() == Ok(key)
        {
            return Ok(Some(row));
        }
        match self.entry.other_spelling(self.conn, &values)? {
            Some(spelled) => self.read_spelled(&spelled),
            None => Ok(None),
        }
    }

    /// The row whose key columns the database finds equal to `values`.
    fn read_spelled(&mut self, values: &[Value]) -> Result<Option<Row>> {
        let bound = params_from_iter(values.iter().map(Bind));
        let row = self
            .statement
            .query_row(bound, |row| self.entry.image(row, 0));
        Ok(row.optional()?)
    }
}

impl Entry {
    pub(crate) fn reader<'e, 'c>(&'e self, conn: &'c Connection) -> Result<RowReader<'e, 'c>> {
        let statement = conn.prepare_cached(&self.text.read)?;
        Ok(RowReader {
            entry: self,
            conn,
            statement,
        })
    }

    /// As [`RowReader::read`], of one row.
    pub(crate) fn read(&self, conn: &Connection, key: &RowKey) -> Result<Option<Row>> {
        self.reader(conn)?.read(key)
    }

    /// Whether the database finds a row with key columns equal to `values`.
    pub(crate) fn exists(&self, conn: &Connection, values: &[Value]) -> Result<bool> {
        let mut statement = conn.prepare_cached(&self.text.exists)?;
        Ok(statement.query_row(params_from_iter(values.iter().map(Bind)), |row| row.get(0))?)
    }

    /// A canonical row from the columns of `row` beginning at `first`.
    pub(crate) fn image(&self, row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Row> {
        let columns = &self.table.columns;
        let mut values = Vec::with_capacity(columns.len());
        for (i, column) in columns.iter().enumerate() {
            values.push(value::read(row.get_ref(first + i)?).canonical(column.ty));
        }
        Ok(Row(values))
    }

    /// The canonical key of stored key values; `None` for one that has none (NULL, too long).
    pub(crate) fn canonical_key(&self, stored: Vec<Value>) -> Option<RowKey> {
        let columns = self
            .table
            .primary_key
            .iter()
            .map(|&p| self.table.columns[p].ty);
        let values: Vec<_> = stored
            .into_iter()
            .zip(columns)
            .map(|(v, ty)| v.canonical(ty))
            .collect();
        RowKey::encode(&values).ok()
    }

    /// How the key is stored when another program spelled a UUID in it differently; `None` when
    /// there is no such row.
    pub(crate) fn other_spelling(
        &self,
        conn: &Connection,
        values: &[Value],
    ) -> Result<Option<Vec<Value>>> {
        if self.uuid_keys.is_empty() {
            return Ok(None);
        }
        let mut bound = Vec::with_capacity(values.len() + UUID_SPELLINGS);
        for (i, value) in values.iter().enumerate() {
            match value.as_text().filter(|_| self.uuid_keys.contains(&i)) {
                Some(uuid) => bound.extend(uuid_spellings(uuid)),
                None if self.uuid_keys.contains(&i) => {
                    bound.extend(std::iter::repeat_n(value.clone(), UUID_SPELLINGS));
                }
                None => bound.push(value.clone()),
            }
        }
        let mut statement = conn.prepare_cached(&self.text.respelled)?;
        let mut rows = statement.query(params_from_iter(bound.iter().map(Bind)))?;
        while let Some(row) = rows.next()? {
            let stored: Vec<Value> = (0..values.len())
                .map(|i| Ok(value::read(row.get_ref(i)?)))
                .collect::<rusqlite::Result<_>>()?;
            let canonical = RowKey::encode(values).ok();
            if canonical.is_some() && self.canonical_key(stored.clone()) == canonical {
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }
}

/// How many ways there are to write a UUID.
pub(crate) const UUID_SPELLINGS: usize = 6;

/// The texts that other programs write for the UUID whose canonical text this is.
pub(crate) fn uuid_spellings(canonical: &str) -> [Value; UUID_SPELLINGS] {
    let upper = canonical.to_ascii_uppercase();
    let plain = canonical.replace('-', "");
    let plain_upper = plain.to_ascii_uppercase();
    let braces = format!("{{{canonical}}}");
    let braces_upper = format!("{{{upper}}}");
    [
        canonical.to_owned(),
        upper,
        plain,
        plain_upper,
        braces,
        braces_upper,
    ]
    .map(Value::Text)
}

/// The values of an encoded key.
pub(crate) fn key_values(key: &RowKey) -> Result<Vec<Value>> {
    key.decode()
        .map_err(|error| Fault::corrupt(error.to_string()))
}
