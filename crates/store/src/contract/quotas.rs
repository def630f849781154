//! What users own is counted as rows come and go.

use std::collections::BTreeMap;

use syncline_core::{UserId, Value, Version, config::LimitsConfig, wire::code};

use super::Bed;
use crate::{
    Group, Loaded, Owned, Room, Storage, Want, count_owned, drain_external,
    plan::row_bytes,
    testkit::{External, Pushed, World, block_on},
};

const USERS: [&str; 3] = ["ada", "bob", "eve"];

fn limited<S: Storage>(mut world: World<S>, user_rows: u64, user_bytes: u64) -> World<S> {
    let limits = LimitsConfig {
        user_rows,
        user_bytes,
        ..LimitsConfig::default()
    };
    world.context = world.context.limited(limits);
    block_on(count_owned(&mut world.storage, &world.context, world.now)).expect("it is counted");
    world
}

/// What is kept, and what there is.
fn owned<S: Storage>(world: &mut World<S>) -> [BTreeMap<UserId, Owned>; 2] {
    let users = USERS.map(|user| UserId(user.to_owned()));
    let tables = &world.context.schema().tables;
    let own = |table: &&syncline_core::Table| table.number >= syncline_core::builtin::FIRST_OWN;
    let tables: Vec<_> = tables
        .iter()
        .filter(own)
        .map(|table| table.number)
        .collect();
    let storage = &mut world.storage;
    block_on(async {
        let mut group = storage.begin().await.expect("a group begins");
        let mut loaded = Loaded::default();
        let wants = users.iter().cloned().map(Want::Owned).collect::<Vec<_>>();
        group.load(&wants, &mut loaded).await.expect("counts");
        let mut there = BTreeMap::<UserId, Owned>::new();
        for table in tables {
            let rows = group.scan(table, None, Room::ALL).await.expect("rows");
            for (key, row) in rows {
                if let Some(owner) = row.meta.owner {
                    let owned = there.entry(owner).or_default();
                    owned.rows += 1;
                    owned.bytes += row_bytes(&key, &row.row.expect("a live row"));
                }
            }
        }
        group.rollback().await;
        let mut kept = loaded.owned;
        kept.retain(|_, owned| *owned != Owned::default());
        [kept, there]
    })
}

#[track_caller]
fn assert_counted<S: Storage>(world: &mut World<S>) -> BTreeMap<UserId, Owned> {
    let [kept, there] = owned(world);
    assert_eq!(kept, there);
    kept
}

fn rows_of(owned: &BTreeMap<UserId, Owned>, user: &str) -> u64 {
    let user = UserId(user.to_owned());
    owned.get(&user).map_or(0, |owned| owned.rows)
}

fn label<S: Storage>(world: &mut World<S>, user: &str, name: &str) -> Pushed {
    world.push(user, |draw| {
        draw.insert("labels", name, &[("name", name.into())])
    })
}

pub fn li6_what_is_counted_is_what_is_there<B: Bed>(bed: &mut B) {
    let mut world = limited(World::new(bed.open()), 1_000, 1_000_000);
    let project = world.push("ada", |draw| {
        let name = [("name", "Garden".into()), ("budget", Value::Integer(7))];
        let member = [
            ("project_id", "p".into()),
            ("user_id", "bob".into()),
            ("role", "editor".into()),
        ];
        draw.insert("projects", "p", &name)
            .insert("members", "m", &member)
    });
    project.accepted();
    // The database fills the title.
    world
        .push("bob", |draw| {
            let task = [("id", "t1".into()), ("project_id", "p".into())];
            draw.insert_some("tasks", "t1", &task)
        })
        .accepted();
    let owned = assert_counted(&mut world);
    assert_eq!((rows_of(&owned, "ada"), rows_of(&owned, "bob")), (2, 1));

    // Somebody else makes a row larger: it stays its owner's.
    let longer = world.push("ada", |draw| {
        draw.set(
            "tasks",
            "t1",
            Version::ZERO,
            &[("title", "x".repeat(500).into())],
        )
    });
    longer.accepted();
    let owned = assert_counted(&mut world);
    assert!(owned[&UserId("bob".into())].bytes > 500, "{owned:?}");

    // Several lives in one group, one of them revived by a late update.
    let note = |draw: crate::testkit::Draw<'_>, id: i64| {
        draw.insert("notes", Value::Integer(id), &[("body", "a note".into())])
            .done()
    };
    let born = note(world.draw(), 1);
    let born = world.submission("eve", born);
    let gone = world
        .draw()
        .delete("notes", Value::Integer(1), Version::ZERO)
        .done();
    let gone = world.submission("eve", gone);
    let again = world
        .draw()
        .set(
            "notes",
            Value::Integer(1),
            Version::ZERO,
            &[("body", "still here".into())],
        )
        .done();
    let again = world.submission("eve/phone", again);
    world.commit(&[born, gone, again]);
    let owned = assert_counted(&mut world);
    assert_eq!(rows_of(&owned, "eve"), 1, "it lives again");

    // Another program changes a row, deletes one and inserts one, which is nobody's.
    bed.external(&[
        External::Update {
            table: "tasks",
            key: vec![("id", "t1".into())],
            set: vec![("title", "short".into())],
        },
        External::Delete {
            table: "notes",
            key: vec![("id", Value::Integer(1))],
        },
        External::Insert {
            table: "notes",
            values: vec![("id", Value::Integer(2)), ("body", "from elsewhere".into())],
        },
    ])
    .expect("another program writes");
    let drained = block_on(drain_external(
        &mut world.storage,
        &world.context,
        world.now,
    ));
    assert!(drained.failure.is_none() && !drained.entries.is_empty());
    let owned = assert_counted(&mut world);
    assert_eq!(rows_of(&owned, "eve"), 0);

    // Also what the database deletes by itself.
    let cascade = world.push("ada", |draw| draw.delete("projects", "p", Version::ZERO));
    cascade.accepted();
    let owned = assert_counted(&mut world);
    assert_eq!(rows_of(&owned, "bob"), 0, "the task went with its project");

    world
        .push("bob", |draw| {
            draw.insert("labels", "l", &[("name", "red".into())])
        })
        .accepted();
    // A constraint refuses what was planned: nothing of it is counted.
    let doubled = |id: &str, world: &mut World<B::Storage>| {
        let changes = world
            .draw()
            .insert("labels", id, &[("name", "red".into())])
            .done();
        world.submission("eve", changes)
    };
    let doubled = [doubled("l2", &mut world), doubled("l3", &mut world)];
    let outcome = world.commit(&doubled);
    assert!(outcome.entries.is_empty(), "{outcome:?}");
    let before = assert_counted(&mut world);

    let mut world = limited(
        world.restart(|old| {
            drop(old);
            bed.open()
        }),
        1_000,
        1_000_000,
    );
    assert_eq!(assert_counted(&mut world), before);
}

pub fn li6_what_goes_over_is_refused_until_there_is_room<B: Bed>(bed: &mut B) {
    let mut world = limited(World::new(bed.open()), 2, 400);
    label(&mut world, "ada", "a").accepted();
    label(&mut world, "ada", "b").accepted();
    let refused = label(&mut world, "ada", "c");
    assert_eq!(refused.code(), code::OVER_QUOTA);
    let entries = &refused.outcome.entries;
    assert!(entries.is_empty(), "nothing of it is there: {entries:?}");
    // Others have room of their own, and who is full can change and delete.
    label(&mut world, "bob", "d").accepted();
    let shorter = [("name", "e".into())];
    let same = world.push("ada", |draw| {
        draw.set("labels", "a", Version::ZERO, &shorter)
    });
    same.accepted();
    let exchanged = world.push("ada", |draw| {
        let draw = draw.delete("labels", "b", Version::ZERO);
        draw.insert("labels", "f", &[("name", "f".into())])
    });
    exchanged.accepted();
    world
        .push("ada", |draw| draw.delete("labels", "f", Version::ZERO))
        .accepted();
    // The very same changeset, sent again.
    let mut again = refused.submission.clone();
    again.changeset.number = world.submission("ada", Vec::new()).changeset.number;
    let outcome = world.commit(&[again]);
    assert!(
        matches!(
            outcome.results[0].verdict,
            syncline_core::wire::Verdict::Accepted(_)
        ),
        "{outcome:?}"
    );
    let owned = assert_counted(&mut world);
    assert_eq!((rows_of(&owned, "ada"), rows_of(&owned, "bob")), (2, 1));

    // Two of one group that fit one by one, and not both.
    let long = |world: &mut World<B::Storage>, id: &'static str| {
        let values = [("name", format!("{id} {}", "x".repeat(200)).into())];
        let changes = world.draw().insert("labels", id, &values).done();
        world.submission("eve", changes)
    };
    let both = [long(&mut world, "g"), long(&mut world, "h")];
    let outcome = world.commit(&both);
    let codes: Vec<_> = outcome
        .results
        .iter()
        .map(|result| match &result.verdict {
            syncline_core::wire::Verdict::Accepted(_) => "accepted",
            syncline_core::wire::Verdict::Refused(refusal) => &refusal.code,
        })
        .collect();
    assert_eq!(codes, ["accepted", code::OVER_QUOTA]);

    // What is somebody else's counts for them, and how much that is is not told.
    let longer = [("name", "y".repeat(500).into())];
    let others = world.push("bob", |draw| {
        draw.set("labels", "g", Version::ZERO, &longer)
    });
    assert_eq!(others.code(), code::OVER_QUOTA);
    let syncline_core::wire::Verdict::Refused(refusal) = &others.result().verdict else {
        panic!("refused above");
    };
    assert!(refusal.message.contains("somebody else"), "{refusal:?}");
    assert!(!refusal.retry, "it is parked");
    assert_counted(&mut world);

    // Who owns more than is kept by now can still write what takes no more room.
    let mut world = limited(world, 1, 100);
    let less = [("name", "z".into())];
    world
        .push("eve", |draw| draw.set("labels", "g", Version::ZERO, &less))
        .accepted();
    let shorter = [("name", "q".into())];
    world
        .push("ada", |draw| {
            draw.set("labels", "a", Version::ZERO, &shorter)
        })
        .accepted();
    assert_eq!(label(&mut world, "ada", "i").code(), code::OVER_QUOTA);
}

pub fn li6_counting_begins_and_ends_with_the_configuration<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    for n in 0..2_500 {
        let name = [("name", format!("label {n}").into())];
        let changes = world.draw().insert("labels", format!("l{n}"), &name).done();
        let submission = world.submission(USERS[n % 2], changes);
        world.commit(&[submission]);
    }
    assert_eq!(owned(&mut world)[0], BTreeMap::new(), "nobody asked for it");
    // Written while nobody looked, and not taken yet: its size before is not counted too.
    bed.external(&[External::Update {
        table: "labels",
        key: vec![("id", "l0".into())],
        set: vec![("name", "another name, longer".into())],
    }])
    .expect("another program writes");
    let mut world = limited(world, 10_000, 0);
    let owned_now = assert_counted(&mut world);
    assert_eq!(rows_of(&owned_now, "ada"), 1_250);
    let rows = block_on(count_owned(&mut world.storage, &world.context, world.now));
    assert_eq!(rows.expect("counts"), 0, "it is counted once");

    let mut world = limited(world, 0, 0);
    assert_eq!(owned(&mut world)[0], BTreeMap::new());
    world
        .push("ada", |draw| draw.delete("labels", "l0", Version::ZERO))
        .accepted();
    assert_eq!(assert_counted(&mut limited(world, 1, 0)).len(), 2);
}
