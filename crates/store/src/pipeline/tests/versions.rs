//! What is given out in order: versions, and the numbers of devices.

use std::{collections::BTreeSet, sync::Arc};

use syncline_core::{Lease, Timestamp, Version, wire::Verdict};

use super::{Memory, garden, row, verdict};
use crate::{
    Reader as _, Storage as _,
    testkit::{Pushed, block_on},
};

#[test]
fn pl9_each_row_gets_the_next_version() {
    let mut world = garden();
    let insert = |id: &'static str| [("project_id", "p".into()), ("title", id.into())];
    let pushed = world.push("ada", |draw| {
        draw.insert("tasks", "a", &insert("a"))
            .insert("tasks", "b", &insert("b"))
            .delete("tasks", "t", Version::ZERO)
    });
    let entry = &pushed.outcome.entries[0];
    let versions: Vec<_> = entry
        .records
        .iter()
        .map(|record| record.version.0)
        .collect();
    let first = world.now.0;
    assert_eq!(
        versions,
        [first, first + 1, first + 2],
        "the server's time in microseconds"
    );
    assert_eq!(
        (entry.version, pushed.version()),
        (Version(first + 2), Version(first + 2))
    );
    assert_eq!(
        row(&world, "tasks", "b").unwrap().1.version,
        Version(first + 1)
    );

    world.now = Timestamp(first - 3_600_000_000);
    let pushed = world.push("ada", |draw| draw.insert("tasks", "c", &insert("c")));
    assert_eq!(
        pushed.version(),
        Version(first + 3),
        "a clock put back does not matter"
    );
}

#[test]
fn pl9_a_changeset_without_effect_is_in_the_log_too() {
    let mut world = garden();
    let equal = world.push("ben", |draw| draw.delete("tasks", "never", Version::ZERO));
    let [entry] = &equal.outcome.entries[..] else {
        panic!("{:?}", equal.outcome)
    };
    assert_eq!((entry.records.len(), entry.version), (0, equal.version()));
    assert_eq!(entry.version, Version(world.now.0), "a version of its own");
    assert_eq!(entry.digests, []);
    let again = world.commit(&[equal.submission.clone(), equal.submission.clone()]);
    assert!(
        again
            .results
            .iter()
            .all(|r| r.verdict == Verdict::Accepted(equal.version()))
    );
    assert_eq!(again.entries, []);
    let next = world.push("ben", |draw| {
        draw.set("tasks", "t", Version::ZERO, &[("title", "sow".into())])
    });
    assert!(next.version() > equal.version());
}

#[test]
fn pl20_numbers_follow_each_other_and_every_answered_one_counts() {
    let mut world = garden();
    let mut push = |number: u64, title: &str| {
        let changes = world
            .draw()
            .set("tasks", "t", Version::ZERO, &[("title", title.into())]);
        let changes = changes.done();
        let mut submission = world.submission("ben", changes);
        submission.changeset.number = number;
        if title == "refused" {
            submission.changeset.changes[0].base = Version(1);
            submission.sent = Version::ZERO;
        }
        let outcome = world.commit(&[submission]);
        verdict(&outcome.results[0]).to_owned()
    };
    assert_eq!(push(0, "zero is none"), "gap");
    assert_eq!(push(2, "early"), "gap");
    assert_eq!(push(1, "one"), "accepted");
    assert_eq!(push(3, "early"), "gap", "a gap is no answer that counts");
    assert_eq!(push(2, "refused"), "base_in_future");
    assert_eq!(push(3, "three"), "accepted", "the refused one was counted");
    assert_eq!(push(2, "made good"), "accepted", "and can be judged again");
    assert_eq!(push(5, "early"), "gap", "which does not count twice");
    assert_eq!(push(4, "four"), "accepted");
}

/// What is answered by its id or size alone may have any number.
#[test]
fn pl20_only_the_next_number_is_counted() {
    let mut world = garden();
    let first = world.push("ada", |draw| draw.delete("tasks", "never", Version::ZERO));
    let changes = world.draw().delete("tasks", "never", Version::ZERO).done();
    let mut reused = world.submission("ben", changes);
    let next = reused.clone();
    reused.changeset.id = first.submission.changeset.id;
    reused.changeset.number = 1_000;
    let outcome = world.commit(&[reused]);
    assert_eq!(verdict(&outcome.results[0]), "changeset_id_reused");
    let mut early = next.clone();
    early.changeset.number = 1_001;
    let outcome = world.commit(&[early, next]);
    assert_eq!(verdict(&outcome.results[0]), "gap");
    assert_eq!(verdict(&outcome.results[1]), "accepted");
}

/// What the session knows of a number is older than what the group has answered to it.
#[test]
fn pl14_a_number_that_is_judged_again_is_refused_no_more_within_the_group() {
    let mut world = garden();
    let nothing = |world: &mut Memory| {
        let changes = world.draw().delete("tasks", "never", Version::ZERO).done();
        world.submission("ben", changes)
    };
    let good = nothing(&mut world);
    let mut next = nothing(&mut world);
    next.changeset.depends = vec![good.changeset.number];
    next.refused = Arc::new(BTreeSet::from([good.changeset.number]).into());
    let outcome = world.commit(&[next.clone()]);
    assert_eq!(verdict(&outcome.results[0]), "gap");
    let outcome = world.commit(&[good, next]);
    let verdicts: Vec<_> = outcome.results.iter().map(verdict).collect();
    assert_eq!(verdicts, ["accepted", "accepted"]);
}

/// The pushes of a connection that broke may be heard after the device has come back.
#[test]
fn pl20_a_session_whose_lease_was_spent_counts_nothing() {
    let mut world = garden();
    let first = world.push("ada", |draw| draw.delete("tasks", "never", Version::ZERO));
    let changes = world.draw().delete("tasks", "never", Version::ZERO).done();
    let mut late = world.submission("ada", changes);
    late.lease = Some(Lease([0xAA; 16]));
    let mut known = first.submission.clone();
    known.lease = late.lease;
    // In the order of that session it may have another number.
    known.changeset.number = late.changeset.number;
    let outcome = world.commit(&[late.clone(), known]);
    let Verdict::Refused(refusal) = &outcome.results[0].verdict else {
        panic!("{:?}", outcome.results)
    };
    assert_eq!((refusal.code.as_str(), refusal.retry), ("gap", true));
    assert_eq!(
        verdict(&outcome.results[1]),
        "accepted",
        "a known id is known"
    );
    block_on(world.storage.trim(first.version())).unwrap();
    late.lease = Some(Lease([1; 16]));
    let outcome = world.commit(&[late]);
    assert_eq!(
        verdict(&outcome.results[0]),
        "accepted",
        "its number was not counted"
    );
}

#[test]
fn pl20_numbers_are_those_of_one_device() {
    let mut world = garden();
    for device in ["ada/phone", "ada/tablet", "ben"] {
        let pushed = world.push(device, |draw| draw.delete("tasks", "never", Version::ZERO));
        assert_eq!(pushed.submission.changeset.number, 1);
        pushed.accepted();
    }
}

/// Two changesets, an hour apart, of which the log has forgotten the first.
fn forgotten() -> (Memory, Pushed, Pushed) {
    let mut world = garden();
    let old = world.push("ada", |draw| {
        draw.set("tasks", "t", Version::ZERO, &[("title", "old".into())])
    });
    world.now = world.now.plus_millis(3_600_000);
    let young = world.push("ada", |draw| {
        draw.set("tasks", "t", Version::ZERO, &[("title", "young".into())])
    });
    block_on(world.storage.trim(old.version())).unwrap();
    (world, old, young)
}

/// Ids below the horizon are unknown: who cannot know whether it was applied is told so.
#[test]
fn pl3_below_the_horizon_nothing_is_applied_twice() {
    let (mut world, old, young) = forgotten();
    assert_eq!(
        block_on(world.storage.reader().head()).unwrap().horizon,
        old.version()
    );
    let outcome = world.commit(&[old.submission.clone(), young.submission.clone()]);
    let verdicts: Vec<_> = outcome.results.iter().map(verdict).collect();
    assert_eq!(verdicts, ["may_be_applied_already", "accepted"]);
    assert_eq!(outcome.entries, []);
}

/// A number that was counted, and one that tells nothing, may be of what is forgotten; not what
/// cannot have come before the horizon, and not what comes for the first time.
#[test]
fn pl3_what_came_after_all_that_is_forgotten_is_known_or_new() {
    let (mut world, old, young) = forgotten();
    let horizon = old.version();
    let below = Some(Version(horizon.0 - 1));
    let mut last = young.submission.changeset.number;
    let mut is_doubted = |world: &mut Memory, is_counted, may_be, after| {
        let changes = world
            .draw()
            .set("tasks", "t", Version::ZERO, &[("title", "again".into())])
            .done();
        let mut submission = world.submission("ada", changes);
        submission.changeset.may_be_applied_already = may_be;
        submission.changeset.after = after;
        submission.changeset.number = match is_counted {
            true => old.submission.changeset.number,
            false => {
                last += 1;
                last
            }
        };
        let outcome = world.commit(&[submission]);
        match verdict(&outcome.results[0]) {
            "accepted" => false,
            "may_be_applied_already" => true,
            other => panic!("{other}"),
        }
    };
    // A clock that is far ahead, or behind, says nothing about it.
    assert!(is_doubted(&mut world, true, false, below));
    assert!(!is_doubted(&mut world, true, false, Some(horizon)));
    assert!(!is_doubted(&mut world, false, false, below), "it is new");
    assert!(is_doubted(&mut world, false, true, below));
    assert!(!is_doubted(&mut world, false, true, Some(horizon)));
    // As part of another, whose id it does not have; and from a program that does not tell.
    assert!(is_doubted(&mut world, false, true, None));
    assert!(is_doubted(&mut world, true, false, None));
    assert!(!is_doubted(&mut world, false, false, None));
}

/// Who is told of another fault takes it for not applied, and sends it again under a new number.
#[test]
fn pl3_what_may_be_applied_is_told_so_whatever_else_is_wrong_with_it() {
    let mut world = garden();
    let old = world.push("ada", |draw| {
        draw.set("tasks", "t", Version::ZERO, &[("title", "old".into())])
    });
    let mut dependant = world.push("ada", |draw| {
        draw.set("tasks", "t", Version::ZERO, &[("title", "on it".into())])
    });
    world.now = world.now.plus_millis(3_600_000);
    let young = world.push("ada", |draw| {
        draw.set("tasks", "t", Version::ZERO, &[("title", "young".into())])
    });
    block_on(world.storage.trim(young.version())).unwrap();
    dependant.submission.changeset.depends = vec![old.submission.changeset.number];
    let outcome = world.commit(&[old.submission, dependant.submission]);
    let verdicts: Vec<_> = outcome.results.iter().map(verdict).collect();
    assert_eq!(
        verdicts,
        ["may_be_applied_already", "may_be_applied_already"]
    );
    assert_eq!(outcome.entries, []);
}
