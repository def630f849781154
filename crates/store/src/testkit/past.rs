//! The history of rows beside the log: two accounts of the same that have to agree.

use std::{collections::BTreeMap, sync::Arc};

use syncline_core::{
    BucketId, ColumnNumber, RowKey, Schema, TableNumber, Value, Version,
    wire::{RowBody, RowState},
};

use super::block_on;
use crate::{
    After, HistoryChange, HistoryFrom, HistoryRead, HistoryRecord, HistoryWant, LogEntry,
    LogRecord, Reader,
};

type Image = BTreeMap<ColumnNumber, Value>;

/// The history of every row that `entries`, the whole log, has records of.
///
/// Insists that it says of each change what the log says (spec PL21): forwards, from one record
/// of the log to the next, a row goes through the same images as backwards through its history,
/// from the row as it is.
pub fn past_agrees_with_log<R: Reader>(
    reader: &mut R,
    entries: &[Arc<LogEntry>],
    schema: &Schema,
) -> BTreeMap<(TableNumber, RowKey), Vec<HistoryRecord>> {
    let mut rows: BTreeMap<_, Vec<(Version, &LogRecord)>> = BTreeMap::new();
    for entry in entries {
        for record in &entry.records {
            let row = (record.table, record.key.clone());
            rows.entry(row).or_default().push((entry.version, record));
        }
    }
    let mut found = BTreeMap::new();
    for ((table, key), logged) in rows {
        let want = HistoryWant {
            table,
            key: key.clone(),
            from: HistoryFrom::Newest,
            max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let read = block_on(reader.history(&want)).expect("the history is read");
        compare(&logged, &read, schema);
        found.insert((table, key), read.records);
    }
    found
}

fn compare(logged: &[(Version, &LogRecord)], read: &HistoryRead, schema: &Schema) {
    let mut history: BTreeMap<Version, &HistoryRecord> = BTreeMap::new();
    for record in &read.records {
        history.insert(record.version, record);
    }
    // What is known of the row by the log: nothing where nobody could see it.
    let mut image = Some(None);
    for (entry, record) in logged {
        let before = image.clone();
        image = next(image, record);
        let Some(known) = history.remove(&record.version) else {
            let same = before.is_none() || image.is_none() || before == image;
            assert!(same, "the history lacks {record:?}");
            continue;
        };
        assert_eq!(known.entry, *entry);
        let lay = |record: &LogRecord| -> [Vec<BucketId>; 2] {
            [record.before.clone(), record.after.clone()]
        };
        assert_eq!([known.before.clone(), known.after.clone()], lay(record));
        let (was, is) = (before.flatten(), image.clone().flatten());
        match (known.change, was, is) {
            (HistoryChange::Delete, Some(was), None) => {
                let old = known.old.iter().cloned();
                let old: Image = old.map(|(c, v)| (c, v.expect("it was seen"))).collect();
                assert_eq!(old, was, "what was deleted at {:?}", known.version);
            }
            (HistoryChange::Insert, None, Some(is)) => {
                assert_eq!(after(read, known, schema), is, "at {:?}", known.version);
            }
            (HistoryChange::Update, Some(was), Some(is)) => {
                assert_eq!(after(read, known, schema), is, "at {:?}", known.version);
                let differing = was.iter().filter(|(column, value)| is[column] != **value);
                let differing = differing.map(|(column, value)| (*column, Some(value.clone())));
                assert_eq!(known.old, differing.collect::<Vec<_>>());
            }
            (_, None, _) | (_, _, None) => {}
            (change, ..) => panic!("{change:?} at {:?}", known.version),
        }
    }
    assert!(history.is_empty(), "not in the log: {history:?}");
}

/// The image after a record; `None`: the log does not say.
#[expect(
    clippy::option_option,
    reason = "no row and no knowledge of the row are two things"
)]
fn next(image: Option<Option<Image>>, record: &LogRecord) -> Option<Option<Image>> {
    if record.deleted {
        return Some(None);
    }
    let columns = |body: &Arc<[u8]>| match RowBody::decode(body).expect("a body").0.state {
        RowState::Whole { columns, .. } | RowState::Columns(columns) => columns,
        RowState::Deleted | RowState::Removed | RowState::Released => {
            panic!("a row without columns")
        }
    };
    match (&record.whole, &record.columns) {
        (Some(whole), _) => Some(Some(columns(whole).into_iter().collect())),
        (None, Some(changed)) => {
            let mut image = image??;
            image.extend(columns(changed));
            Some(Some(image))
        }
        (None, None) => None,
    }
}

/// The row right after `record`, by its history.
fn after(read: &HistoryRead, record: &HistoryRecord, schema: &Schema) -> Image {
    let mut after = After::whole();
    let younger = read.records.iter().rev();
    for younger in younger.filter(|younger| younger.version > record.version) {
        after.younger(younger);
    }
    let table = schema.by_number(record.table).expect("declared");
    let values = read.present.iter().flat_map(|(row, _)| row.0.clone());
    let columns = table.columns.iter().zip(values);
    let columns = columns.filter(|(column, _)| !column.generated);
    after.present(columns.map(|(column, value)| (column.number, value)));
    let values = after.values();
    values
        .map(|(column, value)| (column, value.clone()))
        .collect()
}
