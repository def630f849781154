//! The history of rows.

use syncline_core::{ColumnNumber, DeviceId, TableNumber, UserId, Value, Version};

use super::{
    Bed,
    support::{bucket, in_group, key, label, number, opened, store},
};
use crate::{
    Group, HistoryChange, HistoryFrom, HistoryRead, HistoryRecord, HistoryWant, Ledger, Reader,
    Storage, rebuild_rules,
    testkit::{External, World, block_on, context_of, demo_schema},
};

fn record(table: TableNumber, id: &str, version: u64, change: HistoryChange) -> HistoryRecord {
    HistoryRecord {
        table,
        key: key(id),
        version: Version(version),
        entry: Version(version + 1),
        user: Some(UserId("ada".into())),
        device: DeviceId([7; 16]),
        change,
        before: vec![bucket(1)],
        after: vec![bucket(1), bucket(2)],
        old: vec![
            (ColumnNumber(1), None),
            (ColumnNumber(2), Some(Value::Null)),
            (ColumnNumber(3), Some(Value::Integer(i64::MIN))),
            (ColumnNumber(4), Some(Value::Real(-1.5))),
            (ColumnNumber(5), Some("text\0".into())),
            (ColumnNumber(6), Some(Value::Blob(vec![0, 255]))),
        ],
    }
}

fn write<S: Storage>(storage: &mut S, history: Vec<HistoryRecord>) {
    let ledger = Ledger {
        history,
        ..Ledger::default()
    };
    in_group(storage, async |group| group.write_ledger(&ledger).await).expect("it is written");
}

fn read<R: Reader>(reader: &mut R, table: TableNumber, id: &str, from: HistoryFrom) -> HistoryRead {
    read_some(reader, table, id, from, 1_000, usize::MAX)
}

fn read_some<R: Reader>(
    reader: &mut R,
    table: TableNumber,
    id: &str,
    from: HistoryFrom,
    max: usize,
    bytes_max: usize,
) -> HistoryRead {
    let want = HistoryWant {
        table,
        key: key(id),
        from,
        max,
        bytes_max,
    };
    block_on(reader.history(&want)).expect("the history is read")
}

fn versions(read: &HistoryRead) -> Vec<u64> {
    read.records.iter().map(|record| record.version.0).collect()
}

pub fn pl21_history_comes_back_as_it_was_written<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    let by_another_program = HistoryRecord {
        user: None,
        before: Vec::new(),
        after: Vec::new(),
        old: Vec::new(),
        ..record(labels, "a", 20, HistoryChange::Insert)
    };
    let written = [
        record(labels, "a", 40, HistoryChange::Delete),
        record(labels, "a", 30, HistoryChange::Update),
        by_another_program,
    ];
    write(&mut storage, written.iter().rev().cloned().collect());
    write(
        &mut storage,
        vec![record(labels, "b", 35, HistoryChange::Update)],
    );
    drop(storage);
    let (storage, _) = opened(bed);
    let mut reader = bed.reader(&storage);
    let found = read(&mut reader, labels, "a", HistoryFrom::Newest);
    assert_eq!(found.records, written);
    assert!(found.present.is_none() && !found.more);
    assert_eq!(found.since, Some(Version::ZERO));
    let nothing = read(&mut reader, labels, "c", HistoryFrom::Newest);
    assert!(nothing.records.is_empty() && nothing.present.is_none());
}

pub fn pl21_history_is_read_in_portions_in_both_directions<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    store(&mut storage, labels, &[label("a", "name")]);
    let update = |version| record(labels, "a", version, HistoryChange::Update);
    write(&mut storage, (1..=9).map(|n| update(n * 10)).collect());
    let mut reader = bed.reader(&storage);
    let mut get = |from, max, bytes_max| {
        let found = read_some(&mut reader, labels, "a", from, max, bytes_max);
        let needs_row = !matches!(from, HistoryFrom::Below(_));
        assert_eq!(found.present.is_some(), needs_row, "{from:?}");
        (versions(&found), found.more)
    };
    let all = usize::MAX;
    assert_eq!(get(HistoryFrom::Newest, 2, all), (vec![90, 80], true));
    let below = |n| HistoryFrom::Below(Version(n));
    assert_eq!(get(below(80), 3, all), (vec![70, 60, 50], true));
    assert_eq!(get(below(35), 3, all), (vec![30, 20, 10], false));
    assert_eq!(get(below(10), 3, all), (vec![], false));
    let above = |n| HistoryFrom::Above(Version(n));
    assert_eq!(get(above(50), 2, all), (vec![60, 70], true));
    assert_eq!(get(above(75), 2, all), (vec![80, 90], false));
    assert_eq!(get(above(90), 2, all), (vec![], false));
    assert_eq!(get(above(0), all, 1), (vec![10], true), "one at least");
    let two = 2 * update(10).encode_body().len();
    assert_eq!(get(HistoryFrom::Newest, all, two), (vec![90, 80], true));
}

pub fn pl21_history_is_trimmed_by_itself_and_can_be_left_out<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    let update = |version| record(labels, "a", version, HistoryChange::Update);
    write(&mut storage, (1..=25_000).map(update).collect());
    super::support::append(&mut storage, &[30_000]);
    block_on(storage.trim(Version(20_000))).expect("the log is trimmed");
    let mut reader = bed.reader(&storage);
    let all = |reader: &mut B::Reader| {
        let found = read_some(reader, labels, "a", HistoryFrom::Newest, 50_000, usize::MAX);
        (found.records.len(), found.since.map(|since| since.0))
    };
    let trimmed = |storage: &mut B::Storage, horizon| {
        block_on(storage.trim_history(Version(horizon))).expect("the history is trimmed")
    };
    assert_eq!(
        all(&mut reader),
        (25_000, Some(0)),
        "the log is another thing"
    );
    // Whatever portion is deleted at once: nothing of it is read any more.
    let mut more = trimmed(&mut storage, 24_600);
    assert_eq!(all(&mut reader), (400, Some(24_600)));
    while more {
        more = trimmed(&mut storage, 24_600);
    }
    assert!(!trimmed(&mut storage, 50));
    assert_eq!(all(&mut reader), (400, Some(24_600)));

    block_on(storage.keep_history(true)).expect("it is kept");
    assert_eq!(all(&mut reader), (400, Some(24_600)), "it was kept already");
    block_on(storage.keep_history(false)).expect("it is left out");
    assert_eq!(all(&mut reader), (0, None));
    write(&mut storage, vec![update(31_000)]);
    block_on(storage.keep_history(true)).expect("it is kept");
    assert_eq!(all(&mut reader), (0, Some(30_000)), "from the log's end on");
    write(&mut storage, vec![update(32_000)]);
    assert_eq!(all(&mut reader), (1, Some(30_000)));
    block_on(storage.keep_history(false)).expect("it is left out");
    assert!(!trimmed(&mut storage, 1));
    assert_eq!(all(&mut reader), (0, None));
}

/// Columns by name, with what they were before; no value where that is unknown.
fn old<S: Storage>(world: &World<S>, record: &HistoryRecord) -> Vec<(String, Option<Value>)> {
    let table = world.context.schema().by_number(record.table);
    let table = table.expect("declared");
    let name = |number| {
        let position = table.position_of(number).expect("declared");
        table.columns[position].name.clone()
    };
    let old = record.old.iter();
    old.map(|(number, value)| (name(*number), value.clone()))
        .collect()
}

fn named(values: &[(&str, Value)]) -> Vec<(String, Option<Value>)> {
    let named = values.iter();
    named
        .map(|(name, value)| ((*name).to_owned(), Some(value.clone())))
        .collect()
}

pub fn pl21_a_commit_keeps_what_was_before<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    let inserted = world.push("ada", |draw| {
        draw.insert("projects", "p", &[("name", "One".into())])
            .insert(
                "tasks",
                "t",
                &[("project_id", "p".into()), ("title", "Dig".into())],
            )
    });
    let project = inserted.outcome.entries[0].records[0].version;
    let task = inserted.version();
    let changed = world.push("ada/phone", |draw| {
        draw.set("tasks", "t", task, &[("title", "Sow".into())])
    });
    let idle = world.push("ada", |draw| {
        draw.set("tasks", "t", changed.version(), &[("title", "Sow".into())])
    });
    let deleted = world.push("ada", |draw| draw.delete("projects", "p", project));
    let tasks = world
        .context
        .schema()
        .table("tasks")
        .expect("declared")
        .number;
    let projects = world
        .context
        .schema()
        .table("projects")
        .expect("declared")
        .number;
    let mut reader = bed.reader(&world.storage);

    let found = read(&mut reader, tasks, "t", HistoryFrom::Newest);
    let changes: Vec<_> = found.records.iter().map(|record| record.change).collect();
    let expected = [
        HistoryChange::Delete,
        HistoryChange::Update,
        HistoryChange::Insert,
    ];
    assert_eq!(changes, expected, "{}", idle.version().0);
    let [gone, edited, born] = &found.records[..] else {
        unreachable!()
    };
    assert_eq!(old(&world, born), []);
    assert_eq!((born.version, born.entry), (task, inserted.version()));
    assert!(born.before.is_empty() && !born.after.is_empty());
    let by = named(&[("title", "Dig".into())]);
    assert_eq!(old(&world, edited), by, "edited_by stayed ada");
    assert_eq!(edited.user, Some(UserId("ada".into())));
    assert_eq!(edited.device, changed.submission.device);
    assert_eq!((&edited.before, &edited.after), (&born.after, &born.after));
    // The cascade is part of the changeset that caused it.
    assert_eq!(gone.entry, deleted.version());
    assert_eq!(gone.device, deleted.submission.device);
    assert!(gone.after.is_empty() && gone.before == edited.after);
    let last = named(&[
        ("id", "t".into()),
        ("project_id", "p".into()),
        ("title", "Sow".into()),
        ("done", Value::Null),
        ("effort", Value::Null),
        ("edited_by", "ada".into()),
    ]);
    assert_eq!(old(&world, gone), last);
    let found = read(&mut reader, projects, "p", HistoryFrom::Newest);
    assert_eq!(found.records.len(), 2);
    assert_eq!(found.records[0].change, HistoryChange::Delete);
}

pub fn pl21_what_another_program_wrote_is_in_the_history<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    world.push("ada", |draw| {
        draw.insert("labels", "l", &[("name", "one".into())])
    });
    let id = || vec![("id", "l".into())];
    let name = |name: &str| vec![("name", name.into())];
    let update = External::Update {
        table: "labels",
        key: id(),
        set: name("two"),
    };
    bed.external(&[update]).expect("it is updated");
    world.commit(&[]);
    let delete = External::Delete {
        table: "labels",
        key: id(),
    };
    bed.external(&[delete]).expect("it is deleted");
    world.commit(&[]);
    let labels = world
        .context
        .schema()
        .table("labels")
        .expect("declared")
        .number;
    let mut reader = bed.reader(&world.storage);
    let found = read(&mut reader, labels, "l", HistoryFrom::Newest);
    let [deleted, updated, _] = &found.records[..] else {
        panic!("three changes: {:?}", found.records)
    };
    assert_eq!((&updated.user, updated.device), (&None, crate::EXTERNAL));
    assert_eq!(old(&world, updated), named(&[("name", "one".into())]));
    let last = named(&[("id", "l".into()), ("name", "two".into())]);
    assert_eq!(old(&world, deleted), last);
    assert!(found.present.is_none());
}

pub fn pl21_a_record_says_where_the_row_lay<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    let done = world.push("ada", |draw| {
        draw.insert("projects", "p", &[("name", "One".into())])
            .insert("projects", "q", &[("name", "Two".into())])
            .insert(
                "tasks",
                "t",
                &[("project_id", "p".into()), ("title", "Dig".into())],
            )
    });
    let project = done.outcome.entries[0].records[0].version;
    // The project has a bucket of its own: it and its tasks stay in it whoever owns it.
    world.push("ada", |draw| {
        draw.set("projects", "p", project, &[("name", "Renamed".into())])
    });
    let tasks = world
        .context
        .schema()
        .table("tasks")
        .expect("declared")
        .number;
    let moved = world.push("ada", |draw| {
        draw.set("tasks", "t", done.version(), &[("project_id", "q".into())])
    });
    let mut reader = bed.reader(&world.storage);
    let found = read(&mut reader, tasks, "t", HistoryFrom::Newest);
    assert_eq!(versions(&found), [moved.version().0, done.version().0]);
    let [moved, born] = &found.records[..] else {
        unreachable!()
    };
    assert_eq!(old(&world, moved), named(&[("project_id", "p".into())]));
    assert_eq!(moved.before, born.after);
    assert_ne!(moved.after, born.after);
    let (row, meta) = found.present.expect("it lives");
    assert_eq!((&row.0[1], &meta.buckets), (&"q".into(), &moved.after));
}

pub fn pl21_an_insert_stays_in_the_history_whatever_becomes_of_the_row<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    let labels = world.context.schema().table("labels").expect("declared");
    let labels = labels.number;
    let key = "l";
    let mut told: Vec<HistoryRecord> = Vec::new();
    // What was told before is told again, below so many new records.
    let mut again = |bed: &mut B, world: &World<B::Storage>, new: &[HistoryChange]| {
        let mut reader = bed.reader(&world.storage);
        let found = read(&mut reader, labels, key, HistoryFrom::Newest).records;
        let (younger, older) = found.split_at(new.len());
        assert_eq!(older, told);
        let changes: Vec<_> = younger.iter().map(|record| record.change).collect();
        assert_eq!(changes, new);
        told = found;
        let mut upward = |after| {
            let from = HistoryFrom::Above(Version(after));
            let found = read_some(&mut reader, labels, key, from, 2, usize::MAX);
            (found.records, found.more)
        };
        let (mut after, mut upwards) = (0, Vec::new());
        loop {
            let (records, more) = upward(after);
            after = records.last().map_or(after, |record| record.version.0);
            upwards.extend(records);
            if !more {
                break;
            }
        }
        upwards.reverse();
        assert_eq!(upwards, told);
        for pair in told.windows(2) {
            let below = HistoryFrom::Below(pair[0].version);
            let found = read_some(&mut reader, labels, key, below, 1, usize::MAX);
            assert_eq!(found.records, [pair[1].clone()]);
        }
    };
    let name = |name: &str| [("name", name.into())];
    world.push("ada", |draw| draw.insert("labels", key, &name("one")));
    again(bed, &world, &[HistoryChange::Insert]);
    // Other rules, other buckets: nothing that a history tells of.
    let mut other = demo_schema();
    for table in &mut other.tables {
        if table.name == "labels" {
            table.rules.read = Some("_owner = auth.uid()".into());
        }
    }
    let before = read(
        &mut bed.reader(&world.storage),
        labels,
        key,
        HistoryFrom::Newest,
    );
    world.context = context_of(&mut world.storage, &other).0;
    let rebuilt = rebuild_rules(&mut world.storage, &world.context, world.now);
    block_on(rebuilt).expect("its buckets are computed anew");
    again(bed, &world, &[]);
    let after = read(
        &mut bed.reader(&world.storage),
        labels,
        key,
        HistoryFrom::Newest,
    );
    let buckets = |read: HistoryRead| read.present.expect("it lives").1.buckets;
    assert_ne!(buckets(before), buckets(after));
    let deleted = world.push("ada", |draw| draw.delete("labels", key, Version(1)));
    deleted.accepted();
    again(bed, &world, &[HistoryChange::Delete]);
    let born = world.push("ada/phone", |draw| draw.insert("labels", key, &name("two")));
    again(bed, &world, &[HistoryChange::Insert]);
    let born = born.version();
    let mut world = world.restart(|storage| {
        drop(storage);
        bed.open()
    });
    world.context = context_of(&mut world.storage, &other).0;
    again(bed, &world, &[]);
    world
        .push("ada/phone", |draw| {
            draw.set("labels", key, born, &name("three"))
        })
        .accepted();
    again(bed, &world, &[HistoryChange::Update]);
    // Inserted and changed in one group.
    let changes = [
        world.draw().delete("labels", key, born).done(),
        world.draw().insert("labels", key, &name("four")).done(),
        world.draw().set("labels", key, born, &name("five")).done(),
    ];
    let group = changes.map(|changes| world.submission("ada/phone", changes));
    let mut outcome = world.commit(&group);
    let (insert, update) = (HistoryChange::Insert, HistoryChange::Update);
    again(bed, &world, &[update, insert, HistoryChange::Delete]);
    // It dies and lives again in one group, twice: what its metadata said is not forgotten.
    for name in ["six", "seven"] {
        let seen = outcome.head.expect("it was committed").version;
        let changes = [
            world.draw().delete("labels", key, seen).done(),
            world
                .draw()
                .insert("labels", key, &[("name", name.into())])
                .done(),
        ];
        let group = changes.map(|changes| world.submission("ada/phone", changes));
        outcome = world.commit(&group);
        again(bed, &world, &[insert, HistoryChange::Delete]);
    }
}
