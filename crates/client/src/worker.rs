//! The engine's own thread: one file, one run at a time, and everybody who asks.

mod auto;
mod core;
mod meter;
mod perform;

use std::{
    collections::VecDeque,
    future::Future,
    path::PathBuf,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::{JoinHandle, LocalSet},
};

pub(crate) use self::{core::Core, perform::attach_offline};
use crate::{
    bus::Bus,
    config::Config,
    driver::Interrupt,
    run::{Operation, Request},
    sync_error::{Error, ErrorKind},
    transport,
    watch::Watcher,
};

/// Commands that wait for the engine; past that, callers wait.
const COMMANDS_MAX: usize = 64;
/// Runs that wait for their turn; past that they are refused.
const RUNS_WAITING_MAX: usize = 64;
/// How long a run that was interrupted may take to end when the manager is closed.
const GOODBYE_MAX: Duration = Duration::from_secs(3);

/// What others on this machine see of the engine without asking its thread.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) watcher: Watcher,
    pub(crate) path: PathBuf,
    config: Mutex<Config>,
    pub(crate) bus: Bus,
    /// Whether auto-sync is wanted.
    pub(crate) auto: AtomicBool,
    /// Auto-sync is to look for the server now.
    pub(crate) hurry: AtomicBool,
    pub(crate) connected: AtomicBool,
    /// Wakes the engine after one of these was changed.
    pub(crate) changed: Notify,
}

impl Shared {
    pub(crate) fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Ask = Box<dyn FnOnce(&Rc<Core>) + Send>;

/// What the engine's thread is told.
pub(crate) enum Command {
    /// A question that is answered between two steps of whatever runs.
    Ask(Ask),
    Run(Request),
    /// The thread ends, then the sender is dropped.
    Close(oneshot::Sender<()>),
}

/// Starts the thread for the file at `path`; answers when the file is open.
pub(crate) async fn start(
    path: PathBuf,
    config: Config,
) -> Result<(mpsc::Sender<Command>, Arc<Shared>), Error> {
    let auto = AtomicBool::new(config.auto_sync_enabled);
    let shared = Arc::new(Shared {
        watcher: Watcher::default(),
        path: path.clone(),
        config: Mutex::new(config),
        bus: Bus::default(),
        auto,
        hurry: AtomicBool::default(),
        connected: AtomicBool::default(),
        changed: Notify::new(),
    });
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let (opened, is_open) = oneshot::channel();
    let of_thread = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("syncline".into())
        .spawn(move || thread(path, &of_thread, receiver, opened))
        .map_err(|error| {
            let message = format!("no thread can be started: {error}");
            Error::new(ErrorKind::Busy, "thread", message)
        })?;
    is_open.await.unwrap_or_else(|_| Err(Error::closed()))?;
    Ok((commands, shared))
}

fn thread(
    path: PathBuf,
    shared: &Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    opened: oneshot::Sender<Result<(), Error>>,
) {
    let goodbye = Goodbye(shared);
    transport::install_tls();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let started = runtime
        .map_err(|error| {
            let message = format!("the engine cannot start: {error}");
            Error::new(ErrorKind::Busy, "runtime", message)
        })
        .and_then(|runtime| Ok((runtime, Core::open(path, Arc::clone(shared))?)));
    let (runtime, core) = match started {
        Ok(started) => started,
        Err(error) => return drop(opened.send(Err(error))),
    };
    if opened.send(Ok(())).is_err() {
        return;
    }
    let worker = Worker {
        core: Rc::new(core),
        commands,
        waiting: VecDeque::new(),
        running: None,
        auto: auto::Auto::default(),
    };
    let tasks = LocalSet::new();
    let (ended, commands) = tasks.block_on(&runtime, worker.work());
    // Tasks hold the file too: it is closed before anybody hears that it is.
    drop(tasks);
    drop(runtime);
    drop(goodbye);
    drop(commands);
    drop(ended);
}

/// Ends what listens to the engine, also when its thread breaks off.
struct Goodbye<'a>(&'a Shared);

impl Drop for Goodbye<'_> {
    fn drop(&mut self) {
        self.0.connected.store(false, Ordering::Release);
        self.0.bus.close();
        self.0.watcher.close();
    }
}

struct Worker {
    core: Rc<Core>,
    commands: mpsc::Receiver<Command>,
    waiting: VecDeque<Request>,
    running: Option<Running>,
    auto: auto::Auto,
}

/// The one run there is.
struct Running {
    task: JoinHandle<Option<Error>>,
    interrupt: Interrupt,
    /// Gives way to whatever was called for.
    is_live: bool,
}

impl Worker {
    /// Until the manager is closed or nobody is left who could ask. Returns who closed it, and the
    /// channel, whose end says that everything has ended.
    async fn work(mut self) -> (Option<oneshot::Sender<()>>, mpsc::Receiver<Command>) {
        let ended = loop {
            self.begin_next();
            let wake_at = self.auto.wake_at(&self.core, self.running.is_some());
            tokio::select! {
                command = self.commands.recv() => match command {
                    None => break None,
                    Some(Command::Close(ended)) => break Some(ended),
                    Some(Command::Ask(ask)) => ask(&self.core),
                    Some(Command::Run(request)) => self.enqueue(request),
                },
                failure = ended(&mut self.running) => self.finished(failure),
                () = self.core.shared.changed.notified() => self.heed(),
                () = tokio::time::sleep_until(wake_at.into()) => {
                    self.auto.look(&self.core, self.running.is_some());
                }
            }
        };
        if let Some(running) = self.running.take() {
            running.interrupt.trigger();
            // What does not end in time is cut: the file is as after a power cut.
            let _cut = tokio::time::timeout(GOODBYE_MAX, running.task).await;
        }
        self.core.close();
        (ended, self.commands)
    }

    fn enqueue(&mut self, request: Request) {
        // Runs that nobody wants any more take nobody's place.
        self.waiting.retain_mut(|waiting| {
            let is_wanted = !waiting.interrupt.is_triggered();
            if let Some(answer) = waiting.answer.take_if(|_| !is_wanted) {
                drop(answer.send(Err(Error::interrupted())));
            }
            is_wanted
        });
        if self.waiting.len() >= RUNS_WAITING_MAX {
            let message = format!("{RUNS_WAITING_MAX} runs wait for their turn already");
            let error = Error::new(ErrorKind::Busy, "busy", message);
            if let Some(answer) = request.answer {
                drop(answer.send(Err(error)));
            }
            return;
        }
        self.waiting.push_back(request);
        if let Some(running) = self.running.as_ref().filter(|running| running.is_live) {
            running.interrupt.trigger();
        }
    }

    /// Begins what is next, if nothing runs: what was called for, then auto-sync.
    fn begin_next(&mut self) {
        if self.running.is_some() {
            return;
        }
        let core = Rc::clone(&self.core);
        if let Some(request) = self.waiting.pop_front() {
            let interrupt = request.interrupt.clone();
            let task = tokio::task::spawn_local(async move {
                perform::answered(&core, request).await;
                None
            });
            self.running = Some(Running {
                task,
                interrupt,
                is_live: false,
            });
        } else if let Some(is_live) = self.auto.due(&core) {
            let interrupt = Interrupt::default();
            let of_task = interrupt.clone();
            let task = tokio::task::spawn_local(async move {
                if is_live {
                    perform::live(&core, &of_task).await.err()
                } else {
                    let round = Request {
                        operation: Operation::Auto,
                        tables: core.shared.config().tables.clone(),
                        dry_run: false,
                        interrupt: of_task,
                        progress: None,
                        resolver: None,
                        answer: None,
                    };
                    perform::run(&core, &round).await.err()
                }
            });
            self.auto.begun(&self.core, is_live);
            self.running = Some(Running {
                task,
                interrupt,
                is_live,
            });
        }
    }

    fn finished(&mut self, failure: Option<Error>) {
        let was_called_for = self.running.take().is_some_and(|running| !running.is_live);
        self.auto
            .ended(&self.core, failure.as_ref(), was_called_for);
    }

    /// Somebody changed the configuration, auto-sync, or wants it to hurry.
    fn heed(&mut self) {
        if self.auto.heed(&self.core)
            && let Some(running) = self.running.as_ref().filter(|running| running.is_live)
        {
            running.interrupt.trigger();
        }
    }
}

/// The end of the run, if there is one.
fn ended(running: &mut Option<Running>) -> Pin<Box<dyn Future<Output = Option<Error>> + '_>> {
    match running {
        None => Box::pin(std::future::pending()),
        Some(running) => Box::pin(async {
            let joined = (&mut running.task).await;
            joined.unwrap_or_else(|error| {
                let message = format!("a run of the sync engine broke off: {error}");
                Some(Error::new(ErrorKind::Closed, "broke_off", message))
            })
        }),
    }
}
