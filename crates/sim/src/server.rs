//! The server's real code without its network: storage, pipeline, hub and sessions by hand.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use anyhow::{Context as _, bail};
use syncline_core::{
    DeviceId, Timestamp, UserId,
    config::Config,
    rules::{Identity, Rules},
    wire::{Refusal, SchemaInfo},
};
use syncline_server::{Action, Hub, Recent, Session, SessionContext, SessionId, session::Opened};
use syncline_store::{
    Context, DeviceHello, Group, OpenDeviceError, SchemaOptions, Storage, Submission, commit_group,
    open_device, rebuild_rules,
};
use syncline_store_sqlite::{SqliteReader, SqliteStorage};

use crate::rng::Rng;

/// Futures of SQLite are ready at once: one poll is enough.
pub(crate) fn now_or_panic<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut TaskContext::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a future of the embedded storage waits for nobody"),
    }
}

/// A running server; restarting it keeps the database and nothing else.
pub(crate) struct Server {
    name: String,
    config: Config,
    /// Keeps the database in memory alive over a restart.
    keeper: rusqlite::Connection,
    storage: Option<SqliteStorage>,
    reader: Option<SqliteReader>,
    context: Arc<SessionContext>,
    hub: Hub,
    sessions: BTreeMap<SessionId, Session>,
    next_session: u64,
    rng: Rng,
}

impl Server {
    pub(crate) fn start(
        name: &str,
        config: Config,
        mut rng: Rng,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let keeper = open_memory(name)?;
        let (storage, reader, context) = open(name, &config, &mut rng, now)?;
        Ok(Self {
            name: name.to_owned(),
            config,
            keeper,
            storage: Some(storage),
            reader: Some(reader),
            context,
            hub: Hub::default(),
            sessions: BTreeMap::new(),
            next_session: 1,
            rng,
        })
    }

    /// Loses everything but the database, as a kill does.
    pub(crate) fn restart(&mut self, now: Timestamp) -> anyhow::Result<()> {
        self.sessions.clear();
        self.hub = Hub::default();
        self.reader = None;
        self.storage = None;
        let (storage, reader, context) = open(&self.name, &self.config, &mut self.rng, now)?;
        (self.storage, self.reader, self.context) = (Some(storage), Some(reader), context);
        Ok(())
    }

    pub(crate) fn connect(&mut self, user: &str, now: Timestamp) -> SessionId {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let user = Some(UserId(user.to_owned()));
        let identity = Arc::new(Identity {
            user,
            claims: BTreeMap::new(),
        });
        self.sessions
            .insert(id, Session::new(Arc::clone(&self.context), identity, now));
        id
    }

    pub(crate) fn disconnect(&mut self, id: SessionId) {
        self.sessions.remove(&id);
        self.hub.forget(id);
    }

    /// Whether the session is still open.
    pub(crate) fn has(&self, id: SessionId) -> bool {
        self.sessions
            .get(&id)
            .is_some_and(|session| !session.is_closed() || session.has_frames())
    }

    pub(crate) fn receive(
        &mut self,
        id: SessionId,
        frame: &[u8],
        now: Timestamp,
    ) -> anyhow::Result<()> {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.receive(frame, now);
            self.act(id, now)?;
        }
        Ok(())
    }

    /// Does everything that the session asks for, and pumps it and those it concerns.
    fn act(&mut self, id: SessionId, now: Timestamp) -> anyhow::Result<()> {
        while let Some(action) = self.sessions.get_mut(&id).and_then(Session::poll_action) {
            match action {
                Action::Open(hello) => {
                    let session = self.sessions.get(&id).context("the session is open")?;
                    let mut fresh = DeviceId::default();
                    self.rng.fill(&mut fresh.0);
                    let hello = DeviceHello {
                        device: hello.device,
                        lease: hello.lease,
                        next_lease: hello.next_lease,
                        user: session.user().clone(),
                        name: hello.device_name.clone(),
                        platform: hello.platform.clone(),
                    };
                    let storage = self.storage.as_mut().context("the server runs")?;
                    let opened = now_or_panic(open_device(storage, &hello, fresh, now));
                    let opened: Result<Opened, Refusal> = match opened {
                        Ok(opened) => Ok(Opened {
                            device: opened.state.id,
                            forked_from: opened.forked_from,
                            next_number: opened.state.last_number + 1,
                        }),
                        Err(OpenDeviceError::Refused(refusal)) => Err(*refusal),
                        Err(OpenDeviceError::Storage(error)) => bail!("open a device: {error}"),
                    };
                    if let Some(session) = self.sessions.get_mut(&id) {
                        session.opened(opened);
                    }
                }
                Action::Commit(request) => {
                    let session = self.sessions.get(&id).context("the session is open")?;
                    let submission = Submission {
                        identity: Arc::clone(session.identity()),
                        device: session.device(),
                        changeset: request.changeset,
                        sent: request.sent,
                        refused: request.refused,
                    };
                    self.commit(&[submission], Some(id), now)?;
                }
                Action::Watch => {
                    if let Some(session) = self.sessions.get(&id)
                        && let Some(sight) = session.sight()
                    {
                        self.hub.watch(id, session.device(), sight);
                    }
                }
                Action::Renew(_) | Action::Close => {}
            }
        }
        self.pump(id, now)
    }

    /// Commits, answers the submitter and wakes everybody concerned.
    fn commit(
        &mut self,
        submissions: &[Submission],
        from: Option<SessionId>,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let storage = self.storage.as_mut().context("the server runs")?;
        let outcome = now_or_panic(commit_group(storage, &self.context.plan, submissions, now));
        if let Some(error) = outcome.failure {
            bail!("the storage failed: {error}");
        }
        self.context.recent.push(&outcome.entries);
        if let Some(session) = from.and_then(|id| self.sessions.get_mut(&id)) {
            for result in &outcome.results {
                session.committed(result);
            }
        }
        let mut concerned = std::collections::BTreeSet::new();
        for entry in &outcome.entries {
            concerned.extend(self.hub.concerned(entry));
        }
        for id in concerned {
            if Some(id) != from {
                self.pump(id, now)?;
            }
        }
        Ok(())
    }

    /// What another program wrote into the database is found and sent.
    pub(crate) fn drain(&mut self, now: Timestamp) -> anyhow::Result<()> {
        self.commit(&[], None, now)
    }

    pub(crate) fn pump(&mut self, id: SessionId, now: Timestamp) -> anyhow::Result<()> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        let reader = self.reader.as_mut().context("the server runs")?;
        session.timeout(now);
        now_or_panic(session.pump(reader, now)).context("pump a session")?;
        while let Some(action) = session.poll_action() {
            if matches!(action, Action::Watch)
                && let Some(sight) = session.sight()
            {
                self.hub.watch(id, session.device(), sight);
            }
        }
        Ok(())
    }

    pub(crate) fn poll_frame(&mut self, id: SessionId) -> Option<Vec<u8>> {
        self.sessions.get_mut(&id)?.poll_frame()
    }

    /// The database, for another program and for the checkers.
    pub(crate) fn database(&self) -> &rusqlite::Connection {
        &self.keeper
    }

    pub(crate) fn context(&self) -> &Arc<SessionContext> {
        &self.context
    }
}

pub(crate) fn open_memory(name: &str) -> anyhow::Result<rusqlite::Connection> {
    let conn = rusqlite::Connection::open(format!("file:/{name}?vfs=memdb"))?;
    conn.busy_timeout(std::time::Duration::from_secs(1))?;
    Ok(conn)
}

fn open(
    name: &str,
    config: &Config,
    rng: &mut Rng,
    now: Timestamp,
) -> anyhow::Result<(SqliteStorage, SqliteReader, Arc<SessionContext>)> {
    let mut entropy = [0; 32];
    rng.fill(&mut entropy);
    let mut storage = SqliteStorage::open_in_memory(name, &entropy)?;
    let options = SchemaOptions {
        managed: true,
        allow: Vec::new(),
    };
    let report = now_or_panic(storage.apply_schema(config, &options))?;
    let rules = Rules::compile(&report.schema, storage.secret())
        .map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    now_or_panic(storage.prepare_lookups(&rules.lookups()))?;
    let fingerprint = rules.fingerprint();
    let info = SchemaInfo::from_schema(&report.schema);
    let plan = Arc::new(Context::new(report.schema, rules));
    if report.rules != Some(fingerprint) {
        now_or_panic(rebuild_rules(&mut storage, &plan, now))?;
    }
    let head = {
        let group = now_or_panic(storage.begin())?;
        let head = group.head();
        now_or_panic(group.rollback());
        head
    };
    let reader = storage.reader()?;
    let context = Arc::new(SessionContext {
        server: storage.server_id(),
        secret: *storage.secret(),
        info_hash: info.hash(),
        info,
        plan,
        recent: Arc::new(Recent::new(head.version, head.tag)),
    });
    Ok((storage, reader, context))
}
