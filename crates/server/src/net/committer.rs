//! The one writer: a thread that gathers what all sessions sent into groups and commits them.

use std::{
    collections::BTreeMap, ops::ControlFlow, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use futures_util::FutureExt;
use syncline_core::{
    DeviceId, DeviceName, Op, Timestamp, UserId, Version,
    config::Config,
    wire::{Hello, PushResult, Refusal, Verdict, code},
};
use syncline_store::{
    Auditor, Context, DeviceHello, DeviceSeen, DeviceState, GroupOutcome, OpenDeviceError,
    SchemaOptions, Storage, StorageError, Submission, commit_group, deregister_device,
    note_devices, open_device, rename_device,
};
use tokio::sync::{mpsc, oneshot};

use super::{Backend, accounts::Refused, clock, held::Held, metrics, presence::Presence};
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

/// How soon the next portion of old history is trimmed away, while there is more.
const PORTION_EVERY_MILLIS: u64 = 200;

/// What sessions ask of the committer.
pub(crate) enum Request {
    Commit(Box<Submission>, Waiting),
    /// Open a device, for the session that is given if it is one's.
    Open(
        Box<Hello>,
        UserId,
        Option<Arc<Presence>>,
        oneshot::Sender<Result<Opened, Refusal>>,
    ),
    /// Change a user's device; `None` if the user has none of this id.
    Device(
        UserId,
        DeviceId,
        DeviceChange,
        oneshot::Sender<Result<Option<DeviceState>, StorageError>>,
    ),
    /// Write down how devices were seen.
    Seen(BTreeMap<DeviceId, DeviceSeen>),
    /// Bring the tables to this configuration; an error is a sentence for people.
    Schema(
        Box<Config>,
        oneshot::Sender<Result<Arc<SessionContext>, String>>,
    ),
    /// Finish what came before, and end.
    Stop,
}

/// Who waits for a changeset's answer, and what it takes in memory until then.
pub(crate) struct Waiting {
    answer: oneshot::Sender<PushResult>,
    _held: Held,
}

impl Waiting {
    pub(crate) fn new(answer: oneshot::Sender<PushResult>, held: Held) -> Self {
        let _held = held;
        Self { answer, _held }
    }
}

/// What a user does to a device.
pub(crate) enum DeviceChange {
    Rename(DeviceName),
    Deregister {
        /// What it synced is to be removed there.
        wipe: bool,
    },
}

/// What the committer tells the rest of the server, before it goes on.
pub(crate) enum News<'a> {
    /// A group, durably committed: it can be read.
    Group(&'a GroupOutcome),
    /// Its authors are answered: others are to hear of it.
    Answered(&'a GroupOutcome),
    /// Tables or rules changed: later groups are of this context, whose window on the log starts
    /// here.
    Context(&'a Arc<SessionContext>),
    /// A session's device is open.
    Opened(&'a Arc<Presence>, DeviceId),
    /// Sessions of this device have to end.
    Deregistered(DeviceId),
    /// What rules refused.
    Refused(Vec<Refused>),
}

pub(crate) type Publish = Box<dyn Fn(News<'_>) + Send>;

pub(crate) struct Committer<B: Backend> {
    pub(crate) storage: B::Storage,
    pub(crate) context: Arc<Context>,
    pub(crate) publish: Publish,
    pub(crate) auditor: Option<Arc<dyn Auditor>>,
    pub(crate) retention_days: u32,
    pub(crate) history_days: u32,
}

impl<B: Backend> Committer<B> {
    /// Serves requests until it is told to stop, or every sender is gone.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut next_trim = clock::now();
        let mut next_portion = next_trim;
        loop {
            let first = match tokio::time::timeout(LOOK_EVERY, requests.recv()).await {
                Ok(Some(request)) => Some(request),
                Ok(None) => return,
                Err(_) => None,
            };
            let batch = gather(first, &mut requests);
            if (!batch.is_empty() || self.storage.changed_elsewhere())
                && self.serve(batch).await.is_break()
            {
                return;
            }
            let now = clock::now();
            if now >= next_trim {
                next_trim = now.plus_millis(TRIM_EVERY_MILLIS);
                self.trim(now).await;
                next_portion = now;
            }
            if now >= next_portion {
                let more = self.trim_history(now).await;
                next_portion = if more {
                    now.plus_millis(PORTION_EVERY_MILLIS)
                } else {
                    next_trim
                };
            }
        }
    }

    async fn serve(&mut self, batch: Vec<Request>) -> ControlFlow<()> {
        let mut submissions = Vec::new();
        let mut answers = Vec::new();
        let mut flow = ControlFlow::Continue(());
        for request in batch {
            match request {
                Request::Commit(submission, answer) => {
                    submissions.push(*submission);
                    answers.push(answer);
                }
                // Whoever has gone meanwhile does not miss the answer.
                Request::Open(hello, user, presence, answer) => {
                    // Who connects is to see what other programs committed before.
                    if self.storage.changed_elsewhere()
                        && let Ok(outcome) = self.commit(&[]).await
                    {
                        self.tell(outcome, Vec::new());
                    }
                    let opened = self.open(&hello, user).await;
                    if let (Ok(opened), Some(presence)) = (&opened, &presence) {
                        (self.publish)(News::Opened(presence, opened.device));
                    }
                    drop(answer.send(opened));
                }
                Request::Device(user, device, change, answer) => {
                    drop(answer.send(self.change_device(&user, device, change).await));
                }
                Request::Seen(seen) => self.note(&seen).await,
                Request::Schema(config, answer) => {
                    drop(answer.send(self.apply(&config).await));
                }
                Request::Stop => flow = ControlFlow::Break(()),
            }
        }
        let count = submissions.len();
        if let Ok(outcome) = self.commit(&submissions).await {
            self.tell(outcome, answers);
            return flow;
        }
        // One of them is poison: the others go on without it.
        for (submission, answer) in submissions.iter().zip(answers) {
            match self.commit(std::slice::from_ref(submission)).await {
                Ok(outcome) => self.tell(outcome, vec![answer]),
                Err(Panicked) => {
                    let (device, id) = (submission.device, submission.changeset.id);
                    tracing::error!(?device, ?id, count, "a changeset made the planner panic");
                    let result = PushResult {
                        id,
                        verdict: Verdict::Refused(poison()),
                        lost: Vec::new(),
                    };
                    answer_all(vec![result], vec![answer]);
                }
            }
        }
        flow
    }

    /// Makes a group readable first, then answers its authors, whose checkpoint so leaves with the
    /// answer, and wakes the others, who may be many, at last.
    fn tell(&self, mut outcome: GroupOutcome, answers: Vec<Waiting>) {
        (self.publish)(News::Group(&outcome));
        answer_all(std::mem::take(&mut outcome.results), answers);
        (self.publish)(News::Answered(&outcome));
    }

    /// Commits as one group. A panic leaves nothing behind: the transaction is rolled back when it
    /// is dropped.
    async fn commit(&mut self, submissions: &[Submission]) -> Result<GroupOutcome, Panicked> {
        let started = std::time::Instant::now();
        let group = commit_group(&mut self.storage, &self.context, submissions, clock::now());
        let outcome = AssertUnwindSafe(group)
            .catch_unwind()
            .await
            .map_err(|_| Panicked)?;
        if let Some(error) = &outcome.failure {
            let count = submissions.len();
            tracing::error!(%error, "the storage failed; {count} changesets waited");
            metrics::commit_failed();
        }
        let refused = outcome.results.iter().filter(|r| is_refused(r)).count();
        let took = started.elapsed();
        metrics::committed(submissions.len(), refused, &outcome.entries, took);
        let refused = self.refused_by_rules(submissions, &outcome.results);
        if !refused.is_empty() {
            (self.publish)(News::Refused(refused));
        }
        Ok(outcome)
    }

    fn refused_by_rules(&self, submissions: &[Submission], results: &[PushResult]) -> Vec<Refused> {
        let both = submissions.iter().zip(results);
        let refused = both.filter_map(|(submission, result)| {
            let Verdict::Refused(refusal) = &result.verdict else {
                return None;
            };
            if refusal.code != code::FORBIDDEN {
                return None;
            }
            let at = usize::try_from(refusal.change?).ok()?;
            let change = submission.changeset.changes.get(at)?;
            let table = self.context.schema().by_number(change.table)?;
            let user = submission.identity.user.as_ref();
            Some(Refused {
                user: user.map_or_else(String::new, |user| user.0.clone()),
                table: table.name.clone(),
                action: match change.op {
                    Op::Insert(_) => "create",
                    Op::Update(_) => "update",
                    Op::Delete => "delete",
                },
            })
        });
        refused.collect()
    }

    async fn open(&mut self, hello: &Hello, user: UserId) -> Result<Opened, Refusal> {
        let mut fresh = DeviceId::default();
        getrandom::fill(&mut fresh.0)
            .map_err(|error| storage_refusal(&StorageError::Failed(error.to_string().into())))?;
        let facts = DeviceHello::new(hello, user);
        let opened = open_device(&mut self.storage, &facts, fresh, clock::now()).await;
        match opened {
            Ok(opened) => Ok(Opened::from(opened)),
            Err(OpenDeviceError::Refused(refusal)) => Err(*refusal),
            Err(OpenDeviceError::Storage(error)) => {
                tracing::error!(%error, "a device could not be opened");
                Err(storage_refusal(&error))
            }
        }
    }

    async fn change_device(
        &mut self,
        user: &UserId,
        device: DeviceId,
        change: DeviceChange,
    ) -> Result<Option<DeviceState>, StorageError> {
        let storage = &mut self.storage;
        match change {
            DeviceChange::Rename(name) => rename_device(storage, user, device, &name).await,
            DeviceChange::Deregister { wipe } => {
                let found = deregister_device(storage, user, device, wipe, clock::now()).await?;
                if found.is_some() {
                    tracing::info!(%device, "a device was deregistered");
                    (self.publish)(News::Deregistered(device));
                }
                Ok(found)
            }
        }
    }

    async fn note(&mut self, seen: &BTreeMap<DeviceId, DeviceSeen>) {
        if let Err(error) = note_devices(&mut self.storage, seen).await {
            tracing::warn!(%error, "when devices were seen could not be written down");
        }
    }

    async fn apply(&mut self, config: &Config) -> Result<Arc<SessionContext>, String> {
        let options = SchemaOptions {
            managed: true,
            allow: Vec::new(),
        };
        let prepared =
            super::start::prepare(&mut self.storage, config, &options, self.auditor.clone()).await;
        let prepared = prepared.map_err(|error| error.to_string())?;
        for note in prepared.notes {
            tracing::info!("{note}");
        }
        self.context = Arc::clone(&prepared.session.plan);
        (self.publish)(News::Context(&prepared.session));
        Ok(prepared.session)
    }

    async fn trim(&mut self, now: Timestamp) {
        if let Err(error) = self
            .storage
            .trim(days_before(now, self.retention_days))
            .await
        {
            tracing::warn!(%error, "old log entries could not be trimmed; trying again later");
        }
    }

    /// Whether there is more to trim.
    async fn trim_history(&mut self, now: Timestamp) -> bool {
        let horizon = days_before(now, self.history_days);
        let trimmed = self.storage.trim_history(horizon).await;
        trimmed.unwrap_or_else(|error| {
            tracing::warn!(%error, "old history could not be trimmed; trying again later");
            false
        })
    }
}

/// Versions are times.
fn days_before(now: Timestamp, days: u32) -> Version {
    Version(now.0.saturating_sub(u64::from(days) * 86_400_000_000))
}

/// The planner panicked.
struct Panicked;

fn answer_all(results: Vec<PushResult>, answers: Vec<Waiting>) {
    for (result, waiting) in results.into_iter().zip(answers) {
        // Whoever has gone asks again with the same id.
        drop(waiting.answer.send(result));
    }
}

/// The refusal of a changeset that the server cannot plan.
fn poison() -> Refusal {
    Refusal {
        code: code::STORAGE.into(),
        message: "the server failed on this changeset; its log says where".into(),
        retry: false,
        retry_after_ms: None,
        change: None,
        fatal: false,
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
        Request::Open(..)
        | Request::Device(..)
        | Request::Seen(..)
        | Request::Schema(..)
        | Request::Stop => 0,
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
