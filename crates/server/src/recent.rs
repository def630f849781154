//! The newest part of the log, in memory, shared by every session.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
};

use syncline_core::planted;
use syncline_core::{Tag, Version};
use syncline_store::LogEntry;

/// Most encoded bytes of bodies that are kept.
pub const RECENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A bounded window on the end of the log. A session that has fallen out of it reads the log
/// from the storage instead: nothing is buffered for anybody.
#[derive(Debug)]
pub struct Recent {
    window: RwLock<Window>,
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
        }
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

/// About how much memory an entry holds.
fn entry_bytes(entry: &LogEntry) -> usize {
    const RECORD: usize = 160;
    let bodies: usize = entry
        .records
        .iter()
        .map(|r| {
            let body = |b: &Option<Arc<[u8]>>| b.as_ref().map_or(0, |b| b.len());
            RECORD + body(&r.whole) + body(&r.columns) + 16 * (r.before.len() + r.after.len())
        })
        .sum();
    RECORD + bodies + 48 * (entry.grants.len() + entry.digests.len())
}
