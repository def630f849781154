//! The newest part of the log, in memory, shared by every session.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
};

use syncline_core::planted;
use syncline_core::{Tag, Version};
use syncline_store::LogEntry;

use crate::changes::Encoded;

/// Most encoded bytes of bodies that are kept.
pub const RECENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A bounded window on the end of the log. A session that has fallen out of it reads the log
/// from the storage instead: nothing is buffered for anybody.
#[derive(Debug)]
pub struct Recent {
    window: RwLock<Window>,
    /// What was made of it.
    encoded: Encoded,
}

#[derive(Debug)]
struct Window {
    entries: VecDeque<(Arc<LogEntry>, usize)>,
    bytes: usize,
    /// The version before the first entry.
    start: Version,
    head: (Version, Tag),
    bytes_max: usize,
}

/// What [`Recent::after`] knows.
#[derive(Debug)]
pub enum After {
    /// Nothing is newer.
    UpToDate,
    /// The next entries, oldest first.
    Entries(Vec<Arc<LogEntry>>),
    /// They are older than the window: read the storage.
    TooOld,
}

impl Recent {
    /// An empty window at the end of a log.
    #[must_use]
    pub fn new(version: Version, tag: Tag) -> Self {
        Self::with_limit(version, tag, RECENT_BYTES_MAX)
    }

    /// An empty window that keeps at most about so many bytes, and always the last entry.
    #[must_use]
    pub fn with_limit(version: Version, tag: Tag, bytes_max: usize) -> Self {
        let window = Window {
            entries: VecDeque::new(),
            bytes: 0,
            start: version,
            head: (version, tag),
            bytes_max,
        };
        Self {
            window: RwLock::new(window),
            encoded: Encoded::default(),
        }
    }

    pub(crate) fn encoded(&self) -> &Encoded {
        &self.encoded
    }

    /// Adds committed entries, in log order, and forgets the oldest beyond the limit.
    pub fn push(&self, entries: &[Arc<LogEntry>]) {
        let mut window = self.window.write().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let bytes = entry_bytes(entry);
            window.bytes += bytes;
            window.head = (entry.version, entry.tag);
            window.entries.push_back((Arc::clone(entry), bytes));
        }
        while window.bytes > window.bytes_max && window.entries.len() > 1 {
            if let Some((entry, bytes)) = window.entries.pop_front() {
                window.bytes -= bytes;
                window.start = entry.version;
            }
        }
    }

    /// The version and tag of the last entry.
    #[must_use]
    pub fn head(&self) -> (Version, Tag) {
        self.window
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .head
    }

    /// Whether what comes after `version` is older than the window; `None` where nothing does.
    pub(crate) fn is_too_old(&self, version: Version) -> Option<bool> {
        let window = self.window.read().unwrap_or_else(PoisonError::into_inner);
        (version < window.head.0).then_some(version < window.start)
    }

    /// Up to `max` entries after `version`.
    #[must_use]
    pub fn after(&self, version: Version, max: usize) -> After {
        let window = self.window.read().unwrap_or_else(PoisonError::into_inner);
        if version >= window.head.0 {
            return After::UpToDate;
        }
        if version < window.start {
            return After::TooOld;
        }
        let first = window
            .entries
            .partition_point(|(entry, _)| match planted!(CursorOffByOne) {
                true => entry.version.0 <= version.0 + 1,
                false => entry.version <= version,
            });
        After::Entries(
            window
                .entries
                .range(first..)
                .take(max)
                .map(|(entry, _)| Arc::clone(entry))
                .collect(),
        )
    }
}

/// How much memory an entry holds: what is small about it is mostly what holds it together.
fn entry_bytes(entry: &LogEntry) -> usize {
    /// What an allocation takes beside its bytes, in the allocator and by rounding.
    const HEAP: usize = 24;
    const COUNTS: usize = 2 * size_of::<usize>();
    fn list<T>(list: &Vec<T>) -> usize {
        match list.capacity() {
            0 => 0,
            capacity => HEAP + capacity * size_of::<T>(),
        }
    }
    let body = |body: &Option<Arc<[u8]>>| body.as_ref().map_or(0, |b| HEAP + COUNTS + b.len());
    let records = entry.records.iter().map(|record| {
        let buckets = list(&record.before) + list(&record.after);
        let key = HEAP + record.key.as_bytes().len();
        key + buckets + body(&record.whole) + body(&record.columns)
    });
    let user = entry.user.as_ref().map_or(0, |user| HEAP + user.0.len());
    let lists = list(&entry.records) + list(&entry.grants) + list(&entry.digests);
    HEAP + COUNTS + size_of::<LogEntry>() + user + lists + records.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use syncline_core::{BucketId, ChangesetId, DeviceId, Hlc, RowKey, TableNumber, UserId, Value};
    use syncline_store::LogRecord;

    use super::*;

    fn entry(records: usize) -> LogEntry {
        let key = RowKey::encode([&Value::Text("phone-000000017".into())]).expect("a key");
        let record = LogRecord {
            table: TableNumber(1),
            key,
            version: Version(7),
            before: vec![BucketId([1; 16])],
            after: vec![BucketId([1; 16])],
            whole: None,
            columns: Some(Arc::from([0; 40])),
            deleted: false,
        };
        LogEntry {
            version: Version(7),
            tag: Tag::default(),
            changeset: ChangesetId::default(),
            user: Some(UserId("ana".into())),
            device: DeviceId::default(),
            number: 1,
            hlc: Hlc::default(),
            grants: Vec::new(),
            records: vec![record; records],
            digests: Vec::new(),
        }
    }

    #[test]
    fn an_entry_counts_with_all_that_holds_it() {
        // A key, two lists of buckets and a body are allocations of their own.
        let each = size_of::<LogRecord>() + 4 * 24 + 16 + 2 * 16 + 40;
        let grown = entry_bytes(&entry(5)) - entry_bytes(&entry(1));
        assert!(
            grown >= 4 * each,
            "{grown} for four records, not {each} each"
        );
        assert!(entry_bytes(&entry(0)) >= size_of::<LogEntry>());
    }

    #[test]
    fn the_window_keeps_no_more_than_it_may() {
        let all: Vec<_> = (0..100).map(|_| Arc::new(entry(5))).collect();
        let recent = Recent::with_limit(Version(0), Tag::default(), 10 * entry_bytes(&all[0]));
        recent.push(&all);
        let window = recent.window.read().expect("nobody panicked");
        assert_eq!(window.entries.len(), 10);
    }
}
