//! The server's real code without its network: storage, pipeline, hub and sessions by hand.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use anyhow::{Context as _, bail};
use rusqlite::Connection;
use syncline_core::{
    DeviceId, TableNumber, Timestamp, UserId, Version,
    config::Config,
    rules::{Identity, Rules},
    wire::{PushResult, Refusal, SchemaInfo},
};
use syncline_server::{Action, Hub, Recent, Session, SessionContext, SessionId, session::Opened};
use syncline_store::{
    Context, DeviceHello, Group, LogEntry, OpenDeviceError, SchemaOptions, Storage, StorageError,
    Submission, commit_group, open_device, rebuild_rules, testkit::Audit,
};
use syncline_store_sqlite::{SqliteReader, SqliteStorage};

use crate::{
    checker::bounded::check_session,
    database::{Fuse, copy, fresh_name, open_memory, transfer},
    oracle::Columns,
    rng::Rng,
    schema::RuleSet,
    subject::App,
};

/// Futures of SQLite are ready at once: one poll is enough.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut TaskContext::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a future of the embedded storage waits for nobody"),
    }
}

/// Where a server can be told to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrashPoint {
    /// A frame has arrived, and nobody has looked at it.
    Received,
    /// A device was opened, and nobody has told it.
    Opened,
    /// A group is committed, and nobody knows.
    Committed,
    /// Sessions know what became of their changesets; nobody else was woken.
    Answered,
    /// Half of those concerned were woken.
    FanningOut,
}

pub(crate) const CRASH_POINTS: [CrashPoint; 5] = [
    CrashPoint::Received,
    CrashPoint::Opened,
    CrashPoint::Committed,
    CrashPoint::Answered,
    CrashPoint::FanningOut,
];

/// A server; restarting it keeps the database and nothing else.
pub(crate) struct Server {
    name: String,
    pub(crate) rules: RuleSet,
    app: Rc<App>,
    /// Schema and rules as they were last compiled.
    pub(crate) plan: Arc<Context>,
    /// Another program on the same database, which keeps it alive over a restart.
    pub(crate) database: Connection,
    running: Option<Running>,
    next_session: u64,
    rng: Rng,
    /// How far its clock is off, in microseconds.
    pub(crate) skew: i64,
    fuse: Fuse,
}

/// What a kill takes away.
struct Running {
    storage: SqliteStorage,
    reader: SqliteReader,
    context: Arc<SessionContext>,
    hub: Hub,
    sessions: BTreeMap<SessionId, Session>,
    /// What waits to be committed, in order of arrival; the session may have ended meanwhile.
    waiting: VecDeque<(SessionId, Submission)>,
    /// Sessions that could not read what the next group settles.
    unread: BTreeSet<SessionId>,
    rules_since: Version,
    last_head: Version,
    /// Where it dies.
    crash: Option<CrashPoint>,
    /// It has died there: nothing of it goes on.
    is_dead: bool,
    fuse: Fuse,
}

/// What a commit did, for the checks.
pub(crate) struct Committed {
    pub(crate) results: Vec<PushResult>,
    /// The log's end, and how many entries were added to it.
    pub(crate) head: Version,
    pub(crate) entries: usize,
    /// What was judged, in the order of the results, and what it added to the log.
    pub(crate) submissions: Vec<Submission>,
    pub(crate) log: Vec<Arc<LogEntry>>,
}

impl Server {
    pub(crate) fn start(app: Rc<App>, mut rng: Rng, now: Timestamp) -> anyhow::Result<Self> {
        let name = fresh_name("server");
        let database = open_memory(&name)?;
        let rules = RuleSet::default();
        let fuse = Fuse::new();
        let config = app.config(rules);
        let running = Running::start(&name, &config, &mut rng, now, fuse.clone())?;
        Ok(Self {
            app,
            plan: Arc::clone(&running.context.plan),
            skew: 0,
            fuse,
            name,
            rules,
            database,
            running: Some(running),
            next_session: 1,
            rng,
        })
    }

    /// Loses everything but the database, as a kill does.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    pub(crate) fn resume(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let now = self.local(now);
        let fuse = self.fuse.clone();
        let config = self.app.config(self.rules);
        let running = Running::start(&self.name, &config, &mut self.rng, now, fuse)?;
        self.plan = Arc::clone(&running.context.plan);
        self.running = Some(running);
        Ok(())
    }

    /// What its clock shows.
    pub(crate) fn local(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_add_signed(self.skew))
    }

    /// It dies when it comes to `point`.
    pub(crate) fn crash_at(&mut self, point: CrashPoint) {
        if let Some(running) = &mut self.running {
            running.crash = Some(point);
        }
    }

    pub(crate) fn forget_crash(&mut self) {
        if let Some(running) = &mut self.running {
            running.crash = None;
        }
    }

    /// Whether it has died on the way.
    pub(crate) fn is_dead(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.is_dead)
    }

    /// Its disk fails, until [`Server::mend_disk`].
    pub(crate) fn break_disk(&mut self, commits: Option<u64>, statements: Option<u64>) {
        match (commits, statements) {
            (Some(commits), _) => self.fuse.light(commits),
            (None, Some(after)) => self.fuse.break_soon(after),
            (None, None) => {}
        }
    }

    pub(crate) fn mend_disk(&mut self) {
        self.fuse.put_out();
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// What a backup would hold.
    pub(crate) fn backup(&self) -> anyhow::Result<Connection> {
        copy(&self.database)
    }

    /// Puts an old copy in place of the database; the server has to be stopped.
    pub(crate) fn restore(&mut self, backup: &Connection) -> anyhow::Result<()> {
        if self.is_up() {
            bail!("a running server cannot be restored");
        }
        transfer(backup, &mut self.database)
    }

    pub(crate) fn connect(&mut self, user: &str, now: Timestamp) -> Option<SessionId> {
        let now = self.local(now);
        let running = self.running.as_mut().filter(|running| !running.is_dead)?;
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let identity = Arc::new(Identity {
            user: Some(UserId(user.to_owned())),
            claims: BTreeMap::new(),
        });
        let session = Session::new(Arc::clone(&running.context), identity, now);
        running.sessions.insert(id, session);
        Some(id)
    }

    pub(crate) fn disconnect(&mut self, id: SessionId) {
        if let Some(running) = &mut self.running {
            running.sessions.remove(&id);
            running.hub.forget(id);
        }
    }

    /// Whether the session goes on or has something left to say.
    pub(crate) fn has(&self, id: SessionId) -> bool {
        let session = self.running.as_ref().and_then(|r| r.sessions.get(&id));
        session.is_some_and(|session| !session.is_closed() || session.has_frames())
    }

    /// Whether the session takes another frame now, or is not there to take any.
    pub(crate) fn listens(&self, id: SessionId) -> bool {
        let session = self.running.as_ref().and_then(|r| r.sessions.get(&id));
        session.is_none_or(|session| session.is_listening() || session.is_closed())
    }

    /// What sessions and the hub hold is under its caps.
    pub(crate) fn check_bounded(&self) -> anyhow::Result<()> {
        let Some(running) = &self.running else {
            return Ok(());
        };
        if running.hub.len() > running.sessions.len() {
            bail!(
                "the hub knows {} sessions of {}",
                running.hub.len(),
                running.sessions.len()
            );
        }
        for (id, session) in &running.sessions {
            check_session(session.held()).with_context(|| format!("{id:?}"))?;
        }
        Ok(())
    }

    pub(crate) fn receive(
        &mut self,
        id: SessionId,
        frame: &[u8],
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let now = self.local(now);
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        if running.dies_at(CrashPoint::Received) {
            return Ok(());
        }
        if let Some(session) = running.sessions.get_mut(&id) {
            session.receive(frame, now);
            running.act(id, &mut self.rng, now)?;
        }
        Ok(())
    }

    pub(crate) fn poll_frame(&mut self, id: SessionId) -> Option<Vec<u8>> {
        self.running.as_mut()?.sessions.get_mut(&id)?.poll_frame()
    }

    /// Lets a session go on whose frames have left.
    pub(crate) fn pump(&mut self, id: SessionId, now: Timestamp) -> anyhow::Result<()> {
        let now = self.local(now);
        self.running.as_mut().map_or(Ok(()), |r| r.pump(id, now))
    }

    /// When [`Server::tick`] has something to do.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let running = self.running.as_ref()?;
        let open = running.sessions.values().filter(|s| !s.is_closed());
        let local = open.map(Session::poll_timeout).min()?;
        Some(Timestamp(local.0.saturating_add_signed(-self.skew)))
    }

    /// Time passed.
    pub(crate) fn tick(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let now = self.local(now);
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let due: Vec<SessionId> = running
            .sessions
            .iter()
            .filter(|(_, session)| !session.is_closed() && session.poll_timeout() <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            running.pump(id, now)?;
        }
        Ok(())
    }

    pub(crate) fn has_waiting(&self) -> bool {
        self.running.as_ref().is_some_and(|r| !r.waiting.is_empty())
    }

    /// Commits up to `max` of what waits, after what other programs wrote. `None`: there was
    /// nothing to do.
    pub(crate) fn commit(
        &mut self,
        max: usize,
        now: Timestamp,
    ) -> anyhow::Result<Option<Committed>> {
        let now = self.local(now);
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        if running.waiting.is_empty() && !running.storage.changed_elsewhere() {
            return Ok(None);
        }
        running.commit(max, now).map(Some)
    }

    /// Forgets what is older.
    pub(crate) fn trim(&mut self, horizon: Version) -> anyhow::Result<()> {
        match &mut self.running {
            Some(running) => match ready(running.storage.trim(horizon)) {
                Err(_) if running.fuse.is_burnt() => Ok(()),
                done => Ok(done?),
            },
            None => Ok(()),
        }
    }

    /// What the storage keeps of digests, members and grants, against the same computed anew.
    pub(crate) fn audit(&mut self, users: &[&str]) -> anyhow::Result<()> {
        let running = self.running.as_mut().context("the server runs")?;
        let audit = Audit::over(
            &mut running.storage,
            &running.context.plan,
            &mut running.reader,
            users,
        );
        if audit.maintained != audit.anew {
            bail!(
                "the server's books are wrong: kept {:#?}, anew {:#?}",
                audit.maintained,
                audit.anew
            );
        }
        Ok(())
    }

    /// The names of the app's tables by number.
    pub(crate) fn numbers(&self) -> BTreeMap<TableNumber, &'static str> {
        let Some(running) = &self.running else {
            return BTreeMap::new();
        };
        let schema = running.context.plan.schema();
        self.app
            .tables()
            .iter()
            .filter_map(|shape| Some((schema.table(shape.name)?.number, shape.name)))
            .collect()
    }

    /// Where [`crate::schema::Truth`] has each column.
    pub(crate) fn columns(&self) -> Columns {
        let Some(running) = &self.running else {
            return Columns::new();
        };
        let schema = running.context.plan.schema();
        let mut columns = Columns::new();
        for shape in self.app.tables() {
            let Some(table) = schema.table(shape.name) else {
                continue;
            };
            for (position, name) in shape.columns.iter().enumerate() {
                let found = table.columns.iter().find(|column| column.name == *name);
                columns.extend(found.map(|c| ((table.number, c.number), position)));
            }
        }
        columns
    }

    pub(crate) fn head(&mut self) -> anyhow::Result<Version> {
        let running = self.running.as_mut().context("the server runs")?;
        Ok(running.head()?.version)
    }
}

impl Running {
    fn start(
        name: &str,
        (file, config): &(String, String),
        rng: &mut Rng,
        now: Timestamp,
        fuse: Fuse,
    ) -> anyhow::Result<Self> {
        fuse.put_out();
        let config = Config::parse(file, config).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let mut entropy = [0; 32];
        rng.fill(&mut entropy);
        let mut storage = SqliteStorage::open_in_memory(name, &entropy)?;
        let options = SchemaOptions {
            managed: true,
            allow: Vec::new(),
        };
        let report = ready(storage.apply_schema(&config, &options))?;
        let rules = Rules::compile(&report.schema, storage.secret())
            .map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        ready(storage.prepare_lookups(&rules.lookups()))?;
        let fingerprint = rules.fingerprint();
        let info = SchemaInfo::from_schema(&report.schema);
        let plan = Arc::new(Context::new(report.schema, rules));
        if report.rules != Some(fingerprint) {
            ready(rebuild_rules(&mut storage, &plan, now))?;
        }
        let drained = ready(commit_group(&mut storage, &plan, &[], now));
        if let Some(error) = drained.failure {
            bail!("the storage failed at start: {error}");
        }
        let head = drained
            .head
            .context("a group that did not fail has a head")?;
        let reader = storage.reader()?;
        let context = Arc::new(SessionContext {
            server: storage.server_id(),
            secret: *storage.secret(),
            info_hash: info.hash(),
            info,
            plan,
            recent: Arc::new(Recent::new(head.version, head.tag)),
        });
        fuse.add(storage.connection())?;
        fuse.arm(true);
        Ok(Self {
            crash: None,
            is_dead: false,
            fuse,
            storage,
            reader,
            context,
            hub: Hub::default(),
            sessions: BTreeMap::new(),
            waiting: VecDeque::new(),
            unread: BTreeSet::new(),
            rules_since: head.rules_since,
            last_head: head.version,
        })
    }

    /// Whether it dies here, if it has not died before.
    fn dies_at(&mut self, point: CrashPoint) -> bool {
        self.is_dead |= self.crash == Some(point);
        self.is_dead
    }

    fn head(&mut self) -> anyhow::Result<syncline_store::Head> {
        let group = ready(self.storage.begin())?;
        let head = group.head();
        ready(group.rollback());
        Ok(head)
    }

    /// Does everything that the session asks for, and pumps it.
    fn act(&mut self, id: SessionId, rng: &mut Rng, now: Timestamp) -> anyhow::Result<()> {
        while let Some(session) = self.sessions.get_mut(&id)
            && let Some(action) = session.poll_action()
        {
            match action {
                Action::Open(hello) => {
                    let mut fresh = DeviceId::default();
                    rng.fill(&mut fresh.0);
                    let hello = DeviceHello {
                        device: hello.device,
                        lease: hello.lease,
                        next_lease: hello.next_lease,
                        user: session.user().clone(),
                        name: hello.device_name.clone(),
                        renamed: hello.renamed,
                        platform: hello.platform.clone(),
                        register_anew: hello.register_anew,
                    };
                    let opened = ready(open_device(&mut self.storage, &hello, fresh, now));
                    let opened: Result<Opened, Refusal> = match opened {
                        Ok(opened) => Ok(Opened {
                            device: opened.state.id,
                            name: opened.state.name,
                            forked_from: opened.forked_from,
                            next_number: opened.state.last_number + 1,
                        }),
                        Err(OpenDeviceError::Refused(refusal)) => Err(*refusal),
                        Err(OpenDeviceError::Storage(_)) if self.fuse.is_burnt() => {
                            Err(disk_failed())
                        }
                        Err(OpenDeviceError::Storage(error)) => bail!("open a device: {error}"),
                    };
                    if self.dies_at(CrashPoint::Opened) {
                        return Ok(());
                    }
                    let Some(session) = self.sessions.get_mut(&id) else {
                        return Ok(());
                    };
                    session.opened(opened);
                }
                Action::Commit(request) => {
                    let submission = Submission {
                        identity: Arc::clone(session.identity()),
                        device: session.device(),
                        lease: Some(request.lease),
                        horizon: Some(request.horizon),
                        is_behind: request.is_behind,
                        changeset: request.changeset,
                        sent: request.sent,
                        refused: request.refused,
                    };
                    self.waiting.push_back((id, submission));
                }
                Action::Watch => {
                    if let Some(sight) = session.sight() {
                        self.hub.watch(id, session.device(), sight);
                    }
                }
                Action::Renew(_) | Action::Close => {}
            }
        }
        self.pump(id, now)
    }

    fn pump(&mut self, id: SessionId, now: Timestamp) -> anyhow::Result<()> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        session.timeout(now);
        match ready(session.pump(&mut self.reader, now)) {
            Ok(_) => {}
            // Rows that another program wrote are not read before a group has taken them.
            Err(StorageError::Busy) => {
                self.unread.insert(id);
            }
            Err(error) => return Err(error).context("pump a session"),
        }
        while let Some(action) = session.poll_action() {
            match action {
                Action::Watch => {
                    if let Some(sight) = session.sight() {
                        self.hub.watch(id, session.device(), sight);
                    }
                }
                Action::Close => {}
                Action::Open(_) | Action::Commit(_) | Action::Renew(_) => {
                    bail!("a pump asked for {action:?}")
                }
            }
        }
        Ok(())
    }

    /// Commits, answers the submitters and wakes everybody concerned.
    fn commit(&mut self, max: usize, now: Timestamp) -> anyhow::Result<Committed> {
        let group: Vec<_> = self.waiting.drain(..max.min(self.waiting.len())).collect();
        let (ids, submissions): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let outcome = ready(commit_group(
            &mut self.storage,
            &self.context.plan,
            &submissions,
            now,
        ));
        if let Some(error) = &outcome.failure
            && !self.fuse.is_burnt()
        {
            bail!("the storage failed: {error}");
        }
        if self.dies_at(CrashPoint::Committed) {
            // What was answered to nobody is in the log all the same.
            return Ok(Committed {
                results: outcome.results,
                head: outcome.head.map_or(self.last_head, |head| head.version),
                entries: outcome.entries.len(),
                submissions,
                log: outcome.entries,
            });
        }
        self.context.recent.push(&outcome.entries);
        let mut concerned = std::mem::take(&mut self.unread);
        for (id, result) in ids.iter().zip(&outcome.results) {
            if let Some(session) = self.sessions.get_mut(id) {
                session.committed(result);
                concerned.insert(*id);
            }
        }
        if self.dies_at(CrashPoint::Answered) {
            concerned.clear();
        }
        let rules_since = outcome
            .head
            .map_or(self.rules_since, |head| head.rules_since);
        if rules_since > self.rules_since {
            self.rules_since = rules_since;
            for session in self.sessions.values_mut() {
                session.go_away("the rules changed", 1);
            }
        }
        for entry in &outcome.entries {
            concerned.extend(self.hub.concerned(entry));
        }
        if let Some(head) = outcome.head {
            self.last_head = head.version;
        }
        let half = concerned.len() / 2;
        for (i, id) in concerned.into_iter().enumerate() {
            if i >= half && self.dies_at(CrashPoint::FanningOut) {
                break;
            }
            self.pump(id, now)?;
        }
        Ok(Committed {
            results: outcome.results,
            head: self.last_head,
            entries: outcome.entries.len(),
            submissions,
            log: outcome.entries,
        })
    }
}

/// What the server tells a device that it could not open.
fn disk_failed() -> Refusal {
    Refusal {
        code: syncline_core::wire::code::STORAGE.into(),
        message: "the server's disk fails".into(),
        retry: true,
        retry_after_ms: None,
        change: None,
        fatal: true,
    }
}
