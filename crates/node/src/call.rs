//! Calls that are a question and an answer.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use syncline::{ChangesetId, RowState, SyncManager, Timestamp};

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
    RenameDevice {
        name: String,
    },
    RowStatus {
        table: String,
        key: Vec<Json>,
    },
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
            Self::LocalDevice => {
                let device = manager.local_device().await?;
                json!({
                    "deviceId": device.device_id.map(|id| id.to_string()),
                    "deviceName": device.device_name,
                    "platform": device.platform,
                    "user": device.user,
                })
            }
            Self::RenameDevice { name } => {
                manager.rename_device(name).await?;
                Json::Null
            }
            Self::RowStatus { table, key } => {
                let key: Result<_, Failure> = key.iter().map(cell::from_json).collect();
                let row = manager.row_status(&table, key?).await?;
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
