//! Finds what was written while nobody marked it (spec CA8).

use rusqlite::Connection;
use syncline_core::{Row, RowKey, Timestamp};

use super::drafts::{Before, DraftChange};
use crate::rows::{RowError, TableSql};

/// How many known keys are looked up between two calls of [`KnownRows::keys_after`].
const KEYS_PER_PAGE: usize = 1000;

/// What is known of the rows of one table: what each held when it was last sealed or applied.
pub trait KnownRows {
    type Error: From<RowError>;

    /// How the row that lies in the table compares with what is known of its key.
    ///
    /// # Errors
    /// The store's.
    fn compare(&mut self, key: &RowKey, row: &Row) -> Result<Comparison, Self::Error>;

    /// At most `limit` keys after `after`, ascending, of the rows that should be in the table.
    ///
    /// # Errors
    /// The store's.
    fn keys_after(
        &mut self,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<RowKey>, Self::Error>;

    /// Takes a row that was changed unmarked. [`DraftChange::before`] is
    /// [`Before::Unknown`] unless the row is new.
    ///
    /// # Errors
    /// The store's.
    fn found(&mut self, change: DraftChange) -> Result<(), Self::Error>;

    /// Takes a row that has no canonical form.
    ///
    /// # Errors
    /// The store's.
    fn unfit(&mut self, error: RowError) -> Result<(), Self::Error>;
}

/// What [`KnownRows::compare`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The row is as it should be.
    Same,
    Different,
    /// No row with this key should be there.
    Unknown,
}

/// How many rows were looked at, and how many of them were changed unmarked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rescanned {
    pub rows: u64,
    pub changed: u64,
}

/// Compares every row of a table with what is known of it and hands over what differs.
///
/// To be called with no marks left for the table and capture installed, in the caller's
/// transaction. Memory does not grow with the table.
///
/// # Errors
/// What `known` returns; the database's, turned into it.
pub fn rescan<K: KnownRows>(
    conn: &Connection,
    sql: &TableSql,
    known: &mut K,
    now: Timestamp,
) -> Result<Rescanned, K::Error> {
    let mut total = Rescanned::default();
    let change = |key: RowKey, before: Before, after: Option<Row>| DraftChange {
        table: sql.table().number,
        key,
        before,
        after,
        first_marked_at: now,
    };
    sql.for_each(conn, |row| {
        total.rows += 1;
        let keyed = row.and_then(|row| Ok((sql.key_of(&row)?, row)));
        let (key, row) = match keyed {
            Ok(keyed) => keyed,
            Err(error) => return known.unfit(error),
        };
        let before = match known.compare(&key, &row)? {
            Comparison::Same => return Ok(()),
            Comparison::Different => Before::Unknown,
            Comparison::Unknown => Before::Absent,
        };
        total.changed += 1;
        known.found(change(key, before, Some(row)))
    })?;
    let mut after: Option<RowKey> = None;
    loop {
        let keys = known.keys_after(after.as_ref(), KEYS_PER_PAGE)?;
        for key in &keys {
            if !sql.exists(conn, key)? {
                total.changed += 1;
                known.found(change(key.clone(), Before::Unknown, None))?;
            }
        }
        match keys.into_iter().next_back() {
            Some(last) => after = Some(last),
            None => return Ok(total),
        }
    }
}
