//! The conflict inbox.

use syncline_core::{
    Edit, Value, Version,
    builtin::{CONFLICTS, conflicts as column},
    rules::Identity,
};

use super::{Memory, garden, reasons, row};
use crate::{LogRecord, testkit::Pushed};

fn decide(world: &mut Memory, device: &str, base: i64, new: i64, seen: Version) -> Pushed {
    let edit = Edit::Decide {
        base: base.into(),
        new: new.into(),
    };
    world.push(device, |draw| {
        draw.edit("projects", "p", seen, &[("budget", edit)])
    })
}

/// A project whose budget was 1, with the version it had then.
fn budgeted() -> (Memory, Version) {
    let mut world = garden();
    let seen = world.push("ada", |draw| {
        draw.set("projects", "p", Version::ZERO, &[("budget", 1.into())])
    });
    (world, seen.version())
}

/// The records of the inbox in what was committed.
fn opened(pushed: &Pushed) -> Vec<LogRecord> {
    let records = pushed
        .outcome
        .entries
        .iter()
        .flat_map(|entry| &entry.records);
    records
        .filter(|record| record.table == CONFLICTS)
        .cloned()
        .collect()
}

fn conflict(world: &Memory, record: &LogRecord) -> Vec<Value> {
    let id = record.key.decode().unwrap().remove(0);
    row(world, "syncline_conflicts", id).unwrap().0.0
}

#[test]
fn pl16_two_decisions_open_one_conflict_of_the_later_author() {
    let (mut world, seen) = budgeted();
    decide(&mut world, "ada", 1, 10, seen).accepted();
    let late = decide(&mut world, "ben", 1, 20, seen);
    assert_eq!(reasons(late.result()), ["conflict"]);
    assert_eq!(late.outcome.entries.len(), 1, "in the same changeset");
    let [record] = &opened(&late)[..] else {
        panic!("{:?}", late.outcome)
    };
    let image = conflict(&world, record);
    assert_eq!(image[column::TABLE_NAME], "projects".into());
    assert_eq!(image[column::ROW_KEY], r#"["p"]"#.into());
    assert_eq!(image[column::COLUMN_NAME], "budget".into());
    assert_eq!(image[column::KIND], "manual".into());
    let [base, mine, theirs] =
        [column::BASE, column::MINE, column::THEIRS].map(|i| image[i].clone());
    assert_eq!([base, mine, theirs], ["1", "20", "10"].map(Value::from));
    assert_eq!(
        (&image[column::AUTHOR], &image[column::OTHER]),
        (&"ben".into(), &"ada".into())
    );
    assert_eq!(image[column::STATE], "open".into());
    assert_eq!(super::value(&world, "projects", "p", "budget"), 10.into());

    let reader = |user: &str| {
        let user = Some(syncline_core::UserId(user.into()));
        world.context.rules().reader(&Identity {
            user,
            claims: Default::default(),
        })
    };
    assert_eq!(record.after, reader("ben").fixed_in(record));
    assert_eq!(reader("ada").fixed_in(record), [], "nobody else sees it");
}

trait FixedIn {
    /// The buckets of the record that the reader has for what they are.
    fn fixed_in(&self, record: &LogRecord) -> Vec<syncline_core::BucketId>;
}

impl FixedIn for syncline_core::rules::Reader {
    fn fixed_in(&self, record: &LogRecord) -> Vec<syncline_core::BucketId> {
        let has = |bucket: &&syncline_core::BucketId| self.fixed.contains(bucket);
        record.after.iter().filter(has).copied().collect()
    }
}

#[test]
fn pl16_there_is_one_for_each_row_column_and_author() {
    let (mut world, seen) = budgeted();
    decide(&mut world, "ada", 1, 10, seen).accepted();
    let first = opened(&decide(&mut world, "ben", 1, 20, seen));
    let again = opened(&decide(&mut world, "ben/phone", 1, 30, seen));
    assert_eq!(first[0].key, again[0].key);
    assert_eq!(conflict(&world, &again[0])[column::MINE], "30".into());
    assert_ne!(
        opened(&decide(&mut world, "ada/phone", 1, 40, seen))[0].key,
        first[0].key
    );
    // Resolved, it is opened again by the next.
    let id = first[0].key.decode().unwrap().remove(0);
    let resolved = [("state", "resolved".into()), ("resolution", "mine".into())];
    world
        .push("ben", |draw| {
            let now = Version(Version::LIMIT - 1);
            draw.set("syncline_conflicts", id, now, &resolved)
        })
        .accepted();
    assert_eq!(
        conflict(&world, &first[0])[column::STATE],
        "resolved".into()
    );
    decide(&mut world, "ben/phone", 1, 50, seen).accepted();
    assert_eq!(conflict(&world, &first[0])[column::STATE], "open".into());
}

#[test]
fn pl16_nobody_resolves_the_conflict_of_another() {
    let (mut world, seen) = budgeted();
    decide(&mut world, "ada", 1, 10, seen).accepted();
    let record = &opened(&decide(&mut world, "ben", 1, 20, seen))[0];
    let id = record.key.decode().unwrap().remove(0);
    let resolved = world.push("ada", |draw| {
        let now = Version(Version::LIMIT - 1);
        draw.set(
            "syncline_conflicts",
            id,
            now,
            &[("state", "resolved".into())],
        )
    });
    assert_eq!(resolved.code(), "row_gone");
}

#[test]
fn pl16_an_update_that_lost_against_a_deletion_is_kept_for_its_author() {
    let mut world = garden();
    let seen = row(&world, "tasks", "t").unwrap().1.version;
    world
        .push("ada", |draw| draw.delete("tasks", "t", seen))
        .accepted();
    let late = world.push("ben", |draw| {
        let edits = [
            ("title", Edit::Set("dig deeper".into())),
            ("effort", Edit::Add(2.into())),
        ];
        draw.edit("tasks", "t", seen, &edits)
    });
    let [record] = &opened(&late)[..] else {
        panic!("{:?}", late.outcome)
    };
    let image = conflict(&world, record);
    assert_eq!(image[column::KIND], "deleted".into());
    assert_eq!(image[column::COLUMN_NAME], Value::Null);
    let mine = r#"{"effort":{"plus":2},"title":"dig deeper"}"#;
    assert_eq!(image[column::MINE], mine.into());
    assert_eq!(
        (&image[column::AUTHOR], &image[column::OTHER]),
        (&"ben".into(), &"ada".into())
    );
}
