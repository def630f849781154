//! A group: a copy of everything, put back by commit.

use std::{collections::BTreeMap, ops::Bound};

use syncline_core::{Column, RowKey, TableNumber, Value, schema::OnDelete};

use super::{Data, MemoryStorage, data::violated, lock};
use crate::{
    accounts::AccountRecords,
    marks::{Mark, MarksTaken},
    meta::RowMeta,
    room::Room,
    storage::{Group, Head, Ledger, RowWrite, StorageError, WriteKind},
    want::{Loaded, LoadedRow, Want},
};

/// One open transaction of a [`MemoryStorage`].
#[derive(Debug)]
pub struct MemoryGroup<'s> {
    storage: &'s mut MemoryStorage,
    working: Data,
}

impl<'s> MemoryGroup<'s> {
    pub(super) fn new(storage: &'s mut MemoryStorage, working: Data) -> Self {
        Self { storage, working }
    }

    /// Stores one image as the database would: with defaults and triggers.
    fn write_row(&mut self, write: &RowWrite<'_>) -> Result<(), StorageError> {
        let kind = write.kind();
        let table = self.working.table(write.table)?.clone();
        let mut stored = write.row.cloned();
        if let (Some(row), WriteKind::Update) = (&mut stored, kind) {
            // Like any database: nothing is written but the columns that are said to differ.
            let before = self.working.rows.get(&write.table);
            if let Some(before) = before.and_then(|rows| rows.get(write.key)) {
                let wanted = std::mem::replace(row, before.clone());
                for &position in write.columns {
                    row.0[position] = wanted.0[position].clone();
                }
            }
        }
        if let (Some(row), WriteKind::Insert) = (&mut stored, kind) {
            for &position in write.columns {
                row.0[position] = default(&table.columns[position]);
            }
        }
        for trigger in &self.storage.triggers {
            if (trigger.table, trigger.kind) == (write.table, kind) {
                stored = stored.map(|row| (trigger.change)(&row));
            }
        }
        let rows = self.working.rows.get(&write.table);
        let exists = rows.is_some_and(|rows| rows.contains_key(write.key));
        match kind {
            WriteKind::Insert if exists => return Err(violated(&table, "the key is taken")),
            // A cascade of the same group was faster.
            WriteKind::Update if !exists => stored = None,
            WriteKind::Insert | WriteKind::Update | WriteKind::Delete => {}
        }
        let is_as_written = stored.as_ref() == write.row;
        let before = self.working.write(write.table, write.key, stored);
        if !is_as_written {
            let mark = (write.table, write.key.clone());
            self.working
                .marks
                .entry(mark)
                .or_insert_with(|| before.clone());
        }
        match (kind, before) {
            (WriteKind::Delete, Some(deleted)) => self.working.cascade(write.table, &deleted),
            (WriteKind::Insert | WriteKind::Update | WriteKind::Delete, _) => Ok(()),
        }
    }
}

impl Group for MemoryGroup<'_> {
    fn head(&self) -> Head {
        self.working.head
    }

    fn reacts(&self, table: TableNumber, kind: WriteKind) -> bool {
        let triggers = &self.storage.triggers;
        let name = self
            .working
            .schema
            .by_number(table)
            .map(|table| &table.name);
        let children = self
            .working
            .schema
            .tables
            .iter()
            .flat_map(|t| &t.foreign_keys);
        let acts = |action| matches!(action, OnDelete::Cascade | OnDelete::SetNull);
        triggers
            .iter()
            .any(|trigger| (trigger.table, trigger.kind) == (table, kind))
            || kind == WriteKind::Delete
                && children
                    .into_iter()
                    .any(|k| Some(&k.parent) == name && acts(k.on_delete))
    }

    async fn load(&mut self, wants: &[Want], loaded: &mut Loaded) -> Result<(), StorageError> {
        #[cfg(test)]
        lock(&self.storage.asked).extend_from_slice(wants);
        self.working.answer(wants, loaded);
        Ok(())
    }

    async fn scan(
        &mut self,
        table: TableNumber,
        after: Option<&RowKey>,
        mut room: Room,
    ) -> Result<Vec<(RowKey, LoadedRow)>, StorageError> {
        let empty = BTreeMap::new();
        let metas: &BTreeMap<RowKey, RowMeta> = self.working.metas.get(&table).unwrap_or(&empty);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let live = metas
            .range::<RowKey, _>((start, Bound::Unbounded))
            .filter(|(_, m)| !m.deleted);
        let mut out = Vec::new();
        for (key, _) in live {
            if room.is_full() {
                break;
            }
            if let Some(loaded) = self.working.loaded(table, key) {
                room.take(key.as_bytes().len(), &loaded.row);
                out.push((key.clone(), loaded));
            }
        }
        Ok(out)
    }

    async fn write_rows(&mut self, writes: &[RowWrite<'_>]) -> Result<(), StorageError> {
        for write in writes {
            self.write_row(write)?;
        }
        self.working.check()
    }

    async fn take_marks(&mut self, mut room: Room) -> Result<MarksTaken, StorageError> {
        let mut marks = Vec::new();
        while !room.is_full() {
            let Some(((table, key), before)) = self.working.marks.pop_first() else {
                break;
            };
            let rows = self.working.rows.get(&table);
            let now = rows.and_then(|rows| rows.get(&key));
            room.take(key.as_bytes().len(), before.iter().chain(now));
            marks.push(Mark { table, key, before });
        }
        let more = !self.working.marks.is_empty();
        Ok(MarksTaken { marks, more })
    }

    async fn clear_rules(&mut self) -> Result<(), StorageError> {
        self.working.grants.clear();
        self.working.digests.clear();
        self.working.rules = None;
        Ok(())
    }

    async fn counted(&mut self) -> Result<Option<[u8; 32]>, StorageError> {
        Ok(self.working.counted)
    }

    async fn clear_owned(&mut self) -> Result<(), StorageError> {
        self.working.owned.clear();
        self.working.counted = None;
        Ok(())
    }

    async fn write_ledger(&mut self, ledger: &Ledger) -> Result<(), StorageError> {
        self.working.write_ledger(ledger);
        Ok(())
    }

    fn records(&mut self) -> Option<Box<dyn AccountRecords + '_>> {
        None
    }

    async fn commit(self) -> Result<(), StorageError> {
        if let Some(error) = lock(&self.storage.failures).pop() {
            return Err(error);
        }
        *lock(&self.storage.data) = self.working;
        Ok(())
    }

    async fn rollback(self) {}
}

/// The value of a literal default; NULL for anything else.
pub(super) fn default(column: &Column) -> Value {
    let Some(text) = column.default.as_deref().map(str::trim) else {
        return Value::Null;
    };
    let quoted = text
        .strip_prefix('\'')
        .and_then(|text| text.strip_suffix('\''));
    let value = match (quoted, text.parse::<i64>(), text.parse::<f64>()) {
        (Some(quoted), _, _) => Value::Text(quoted.replace("''", "'")),
        (None, Ok(n), _) => Value::Integer(n),
        (None, _, Ok(x)) => Value::Real(x),
        (None, Err(_), Err(_)) => Value::Null,
    };
    value.canonical(column.ty)
}
