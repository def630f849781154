//! What the library tells, as JSON with JavaScript's names.

use serde_json::{Value as Json, json};
use syncline::{
    ConflictNotice, Device, Event, OperationState, Phase, Progress, QueueState, QueueStats,
    QueuedChangeset, QueuedOperation, RowCounts, RowHistory, RowKey, Status, Subscription,
    SubscriptionState, SyncReport, SyncStats, TableState, Tables, Timestamp, Topic, Value, Wanted,
};

use crate::{cell, failure::Failure};

/// Milliseconds since 1970, as JavaScript's dates have them.
fn millis(at: Timestamp) -> Json {
    json!(at.as_millis())
}

fn millis_if_any(at: Option<Timestamp>) -> Json {
    at.map_or(Json::Null, millis)
}

fn counts(counts: RowCounts) -> Json {
    json!({ "created": counts.created, "updated": counts.updated, "deleted": counts.deleted })
}

fn notice(notice: &ConflictNotice) -> Json {
    json!({ "id": notice.id, "entityType": notice.table })
}

/// A key as people write it: `docs/events.md` has the same.
fn keys(keys: &[RowKey]) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

pub(crate) fn progress(progress: &Progress) -> Json {
    json!({
        "percentage": progress.percentage,
        "message": progress.message,
        "table": progress.table,
        "phase": match progress.phase {
            Phase::Connecting => "connecting",
            Phase::Comparing => "comparing",
            Phase::Sending => "sending",
            Phase::Receiving => "receiving",
            Phase::Done => "done",
        },
    })
}

pub(crate) fn report(report: &SyncReport) -> Json {
    let errors = report.errors.iter();
    json!({
        "operation": report.operation.name(),
        "tables": match &report.tables {
            Tables::All => Json::Null,
            Tables::Only(names) => json!(names),
        },
        "dryRun": report.dry_run,
        "isOffline": report.is_offline,
        "recordsProcessed": report.records_processed,
        "created": report.created(),
        "updated": report.updated(),
        "deleted": report.deleted(),
        "sent": counts(report.sent),
        "received": counts(report.received),
        "conflicts": report.conflicts.iter().map(notice).collect::<Vec<_>>(),
        "editsLost": report.edits_lost,
        "errors": errors.map(|error| Failure::from(error).json()).collect::<Vec<_>>(),
        "bytesSent": report.bytes_sent,
        "bytesReceived": report.bytes_received,
        "startedAt": millis(report.started_at),
        "duration": whole_millis(report.duration),
        "networkTime": whole_millis(report.network_time),
    })
}

fn whole_millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn stats(stats: &SyncStats) -> Json {
    let history = stats.sync_history.iter().map(|record| {
        json!({
            "timestamp": millis(record.timestamp),
            "operation": record.operation,
            "recordsProcessed": record.records_processed,
            "sent": record.sent,
            "received": record.received,
            "conflicts": record.conflicts,
            "bytesSent": record.bytes_sent,
            "bytesReceived": record.bytes_received,
            "duration": whole_millis(record.duration),
            "error": record.error,
        })
    });
    json!({
        "totalRecords": stats.total_records,
        "lastSyncTime": millis_if_any(stats.last_sync_time),
        "pendingOperations": stats.pending_operations,
        "conflictsResolved": stats.conflicts_resolved,
        "conflictsOpen": stats.conflicts_open,
        "syncHistory": history.collect::<Vec<_>>(),
    })
}

pub(crate) fn status(status: &Status) -> Json {
    let tables = status.tables.iter().map(|table| {
        let (state, reason) = match &table.state {
            TableState::Unmatched => ("unmatched", None),
            TableState::Loading => ("loading", None),
            TableState::Live => ("live", None),
            TableState::LeftOut { reason } => ("left_out", Some(reason)),
        };
        json!({ "name": table.name, "state": state, "reason": reason, "rows": table.rows })
    });
    json!({
        "deviceId": status.device.to_string(),
        "user": status.user,
        "url": status.url,
        "tables": tables.collect::<Vec<_>>(),
        "waiting": status.waiting,
        "accepted": status.accepted,
        "parked": status.parked,
        "conflicts": status.conflicts,
        "caughtUp": status.caught_up,
        "isDeregistered": status.deregistered,
    })
}

/// A device of the list.
pub(crate) fn device(device: &Device) -> Json {
    json!({
        "deviceId": device.id.to_string(),
        "deviceName": device.name,
        "platform": device.platform,
        "firstSeen": millis(device.first_seen),
        "lastSeen": millis(device.last_seen),
        "isConnected": device.is_connected,
        "isThis": device.is_this,
        "behind": device.behind.map(whole_millis),
    })
}

pub(crate) fn history(history: &RowHistory) -> Json {
    let value = |value: &Option<Value>| value.as_ref().map(cell::to_json);
    let changes = history.changes.iter().map(|change| {
        let columns = change.columns.iter().map(|column| {
            json!({
                "column": column.column,
                "before": value(&column.before),
                "after": value(&column.after),
            })
        });
        json!({
            "version": change.version.0,
            "at": millis(change.at),
            "kind": change.kind.name(),
            "user": change.user,
            "deviceId": change.device.map(|id| id.to_string()),
            "deviceName": change.device_name,
            "columns": columns.collect::<Vec<_>>(),
        })
    });
    json!({
        "changes": changes.collect::<Vec<_>>(),
        "more": history.more,
        "knownSince": millis_if_any(history.known_since),
    })
}

pub(crate) fn queue_stats(stats: QueueStats) -> Json {
    json!({
        "pending": stats.pending,
        "failed": stats.failed,
        "completed": stats.completed,
        "changesetsPending": stats.changesets_pending,
        "changesetsFailed": stats.changesets_failed,
    })
}

pub(crate) fn changeset(queued: &QueuedChangeset) -> Json {
    let (state, code, reason) = match &queued.state {
        QueueState::Sealed => ("waiting", None, None),
        QueueState::Sent => ("sent", None, None),
        QueueState::Accepted { .. } => ("accepted", None, None),
        QueueState::Parked { code, message, .. } => ("refused", Some(code), Some(message)),
    };
    let mut tables: Vec<&str> = queued.changes.iter().map(|c| c.table.as_str()).collect();
    tables.sort_unstable();
    tables.dedup();
    json!({
        "id": queued.id.to_string(),
        "state": state,
        "code": code,
        "reason": reason,
        "tables": tables,
        "changes": queued.changes_total,
        "createdAt": millis(queued.first_marked_at),
    })
}

pub(crate) fn operation(operation: &QueuedOperation) -> Json {
    // It was given as JSON; whoever changed it by hand gets the text.
    let payload = serde_json::from_str(&operation.payload);
    json!({
        "id": operation.id,
        "kind": operation.kind,
        "key": operation.key,
        "payload": payload.unwrap_or_else(|_| json!(operation.payload)),
        "state": match operation.state {
            OperationState::Pending => "pending",
            OperationState::Completed => "completed",
            OperationState::Failed => "failed",
        },
        "attempts": operation.attempts,
        "dueAt": millis(operation.due_at),
        "createdAt": millis(operation.created_at),
        "error": operation.error,
    })
}

/// What is subscribed to: values as cells.
fn topic(topic: &Topic) -> Json {
    let table = &topic.table;
    match &topic.what {
        Wanted::Table => json!({ "table": table }),
        Wanted::Row(key) => json!({ "table": table, "key": cell::list(key) }),
        Wanted::Value { column, value } => {
            json!({ "table": table, "column": column, "value": cell::to_json(value) })
        }
    }
}

pub(crate) fn subscription(subscription: &Subscription) -> Json {
    let (state, ends) = match subscription.state {
        SubscriptionState::Waiting => ("waiting", None),
        SubscriptionState::Live => ("live", None),
        SubscriptionState::Ending(ends) => ("ending", Some(ends)),
    };
    json!({
        "topic": topic(&subscription.topic),
        "state": state,
        "endsAt": millis_if_any(ends),
    })
}

/// An event as `{ type, data }`.
pub(crate) fn event(event: &Event) -> Json {
    json!({ "type": event.name(), "data": data(event) })
}

fn data(event: &Event) -> Json {
    match event {
        Event::SyncStarted(operation) => json!({ "operation": operation.name() }),
        Event::SyncProgress(told) => json!({ "progress": progress(told) }),
        Event::SyncCompleted(done) => json!({ "result": report(done) }),
        Event::SyncError(error) => json!({ "error": Failure::from(error).json() }),
        Event::ConflictDetected(conflict) | Event::ConflictResolved(conflict) => notice(conflict),
        Event::RowsChanged(rows) => json!({
            "table": rows.table,
            "ids": keys(&rows.ids),
            "isComplete": rows.is_complete,
            "by": rows.by.name(),
        }),
        Event::ChangeRefused(refused) => json!({
            "id": refused.changeset.to_string(),
            "row": refused.row,
            "code": refused.code,
            "reason": refused.reason,
        }),
        Event::EditLost(lost) => json!({
            "table": lost.table,
            "id": lost.id.to_string(),
            "column": lost.column,
            "reason": lost.reason,
        }),
        Event::Connected { user } => json!({ "user": user }),
        Event::Disconnected { error, retry_after } => json!({
            "error": Failure::from(error).json(),
            "retryAfter": whole_millis(*retry_after),
        }),
        Event::Rekeyed { table, from, to } => json!({
            "table": table,
            "from": from.to_string(),
            "to": to.to_string(),
        }),
        Event::AccessLost { rows } | Event::Released { rows } | Event::Rescanned { rows } => {
            json!({ "rows": rows })
        }
        Event::Subscribed(told) => json!({ "topic": topic(told) }),
        Event::SubscriptionsRefused { code, message } => {
            json!({ "code": code, "reason": message })
        }
        Event::TablesLeftOut(tables) => {
            let tables = tables
                .iter()
                .map(|(name, why)| json!({ "name": name, "reason": why }));
            json!({ "tables": tables.collect::<Vec<_>>() })
        }
        Event::RowUnfit { table, row, reason } => {
            json!({ "table": table, "row": row, "reason": reason })
        }
        Event::SignedOut { reason } | Event::Reloading { reason } => json!({ "reason": reason }),
        Event::OperationFailed(failed) => {
            json!({ "id": failed.id, "kind": failed.kind, "reason": failed.reason })
        }
        Event::Wiped(wiped) => {
            let unsent = wiped.unsent_rows.iter();
            let unsent =
                unsent.map(|(table, key)| json!({ "table": table, "id": key.to_string() }));
            json!({
                "rows": wiped.rows,
                "unsent": wiped.unsent,
                "unsentRows": unsent.collect::<Vec<_>>(),
            })
        }
        Event::Lagged(missed) => json!({ "missed": missed }),
        // What the library may learn to tell has a name for now.
        Event::Live | _ => json!({}),
    }
}
