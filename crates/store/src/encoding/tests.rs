use std::{collections::BTreeMap, sync::Arc};

use minicbor::Encoder;
use syncline_core::{
    BucketId, ChangesetId, ColumnNumber, DeviceId, Hlc, RowKey, TableNumber, Tag, UserId, Value,
    Version,
    digest::Digest,
    merge::{Clock, ColumnState},
    rules::GranteeId,
};

use crate::{ColumnStates, GrantChange, LogEntry, LogRecord, RowMeta};

fn clock(n: u64) -> Clock {
    let byte = u8::try_from(n).unwrap();
    Clock {
        version: Version(n),
        hlc: Hlc(n << 20),
        changeset: ChangesetId([byte; 16]),
        device: DeviceId([byte + 1; 16]),
    }
}

fn meta() -> RowMeta {
    let members = BTreeMap::from([("a.b".to_owned(), clock(3)), (String::new(), clock(4))]);
    let values = [
        Value::Null,
        Value::Integer(i64::MIN),
        Value::Real(-1.5),
        Value::from("text\0"),
        Value::Blob(vec![0, 255]),
    ];
    RowMeta {
        clock: clock(1),
        columns: ColumnStates::from_iter([
            (
                ColumnNumber(7),
                ColumnState {
                    clock: clock(2),
                    members,
                },
            ),
            (
                ColumnNumber(9),
                ColumnState {
                    clock: clock(5),
                    members: BTreeMap::new(),
                },
            ),
        ]),
        buckets: vec![BucketId([1; 16]), BucketId([2; 16])],
        remains: values
            .into_iter()
            .zip(1..)
            .map(|(v, n)| (ColumnNumber(n), v))
            .collect(),
        grave: vec![BucketId([3; 16])],
        ..RowMeta::default()
    }
}

fn entry() -> LogEntry {
    let key = RowKey::encode([&Value::from("k")]).unwrap();
    let record = LogRecord {
        table: TableNumber(16),
        key,
        version: Version(8),
        before: vec![],
        after: vec![BucketId([3; 16])],
        whole: Some(Arc::from(&b"whole"[..])),
        columns: None,
        deleted: false,
    };
    LogEntry {
        version: Version(9),
        tag: Tag([1; 8]),
        changeset: ChangesetId([2; 16]),
        user: Some(UserId("ana".into())),
        device: DeviceId([3; 16]),
        number: 4,
        hlc: Hlc(5),
        grants: vec![GrantChange {
            grantee: GranteeId([4; 16]),
            bucket: BucketId([5; 16]),
            granted: true,
        }],
        records: vec![
            record.clone(),
            LogRecord {
                whole: None,
                deleted: true,
                ..record
            },
        ],
        digests: vec![(
            BucketId([6; 16]),
            TableNumber(16),
            Digest {
                count: 1,
                sum: u64::MAX,
            },
        )],
    }
}

#[test]
fn metadata_round_trips() {
    let meta = meta();
    let mut read = RowMeta::default();
    read.decode_state(&meta.encode_state()).unwrap();
    read.decode_buckets(&meta.encode_buckets()).unwrap();
    assert_eq!(read, meta);
}

#[test]
fn log_entries_round_trip() {
    let entry = entry();
    let mut read = LogEntry {
        grants: vec![],
        records: vec![],
        digests: vec![],
        ..entry.clone()
    };
    read.decode_body(&entry.encode_body()).unwrap();
    assert_eq!(read, entry);
}

#[test]
fn elements_of_a_later_version_are_skipped() {
    let mut bytes = Vec::new();
    let mut e = Encoder::new(&mut bytes);
    e.array(5)
        .unwrap()
        .array(5)
        .unwrap()
        .u64(1)
        .unwrap()
        .u64(2)
        .unwrap();
    e.bytes(&[1; 16])
        .unwrap()
        .bytes(&[2; 16])
        .unwrap()
        .str("later")
        .unwrap();
    e.map(0).unwrap().map(0).unwrap();
    e.bytes(&[7; 16]).unwrap().str("later").unwrap();
    let mut read = RowMeta::default();
    read.decode_state(&bytes).unwrap();
    assert_eq!(read.clock.hlc, Hlc(2));
    assert_eq!(read.grave, [BucketId([7; 16])]);
}

/// Every cut and every flipped bit is an error or another value, never a panic.
#[test]
fn damaged_bytes_are_errors() {
    let state = meta().encode_state();
    let body = entry().encode_body();
    for end in 0..state.len() {
        RowMeta::default().decode_state(&state[..end]).unwrap_err();
    }
    for end in 0..body.len() {
        entry().decode_body(&body[..end]).unwrap_err();
    }
    for bit in 0..body.len() * 8 {
        let mut damaged = body.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        drop(entry().decode_body(&damaged));
    }
    RowMeta::default().decode_buckets(&[0; 17]).unwrap_err();
}
