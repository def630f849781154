//! What the cases share.

use std::sync::Arc;

use syncline_core::{
    BucketId, ChangesetId, DeviceId, Hlc, Row, RowKey, TableNumber, UserId, Value, Version,
    digest::{Digest, next_tag},
    merge::Clock,
    rules::{Grant, GranteeId},
};

use super::Bed;
use crate::{
    ColumnStates, Context, Group, Head, Ledger, Loaded, LoadedRow, LogEntry, LogRecord, Mark, Room,
    RowMeta, RowWrite, Storage, StorageError, Want,
    testkit::{block_on, context_of, demo_schema},
};

/// An open storage with [`demo_schema`].
pub(super) fn opened<B: Bed>(bed: &mut B) -> (B::Storage, Context) {
    let mut storage = bed.open();
    let (context, _) = context_of(&mut storage, &demo_schema());
    (storage, context)
}

pub(super) fn number(context: &Context, table: &str) -> TableNumber {
    context.schema().table(table).expect("declared").number
}

pub(super) fn key(value: impl Into<Value>) -> RowKey {
    RowKey::encode([&value.into()]).expect("no NULL")
}

pub(super) fn project(id: &str, name: &str) -> Row {
    Row(vec![id.into(), name.into(), Value::Null, Value::Null])
}

pub(super) fn task(id: &str, project: &str, title: &str) -> Row {
    let mut row = Row(vec![Value::Null; 6]);
    row.0[0] = id.into();
    row.0[1] = project.into();
    row.0[2] = title.into();
    row
}

pub(super) fn label(id: &str, name: &str) -> Row {
    Row(vec![id.into(), name.into()])
}

/// Runs `steps` in a group and commits it.
pub(super) fn in_group<S: Storage, T>(
    storage: &mut S,
    steps: impl AsyncFnOnce(&mut S::Group<'_>) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    block_on(async {
        let mut group = storage.begin().await?;
        let value = steps(&mut group).await?;
        group.commit().await?;
        Ok(value)
    })
}

pub(super) fn insert<'r>(table: TableNumber, key: &'r RowKey, row: &'r Row) -> RowWrite<'r> {
    RowWrite {
        table,
        key,
        row: Some(row),
        exists: false,
        columns: &[],
    }
}

/// Stores rows as an earlier group would have: with metadata, without a log entry.
pub(super) fn store<S: Storage>(storage: &mut S, table: TableNumber, rows: &[Row]) {
    let keys: Vec<_> = rows.iter().map(|row| key(row.0[0].clone())).collect();
    let writes: Vec<_> = keys
        .iter()
        .zip(rows)
        .map(|(key, row)| insert(table, key, row))
        .collect();
    let metas = keys
        .iter()
        .map(|key| (table, key.clone(), meta(1, &[]), Vec::new()));
    let ledger = Ledger {
        metas: metas.collect(),
        ..Ledger::default()
    };
    in_group(storage, async |group| {
        group.write_rows(&writes).await?;
        group.write_ledger(&ledger).await
    })
    .expect("the rows are stored");
}

pub(super) async fn load_row<G: Group>(
    group: &mut G,
    table: TableNumber,
    key: &RowKey,
) -> Option<LoadedRow> {
    let mut loaded = Loaded::default();
    group
        .load(&[Want::Row(table, key.clone())], &mut loaded)
        .await
        .expect("a row is loaded");
    loaded
        .row(table, key)
        .expect("every want is answered")
        .cloned()
}

/// The stored image of a row, in a transaction of its own.
pub(super) fn stored<S: Storage>(storage: &mut S, table: TableNumber, key: &RowKey) -> Option<Row> {
    in_group(storage, async |group| Ok(load_row(group, table, key).await))
        .expect("the row is read")
        .and_then(|loaded| loaded.row)
}

/// Up to `rows` marks, however large.
pub(super) async fn take<G: Group>(group: &mut G, rows: usize) -> Result<Vec<Mark>, StorageError> {
    let bytes = usize::MAX;
    let taken = group.take_marks(Room { rows, bytes }).await?;
    Ok(taken.marks)
}

/// All marks, in order of table and key.
pub(super) fn marks<S: Storage>(storage: &mut S) -> Vec<Mark> {
    let mut marks =
        in_group(storage, async |group| take(group, 1000).await).expect("the marks are taken");
    marks.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    marks
}

pub(super) fn bucket(n: u8) -> BucketId {
    BucketId([n; 16])
}

pub(super) fn grant(grantee: u8, granted: u8) -> Grant {
    Grant {
        grantee: GranteeId([grantee; 16]),
        bucket: bucket(granted),
    }
}

/// Metadata of a live row at `version` that lies in `buckets`.
pub(super) fn meta(version: u64, buckets: &[u8]) -> RowMeta {
    let version = Version(version);
    RowMeta {
        version,
        created: version,
        owner: Some(UserId("ada".into())),
        author: Some(UserId("ben".into())),
        clock: Clock {
            version,
            hlc: Hlc(77),
            changeset: ChangesetId([3; 16]),
            device: DeviceId([4; 16]),
        },
        columns: ColumnStates::default(),
        buckets: buckets.iter().map(|&n| bucket(n)).collect(),
        deleted: false,
        remains: Vec::new(),
        grave: Vec::new(),
    }
}

/// An entry that follows `head`, with a record for each row.
pub(super) fn entry(head: Head, version: u64, rows: &[(TableNumber, RowKey)]) -> LogEntry {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&version.to_le_bytes());
    let changeset = ChangesetId(id);
    let record = |(table, key): &(TableNumber, RowKey)| LogRecord {
        table: *table,
        key: key.clone(),
        version: Version(version),
        before: vec![bucket(1)],
        after: vec![bucket(1), bucket(2)],
        whole: Some(Arc::from(&b"whole"[..])),
        columns: Some(Arc::from(&b"columns"[..])),
        deleted: false,
    };
    LogEntry {
        version: Version(version),
        tag: next_tag(head.tag, changeset),
        changeset,
        user: Some(UserId("ada".into())),
        device: DeviceId([9; 16]),
        number: 7,
        hlc: Hlc(42),
        grants: vec![crate::GrantChange {
            grantee: GranteeId([5; 16]),
            bucket: bucket(1),
            granted: true,
        }],
        records: rows.iter().map(record).collect(),
        digests: vec![(
            bucket(1),
            TableNumber(17),
            Digest {
                count: 1,
                sum: u64::MAX,
            },
        )],
    }
}

/// Appends entries that end at `versions`; returns them.
pub(super) fn append<S: Storage>(storage: &mut S, versions: &[u64]) -> Vec<Arc<LogEntry>> {
    let mut written = Vec::new();
    for &version in versions {
        let entry = in_group(storage, async |group| {
            let rows = [(TableNumber(17), key(format!("row {version}")))];
            let entry = Arc::new(entry(group.head(), version, &rows));
            let entries = vec![Arc::clone(&entry)];
            group
                .write_ledger(&Ledger {
                    entries,
                    ..Ledger::default()
                })
                .await?;
            Ok(entry)
        });
        written.push(entry.expect("the entry is written"));
    }
    written
}
