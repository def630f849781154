//! A server that runs: what a kill takes away.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use anyhow::{Context as _, bail};
use syncline_core::{
    DeviceId, Timestamp, Version,
    config::Config,
    rules::Rules,
    wire::{PushResult, Refusal, SchemaInfo},
};
use syncline_server::{Action, Hub, Recent, Session, SessionContext, SessionId, session::Opened};
use syncline_store::{
    Context, DeviceHello, Group, Head, LogEntry, OpenDeviceError, Reader as _, SchemaOptions,
    Storage, StorageError, Submission, commit_group, open_device, rebuild_rules,
};
use syncline_store_sqlite::{SqliteReader, SqliteStorage};

use super::CrashPoint;
use crate::{
    database::{Fuse, Place},
    rng::Rng,
};

/// Futures of SQLite are ready at once: one poll is enough.
pub(super) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut TaskContext::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a future of the embedded storage waits for nobody"),
    }
}

/// What a commit did, for the checks.
pub(crate) struct Committed {
    pub(crate) results: Vec<PushResult>,
    /// The log's end.
    pub(crate) head: Version,
    /// What the server's clock showed.
    pub(crate) now: Timestamp,
    /// What was judged, in the order of the results, by whom it was pushed, and what it added to
    /// the log.
    pub(crate) submissions: Vec<Submission>,
    pub(crate) sessions: Vec<SessionId>,
    pub(crate) log: Vec<Arc<LogEntry>>,
}

/// What a kill takes away.
pub(super) struct Running {
    pub(super) storage: SqliteStorage,
    pub(super) reader: SqliteReader,
    pub(super) context: Arc<SessionContext>,
    pub(super) hub: Hub,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// What waits to be committed, in order of arrival; the session may have ended meanwhile.
    pub(super) waiting: VecDeque<(SessionId, Submission)>,
    /// Sessions that could not read what the next group settles.
    unread: BTreeSet<SessionId>,
    /// What it committed when it started: writes of other programs while it was away.
    pub(super) drained: Vec<Arc<LogEntry>>,
    /// What is committed and nobody was told of yet.
    handover: Option<Handover>,
    rules_since: Version,
    last_head: Version,
    /// Where it dies.
    pub(super) crash: Option<CrashPoint>,
    /// It has died there: nothing of it goes on.
    pub(super) is_dead: bool,
    pub(super) fuse: Fuse,
}

/// A group between its commit and those who are told of it.
struct Handover {
    /// The sessions that asked for it, with their answers.
    answers: Vec<(SessionId, PushResult)>,
    entries: Vec<Arc<LogEntry>>,
    head: Option<Head>,
}

impl Running {
    pub(super) fn start(
        place: &Place,
        (file, config): &(String, String),
        rng: &mut Rng,
        now: Timestamp,
        fuse: Fuse,
    ) -> anyhow::Result<Self> {
        fuse.put_out();
        let config = Config::parse(file, config).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let mut entropy = [0; 32];
        rng.fill(&mut entropy);
        let mut storage = place.storage(&entropy)?;
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
        let group = ready(storage.begin())?;
        let before = group.head().version;
        ready(group.rollback());
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
        let mut reader = storage.reader()?;
        // Computing the rules anew takes what others wrote, too.
        let written = ready(reader.log_after(before, usize::MAX))?;
        let context = Arc::new(SessionContext {
            server: storage.server_id(),
            secret: *storage.secret(),
            info_hash: info.hash(),
            info,
            plan,
            recent: Arc::new(Recent::new(head.version, head.tag)),
            subscriptions_max: 1_000,
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
            drained: written,
            handover: None,
            rules_since: head.rules_since,
            last_head: head.version,
        })
    }

    /// Whether it dies here, if it has not died before.
    pub(super) fn dies_at(&mut self, point: CrashPoint) -> bool {
        self.is_dead |= self.crash == Some(point);
        self.is_dead
    }

    pub(super) fn head(&mut self) -> anyhow::Result<Head> {
        let group = ready(self.storage.begin())?;
        let head = group.head();
        ready(group.rollback());
        Ok(head)
    }

    /// Does everything that the session asks for, and pumps it.
    pub(super) fn act(
        &mut self,
        id: SessionId,
        rng: &mut Rng,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        while let Some(session) = self.sessions.get_mut(&id)
            && let Some(action) = session.poll_action()
        {
            match action {
                Action::Open(hello) => {
                    let mut fresh = DeviceId::default();
                    rng.fill(&mut fresh.0);
                    let hello = DeviceHello::new(&hello, session.user().clone());
                    let opened = ready(open_device(&mut self.storage, &hello, fresh, now));
                    let opened: Result<Opened, Refusal> = match opened {
                        Ok(opened) => Ok(Opened::from(opened)),
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
                    let submission = session.submission(*request);
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

    pub(super) fn pump(&mut self, id: SessionId, now: Timestamp) -> anyhow::Result<()> {
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

    /// Whether anything waits to be committed, or to be told.
    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.handover.is_some()
    }

    /// Commits what waits; [`Running::hand_over`] tells of it, at once or a moment later.
    pub(super) fn commit(&mut self, max: usize, now: Timestamp) -> anyhow::Result<Committed> {
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
        // Where it dies now, what was answered to nobody is in the log all the same.
        if !self.dies_at(CrashPoint::Committed) {
            self.handover = Some(Handover {
                answers: ids.iter().copied().zip(outcome.results.clone()).collect(),
                entries: outcome.entries.clone(),
                head: outcome.head,
            });
        }
        Ok(Committed {
            results: outcome.results,
            head: outcome.head.map_or(self.last_head, |head| head.version),
            sessions: ids,
            submissions,
            log: outcome.entries,
            now,
        })
    }

    /// Answers the submitters of what was committed last, and wakes everybody concerned.
    pub(super) fn hand_over(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let Some(Handover {
            answers,
            entries,
            head,
        }) = self.handover.take()
        else {
            return Ok(());
        };
        let recent = &self.context.recent;
        let has_gap = recent.push(&entries);
        let ends_in_gap = head.is_some_and(|head| recent.reach(head.version, head.tag));
        let mut concerned = std::mem::take(&mut self.unread);
        if has_gap || ends_in_gap {
            concerned.extend(self.sessions.keys().copied());
        }
        for (id, result) in &answers {
            if let Some(session) = self.sessions.get_mut(id) {
                session.committed(result);
                concerned.insert(*id);
            }
        }
        if self.dies_at(CrashPoint::Answered) {
            concerned.clear();
        }
        let rules_since = head.map_or(self.rules_since, |head| head.rules_since);
        if rules_since > self.rules_since {
            self.rules_since = rules_since;
            for session in self.sessions.values_mut() {
                session.go_away("the rules changed", 1);
            }
        }
        for entry in &entries {
            concerned.extend(self.hub.concerned(entry));
        }
        if let Some(head) = head {
            self.last_head = head.version;
        }
        let half = concerned.len() / 2;
        for (i, id) in concerned.into_iter().enumerate() {
            if i >= half && self.dies_at(CrashPoint::FanningOut) {
                break;
            }
            self.pump(id, now)?;
        }
        Ok(())
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
