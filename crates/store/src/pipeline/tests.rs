//! The pipeline over a storage in memory, rule by rule.

mod audited;
mod conflicts;
mod external;
mod graves;
mod grouping;
mod order;
mod rows;
mod versions;

use syncline_core::{
    Row, RowKey, TableNumber, Value,
    wire::{PushResult, Refusal, Verdict},
};

use crate::{
    Reader as _, RowMeta,
    memory::MemoryStorage,
    testkit::{World, block_on},
};

type Memory = World<MemoryStorage>;

/// Ada's project `p`, that Ben edits and Vic sees, with a task `t`; Eve has nothing to do with it.
fn garden() -> Memory {
    let mut world = World::new(MemoryStorage::new());
    let member = |user: &str, role: &str| {
        [
            ("project_id", "p".into()),
            ("user_id", user.into()),
            ("role", role.into()),
        ]
    };
    let pushed = world.push("ada", |draw| {
        draw.insert("projects", "p", &[("name", "Garden".into())])
            .insert("members", "ben", &member("ben", "editor"))
            .insert("members", "vic", &member("vic", "viewer"))
            .insert(
                "tasks",
                "t",
                &[("project_id", "p".into()), ("title", "dig".into())],
            )
    });
    pushed.accepted();
    world
}

fn number(world: &Memory, table: &str) -> TableNumber {
    world.context.schema().table(table).unwrap().number
}

fn key(value: impl Into<Value>) -> RowKey {
    RowKey::encode([&value.into()]).unwrap()
}

/// A live row with its metadata.
fn row(world: &Memory, table: &str, id: impl Into<Value>) -> Option<(Row, RowMeta)> {
    let keys = [key(id)];
    let mut reader = world.storage.reader();
    let found = block_on(reader.rows(number(world, table), &keys, usize::MAX)).unwrap();
    found
        .rows
        .into_iter()
        .next()
        .map(|(_, row, meta)| (row, meta))
}

/// A live row's value.
fn value(world: &Memory, table: &str, id: impl Into<Value>, column: &str) -> Value {
    let position = world
        .context
        .schema()
        .table(table)
        .unwrap()
        .position(column)
        .unwrap();
    row(world, table, id).unwrap().0.0[position].clone()
}

fn refusal(result: &PushResult) -> &Refusal {
    match &result.verdict {
        Verdict::Refused(refusal) => refusal,
        Verdict::Accepted(version) => panic!("accepted at {version:?}"),
    }
}

/// A constraint that fails though nothing was to be stored would fail for ever.
#[test]
fn pl14_a_constraint_error_that_is_nobodys_ends_the_group() {
    use std::collections::{BTreeMap, VecDeque};

    let mut run = super::Run {
        submissions: &[],
        verdicts: BTreeMap::new(),
        results: Vec::new(),
        refused: crate::plan::RefusedNumbers::new(),
        access: BTreeMap::new(),
        entries: Vec::new(),
        head: None,
        more: false,
        failure: None,
    };
    let part = |range| super::Part {
        range,
        alone: false,
        busy: 0,
    };
    let mut parts = VecDeque::new();
    let nothing = run.split(part(0..0), "unique".into(), &mut parts);
    assert!(matches!(nothing, Err(crate::StorageError::Failed(_))));
    run.split(part(3..4), "unique".into(), &mut parts).unwrap();
    assert_eq!(parts.len(), 1, "refused, and tried once more");
    let refused = run.split(part(3..4), "unique".into(), &mut parts);
    assert!(matches!(refused, Err(crate::StorageError::Failed(_))));
}

/// `accepted`, or the code of the refusal.
fn verdict(result: &PushResult) -> &str {
    match &result.verdict {
        Verdict::Accepted(_) => "accepted",
        Verdict::Refused(refusal) => &refusal.code,
    }
}

/// Why edits were lost, in order.
fn reasons(result: &PushResult) -> Vec<&str> {
    result
        .lost
        .iter()
        .map(|lost| lost.reason.as_str())
        .collect()
}
