//! `syncline queue`: what waits, what was refused, and operations of the app's own.

use std::time::Duration;

use serde_json::json;
use syncline::{
    OperationState, QueuedOperation,
    engine::{self, ClientError},
};
use syncline_core::{ChangesetId, Op};
use syncline_replica::{QueueState, QueuedChangeset, Replica, ReplicaError};

use super::managed;
use crate::{
    args::{Queue, QueueAction},
    exit::{Exit, Failure},
    output::{Output, counted},
};

const PAGE: usize = 100;
/// Changes shown of each changeset.
const CHANGES_SHOWN: usize = 5;

pub(crate) fn run(args: Queue, output: &Output) -> anyhow::Result<Exit> {
    let mut replica = engine::open_replica(&args.file)?;
    let failed = |source| ClientError::replica(&args.file, source);
    match args.action.unwrap_or(QueueAction::List) {
        QueueAction::List => {
            let mut listed: u64 = 0;
            each(&replica, |queued| {
                listed += 1;
                output.result(&sentence(queued), &object(queued));
            })
            .map_err(failed)?;
            drop(replica);
            let operations = managed(&args.file, None, async |m| m.queue().operations().await)?;
            for operation in &operations {
                output.result(&operation_sentence(operation), &operation_object(operation));
            }
            let operations = operations.len() as u64;
            output.line(&match (listed, operations) {
                (0, 0) => "the queue is empty".to_owned(),
                (n, 0) => counted(n, "changeset"),
                (n, m) => format!(
                    "{}, {} of the app",
                    counted(n, "changeset"),
                    counted(m, "operation")
                ),
            });
        }
        QueueAction::Retry { id } => {
            let id = find(&replica, &id, failed)?;
            let retried = replica.retry(id, engine::now()).map_err(failed)?;
            let sentence = match retried {
                0 => "nothing of it can be sent now; `syncline queue list` says why".to_owned(),
                n => format!(
                    "{} will be sent again with the next sync",
                    counted(n, "changeset")
                ),
            };
            output.result(
                &sentence,
                &json!({ "type": "retried", "id": id.to_string(), "changesets": retried }),
            );
        }
        QueueAction::RetryAll => {
            drop(replica);
            let retried = managed(&args.file, None, async |m| m.queue().retry_all().await)?;
            let sentence = match retried {
                0 => "nothing failed that can be tried again".to_owned(),
                n => format!("{} will be tried again", counted(n, "item")),
            };
            output.result(
                &sentence,
                &json!({ "type": "retried_all", "items": retried }),
            );
        }
        QueueAction::Discard { id } => {
            let id = find(&replica, &id, failed)?;
            replica.discard(id).map_err(failed)?;
            output.result(
                "forgotten",
                &json!({ "type": "discarded", "id": id.to_string() }),
            );
        }
        QueueAction::ClearFailed => {
            drop(replica);
            let cleared = managed(&args.file, None, async |m| m.queue().clear_failed().await)?;
            tell_cleared(cleared, output);
        }
        QueueAction::ClearCompleted { older_than } => {
            drop(replica);
            let age = Duration::from_secs(older_than.unwrap_or(0));
            let cleared = managed(&args.file, None, async |m| {
                m.queue().clear_completed(age).await
            })?;
            tell_cleared(cleared, output);
        }
        QueueAction::Stats => {
            drop(replica);
            let stats = managed(&args.file, None, async |m| m.queue().stats().await)?;
            output.result(
                &format!(
                    "{} waiting, {} failed, {} done",
                    stats.pending, stats.failed, stats.completed
                ),
                &json!({
                    "type": "queue", "pending": stats.pending, "failed": stats.failed,
                    "completed": stats.completed, "changesets_pending": stats.changesets_pending,
                    "changesets_failed": stats.changesets_failed,
                }),
            );
        }
    }
    Ok(Exit::Done)
}

fn tell_cleared(cleared: u64, output: &Output) {
    let sentence = format!("{} forgotten", counted(cleared, "item"));
    output.result(&sentence, &json!({ "type": "cleared", "items": cleared }));
}

fn each(replica: &Replica, mut tell: impl FnMut(&QueuedChangeset)) -> Result<(), ReplicaError> {
    let mut after = None;
    loop {
        let page = replica.queue(after, PAGE)?;
        page.iter().for_each(&mut tell);
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.id),
            Some(_) | None => return Ok(()),
        }
    }
}

/// The changeset whose id begins with `prefix`.
fn find(
    replica: &Replica,
    prefix: &str,
    failed: impl Fn(ReplicaError) -> ClientError,
) -> anyhow::Result<ChangesetId> {
    let mut found = Vec::new();
    each(replica, |queued| {
        if queued.id.to_string().starts_with(prefix) {
            found.push(queued.id);
        }
    })
    .map_err(failed)?;
    match found[..] {
        [id] => Ok(id),
        [] => Err(Failure::new(
            Exit::NotFound,
            format!("there is no changeset {prefix} in the queue"),
        )
        .into()),
        _ => Err(Failure::new(
            Exit::NotFound,
            format!(
                "{} changesets begin with {prefix}: give more of it",
                found.len()
            ),
        )
        .into()),
    }
}

fn sentence(queued: &QueuedChangeset) -> String {
    let state = match &queued.state {
        QueueState::Sealed => "waits to be sent".to_owned(),
        QueueState::Sent => "sent, not answered yet".to_owned(),
        QueueState::Accepted { .. } => "accepted, on its way back".to_owned(),
        QueueState::Parked { code, message, .. } => format!("refused: {message} ({code})"),
    };
    let id = queued.id.to_string();
    let mut text = format!(
        "{}  {}, {state}",
        &id[..12],
        counted(queued.changes_total, "change")
    );
    for change in queued.changes.iter().take(CHANGES_SHOWN) {
        let what = match &change.change.op {
            Op::Insert(_) => "insert".to_owned(),
            Op::Update(edits) if edits.is_empty() => "written last".to_owned(),
            Op::Update(_) => format!("update {}", change.columns.join(", ")),
            Op::Delete => "delete".to_owned(),
        };
        text += &format!("\n    {} {}: {what}", change.table, change.change.key);
    }
    if queued.changes_total > CHANGES_SHOWN as u64 {
        text += &format!(
            "\n    and {} more",
            queued.changes_total - CHANGES_SHOWN as u64
        );
    }
    text
}

fn object(queued: &QueuedChangeset) -> serde_json::Value {
    let (state, code, message) = match &queued.state {
        QueueState::Sealed => ("sealed", None, None),
        QueueState::Sent => ("sent", None, None),
        QueueState::Accepted { .. } => ("accepted", None, None),
        QueueState::Parked { code, message, .. } => ("parked", Some(code), Some(message)),
    };
    let changes: Vec<_> = queued
        .changes
        .iter()
        .map(|change| {
            let op = match &change.change.op {
                Op::Insert(_) => "insert",
                Op::Update(_) => "update",
                Op::Delete => "delete",
            };
            json!({ "table": change.table, "key": change.change.key.to_string(), "op": op, "columns": change.columns })
        })
        .collect();
    json!({
        "type": "changeset", "id": queued.id.to_string(), "state": state, "code": code,
        "message": message, "changes_total": queued.changes_total, "changes": changes,
    })
}

fn operation_state(state: OperationState) -> &'static str {
    match state {
        OperationState::Pending => "pending",
        OperationState::Completed => "completed",
        OperationState::Failed => "failed",
    }
}

fn operation_sentence(operation: &QueuedOperation) -> String {
    let mut text = format!(
        "{}  operation {}",
        operation.id.get(..12).unwrap_or(&operation.id),
        operation.kind
    );
    if let Some(key) = &operation.key {
        text += &format!(" {key}");
    }
    text += match operation.state {
        OperationState::Pending => ", waits for the app",
        OperationState::Completed => ", done",
        OperationState::Failed => ", failed",
    };
    if operation.attempts > 0 {
        text += &format!(" after {}", counted(operation.attempts.into(), "attempt"));
    }
    if let Some(error) = &operation.error {
        text += &format!(": {error}");
    }
    text
}

/// Without the payload, which is the app's own.
fn operation_object(operation: &QueuedOperation) -> serde_json::Value {
    json!({
        "type": "operation", "id": operation.id, "kind": operation.kind, "key": operation.key,
        "state": operation_state(operation.state), "attempts": operation.attempts,
        "error": operation.error, "due_at": operation.due_at.0,
        "created_at": operation.created_at.0,
    })
}
