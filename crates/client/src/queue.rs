//! The retry queue: changes of rows that wait or were refused, and operations of the app's own.

use std::{
    collections::BTreeMap, fmt, future::Future, pin::Pin, rc::Rc, sync::Arc, time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use syncline_core::{ChangesetId, Timestamp};
use syncline_replica::{QueueState, QueuedChangeset, Replica, ReplicaError};

use crate::{
    event::{Event, OperationFailed},
    manager::SyncManager,
    sync_error::Error,
    system,
    worker::Core,
};

/// Longest payload of an operation, in bytes of JSON.
pub const OPERATION_BYTES_MAX: usize = 1024 * 1024;
/// Changesets or operations listed at most.
const LISTED_MAX: usize = 1_000;
/// Pause after the first failed attempt; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// How long the runner sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(600);

/// What waits, what failed and why. From [`SyncManager::queue`].
///
/// Changes of rows queue by themselves. Besides, an app may queue operations of its own (send a
/// mail, upload a file): a kind, a payload, and perhaps a key; handlers that it registers do them,
/// also after a restart, with growing pauses between attempts.
#[derive(Debug, Clone)]
pub struct RetryQueue(pub(crate) SyncManager);

/// How much is in the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Transactions and operations that wait to be done.
    pub pending: u64,
    /// Transactions that the server refused, and operations that were tried too often.
    pub failed: u64,
    /// Operations that were done and not cleared yet.
    pub completed: u64,
    /// The transactions among `pending`.
    pub changesets_pending: u64,
    /// The transactions among `failed`.
    pub changesets_failed: u64,
}

/// One operation of the app's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedOperation {
    /// Its id.
    pub id: String,
    /// Which handler does it.
    pub kind: String,
    /// Of two that wait with the same kind and key only the later is done.
    pub key: Option<String>,
    /// JSON.
    pub payload: String,
    /// Whether it waits, was done, or failed.
    pub state: OperationState,
    /// How often it was tried.
    pub attempts: u32,
    pub(crate) revision: u64,
    /// When it is tried next.
    pub due_at: Timestamp,
    /// When it was queued first.
    pub created_at: Timestamp,
    /// What went wrong last.
    pub error: Option<String>,
}

impl QueuedOperation {
    /// The payload as it was given.
    ///
    /// # Errors
    /// [`OperationError::Fail`] if it is something else: trying again would not help.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, OperationError> {
        serde_json::from_str(&self.payload)
            .map_err(|error| OperationError::Fail(format!("the payload of {}: {error}", self.kind)))
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationState {
    /// Waits for its (next) attempt.
    Pending,
    /// Was done.
    Completed,
    /// Was tried too often, or failed for good.
    Failed,
}

impl OperationState {
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Completed => 1,
            Self::Failed => 2,
        }
    }

    pub(crate) fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Pending,
            1 => Self::Completed,
            _ => Self::Failed,
        }
    }
}

/// Why a handler did not do an operation. Every error becomes [`OperationError::Retry`] with `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationError {
    /// It may work later.
    Retry(String),
    /// It never will.
    Fail(String),
}

impl<E: std::error::Error> From<E> for OperationError {
    fn from(error: E) -> Self {
        Self::Retry(error.to_string())
    }
}

type Handling = Pin<Box<dyn Future<Output = Result<(), OperationError>> + Send>>;
type Handler = Arc<dyn Fn(QueuedOperation) -> Handling + Send + Sync>;

/// The handlers, by kind.
#[derive(Default)]
pub(crate) struct Handlers {
    by_kind: BTreeMap<String, Handler>,
    is_running: bool,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.by_kind.keys()).finish()
    }
}

impl RetryQueue {
    /// How much waits, failed and was done.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`], [`crate::ErrorKind::Closed`].
    pub async fn stats(&self) -> Result<QueueStats, Error> {
        self.0.ask(|core| stats(core)).await
    }

    /// Transactions in the outbox, in order: those that wait and those that were refused, with
    /// the reason. At most the first thousand.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`], [`crate::ErrorKind::Closed`].
    pub async fn changesets(&self) -> Result<Vec<QueuedChangeset>, Error> {
        let found = self
            .0
            .ask(|core| {
                core.with(|replica| {
                    replica.seal(system::now())?;
                    replica.queue(None, LISTED_MAX)
                })
            })
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// Operations of the app's own, in order, at most the first thousand.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`], [`crate::ErrorKind::Closed`].
    pub async fn operations(&self) -> Result<Vec<QueuedOperation>, Error> {
        self.0
            .ask(|core| {
                let store = core.store_if_any()?;
                store.map_or(Ok(Vec::new()), |store| store.operations(None, LISTED_MAX))
            })
            .await
    }

    /// Queues an operation, durably, and returns its id. One of the same kind and key that still
    /// waits gets the new payload instead.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a payload that is no JSON or longer than
    /// [`OPERATION_BYTES_MAX`]; [`crate::ErrorKind::File`].
    pub async fn enqueue(
        &self,
        kind: impl Into<String>,
        key: Option<&str>,
        payload: &impl Serialize,
    ) -> Result<String, Error> {
        let (kind, key) = (kind.into(), key.map(str::to_owned));
        let payload = serde_json::to_string(payload)
            .map_err(|error| Error::invalid(format!("the payload of {kind}: {error}")))?;
        if payload.len() > OPERATION_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the payload of {kind} has {} bytes; at most {OPERATION_BYTES_MAX} are kept",
                payload.len()
            )));
        }
        self.0
            .ask(move |core| {
                let id = system::new_id();
                let store = core.store()?;
                let id = store.enqueue(&id, &kind, key.as_deref(), &payload, system::now())?;
                core.operations_changed.notify_one();
                Ok(id)
            })
            .await
    }

    /// Says who does operations of a kind, from now on and after a restart once it is registered
    /// again. At most once at a time; an operation whose end was not written down before a crash
    /// is done again. A handler that panics has failed for the moment.
    ///
    /// That holds per manager: two managers on one file, in one program or in two, would each do
    /// an operation. Open a file once and clone the manager; give handlers to one program only.
    /// A handler that captures a [`SyncManager`] keeps its engine running until
    /// [`SyncManager::close`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::Closed`].
    pub async fn register<F, Fut>(&self, kind: impl Into<String>, handler: F) -> Result<(), Error>
    where
        F: Fn(QueuedOperation) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), OperationError>> + Send + 'static,
    {
        let kind = kind.into();
        let handler: Handler = Arc::new(move |operation| Box::pin(handler(operation)));
        self.0
            .ask(move |core| {
                let mut handlers = core.handlers.borrow_mut();
                handlers.by_kind.insert(kind, handler);
                if !std::mem::replace(&mut handlers.is_running, true) {
                    tokio::task::spawn_local(run(Rc::clone(core)));
                }
                core.operations_changed.notify_one();
                Ok(())
            })
            .await
    }

    /// Has one refused transaction sent again, with those that wait because of it. How many.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if it was not refused.
    pub async fn retry(&self, id: ChangesetId) -> Result<u64, Error> {
        let found = self
            .0
            .ask(move |core| core.with(|replica| replica.retry(id, system::now())))
            .await?;
        found.ok_or_else(|| Error::not_found(format!("there is no changeset {id}")))
    }

    /// Forgets one refused transaction; its effect was undone here already.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if it was not refused.
    pub async fn discard(&self, id: ChangesetId) -> Result<(), Error> {
        let found = self
            .0
            .ask(move |core| core.with(|replica| replica.discard(id)))
            .await?;
        found.ok_or_else(|| Error::not_found(format!("there is no changeset {id}")))
    }

    /// Has everything that failed tried again. How many.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`], [`crate::ErrorKind::Closed`].
    pub async fn retry_all(&self) -> Result<u64, Error> {
        self.0
            .ask(|core| {
                let retried = core.with(|replica| {
                    let mut retried = 0;
                    for id in parked(replica)? {
                        // One that depends on an earlier one has been taken along by it.
                        match replica.retry(id, system::now()) {
                            Ok(n) => retried += n,
                            Err(ReplicaError::UnknownChangeset { .. }) => {}
                            Err(error) => return Err(error),
                        }
                    }
                    Ok(retried)
                })?;
                let mut retried = retried.unwrap_or(0);
                if let Some(store) = core.store_if_any()? {
                    retried += store.retry_failed(system::now())?;
                    core.operations_changed.notify_one();
                }
                Ok(retried)
            })
            .await
    }

    /// Forgets operations that were done longer ago than that. How many.
    ///
    /// Transactions that the server took leave by themselves.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`], [`crate::ErrorKind::Closed`].
    pub async fn clear_completed(&self, older_than: Duration) -> Result<u64, Error> {
        let age = u64::try_from(older_than.as_micros()).unwrap_or(u64::MAX);
        self.0
            .ask(move |core| {
                let before = Timestamp(system::now().0.saturating_sub(age));
                let store = core.store_if_any()?;
                store.map_or(Ok(0), |s| s.clear(OperationState::Completed, before))
            })
            .await
    }

    /// Forgets everything that failed: refused transactions, whose effect was undone here, and
    /// operations. How many.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`], [`crate::ErrorKind::Closed`].
    pub async fn clear_failed(&self) -> Result<u64, Error> {
        self.0
            .ask(|core| {
                let cleared = core.with(|replica| {
                    let parked = parked(replica)?;
                    for id in &parked {
                        replica.discard(*id)?;
                    }
                    Ok(parked.len() as u64)
                })?;
                let store = core.store_if_any()?;
                let operations = store.map_or(Ok(0), |s| {
                    s.clear(OperationState::Failed, Timestamp(u64::MAX))
                })?;
                Ok(cleared.unwrap_or(0) + operations)
            })
            .await
    }
}

fn parked(replica: &Replica) -> Result<Vec<ChangesetId>, ReplicaError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = replica.queue(after, LISTED_MAX)?;
        let parked = page
            .iter()
            .filter(|queued| matches!(queued.state, QueueState::Parked { .. }));
        found.extend(parked.map(|queued| queued.id));
        match page.last() {
            Some(last) if page.len() == LISTED_MAX => after = Some(last.id),
            Some(_) | None => return Ok(found),
        }
    }
}

pub(crate) fn stats(core: &Core) -> Result<QueueStats, Error> {
    let mut stats = QueueStats::default();
    let status = core.with(|replica| {
        replica.seal(system::now())?;
        replica.status()
    })?;
    if let Some(status) = status {
        stats.changesets_pending = status.waiting;
        stats.changesets_failed = status.parked;
    }
    (stats.pending, stats.failed) = (stats.changesets_pending, stats.changesets_failed);
    if let Some(store) = core.store_if_any()? {
        stats.pending += store.count_in(OperationState::Pending)?;
        stats.failed += store.count_in(OperationState::Failed)?;
        stats.completed = store.count_in(OperationState::Completed)?;
    }
    Ok(stats)
}

/// Does what is due, for as long as the manager is open.
async fn run(core: Rc<Core>) {
    loop {
        let pause = match step(&core).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "the app's own operations cannot be read; trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = core.operations_changed.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Does what is due now, in order; how long nothing will be.
async fn step(core: &Rc<Core>) -> Result<Duration, Error> {
    let (batch, retries) = {
        let config = core.shared.config();
        (config.batch_size, config.max_retries)
    };
    let kinds = || -> Vec<String> { core.handlers.borrow().by_kind.keys().cloned().collect() };
    loop {
        let due = match core.store_if_any()? {
            Some(store) => store.due(system::now(), &kinds(), batch)?,
            None => return Ok(IDLE),
        };
        if due.is_empty() {
            break;
        }
        for operation in due {
            let handler = core.handlers.borrow().by_kind.get(&operation.kind).cloned();
            let Some(handler) = handler else { continue };
            let of_task = operation.clone();
            // A task of its own, so that a panic ends the attempt and not this loop.
            let task = tokio::task::spawn_local(async move { handler(of_task).await });
            let broke_off = |_| Err(OperationError::Retry("the handler panicked".into()));
            let outcome = task.await.unwrap_or_else(broke_off);
            ended(core, &operation, outcome, retries)?;
        }
    }
    let next = match core.store_if_any()? {
        Some(store) => store.next_due(&kinds())?,
        None => None,
    };
    Ok(next.map_or(IDLE, |at| system::until(at).clamp(PAUSE, IDLE)))
}

fn ended(
    core: &Core,
    operation: &QueuedOperation,
    outcome: Result<(), OperationError>,
    retries: u32,
) -> Result<(), Error> {
    let now = system::now();
    let store = core.store()?;
    let error = match outcome {
        Ok(()) => return store.complete(operation, now),
        Err(OperationError::Retry(error)) if operation.attempts < retries => {
            let pause = pause(operation.attempts);
            let at = now.plus_millis(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
            return store.postpone(operation, &error, at);
        }
        Err(OperationError::Retry(error) | OperationError::Fail(error)) => error,
    };
    store.fail(operation, &error, now)?;
    drop(store);
    core.tell(&Event::OperationFailed(OperationFailed {
        id: operation.id.clone(),
        kind: operation.kind.clone(),
        reason: error,
    }));
    Ok(())
}

/// Doubling, with jitter above half of it.
fn pause(attempts: u32) -> Duration {
    let whole = PAUSE.saturating_mul(1 << attempts.min(16)).min(PAUSE_MAX);
    system::jittered(whole)
}
