//! The pipeline over this storage, from changesets to the log.

use std::{collections::BTreeMap, sync::Arc};

use syncline_core::{
    ChangesetId, DeviceId, Lease, Piece, RowKey, TableNumber, UserId, Value, Version,
    wire::{PushResult, RowBody, RowState, Verdict},
};

use super::{
    Bed,
    ledgers::load,
    support::{key, label, project, stored},
};
use crate::{
    DeviceHello, LogEntry, LogRecord, OpenDeviceError, Reader, Storage as _, Submission, Want,
    open_device,
    testkit::{Audit, External, World, block_on},
};

fn log<R: Reader>(reader: &mut R) -> Vec<Arc<LogEntry>> {
    block_on(reader.log_after(Version::ZERO, usize::MAX)).expect("the log is read")
}

fn table<S: crate::Storage>(world: &World<S>, name: &str) -> TableNumber {
    world.context.schema().table(name).expect("declared").number
}

/// The values of a record's body by column name.
fn told<S: crate::Storage>(world: &World<S>, record: &LogRecord) -> Vec<(String, Value)> {
    let bytes = record
        .columns
        .as_ref()
        .or(record.whole.as_ref())
        .expect("a body");
    let (body, _) = RowBody::decode(bytes).expect("a body");
    let columns = match body.state {
        RowState::Whole { columns, .. } | RowState::Columns(columns) => columns,
        RowState::Deleted | RowState::Removed | RowState::Released => Vec::new(),
    };
    let table = world
        .context
        .schema()
        .by_number(record.table)
        .expect("declared");
    let name = |number| {
        table.columns[table.position_of(number).expect("declared")]
            .name
            .clone()
    };
    columns
        .into_iter()
        .map(|(number, value)| (name(number), value))
        .collect()
}

pub fn pl3_a_changeset_is_applied_once_also_over_a_restart<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    world.push("ada", |draw| {
        draw.insert("notes", 1, &[("body", "one".into())])
    });
    let pushed = world.push("ada", |draw| {
        draw.set("notes", 1, Version::ZERO, &[("body", "two".into())])
    });
    let twice = [pushed.submission.clone(), pushed.submission.clone()];
    let again = world.commit(&twice);
    let accepted = Verdict::Accepted(pushed.version());
    assert!(
        again
            .results
            .iter()
            .all(|result| result.verdict == accepted)
    );
    assert_eq!(again.entries, []);
    world = world.restart(|storage| {
        drop(storage);
        bed.open()
    });
    let again = world.commit(&twice);
    assert!(
        again
            .results
            .iter()
            .all(|result| result.verdict == accepted)
    );
    assert_eq!(log(&mut bed.reader(&world.storage)).len(), 2);
}

/// The changeset `whole` has notes from 1 on, one at each place.
fn piece<S: crate::Storage>(
    world: &mut World<S>,
    user: &str,
    whole: ChangesetId,
    places: &[u32],
) -> Submission {
    let mut draw = world.draw();
    for place in places {
        draw = draw.insert("notes", i64::from(place + 1), &[("body", user.into())]);
    }
    let changes = draw.done();
    let mut submission = world.submission(user, changes);
    submission.changeset.piece = Some(Piece {
        whole,
        places: places.to_vec(),
    });
    submission
}

/// What becomes of each, one after the other: a code, or where it is in the log.
fn answers<S: crate::Storage>(
    world: &mut World<S>,
    submissions: &[Submission],
) -> Vec<Result<Version, String>> {
    let results = world.commit(submissions).results;
    let answer = |result: PushResult| match result.verdict {
        Verdict::Accepted(version) => Ok(version),
        Verdict::Refused(refusal) => Err(refusal.code),
    };
    results.into_iter().map(answer).collect()
}

pub fn pl3_what_came_in_pieces_is_not_applied_again<B: Bed>(bed: &mut B) {
    const WHOLE: ChangesetId = ChangesetId([0x77; 16]);
    let part = || Err("partly_applied_already".to_owned());
    let mut world = World::new(bed.open());
    let first = piece(&mut world, "ada", WHOLE, &[0, 1]);
    let mut whole = piece(&mut world, "ada", WHOLE, &[0, 1, 2]);
    (whole.changeset.id, whole.changeset.piece) = (WHOLE, None);
    // In one group, too.
    let told = answers(&mut world, &[first.clone(), whole.clone()]);
    let Ok(at) = told[0] else { panic!("{told:?}") };
    assert_eq!(told[1], part());
    world = world.restart(|storage| {
        drop(storage);
        bed.open()
    });
    assert_eq!(answers(&mut world, &[whole.clone()]), [part()]);
    // Cut elsewhere: some of it there, all of it there, nothing of it.
    let across = piece(&mut world, "ada", WHOLE, &[1, 2]);
    let inside = piece(&mut world, "ada", WHOLE, &[1]);
    let other = piece(&mut world, "ada", WHOLE, &[2]);
    let told = answers(&mut world, &[across, inside, other]);
    let Ok(last) = told[2] else {
        panic!("{told:?}")
    };
    assert_eq!(told[..2], [part(), Ok(at)]);
    // By now two pieces have all of it.
    let all = piece(&mut world, "ada", WHOLE, &[0, 1, 2]);
    assert_eq!(answers(&mut world, &[all]), [Ok(last)]);
    let rows = log(&mut bed.reader(&world.storage));
    let rows: usize = rows.iter().map(|entry| entry.records.len()).sum();
    assert_eq!(rows, 3);

    // Of what is there whole, each piece is there.
    let entire = world.push("ada", |draw| draw.insert("notes", 8, &[]));
    let inside = piece(&mut world, "ada", entire.submission.changeset.id, &[7]);
    assert_eq!(answers(&mut world, &[inside]), [Ok(entire.version())]);
    // Whoever else says that theirs is a piece of it learns nothing, and hinders nobody.
    let theirs = piece(&mut world, "ben", entire.submission.changeset.id, &[20]);
    let told = answers(&mut world, &[theirs]);
    assert!(
        matches!(told[..], [Ok(at)] if at > entire.version()),
        "{told:?}"
    );
    let young = world.push("ada", |draw| draw.insert("notes", 9, &[]));

    block_on(world.storage.trim(last)).expect("the log is trimmed");
    let theirs = entire.submission.changeset.id;
    let wants = [WHOLE, theirs].map(Want::Changeset);
    let loaded = load(&mut world.storage, &wants);
    assert_eq!(loaded.cut, BTreeMap::from([(theirs, UserId("ben".into()))]));
    block_on(world.storage.trim(young.version())).expect("the log is trimmed");
    assert!(load(&mut world.storage, &wants).cut.is_empty());
}

pub fn pl4_a_refused_changeset_leaves_nothing<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    world.push("ada", |draw| {
        draw.insert("projects", "p", &[("name", "Garden".into())])
    });
    let before = log(&mut bed.reader(&world.storage));
    let refused = world.push("eve", |draw| {
        draw.insert("labels", "l", &[("name", "red".into())])
            .insert(
                "tasks",
                "t",
                &[("project_id", "p".into()), ("title", "dig".into())],
            )
    });
    assert_eq!(refused.code(), "forbidden");
    assert_eq!(log(&mut bed.reader(&world.storage)), before);
    let labels = table(&world, "labels");
    assert_eq!(stored(&mut world.storage, labels, &key("l")), None);
    world
        .push("eve", |draw| {
            draw.insert("labels", "l", &[("name", "red".into())])
        })
        .accepted();
}

pub fn pl18_one_group_takes_a_row_through_several_lives<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    let labels = table(&world, "labels");
    let name = |name: &str| vec![("name", Value::from(name))];
    world
        .push("ada", |draw| draw.insert("labels", "l", &name("red")))
        .accepted();
    let group = |world: &mut World<B::Storage>, names: &[Option<&str>]| {
        let submissions: Vec<_> = names
            .iter()
            .map(|change| {
                let draw = world.draw();
                let changes = match *change {
                    None => draw.delete("labels", "l", Version::ZERO),
                    Some(new) if new.starts_with('+') => draw.insert("labels", "l", &name(new)),
                    Some(new) => draw.set("labels", "l", Version::ZERO, &name(new)),
                };
                world.submission("ada", changes.done())
            })
            .collect();
        let outcome = world.commit(&submissions);
        let accepted = |result: &PushResult| matches!(result.verdict, Verdict::Accepted(_));
        assert!(outcome.results.iter().all(accepted), "{outcome:?}");
        stored(&mut world.storage, labels, &key("l"))
    };
    let is = |name: &str| Some(label("l", name));
    assert_eq!(group(&mut world, &[None, Some("+blue")]), is("+blue"));
    assert_eq!(
        group(
            &mut world,
            &[Some("grey"), None, Some("+pink"), Some("rose")]
        ),
        is("rose")
    );
    assert_eq!(group(&mut world, &[None, Some("+blue"), None]), None);
    assert_eq!(group(&mut world, &[Some("+one"), None]), None);
    assert_eq!(
        group(
            &mut world,
            &[
                Some("+one"),
                Some("two"),
                None,
                Some("+three"),
                Some("four")
            ]
        ),
        is("four")
    );
    let mut reader = bed.reader(&world.storage);
    let audit = Audit::of(&mut world, &mut reader, &["ada"]);
    assert_eq!(audit.maintained, audit.anew);
    bed.external(&[]).expect("nothing to do");
    let drained = block_on(crate::drain_external(
        &mut world.storage,
        &world.context,
        world.now,
    ));
    assert_eq!(
        drained.entries,
        [],
        "nothing differs from what the log says"
    );
}

pub fn pl12_the_log_has_cascades_and_defaults<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    world.push("ada", |draw| {
        draw.insert("projects", "p", &[("name", "Garden".into())])
    });
    let inserted = world.push("ada", |draw| {
        draw.insert_some(
            "tasks",
            "t1",
            &[("id", "t1".into()), ("project_id", "p".into())],
        )
    });
    let entry = &inserted.outcome.entries[0];
    let [record] = &entry.records[..] else {
        panic!("one record: {entry:?}")
    };
    let title = told(&world, record)
        .into_iter()
        .find(|(name, _)| name == "title");
    assert_eq!(
        title,
        Some(("title".into(), "untitled".into())),
        "as the database filled it"
    );
    assert_eq!(record.version, inserted.version());

    world.push("ada", |draw| {
        draw.insert(
            "tasks",
            "t2",
            &[("project_id", "p".into()), ("title", "sow".into())],
        )
    });
    let deleted = world.push("ada", |draw| draw.delete("projects", "p", Version::ZERO));
    let entry = &deleted.outcome.entries[0];
    assert_eq!(
        deleted.outcome.entries.len(),
        1,
        "cascades are part of the changeset"
    );
    let mut gone: Vec<(TableNumber, &RowKey)> = entry
        .records
        .iter()
        .map(|record| (record.table, &record.key))
        .collect();
    assert!(
        entry
            .records
            .iter()
            .all(|record| record.deleted && !record.before.is_empty())
    );
    gone.sort_unstable();
    let (projects, tasks) = (table(&world, "projects"), table(&world, "tasks"));
    assert_eq!(
        gone,
        [
            (projects, &key("p")),
            (tasks, &key("t1")),
            (tasks, &key("t2"))
        ]
    );
    assert_eq!(entry.version, deleted.version());
    assert_eq!(
        entry.records.last().map(|record| record.version),
        Some(entry.version)
    );
}

pub fn pl13_what_another_program_wrote_is_in_the_log<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    world.push("ada", |draw| {
        draw.insert("labels", "l", &[("name", "red".into())])
    });
    bed.external(&[
        External::Update {
            table: "labels",
            key: vec![("id", "l".into())],
            set: vec![("name", "rose".into())],
        },
        External::Insert {
            table: "labels",
            values: vec![("id", "m".into()), ("name", "blue".into())],
        },
    ])
    .expect("the program may write");
    let pushed = world.push("ben", |draw| {
        draw.insert("labels", "n", &[("name", "grey".into())])
    });
    let [external, own] = &pushed.outcome.entries[..] else {
        panic!("{:?}", pushed.outcome)
    };
    assert_eq!((&external.user, external.device), (&None, crate::EXTERNAL));
    assert!(external.version < own.version);
    let rows: Vec<_> = external
        .records
        .iter()
        .map(|record| (record.key.clone(), told(&world, record)))
        .collect();
    let name = |value: &str| ("name".to_owned(), Value::from(value));
    let expected = [
        (key("l"), vec![name("rose")]),
        (key("m"), vec![("id".to_owned(), "m".into()), name("blue")]),
    ];
    assert_eq!(rows, expected, "only what differs travels");
    assert_eq!(log(&mut bed.reader(&world.storage)).len(), 3);
    let labels = table(&world, "labels");
    let rows = block_on(
        bed.reader(&world.storage)
            .rows(labels, &[key("l"), key("m")], usize::MAX),
    )
    .expect("rows are read")
    .rows;
    let owners: Vec<_> = rows.iter().map(|(_, _, meta)| meta.owner.clone()).collect();
    assert_eq!(owners, [Some(UserId("ada".into())), None]);
    assert_eq!(rows[0].1, label("l", "rose"));
}

pub fn pl14_the_culprit_alone_is_refused<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    world.push("ada", |draw| {
        draw.insert("labels", "l", &[("name", "taken".into())])
    });
    let names = ["one", "two", "taken", "three", "four", "one", "five"];
    let submissions: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let id = format!("l{i}");
            let changes = world
                .draw()
                .insert("labels", id, &[("name", (*name).into())])
                .done();
            world.submission(&format!("user{i}"), changes)
        })
        .collect();
    let outcome = world.commit(&submissions);
    assert!(outcome.failure.is_none());
    let verdicts: Vec<_> = outcome
        .results
        .iter()
        .map(|result| match &result.verdict {
            Verdict::Accepted(_) => "accepted",
            Verdict::Refused(refusal) => refusal.code.as_str(),
        })
        .collect();
    let (yes, no) = ("accepted", "constraint");
    assert_eq!(verdicts, [yes, yes, no, yes, yes, no, yes]);
    assert_eq!(outcome.entries.len(), 5);
    let versions: Vec<_> = log(&mut bed.reader(&world.storage))
        .iter()
        .map(|entry| entry.version)
        .collect();
    assert!(versions.is_sorted_by(|a, b| a < b));
    let again = world.commit(&submissions);
    assert_eq!(
        again.entries,
        [],
        "refused numbers are counted and judged again"
    );
}

pub fn pl15_digests_and_grants_are_those_computed_anew<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    world
        .push("ada", |draw| {
            draw.insert("projects", "p", &[("name", "Garden".into())])
                .insert(
                    "members",
                    "m",
                    &[
                        ("project_id", "p".into()),
                        ("user_id", "ben".into()),
                        ("role", "editor".into()),
                    ],
                )
                .insert(
                    "tasks",
                    "t",
                    &[("project_id", "p".into()), ("title", "dig".into())],
                )
        })
        .accepted();
    world
        .push("ben", |draw| {
            draw.set("tasks", "t", Version(0), &[("done", 1.into())])
        })
        .accepted();
    bed.external(&[External::Delete {
        table: "members",
        key: vec![("id", "m".into())],
    }])
    .expect("the program may write");
    world
        .push("ada", |draw| draw.delete("tasks", "t", Version(0)))
        .accepted();
    world
        .push("ada", |draw| {
            draw.insert(
                "tasks",
                "t",
                &[("project_id", "p".into()), ("title", "again".into())],
            )
        })
        .accepted();
    let mut reader = bed.reader(&world.storage);
    let audit = Audit::of(&mut world, &mut reader, &["ada", "ben"]);
    assert_eq!(audit.maintained, audit.anew);
    assert!(!audit.anew.digests.is_empty());
}

pub fn pl17_a_restart_keeps_everything<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    let pushed = world.push("ada", |draw| {
        draw.insert("projects", "p", &[("name", "Garden".into())])
    });
    let (server, secret) = (
        crate::Storage::server_id(&world.storage),
        *crate::Storage::secret(&world.storage),
    );
    let before = log(&mut bed.reader(&world.storage));
    world = world.restart(|storage| {
        drop(storage);
        bed.open()
    });
    assert_eq!(crate::Storage::server_id(&world.storage), server);
    assert_eq!(*crate::Storage::secret(&world.storage), secret);
    assert_eq!(log(&mut bed.reader(&world.storage)), before);
    let projects = table(&world, "projects");
    let mut reader = bed.reader(&world.storage);
    let rows = block_on(reader.rows(projects, &[key("p")], usize::MAX)).expect("rows are read");
    let rows = rows.rows;
    assert_eq!(rows[0].1, project("p", "Garden"));
    assert_eq!(rows[0].2.version, pushed.version());
    let next = world.push("ada", |draw| {
        draw.set(
            "projects",
            "p",
            pushed.version(),
            &[("name", "Yard".into())],
        )
    });
    assert!(next.version() > pushed.version());
}

fn hello(lease: u8, next: u8) -> DeviceHello {
    DeviceHello {
        device: DeviceId([1; 16]),
        lease: Lease([lease; 16]),
        next_lease: Lease([next; 16]),
        user: UserId("ada".into()),
        name: "phone".into(),
        renamed: false,
        platform: "test".into(),
        register_anew: false,
    }
}

pub fn se2_a_lease_is_exchanged_durably<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    let fresh = DeviceId([9; 16]);
    let mut exchanges = [(0, 1), (0, 1), (1, 2), (1, 2), (2, 3)].into_iter();
    for (lease, next) in exchanges.by_ref().take(3) {
        let opened = block_on(open_device(
            &mut world.storage,
            &hello(lease, next),
            fresh,
            world.now,
        ))
        .expect("the device is opened");
        assert_eq!(
            (opened.forked_from, opened.state.lease),
            (None, Lease([next; 16]))
        );
    }
    world = world.restart(|storage| {
        drop(storage);
        bed.open()
    });
    for (lease, next) in exchanges {
        let opened = block_on(open_device(
            &mut world.storage,
            &hello(lease, next),
            fresh,
            world.now,
        ))
        .expect("the device is opened");
        assert_eq!(
            (opened.forked_from, opened.state.lease),
            (None, Lease([next; 16]))
        );
    }
    let other = DeviceHello {
        user: UserId("eve".into()),
        ..hello(3, 4)
    };
    let refused = block_on(open_device(&mut world.storage, &other, fresh, world.now));
    let Err(OpenDeviceError::Refused(refusal)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((refusal.code.as_str(), refusal.fatal), ("wrong_user", true));
}

pub fn se2_a_copy_gets_an_id_of_its_own<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    let fresh = DeviceId([9; 16]);
    for (lease, next) in [(0, 1), (1, 2), (2, 3)] {
        block_on(open_device(
            &mut world.storage,
            &hello(lease, next),
            fresh,
            world.now,
        ))
        .expect("the device is opened");
    }
    let copy = block_on(open_device(
        &mut world.storage,
        &hello(1, 7),
        fresh,
        world.now,
    ))
    .expect("the copy is opened");
    assert_eq!(copy.forked_from, Some(DeviceId([1; 16])));
    assert_eq!(
        (copy.state.id, copy.state.forked, copy.state.last_number),
        (fresh, true, 0)
    );
    let original = block_on(open_device(
        &mut world.storage,
        &hello(3, 4),
        DeviceId([7; 16]),
        world.now,
    ))
    .expect("the device is opened");
    assert_eq!(
        original.forked_from,
        Some(DeviceId([1; 16])),
        "it is to hear that there is a copy"
    );
    let again = DeviceHello {
        device: DeviceId([7; 16]),
        ..hello(4, 5)
    };
    let again = block_on(open_device(
        &mut world.storage,
        &again,
        DeviceId([8; 16]),
        world.now,
    ))
    .expect("the device is opened");
    assert_eq!(again.forked_from, None, "and once is enough");
    // Whatever copies come and retry after that, what the last holder had is known (spec DE9).
    block_on(open_device(
        &mut world.storage,
        &hello(1, 8),
        DeviceId([8; 16]),
        world.now,
    ))
    .expect("another copy is opened");
    let spent = block_on(bed.reader(&world.storage).device(DeviceId([1; 16])))
        .expect("the device is read")
        .expect("it is listed still");
    let lease = |n: u8| Lease([n; 16]);
    assert_eq!(
        (spent.previous_lease, spent.lease),
        (lease(3), Lease::default())
    );
    let unknown = DeviceHello {
        device: DeviceId([5; 16]),
        ..hello(8, 9)
    };
    let other = DeviceId([6; 16]);
    let opened = block_on(open_device(&mut world.storage, &unknown, other, world.now))
        .expect("the device is opened");
    assert_eq!(
        (opened.state.id, opened.forked_from),
        (other, Some(DeviceId([5; 16])))
    );
}
