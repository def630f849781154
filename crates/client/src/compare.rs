//! Comparing a table of a file with the server's rows of it, by hashes, in key order.

use std::{collections::VecDeque, path::Path};

use rusqlite::Connection as Sqlite;
use syncline_core::{Row, RowKey, Table, digest::content_hash, key::KeyError, wire::Subscription};
use syncline_replica::{
    Keyring, ReplicaError,
    rows::{RowError, TableSql},
};

use crate::{
    api::{Api, RemoteHash},
    database::database_error,
    error::ClientError,
};

/// Differences that are listed one by one; all are counted.
pub(crate) const LISTED_MAX: usize = 100;
/// Rows read from the file at once.
const BATCH: u32 = 1_000;

/// What the comparison of one table found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    pub equal: u64,
    pub only_here: u64,
    pub only_there: u64,
    pub different: u64,
    /// The first hundred; all are counted.
    pub differences: Vec<Difference>,
}

/// One row that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub key: RowKey,
    pub kind: DifferenceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    OnlyHere,
    OnlyThere,
    Different,
}

impl Comparison {
    /// Whether both sides have the same rows.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.only_here == 0 && self.only_there == 0 && self.different == 0
    }

    fn note(&mut self, key: RowKey, kind: DifferenceKind) {
        match kind {
            DifferenceKind::OnlyHere => self.only_here += 1,
            DifferenceKind::OnlyThere => self.only_there += 1,
            DifferenceKind::Different => self.different += 1,
        }
        if self.differences.len() < LISTED_MAX {
            self.differences.push(Difference { key, kind });
        }
    }
}

/// Compares the rows of `table` (as the server knows it, columns that the file lacks left out)
/// with the server's, encrypted columns sealed with `keys`. Both sides are walked in key order, so memory stays bounded. `is_another`
/// says of rows that differ whether they are two rows under one key.
///
/// # Errors
/// The file cannot be read, or the server not reached.
pub async fn compare_table(
    conn: &Sqlite,
    path: &Path,
    table: &Table,
    api: &Api,
    keys: &Keyring,
    is_another: impl FnMut(&RowKey) -> Result<bool, ClientError>,
) -> Result<Comparison, ClientError> {
    let mut here = Local::read(conn, path, table, keys)?;
    let plain = table.clone().opened();
    let has_older = keys.ids().count() > 1;
    let is_older = |key: &RowKey, hash: u64| {
        if !has_older
            || table
                .columns
                .iter()
                .all(|column| column.encrypted.is_none())
        {
            return Ok(false);
        }
        let row = TableSql::new(&plain).read(conn, key).map_err(|error| {
            let message = format!("{} in {}: {error}", table.name, path.display());
            ClientError::TableUnfit { message }
        })?;
        let is = |row: &Row| content_hash(table, row) == hash;
        Ok(row.is_some_and(|row| keys.is_any_sealed(table, key, row, is)))
    };
    merge(
        || here.next(),
        (&table.name, None),
        api,
        is_older,
        is_another,
    )
    .await
}

/// Compares the rows of a table that the server gave with the server's, what the file has no
/// columns for included. Rows of the file that the server did not give are another question
/// ([`Replica::check_local`]). `there`: the server's name of the table. `hashes` gives the next rows
/// after a key, as [`Replica::hashes`] does. `asked`: what the file subscribes to.
///
/// [`Replica::check_local`]: syncline_replica::Replica::check_local
/// [`Replica::hashes`]: syncline_replica::Replica::hashes
///
/// # Errors
/// The file cannot be read, or the server not reached.
pub(crate) async fn compare_known(
    path: &Path,
    there: &str,
    asked: Option<&[Subscription]>,
    api: &Api,
    mut hashes: impl FnMut(Option<&RowKey>, usize) -> Result<Vec<(RowKey, u64)>, ReplicaError>,
) -> Result<Comparison, ClientError> {
    let mut batch: VecDeque<(RowKey, u64)> = VecDeque::new();
    let mut after: Option<RowKey> = None;
    let next = || {
        if batch.is_empty() {
            let read = hashes(after.as_ref(), BATCH as usize);
            batch = read
                .map_err(|error| ClientError::replica(path, error))?
                .into();
        }
        let next = batch.pop_front();
        if let Some((key, _)) = &next {
            after = Some(key.clone());
        }
        Ok(next)
    };
    merge(next, (there, asked), api, |_, _| Ok(false), |_| Ok(false)).await
}

/// Walks both sides in key order. `is_older`: whether the row of this key is the one with this hash
/// after all, sealed with older keys.
async fn merge(
    mut here: impl FnMut() -> Result<Option<(RowKey, u64)>, ClientError>,
    (table, asked): (&str, Option<&[Subscription]>),
    api: &Api,
    is_older: impl Fn(&RowKey, u64) -> Result<bool, ClientError>,
    mut is_another: impl FnMut(&RowKey) -> Result<bool, ClientError>,
) -> Result<Comparison, ClientError> {
    let mut there = Remote {
        api,
        table,
        asked,
        batch: VecDeque::new(),
        after: None,
        ended: false,
    };
    let mut found = Comparison::default();
    let mut local = here()?;
    let mut remote = there.next().await?;
    loop {
        match (local.take(), remote.take()) {
            (None, None) => return Ok(found),
            (Some((key, _)), None) => {
                found.note(key, DifferenceKind::OnlyHere);
                local = here()?;
            }
            (None, Some(row)) => {
                found.note(row.key, DifferenceKind::OnlyThere);
                remote = there.next().await?;
            }
            (Some((key, hash)), Some(row)) => match key.cmp(&row.key) {
                std::cmp::Ordering::Less => {
                    found.note(key, DifferenceKind::OnlyHere);
                    local = here()?;
                    remote = Some(row);
                }
                std::cmp::Ordering::Greater => {
                    found.note(row.key, DifferenceKind::OnlyThere);
                    local = Some((key, hash));
                    remote = there.next().await?;
                }
                std::cmp::Ordering::Equal => {
                    if hash == row.hash || is_older(&key, row.hash)? {
                        found.equal += 1;
                    } else if is_another(&key)? {
                        found.note(key.clone(), DifferenceKind::OnlyHere);
                        found.note(key, DifferenceKind::OnlyThere);
                    } else {
                        found.note(key, DifferenceKind::Different);
                    }
                    local = here()?;
                    remote = there.next().await?;
                }
            },
        }
    }
}

/// The comparison with a table that the server does not have yet: every row is only here.
pub(crate) fn compare_with_nothing(
    conn: &Sqlite,
    path: &Path,
    table: &Table,
) -> Result<Comparison, ClientError> {
    // The server is told of no encrypted columns by adding a table.
    let mut here = Local::read(conn, path, table, &Keyring::default())?;
    let mut found = Comparison::default();
    while let Some((key, _)) = here.next()? {
        found.note(key, DifferenceKind::OnlyHere);
    }
    Ok(found)
}

/// The file's hashes in key order: sorted in a private database that SQLite keeps in memory or, if
/// it grows, in a temporary file, because a table's own order may be another.
struct Local {
    sorted: Sqlite,
    batch: VecDeque<(RowKey, u64)>,
    after: Option<RowKey>,
    ended: bool,
}

impl Local {
    fn read(
        conn: &Sqlite,
        path: &Path,
        table: &Table,
        keys: &Keyring,
    ) -> Result<Self, ClientError> {
        if keys.is_empty()
            && table
                .columns
                .iter()
                .any(|column| column.encrypted.is_some())
        {
            let table = table.name.clone();
            return Err(ClientError::replica(path, ReplicaError::NoKey { table }));
        }
        // As the app has it: in the clear.
        let plain = table.clone().opened();
        let unfit = |error: &dyn std::fmt::Display| ClientError::TableUnfit {
            message: format!("{} in {}: {error}", table.name, path.display()),
        };
        let sorted = Sqlite::open("").map_err(|error| database_error(path, error))?;
        sorted
            .execute_batch(
                "PRAGMA journal_mode = OFF;
                 CREATE TABLE hashes(key BLOB PRIMARY KEY, hash INTEGER) WITHOUT ROWID; BEGIN",
            )
            .map_err(|error| database_error(path, error))?;
        {
            let mut insert = sorted
                .prepare("INSERT INTO hashes VALUES (?1, ?2)")
                .map_err(|error| database_error(path, error))?;
            TableSql::new(&plain)
                .for_each(conn, |row| {
                    let row = row?;
                    let key = row.key(table).map_err(RowProblem::Key)?;
                    let row = keys.seal_row(table, &key, row);
                    let row = row.expect("there is a key where one is needed");
                    let hash = content_hash(table, &row).cast_signed();
                    insert
                        .execute((key.as_bytes(), hash))
                        .map_err(RowProblem::Database)?;
                    Ok(())
                })
                .map_err(|error: RowProblem| unfit(&error))?;
        }
        Ok(Self {
            sorted,
            batch: VecDeque::new(),
            after: None,
            ended: false,
        })
    }

    fn next(&mut self) -> Result<Option<(RowKey, u64)>, ClientError> {
        if self.batch.is_empty() && !self.ended {
            let batch = self
                .read_batch()
                .map_err(|error| database_error(Path::new("temporary"), error))?;
            self.ended = batch.len() < BATCH as usize;
            self.after = batch
                .back()
                .map(|(key, _)| key.clone())
                .or(self.after.take());
            self.batch = batch;
        }
        Ok(self.batch.pop_front())
    }

    fn read_batch(&self) -> rusqlite::Result<VecDeque<(RowKey, u64)>> {
        let sql = "SELECT key, hash FROM hashes WHERE key > ?1 ORDER BY key LIMIT ?2";
        let mut statement = self.sorted.prepare_cached(sql)?;
        let after = self.after.as_ref().map_or(&[][..], RowKey::as_bytes);
        let rows = statement.query_map((after, BATCH), |row| {
            let bytes: Vec<u8> = row.get(0)?;
            let key = RowKey::from_bytes(&bytes).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(
                    0,
                    rusqlite::types::Type::Blob,
                    error.into(),
                )
            })?;
            Ok((key, row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        rows.collect()
    }
}

/// Why a row cannot be compared.
#[derive(Debug, thiserror::Error)]
enum RowProblem {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Key(KeyError),
    #[error(transparent)]
    Database(rusqlite::Error),
}

struct Remote<'a> {
    api: &'a Api,
    table: &'a str,
    asked: Option<&'a [Subscription]>,
    batch: VecDeque<RemoteHash>,
    after: Option<RowKey>,
    ended: bool,
}

impl Remote<'_> {
    async fn next(&mut self) -> Result<Option<RemoteHash>, ClientError> {
        if self.batch.is_empty() && !self.ended {
            let (rows, more) = self
                .api
                .hashes(self.table, self.after.as_ref(), self.asked)
                .await?;
            self.ended = !more;
            self.after = rows.last().map(|row| row.key.clone()).or(self.after.take());
            self.batch = rows.into();
        }
        Ok(self.batch.pop_front())
    }
}
