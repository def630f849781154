//! What lies in a server's database: log, metadata, history.

use syncline_core::{ChangesetId, DeviceId, Hlc, RowKey, TableNumber, Tag, Value, Version};
use syncline_store::{HistoryChange, HistoryRecord, LogEntry, RowMeta};

/// Damaged or strange bytes in the server's own tables are an error, and what can be read is
/// written as the same.
pub(crate) fn stored(bytes: &[u8]) {
    log_entry(bytes);
    let mut meta = RowMeta::default();
    if meta.decode_state(bytes).is_ok() {
        let mut again = RowMeta::default();
        let written = meta.encode_state();
        again
            .decode_state(&written)
            .expect("what was written is read");
        assert_eq!(format!("{meta:?}"), format!("{again:?}"));
    }
    let mut meta = RowMeta::default();
    if meta.decode_buckets(bytes).is_ok() {
        let mut again = RowMeta::default();
        let written = meta.encode_buckets();
        again
            .decode_buckets(&written)
            .expect("what was written is read");
        assert_eq!(meta, again);
    }
    let mut record = history_record();
    if record.decode_body(bytes).is_ok() {
        let mut again = history_record();
        let written = record.encode_body();
        again
            .decode_body(&written)
            .expect("what was written is read");
        assert_eq!(format!("{record:?}"), format!("{again:?}"));
    }
}

fn log_entry(bytes: &[u8]) {
    let mut entry = empty_entry();
    if entry.decode_body(bytes).is_ok() {
        let mut again = empty_entry();
        let written = entry.encode_body();
        again
            .decode_body(&written)
            .expect("what was written is read");
        assert_eq!(format!("{entry:?}"), format!("{again:?}"));
    }
}

fn empty_entry() -> LogEntry {
    LogEntry {
        version: Version(1),
        tag: Tag::default(),
        changeset: ChangesetId::default(),
        user: None,
        device: DeviceId::default(),
        number: 1,
        hlc: Hlc::default(),
        grants: Vec::new(),
        records: Vec::new(),
        digests: Vec::new(),
    }
}

fn history_record() -> HistoryRecord {
    HistoryRecord {
        table: TableNumber(16),
        key: RowKey::encode([&Value::Integer(1)]).expect("a key"),
        version: Version(1),
        entry: Version(1),
        user: None,
        device: DeviceId::default(),
        change: HistoryChange::Update,
        before: Vec::new(),
        after: Vec::new(),
        old: Vec::new(),
    }
}
