//! Reads and writes rows of one table by key, as canonical values.

mod error;
mod own;
mod raw;
mod rivals;
mod text;

use rusqlite::{CachedStatement, Connection, ToSql};
use syncline_core::{ColumnType, Row, RowKey, Table, Value};

pub use error::RowError;
pub(crate) use raw::Bind;
pub(crate) use raw::Raw;
pub(crate) use rivals::Rivals;
pub(crate) use text::uuid_spellings;
use text::{Statements, spellings};

/// The prepared SQL of one table.
///
/// Built once per table; statements are cached by the connection, so give it a capacity of about
/// six for each table (`set_prepared_statement_cache_capacity`). Rows are aligned with
/// [`Table::columns`]; generated columns are NULL in them and never written.
///
/// A row is found by its canonical key even where the file stores another spelling of it: a
/// UUID in capitals, an integral real. Its key columns are never rewritten.
#[derive(Debug, Clone)]
pub struct TableSql {
    table: Table,
    text: Statements,
}

/// A key exactly as the file stores it, usable or not: a place in the order of a scan.
#[derive(Debug)]
pub(crate) struct StoredKey(Vec<Raw>);

/// A row as a scan finds it.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) place: StoredKey,
    /// `None` where it is too long or not UTF-8.
    pub(crate) key: Option<RowKey>,
    pub(crate) row: Result<Row, RowError>,
}

impl TableSql {
    #[must_use]
    pub fn new(table: &Table) -> Self {
        Self {
            table: table.clone(),
            text: Statements::new(table, false),
        }
    }

    /// For a table whose text says what to do ON CONFLICT: to what is written here it says nothing.
    #[must_use]
    pub(crate) fn overruling(table: &Table) -> Self {
        Self {
            table: table.clone(),
            text: Statements::new(table, true),
        }
    }

    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The row with this key.
    ///
    /// # Errors
    /// [`RowError::NotUtf8`], or the database's.
    pub fn read(&self, conn: &Connection, key: &RowKey) -> Result<Option<Row>, RowError> {
        self.find(conn, key)?
            .map(|image| self.canonical_row(image))
            .transpose()
    }

    /// Inserts a row.
    ///
    /// # Errors
    /// A constraint error ([`RowError::is_constraint`]) if a row with this key exists or another
    /// constraint fails; never evicts a row. Nothing is written then.
    pub fn insert(&self, conn: &Connection, row: &Row) -> Result<(), RowError> {
        let key = self.key_of(row)?;
        if self.keeps(row) {
            self.run(conn, &self.text.insert, self.writable(row))?;
            return Ok(());
        }
        let mut statement = conn
            .prepare_cached(&self.text.insert_returning)
            .map_err(self.db())?;
        let binds: Vec<_> = self.writable(row).collect();
        let stored: Vec<Raw> = statement
            .query_row(rusqlite::params_from_iter(&binds), |stored| {
                (0..self.table.primary_key.len())
                    .map(|i| Ok(Raw::new(stored.get_ref(i)?)))
                    .collect()
            })
            .map_err(RowError::executing(&self.table))?;
        if self.canonical_key(stored.clone()).as_ref() == Some(&key) {
            return Ok(());
        }
        self.run(conn, &self.text.delete_stored, stored.iter())?;
        Err(RowError::KeyChanges {
            table: self.table.name.clone(),
            key,
        })
    }

    /// What inserts many rows with one statement.
    ///
    /// # Errors
    /// The database's.
    pub(crate) fn inserter<'c>(&'c self, conn: &'c Connection) -> Result<Inserter<'c>, RowError> {
        let statement = conn.prepare_cached(&self.text.insert).map_err(self.db())?;
        Ok(Inserter {
            sql: self,
            conn,
            statement,
        })
    }

    /// Makes the row with `row`'s key equal to `row`, inserting it if there is none.
    ///
    /// # Errors
    /// A constraint error ([`RowError::is_constraint`]) if another row is in the way; unlike
    /// SQL's REPLACE it never evicts one. Nothing is written then.
    pub fn insert_or_replace(&self, conn: &Connection, row: &Row) -> Result<(), RowError> {
        let key = self.key_of(row)?;
        let may_upsert = self.keeps(row) && !self.text.has_uuid_key;
        if may_upsert && self.run(conn, &self.text.upsert, self.writable(row))? > 0 {
            return Ok(());
        }
        // The place may be taken: by this row under another spelling, or by another one.
        match self.find(conn, &key)? {
            Some(image) => self.update_stored(conn, &image, row, &self.text.value_positions),
            None => self.insert(conn, row),
        }
    }

    /// Writes the columns at the positions `changed` (neither key nor generated) of the row with
    /// this key; `false` if there is none.
    ///
    /// # Errors
    /// A constraint error ([`RowError::is_constraint`]), or the database's.
    ///
    /// # Panics
    /// If a position is a key or generated column.
    pub fn update(
        &self,
        conn: &Connection,
        key: &RowKey,
        row: &Row,
        changed: &[usize],
    ) -> Result<bool, RowError> {
        assert!(
            changed
                .iter()
                .all(|p| self.text.value_positions.contains(p)),
            "keys and generated columns are never updated"
        );
        let key_values = self.decoded(key);
        if !changed.is_empty() {
            let sql = self.text.update(&self.table, changed);
            let values = changed.iter().map(|&p| &row.0[p]).chain(&key_values);
            if self.run(conn, &sql, values.map(Bind))? > 0 {
                return Ok(true);
            }
        }
        match self.find(conn, key)? {
            Some(image) => {
                self.update_stored(conn, &image, row, changed)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Deletes the row with this key; `false` if there was none.
    ///
    /// # Errors
    /// The database's.
    pub fn delete(&self, conn: &Connection, key: &RowKey) -> Result<bool, RowError> {
        let values = self.decoded(key);
        if self.run(conn, &self.text.delete, values.iter().map(Bind))? > 0 {
            return Ok(true);
        }
        match self.find(conn, key)? {
            Some(image) => {
                let stored = self.stored_key(&image);
                Ok(self.run(conn, &self.text.delete_stored, stored.iter())? > 0)
            }
            None => Ok(false),
        }
    }

    /// At most `limit` rows after the row with the key `after`, in the order of the table's own
    /// key index; rows with a NULL key are left out. That is the order of [`RowKey`]s for keys of one storage class with the BINARY
    /// collation; for others it is another, but a total one, so paging sees every row.
    ///
    /// # Errors
    /// [`RowError::NotUtf8`] and [`RowError::Key`] for a row that has no canonical form, or the
    /// database's.
    pub fn scan(
        &self,
        conn: &Connection,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<Row>, RowError> {
        let after = after.map(|key| self.place_of(conn, key)).transpose()?;
        let rows = self.scan_from(conn, after, limit)?;
        rows.into_iter().map(|scanned| scanned.row).collect()
    }

    /// Where the row with this key is, or would be, for [`TableSql::scan_from`]: of a UUID under the
    /// spelling that comes first, so that nothing behind it is passed over.
    pub(crate) fn place_of(&self, conn: &Connection, key: &RowKey) -> Result<StoredKey, RowError> {
        Ok(StoredKey(match self.find(conn, key)? {
            Some(image) => self.stored_key(&image),
            None => {
                let key = self.decoded(key);
                let values = key.into_iter().zip(&self.table.primary_key);
                let first = |(value, &p): (Value, &usize)| {
                    match (&value, self.table.columns[p].ty) {
                        (Value::Text(text), ColumnType::Uuid) => {
                            uuid_spellings(text).into_iter().min().map(Value::Text)
                        }
                        _ => None,
                    }
                    .unwrap_or(value)
                };
                values.map(first).map(Raw::from).collect()
            }
        }))
    }

    /// As [`TableSql::scan`], with the key of each row, if it has a canonical one; a row without
    /// canonical form does not hide the others.
    pub(crate) fn scan_from(
        &self,
        conn: &Connection,
        after: Option<StoredKey>,
        limit: usize,
    ) -> Result<Vec<Scanned>, RowError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (sql, mut binds) = match after {
            None => (&self.text.scan, Vec::new()),
            Some(StoredKey(stored)) => (&self.text.scan_after, stored),
        };
        binds.push(Raw::Integer(limit));
        let mut statement = conn.prepare_cached(sql).map_err(self.db())?;
        let mut rows = statement
            .query(rusqlite::params_from_iter(&binds))
            .map_err(self.db())?;
        let mut out = Vec::new();
        while let Some(row) = rows.next().map_err(self.db())? {
            let image = self.image(row, 0).map_err(self.db())?;
            let stored = self.stored_key(&image);
            out.push(Scanned {
                key: self.canonical_key(stored.clone()),
                place: StoredKey(stored),
                row: self.canonical_row(image),
            });
        }
        Ok(out)
    }

    /// Calls `each` for every row in no particular order, until it returns an error. Rows that
    /// have no canonical form arrive as the [`RowError`] that says so.
    ///
    /// `each` may write other tables, not this one.
    ///
    /// # Errors
    /// What `each` returns; the database's, turned into it.
    pub fn for_each<E: From<RowError>>(
        &self,
        conn: &Connection,
        mut each: impl FnMut(Result<Row, RowError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = conn
            .prepare_cached(&self.text.read_all)
            .map_err(self.db())?;
        let mut rows = statement.query([]).map_err(self.db())?;
        while let Some(row) = rows.next().map_err(self.db())? {
            let image = self.image(row, 0).map_err(self.db())?;
            each(self.canonical_row(image))?;
        }
        Ok(())
    }

    /// The stored image of the row whose key columns SQLite finds equal to `stored_key`
    /// (collations and affinities of the table apply; at most one row, for no part is NULL).
    pub(crate) fn read_stored(
        &self,
        conn: &Connection,
        stored_key: &[Raw],
    ) -> Result<Option<Vec<Raw>>, RowError> {
        Ok(self.candidates(conn, &self.text.read, stored_key)?.pop())
    }

    /// At most `limit` stored images of rows whose key is partly NULL.
    pub(crate) fn read_null_keys(
        &self,
        conn: &Connection,
        limit: usize,
    ) -> Result<Vec<Vec<Raw>>, RowError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.candidates(conn, &self.text.read_null_keys, &[Raw::Integer(limit)])
    }

    /// Whether several rows have this canonical key, each with its own spelling.
    pub(crate) fn is_spelled_twice(
        &self,
        conn: &Connection,
        key: &RowKey,
    ) -> Result<bool, RowError> {
        if !self.text.has_uuid_key {
            return Ok(false);
        }
        let spellings = spellings(&self.table, &self.decoded(key));
        let found = self.candidates(conn, &self.text.read_spellings, &spellings)?;
        let mut stored = found.iter().map(|image| self.stored_key(image));
        let mut first: Option<Vec<Raw>> = None;
        // The key's collation may find one row under two spellings.
        Ok(stored.any(|stored| {
            let is_it = self.canonical_key(stored.clone()).as_ref() == Some(key);
            is_it && *first.get_or_insert_with(|| stored.clone()) != stored
        }))
    }

    /// Whether there is a row with this key, expressible or not.
    pub(crate) fn exists(&self, conn: &Connection, key: &RowKey) -> Result<bool, RowError> {
        Ok(self.find(conn, key)?.is_some())
    }

    /// The stored values of the key columns of an image.
    pub(crate) fn stored_key(&self, image: &[Raw]) -> Vec<Raw> {
        self.table
            .primary_key
            .iter()
            .map(|&p| image[p].clone())
            .collect()
    }

    /// An image from the columns of `row` beginning at `first`, one for each of the table's.
    pub(crate) fn image(
        &self,
        row: &rusqlite::Row<'_>,
        first: usize,
    ) -> rusqlite::Result<Vec<Raw>> {
        (0..self.table.columns.len())
            .map(|i| Ok(Raw::new(row.get_ref(first + i)?)))
            .collect()
    }

    /// The canonical row of a stored image.
    pub(crate) fn canonical_row(&self, image: Vec<Raw>) -> Result<Row, RowError> {
        let describe = |image: &[Raw]| {
            let key: Vec<_> = self.stored_key(image).iter().map(Raw::describe).collect();
            key.join(",")
        };
        let damaged = image
            .iter()
            .position(|raw| raw.clone().into_value().is_err());
        if let Some(position) = damaged {
            return Err(RowError::NotUtf8 {
                table: self.table.name.clone(),
                row: describe(&image),
                column: self.table.columns[position].name.clone(),
            });
        }
        let row: Vec<Value> = image
            .into_iter()
            .map(|raw| raw.into_value().expect("checked to be UTF-8 above"))
            .collect();
        Ok(Row(row).canonical(&self.table))
    }

    /// The stored image of the row with this canonical key.
    fn find(&self, conn: &Connection, key: &RowKey) -> Result<Option<Vec<Raw>>, RowError> {
        let values: Vec<Raw> = self.decoded(key).into_iter().map(Raw::from).collect();
        let fits =
            |image: &Vec<Raw>| self.canonical_key(self.stored_key(image)).as_ref() == Some(key);
        let found = self
            .candidates(conn, &self.text.read, &values)?
            .into_iter()
            .find(fits);
        if found.is_some() || !self.text.has_uuid_key {
            return Ok(found);
        }
        let spellings = spellings(&self.table, &self.decoded(key));
        Ok(self
            .candidates(conn, &self.text.read_spellings, &spellings)?
            .into_iter()
            .find(fits))
    }

    fn candidates(
        &self,
        conn: &Connection,
        sql: &str,
        binds: &[Raw],
    ) -> Result<Vec<Vec<Raw>>, RowError> {
        let mut statement = conn.prepare_cached(sql).map_err(self.db())?;
        let images = statement
            .query_map(rusqlite::params_from_iter(binds), |row| self.image(row, 0))
            .map_err(self.db())?;
        images.collect::<Result<_, _>>().map_err(self.db())
    }

    /// The canonical key of stored key values; `None` for NULL, damaged text or a key too long.
    pub(crate) fn canonical_key(&self, stored: Vec<Raw>) -> Option<RowKey> {
        let values: Option<Vec<Value>> = stored
            .into_iter()
            .zip(&self.table.primary_key)
            .map(|(raw, &p)| Some(raw.into_value().ok()?.canonical(self.table.columns[p].ty)))
            .collect();
        RowKey::encode(&values?).ok()
    }

    fn update_stored(
        &self,
        conn: &Connection,
        image: &[Raw],
        row: &Row,
        changed: &[usize],
    ) -> Result<(), RowError> {
        if changed.is_empty() {
            return Ok(());
        }
        let sql = self.text.update_stored(&self.table, changed);
        let stored_key = self.stored_key(image);
        let values: Vec<_> = changed.iter().map(|&p| Bind(&row.0[p])).collect();
        let binds = values.iter().map(|bind| bind as &dyn ToSql);
        self.run(
            conn,
            &sql,
            binds.chain(stored_key.iter().map(|raw| raw as &dyn ToSql)),
        )?;
        Ok(())
    }

    /// The key's values as the columns of the key have them.
    fn decoded(&self, key: &RowKey) -> Vec<Value> {
        let values = key.decode().expect("a RowKey is always an encoding");
        let types = self
            .table
            .primary_key
            .iter()
            .map(|&p| self.table.columns[p].ty);
        values
            .into_iter()
            .zip(types)
            .map(|(value, ty)| value.canonical(ty))
            .collect()
    }

    pub(crate) fn key_of(&self, row: &Row) -> Result<RowKey, RowError> {
        row.key(&self.table).map_err(|source| RowError::Key {
            table: self.table.name.clone(),
            row: format!("{:?}", row.0),
            source,
        })
    }

    /// Whether no type affinity that goes with the declared types can change the key values.
    fn keeps(&self, row: &Row) -> bool {
        self.table
            .primary_key
            .iter()
            .all(|&p| match (&row.0[p], self.table.columns[p].ty) {
                (Value::Integer(_), ColumnType::Integer | ColumnType::Boolean)
                | (Value::Real(_), ColumnType::Real)
                | (Value::Text(_), ColumnType::Text)
                | (Value::Blob(_), _) => true,
                (Value::Text(text), _) => !looks_numeric(text),
                (Value::Null | Value::Integer(_) | Value::Real(_), _) => false,
            })
    }

    fn writable<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = Bind<'a>> {
        self.text.written_positions.iter().map(|&p| Bind(&row.0[p]))
    }

    fn run<T: ToSql>(
        &self,
        conn: &Connection,
        sql: &str,
        binds: impl Iterator<Item = T>,
    ) -> Result<usize, RowError> {
        let mut statement = conn.prepare_cached(sql).map_err(self.db())?;
        statement
            .execute(rusqlite::params_from_iter(binds))
            .map_err(RowError::executing(&self.table))
    }

    fn db(&self) -> impl FnOnce(rusqlite::Error) -> RowError + use<> {
        RowError::database(&self.table)
    }
}

/// Inserts many rows of one table.
pub(crate) struct Inserter<'c> {
    sql: &'c TableSql,
    conn: &'c Connection,
    statement: CachedStatement<'c>,
}

impl Inserter<'_> {
    /// As [`TableSql::insert`], of a row that is known to have a key. `false`: a repeated trigger
    /// had it ignored.
    pub(crate) fn insert(&mut self, row: &Row) -> Result<bool, RowError> {
        if !self.sql.keeps(row) {
            return self.sql.insert(self.conn, row).map(|()| true);
        }
        let values = rusqlite::params_from_iter(self.sql.writable(row));
        self.statement
            .execute(values)
            .map(|written| written > 0)
            .map_err(RowError::executing(&self.sql.table))
    }
}

/// A superset of the texts that NUMERIC affinity turns into numbers.
fn looks_numeric(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit())
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b" \t\n\r\x0b\x0c+-.eE".contains(&b))
}
