//! Calls that are a question and an answer.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use syncline::{
    ChangesetId, DeviceId, LocalDevice, RowRestored, RowState, SyncManager, Timestamp, Topic,
    Value, Version, Wanted,
};

use crate::{cell, conflict, failure::Failure, told};

/// A call with its arguments; `call` names it.
#[derive(Debug, Deserialize)]
#[serde(
    tag = "call",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub(crate) enum Call {
    Status,
    Stats,
    Health,
    LocalDevice,
    Devices,
    RegisterDevice {
        name: String,
    },
    RenameDevice {
        id: String,
        name: String,
    },
    DeregisterDevice {
        id: String,
        wipe: bool,
    },
    RowStatus {
        table: String,
        key: Vec<Json>,
    },
    History {
        table: String,
        key: Vec<Json>,
        before: Option<u64>,
        limit: Option<usize>,
    },
    RestoreRow {
        table: String,
        key: Vec<Json>,
        version: u64,
    },
    Subscribe {
        topic: Json,
    },
    Unsubscribe {
        topic: Json,
        keep_for_ms: u64,
    },
    Subscriptions,
    Conflicts {
        open_only: bool,
    },
    Conflict {
        id: String,
    },
    Resolve {
        id: String,
        resolution: Json,
    },
    RemoveResolver {
        table: String,
    },
    QueueStats,
    Changesets,
    Operations,
    Enqueue {
        kind: String,
        key: Option<String>,
        payload: Json,
    },
    Retry {
        id: String,
    },
    Discard {
        id: String,
    },
    RetryAllFailed,
    ClearCompleted {
        older_than_ms: u64,
    },
    ClearFailed,
    Attach,
    Detach,
}

impl Call {
    /// Calls, and answers as JSON.
    pub(crate) async fn of(self, manager: &SyncManager) -> Result<Json, Failure> {
        let queue = manager.queue();
        Ok(match self {
            Self::Status => match manager.status().await? {
                Some(status) => told::status(&status),
                None => Json::Null,
            },
            Self::Stats => told::stats(&manager.stats().await?),
            Self::Health => {
                let health = manager.health().await?;
                json!({
                    "status": health.status.name(),
                    "message": health.message,
                    "error": health.error.as_ref().map(|error| Failure::from(error).json()),
                })
            }
            Self::LocalDevice => local_device(&manager.local_device().await?),
            Self::Devices => manager.devices().await?.iter().map(told::device).collect(),
            Self::RegisterDevice { name } => local_device(&manager.register_device(name).await?),
            Self::RenameDevice { id, name } => {
                manager.rename_device(device(&id)?, name).await?;
                Json::Null
            }
            Self::DeregisterDevice { id, wipe } => {
                match wipe {
                    true => manager.wipe_device(device(&id)?).await?,
                    false => manager.deregister_device(device(&id)?).await?,
                }
                Json::Null
            }
            Self::RowStatus { table, key } => {
                let row = manager.row_status(&table, values(&key)?).await?;
                json!({
                    "state": match row.state {
                        RowState::Synced => "synced",
                        RowState::Pending => "pending",
                        RowState::Conflict => "conflict",
                        RowState::Unknown => "unknown",
                    },
                    "version": row.version.map(|version| version.0),
                    "owner": row.owner,
                    "createdAt": row.created_at.map(Timestamp::as_millis),
                    "modifiedAt": row.modified_at.map(Timestamp::as_millis),
                    "modifiedBy": row.modified_by,
                    "pending": row.pending.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "conflicts": row.conflicts,
                })
            }
            Self::History {
                table,
                key,
                before,
                limit,
            } => {
                let mut history = manager.history(&table, values(&key)?);
                if let Some(before) = before {
                    history = history.before(Version(before));
                }
                if let Some(limit) = limit {
                    history = history.limit(limit);
                }
                told::history(&history.await?)
            }
            Self::RestoreRow {
                table,
                key,
                version,
            } => {
                let restored = manager
                    .restore_row(&table, values(&key)?, Version(version))
                    .await?;
                json!(match restored {
                    RowRestored::Inserted => "inserted",
                    RowRestored::Updated => "updated",
                    RowRestored::Unchanged => "unchanged",
                })
            }
            Self::Subscribe { topic } => json!(manager.subscribe_to(topic_of(&topic)?).await?),
            Self::Unsubscribe { topic, keep_for_ms } => {
                let keep_for = Duration::from_millis(keep_for_ms);
                json!(
                    manager
                        .unsubscribe_from(topic_of(&topic)?, keep_for)
                        .await?
                )
            }
            Self::Subscriptions => {
                let found = manager.subscriptions().await?;
                found.iter().map(told::subscription).collect()
            }
            Self::Conflicts { open_only } => {
                let found = manager.conflicts(open_only).await?;
                found.iter().map(conflict::to_json).collect()
            }
            Self::Conflict { id } => conflict::to_json(&manager.conflict(id).await?),
            Self::Resolve { id, resolution } => {
                let resolution = conflict::resolution(&resolution)?
                    .ok_or_else(|| Failure::call(&"null decides nothing"))?;
                manager.resolve(id, resolution).await?;
                Json::Null
            }
            Self::RemoveResolver { table } => {
                manager.remove_resolver(table).await?;
                Json::Null
            }
            Self::QueueStats => told::queue_stats(queue.stats().await?),
            Self::Changesets => queue
                .changesets()
                .await?
                .iter()
                .map(told::changeset)
                .collect(),
            Self::Operations => queue
                .operations()
                .await?
                .iter()
                .map(told::operation)
                .collect(),
            Self::Enqueue { kind, key, payload } => {
                json!(queue.enqueue(kind, key.as_deref(), &payload).await?)
            }
            Self::Retry { id } => json!(queue.retry(changeset(&id)?).await?),
            Self::Discard { id } => {
                queue.discard(changeset(&id)?).await?;
                Json::Null
            }
            Self::RetryAllFailed => json!(queue.retry_all().await?),
            Self::ClearCompleted { older_than_ms } => {
                let age = Duration::from_millis(older_than_ms);
                json!(queue.clear_completed(age).await?)
            }
            Self::ClearFailed => json!(queue.clear_failed().await?),
            Self::Attach => json!(manager.attach().await?),
            Self::Detach => json!(manager.clone().detach().await?),
        })
    }
}

fn changeset(id: &str) -> Result<ChangesetId, Failure> {
    ChangesetId::from_hex(id).ok_or_else(|| {
        let message = format!("{id:?} is no id of a changeset: RetryQueue.changesets() lists them");
        Failure::new("invalid", "invalid", message)
    })
}

fn topic_of(json: &Json) -> Result<Topic, Failure> {
    let unreadable = || Failure::call(&format!("{json} is nothing to subscribe to"));
    let table = json["table"].as_str().ok_or_else(unreadable)?.to_owned();
    let what = match (json["key"].as_array(), json["column"].as_str()) {
        (Some(key), _) => Wanted::Row(values(key)?),
        (None, Some(column)) => Wanted::Value {
            column: column.to_owned(),
            value: cell::from_json(&json["value"])?,
        },
        (None, None) => Wanted::Table,
    };
    Ok(Topic { table, what })
}

fn values(key: &[Json]) -> Result<Vec<Value>, Failure> {
    key.iter().map(cell::from_json).collect()
}

fn device(id: &str) -> Result<DeviceId, Failure> {
    DeviceId::from_hex(id).ok_or_else(|| {
        let message = format!("{id:?} is no id of a device: getRegisteredDevices() lists them");
        Failure::new("invalid", "invalid", message)
    })
}

fn local_device(device: &LocalDevice) -> Json {
    json!({
        "deviceId": device.device_id.map(|id| id.to_string()),
        "deviceName": device.device_name,
        "platform": device.platform,
        "user": device.user,
        "isDeregistered": device.is_deregistered,
    })
}
