//! The sync manager: what an app holds.

use std::{
    path::Path,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use syncline_core::Value;
use syncline_replica::{Conflict, Resolution, RowStatus, Status};
use tokio::sync::{mpsc, oneshot};

use crate::{
    bus::Events,
    config::Config,
    queue::RetryQueue,
    run::{Operation, Progress, Run, Tables},
    store::Store,
    sync_error::Error,
    system,
    worker::{self, Command, Core, Shared},
};

/// Keeps one SQLite file in step with a server.
///
/// A cheap handle on an engine that runs on a thread of its own: clone it, send it to other
/// threads, use it in any async runtime or in none ([`crate::blocking::SyncManager`]). The app
/// reads and writes the file with its own connections; any program may.
///
/// The thread ends when the last handle is dropped or [`SyncManager::close`] is called. Handlers
/// and resolvers belong to the engine: one that captures a handle keeps the thread alive, so that
/// only [`SyncManager::close`] ends it. Open a file once and clone the manager.
#[derive(Debug, Clone)]
pub struct SyncManager {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ask(_) => "Ask",
            Self::Run(_) => "Run",
            Self::Close(_) => "Close",
        })
    }
}

/// Opening and closing.
impl SyncManager {
    /// Opens the file at `path`, which is made if there is none. No server is needed.
    ///
    /// A file that does not sync yet stays as it is until a server is met for the first time:
    /// then it is compared with the server, attached (triggers and `syncline_*` tables are added,
    /// no table is changed), and its rows are sent.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`] if the file cannot be opened or was written by a newer version.
    pub async fn open(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        let path = std::path::absolute(path.as_ref())
            .map_err(|error| Error::invalid(format!("the path of the file: {error}")))?;
        let (commands, shared) = worker::start(path, config.checked()?).await?;
        Ok(Self { commands, shared })
    }

    /// Ends the engine: a run that is under way is interrupted and goes on with the next one,
    /// event streams end, the file is closed. Later calls on any handle fail with
    /// [`crate::ErrorKind::Closed`].
    pub async fn close(&self) {
        let (ended_to, ended) = oneshot::channel();
        if self.commands.send(Command::Close(ended_to)).await.is_ok() {
            // The thread drops the sender when everything is closed. A command that was sent while
            // the thread ended is never read, nor dropped as long as somebody could send another.
            tokio::select! {
                biased;
                _ended = ended => {}
                () = self.ended() => {}
            }
        }
    }

    /// What waits and what failed: changes of rows, and operations of the app's own.
    #[must_use]
    pub fn queue(&self) -> RetryQueue {
        RetryQueue(self.clone())
    }

    /// Has the file keep every change from now on, before any server was met: for an app that is
    /// used offline first. Only the tables that the configuration lets sync. Whether it was not
    /// so yet.
    ///
    /// Without it a file begins to keep changes when it meets a server, and what was written
    /// before has to agree with the server's rows of the same keys. What is written from now on
    /// merges as any other change, and integer keys that were given twice are given anew.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Table`] if nothing in the file can sync; [`crate::ErrorKind::File`].
    pub async fn attach(&self) -> Result<bool, Error> {
        self.ask_async(|core| async move { worker::attach_offline(&core).await })
            .await
    }

    /// Takes everything of Syncline out of the file: triggers, `syncline_*` tables, credentials.
    /// The app's rows stay, and its schema is byte for byte what it was. Closes the manager; what
    /// had not reached the server is only in the file then. Returns how many transactions that
    /// were.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`].
    pub async fn detach(self) -> Result<u64, Error> {
        let status = self.status().await?;
        let unsent = status.map(|status| status.waiting + status.parked);
        self.close().await;
        match unsent {
            Some(_) => drop(crate::attach::detach(&self.shared.path)?),
            None => {
                if let Some(store) = Store::open(&self.shared.path, false)? {
                    store.remove()?;
                }
            }
        }
        Ok(unsent.unwrap_or(0))
    }

    /// Events from now on. Each stream is independent; none can hold up the engine.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.bus.subscribe()
    }
}

/// Configuration and auto-sync.
impl SyncManager {
    /// The configuration as it is now.
    #[must_use]
    pub fn config(&self) -> Config {
        self.shared.config().clone()
    }

    /// Changes the configuration: `manager.update_config(|config| config.batch_size(100))`. A
    /// connection that it concerns is made anew. [`Config::auto_sync`] starts or stops auto-sync.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`]; then nothing was changed.
    pub fn update_config(&self, change: impl FnOnce(Config) -> Config) -> Result<(), Error> {
        let old = self.config();
        let new = change(old.clone()).checked()?;
        if new.auto_sync_enabled != old.auto_sync_enabled {
            self.shared
                .auto
                .store(new.auto_sync_enabled, Ordering::Release);
        }
        *self.shared.config() = new;
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Whether a server is configured. Without one the app works as it does with one.
    #[must_use]
    pub fn is_sync_available(&self) -> bool {
        self.shared.config().is_sync_available()
    }

    /// Whether a session with the server is open now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Acquire)
    }

    /// Syncs by itself from now on: at once, a moment after each change, when the server is back,
    /// and at least every [`Config::auto_sync_interval`]. With [`Config::live`] the connection is
    /// kept, and what others write arrives when they write it.
    pub fn start_auto_sync(&self) {
        self.set_auto(true);
    }

    /// Syncs only when it is called for. A run that was called for goes on.
    pub fn stop_auto_sync(&self) {
        self.set_auto(false);
    }

    /// Whether auto-sync is on.
    #[must_use]
    pub fn is_auto_sync(&self) -> bool {
        self.shared.auto.load(Ordering::Acquire)
    }

    fn set_auto(&self, on: bool) {
        self.shared.auto.store(on, Ordering::Release);
        self.shared.config().auto_sync_enabled = on;
        self.shared.changed.notify_one();
    }

    /// The app came to the foreground, or the network came back: auto-sync does not wait any
    /// longer for its next attempt.
    pub fn foreground(&self) {
        self.shared.hurry.store(true, Ordering::Release);
        self.shared.changed.notify_one();
    }
}

/// Runs. Each is awaited; dropping it interrupts it.
impl SyncManager {
    /// Sends the rows of this device to the server, and ends when the server has them. Use it for
    /// a backup, or for the first device.
    pub fn seed<'p>(
        &self,
        tables: Tables,
        on_progress: impl FnMut(Progress) + Send + 'p,
    ) -> Run<'p> {
        Run::new(self.clone(), Operation::Seed, tables, on_progress)
    }

    /// Brings the server's rows to this device. A new file gets the server's tables too.
    pub fn hydrate<'p>(
        &self,
        tables: Tables,
        on_progress: impl FnMut(Progress) + Send + 'p,
    ) -> Run<'p> {
        Run::new(self.clone(), Operation::Hydrate, tables, on_progress)
    }

    /// Both ways: ends when everything local is at the server and everything of the server's that
    /// was there when it began is here.
    ///
    /// Without a configured server it ends at once, well, and says so in
    /// [`crate::SyncReport::is_offline`]: an app runs offline without being written for it.
    /// [`SyncManager::seed`] and [`SyncManager::hydrate`] have a purpose, and fail.
    pub fn sync<'p>(
        &self,
        tables: Tables,
        on_progress: impl FnMut(Progress) + Send + 'p,
    ) -> Run<'p> {
        Run::new(self.clone(), Operation::Sync, tables, on_progress)
    }
}

/// What is waiting, and deciding.
impl SyncManager {
    /// The file at this moment; `None` before it was attached. Instant whatever its size.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`], [`crate::ErrorKind::Closed`].
    pub async fn status(&self) -> Result<Option<Status>, Error> {
        self.ask(|core| core.with(|replica| replica.status())).await
    }

    /// What is known of one row: versions, who wrote it last and when, whether it is synced,
    /// pending or in conflict. `key`: the values of its primary key.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Table`], [`crate::ErrorKind::Invalid`] for values that are no key of
    /// it, [`crate::ErrorKind::File`].
    pub async fn row_status(&self, table: &str, key: Vec<Value>) -> Result<RowStatus, Error> {
        let table = table.to_owned();
        self.ask(move |core| {
            let found = core.with(|replica| {
                replica.seal(system::now())?;
                replica.row_status(&table, &key)
            })?;
            found.ok_or_else(|| Error::table(&table, "the file is not attached yet"))
        })
        .await
    }

    /// Conflicts of this user, newest first: those that wait for a decision, or all.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`], [`crate::ErrorKind::Closed`].
    pub async fn conflicts(&self, open_only: bool) -> Result<Vec<Conflict>, Error> {
        let found = self
            .ask(move |core| core.with(|replica| replica.conflicts(open_only)))
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// One conflict: base, mine, theirs, who and when.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`], [`crate::ErrorKind::File`].
    pub async fn conflict(&self, id: impl Into<String>) -> Result<Conflict, Error> {
        let id = id.into();
        self.ask(move |core| {
            let found = core.with(|replica| replica.conflict(&id))?;
            found.ok_or_else(|| Error::not_found(format!("there is no conflict {id}")))
        })
        .await
    }

    /// Decides a conflict. The decision is an ordinary change: it syncs, and the server takes it
    /// only if nobody decided meanwhile.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if it is not open, [`crate::ErrorKind::Invalid`] for a
    /// decision that the column does not take.
    pub async fn resolve(
        &self,
        id: impl Into<String>,
        resolution: Resolution,
    ) -> Result<(), Error> {
        let id = id.into();
        self.ask(move |core| {
            let decided = core.with(|replica| replica.resolve(&id, &resolution, system::now()))?;
            decided.ok_or_else(|| Error::not_found(format!("there is no conflict {id}")))
        })
        .await
    }
}

impl SyncManager {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), Error> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| Error::closed())
    }

    /// Until the engine's thread has ended and the file is closed.
    pub(crate) async fn ended(&self) {
        self.commands.closed().await;
    }

    /// The answer to a command that was sent; none comes when the thread ended meanwhile.
    async fn answered<T>(&self, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            answered = answer => answered.unwrap_or_else(|_| Err(Error::closed())),
            () = self.ended() => Err(Error::closed()),
        }
    }

    /// Asks the engine between two steps of whatever runs.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Rc<Core>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer_to, answer) = oneshot::channel();
        self.send(Command::Ask(Box::new(move |core| {
            // Nobody may be waiting any more.
            let _gone = answer_to.send(ask(core));
        })))
        .await?;
        self.answered(answer).await
    }

    /// Asks for what takes a while, beside whatever runs.
    pub(crate) async fn ask_async<T: Send + 'static, F>(
        &self,
        ask: impl FnOnce(Rc<Core>) -> F + Send + 'static,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + 'static,
    {
        let (answer_to, answer) = oneshot::channel();
        self.send(Command::Ask(Box::new(move |core| {
            let core = Rc::clone(core);
            tokio::task::spawn_local(async move {
                // Nobody may be waiting any more.
                let _gone = answer_to.send(ask(core).await);
            });
        })))
        .await?;
        self.answered(answer).await
    }
}
