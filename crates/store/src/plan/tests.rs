//! What a user may not see is not there, whatever he asks for: no answer, no lost edit and no
//! conflict tells a hidden row from a missing one.

use syncline_core::{
    Edit, Hlc, Value, Version,
    wire::{PushResult, Verdict},
};

use crate::{
    GroupOutcome, Reader, Want,
    memory::{MemoryStorage, lock},
    testkit::{Draw, World, block_on, demo_schema},
};

type Changes = for<'a> fn(Draw<'a>, &'static str, i64, Version) -> Draw<'a>;

/// What is tried on a project and a note: with their keys, and the version the project has.
const ATTEMPTS: &[(&str, Changes)] = &[
    ("an update", |draw, id, _, _| {
        draw.set("projects", id, Version::ZERO, &[("name", "Mine".into())])
    }),
    ("an update to what it is", |draw, id, _, _| {
        draw.set("projects", id, Version::ZERO, &[("name", "Garden".into())])
    }),
    ("an update on its very version", |draw, id, _, version| {
        draw.set("projects", id, version, &[("name", "Garden".into())])
    }),
    ("a value it may not have", |draw, id, _, _| {
        draw.set("projects", id, Version::ZERO, &[("name", Value::Null)])
    }),
    ("an edit of another strategy", |draw, id, _, _| {
        let add = Edit::Add(Value::Integer(1));
        draw.edit("projects", id, Version::ZERO, &[("name", add)])
    }),
    ("a decision", |draw, id, _, _| {
        let (base, new) = (Value::Integer(1), Value::Integer(2));
        let decide = Edit::Decide { base, new };
        draw.edit("projects", id, Version::ZERO, &[("budget", decide)])
    }),
    ("a deletion", |draw, id, _, _| {
        draw.delete("projects", id, Version::ZERO)
    }),
    ("a deletion where updates win", |draw, _, note, _| {
        draw.delete("notes", note, Version::ZERO)
    }),
    ("an update of a note", |draw, _, note, _| {
        draw.set("notes", note, Version::ZERO, &[("body", "secret".into())])
    }),
];

fn hidden() -> (World<MemoryStorage>, Version) {
    let mut world = World::new(MemoryStorage::new());
    let values = [("name", "Garden".into()), ("budget", Value::Integer(7))];
    let version = world
        .push("ada", |draw| {
            draw.insert("notes", 1, &[("body", "secret".into())])
                .insert("projects", "hidden", &values)
        })
        .version();
    (world, version)
}

/// One of eve's attempts on fresh data: what she is told, with the keys taken out, and whether
/// anything happened.
fn attempt(
    changes: Changes,
    (id, note): (&'static str, i64),
    require_unchanged: bool,
    hlc: Hlc,
) -> (String, usize) {
    let (mut world, version) = hidden();
    let drawn = changes(world.draw(), id, note, version).done();
    let mut submission = world.submission("eve", drawn);
    submission.changeset.require_unchanged = require_unchanged;
    submission.changeset.hlc = hlc;
    let outcome: GroupOutcome = world.commit(&[submission]);
    let PushResult { verdict, lost, .. } = &outcome.results[0];
    let verdict = match verdict {
        Verdict::Accepted(_) => "accepted".to_owned(),
        Verdict::Refused(refusal) => format!("{refusal:?}"),
    };
    let said = format!("{verdict} {lost:?}").replace(id, "KEY");
    let records = outcome.entries.iter().map(|entry| entry.records.len());
    (
        said.replace(&format!("row {note} "), "row KEY "),
        records.sum(),
    )
}

#[test]
fn pl5_a_hidden_row_and_a_missing_one_get_the_same_answer() {
    let (world, _) = hidden();
    let now = Hlc::at(world.now);
    for (what, changes) in ATTEMPTS {
        for require_unchanged in [false, true] {
            // A clock at zero loses against every value that is there.
            for hlc in [now, Hlc(1)] {
                let on_hidden = attempt(*changes, ("hidden", 1), require_unchanged, hlc);
                let on_missing = attempt(*changes, ("absent", 2), require_unchanged, hlc);
                assert_eq!(
                    on_hidden, on_missing,
                    "{what}, {require_unchanged}, {hlc:?}"
                );
                assert_eq!(
                    on_hidden.1, 0,
                    "{what}: nothing happens, no conflict is opened"
                );
            }
        }
    }
}

/// What the server looks up for one of eve's attempts, what it writes into its log, and the next
/// number that it takes from her.
fn work(changes: Changes, (id, note): (&'static str, i64)) -> (Vec<String>, usize, Option<u64>) {
    let (mut world, version) = hidden();
    let drawn = changes(world.draw(), id, note, version).done();
    let submission = world.submission("eve", drawn);
    lock(&world.storage.asked).clear();
    let outcome = world.commit(std::slice::from_ref(&submission));
    let mut asked: Vec<String> = lock(&world.storage.asked)
        .iter()
        .map(|want| match want {
            Want::Row(table, _) => format!("the row in {}", table.0),
            Want::Matching(table, column, _) => format!("rows of {} by {column:?}", table.0),
            Want::Changeset(_)
            | Want::Pieces(..)
            | Want::Device(_)
            | Want::GrantCount(_)
            | Want::LostBy(_)
            | Want::Digest(..)
            | Want::Owned(_) => format!("{want:?}"),
        })
        .collect();
    asked.sort();
    let mut reader = world.storage.reader();
    let device = block_on(reader.device(submission.device)).expect("it reads");
    (
        asked,
        outcome.entries.len(),
        device.map(|device| device.last_number),
    )
}

#[test]
fn pl5_a_hidden_row_costs_no_more_than_a_missing_one_and_what_its_rule_looks_up() {
    for (what, changes) in ATTEMPTS {
        let (on_hidden, written, number) = work(*changes, ("hidden", 1));
        let (on_missing, written_too, number_too) = work(*changes, ("absent", 2));
        assert_eq!((written, number), (written_too, number_too), "{what}");
        let mut more = on_hidden.clone();
        for one in &on_missing {
            let at = more.iter().position(|other| other == one);
            more.remove(at.unwrap_or_else(|| panic!("{what}: {one} only where it is missing")));
        }
        // Notes are their owners': the row alone says it. Projects are their members', too, which
        // is looked up, once, and nothing else of the row is.
        match what.contains("note") || what.contains("updates win") {
            true => assert_eq!(more, [""; 0], "{what}"),
            false => assert!(
                more.len() <= 1 && more.iter().all(|one| one.starts_with("rows of ")),
                "{what}: {more:?}"
            ),
        }
    }
}

#[test]
fn pl7_who_sees_a_row_is_told_that_it_changed() {
    let (mut world, version) = hidden();
    let drawn = world.draw().set(
        "projects",
        "hidden",
        Version::ZERO,
        &[("name", "Yard".into())],
    );
    let mut submission = world.submission("ada", drawn.done());
    submission.changeset.require_unchanged = true;
    let outcome = world.commit(&[submission]);
    assert!(
        matches!(&outcome.results[0].verdict, Verdict::Refused(refusal) if refusal.code == "changed")
    );
    let drawn = world
        .draw()
        .set("projects", "hidden", version, &[("name", "Yard".into())]);
    let mut submission = world.submission("ada", drawn.done());
    submission.changeset.require_unchanged = true;
    let outcome = world.commit(&[submission]);
    assert!(matches!(outcome.results[0].verdict, Verdict::Accepted(_)));
}

/// Projects that everybody may write and only their owner may read.
fn drop_box() -> World<MemoryStorage> {
    let mut schema = demo_schema();
    let projects = schema
        .tables
        .iter_mut()
        .find(|table| table.name == "projects")
        .expect("declared");
    projects.rules.read = Some("_owner = auth.uid()".into());
    projects.rules.write = Some("auth.uid() IS NOT NULL".into());
    World::with_schema(MemoryStorage::new(), &schema)
}

#[test]
fn pl16_a_conflict_shows_nobody_a_value_that_he_may_only_write() {
    let decide = |base: i64, new: i64| Edit::Decide {
        base: Value::Integer(base),
        new: Value::Integer(new),
    };
    let mut world = drop_box();
    let values = [("name", "Garden".into()), ("budget", Value::Integer(7))];
    let version = world
        .push("ada", |draw| draw.insert("projects", "p", &values))
        .version();
    let blind = world.push("eve", |draw| {
        draw.edit("projects", "p", Version::ZERO, &[("budget", decide(1, 2))])
    });
    assert_eq!(blind.code(), "row_gone");
    let records = |pushed: &crate::testkit::Pushed| -> usize {
        let entries = pushed.outcome.entries.iter();
        entries.map(|entry| entry.records.len()).sum()
    };
    assert_eq!(records(&blind), 0, "no conflict with the hidden budget");
    // Its owner, from another device that has not seen it, is told.
    let sees = world.push("ada/phone", |draw| {
        draw.edit("projects", "p", Version::ZERO, &[("budget", decide(1, 2))])
    });
    assert_eq!(records(&sees), 1, "after {version:?}");
}
