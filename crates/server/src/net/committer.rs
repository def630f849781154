//! The one writer: a thread that gathers what all sessions sent into groups and commits them.

use std::{sync::Arc, time::Duration};

use syncline_core::{
    DeviceId, Timestamp, UserId,
    config::Config,
    wire::{Hello, PushResult, Refusal, Verdict, code},
};
use syncline_store::{
    Context, DeviceHello, GroupOutcome, OpenDeviceError, SchemaOptions, Storage, StorageError,
    Submission, commit_group, open_device,
};
use tokio::sync::{mpsc, oneshot};

use super::{Backend, clock, metrics};
use crate::session::{Opened, SessionContext};

/// Requests that may wait; a session that finds the queue full waits itself.
pub(crate) const QUEUE_MAX: usize = 4_096;
/// Changesets, and changes, of one group at most.
const GROUP_MAX: usize = 1_024;
const GROUP_CHANGES_MAX: usize = 20_000;
/// How often the database is asked whether another program wrote into it.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often old log entries are trimmed away.
const TRIM_EVERY_MILLIS: u64 = 600_000;

/// What sessions ask of the committer.
pub(crate) enum Request {
    Commit(Box<Submission>, oneshot::Sender<PushResult>),
    Open(Box<Hello>, UserId, oneshot::Sender<Result<Opened, Refusal>>),
    /// Bring the tables to this configuration; an error is a sentence for people.
    Schema(
        Box<Config>,
        oneshot::Sender<Result<Arc<SessionContext>, String>>,
    ),
    /// Look for writes of other programs now, and answer when they are committed.
    Flush(oneshot::Sender<()>),
}

/// What the committer tells the rest of the server after each durable commit.
pub(crate) type Publish = Box<dyn Fn(&GroupOutcome) + Send>;

pub(crate) struct Committer<B: Backend> {
    pub(crate) storage: B::Storage,
    pub(crate) context: Arc<Context>,
    pub(crate) publish: Publish,
    pub(crate) retention_days: u32,
}

impl<B: Backend> Committer<B> {
    /// Serves requests until every sender is gone.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut next_trim = clock::now();
        loop {
            let first = match tokio::time::timeout(LOOK_EVERY, requests.recv()).await {
                Ok(Some(request)) => Some(request),
                Ok(None) => return,
                Err(_) => None,
            };
            let batch = gather(first, &mut requests);
            let idle = batch.is_empty();
            if !idle || self.storage.changed_elsewhere() {
                self.serve(batch).await;
            }
            let now = clock::now();
            if idle && now >= next_trim {
                next_trim = now.plus_millis(TRIM_EVERY_MILLIS);
                self.trim(now).await;
            }
        }
    }

    async fn serve(&mut self, batch: Vec<Request>) {
        let mut submissions = Vec::new();
        let mut answers = Vec::new();
        let mut flushes = Vec::new();
        for request in batch {
            match request {
                Request::Commit(submission, answer) => {
                    submissions.push(*submission);
                    answers.push(answer);
                }
                Request::Open(hello, user, answer) => {
                    let _ = answer.send(self.open(&hello, user).await);
                }
                Request::Schema(config, answer) => {
                    let _ = answer.send(self.apply(&config).await);
                }
                Request::Flush(answer) => flushes.push(answer),
            }
        }
        let ids: Vec<_> = submissions.iter().map(|s| s.changeset.id).collect();
        let started = std::time::Instant::now();
        let outcome =
            commit_group(&mut self.storage, &self.context, &submissions, clock::now()).await;
        if let Some(error) = &outcome.failure {
            tracing::error!(%error, "the storage failed; {} changesets waited", ids.len());
            metrics::commit_failed();
        }
        let refused = outcome.results.iter().filter(|r| is_refused(r)).count();
        metrics::committed(ids.len(), refused, &outcome.entries, started.elapsed());
        // Published first: a checkpoint for the acknowledged version can follow at once.
        (self.publish)(&outcome);
        for (result, answer) in outcome.results.into_iter().zip(answers) {
            let _ = answer.send(result);
        }
        for flush in flushes {
            let _ = flush.send(());
        }
    }

    async fn open(&mut self, hello: &Hello, user: UserId) -> Result<Opened, Refusal> {
        let mut fresh = DeviceId::default();
        getrandom::fill(&mut fresh.0)
            .map_err(|error| storage_refusal(&StorageError::Failed(error.to_string().into())))?;
        let facts = DeviceHello {
            device: hello.device,
            lease: hello.lease,
            next_lease: hello.next_lease,
            user,
            name: hello.device_name.clone(),
            platform: hello.platform.clone(),
        };
        let opened = open_device(&mut self.storage, &facts, fresh, clock::now()).await;
        match opened {
            Ok(opened) => Ok(Opened {
                device: opened.state.id,
                forked_from: opened.forked_from,
                next_number: opened.state.last_number + 1,
            }),
            Err(OpenDeviceError::Refused(refusal)) => Err(*refusal),
            Err(OpenDeviceError::Storage(error)) => {
                tracing::error!(%error, "a device could not be opened");
                Err(storage_refusal(&error))
            }
        }
    }

    async fn apply(&mut self, config: &Config) -> Result<Arc<SessionContext>, String> {
        let options = SchemaOptions {
            managed: true,
            allow: Vec::new(),
        };
        let prepared = super::prepare(&mut self.storage, config, &options).await;
        let prepared = prepared.map_err(|error| error.to_string())?;
        for note in prepared.notes {
            tracing::info!("{note}");
        }
        self.context = Arc::clone(&prepared.session.plan);
        Ok(prepared.session)
    }

    async fn trim(&mut self, now: Timestamp) {
        let age = u64::from(self.retention_days) * 86_400_000_000;
        let horizon = syncline_core::Version(now.0.saturating_sub(age));
        if let Err(error) = self.storage.trim(horizon).await {
            tracing::warn!(%error, "old log entries could not be trimmed; trying again later");
        }
    }
}

fn is_refused(result: &PushResult) -> bool {
    matches!(result.verdict, Verdict::Refused(_))
}

/// Everything that waits, up to a group's size.
fn gather(first: Option<Request>, requests: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let mut batch: Vec<Request> = first.into_iter().collect();
    let mut changes: usize = batch.iter().map(changes_of).sum();
    while !batch.is_empty() && batch.len() < GROUP_MAX && changes < GROUP_CHANGES_MAX {
        let Ok(request) = requests.try_recv() else {
            break;
        };
        changes += changes_of(&request);
        batch.push(request);
    }
    batch
}

fn changes_of(request: &Request) -> usize {
    match request {
        Request::Commit(submission, _) => submission.changeset.changes.len(),
        Request::Open(..) | Request::Schema(..) | Request::Flush(_) => 0,
    }
}

/// What a device hears when the storage failed: nothing was committed, try again.
pub(crate) fn storage_refusal(error: &StorageError) -> Refusal {
    let (code, message) = match error {
        StorageError::Busy => (code::UNAVAILABLE, "the server's database is busy"),
        StorageError::Full => (code::STORAGE, "the server's disk is full"),
        StorageError::Constraint { .. } | StorageError::Failed(_) | StorageError::Corrupt(_) => (
            code::STORAGE,
            "the server's storage failed; its log says why",
        ),
    };
    Refusal {
        code: code.into(),
        message: message.into(),
        retry: true,
        retry_after_ms: Some(1_000),
        change: None,
        fatal: false,
    }
}
