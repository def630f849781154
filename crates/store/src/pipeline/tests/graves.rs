//! Who is told that a row was deleted, and who hears what he would hear of a row that never was.

use syncline_core::{Version, wire::PushResult};

use super::{Memory, garden, reasons, refusal, row, verdict};
use crate::{
    memory::MemoryStorage,
    testkit::{Draw, World, demo_schema},
};

fn update<'a>(draw: Draw<'a>, table: &str, id: &str, base: Version) -> Draw<'a> {
    let column = if table == "projects" { "name" } else { "title" };
    draw.set(table, id, base, &[(column, "late".into())])
}

/// The answer of an update by `user` with a base at which the row was there.
fn late(world: &mut Memory, user: &str, table: &str, id: &str, base: Version) -> PushResult {
    let pushed = world.push(user, |draw| update(draw, table, id, base));
    pushed.result().clone()
}

#[track_caller]
fn hears_of_it(result: &PushResult) {
    assert_eq!(
        (verdict(result), reasons(result)),
        ("accepted", vec!["deleted"])
    );
}

/// Says exactly what is said of a row that never was, and opens no conflict.
#[track_caller]
fn hears_nothing(world: &mut Memory, user: &str, table: &str, id: &str, base: Version) {
    let dead = world.push(user, |draw| update(draw, table, id, base));
    let never = world.push(user, |draw| update(draw, table, "never", base));
    let [dead_entries, never_entries] = [&dead, &never].map(|pushed| pushed.outcome.entries.len());
    assert_eq!((dead_entries, never_entries), (0, 0));
    let (dead, mut never) = (
        refusal(dead.result()).clone(),
        refusal(never.result()).clone(),
    );
    never.message = never.message.replace("never", id);
    assert_eq!(dead, never);
    assert_eq!(dead.code, "row_gone");
}

fn delete_task(world: &mut Memory) -> Version {
    let base = row(world, "tasks", "t").expect("it is there").1.version;
    world
        .push("ada", |draw| draw.delete("tasks", "t", base))
        .accepted();
    base
}

#[test]
fn pl18_a_guessed_base_tells_a_stranger_nothing_of_a_deleted_row() {
    let mut world = garden();
    let base = delete_task(&mut world);
    hears_nothing(&mut world, "eve", "tasks", "t", base);
    for member in ["ben", "vic"] {
        hears_of_it(&late(&mut world, member, "tasks", "t", base));
    }
}

#[test]
fn pl18_who_came_after_the_deletion_is_told_nothing_of_it() {
    let mut world = garden();
    let base = delete_task(&mut world);
    let member = [
        ("project_id", "p".into()),
        ("user_id", "eve".into()),
        ("role", "editor".into()),
    ];
    world
        .push("ada", |draw| draw.insert("members", "eve", &member))
        .accepted();
    hears_nothing(&mut world, "eve", "tasks", "t", base);
}

#[test]
fn pl18_who_came_with_the_deletion_is_told_nothing_of_it() {
    let mut world = garden();
    let base = row(&world, "tasks", "t").expect("it is there").1.version;
    let member = [
        ("project_id", "p".into()),
        ("user_id", "eve".into()),
        ("role", "editor".into()),
    ];
    world
        .push("ada", |draw| {
            draw.insert("members", "eve", &member)
                .delete("tasks", "t", base)
        })
        .accepted();
    hears_nothing(&mut world, "eve", "tasks", "t", base);
}

#[test]
fn pl18_who_was_gone_before_the_deletion_is_told_nothing_of_it() {
    let mut world = garden();
    let member = row(&world, "members", "ben").expect("a member").1.version;
    world
        .push("ada", |draw| draw.delete("members", "ben", member))
        .accepted();
    let base = delete_task(&mut world);
    hears_nothing(&mut world, "ben", "tasks", "t", base);
    hears_of_it(&late(&mut world, "vic", "tasks", "t", base));
}

#[test]
fn pl18_who_lost_the_row_by_its_deletion_hears_of_it() {
    let mut world = garden();
    let [project, task] = [("projects", "p"), ("tasks", "t")]
        .map(|(table, id)| row(&world, table, id).expect("it is there").1.version);
    world
        .push("ada", |draw| {
            draw.delete("members", "ben", task)
                .delete("members", "vic", task)
                .delete("tasks", "t", task)
                .delete("projects", "p", project)
        })
        .accepted();
    for member in ["ben", "ada/phone"] {
        hears_of_it(&late(&mut world, member, "projects", "p", project));
        hears_of_it(&late(&mut world, member, "tasks", "t", task));
    }
    hears_nothing(&mut world, "eve", "projects", "p", project);
}

/// What is told of a deleted row is the same whether the deletion was in the group or before it.
#[test]
fn pl18_how_changesets_fall_into_groups_tells_nothing_either() {
    for together in [false, true] {
        let mut world = garden();
        let base = row(&world, "tasks", "t").expect("it is there").1.version;
        let end = world
            .draw()
            .delete("members", "ben", base)
            .delete("tasks", "t", base)
            .delete("projects", "p", base)
            .done();
        let mut submissions = vec![world.submission("ada", end)];
        for user in ["ben", "vic", "eve"] {
            let changes = update(world.draw(), "tasks", "t", base).done();
            submissions.push(world.submission(user, changes));
        }
        let mut results = Vec::new();
        if together {
            results = world.commit(&submissions).results;
        } else {
            for submission in submissions {
                results.extend(world.commit(&[submission]).results);
            }
        }
        let told: Vec<_> = results.iter().map(verdict).collect();
        assert_eq!(
            told,
            ["accepted", "accepted", "accepted", "row_gone"],
            "together: {together}"
        );
    }
}

#[test]
fn pl18_a_taken_key_is_told_only_to_whom_the_row_would_be_allowed() {
    let mut schema = demo_schema();
    let notes = schema
        .tables
        .iter_mut()
        .find(|table| table.name == "notes")
        .expect("a table of the schema");
    notes.rules.create = Some("auth.uid() = 'ada' OR auth.uid() = 'ben'".into());
    let mut world = World::with_schema(MemoryStorage::new(), &schema);
    let body = [("body", "mine".into())];
    world
        .push("ada", |draw| draw.insert("notes", 7, &body))
        .accepted();
    let mut insert = |user: &str, id: i64| {
        let pushed = world.push(user, |draw| draw.insert("notes", id, &body));
        (verdict(pushed.result()) != "accepted").then(|| refusal(pushed.result()).clone())
    };
    let (taken, free) = (insert("eve", 7), insert("eve", 8));
    assert_eq!(taken, free);
    assert_eq!(taken.expect("a refusal").code, "forbidden");
    assert_eq!(insert("ben", 7).expect("a refusal").code, "id_taken");
}

#[test]
fn pl18_a_deleted_key_of_a_sequence_is_given_to_nobody_else() {
    for is_sequence in [true, false] {
        let mut schema = demo_schema();
        let notes = schema
            .tables
            .iter_mut()
            .find(|table| table.name == "notes")
            .expect("a table of the schema");
        notes.autoincrement = is_sequence;
        let mut world = World::with_schema(MemoryStorage::new(), &schema);
        let body = [("body", "mine".into())];
        let born = world
            .push("ada", |draw| draw.insert("notes", 7, &body))
            .version();
        world
            .push("ada", |draw| draw.delete("notes", 7, born))
            .accepted();
        let mut insert = |user: &str, base: Version| {
            let mut changes = world.draw().insert("notes", 7, &body).done();
            changes[0].base = base;
            let submission = world.submission(user, changes);
            let result = world.commit(&[submission]).results.remove(0);
            verdict(&result).to_owned()
        };
        let stranger = if is_sequence { "id_taken" } else { "accepted" };
        assert_eq!(insert("ben", Version::ZERO), stranger);
        if is_sequence {
            assert_eq!(insert("eve", born), "accepted", "knew the row");
        }
    }
    // Who deleted it may take it back.
    let mut schema = demo_schema();
    for table in &mut schema.tables {
        table.autoincrement = table.name == "notes";
    }
    let mut world = World::with_schema(MemoryStorage::new(), &schema);
    let body = [("body", "mine".into())];
    let born = world
        .push("ada", |draw| draw.insert("notes", 7, &body))
        .version();
    world
        .push("ada", |draw| draw.delete("notes", 7, born))
        .accepted();
    world
        .push("ada", |draw| draw.insert("notes", 7, &body))
        .accepted();
}
