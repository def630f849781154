//! The maps, and the constraints that hold between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use syncline_core::{
    BucketId, ChangesetId, DeviceId, Row, RowKey, Schema, Table, TableNumber, Tag, UserId, Value,
    Version,
    digest::Digest,
    rules::{Grant, RuleColumn},
    schema::{ForeignKey, OnDelete},
};

use crate::{
    history::{HistoryFrom, HistoryRead, HistoryRecord, HistoryWant},
    log::LogEntry,
    meta::{DeviceState, Owned, RowMeta},
    storage::{Counted, Head, Ledger, StorageError},
    want::{KnownChangeset, KnownRun, Loaded, LoadedRow, Want},
};

#[derive(Debug, Clone, Default)]
pub(super) struct Data {
    pub(super) schema: Schema,
    /// The last number given to a table, also to one that is gone.
    pub(super) last_table: u32,
    /// The same for the columns of each table.
    pub(super) last_columns: BTreeMap<TableNumber, u32>,
    pub(super) rules: Option<[u8; 32]>,
    /// Since it was last asked.
    pub(super) changed_elsewhere: bool,
    pub(super) head: Head,
    /// The tag of the entry at the horizon.
    pub(super) horizon_tag: Tag,
    pub(super) rows: BTreeMap<TableNumber, BTreeMap<RowKey, Row>>,
    pub(super) metas: BTreeMap<TableNumber, BTreeMap<RowKey, RowMeta>>,
    /// Marked rows as they were before.
    pub(super) marks: BTreeMap<(TableNumber, RowKey), Option<Row>>,
    pub(super) log: Vec<Arc<LogEntry>>,
    pub(super) changesets: BTreeMap<ChangesetId, KnownChangeset>,
    pub(super) pieces: BTreeMap<(ChangesetId, UserId), Vec<KnownRun>>,
    pub(super) history: BTreeMap<(TableNumber, RowKey), BTreeMap<Version, HistoryRecord>>,
    /// Changes up to here are not in `history`; `None`: it is not kept.
    pub(super) history_since: Option<Version>,
    pub(super) devices: BTreeMap<DeviceId, DeviceState>,
    pub(super) grants: BTreeMap<Grant, (u64, Version)>,
    pub(super) digests: BTreeMap<(BucketId, TableNumber), Digest>,
    pub(super) owned: BTreeMap<UserId, Owned>,
    pub(super) counted: Option<[u8; 32]>,
}

impl Data {
    pub(super) fn table(&self, number: TableNumber) -> Result<&Table, StorageError> {
        self.schema
            .by_number(number)
            .ok_or_else(|| StorageError::Corrupt(format!("there is no table number {}", number.0)))
    }

    /// A row with its metadata, also one that only one of both knows.
    /// Answers `wants` as they are here.
    pub(super) fn answer(&self, wants: &[Want], loaded: &mut Loaded) {
        for want in wants {
            match want {
                Want::Row(table, key) => {
                    loaded.put_row(*table, key.clone(), self.loaded(*table, key));
                }
                Want::Matching(table, column, value) => {
                    let keys = self.matching(*table, *column, value);
                    for key in &keys {
                        loaded.put_row(*table, key.clone(), self.loaded(*table, key));
                    }
                    loaded.put_matching(*table, *column, value, keys);
                }
                Want::Changeset(id) => {
                    loaded
                        .changesets
                        .insert(*id, self.changesets.get(id).cloned());
                    let first = (*id, UserId(String::new()));
                    if let Some(((of, user), _)) = self.pieces.range(first..).next()
                        && of == id
                    {
                        loaded.cut.insert(*id, user.clone());
                    }
                }
                Want::Pieces(user, piece) => {
                    let known = self.pieces.get(&(piece.whole, user.clone()));
                    let known = known.into_iter().flatten().copied();
                    let known = known.filter(|run| run.overlaps(piece)).collect();
                    loaded.pieces.insert((user.clone(), piece.clone()), known);
                }
                Want::Device(id) => {
                    loaded.devices.insert(*id, self.devices.get(id).cloned());
                }
                Want::GrantCount(grant) => {
                    let (count, since) = self.grants.get(grant).copied().unwrap_or_default();
                    loaded.put_grant(*grant, count, since);
                }
                Want::LostBy(version) => {
                    let log = &self.log;
                    let place = log.partition_point(|entry| entry.version < *version);
                    loaded.put_lost_by([*version], log.get(place).map(Arc::as_ref));
                }
                Want::Digest(bucket, table) => {
                    let place = (*bucket, *table);
                    let digest = self.digests.get(&place).copied().unwrap_or_default();
                    loaded.digests.insert(place, digest);
                }
                Want::Owned(user) => {
                    let owned = self.owned.get(user).copied().unwrap_or_default();
                    loaded.owned.insert(user.clone(), owned);
                }
            }
        }
    }

    fn matching(&self, table: TableNumber, column: RuleColumn, value: &Value) -> Vec<RowKey> {
        let is_it = |key: &RowKey, row: &Row| match column {
            RuleColumn::Column(position) => row.0[position] == *value,
            RuleColumn::Owner => {
                let meta = self.metas.get(&table).and_then(|metas| metas.get(key));
                let owner = meta.and_then(|meta| meta.owner.as_ref());
                value
                    .as_text()
                    .is_some_and(|user| owner == Some(&UserId(user.to_owned())))
            }
        };
        let rows = self.rows.get(&table).into_iter().flatten();
        rows.filter(|(key, row)| is_it(key, row))
            .map(|(key, _)| key.clone())
            .collect()
    }

    pub(super) fn loaded(&self, table: TableNumber, key: &RowKey) -> Option<LoadedRow> {
        let row = self
            .rows
            .get(&table)
            .and_then(|rows| rows.get(key))
            .cloned();
        let meta = self
            .metas
            .get(&table)
            .and_then(|metas| metas.get(key))
            .cloned();
        if row.is_none() && meta.is_none() {
            return None;
        }
        Some(LoadedRow {
            row,
            meta: meta.unwrap_or_default(),
        })
    }

    /// Stores or deletes a row and marks it with the image before.
    pub(super) fn write_marked(&mut self, table: TableNumber, key: &RowKey, row: Option<Row>) {
        let before = self.write(table, key, row);
        self.marks.entry((table, key.clone())).or_insert(before);
    }

    /// Stores or deletes a row; returns what was there.
    pub(super) fn write(
        &mut self,
        table: TableNumber,
        key: &RowKey,
        row: Option<Row>,
    ) -> Option<Row> {
        let rows = self.rows.entry(table).or_default();
        match row {
            Some(row) => rows.insert(key.clone(), row),
            None => rows.remove(key),
        }
    }

    /// What happens to the children of a deleted row.
    pub(super) fn cascade(
        &mut self,
        parent: TableNumber,
        deleted: &Row,
    ) -> Result<(), StorageError> {
        let mut gone = vec![(parent, deleted.clone())];
        while let Some((parent, row)) = gone.pop() {
            let parent = self.table(parent)?.clone();
            let values: Vec<_> = parent
                .primary_key
                .iter()
                .map(|&i| row.0[i].clone())
                .collect();
            let children = self.schema.tables.clone();
            for child in &children {
                for key in child
                    .foreign_keys
                    .iter()
                    .filter(|key| refers_to(key, &parent))
                {
                    for (child_key, child_row) in self.referring(child, key, &values) {
                        match key.on_delete {
                            OnDelete::Cascade => {
                                self.write_marked(child.number, &child_key, None);
                                gone.push((child.number, child_row));
                            }
                            OnDelete::SetNull => {
                                let mut changed = child_row;
                                for &column in &key.columns {
                                    changed.0[column] = Value::Null;
                                }
                                self.write_marked(child.number, &child_key, Some(changed));
                            }
                            OnDelete::NoAction | OnDelete::Restrict | OnDelete::SetDefault => {}
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn referring(&self, child: &Table, key: &ForeignKey, values: &[Value]) -> Vec<(RowKey, Row)> {
        let rows = self.rows.get(&child.number).into_iter().flatten();
        let refers = |row: &Row| key.columns.iter().zip(values).all(|(&c, v)| row.0[c] == *v);
        rows.filter(|(_, row)| refers(row))
            .map(|(key, row)| (key.clone(), row.clone()))
            .collect()
    }

    /// Whether all constraints hold.
    pub(super) fn check(&self) -> Result<(), StorageError> {
        for table in &self.schema.tables {
            let rows = self.rows.get(&table.number);
            for row in rows.into_iter().flatten().map(|(_, row)| row) {
                for (column, value) in table.columns.iter().zip(&row.0) {
                    if column.not_null && value.is_null() {
                        return Err(violated(table, &format!("{} is NULL", column.name)));
                    }
                }
                for key in &table.foreign_keys {
                    self.check_reference(table, key, row)?;
                }
            }
            for unique in &table.uniques {
                let mut seen = BTreeSet::new();
                for row in rows.into_iter().flatten().map(|(_, row)| row) {
                    let values = unique.iter().map(|&i| &row.0[i]);
                    if let Ok(values) = RowKey::encode(values)
                        && !seen.insert(values)
                    {
                        return Err(violated(
                            table,
                            "a value that must be unique is there twice",
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn check_reference(
        &self,
        table: &Table,
        key: &ForeignKey,
        row: &Row,
    ) -> Result<(), StorageError> {
        let Some(parent) = self
            .schema
            .table(&key.parent)
            .filter(|parent| refers_to(key, parent))
        else {
            return Ok(());
        };
        let Ok(reference) = RowKey::encode(key.columns.iter().map(|&i| &row.0[i])) else {
            return Ok(());
        };
        let found = self
            .rows
            .get(&parent.number)
            .is_some_and(|rows| rows.contains_key(&reference));
        if found {
            Ok(())
        } else {
            Err(violated(table, &format!("no row of {}", parent.name)))
        }
    }

    pub(super) fn write_ledger(&mut self, ledger: &Ledger) {
        for (table, key, meta, _) in &ledger.metas {
            self.metas
                .entry(*table)
                .or_default()
                .insert(key.clone(), meta.clone());
        }
        for entry in &ledger.entries {
            let known = KnownChangeset {
                version: entry.version,
                user: entry.user.clone(),
                device: entry.device,
            };
            self.changesets.insert(entry.changeset, known);
            self.head.version = entry.version;
            self.head.tag = entry.tag;
            self.log.push(Arc::clone(entry));
        }
        for (version, user, piece) in &ledger.pieces {
            let known = self.pieces.entry((piece.whole, user.clone()));
            known.or_default().extend(KnownRun::of(piece, *version));
        }
        if self.history_since.is_some() {
            for record in &ledger.history {
                let row = (record.table, record.key.clone());
                let records = self.history.entry(row).or_default();
                records.insert(record.version, record.clone());
            }
        }
        for (bucket, table, digest) in &ledger.digests {
            self.digests.insert((*bucket, *table), *digest);
        }
        for (grant, count, since) in &ledger.grants {
            let place = self.grants.entry(*grant).or_default();
            *place = (*count, since.unwrap_or(place.1));
        }
        self.grants.retain(|_, (count, _)| *count > 0);
        for device in &ledger.devices {
            self.devices.insert(device.id, device.clone());
        }
        for (user, owned) in &ledger.owned {
            self.owned.insert(user.clone(), *owned);
        }
        match ledger.counted {
            Counted::Same => {}
            Counted::All(fingerprint) => self.counted = Some(fingerprint),
            Counted::Doubtful => self.counted = None,
        }
        if let Some(rules) = ledger.rules {
            self.rules = Some(rules);
            self.head.rules_since = self.head.version;
        }
    }

    pub(super) fn keep_history(&mut self, keep: bool) {
        if !keep {
            self.history.clear();
            self.history_since = None;
        } else if self.history_since.is_none() {
            self.history_since = Some(self.head.version);
        }
    }

    pub(super) fn trim_history(&mut self, horizon: Version) {
        if let Some(since) = &mut self.history_since {
            *since = horizon.max(*since);
            for records in self.history.values_mut() {
                *records = records.split_off(&Version(since.0 + 1));
            }
            self.history.retain(|_, records| !records.is_empty());
        }
    }

    pub(super) fn history(&self, want: &HistoryWant) -> HistoryRead {
        let row = (want.table, want.key.clone());
        let is_asked = !matches!(want.from, HistoryFrom::Below(_));
        let loaded = self.loaded(want.table, &want.key).filter(|_| is_asked);
        let present = loaded.and_then(|loaded| {
            let live = loaded.meta.version > Version::ZERO && !loaded.meta.deleted;
            Some((loaded.row.filter(|_| live)?, loaded.meta))
        });
        let mut read = HistoryRead {
            present,
            since: self.history_since,
            ..HistoryRead::default()
        };
        let Some(records) = self.history.get(&row) else {
            return read;
        };
        let found: Vec<&HistoryRecord> = match want.from {
            HistoryFrom::Newest => records.values().rev().collect(),
            HistoryFrom::Below(version) => records.range(..version).rev().map(|(_, r)| r).collect(),
            HistoryFrom::Above(version) => records
                .range((Bound::Excluded(version), Bound::Unbounded))
                .map(|(_, record)| record)
                .collect(),
        };
        let mut bytes = 0;
        for record in found {
            bytes += record.encode_body().len();
            let is_first = read.records.is_empty();
            if read.records.len() >= want.max || (bytes > want.bytes_max && !is_first) {
                read.more = true;
                break;
            }
            read.records.push(record.clone());
        }
        read
    }

    pub(super) fn trim(&mut self, horizon: Version) {
        let forgotten = self.log.partition_point(|entry| entry.version <= horizon);
        // The last entry of the log stays whatever is asked.
        let forgotten = forgotten.min(self.log.len().saturating_sub(1));
        for entry in self.log.drain(..forgotten) {
            self.head.horizon = entry.version;
            self.horizon_tag = entry.tag;
            self.changesets.remove(&entry.changeset);
        }
        let horizon = self.head.horizon;
        self.pieces.retain(|_, pieces| {
            pieces.retain(|run| run.version > horizon);
            !pieces.is_empty()
        });
        for metas in self.metas.values_mut() {
            metas.retain(|_, meta| !meta.deleted || meta.version > horizon);
        }
    }
}

/// Only references to whole primary keys are enforced.
fn refers_to(key: &ForeignKey, parent: &Table) -> bool {
    let names = parent.primary_key.iter().map(|&i| &parent.columns[i].name);
    key.parent.eq_ignore_ascii_case(&parent.name)
        && (key.parent_columns.is_empty() || names.eq(key.parent_columns.iter()))
}

pub(super) fn violated(table: &Table, what: &str) -> StorageError {
    StorageError::Constraint {
        message: format!("a constraint of {} does not hold: {what}", table.name),
        table: Some(table.name.clone()),
    }
}
