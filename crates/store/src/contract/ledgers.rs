//! What a group leaves behind besides rows.

use std::{collections::BTreeMap, sync::Arc};

use syncline_core::{
    ChangesetId, ColumnNumber, DeviceId, Hlc, Lease, Timestamp, UserId, Value, Version,
    digest::Digest,
    merge::{Clock, ColumnState},
    rules::Grant,
};

use super::{
    Bed,
    support::{
        append, bucket, entry, grant, in_group, key, label, load_row, meta, number, opened, store,
    },
};
use crate::{
    ColumnStates, DeviceState, GrantChange, Group, Head, KnownChangeset, Ledger, Loaded, LogEntry,
    Reader, Room, RowMeta, Storage, StorageError, Want, testkit::block_on,
};

fn write<S: Storage>(storage: &mut S, ledger: Ledger) {
    in_group(storage, async |group| group.write_ledger(&ledger).await)
        .expect("the ledger is written");
}

pub(super) fn load<S: Storage>(storage: &mut S, wants: &[Want]) -> Loaded {
    let outcome: Result<_, StorageError> = in_group(storage, async |group| {
        let mut loaded = Loaded::default();
        group.load(wants, &mut loaded).await?;
        Ok(loaded)
    });
    outcome.expect("the wants are loaded")
}

fn clock(n: u64) -> Clock {
    Clock {
        version: Version(n),
        hlc: Hlc(u64::MAX - n),
        changeset: ChangesetId([7; 16]),
        device: DeviceId([8; 16]),
    }
}

pub fn pl1_metadata_comes_back_as_it_was_written<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    store(&mut storage, labels, &[label("a", "red")]);
    let members = BTreeMap::from([("a.b".to_owned(), clock(3)), (String::new(), clock(4))]);
    let columns = ColumnStates::from_iter([
        (
            ColumnNumber(2),
            ColumnState {
                clock: clock(5),
                members,
            },
        ),
        (
            ColumnNumber(9),
            ColumnState {
                clock: clock(6),
                members: BTreeMap::new(),
            },
        ),
    ]);
    let live = RowMeta {
        columns,
        ..meta(900, &[1, 5, 200])
    };
    let remains = vec![
        (ColumnNumber(1), Value::Text("gone".into())),
        (ColumnNumber(2), Value::Real(0.5)),
        (ColumnNumber(3), Value::Blob(vec![0, 255])),
        (ColumnNumber(4), Value::Integer(i64::MIN)),
    ];
    let tombstone = RowMeta {
        deleted: true,
        owner: None,
        author: None,
        remains,
        grave: vec![bucket(1), bucket(200)],
        ..meta(901, &[])
    };
    let metas = vec![
        (labels, key("a"), live.clone(), Vec::new()),
        (labels, key("z"), tombstone.clone(), Vec::new()),
    ];
    write(
        &mut storage,
        Ledger {
            metas,
            ..Ledger::default()
        },
    );
    let found = in_group(&mut storage, async |group| {
        Ok([
            load_row(group, labels, &key("a")).await,
            load_row(group, labels, &key("z")).await,
        ])
    });
    let [a, z] = found
        .expect("the rows are read")
        .map(|row| row.expect("the row is known"));
    assert_eq!((a.row, a.meta), (Some(label("a", "red")), live.clone()));
    assert_eq!((z.row, z.meta), (None, tombstone));

    let moved = RowMeta {
        version: Version(902),
        ..meta(902, &[5, 6])
    };
    let metas = vec![(labels, key("a"), moved.clone(), live.buckets)];
    write(
        &mut storage,
        Ledger {
            metas,
            ..Ledger::default()
        },
    );
    let found = in_group(&mut storage, async |group| {
        Ok(load_row(group, labels, &key("a")).await)
    });
    assert_eq!(
        found.expect("the row is read").map(|row| row.meta),
        Some(moved)
    );
}

pub fn pl3_known_changesets_are_remembered<B: Bed>(bed: &mut B) {
    let (mut storage, _) = opened(bed);
    let entries = append(&mut storage, &[100, 250]);
    let id = entries[0].changeset;
    let loaded = load(&mut storage, &[Want::Changeset(id)]);
    let known = KnownChangeset {
        version: Version(100),
        user: Some(UserId("ada".into())),
        device: DeviceId([9; 16]),
    };
    assert_eq!(loaded.changesets.get(&id), Some(&Some(known)));
    let head = in_group(&mut storage, async |group| Ok(group.head())).expect("a group begins");
    assert_eq!((head.version, head.tag), (Version(250), entries[1].tag));
}

pub fn pl11_grant_counts_are_absolute_and_keep_their_since<B: Bed>(bed: &mut B) {
    let (mut storage, _) = opened(bed);
    let (one, two) = (grant(1, 1), grant(1, 2));
    let since = |version| Some(Version(version));
    let grants = vec![(one, 1, since(10)), (two, 1, since(11))];
    write(
        &mut storage,
        Ledger {
            grants,
            ..Ledger::default()
        },
    );
    write(
        &mut storage,
        Ledger {
            grants: vec![(one, 3, None), (two, 0, None)],
            ..Ledger::default()
        },
    );
    let loaded = load(
        &mut storage,
        &[Want::GrantCount(one), Want::GrantCount(two)],
    );
    assert_eq!((loaded.grants[&one], loaded.grants[&two]), (3, 0));
    assert_eq!(loaded.granted_since.get(&one), Some(&Version(10)));
    assert_eq!(loaded.granted_since.get(&two), None);
    let (_, granted) =
        block_on(bed.reader(&storage).grants(&[one.grantee])).expect("grants are read");
    assert_eq!(granted, [(one, Version(10))], "a count of zero is no grant");
    write(
        &mut storage,
        Ledger {
            grants: vec![(two, 1, since(12))],
            ..Ledger::default()
        },
    );
    let (_, mut granted) =
        block_on(bed.reader(&storage).grants(&[one.grantee])).expect("grants are read");
    granted.sort_unstable();
    assert_eq!(granted, [(one, Version(10)), (two, Version(12))]);
}

pub fn pl18_the_log_knows_which_grants_an_entry_took<B: Bed>(bed: &mut B) {
    let (mut storage, _) = opened(bed);
    let head = in_group(&mut storage, async |group| Ok(group.head())).expect("a group begins");
    let change = |bucket_byte, granted| {
        let Grant { grantee, bucket } = grant(1, bucket_byte);
        GrantChange {
            grantee,
            bucket,
            granted,
        }
    };
    let first = LogEntry {
        grants: vec![change(1, true), change(2, true)],
        ..entry(head, 100, &[])
    };
    let at_first = Head {
        version: first.version,
        tag: first.tag,
        ..head
    };
    let second = LogEntry {
        grants: vec![change(1, false), change(3, true)],
        ..entry(at_first, 250, &[])
    };
    write(
        &mut storage,
        Ledger {
            entries: vec![Arc::new(first), Arc::new(second)],
            ..Ledger::default()
        },
    );
    // Versions within an entry and at its end; what is behind the log's end.
    let wants = [90, 100, 101, 250, 251].map(|version| Want::LostBy(Version(version)));
    let loaded = load(&mut storage, &wants);
    let lost = |version| Vec::from_iter(loaded.lost_by[&Version(version)].iter().copied());
    assert_eq!([lost(90), lost(100), lost(251)], [vec![], vec![], vec![]]);
    assert_eq!(
        [lost(101), lost(250)],
        [vec![grant(1, 1)], vec![grant(1, 1)]]
    );
}

pub fn pl15_digests_are_absolute<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    let digest = |count, sum| Digest { count, sum };
    let digests = vec![(bucket(1), labels, digest(2, u64::MAX))];
    write(
        &mut storage,
        Ledger {
            digests,
            ..Ledger::default()
        },
    );
    let digests = vec![
        (bucket(1), labels, digest(1, 1 << 63)),
        (bucket(2), labels, digest(0, 0)),
    ];
    write(
        &mut storage,
        Ledger {
            digests,
            ..Ledger::default()
        },
    );
    let wants = [
        Want::Digest(bucket(1), labels),
        Want::Digest(bucket(2), labels),
    ];
    let loaded = load(&mut storage, &wants);
    assert_eq!(loaded.digests[&(bucket(1), labels)], digest(1, 1 << 63));
    assert_eq!(loaded.digests[&(bucket(2), labels)], digest(0, 0));
}

pub fn pl15_a_rules_fingerprint_moves_rules_since<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    append(&mut storage, &[100]);
    let ledger = Ledger {
        rules: Some([7; 32]),
        grants: vec![(grant(1, 1), 1, Some(Version(100)))],
        digests: vec![(bucket(1), labels, Digest { count: 1, sum: 1 })],
        ..Ledger::default()
    };
    write(&mut storage, ledger);
    append(&mut storage, &[200]);
    let head = block_on(bed.reader(&storage).head()).expect("the head is read");
    assert_eq!(
        (head.rules_since, head.version),
        (Version(100), Version(200))
    );
    in_group(&mut storage, async |group| group.clear_rules().await).expect("rules are cleared");
    let wants = [
        Want::GrantCount(grant(1, 1)),
        Want::Digest(bucket(1), labels),
    ];
    let loaded = load(&mut storage, &wants);
    assert_eq!(loaded.grants[&grant(1, 1)], 0);
    assert_eq!(loaded.digests[&(bucket(1), labels)], Digest::default());
    drop(storage);
    let mut storage = bed.open();
    let (_, rules) = crate::testkit::context_of(&mut storage, &crate::testkit::demo_schema());
    assert_eq!(
        rules, None,
        "until a ledger brings a fingerprint there is none"
    );
    write(
        &mut storage,
        Ledger {
            rules: Some([8; 32]),
            ..Ledger::default()
        },
    );
    drop(storage);
    let mut storage = bed.open();
    let (_, rules) = crate::testkit::context_of(&mut storage, &crate::testkit::demo_schema());
    assert_eq!(rules, Some([8; 32]));
}

pub fn se2_devices_come_back_as_they_were_written<B: Bed>(bed: &mut B) {
    let (mut storage, _) = opened(bed);
    let device = DeviceState {
        id: DeviceId([1; 16]),
        user: UserId("ada".into()),
        name: "Ada's phone 📱".into(),
        platform: "android".into(),
        lease: Lease([2; 16]),
        previous_lease: Lease([3; 16]),
        last_number: (1 << 53) - 1,
        forked: true,
        first_seen: Timestamp(4),
        last_seen: Timestamp(5),
        checkpoint: Version((1 << 53) - 2),
        deregistered: Some(Timestamp(6)),
        wipe: true,
    };
    write(
        &mut storage,
        Ledger {
            devices: vec![device.clone()],
            ..Ledger::default()
        },
    );
    let loaded = load(&mut storage, &[Want::Device(device.id)]);
    assert_eq!(loaded.devices[&device.id], Some(device.clone()));
    let later = DeviceState {
        last_number: 7,
        forked: false,
        checkpoint: Version::ZERO,
        deregistered: None,
        wipe: false,
        ..device
    };
    write(
        &mut storage,
        Ledger {
            devices: vec![later.clone()],
            ..Ledger::default()
        },
    );
    let loaded = load(&mut storage, &[Want::Device(later.id)]);
    assert_eq!(loaded.devices[&later.id], Some(later));
}

pub fn pl10_scan_goes_through_live_rows_in_key_order<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    let rows: Vec<_> = ["d", "b", "e", "a"]
        .map(|id| label(id, &format!("name {id}")))
        .into();
    store(&mut storage, labels, &rows);
    let tombstone = RowMeta {
        deleted: true,
        ..meta(9, &[])
    };
    let metas = vec![(labels, key("c"), tombstone, Vec::new())];
    write(
        &mut storage,
        Ledger {
            metas,
            ..Ledger::default()
        },
    );
    let scan = |storage: &mut B::Storage, after: Option<&str>, rows, bytes| {
        let after = after.map(key);
        let rows = in_group(storage, async |group| {
            group
                .scan(labels, after.as_ref(), Room { rows, bytes })
                .await
        });
        let rows = rows.expect("rows are read").into_iter();
        rows.map(|(key, row)| {
            assert_eq!(row.meta, meta(1, &[]));
            (key, row.row.expect("a live row"))
        })
        .collect::<Vec<_>>()
    };
    let expected = |ids: &[&str]| -> Vec<_> {
        ids.iter()
            .map(|id| (key(*id), label(id, &format!("name {id}"))))
            .collect()
    };
    assert_eq!(
        scan(&mut storage, None, 10, 1_000),
        expected(&["a", "b", "d", "e"])
    );
    assert_eq!(scan(&mut storage, None, 2, 1_000), expected(&["a", "b"]));
    assert_eq!(
        scan(&mut storage, Some("b"), 2, 1_000),
        expected(&["d", "e"])
    );
    assert_eq!(scan(&mut storage, Some("e"), 2, 1_000), []);
    assert_eq!(scan(&mut storage, Some("a"), 10, 1), expected(&["b"]));
}
