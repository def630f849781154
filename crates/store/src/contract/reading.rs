//! Reads beside the writer.

use syncline_core::{
    RowKey, Tag, Value, Version,
    digest::{Digest, content_hash},
    rules::{Facts as _, GranteeId, RuleColumn},
    wire::{RowBody, RowState},
};

use super::{
    Bed,
    support::{append, bucket, grant, in_group, insert, key, label, meta, number, opened, store},
};
use crate::{
    Group, Ledger, Loaded, PageWant, Reader, RowMeta, Storage, Want, inspect,
    plan::row_bytes,
    testkit::{World, block_on},
};

pub fn se8_the_log_is_read_in_order_and_in_portions<B: Bed>(bed: &mut B) {
    let (mut storage, _) = opened(bed);
    let entries = append(&mut storage, &[10, 20, 35, 40]);
    let mut reader = bed.reader(&storage);
    let mut after = |version, bytes_max| {
        block_on(reader.log_after(Version(version), bytes_max)).expect("the log is read")
    };
    assert_eq!(after(0, usize::MAX), entries);
    assert_eq!(after(20, usize::MAX), entries[2..]);
    assert_eq!(after(21, usize::MAX), entries[2..], "between two entries");
    assert_eq!(after(40, usize::MAX), []);
    assert_eq!(after(10, 1), entries[1..2], "one at least");
    let bytes: usize = entries[..2]
        .iter()
        .map(|entry| entry.encode_body().len())
        .sum();
    let portion = after(0, bytes + 64).len();
    assert!(
        (1..=2).contains(&portion),
        "{portion} entries in the space of two"
    );
}

pub fn id3_tags_are_found_at_exactly_their_version<B: Bed>(bed: &mut B) {
    let (mut storage, _) = opened(bed);
    let mut reader = bed.reader(&storage);
    let at = |reader: &mut B::Reader, version| {
        block_on(reader.tag_at(Version(version))).expect("the tag is read")
    };
    assert_eq!(at(&mut reader, 0), Some(Tag::default()));
    let entries = append(&mut storage, &[10, 20]);
    assert_eq!(at(&mut reader, 0), Some(Tag::default()));
    assert_eq!(at(&mut reader, 10), Some(entries[0].tag));
    assert_eq!(at(&mut reader, 20), Some(entries[1].tag));
    assert_eq!(
        [at(&mut reader, 9), at(&mut reader, 15), at(&mut reader, 21)],
        [None; 3]
    );
}

pub fn pl3_trim_forgets_up_to_the_horizon<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    let entries = append(&mut storage, &[10, 20, 30]);
    store(&mut storage, labels, &[label("live", "live")]);
    let tombstone = |version| RowMeta {
        deleted: true,
        ..meta(version, &[])
    };
    let metas = vec![
        (labels, key("old"), tombstone(15), Vec::new()),
        (labels, key("young"), tombstone(25), Vec::new()),
    ];
    in_group(&mut storage, async |group| {
        group
            .write_ledger(&Ledger {
                metas,
                ..Ledger::default()
            })
            .await
    })
    .expect("the ledger is written");

    block_on(storage.trim(Version(9))).expect("the log is trimmed");
    let mut reader = bed.reader(&storage);
    assert_eq!(
        block_on(reader.head()).expect("the head is read").horizon,
        Version::ZERO
    );
    block_on(storage.trim(Version(29))).expect("the log is trimmed");
    let head = block_on(reader.head()).expect("the head is read");
    assert_eq!(
        (head.horizon, head.version, head.tag),
        (Version(20), Version(30), entries[2].tag)
    );
    let rest = block_on(reader.log_after(Version(20), usize::MAX)).expect("the log is read");
    assert_eq!(rest, entries[2..]);
    let tags = [10, 20, 30].map(|v| block_on(reader.tag_at(Version(v))).expect("the tag is read"));
    assert_eq!(tags, [None, Some(entries[1].tag), Some(entries[2].tag)]);
    let wants = [
        Want::Changeset(entries[0].changeset),
        Want::Changeset(entries[2].changeset),
        Want::Row(labels, key("old")),
        Want::Row(labels, key("young")),
        Want::Row(labels, key("live")),
    ];
    let loaded = in_group(&mut storage, async |group| {
        let mut loaded = Loaded::default();
        group.load(&wants, &mut loaded).await?;
        Ok(loaded)
    })
    .expect("the wants are loaded");
    assert_eq!(loaded.changesets[&entries[0].changeset], None);
    assert!(loaded.changesets[&entries[2].changeset].is_some());
    assert_eq!(loaded.row(labels, &key("old")), Some(None));
    assert!(loaded.row(labels, &key("young")).flatten().is_some());
    assert!(
        loaded.row(labels, &key("live")).flatten().is_some(),
        "rows are no tombstones"
    );

    block_on(storage.trim(Version(1000))).expect("the log is trimmed");
    let head = block_on(reader.head()).expect("the head is read");
    assert_eq!((head.version, head.tag), (Version(30), entries[2].tag));
    let rest = block_on(reader.log_after(Version::ZERO, usize::MAX)).expect("the log is read");
    assert_eq!(rest.last(), entries.last(), "the last entry stays");
    assert_eq!(append(&mut storage, &[40])[0].version, Version(40));
}

/// Labels `a` to `f`: all in bucket 1, every second one in bucket 2 as well.
fn with_members<S: Storage>(storage: &mut S, labels: syncline_core::TableNumber) -> Digest {
    let ids = ["a", "b", "c", "d", "e", "f"];
    let rows: Vec<_> = ids
        .iter()
        .map(|id| label(id, &format!("name of {id}")))
        .collect();
    store(storage, labels, &rows);
    let mut digest = Digest::default();
    let metas = ids.iter().enumerate().map(|(i, id)| {
        let buckets: &[u8] = if i % 2 == 0 { &[1, 2] } else { &[1] };
        digest.add(labels, &key(*id), Version(50));
        (labels, key(*id), meta(50, buckets), Vec::new())
    });
    let metas: Vec<_> = metas.collect();
    let digests = vec![(bucket(1), labels, digest)];
    in_group(storage, async |group| {
        group
            .write_ledger(&Ledger {
                metas,
                digests,
                ..Ledger::default()
            })
            .await
    })
    .expect("the ledger is written");
    digest
}

fn want(labels: syncline_core::TableNumber, n: u8, after: Option<RowKey>) -> PageWant {
    PageWant {
        bucket: bucket(n),
        table: labels,
        after,
    }
}

fn names(rows: &[u8]) -> Vec<String> {
    let bodies = RowBody::decode_all(rows).map(|body| body.expect("a body"));
    bodies.map(|body| body.key.to_string()).collect()
}

pub fn se11_pages_are_in_key_order_with_the_digest_at_the_end<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    let digest = with_members(&mut storage, labels);
    append(&mut storage, &[60]);
    let mut reader = bed.reader(&storage);
    let mut read = |after, bytes_max| {
        block_on(reader.pages(&[want(labels, 1, after)], bytes_max)).expect("pages are read")
    };
    let whole = read(None, usize::MAX);
    assert_eq!(whole.version, Version(60));
    let [part] = &whole.parts[..] else {
        panic!("one part for one want: {:?}", whole.parts)
    };
    assert_eq!(
        (part.to.as_ref(), part.count, part.digest),
        (None, 6, Some(digest))
    );
    assert_eq!(names(&part.rows), ["a", "b", "c", "d", "e", "f"]);
    let (first, _) = RowBody::decode(&part.rows).expect("a body");
    let RowState::Whole {
        columns,
        owner,
        created,
    } = first.state
    else {
        panic!("pages are whole")
    };
    assert_eq!((first.version, first.author.as_str()), (Version(50), "ben"));
    assert_eq!((owner.as_str(), created), ("ada", Version(50)));
    let values: Vec<_> = columns.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, label("a", "name of a").0);

    let (mut seen, mut after, mut parts) = (Vec::new(), None, 0);
    loop {
        let page = read(after.clone(), part.rows.len() / 3);
        let [part] = &page.parts[..] else {
            panic!("one part for one want")
        };
        assert_eq!(part.after, after);
        assert_eq!(part.digest.is_some(), part.to.is_none());
        seen.extend(names(&part.rows));
        parts += 1;
        after = part.to.clone();
        if after.is_none() {
            assert_eq!(part.digest, Some(digest));
            break;
        }
        assert!(part.count > 0 && parts < 10, "each part goes on");
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e", "f"]);
    assert!(parts > 1, "the limit cuts");
    assert_eq!(
        names(&read(None, 1).parts[0].rows),
        ["a"],
        "one row at least"
    );
}

pub fn se11_a_page_is_one_snapshot_of_several_buckets<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    with_members(&mut storage, labels);
    let wants = [
        want(labels, 2, None),
        want(labels, 1, Some(key("d"))),
        want(labels, 9, None),
    ];
    let page = block_on(bed.reader(&storage).pages(&wants, usize::MAX)).expect("pages are read");
    let found: Vec<_> = page
        .parts
        .iter()
        .map(|part| (part.bucket, names(&part.rows), part.to.clone()))
        .collect();
    let expected = [
        (bucket(2), vec!["a", "c", "e"], None),
        (bucket(1), vec!["e", "f"], None),
        (bucket(9), vec![], None),
    ];
    let expected =
        expected.map(|(b, names, to)| (b, names.into_iter().map(str::to_owned).collect(), to));
    assert_eq!(found, expected);
    assert_eq!(
        page.parts[2].digest,
        Some(Digest::default()),
        "nothing has an empty digest"
    );
}

pub fn se11_rows_to_come_are_those_of_the_pages<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    for n in 0..5 {
        world.push("ada", |draw| {
            draw.insert("notes", n, &[("body", "one".into())])
        });
    }
    let notes = number(&world.context, "notes");
    let mut reader = bed.reader(&world.storage);
    let entries = block_on(reader.log_after(Version::ZERO, usize::MAX)).expect("the log is read");
    let mut records = entries.iter().flat_map(|entry| &entry.records);
    let home = records.next().expect("rows were inserted").after[0];
    let part = |after| PageWant {
        bucket: home,
        table: notes,
        after,
    };
    for (wants, rows) in [
        (vec![], 0),
        (vec![part(None)], 5),
        (vec![part(Some(key(1)))], 3),
        (vec![part(Some(key(4))), want(notes, 9, None)], 0),
    ] {
        let found = block_on(reader.rows_to_come(&wants)).expect("rows are counted");
        assert_eq!(found, rows);
        let page = block_on(reader.pages(&wants, usize::MAX)).expect("pages are read");
        let counts = page.parts.iter().map(|part| u64::from(part.count));
        assert_eq!(counts.sum::<u64>(), rows);
    }
}

pub fn se10_grants_are_found_by_grantee<B: Bed>(bed: &mut B) {
    let (mut storage, _) = opened(bed);
    append(&mut storage, &[70]);
    let grants = vec![
        (grant(1, 1), 2, Some(Version(10))),
        (grant(2, 1), 1, Some(Version(20))),
        (grant(2, 3), 1, Some(Version(30))),
        (grant(3, 4), 1, Some(Version(40))),
    ];
    in_group(&mut storage, async |group| {
        group
            .write_ledger(&Ledger {
                grants,
                ..Ledger::default()
            })
            .await
    })
    .expect("the ledger is written");
    let mut reader = bed.reader(&storage);
    let asked = [GranteeId([1; 16]), GranteeId([2; 16]), GranteeId([8; 16])];
    let (head, mut found) = block_on(reader.grants(&asked)).expect("grants are read");
    found.sort_unstable();
    let expected = [
        (grant(1, 1), Version(10)),
        (grant(2, 1), Version(20)),
        (grant(2, 3), Version(30)),
    ];
    assert_eq!((head.version, found), (Version(70), expected.to_vec()));
    let (_, none) = block_on(reader.grants(&[])).expect("grants are read");
    assert_eq!(none, []);
}

pub fn di3_hashes_are_those_of_the_content<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    with_members(&mut storage, labels);
    let table = context
        .schema()
        .by_number(labels)
        .expect("declared")
        .clone();
    let mut reader = bed.reader(&storage);
    let mut hashes = |buckets: &[u8], after: Option<&str>, max| {
        let buckets: Vec<_> = buckets.iter().map(|&n| bucket(n)).collect();
        let after = after.map(key);
        block_on(reader.hashes(labels, &buckets, after.as_ref(), max))
            .expect("hashes are read")
            .rows
    };
    let keys = |found: Vec<crate::RowHash>| -> Vec<String> {
        for row in &found {
            let id = row.key.to_string();
            let expected = content_hash(&table, &label(&id, &format!("name of {id}")));
            assert_eq!((row.version, row.hash), (Version(50), expected), "{id}");
        }
        found.into_iter().map(|row| row.key.to_string()).collect()
    };
    assert_eq!(keys(hashes(&[2], None, 10)), ["a", "c", "e"]);
    assert_eq!(
        keys(hashes(&[1, 2], None, 10)),
        ["a", "b", "c", "d", "e", "f"],
        "each once"
    );
    assert_eq!(keys(hashes(&[1], Some("b"), 3)), ["c", "d", "e"]);
    assert_eq!(keys(hashes(&[7], None, 10)), Vec::<String>::new());
    let mut rows = |ids: &[&str], bytes_max| {
        let keys: Vec<_> = ids.iter().map(|id| key(*id)).collect();
        block_on(reader.rows(labels, &keys, bytes_max)).expect("rows are read")
    };
    let read = rows(&["c", "nothing"], usize::MAX);
    assert_eq!(read.looked_at, 2);
    assert_eq!(
        read.rows,
        [(key("c"), label("c", "name of c"), meta(50, &[1, 2]))]
    );
    let mut enough = |ids: &[&str], bytes_max| {
        let read = rows(ids, bytes_max);
        (read.rows.len(), read.looked_at)
    };
    let one = row_bytes(&key("a"), &label("a", "name of a"));
    let one = usize::try_from(one).expect("a few bytes");
    assert_eq!(enough(&["a", "b", "c"], 0), (1, 1), "at least one");
    assert_eq!(enough(&["nothing", "a", "b"], one), (1, 2));
    assert_eq!(enough(&["a", "b", "c"], one + 1), (2, 2));
}

pub fn pl17_readers_see_only_what_is_committed<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    let entries = append(&mut storage, &[10]);
    let (mut one, mut two) = (bed.reader(&storage), bed.reader(&storage));
    let (k, row) = (key("a"), label("a", "red"));
    block_on(async {
        let mut group = storage.begin().await.expect("a group begins");
        group
            .write_rows(&[insert(labels, &k, &row)])
            .await
            .expect("the row fits");
        let next = super::support::entry(group.head(), 20, &[]);
        let ledger = Ledger {
            metas: vec![(labels, k.clone(), meta(20, &[1]), Vec::new())],
            entries: vec![next.into()],
            ..Ledger::default()
        };
        group
            .write_ledger(&ledger)
            .await
            .expect("the ledger is written");
        for reader in [&mut one, &mut two] {
            assert_eq!(
                reader.head().await.expect("the head is read").version,
                Version(10)
            );
            let log = reader
                .log_after(Version::ZERO, usize::MAX)
                .await
                .expect("the log is read");
            assert_eq!(log, entries);
            assert_eq!(
                reader
                    .rows(labels, std::slice::from_ref(&k), usize::MAX)
                    .await
                    .expect("rows are read")
                    .rows,
                []
            );
        }
        group.commit().await.expect("the group commits");
        for reader in [&mut one, &mut two] {
            assert_eq!(
                reader.head().await.expect("the head is read").version,
                Version(20)
            );
            assert_eq!(
                reader
                    .rows(labels, std::slice::from_ref(&k), usize::MAX)
                    .await
                    .expect("rows are read")
                    .rows
                    .len(),
                1
            );
        }
    });
}

pub fn ru27_a_reader_answers_what_rules_ask<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    with_members(&mut storage, labels);
    let mut reader = bed.reader(&storage);
    let all = block_on(reader.keys(labels, None, usize::MAX)).expect("keys are read");
    assert!(all.is_sorted() && all.len() > 2, "{all:?}");
    let some = block_on(reader.keys(labels, Some(&all[0]), 1)).expect("keys are read");
    assert_eq!(some, all[1..2]);
    let table = context.schema().by_number(labels).expect("a table");
    let name = RuleColumn::Column(table.position("name").expect("a column"));
    let value = Value::Text("name of b".into());
    let wants = [
        Want::Row(labels, all[0].clone()),
        Want::Row(labels, key("nowhere")),
        Want::Matching(labels, name, value.clone()),
    ];
    let mut loaded = Loaded::default();
    block_on(reader.look(&wants, &mut loaded)).expect("rows are read");
    assert!(loaded.row(labels, &all[0]).flatten().is_some());
    assert_eq!(loaded.row(labels, &key("nowhere")), Some(None));
    assert_eq!(loaded.matching(labels, name, &value), Some(&[key("b")][..]));
    let found = block_on(inspect(&mut reader, |facts| {
        facts.matching(labels, name, &value)
    }));
    assert_eq!(found.expect("rows are read")[0].key, key("b"));
}
