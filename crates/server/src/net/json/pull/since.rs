//! What the log says since a cursor.

use std::collections::BTreeMap;

use syncline_core::{BucketId, RowKey, TableNumber, Tag, Version};
use syncline_store::{LogEntry, Reader, StorageError};

use super::{StartOver, View};

/// Who is further behind than this starts over.
const LOG_BYTES_MAX: usize = 32 * 1024 * 1024;
const LOG_BYTES_AT_ONCE: usize = 1024 * 1024;

/// What the log says since a cursor, as far as it concerns the reader.
#[derive(Default)]
pub(super) struct Since {
    /// Each with the keys it touches in buckets that are seen now.
    pub(super) entries: Vec<Touching>,
    /// Grants and their ends, in order of the log.
    grants: Vec<(Version, BucketId, i64)>,
}

pub(super) struct Touching {
    pub(super) version: Version,
    pub(super) tag: Tag,
    pub(super) keys: Vec<(TableNumber, RowKey, Vec<BucketId>)>,
}

impl Since {
    /// What the log has after `from`, up to the view; `None` if that is too much.
    pub(super) async fn read<R: Reader>(
        reader: &mut R,
        view: &View,
        tables: &[TableNumber],
        from: Version,
    ) -> Result<Option<Self>, StorageError> {
        let mut since = Self::default();
        let (mut position, mut scanned) = (from, 0);
        while position < view.head.version {
            let entries = reader.log_after(position, LOG_BYTES_AT_ONCE).await?;
            let Some(last) = entries.last() else { break };
            position = last.version;
            for entry in entries {
                if entry.version > view.head.version {
                    break;
                }
                scanned += scanned_bytes(&entry);
                since.take(&entry, view, tables);
            }
            if scanned > LOG_BYTES_MAX {
                return Ok(None);
            }
        }
        Ok(Some(since))
    }

    fn take(&mut self, entry: &LogEntry, view: &View, tables: &[TableNumber]) {
        for grant in &entry.grants {
            if view.grantees.contains(&grant.grantee) {
                let change = if grant.granted { 1 } else { -1 };
                self.grants.push((entry.version, grant.bucket, change));
            }
        }
        let records = entry
            .records
            .iter()
            .filter(|record| tables.contains(&record.table));
        let keys = records.filter_map(|record| {
            let buckets = record.before.iter().chain(&record.after);
            let seen: Vec<_> = buckets.copied().filter(|b| view.sight.sees(b)).collect();
            (!seen.is_empty()).then(|| (record.table, record.key.clone(), seen))
        });
        self.entries.push(Touching {
            version: entry.version,
            tag: entry.tag,
            keys: keys.collect(),
        });
    }

    /// The buckets that the reader has now and had not at the cursor, with the version they were
    /// granted at. Any that was lost since, even for a moment, makes the pull start over: which rows
    /// go with it is known only to those who keep the buckets of each row.
    pub(super) fn gained(&self, view: &View) -> Result<BTreeMap<BucketId, Version>, StartOver> {
        let mut counts = view.counts.clone();
        for (_, bucket, change) in &self.grants {
            *counts.entry(*bucket).or_insert(0) -= change;
        }
        let mut gained = BTreeMap::new();
        for (version, bucket, change) in &self.grants {
            let count = counts.entry(*bucket).or_insert(0);
            if *count <= 0 {
                gained.insert(*bucket, *version);
            }
            *count += change;
            if *count <= 0 {
                return Err(StartOver);
            }
        }
        Ok(gained)
    }
}

fn scanned_bytes(entry: &LogEntry) -> usize {
    let record = |record: &syncline_store::LogRecord| {
        64 + record.whole.as_ref().map_or(0, |body| body.len())
            + record.columns.as_ref().map_or(0, |body| body.len())
    };
    64 + entry.records.iter().map(record).sum::<usize>()
}
