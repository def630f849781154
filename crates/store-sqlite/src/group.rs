//! One open transaction of the pipeline.

use std::{cell::Cell, collections::HashMap, sync::Arc};

use rusqlite::{Connection, ffi};
use syncline_core::{Row, RowKey, TableNumber, Value};
use syncline_store::{
    Group, Head, Ledger, Loaded, LoadedRow, MarksTaken, Room, RowWrite, StorageError, Want,
    WriteKind, accounts::AccountRecords,
};

use crate::{
    accounts::Records,
    catalog::{Catalog, Entry},
    explain,
    fault::{Fault, Result},
    ledger::{self, Hashes},
    load, marks,
    storage::SqliteStorage,
    value,
};

/// One open transaction. Dropping it rolls back.
#[derive(Debug)]
pub struct SqliteGroup<'s> {
    pub(crate) storage: &'s mut SqliteStorage,
    pub(crate) catalog: Arc<Catalog>,
    head: Head,
    is_open: bool,
    /// Marks that came to nothing were cleared, and nothing else has happened: that is worth
    /// keeping even when the group comes to nothing too.
    has_only_tidied: bool,
    is_untouched: bool,
    /// Whether tables may have rows that the ledger does not know: there were marks, or we wrote
    /// some. `None`: nobody has looked for marks yet.
    has_unknown: Option<bool>,
    /// There is no mark, and no table to be compared: nobody else writes meanwhile.
    pub(crate) nothing_pends: bool,
    /// Whether triggers, where they fire, mark what we write.
    captures: bool,
    /// References between rows are judged at the end.
    pub(crate) defers: Cell<bool>,
    /// Every row written, with its content hash where the image is known to be what is stored.
    pub(crate) hashes: Hashes,
}

impl<'s> SqliteGroup<'s> {
    /// `storage` has an open write transaction.
    pub(crate) fn new(storage: &'s mut SqliteStorage, catalog: Arc<Catalog>, head: Head) -> Self {
        Self {
            storage,
            catalog,
            head,
            is_open: true,
            has_only_tidied: false,
            is_untouched: true,
            has_unknown: None,
            nothing_pends: false,
            captures: true,
            defers: Cell::new(false),
            hashes: HashMap::new(),
        }
    }

    pub(crate) fn conn(&self) -> &Connection {
        self.storage.conn()
    }

    /// Remembers that a fault shook the trust in the connection.
    pub(crate) fn note(&mut self, fault: &Fault) {
        self.storage.note(fault);
    }

    fn noted<T>(&mut self, result: Result<T>) -> Result<T, StorageError> {
        result.map_err(|fault| {
            self.note(&fault);
            fault.into()
        })
    }

    /// Something is about to be written that a rollback has to undo.
    fn touch(&mut self) {
        self.is_untouched = false;
        self.has_only_tidied = false;
    }

    fn finish(&mut self) -> Result<(), StorageError> {
        if self.storage.triggers_fire()
            && let Err(fault) = self.mark_own(true)
        {
            self.note(&fault);
            return Err(fault.into());
        }
        let Err(error) = self.conn().execute_batch("COMMIT") else {
            self.is_open = false;
            return Ok(());
        };
        let fault = Fault::Sqlite(error);
        self.note(&fault);
        if fault.code() == Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) {
            let mut written: Vec<_> = self.hashes.keys().collect();
            written.sort_unstable();
            return Err(explain::broken_reference(
                self.conn(),
                &self.catalog,
                &written,
            ));
        }
        if !matches!(fault.code(), Some(code) if code & 0xFF == ffi::SQLITE_BUSY) {
            // Whatever the disk says later: this commit is not known to be on it.
            self.storage.distrust();
        }
        Err(fault.into())
    }

    /// Has what the next write does besides marked, or nothing of it.
    pub(crate) fn set_capture(&mut self, on: bool) -> Result<()> {
        if on {
            self.nothing_pends = false;
            self.storage.fire_triggers()?;
        }
        match self.storage.triggers_fire() {
            true => self.mark_own(on),
            false => Ok(()),
        }
    }

    /// Marks a row, whatever triggers do.
    pub(crate) fn mark(
        &mut self,
        entry: &Entry,
        key: &[Value],
        before: Option<&Row>,
    ) -> Result<()> {
        self.nothing_pends = false;
        entry.mark(self.conn(), key, before)
    }

    /// Tells the triggers whether to mark what this transaction writes.
    fn mark_own(&mut self, on: bool) -> Result<()> {
        if self.captures == on {
            return Ok(());
        }
        let sql = "UPDATE syncline_capture SET off = ?1";
        self.conn().prepare_cached(sql)?.execute([!on])?;
        self.captures = on;
        Ok(())
    }

    fn scan_rows(
        &self,
        table: TableNumber,
        after: Option<&RowKey>,
        mut room: Room,
    ) -> Result<Vec<(RowKey, LoadedRow)>> {
        let entry = self.catalog.entry(table)?;
        let sql = "SELECT key, version, created, owner, author, deleted, state, buckets
                   FROM syncline_rows WHERE table_no = ?1 AND key > ?2 AND deleted = 0
                   ORDER BY key LIMIT ?3";
        let after = after.map_or(&[][..], RowKey::as_bytes);
        let mut statement = self.conn().prepare_cached(sql)?;
        let mut rows = statement.query((table.0, after, value::limit(room.rows)))?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            let key = value::key(row, 0)?;
            let meta = load::read_meta(row, 1)?;
            let row = entry.read(self.conn(), &key)?;
            room.take(key.as_bytes().len(), &row);
            out.push((key, LoadedRow { row, meta }));
            if room.is_full() {
                break;
            }
        }
        Ok(out)
    }
}

impl Group for SqliteGroup<'_> {
    fn head(&self) -> Head {
        self.head
    }

    fn reacts(&self, table: TableNumber, kind: WriteKind) -> bool {
        self.catalog
            .entries
            .get(&table)
            .is_some_and(|entry| entry.reacts(kind))
    }

    async fn load(&mut self, wants: &[Want], loaded: &mut Loaded) -> Result<(), StorageError> {
        let result = load::load(
            self.conn(),
            &self.catalog,
            wants,
            self.has_unknown.unwrap_or(true),
            loaded,
        );
        self.noted(result)
    }

    async fn scan(
        &mut self,
        table: TableNumber,
        after: Option<&RowKey>,
        room: Room,
    ) -> Result<Vec<(RowKey, LoadedRow)>, StorageError> {
        let result = self.scan_rows(table, after, room);
        self.noted(result)
    }

    async fn write_rows(&mut self, writes: &[RowWrite<'_>]) -> Result<(), StorageError> {
        self.touch();
        self.has_unknown = Some(true);
        self.write_all(writes)
    }

    async fn take_marks(&mut self, room: Room) -> Result<MarksTaken, StorageError> {
        if self.nothing_pends {
            return Ok(MarksTaken::default());
        }
        let result = marks::take(self.conn(), &self.catalog, room);
        let marks::Taken { taken, tidied } = self.noted(result)?;
        let marks = &taken.marks;
        self.nothing_pends = !tidied;
        self.has_unknown = Some(self.has_unknown == Some(true) || !marks.is_empty());
        if !marks.is_empty() {
            self.touch();
        } else if tidied && self.is_untouched {
            self.has_only_tidied = true;
        }
        for mark in marks {
            if let Some(hash) = self.hashes.get_mut(&(mark.table, mark.key.clone())) {
                *hash = None;
            }
        }
        Ok(taken)
    }

    async fn clear_rules(&mut self) -> Result<(), StorageError> {
        self.touch();
        let result = ledger::clear_rules(self.conn());
        self.noted(result)
    }

    async fn counted(&mut self) -> Result<Option<[u8; 32]>, StorageError> {
        let result = ledger::counted(self.conn());
        self.noted(result)
    }

    async fn clear_owned(&mut self) -> Result<(), StorageError> {
        self.touch();
        let result = ledger::clear_owned(self.conn());
        self.noted(result)
    }

    async fn write_ledger(&mut self, ledger: &Ledger) -> Result<(), StorageError> {
        self.touch();
        let result = ledger::write(
            self.conn(),
            &self.catalog,
            ledger,
            &self.hashes,
            self.nothing_pends,
        );
        self.noted(result)
    }

    fn records(&mut self) -> Option<Box<dyn AccountRecords + '_>> {
        self.touch();
        Some(Box::new(Records(self.conn())))
    }

    async fn commit(mut self) -> Result<(), StorageError> {
        self.finish()
    }

    async fn rollback(self) {
        drop(self);
    }
}

impl Drop for SqliteGroup<'_> {
    fn drop(&mut self) {
        if self.is_open && self.has_only_tidied {
            self.is_open = self.conn().execute_batch("COMMIT").is_err();
        }
        if self.is_open {
            self.storage.roll_back();
        }
        if self.defers.get() {
            // SQLite judges references at once again, but a statement that it prepared meanwhile
            // counts what is missing until its end: without triggers nothing takes back what such
            // a statement wrote, whose error is all that is seen of it.
            self.conn().flush_prepared_statement_cache();
        }
    }
}
