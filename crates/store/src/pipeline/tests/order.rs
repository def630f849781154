//! Which check comes first, and what nobody learns from it.

use std::{collections::BTreeSet, sync::Arc};

use syncline_core::{
    Change, ChangesetId, Edit, Hlc, Op, TableNumber, Version,
    builtin::CONFLICTS,
    wire::{CHANGES_MAX, Refusal, Verdict},
};

use super::{Memory, garden, key, reasons, refusal, row, value, verdict};
use crate::{Submission, testkit::Draw};

/// Each submission has every fault of the ones after it.
#[test]
fn pl5_checks_come_in_this_order() {
    let mut world = garden();
    let noted = world.push("ada", |draw| {
        draw.insert("notes", 1, &[("body", "mine".into())])
    });
    noted.accepted();
    let id = world
        .draw()
        .insert("notes", 1, &[("body", "not yours".into())])
        .done();
    let forbidden = world
        .draw()
        .insert("tasks", "u", &[("project_id", "p".into())])
        .done();
    let mut eve = world.submission("eve", id);
    eve.sent = Version(world.now.0);
    let far = Version(eve.sent.0 + 1);
    let unknown = Change {
        table: TableNumber(999),
        base: far,
        ..eve.changeset.changes[0].clone()
    };
    let nothing = |n: usize| Change {
        table: TableNumber(999),
        key: key(i64::try_from(n).unwrap()),
        base: far,
        op: Op::Delete,
    };

    let all = |eve: &Submission| {
        let mut all = eve.clone();
        all.changeset.id = noted.submission.changeset.id;
        all.changeset.number = 7;
        all.changeset.depends = vec![6];
        all.refused = Arc::new(BTreeSet::from([6]).into());
        all.changeset.changes = (0..=CHANGES_MAX).map(nothing).collect();
        all
    };
    let mut faulty = all(&eve);
    let mut answer = |faulty: &Submission| {
        let outcome = world.commit(std::slice::from_ref(faulty));
        verdict(&outcome.results[0]).to_owned()
    };
    assert_eq!(answer(&faulty), "changeset_id_reused");
    faulty.changeset.id = ChangesetId([0xEE; 16]);
    assert_eq!(answer(&faulty), "too_large");
    faulty.changeset.changes = vec![unknown];
    assert_eq!(answer(&faulty), "gap");
    faulty.changeset.number = 1;
    assert_eq!(answer(&faulty), "depends_on");
    faulty.changeset.depends = Vec::new();
    assert_eq!(answer(&faulty), "schema");
    faulty.changeset.changes = eve.changeset.changes.clone();
    faulty.changeset.changes[0].base = far;
    assert_eq!(answer(&faulty), "base_in_future");
    faulty.changeset.changes[0].base = Version::ZERO;
    let mut both = faulty.clone();
    both.changeset.changes.splice(0..0, forbidden.clone());
    assert_eq!(
        answer(&both),
        "forbidden",
        "rules before constraints and taken keys: the title is NULL"
    );
    both.changeset.changes.rotate_left(1);
    assert_eq!(
        answer(&both),
        "id_taken",
        "a key that is taken before rules about what may refer to the row"
    );
    assert_eq!(answer(&faulty), "id_taken");
    faulty.changeset.id = ChangesetId([0xEF; 16]);
    faulty.changeset.changes.clear();
    assert_eq!(answer(&faulty), "accepted");
    assert_eq!(answer(&all(&eve)), "changeset_id_reused");
}

#[test]
fn pl5_a_row_named_twice_is_refused() {
    let mut world = garden();
    let twice = world.push("ada", |draw| {
        draw.delete("tasks", "t", Version::ZERO).set(
            "tasks",
            "t",
            Version::ZERO,
            &[("done", 1.into())],
        )
    });
    assert_eq!(
        (twice.code(), refusal(twice.result()).change),
        ("malformed", Some(1))
    );
}

#[test]
fn pl5_forced_columns_are_set_before_the_rules_judge() {
    let mut world = garden();
    let pushed = world.push("ben", |draw| {
        let values = [
            ("project_id", "p".into()),
            ("title", "sow".into()),
            ("edited_by", "ada".into()),
        ];
        draw.insert("tasks", "u", &values).set(
            "tasks",
            "t",
            Version::ZERO,
            &[("edited_by", "ada".into()), ("done", 1.into())],
        )
    });
    pushed.accepted();
    assert_eq!(value(&world, "tasks", "u", "edited_by"), "ben".into());
    assert_eq!(value(&world, "tasks", "t", "edited_by"), "ben".into());
}

/// What Eve does once to a row that she may not see, and once to one that is not there.
type Attempt = for<'a> fn(Draw<'a>, &str, Version) -> Draw<'a>;

const ATTEMPTS: [(&str, Attempt); 9] = [
    ("an update", |draw, id, base| {
        draw.set("tasks", id, base, &[("title", "x".into())])
    }),
    ("an update to what it is", |draw, id, base| {
        draw.set("tasks", id, base, &[("title", "dig".into())])
    }),
    (
        "an update with NULL where it may not be",
        |draw, id, base| draw.set("tasks", id, base, &[("title", syncline_core::Value::Null)]),
    ),
    ("an update of nothing", |draw, id, base| {
        draw.set("tasks", id, base, &[])
    }),
    ("a nonsensical edit", |draw, id, base| {
        draw.edit("tasks", id, base, &[("effort", Edit::Add("much".into()))])
    }),
    ("a decision", |draw, id, base| {
        let decide = Edit::Decide {
            base: 1.into(),
            new: 2.into(),
        };
        draw.edit("projects", id, base, &[("budget", decide)])
    }),
    ("a delete", |draw, id, base| draw.delete("tasks", id, base)),
    ("an insert", |draw, id, _| {
        draw.insert(
            "tasks",
            id,
            &[("project_id", "p".into()), ("title", "dig".into())],
        )
    }),
    ("an insert with NULL where it may not be", |draw, id, _| {
        draw.insert("tasks", id, &[("project_id", "p".into())])
    }),
];

#[test]
fn pl5_a_row_nobody_may_see_is_answered_like_a_missing_one() {
    for (what, attempt) in ATTEMPTS {
        for (require_unchanged, hlc) in [(false, None), (false, Some(Hlc(1))), (true, None)] {
            let mut world = garden();
            let hidden = row(&world, "tasks", "t").unwrap().1.version;
            for base in [Version::ZERO, hidden, Version(hidden.0 + 9)] {
                let [here, missing] = ["t", "nothing"].map(|id| {
                    let id = if what == "a decision" {
                        id.replace('t', "p")
                    } else {
                        id.into()
                    };
                    answer(&mut world, attempt, &id, base, require_unchanged, hlc)
                });
                assert_eq!(
                    here, missing,
                    "{what} at {base:?}, {require_unchanged}, {hlc:?}"
                );
            }
            assert_eq!(value(&world, "tasks", "t", "title"), "dig".into());
            assert_eq!(conflicts(&world), 0, "{what}");
        }
    }
}

/// The verdict, but for names and versions, and how much was lost.
fn answer(
    world: &mut Memory,
    attempt: Attempt,
    id: &str,
    base: Version,
    require_unchanged: bool,
    hlc: Option<Hlc>,
) -> (Option<Refusal>, usize) {
    let changes = attempt(world.draw(), id, base).done();
    let mut submission = world.submission("eve", changes);
    submission.changeset.require_unchanged = require_unchanged;
    submission.changeset.hlc = hlc.unwrap_or(submission.changeset.hlc);
    let outcome = world.commit(&[submission]);
    let result = &outcome.results[0];
    let refusal = match &result.verdict {
        Verdict::Accepted(_) => None,
        Verdict::Refused(refusal) => Some(Refusal {
            message: refusal.message.replace(&format!("row {id} "), "row … "),
            ..refusal.clone()
        }),
    };
    (refusal, result.lost.len())
}

fn conflicts(world: &Memory) -> usize {
    let entries = crate::testkit::block_on(crate::Reader::log_after(
        &mut world.storage.reader(),
        Version::ZERO,
        usize::MAX,
    ));
    let entries = entries.unwrap();
    let records = entries.iter().flat_map(|entry| &entry.records);
    records.filter(|record| record.table == CONFLICTS).count()
}

/// Vic sees the project and may not change it, whether or not anything would come of it.
#[test]
fn pl5_what_comes_to_nothing_is_judged_too() {
    for (what, attempt) in ATTEMPTS {
        let mut world = garden();
        let id = if what == "a decision" { "p" } else { "t" };
        let (refusal, lost) = answer(&mut world, attempt, id, Version::ZERO, false, Some(Hlc(1)));
        assert_eq!(
            refusal.map(|r| r.code).as_deref(),
            match what {
                "a delete" => None,
                "an insert" | "an insert with NULL where it may not be" => Some("forbidden"),
                _ => Some("row_gone"),
            },
            "{what} by Eve"
        );
        assert_eq!(lost, 0);
        let changes = attempt(world.draw(), id, Version::ZERO).done();
        let mut submission = world.submission("vic", changes);
        submission.changeset.hlc = Hlc(1);
        let outcome = world.commit(&[submission]);
        assert_eq!(verdict(&outcome.results[0]), "forbidden", "{what} by Vic");
        assert_eq!(reasons(&outcome.results[0]), Vec::<&str>::new());
    }
}

#[test]
fn pl6_a_base_above_what_was_sent_is_refused() {
    let mut world = garden();
    let version = row(&world, "tasks", "t").unwrap().1.version;
    let push = |world: &mut Memory, base: Version, sent: Version| {
        let changes = world
            .draw()
            .set("tasks", "t", base, &[("done", 1.into())])
            .done();
        let mut submission = world.submission("ben", changes);
        submission.sent = sent;
        let outcome = world.commit(&[submission]);
        verdict(&outcome.results[0]).to_owned()
    };
    assert_eq!(
        push(&mut world, Version(version.0 + 1), version),
        "base_in_future"
    );
    assert_eq!(
        push(&mut world, Version(1), Version::ZERO),
        "base_in_future"
    );
    assert_eq!(push(&mut world, version, version), "accepted");
    assert_eq!(push(&mut world, Version::ZERO, Version::ZERO), "accepted");
}

#[test]
fn pl7_rows_have_to_be_at_their_base() {
    let mut world = garden();
    let first = row(&world, "tasks", "t").unwrap().1.version;
    let push = |world: &mut Memory, draw: &dyn Fn(Draw<'_>) -> Vec<Change>| {
        let changes = draw(world.draw());
        let mut submission = world.submission("ben", changes);
        submission.changeset.require_unchanged = true;
        let outcome = world.commit(&[submission]);
        let change = match &outcome.results[0].verdict {
            Verdict::Accepted(_) => None,
            Verdict::Refused(refusal) => refusal.change,
        };
        (verdict(&outcome.results[0]).to_owned(), change)
    };
    let done = |base: Version| {
        move |draw: Draw<'_>| draw.set("tasks", "t", base, &[("done", 1.into())]).done()
    };
    let accepted = ("accepted".to_owned(), None);
    assert_eq!(push(&mut world, &done(first)), accepted);
    assert_eq!(
        push(&mut world, &done(first)),
        ("changed".into(), Some(0)),
        "it moved on"
    );
    let now = row(&world, "tasks", "t").unwrap().1.version;
    assert_eq!(
        push(&mut world, &done(Version(now.0 + 1))).0,
        "changed",
        "exactly"
    );

    let values = [("project_id", "p".into()), ("title", "sow".into())];
    let both = |draw: Draw<'_>| {
        draw.insert("tasks", "new", &values)
            .delete("tasks", "t", first)
            .done()
    };
    assert_eq!(push(&mut world, &both), ("changed".into(), Some(1)));
    assert!(row(&world, "tasks", "new").is_none(), "all or nothing");
    let insert = |id: &'static str| {
        move |draw: Draw<'_>| {
            let values = [("project_id", "p".into()), ("title", "sow".into())];
            draw.insert("tasks", id, &values).done()
        }
    };
    assert_eq!(
        push(&mut world, &insert("new")),
        accepted,
        "absent is base zero"
    );
    assert_eq!(
        push(&mut world, &insert("new")).0,
        "changed",
        "and present is not"
    );
    let absent = |draw: Draw<'_>| draw.delete("tasks", "never", Version(5)).done();
    assert_eq!(push(&mut world, &absent).0, "changed");
    let delete = move |draw: Draw<'_>| draw.delete("tasks", "t", now).done();
    assert_eq!(push(&mut world, &delete), accepted);
    assert_eq!(
        push(&mut world, &delete).0,
        "changed",
        "a tombstone is absent"
    );
    assert_eq!(push(&mut world, &insert("t")), accepted);
}

#[test]
fn pl8_a_clock_that_runs_ahead_is_clamped() {
    let mut world = garden();
    let push = |world: &mut Memory, device: &str, title: &str, ahead_ms: u64| {
        let changes = world
            .draw()
            .set("tasks", "t", Version::ZERO, &[("title", title.into())])
            .done();
        let mut submission = world.submission(device, changes);
        submission.changeset.hlc = Hlc::at(world.now.plus_millis(ahead_ms));
        let entries = world.commit(&[submission]).entries;
        entries[0].hlc
    };
    let honest = push(&mut world, "ada", "honest", 1_000);
    assert_eq!(
        honest,
        Hlc::at(world.now.plus_millis(999)),
        "within the limit it stays"
    );
    let lied = push(&mut world, "ben", "lied", 3_600_000);
    assert_eq!(lied, Hlc::at(world.now.plus_millis(Hlc::SKEW_MAX_MILLIS)));
    assert_eq!(
        row(&world, "tasks", "t")
            .unwrap()
            .1
            .column(title(&world))
            .clock
            .hlc,
        lied
    );
    push(&mut world, "ada", "too early", 0);
    assert_eq!(value(&world, "tasks", "t", "title"), "lied".into());
    world.now = world.now.plus_millis(Hlc::SKEW_MAX_MILLIS + 1);
    push(&mut world, "ada", "a minute later", 0);
    assert_eq!(
        value(&world, "tasks", "t", "title"),
        "a minute later".into()
    );
}

fn title(world: &Memory) -> syncline_core::ColumnNumber {
    let table = world.context.schema().table("tasks").unwrap();
    table.columns[table.position("title").unwrap()].number
}

/// What arrived before the refusal, and is judged in a later group.
#[test]
fn pl5_what_waited_while_another_group_refused_its_cause_is_refused_too() {
    let mut world = garden();
    let forbidden = world
        .draw()
        .insert("tasks", "u", &[("project_id", "p".into())])
        .done();
    let own = world
        .draw()
        .insert("projects", "e", &[("name", "Own".into())])
        .done();
    let cause = world.submission("eve", forbidden);
    let mut effect = world.submission("eve", own);
    effect.changeset.depends = vec![cause.changeset.number];
    effect.refused = Arc::clone(&cause.refused);
    let first = world.commit(&[cause]);
    assert_eq!(verdict(&first.results[0]), "forbidden");
    let second = world.commit(&[effect]);
    assert_eq!(verdict(&second.results[0]), "depends_on");
}
