//! How it is going: statistics, the history of syncs, and health.

use std::time::Duration;

use syncline_core::Timestamp;

use crate::{
    api::Api,
    error::ClientError,
    manager::SyncManager,
    queue,
    sync_error::{Error, ErrorKind},
};

/// How it is going.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncStats {
    /// Rows of this file that the server has.
    pub total_records: u64,
    /// When a sync last reached its end, by this device's clock.
    pub last_sync_time: Option<Timestamp>,
    /// Transactions and operations that wait.
    pub pending_operations: u64,
    /// Conflicts that were decided, of those the inbox still has.
    pub conflicts_resolved: u64,
    /// Conflicts that wait for a decision.
    pub conflicts_open: u64,
    /// The last syncs, newest first; at most a hundred. Rounds of auto-sync with nothing to do are
    /// not among them.
    pub sync_history: Vec<SyncRecord>,
}

/// One sync of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRecord {
    /// When it began.
    pub timestamp: Timestamp,
    /// [`crate::Operation::name`] of what it was for.
    pub operation: String,
    /// Rows sent and received.
    pub records_processed: u64,
    /// Rows sent.
    pub sent: u64,
    /// Rows received.
    pub received: u64,
    /// Conflicts opened.
    pub conflicts: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// How long it took.
    pub duration: Duration,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Whether syncing works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// In one word.
    pub status: HealthStatus,
    /// In a sentence.
    pub message: String,
    /// What went wrong, if anything did.
    pub error: Option<Error>,
}

/// Health in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HealthStatus {
    /// No server is configured.
    NoProvider,
    /// The server cannot be reached.
    Disconnected,
    /// The server answers and does not take us, or is none of ours.
    Invalid,
    /// All is well.
    Healthy,
}

impl HealthStatus {
    /// `no-provider`, `disconnected`, `invalid`, `healthy`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoProvider => "no-provider",
            Self::Disconnected => "disconnected",
            Self::Invalid => "invalid",
            Self::Healthy => "healthy",
        }
    }
}

impl SyncManager {
    /// How it is going.
    ///
    /// # Errors
    /// [`ErrorKind::File`], [`ErrorKind::Closed`].
    pub async fn stats(&self) -> Result<SyncStats, Error> {
        self.ask(|core| {
            let found = core.with(|replica| {
                let status = replica.status()?;
                let conflicts = replica.conflicts(false)?;
                Ok((status, conflicts))
            })?;
            let mut stats = SyncStats {
                total_records: 0,
                last_sync_time: None,
                pending_operations: queue::stats(core)?.pending,
                conflicts_resolved: 0,
                conflicts_open: 0,
                sync_history: Vec::new(),
            };
            if let Some((status, conflicts)) = found {
                stats.total_records = status.tables.iter().map(|table| table.rows).sum();
                let open = conflicts.iter().filter(|conflict| conflict.open).count();
                stats.conflicts_open = open as u64;
                stats.conflicts_resolved = (conflicts.len() - open) as u64;
            }
            if let Some(store) = core.store_if_any()? {
                stats.sync_history = store.history()?;
            }
            let ended = |record: &&SyncRecord| record.error.is_none();
            let in_history = stats.sync_history.iter().find(ended);
            let in_history = in_history.map(|record| {
                let took = u64::try_from(record.duration.as_millis()).unwrap_or(0);
                record.timestamp.plus_millis(took)
            });
            stats.last_sync_time = core.last_sync.get().max(in_history);
            Ok(stats)
        })
        .await
    }

    /// Asks the server whether it takes us, and says in one of four words how things are.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub async fn health(&self) -> Result<Health, Error> {
        if !self.is_sync_available() {
            return Ok(Health {
                status: HealthStatus::NoProvider,
                message: "no server is configured; everything stays on this device".into(),
                error: None,
            });
        }
        Ok(match self.validate_connection().await {
            Ok(()) => Health {
                status: HealthStatus::Healthy,
                message: "the server takes this device".into(),
                error: None,
            },
            Err(error) if error.kind() == ErrorKind::Closed => return Err(error),
            Err(error) => Health {
                status: if error.kind() == ErrorKind::NotConnected {
                    HealthStatus::Disconnected
                } else {
                    HealthStatus::Invalid
                },
                message: error.to_string(),
                error: Some(error),
            },
        })
    }

    /// Asks the server whether it takes us.
    pub(crate) async fn validate_connection(&self) -> Result<(), Error> {
        self.ask_async(async |core| {
            if core.with(|replica| replica.is_deregistered())? == Some(true) {
                return Err(ClientError::deregistered(0).into());
            }
            let api = Api::new(&core.connection()?)?;
            Ok(api.schema().await.map(drop)?)
        })
        .await
    }
}
