//! The network front: HTTP and WebSocket around sessions, one committer, a few readers.

mod auth;
mod clock;
mod committer;
mod drive;
mod error;
mod exchange;
mod hashes;
mod http;
mod metrics;
mod no_reader;
mod readers;
mod schema;
mod ws;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderMap, StatusCode, header};
use parking_lot::{Mutex, RwLock};
use syncline_core::{
    Version,
    config::Config,
    rules::{Identity, Rules},
    wire::{SchemaInfo, code},
};
use syncline_store::{
    Context, Group, GroupOutcome, Head, Reader, SchemaError, SchemaOptions, Storage, StorageError,
    drain_external, rebuild_rules,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
};

pub use self::auth::{Auth, AuthError, SECRET_BYTES_MIN};
use self::{
    committer::{Committer, Request},
    error::ApiError,
    exchange::Exchanges,
    readers::Readers,
};
use crate::{Hub, Recent, SessionContext, SessionId};

/// A kind of storage, as the binary chooses it.
pub trait Backend: Send + Sync + 'static {
    /// The writer; lives on a thread of its own, where it is opened.
    type Storage: Storage;
    type Reader: Reader + Send + 'static;

    /// Opens the writer.
    ///
    /// # Errors
    /// Why the data cannot be opened, for the operator.
    fn open(&self) -> Result<Self::Storage, StorageError>;
    /// Opens one more reader of the same data.
    ///
    /// # Errors
    /// As [`Backend::open`].
    fn reader(storage: &Self::Storage) -> Result<Self::Reader, StorageError>;
}

/// Keeps the tables that devices added where the next start finds them.
pub type Remember = Box<dyn Fn(&Config) -> std::io::Result<()> + Send + Sync>;

/// How a server behaves.
pub struct Options {
    pub listen: SocketAddr,
    pub config: Config,
    /// Destructive changes of the schema that are allowed (`drop:table.column`).
    pub allow: Vec<String>,
    /// Loopback only, tables of devices are added, localhost origins.
    pub dev: bool,
    /// Called with all tables before devices' tables are added (`--dev`).
    pub remember: Option<Remember>,
    pub auth: Auth,
    /// Connections at once; more are told to come back.
    pub connections_max: usize,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("config", &self.config)
            .field("allow", &self.allow)
            .field("dev", &self.dev)
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}

/// Connections at once unless configured.
pub const CONNECTIONS_MAX: usize = 20_000;
/// How long sessions may take to say goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// Why a server did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("`serve --dev` listens on this machine only; {0} is not a loopback address")]
    DevNotLoopback(SocketAddr),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the rules cannot be used:\n{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Rules(Vec<syncline_core::rules::RuleError>),
    #[error("the server stopped unexpectedly: {0}")]
    Stopped(String),
}

/// What all handlers and sessions share.
pub(crate) struct Shared<B: Backend> {
    context: RwLock<Arc<SessionContext>>,
    pub(crate) config: RwLock<Config>,
    pub(crate) hub: Mutex<Hub>,
    wakers: Mutex<BTreeMap<SessionId, Arc<Notify>>>,
    sessions: AtomicU64,
    rules_since: AtomicU64,
    connections: Arc<AtomicUsize>,
    connections_max: usize,
    requests: mpsc::Sender<Request>,
    pub(crate) readers: Arc<Readers<B::Reader>>,
    pub(crate) auth: Auth,
    pub(crate) dev: bool,
    remember: Option<Remember>,
    pub(crate) exchanges: Exchanges,
    generation: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    pub(crate) metrics: metrics::Metrics,
}

impl<B: Backend> Shared<B> {
    pub(crate) fn context(&self) -> Arc<SessionContext> {
        Arc::clone(&self.context.read())
    }

    /// Sessions of the old tables and rules are told to connect again.
    pub(crate) fn replace_context(&self, context: Arc<SessionContext>) {
        *self.context.write() = context;
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Keeps the tables of `config` for the next start.
    pub(crate) fn remember(&self, config: &Config) -> std::io::Result<()> {
        self.remember.as_ref().map_or(Ok(()), |keep| keep(config))
    }

    /// Changes when sessions have to connect again.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn register(&self, id: SessionId, wake: Arc<Notify>) {
        self.wakers.lock().insert(id, wake);
    }

    pub(crate) fn unregister(&self, id: SessionId) {
        self.hub.lock().forget(id);
        self.wakers.lock().remove(&id);
    }

    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Gives a request to the committer; an error means that the server stops.
    pub(crate) async fn request(&self, request: Request) -> Result<(), ApiError> {
        self.requests.send(request).await.map_err(|_| stopping())
    }

    /// Who asks: the bearer token of the request, if it is good.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<Arc<Identity>, ApiError> {
        let header = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err(auth::unauthorized("a token is needed: `Authorization: Bearer …`").into());
        };
        Ok(Arc::new(self.auth.verify(token.trim())?))
    }

    /// Counts a connection for as long as the guard lives.
    pub(crate) fn connection(&self) -> Result<ConnectionGuard, ApiError> {
        if self.is_stopping() {
            return Err(stopping());
        }
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            let mut error = ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                code::UNAVAILABLE,
                "this server has as many connections as it may have",
            );
            error.refusal.retry_after_ms = Some(5_000);
            return Err(error);
        }
        Ok(ConnectionGuard(Arc::clone(&self.connections)))
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Makes committed entries readable and wakes those they concern.
    fn publish(&self, outcome: &GroupOutcome) {
        let entries = &outcome.entries;
        if let Some(head) = outcome.head
            && self
                .rules_since
                .fetch_max(head.rules_since.0, Ordering::AcqRel)
                < head.rules_since.0
        {
            // Another program changed so much that buckets were computed anew.
            self.generation.send_modify(|generation| *generation += 1);
        }
        if entries.is_empty() {
            return;
        }
        self.context().recent.push(entries);
        let mut concerned = std::collections::BTreeSet::new();
        let hub = self.hub.lock();
        for entry in entries {
            concerned.extend(hub.concerned(entry));
        }
        drop(hub);
        let wakers = self.wakers.lock();
        for session in concerned {
            if let Some(wake) = wakers.get(&session) {
                wake.notify_one();
            }
        }
    }
}

fn stopping() -> ApiError {
    let mut error = ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        code::UNAVAILABLE,
        "the server is stopping",
    );
    error.refusal.retry_after_ms = Some(1_000);
    error
}

/// One counted connection.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Arc<AtomicUsize>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    notes: Vec<String>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
    committing: std::thread::JoinHandle<()>,
}

impl Server {
    /// Opens the storage, brings its schema up to date and listens.
    ///
    /// # Errors
    /// [`ServeError`]: nothing listens then.
    pub async fn start<B: Backend>(backend: Arc<B>, options: Options) -> Result<Self, ServeError> {
        if options.dev && !options.listen.ip().is_loopback() {
            return Err(ServeError::DevNotLoopback(options.listen));
        }
        let listener =
            TcpListener::bind(options.listen)
                .await
                .map_err(|source| ServeError::Listen {
                    address: options.listen,
                    source,
                })?;
        let address = listener.local_addr().map_err(|source| ServeError::Listen {
            address: options.listen,
            source,
        })?;
        let (requests, queue) = mpsc::channel(committer::QUEUE_MAX);
        let (stop, stopped) = watch::channel(false);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let committing = spawn_committer(Arc::clone(&backend), &options, queue, ready)?;
        let Started {
            context,
            notes,
            publish_to,
            rules_since,
            readers,
        } = is_ready
            .await
            .map_err(|_| ServeError::Stopped("the storage thread died".into()))??;
        let shared = Arc::new(Shared::<B> {
            context: RwLock::new(context),
            config: RwLock::new(options.config),
            hub: Mutex::new(Hub::default()),
            wakers: Mutex::new(BTreeMap::new()),
            sessions: AtomicU64::new(1),
            rules_since: AtomicU64::new(rules_since.0),
            connections: Arc::new(AtomicUsize::new(0)),
            connections_max: options.connections_max,
            requests,
            readers: Arc::new(Readers::new(readers)),
            auth: options.auth,
            dev: options.dev,
            remember: options.remember,
            exchanges: Exchanges::default(),
            generation: watch::channel(0).0,
            stop: stop.clone(),
            metrics: metrics::Metrics::install(),
        });
        let publisher = Arc::downgrade(&shared);
        let publish: committer::Publish = Box::new(move |outcome| {
            if let Some(shared) = publisher.upgrade() {
                shared.publish(outcome);
            }
        });
        publish_to
            .send(publish)
            .map_err(|_| ServeError::Stopped("the storage thread died".into()))?;
        let serving = tokio::spawn(http::serve(listener, shared, stopped));
        Ok(Self {
            address,
            notes,
            stop,
            serving,
            committing,
        })
    }

    /// Where it listens, with the port that the system chose for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What starting changed in the schema, a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Tells every session to come back later, finishes what was accepted, and closes the storage.
    ///
    /// # Errors
    /// [`ServeError::Stopped`] if a part had died before.
    pub async fn stop(self) -> Result<(), ServeError> {
        self.stop.send_replace(true);
        let stopped = |what: &dyn std::fmt::Display| ServeError::Stopped(what.to_string());
        match tokio::time::timeout(GOODBYE_MAX, self.serving).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => return Err(stopped(&error)),
            Ok(Err(error)) => return Err(stopped(&error)),
            Err(_) => tracing::warn!("some connections did not end in time and were cut"),
        }
        let joined = tokio::task::spawn_blocking(move || self.committing.join());
        match tokio::time::timeout(GOODBYE_MAX, joined).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(_) => Err(stopped(&"the storage thread panicked")),
            Err(_) => Ok(()),
        }
    }
}

struct Started<R> {
    readers: Vec<R>,
    context: Arc<SessionContext>,
    notes: Vec<String>,
    publish_to: std::sync::mpsc::SyncSender<committer::Publish>,
    rules_since: Version,
}

type Ready<R> = tokio::sync::oneshot::Sender<Result<Started<R>, ServeError>>;

/// The storage's thread: opens it, brings it up to date, says so, and commits until the end.
fn spawn_committer<B: Backend>(
    backend: Arc<B>,
    options: &Options,
    queue: mpsc::Receiver<Request>,
    ready: Ready<B::Reader>,
) -> Result<std::thread::JoinHandle<()>, ServeError> {
    let config = options.config.clone();
    let schema_options = SchemaOptions {
        managed: config.server.managed,
        allow: options.allow.clone(),
    };
    let body = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(ServeError::Stopped(error.to_string())));
                return;
            }
        };
        runtime.block_on(async move {
            let mut storage = match backend.open() {
                Ok(storage) => storage,
                Err(error) => return drop(ready.send(Err(error.into()))),
            };
            let prepared = prepare(&mut storage, &config, &schema_options).await;
            let Prepared {
                session: context,
                notes,
                head,
            } = match prepared {
                Ok(prepared) => prepared,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let readers = (0..readers::READERS_MAX)
                .map(|_| B::reader(&storage))
                .collect();
            let readers = match readers {
                Ok(readers) => readers,
                Err(error) => return drop(ready.send(Err(ServeError::Storage(error)))),
            };
            let (publish_to, publish) = std::sync::mpsc::sync_channel(1);
            let commit_context = Arc::clone(&context.plan);
            let rules_since = head.rules_since;
            if ready
                .send(Ok(Started {
                    readers,
                    context,
                    notes,
                    publish_to,
                    rules_since,
                }))
                .is_err()
            {
                return;
            }
            let Ok(publish) = publish.recv() else { return };
            let retention_days = config.server.retention_days;
            let committer = Committer::<B> {
                storage,
                context: commit_context,
                publish,
                retention_days,
            };
            committer.run(queue).await;
        });
    };
    std::thread::Builder::new()
        .name("committer".into())
        .spawn(body)
        .map_err(|error| ServeError::Stopped(error.to_string()))
}

/// A storage that is up to date with its configuration.
pub(crate) struct Prepared {
    pub(crate) session: Arc<SessionContext>,
    pub(crate) notes: Vec<String>,
    pub(crate) head: Head,
}

/// Brings tables, rules, buckets and grants up to date with the configuration.
pub(crate) async fn prepare<S: Storage>(
    storage: &mut S,
    config: &Config,
    options: &SchemaOptions,
) -> Result<Prepared, ServeError> {
    let report = storage.apply_schema(config, options).await?;
    let rules = Rules::compile(&report.schema, storage.secret()).map_err(ServeError::Rules)?;
    let fingerprint = rules.fingerprint();
    let info = SchemaInfo::from_schema(&report.schema);
    let context = Arc::new(Context::new(report.schema, rules));
    let now = clock::now();
    if report.rules != Some(fingerprint) {
        let rebuilt = rebuild_rules(storage, &context, now).await?;
        tracing::info!(
            rows = rebuilt.rows,
            "rules changed: who sees what was computed anew"
        );
    }
    if let Some(error) = drain_external(storage, &context, now).await.failure {
        return Err(error.into());
    }
    let group = storage.begin().await?;
    let head = group.head();
    group.rollback().await;
    let session = Arc::new(SessionContext {
        server: storage.server_id(),
        secret: *storage.secret(),
        info_hash: info.hash(),
        info,
        plan: Arc::clone(&context),
        recent: Arc::new(Recent::new(head.version, head.tag)),
    });
    Ok(Prepared {
        session,
        notes: report.notes,
        head,
    })
}
