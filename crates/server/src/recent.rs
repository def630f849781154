//! The newest part of the log, in memory, shared by every session.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
};

use syncline_core::planted;
use syncline_core::{Tag, Version, digest::next_tag};
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

impl Window {
    /// Forgets everything: what comes next follows this.
    fn begin_at(&mut self, version: Version, tag: Tag) {
        self.entries.clear();
        self.bytes = 0;
        self.start = version;
        self.head = (version, tag);
    }
}

/// What [`Recent::after`] knows.
#[derive(Debug)]
pub enum After {
    /// Nothing is newer.
    UpToDate,
    /// The next entries, oldest first.
    Entries(Vec<Arc<LogEntry>>),
    /// They are older than the window, or it does not have all of them: read the storage.
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

    /// Adds committed entries, in log order, and forgets the oldest beyond the limit; whether
    /// there was a gap before one of them.
    ///
    /// What was committed before the committer failed, or while everything was computed anew, is
    /// in the log and was never here. Who follows the window would miss it: with the first entry
    /// after a gap it begins again, and everything up to there is too old for it.
    pub fn push(&self, entries: &[Arc<LogEntry>]) -> bool {
        let mut window = self.window.write().unwrap_or_else(PoisonError::into_inner);
        let mut is_gap = false;
        for entry in entries {
            if next_tag(window.head.1, entry.changeset) != entry.tag {
                window.begin_at(entry.version, entry.tag);
                is_gap = true;
                continue;
            }
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
        is_gap
    }

    /// The log ends here: what is missing up to there is a gap, too. Whether there is one.
    pub fn reach(&self, version: Version, tag: Tag) -> bool {
        let mut window = self.window.write().unwrap_or_else(PoisonError::into_inner);
        let is_gap = window.head.0 < version;
        if is_gap {
            window.begin_at(version, tag);
        }
        is_gap
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
        let all = log(100);
        let recent = Recent::with_limit(Version(0), Tag::default(), 10 * entry_bytes(&all[0]));
        assert!(!recent.push(&all));
        let window = recent.window.read().expect("nobody panicked");
        assert_eq!(window.entries.len(), 10);
    }

    /// Entries that follow one another, at the versions 1, 2, 3 …
    fn log(count: u64) -> Vec<Arc<LogEntry>> {
        let mut tag = Tag::default();
        let next = |version| {
            let entry = LogEntry {
                version: Version(version),
                tag: next_tag(tag, ChangesetId::default()),
                ..entry(5)
            };
            tag = entry.tag;
            Arc::new(entry)
        };
        (1..=count).map(next).collect()
    }

    #[test]
    fn who_is_behind_a_gap_reads_the_storage() {
        let recent = Recent::new(Version(0), Tag::default());
        let log = log(9);
        let what = |version| match recent.after(Version(version), 10) {
            After::UpToDate => "nothing".to_owned(),
            After::TooOld => "too old".to_owned(),
            After::Entries(entries) => {
                let versions = entries.iter().map(|entry| entry.version.0.to_string());
                versions.collect()
            }
        };
        assert!(!recent.push(&log[..2]));
        assert_eq!([what(0), what(1), what(2)], ["12", "2", "nothing"]);
        // The third and fourth never come.
        assert!(recent.push(&log[4..7]));
        assert_eq!(recent.head(), (Version(7), log[6].tag));
        assert_eq!([what(1), what(2), what(4)], ["too old"; 3]);
        assert_eq!([what(5), what(6), what(7)], ["67", "7", "nothing"]);
        assert_eq!(recent.is_too_old(Version(4)), Some(true));
        // Nor does the last one, nor anything after it.
        assert!(!recent.reach(log[6].version, log[6].tag));
        assert!(recent.reach(log[7].version, log[7].tag));
        assert_eq!(
            [what(6), what(7), what(8)],
            ["too old", "too old", "nothing"]
        );
        assert!(!recent.push(&log[8..]));
        assert_eq!([what(7), what(8)], ["too old", "9"]);
    }
}
