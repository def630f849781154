//! Storing row images, and finding out what the database made of them.

use rusqlite::{ffi, params_from_iter};
use syncline_core::{ColumnType, Row, Value, digest::content_hash};
use syncline_store::{RowWrite, StorageError, WriteKind};

use crate::{
    catalog::Entry,
    explain,
    fault::{Fault, Result},
    group::SqliteGroup,
    rows::key_values,
    value::Bind,
};

impl SqliteGroup<'_> {
    /// Writes images in order; those that find their unique values still taken come later.
    pub(crate) fn write_all(&mut self, writes: &[RowWrite<'_>]) -> Result<(), StorageError> {
        let mut late = Vec::new();
        let is_usual = |write: &RowWrite<'_>| self.is_usual(write);
        let runs = writes.chunk_by(|a, b| a.table == b.table && is_usual(a) && is_usual(b));
        for mut run in runs.collect::<Vec<_>>() {
            while let Some(first) = run.first() {
                if self.is_usual(first) {
                    let inserted = self.insert(run)?;
                    run = &run[inserted..];
                }
                // What is not usual, or went wrong.
                if let Some((write, rest)) = run.split_first() {
                    late.extend(self.attempt(std::iter::once(write))?);
                    run = rest;
                }
            }
        }
        // In the other direction a chain of values moves up in one go.
        let stuck = self.attempt(late.into_iter().rev())?;
        if stuck.is_empty() {
            return Ok(());
        }
        self.write_cycle(&stuck)
    }

    /// Whether the write inserts a whole row that nothing reacts to: most do.
    fn is_usual(&self, write: &RowWrite<'_>) -> bool {
        write.kind() == WriteKind::Insert
            && write.columns.is_empty()
            && matches!(self.catalog.entry(write.table), Ok(entry) if !entry.reacts(WriteKind::Insert))
    }

    /// Inserts rows of one table with one statement, up to the first that it cannot insert or that
    /// the database would convert: how many. All are [usual](Self::is_usual).
    fn insert(&mut self, writes: &[RowWrite<'_>]) -> Result<usize, StorageError> {
        let result = self.insert_usual(writes);
        result.map_err(|fault| {
            self.note(&fault);
            fault.into()
        })
    }

    fn insert_usual(&mut self, writes: &[RowWrite<'_>]) -> Result<usize> {
        let Some(first) = writes.first() else {
            return Ok(0);
        };
        let entry = self.catalog.entry(first.table)?.clone();
        self.set_capture(false)?;
        self.hashes.reserve(writes.len());
        let mut statement = self.storage.conn().prepare_cached(&entry.text.insert)?;
        for (place, write) in writes.iter().enumerate() {
            let Some(row) = write.row else {
                return Ok(place);
            };
            if !entry.inserted(&[]).all(|p| entry.keeps(p, &row.0[p])) {
                return Ok(place);
            }
            let values = entry.inserted(&[]).map(|p| Bind(&row.0[p]));
            match statement.execute(params_from_iter(values)) {
                Ok(1) => {}
                Ok(_) => return Ok(place),
                Err(error) if is_of_the_row(&error) => return Ok(place),
                // The transaction may be gone: nothing is to be tried again.
                Err(error) => return Err(error.into()),
            }
            let hash = content_hash(&entry.table, row);
            self.hashes
                .insert((write.table, write.key.clone()), Some(hash));
        }
        Ok(writes.len())
    }

    /// Writes what can be written and returns what a unique constraint holds up.
    fn attempt<'w, 'r: 'w>(
        &mut self,
        writes: impl Iterator<Item = &'w RowWrite<'r>>,
    ) -> Result<Vec<&'w RowWrite<'r>>, StorageError> {
        let mut late = Vec::new();
        for write in writes {
            match self.write_one(write, false) {
                Ok(()) => {}
                Err(fault) if is_taken(&fault) => late.push(write),
                Err(fault) => return Err(self.explain(write, fault)),
            }
        }
        Ok(late)
    }

    /// Rows that wait for each other's unique values: each gives way, then all are written.
    fn write_cycle(&mut self, stuck: &[&RowWrite<'_>]) -> Result<(), StorageError> {
        let mut gone = Vec::new();
        for write in stuck {
            let gave_way = write.kind() == WriteKind::Update;
            let gone_now = if gave_way {
                self.give_way(write)
                    .map_err(|fault| self.explain(write, fault))?
            } else {
                false
            };
            gone.push(gone_now);
        }
        for (write, gone) in stuck.iter().zip(gone) {
            self.write_one(write, gone)
                .map_err(|fault| self.explain(write, fault))?;
        }
        Ok(())
    }

    /// Frees the unique values that a row is about to change: by NULL where that is allowed, else
    /// by values that nobody has, else by deleting the row, if nothing but its image hangs on it.
    /// `true`: deleted.
    fn give_way(&mut self, write: &RowWrite<'_>) -> Result<bool> {
        let entry = self.catalog.entry(write.table)?.clone();
        let taken: Vec<usize> = write
            .columns
            .iter()
            .copied()
            .filter(|p| entry.uniques.contains(p))
            .collect();
        let key = self.stored_key(&entry, write)?;
        self.set_capture(entry.reacts(WriteKind::Update))?;
        if !taken.is_empty() {
            let nulls = vec![Value::Null; taken.len()];
            for values in [nulls, self.unlikely(&entry, &taken)?] {
                let bound = values.iter().chain(&key);
                if self.execute(&entry.update(&taken), bound).is_ok() {
                    return Ok(false);
                }
            }
        }
        let kinds = [WriteKind::Insert, WriteKind::Update, WriteKind::Delete];
        if !entry.is_whole || kinds.into_iter().any(|kind| entry.reacts(kind)) {
            return Ok(false);
        }
        self.execute(&entry.text.delete, key.iter())?;
        Ok(true)
    }

    /// Values that no row has, for columns that are written again in the same transaction.
    fn unlikely(&self, entry: &Entry, positions: &[usize]) -> Result<Vec<Value>> {
        let sql = "SELECT random(), hex(randomblob(16))";
        let mut statement = self.conn().prepare_cached(sql)?;
        let mut values = Vec::with_capacity(positions.len());
        for &position in positions {
            let (number, text): (i64, String) =
                statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            values.push(match entry.table.columns[position].ty {
                ColumnType::Integer | ColumnType::Boolean => Value::Integer(number),
                ColumnType::Real => Value::Real(f64::from_bits(number.unsigned_abs() >> 2)),
                ColumnType::Blob => Value::Blob(text.into_bytes()),
                ColumnType::Text
                | ColumnType::Json
                | ColumnType::Timestamp
                | ColumnType::Uuid
                | ColumnType::Any => Value::Text(text),
            });
        }
        Ok(values)
    }

    fn write_one(&mut self, write: &RowWrite<'_>, gone: bool) -> Result<()> {
        let entry = self.catalog.entry(write.table)?.clone();
        let kind = if gone {
            WriteKind::Insert
        } else {
            write.kind()
        };
        let observed = entry.reacts(kind);
        self.set_capture(observed)?;
        let hash = self.write_row(&entry, write, kind, observed)?;
        self.hashes.insert((write.table, write.key.clone()), hash);
        Ok(())
    }

    /// The row's content hash, where what is stored is known to be the image.
    fn write_row(
        &mut self,
        entry: &Entry,
        write: &RowWrite<'_>,
        kind: WriteKind,
        observed: bool,
    ) -> Result<Option<u64>> {
        let key = self.stored_key(entry, write)?;
        let had_mark = observed && entry.is_marked(self.conn(), &key)?;
        let Some(row) = write.row else {
            self.execute(&entry.text.delete, key.iter())?;
            if observed {
                self.settle(entry, write, &key, had_mark)?;
            }
            return Ok(None);
        };
        let defaults: &[usize] = if write.kind() == WriteKind::Insert {
            write.columns
        } else {
            &[]
        };
        let columns: Vec<usize> = match kind {
            WriteKind::Insert => entry.inserted(defaults).collect(),
            WriteKind::Update => write.columns.to_vec(),
            WriteKind::Delete => unreachable!("a write with a row is no delete"),
        };
        let stored = self.run(entry, kind, row, &columns, defaults, &key)?;
        if !defaults.is_empty() {
            if !had_mark {
                self.mark(entry, &key, None)?;
            }
            return Ok(None);
        }
        let as_given = columns.iter().all(|&p| entry.keeps(p, &row.0[p]));
        let is_known =
            (stored && as_given && !observed) || self.settle(entry, write, &key, had_mark)?;
        Ok(is_known.then(|| content_hash(&entry.table, row)))
    }

    /// Runs the statement; `false` when there was no row to update.
    fn run(
        &self,
        entry: &Entry,
        kind: WriteKind,
        row: &Row,
        columns: &[usize],
        defaults: &[usize],
        key: &[Value],
    ) -> Result<bool> {
        let values = columns.iter().map(|&p| &row.0[p]);
        if kind == WriteKind::Update {
            if columns.is_empty() {
                return Ok(true);
            }
            return Ok(self.execute(&entry.update(columns), values.chain(key))? == 1);
        }
        Ok(self.execute(&entry.insert(defaults), values)? == 1)
    }

    /// Runs a statement that writes one row. Rows may come before those that they refer to: from
    /// the first that does, references are judged when everything of the group is there. Not from
    /// the beginning, as asking for it has SQLite prepare every statement anew.
    ///
    /// What SQLite finds wrong in running a statement that it can prepare is an expression over
    /// the row's values, as `json_extract` of what is no JSON in an index.
    fn execute<'v>(
        &self,
        sql: &str,
        values: impl Iterator<Item = &'v Value> + Clone,
    ) -> Result<usize> {
        let run = || {
            let bound = params_from_iter(values.clone().map(Bind));
            self.conn().prepare_cached(sql)?.execute(bound)
        };
        let is = |error: &rusqlite::Error, code| {
            error
                .sqlite_error()
                .is_some_and(|error| error.extended_code == code)
        };
        let mut result = run();
        if let Err(error) = &result
            && is(error, ffi::SQLITE_CONSTRAINT_FOREIGNKEY)
            && !self.defers.replace(true)
        {
            self.conn()
                .execute_batch("PRAGMA defer_foreign_keys = ON")?;
            result = run();
        }
        let error = match result {
            Ok(rows) => return Ok(rows),
            Err(error) => error,
        };
        let is_general = is(&error, ffi::SQLITE_ERROR);
        // After a change of the schema, running prepares anew.
        if is_general && self.conn().prepare(sql).is_ok() {
            return Err(Fault::Expression);
        }
        Err(error.into())
    }

    /// Compares the stored row with the image. Equal: the mark that our own write left goes.
    /// Different: the row stays marked, as changed from the image.
    fn settle(
        &mut self,
        entry: &Entry,
        write: &RowWrite<'_>,
        key: &[Value],
        had_mark: bool,
    ) -> Result<bool> {
        let stored = entry.read(self.conn(), write.key)?;
        let equal = stored.as_ref() == write.row;
        if !had_mark {
            if equal {
                entry.unmark(self.conn(), key)?;
            } else {
                self.mark(entry, key, write.row)?;
            }
        }
        Ok(equal && !had_mark)
    }

    /// The key's values as the database has them.
    fn stored_key(&self, entry: &Entry, write: &RowWrite<'_>) -> Result<Vec<Value>> {
        let values = key_values(write.key)?;
        let spelled_otherwise = !entry.uuid_keys.is_empty()
            && write.kind() != WriteKind::Insert
            && !entry.exists(self.conn(), &values)?;
        if spelled_otherwise && let Some(stored) = entry.other_spelling(self.conn(), &values)? {
            return Ok(stored);
        }
        Ok(values)
    }

    fn explain(&mut self, write: &RowWrite<'_>, fault: Fault) -> StorageError {
        self.note(&fault);
        match self.catalog.entry(write.table) {
            Ok(entry) => explain::constraint(self.conn(), &entry.table, fault),
            Err(_) => fault.into(),
        }
    }
}

/// The row is refused, and the transaction as it was.
fn is_of_the_row(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code & 0xFF);
    matches!(code, Some(ffi::SQLITE_CONSTRAINT | ffi::SQLITE_ERROR))
}

/// Another row has the key or a unique value.
fn is_taken(fault: &Fault) -> bool {
    matches!(
        fault.code(),
        Some(
            ffi::SQLITE_CONSTRAINT_UNIQUE
                | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                | ffi::SQLITE_CONSTRAINT_ROWID
        )
    )
}
