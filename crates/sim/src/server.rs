//! The server's real code without its network: storage, pipeline, hub and sessions by hand.

mod running;

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use anyhow::{Context as _, bail};
use rusqlite::Connection;
use syncline_core::{
    ColumnNumber, TableNumber, Timestamp, UserId, Version, rules::Identity, schema::MergeStrategy,
};
use syncline_server::{Session, SessionId};
use syncline_store::{Context, LogEntry, Storage as _, testkit::Audit};

pub(crate) use self::running::Committed;
use self::running::{Running, ready};
use crate::{
    checker::bounded::check_session,
    database::{Disk, Fuse, Place, copy, open, transfer},
    oracle::Columns,
    rng::Rng,
    schema::{Setup, Who},
    subject::App,
};

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
    place: Place,
    pub(crate) setup: Setup,
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

impl Server {
    pub(crate) fn start(
        app: Rc<App>,
        mut rng: Rng,
        disk: &Disk,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let place = disk.place("server");
        let database = open(&place)?;
        let setup = Setup::default();
        let fuse = Fuse::new();
        let config = app.config(setup);
        let running = Running::start(&place, &config, &mut rng, now, fuse.clone())?;
        Ok(Self {
            app,
            plan: Arc::clone(&running.context.plan),
            skew: 0,
            fuse,
            place,
            setup,
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

    /// Starts it again. Gives what other programs had written meanwhile, as the log has it.
    pub(crate) fn resume(&mut self, now: Timestamp) -> anyhow::Result<Vec<Arc<LogEntry>>> {
        let now = self.local(now);
        let fuse = self.fuse.clone();
        let config = self.app.config(self.setup);
        let mut running = Running::start(&self.place, &config, &mut self.rng, now, fuse)?;
        let drained = std::mem::take(&mut running.drained);
        self.plan = Arc::clone(&running.context.plan);
        self.running = Some(running);
        Ok(drained)
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

    pub(crate) fn connect(&mut self, who: Who<'_>, now: Timestamp) -> Option<SessionId> {
        let now = self.local(now);
        let running = self.running.as_mut().filter(|running| !running.is_dead)?;
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let identity = Arc::new(Identity {
            user: Some(UserId(who.user.to_owned())),
            claims: self.app.claims(who),
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
        let session = self.running.as_mut()?.sessions.get_mut(&id)?;
        session.poll_frame().map(Vec::from)
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

    /// Whether something waits to be committed, or to be told to those whom it concerns.
    pub(crate) fn has_waiting(&self) -> bool {
        self.running.as_ref().is_some_and(Running::has_work)
    }

    /// Commits up to `max` of what waits, after what other programs wrote; what it comes to is
    /// told by [`Server::hand_over`], at the next commit at the latest. `None`: there was nothing
    /// to do.
    pub(crate) fn commit(
        &mut self,
        max: usize,
        now: Timestamp,
    ) -> anyhow::Result<Option<Committed>> {
        let now = self.local(now);
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        running.hand_over(now)?;
        if running.is_dead {
            return Ok(None);
        }
        if running.waiting.is_empty() && !running.storage.changed_elsewhere() {
            return Ok(None);
        }
        running.commit(max, now).map(Some)
    }

    /// Tells those whom it concerns what the last commit came to.
    pub(crate) fn hand_over(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let now = self.local(now);
        self.running.as_mut().map_or(Ok(()), |r| r.hand_over(now))
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

    /// Forgets the history of rows that is older.
    pub(crate) fn trim_history(&mut self, horizon: Version) -> anyhow::Result<()> {
        if let Some(running) = &mut self.running {
            while ready(running.storage.trim_history(horizon))? {}
        }
        Ok(())
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

    /// How columns merge of which one value stays.
    pub(crate) fn strategies(&self) -> BTreeMap<(TableNumber, ColumnNumber), MergeStrategy> {
        let Some(running) = &self.running else {
            return BTreeMap::new();
        };
        let is_one_value = |merge: &MergeStrategy| {
            matches!(
                merge,
                MergeStrategy::LastWriteWins
                    | MergeStrategy::ServerWins
                    | MergeStrategy::ClientWins
            )
        };
        let mut strategies = BTreeMap::new();
        for table in &running.context.plan.schema().tables {
            let columns = table.columns.iter().filter(|c| is_one_value(&c.merge));
            strategies.extend(columns.map(|c| ((table.number, c.number), c.merge)));
        }
        strategies
    }

    pub(crate) fn head(&mut self) -> anyhow::Result<Version> {
        let running = self.running.as_mut().context("the server runs")?;
        Ok(running.head()?.version)
    }
}
