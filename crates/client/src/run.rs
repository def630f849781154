//! Calling for a sync: what, with which progress, until when.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use syncline_core::Timestamp;
use syncline_replica::RowCounts;
use tokio::sync::{mpsc, oneshot};

use crate::{
    driver::Interrupt, event::ConflictNotice, manager::SyncManager, resolver::Resolver,
    sync_error::Error, worker::Command,
};

/// Progress reports that wait for the caller; later ones replace what it did not take.
const PROGRESS_WAITING: usize = 64;

/// Which tables.
///
/// Rows of all tables of a file travel together, because a transaction over several of them is
/// seen whole or not at all. Naming tables says which of them sync in this file at all: those
/// that no call has named yet stay on the device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Tables {
    /// All that can sync.
    #[default]
    All,
    /// These.
    Only(Vec<String>),
}

impl Tables {
    /// These tables.
    pub fn only<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Only(names.into_iter().map(Into::into).collect())
    }

    /// Whether `name` is one of them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|known| known.eq_ignore_ascii_case(name)),
        }
    }

    /// Whether it is named, and not just one of all.
    pub(crate) fn names_it(&self, name: &str) -> bool {
        matches!(self, Self::Only(_)) && self.contains(name)
    }

    /// What of `wanted` may sync where these may.
    pub(crate) fn narrowed(&self, wanted: &Self) -> Result<Self, Error> {
        let (Self::Only(_), Self::Only(names)) = (self, wanted) else {
            let all = matches!(wanted, Self::All);
            return Ok(if all { self.clone() } else { wanted.clone() });
        };
        match names.iter().find(|name| !self.contains(name)) {
            None => Ok(wanted.clone()),
            Some(name) => Err(Error::table(name, "the configuration leaves it out")),
        }
    }

    pub(crate) fn names(&self) -> &[String] {
        match self {
            Self::All => &[],
            Self::Only(names) => names,
        }
    }
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Local rows to the server.
    Seed,
    /// The server's rows to this device.
    Hydrate,
    /// Both ways.
    Sync,
    /// Both ways, by auto-sync.
    Auto,
}

impl Operation {
    /// A stable name: `seed`, `hydrate`, `sync`, `auto`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::Hydrate => "hydrate",
            Self::Sync => "sync",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Looking for the server.
    Connecting,
    /// Comparing the file with the server, before it is attached.
    Comparing,
    /// Sending.
    Sending,
    /// Receiving.
    Receiving,
    /// Everything is done.
    Done,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// 0 to 100; never falls within a run.
    pub percentage: u8,
    /// A sentence for people.
    pub message: String,
    /// The table that is being worked on, where it is one.
    pub table: Option<String>,
    /// What is being done.
    pub phase: Phase,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncReport {
    /// What it was for.
    pub operation: Operation,
    /// Which tables were asked for; rows are counted of these.
    pub tables: Tables,
    /// Nothing was done: the numbers say what would be.
    pub dry_run: bool,
    /// No server is configured, so there was nothing to do; only of [`SyncManager::sync`].
    pub is_offline: bool,
    /// Rows sent and received.
    pub records_processed: u64,
    /// Changes of this device that the server took.
    pub sent: RowCounts,
    /// Rows that changed here because of the server.
    pub received: RowCounts,
    /// Conflicts that were opened and wait for a decision; at most the first thousand.
    pub conflicts: Vec<ConflictNotice>,
    /// Edits of this device that lost.
    pub edits_lost: u64,
    /// Changes that the server refused, and what else went wrong without ending the run; at most
    /// the first thousand.
    pub errors: Vec<Error>,
    /// Bytes sent to the server.
    pub bytes_sent: u64,
    /// Bytes received from it.
    pub bytes_received: u64,
    /// When it began, by this device's clock.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// The part of it in which the network or the server was waited for.
    pub network_time: Duration,
}

impl SyncReport {
    /// Rows created, here and there.
    #[must_use]
    pub fn created(&self) -> u64 {
        self.sent.created + self.received.created
    }
    /// Rows updated, here and there.
    #[must_use]
    pub fn updated(&self) -> u64 {
        self.sent.updated + self.received.updated
    }
    /// Rows deleted, here and there.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        self.sent.deleted + self.received.deleted
    }
    /// The part of [`SyncReport::duration`] in which this device was busy.
    #[must_use]
    pub fn local_time(&self) -> Duration {
        self.duration.saturating_sub(self.network_time)
    }
}

/// What the engine is asked to run.
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) tables: Tables,
    pub(crate) dry_run: bool,
    pub(crate) interrupt: Interrupt,
    pub(crate) progress: Option<mpsc::Sender<Progress>>,
    pub(crate) resolver: Option<Arc<dyn Resolver>>,
    pub(crate) answer: Option<oneshot::Sender<Result<SyncReport, Error>>>,
}

/// A sync that was called for: `.await` it. Dropping the future interrupts it; the next run goes
/// on from there.
///
/// One runs at a time; others wait for their turn.
#[must_use = "a run does nothing until it is awaited"]
pub struct Run<'p> {
    manager: SyncManager,
    operation: Operation,
    tables: Tables,
    dry_run: bool,
    interrupt: Option<Interrupt>,
    resolver: Option<Arc<dyn Resolver>>,
    on_progress: Box<dyn FnMut(Progress) + Send + 'p>,
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("operation", &self.operation)
            .field("tables", &self.tables)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

impl<'p> Run<'p> {
    pub(crate) fn new(
        manager: SyncManager,
        operation: Operation,
        tables: Tables,
        on_progress: impl FnMut(Progress) + Send + 'p,
    ) -> Self {
        Self {
            manager,
            operation,
            tables,
            dry_run: false,
            interrupt: None,
            resolver: None,
            on_progress: Box::new(on_progress),
        }
    }

    /// Says what would be done, and does nothing.
    ///
    /// What would be received is found by comparing rows with the server's; both sides may change
    /// before it is done.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Ends when `interrupt` is triggered, with [`crate::ErrorKind::Interrupted`].
    pub fn interrupt(mut self, interrupt: &Interrupt) -> Self {
        self.interrupt = Some(interrupt.clone());
        self
    }

    /// Has `resolver` decide the conflicts of all tables during this run, those that are open
    /// already included.
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    async fn go(mut self) -> Result<SyncReport, Error> {
        let (progress_to, mut progress) = mpsc::channel(PROGRESS_WAITING);
        let (answer_to, mut answer) = oneshot::channel();
        let guard = InterruptOnDrop(Interrupt::default());
        let outer = self.interrupt.take().unwrap_or_default();
        let request = Request {
            operation: self.operation,
            tables: std::mem::take(&mut self.tables),
            dry_run: self.dry_run,
            interrupt: guard.0.clone(),
            progress: Some(progress_to),
            resolver: self.resolver.take(),
            answer: Some(answer_to),
        };
        self.manager.send(Command::Run(request)).await?;
        loop {
            tokio::select! {
                biased;
                Some(told) = progress.recv() => (self.on_progress)(told),
                () = outer.triggered(), if !guard.0.is_triggered() => guard.0.trigger(),
                answered = &mut answer => {
                    while let Ok(told) = progress.try_recv() {
                        (self.on_progress)(told);
                    }
                    return answered.unwrap_or_else(|_| Err(Error::closed()));
                }
                () = self.manager.ended() => return Err(Error::closed()),
            }
        }
    }
}

impl<'p> IntoFuture for Run<'p> {
    type Output = Result<SyncReport, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'p>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.go())
    }
}

struct InterruptOnDrop(Interrupt);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        self.0.trigger();
    }
}
