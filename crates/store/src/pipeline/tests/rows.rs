//! Rows that are there, were there, or never were.

use syncline_core::{Edit, Hlc, Row, UserId, Value, Version};

use super::{Memory, garden, reasons, row, value, verdict};
use crate::{Storage as _, testkit::block_on};

/// Commits one changeset of `device` whose clock is that many milliseconds ahead.
fn push_at(
    world: &mut Memory,
    device: &str,
    ahead_ms: u64,
    draw: impl Fn(crate::testkit::Draw<'_>) -> crate::testkit::Draw<'_>,
) -> syncline_core::wire::PushResult {
    let changes = draw(world.draw()).done();
    let mut submission = world.submission(device, changes);
    submission.changeset.hlc = Hlc::at(world.now.plus_millis(ahead_ms));
    world.commit(&[submission]).results.remove(0)
}

/// Two write the same, and a third, whose write is between theirs, something else.
#[test]
fn me6_writing_what_is_there_already_counts_in_every_order() {
    let writes = [
        ("ada", 10_000, "dig"),
        ("ben", 20_000, "dig"),
        ("cyd", 15_000, "sow"),
    ];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut world = garden();
        world
            .push("ada", |draw| {
                draw.insert(
                    "members",
                    "cyd-p",
                    &[
                        ("project_id", "p".into()),
                        ("user_id", "cyd".into()),
                        ("role", "editor".into()),
                    ],
                )
            })
            .accepted();
        world
            .push("ada", |draw| {
                draw.set("tasks", "t", Version::ZERO, &[("title", "weed".into())])
            })
            .accepted();
        let seen = row(&world, "tasks", "t").unwrap().1.version;
        for (device, ahead_ms, title) in order.map(|n| writes[n]) {
            let result = push_at(&mut world, device, ahead_ms, |draw| {
                draw.set("tasks", "t", seen, &[("title", title.into())])
            });
            assert_eq!(verdict(&result), "accepted");
        }
        assert_eq!(
            value(&world, "tasks", "t", "title"),
            "dig".into(),
            "{order:?}"
        );
    }
}

/// Devices that bring the same rows along do not write each other's rows anew.
#[test]
fn me19_an_insert_of_what_is_there_already_changes_nothing() {
    let mut world = garden();
    let before = row(&world, "tasks", "t").unwrap();
    let values = [("project_id", "p".into()), ("title", "dig".into())];
    let again = world.push("ben", |draw| draw.insert("tasks", "t", &values));
    again.accepted();
    assert_eq!(again.outcome.entries[0].records, []);
    assert_eq!(row(&world, "tasks", "t").unwrap(), before);
}

#[test]
fn pl18_a_delete_wins_over_an_update_its_author_did_not_see() {
    let mut world = garden();
    let seen = row(&world, "tasks", "t").unwrap().1.version;
    world
        .push("ada", |draw| draw.delete("tasks", "t", seen))
        .accepted();
    let late = push_at(&mut world, "ben", 50_000, |draw| {
        draw.set("tasks", "t", seen, &[("title", "dig deeper".into())])
    });
    assert_eq!(
        (verdict(&late), reasons(&late)),
        ("accepted", vec!["deleted"])
    );
    assert_eq!(row(&world, "tasks", "t"), None);

    // The other way round: the update was first, the delete knew nothing of it.
    let values = [("project_id", "p".into()), ("title", "sow".into())];
    let inserted = world.push("ada", |draw| draw.insert("tasks", "u", &values));
    world
        .push("ben", |draw| {
            draw.set(
                "tasks",
                "u",
                inserted.version(),
                &[("title", "sow more".into())],
            )
        })
        .accepted();
    let deleted = world.push("ada", |draw| draw.delete("tasks", "u", inserted.version()));
    assert_eq!(reasons(deleted.result()), Vec::<&str>::new());
    assert_eq!(row(&world, "tasks", "u"), None);
}

#[test]
fn pl18_where_updates_win_one_revives_the_row_whole() {
    let mut world = garden();
    let first = world.push("ada", |draw| {
        draw.insert("notes", 1, &[("body", "buy seeds".into())])
    });
    let created = row(&world, "notes", 1).unwrap().1;
    world
        .push("ada", |draw| draw.delete("notes", 1, first.version()))
        .accepted();
    let revived = world.push("ada/phone", |draw| {
        draw.edit("notes", 1, first.version(), &[])
    });
    revived.accepted();
    let (image, meta) = row(&world, "notes", 1).unwrap();
    assert_eq!(
        image,
        Row(vec![1.into(), "buy seeds".into()]),
        "with its columns"
    );
    assert_eq!(
        (meta.owner, meta.created),
        (created.owner, created.created),
        "the same row"
    );

    world
        .push("ada", |draw| draw.delete("notes", 1, revived.version()))
        .accepted();
    world
        .push("ada/phone", |draw| {
            draw.set(
                "notes",
                1,
                revived.version(),
                &[("body", "buy bulbs".into())],
            )
        })
        .accepted();
    assert_eq!(
        value(&world, "notes", 1, "body"),
        "buy bulbs".into(),
        "the update on top"
    );

    let seen = row(&world, "notes", 1).unwrap().1.version;
    world
        .push("ada", |draw| {
            draw.set("notes", 1, seen, &[("body", "buy both".into())])
        })
        .accepted();
    let late = world.push("ada/phone", |draw| draw.delete("notes", 1, seen));
    assert_eq!(reasons(late.result()), ["older"]);
    assert_eq!(value(&world, "notes", 1, "body"), "buy both".into());
}

/// A stranger learns nothing from a delete that would lose, or from an update of a tombstone.
#[test]
fn pl18_where_updates_win_strangers_still_get_no_answer() {
    let mut world = garden();
    let first = world.push("ada", |draw| {
        draw.insert("notes", 1, &[("body", "mine".into())])
    });
    let other = world.push("eve", |draw| draw.delete("notes", 1, Version::ZERO));
    assert_eq!(reasons(other.result()), Vec::<&str>::new());
    assert_eq!(value(&world, "notes", 1, "body"), "mine".into());
    world
        .push("ada", |draw| draw.delete("notes", 1, first.version()))
        .accepted();
    let body = [("body", "yours".into())];
    let [dead, never] =
        [1, 2].map(|id| world.push("eve", |draw| draw.set("notes", id, first.version(), &body)));
    assert_eq!((dead.code(), never.code()), ("row_gone", "row_gone"));
}

#[test]
fn pl18_two_inserts_of_one_row_merge() {
    let mut world = garden();
    let values = |title: &str, done: i64, effort: i64| {
        vec![
            ("project_id", Value::from("p")),
            ("title", title.into()),
            ("done", done.into()),
            ("effort", effort.into()),
        ]
    };
    let (ada, ben) = (values("Ada's", 1, 3), values("Ben's", 0, 4));
    let first = push_at(&mut world, "ada", 1_000, |draw| {
        draw.insert("tasks", "u", &ada)
    });
    let second = push_at(&mut world, "ben", 0, |draw| draw.insert("tasks", "u", &ben));
    assert_eq!(
        (verdict(&first), verdict(&second)),
        ("accepted", "accepted")
    );
    assert_eq!(
        value(&world, "tasks", "u", "title"),
        "Ada's".into(),
        "she wrote it later"
    );
    assert!(reasons(&second).iter().all(|reason| *reason == "older"));
    assert_eq!(
        row(&world, "tasks", "u").unwrap().1.owner,
        Some(UserId("ada".into()))
    );
    let third = push_at(&mut world, "ben", 5_000, |draw| {
        draw.insert("tasks", "u", &ben)
    });
    assert_eq!(reasons(&third), Vec::<&str>::new());
    assert_eq!(value(&world, "tasks", "u", "title"), "Ben's".into());
    assert_eq!(
        row(&world, "tasks", "u").unwrap().1.owner,
        Some(UserId("ada".into()))
    );
}

#[test]
fn pl18_an_integer_key_is_taken() {
    let mut world = garden();
    world
        .push("ada", |draw| {
            draw.insert("notes", 7, &[("body", "one".into())])
        })
        .accepted();
    for device in ["ada/phone", "ben"] {
        let second = world.push(device, |draw| {
            draw.insert("notes", 7, &[("body", "two".into())])
        });
        assert_eq!(
            (second.code(), &second.result().lost[..]),
            ("id_taken", &[][..])
        );
    }
    assert_eq!(value(&world, "notes", 7, "body"), "one".into());
}

#[test]
fn pl18_an_insert_on_a_tombstone_begins_a_new_life() {
    let mut world = garden();
    let before = row(&world, "tasks", "t").unwrap().1;
    world
        .push("ada", |draw| draw.delete("tasks", "t", before.version))
        .accepted();
    let values = [("project_id", "p".into()), ("title", "again".into())];
    let born = world.push("ben", |draw| draw.insert("tasks", "t", &values));
    let (image, meta) = row(&world, "tasks", "t").unwrap();
    assert_eq!(meta.owner, Some(UserId("ben".into())));
    assert_eq!(meta.created, born.version());
    assert_eq!(image.0[2], "again".into());
    assert_eq!(image.0[4], Value::Null, "nothing of the old one is left");
}

#[test]
fn pl18_a_deleted_row_is_deleted_again_without_effect() {
    let mut world = garden();
    for _ in 0..2 {
        let deleted = world.push("ada", |draw| draw.delete("tasks", "t", Version::ZERO));
        deleted.accepted();
        assert_eq!(reasons(deleted.result()), Vec::<&str>::new());
    }
}

#[test]
fn pl19_an_update_of_an_unknown_row_is_row_gone() {
    let mut world = garden();
    for base in [Version::ZERO, Version(5)] {
        let edits = [("title", Edit::Set("x".into()))];
        let never = world.push("ben", |draw| draw.edit("tasks", "never", base, &edits));
        assert_eq!(never.code(), "row_gone");
    }
}

#[test]
fn pl19_an_update_of_a_forgotten_row_is_row_gone() {
    let mut world = garden();
    let seen = row(&world, "tasks", "t").unwrap().1.version;
    let deleted = world.push("ada", |draw| draw.delete("tasks", "t", seen));
    let update = |world: &mut Memory| {
        world.push("ben", |draw| {
            draw.set("tasks", "t", seen, &[("title", "x".into())])
        })
    };
    assert_eq!(
        reasons(update(&mut world).result()),
        ["deleted"],
        "the tombstone says so"
    );
    block_on(world.storage.trim(deleted.version())).unwrap();
    assert_eq!(update(&mut world).code(), "row_gone");
}
