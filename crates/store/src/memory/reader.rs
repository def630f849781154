//! Reads of the committed state.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use syncline_core::{
    BucketId, DeviceId, Row, RowKey, TableNumber, Tag, UserId, Version,
    digest::content_hash,
    rules::{Grant, GranteeId},
};

use super::{Data, lock};
use crate::{
    body::encode_page_row,
    history::{HistoryRead, HistoryWant},
    log::LogEntry,
    meta::{DeviceState, RowMeta},
    storage::{
        HashesRead, Head, PagePartRead, PageRead, PageWant, Reader, RowHash, RowsRead, StorageError,
    },
    want::{Loaded, Want},
};

/// Reads a [`crate::memory::MemoryStorage`] beside its writer.
#[derive(Debug, Clone)]
pub struct MemoryReader {
    data: Arc<Mutex<Data>>,
}

impl MemoryReader {
    pub(super) fn new(data: Arc<Mutex<Data>>) -> Self {
        Self { data }
    }
}

impl Reader for MemoryReader {
    async fn head(&mut self) -> Result<Head, StorageError> {
        Ok(lock(&self.data).head)
    }

    async fn log_after(
        &mut self,
        after: Version,
        bytes_max: usize,
    ) -> Result<Vec<Arc<LogEntry>>, StorageError> {
        let data = lock(&self.data);
        let first = data.log.partition_point(|entry| entry.version <= after);
        let mut bytes = 0;
        let mut found: Vec<Arc<LogEntry>> = Vec::new();
        for entry in &data.log[first..] {
            bytes += entry.encode_body().len();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(Arc::clone(entry));
        }
        Ok(found)
    }

    async fn tag_at(&mut self, version: Version) -> Result<Option<Tag>, StorageError> {
        let data = lock(&self.data);
        if version == Version::ZERO {
            return Ok(Some(Tag::default()));
        }
        if version == data.head.horizon {
            return Ok(Some(data.horizon_tag));
        }
        let entry = data
            .log
            .binary_search_by_key(&version, |entry| entry.version)
            .ok();
        Ok(entry.map(|entry| data.log[entry].tag))
    }

    async fn pages(
        &mut self,
        wants: &[PageWant],
        bytes_max: usize,
    ) -> Result<PageRead, StorageError> {
        let data = lock(&self.data);
        let mut read = PageRead {
            version: data.head.version,
            parts: Vec::new(),
        };
        let mut bytes = 0;
        for want in wants {
            if bytes >= bytes_max && bytes > 0 {
                break;
            }
            let part = data.page(want, bytes_max.saturating_sub(bytes), bytes == 0)?;
            bytes += part.rows.len();
            read.parts.push(part);
        }
        Ok(read)
    }

    async fn rows_to_come(&mut self, wants: &[PageWant]) -> Result<u64, StorageError> {
        let data = lock(&self.data);
        let count = |want: &PageWant| data.to_come(want).count() as u64;
        Ok(wants.iter().map(count).sum())
    }

    async fn grants(
        &mut self,
        grantees: &[GranteeId],
    ) -> Result<(Head, Vec<(Grant, Version)>), StorageError> {
        let data = lock(&self.data);
        let granted = data
            .grants
            .iter()
            .filter(|(grant, _)| grantees.contains(&grant.grantee));
        Ok((
            data.head,
            granted
                .map(|(grant, (_, since))| (*grant, *since))
                .collect(),
        ))
    }

    async fn hashes(
        &mut self,
        table: TableNumber,
        buckets: &[BucketId],
        after: Option<&RowKey>,
        max: usize,
    ) -> Result<HashesRead, StorageError> {
        let data = lock(&self.data);
        let schema = data.table(table)?;
        let live = data.live(table).filter(|(key, _, meta)| {
            after.is_none_or(|after| *key > after)
                && meta.buckets.iter().any(|b| buckets.contains(b))
        });
        let hashes = live.map(|(key, row, meta)| RowHash {
            key: key.clone(),
            version: meta.version,
            hash: content_hash(schema, row),
        });
        let mut hashes = hashes.peekable();
        let rows: Vec<_> = hashes.by_ref().take(max).collect();
        let next = rows.last().map(|row| row.key.clone());
        Ok(HashesRead {
            next: next.filter(|_| hashes.peek().is_some()),
            rows,
        })
    }

    async fn history(&mut self, want: &HistoryWant) -> Result<HistoryRead, StorageError> {
        Ok(lock(&self.data).history(want))
    }

    async fn device(&mut self, id: DeviceId) -> Result<Option<DeviceState>, StorageError> {
        Ok(lock(&self.data).devices.get(&id).cloned())
    }

    async fn devices(
        &mut self,
        user: &UserId,
        max: usize,
    ) -> Result<Vec<DeviceState>, StorageError> {
        let data = lock(&self.data);
        let own = data.devices.values();
        let own = own.filter(|device| device.user == *user && device.deregistered.is_none());
        let mut own: Vec<_> = own.cloned().collect();
        own.sort_by_key(|device| (Reverse(device.last_seen), device.id));
        own.truncate(max);
        Ok(own)
    }

    async fn rows(
        &mut self,
        table: TableNumber,
        keys: &[RowKey],
        bytes_max: usize,
    ) -> Result<RowsRead, StorageError> {
        let data = lock(&self.data);
        let mut read = RowsRead::default();
        for key in keys {
            let found = data.loaded(table, key);
            let found = found.and_then(|found| Some((found.row?, found.meta)));
            if read.add(key, found, bytes_max) {
                break;
            }
        }
        Ok(read)
    }

    async fn look(&mut self, wants: &[Want], loaded: &mut Loaded) -> Result<(), StorageError> {
        lock(&self.data).answer(wants, loaded);
        Ok(())
    }

    async fn keys(
        &mut self,
        table: TableNumber,
        after: Option<&RowKey>,
        max: usize,
    ) -> Result<Vec<RowKey>, StorageError> {
        let data = lock(&self.data);
        let live = data.live(table).map(|(key, ..)| key);
        let later = live.filter(|key| after.is_none_or(|after| *key > after));
        Ok(later.take(max).cloned().collect())
    }
}

impl Data {
    /// Rows that are in the log, with their metadata, in key order.
    fn live(&self, table: TableNumber) -> impl Iterator<Item = (&RowKey, &Row, &RowMeta)> {
        let metas = self.metas.get(&table).into_iter().flat_map(BTreeMap::iter);
        metas
            .filter(|(_, meta)| !meta.deleted)
            .filter_map(move |(key, meta)| {
                let row = self.rows.get(&table).and_then(|rows| rows.get(key))?;
                Some((key, row, meta))
            })
    }

    fn to_come(&self, want: &PageWant) -> impl Iterator<Item = (&RowKey, &Row, &RowMeta)> {
        let after = |key: &RowKey| want.after.as_ref().is_none_or(|after| key > after);
        self.live(want.table).filter(move |(key, _, meta)| {
            after(key) && meta.buckets.binary_search(&want.bucket).is_ok()
        })
    }

    fn page(
        &self,
        want: &PageWant,
        bytes_max: usize,
        one_at_least: bool,
    ) -> Result<PagePartRead, StorageError> {
        let schema = self.table(want.table)?;
        let digest = self
            .digests
            .get(&(want.bucket, want.table))
            .copied()
            .unwrap_or_default();
        let mut part = PagePartRead {
            bucket: want.bucket,
            table: want.table,
            after: want.after.clone(),
            to: None,
            rows: Vec::new(),
            count: 0,
            digest: Some(digest),
        };
        let mut last = None;
        for (key, row, meta) in self.to_come(want) {
            if part.rows.len() >= bytes_max && (part.count > 0 || !one_at_least) {
                part.to = last.or_else(|| want.after.clone());
                part.digest = None;
                break;
            }
            encode_page_row(schema, key, row, meta, &mut part.rows);
            part.count += 1;
            last = Some(key.clone());
        }
        Ok(part)
    }
}
