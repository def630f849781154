//! What all handlers and sessions of a server share.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::http::{HeaderMap, StatusCode, header};
use parking_lot::{Mutex, RwLock};
use syncline_core::{
    Timestamp, UserId,
    config::Config,
    rules::Identity,
    wire::{Refusal, code},
};
use syncline_store::{GroupOutcome, LogEntry, StorageError};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, mpsc, watch};

use super::{
    Backend, Remember,
    accounts::{self, Accounts},
    auth::{self, Auth},
    clock,
    committer::{News, Request},
    error::ApiError,
    exchange::Exchanges,
    held::{AllHeld, TOO_MUCH},
    metrics::{self, Metrics},
    peer::Network,
    presence::{Presence, Presences},
    provider::Provider,
    readers::Readers,
    requests::Requests,
    tickets::Tickets,
    turns::{Turn, Turns},
    wake::Wake,
};
use crate::{Hub, Rates, SessionContext, SessionId, session::Proof};

/// The claim of an administrator's token; its value is `true`.
pub(crate) const ADMIN_CLAIM: &str = "syncline_admin";
const PUSH_TURNS: usize = 64;
/// Requests are refused while so many of a user's read or wait.
const READ_LINE_MAX: usize = 200;

/// One for each server, behind an `Arc`.
pub(crate) struct Shared<B: Backend> {
    pub(super) context: RwLock<Arc<SessionContext>>,
    pub(crate) config: RwLock<Config>,
    /// Held while tables are added, so that two additions do not undo each other.
    pub(crate) adding_tables: AsyncMutex<()>,
    /// Whose turn it is to push over HTTP, by user: few share a turn by chance.
    pub(super) push_turns: [AsyncMutex<()>; PUSH_TURNS],
    pub(crate) hub: Mutex<Hub>,
    pub(super) wakers: Mutex<HashMap<SessionId, Arc<Wake>>>,
    pub(super) news: Mutex<Untold>,
    /// Where sessions run.
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) sessions: AtomicU64,
    pub(super) rules_since: AtomicU64,
    pub(super) connections: Arc<Mutex<Connections>>,
    pub(super) connections_max: usize,
    pub(super) user_requests: Requests<UserId>,
    pub(super) address_requests: Requests<Network>,
    /// What all sessions and requests keep of changesets.
    pub(crate) held: Arc<AllHeld>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(crate) readers: Arc<Readers<B::Reader>>,
    pub(super) read_turns: Arc<Turns>,
    pub(crate) auth: Auth,
    pub(crate) accounts: Option<Arc<Accounts>>,
    pub(super) provider: Option<Provider>,
    pub(crate) dev: bool,
    /// Who may ask for `/metrics`.
    pub(crate) metrics_for: metrics::Readers,
    pub(super) remember: Option<Remember>,
    pub(crate) exchanges: Exchanges,
    pub(crate) tickets: Tickets,
    pub(crate) presences: Presences,
    pub(super) generation: AtomicU64,
    pub(super) stop: watch::Sender<bool>,
    pub(crate) metrics: Metrics,
}

impl<B: Backend> Shared<B> {
    pub(crate) fn context(&self) -> Arc<SessionContext> {
        Arc::clone(&self.context.read())
    }

    /// How fast one connection may talk.
    pub(crate) fn rates(&self) -> Rates {
        let limits = &self.config.read().limits;
        Rates {
            messages_per_second: limits.messages_per_second,
            bytes_per_second: limits.bytes_per_second,
        }
    }

    /// Counts a request of this user (spec LI3).
    pub(crate) fn requests_by_user(&self, who: &Identity, now: Timestamp) -> Result<(), ApiError> {
        let most = self.config.read().limits.user_requests_per_second;
        let Some(user) = &who.user else { return Ok(()) };
        let counted = self.user_requests.count(user.clone(), most, now);
        counted.map_err(|wait| too_fast("one person", most, wait))
    }

    /// Counts a request from this address (spec LI3). Of this machine there may be a proxy that
    /// nobody told us of, and everybody behind it.
    pub(crate) fn requests_by_address(&self, from: IpAddr, now: Timestamp) -> Result<(), ApiError> {
        if from.is_loopback() {
            return Ok(());
        }
        let most = self.config.read().limits.address_requests_per_second;
        let counted = self.address_requests.count(from.into(), most, now);
        counted.map_err(|wait| too_fast("one address", most, wait))
    }

    /// Keeps the tables of `config` for the next start.
    pub(crate) fn remember(&self, config: &Config) -> std::io::Result<()> {
        self.remember.as_ref().map_or(Ok(()), |keep| keep(config))
    }

    /// Changes when sessions have to connect again.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Makes a session known, to be woken by `wake`, until the guard is dropped.
    pub(crate) fn register(
        self: &Arc<Self>,
        wake: Arc<Wake>,
        identity: &Identity,
    ) -> Registered<B> {
        let id = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        self.wakers.lock().insert(id, Arc::clone(&wake));
        let presence = Arc::new(Presence::new(id, wake, accounts::login_of(identity)));
        self.presences.arrived(&presence);
        Registered {
            shared: Arc::clone(self),
            id,
            presence,
        }
    }

    /// Waits until no other push over HTTP of this user is under way.
    pub(crate) async fn push_turn(&self, user: &UserId) -> MutexGuard<'_, ()> {
        let sum = user.0.bytes().fold(0, |sum: usize, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(byte))
        });
        self.push_turns[sum % PUSH_TURNS].lock().await
    }

    /// Serves a request: runs `work` with a reader when it is the turn of this user's (spec LI10).
    pub(crate) async fn read_for<T: Send + 'static>(
        &self,
        who: &Identity,
        work: impl FnOnce(&mut B::Reader) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if self.read_turns.count(&who.user) >= READ_LINE_MAX {
            let sentence = format!(
                "{READ_LINE_MAX} of this user's requests and devices are reading or wait to: come \
                 back in a few seconds"
            );
            let mut error = come_back(StatusCode::TOO_MANY_REQUESTS, sentence);
            error.refusal.code = code::TOO_FAST.into();
            return Err(error);
        }
        let turn = self.turn_of(who).await;
        Ok(self.read_in(turn, work).await?)
    }

    /// Waits for the turn of this user's.
    pub(crate) fn turn_of(&self, who: &Identity) -> impl Future<Output = Turn> + Send + use<B> {
        let most = self.config.read().limits.user_reads;
        let turns = Arc::clone(&self.read_turns);
        let user = who.user.clone();
        async move { turns.take(user, most).await }
    }

    /// Runs `work` with a reader, in a turn that ends with it.
    pub(crate) async fn read_in<T: Send + 'static>(
        &self,
        turn: Turn,
        work: impl FnOnce(&mut B::Reader) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        // Reading goes on when whoever asked has left, and so does the turn.
        let in_turn = move |reader: &mut B::Reader| {
            let _turn = turn;
            work(reader)
        };
        self.readers.run(in_turn).await
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Whether the storage's thread is there to commit.
    pub(crate) fn is_committing(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Gives a request to the committer; an error means that the server stops.
    pub(crate) async fn request(&self, request: Request) -> Result<(), ApiError> {
        self.requests.send(request).await.map_err(|_| stopping())
    }

    /// Who asks: the bearer token of the request, if it is good.
    pub(crate) async fn identify(&self, headers: &HeaderMap) -> Result<Proof, ApiError> {
        let header = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.split_once(' '));
        match token {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => {
                Ok(self.prove(token.trim()).await?)
            }
            Some(_) | None => {
                Err(auth::unauthorized("a token is needed: `Authorization: Bearer …`").into())
            }
        }
    }

    /// The identity that a token proves: one of an account here, or what else is trusted.
    pub(crate) async fn prove(&self, token: &str) -> Result<Proof, Refusal> {
        let Some((issuer, kid)) = auth::named_by(token) else {
            return self.auth.verify(token);
        };
        if let Some(accounts) = self.accounts.as_ref().filter(|own| own.issuer() == issuer) {
            return accounts.verify(token, &kid);
        }
        match self
            .provider
            .as_ref()
            .filter(|other| other.issuer() == issuer)
        {
            Some(provider) => provider.verify(token, &kid).await,
            None => self.auth.verify(token),
        }
    }

    /// Whether the login that an identity was proved by has ended.
    pub(crate) fn has_signed_out(&self, identity: &Identity) -> bool {
        let login = accounts::login_of(identity);
        match (&self.accounts, login) {
            (Some(accounts), Some(login)) => accounts.has_ended(login),
            (Some(_) | None, _) => false,
        }
    }

    /// Refuses whoever is no administrator: the token has to have the claim [`ADMIN_CLAIM`].
    pub(crate) async fn check_admin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let proof = self.identify(headers).await?;
        let claim = proof.identity.claims.get(ADMIN_CLAIM);
        if claim == Some(&serde_json::Value::Bool(true)) {
            return Ok(());
        }
        let sentence = format!("only for administrators: the token needs the claim {ADMIN_CLAIM}");
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            code::FORBIDDEN,
            sentence,
        ))
    }

    /// Counts a session of `identity` for as long as the guard lives.
    pub(crate) fn connection(&self, identity: &Identity) -> Result<ConnectionGuard, ApiError> {
        if self.is_stopping() {
            return Err(stopping());
        }
        let user = identity.user.clone();
        let mut open = self.connections.lock();
        if open.all >= self.connections_max {
            let sentence = "this server has as many connections as it may have";
            return Err(come_back(StatusCode::SERVICE_UNAVAILABLE, sentence));
        }
        // Nobody alone takes every place there is.
        let most = self.config.read().limits.user_connections;
        let own = open.by_user.entry(user.clone()).or_insert(0);
        if *own >= most as usize {
            let sentence = format!(
                "you have {own} connections to this server, as many as one person may have; close \
                 one, or wait until one ends"
            );
            return Err(come_back(StatusCode::TOO_MANY_REQUESTS, sentence));
        }
        *own += 1;
        open.all += 1;
        drop(open);
        Ok(ConnectionGuard {
            connections: Arc::clone(&self.connections),
            user,
        })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.lock().all
    }

    /// What the committer has to tell; called by it alone, in the order of the log.
    pub(super) fn publish(self: &Arc<Self>, news: News<'_>) {
        match news {
            News::Group(outcome) => self.publish_group(outcome),
            News::Answered(outcome) => self.wake_for(&outcome.entries),
            News::Opened(presence, device) => {
                self.presences.opened(presence, device);
                if let (Some(accounts), Some(login)) = (&self.accounts, presence.login) {
                    accounts.device_opened(login, device);
                }
            }
            News::Deregistered(device) => {
                self.presences.deregister(device);
                if let Some(accounts) = &self.accounts {
                    accounts.device_deregistered(device);
                }
            }
            News::Refused(refused) => {
                if let Some(accounts) = &self.accounts {
                    accounts.refused(refused);
                }
            }
            News::Context(context) => {
                *self.context.write() = Arc::clone(context);
                self.begin_again();
            }
        }
    }

    /// Sessions of the old tables and rules are told to connect again.
    fn begin_again(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.wake_all();
    }

    /// Lets every session look whether it may go on.
    pub(super) fn wake_all(&self) {
        self.wakers.lock().values().for_each(|wake| wake.wake());
    }

    /// Makes committed entries readable.
    fn publish_group(&self, outcome: &GroupOutcome) {
        let entries = &outcome.entries;
        if let Some(head) = outcome.head
            && self
                .rules_since
                .fetch_max(head.rules_since.0, Ordering::AcqRel)
                < head.rules_since.0
        {
            // Another program changed so much that buckets were computed anew.
            self.begin_again();
        }
        let recent = Arc::clone(&self.context().recent);
        let has_gap = recent.push(entries);
        if outcome
            .head
            .is_some_and(|head| recent.reach(head.version, head.tag))
            || has_gap
        {
            // Whom the missing entries concern is not known.
            self.wake_all();
        }
    }

    /// Wakes those whom committed entries concern, who may be many: not from the committer's
    /// thread, which has more to do, and for which each would be a task from elsewhere. One task
    /// walks at a time, for all that was committed meanwhile at once.
    fn wake_for(self: &Arc<Self>, entries: &[Arc<LogEntry>]) {
        if entries.is_empty() {
            return;
        }
        if !self.news.lock().add(entries) {
            return;
        }
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            loop {
                let Some(entries) = shared.news.lock().take() else {
                    return;
                };
                shared.wake_concerned(&entries);
                tokio::task::yield_now().await;
            }
        });
    }

    fn wake_concerned(&self, entries: &[Arc<LogEntry>]) {
        let hub = self.hub.lock();
        let wakers = self.wakers.lock();
        hub.each_concerned(entries.iter().map(Arc::as_ref), |session| {
            if let Some(wake) = wakers.get(&session) {
                wake.wake();
            }
        });
    }
}

/// Committed entries of which nobody was told yet.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    entries: Vec<Arc<LogEntry>>,
    /// A task takes them, and looks again before it ends.
    is_walked: bool,
}

impl Untold {
    /// Whether somebody has to begin to take them: nobody does.
    fn add(&mut self, entries: &[Arc<LogEntry>]) -> bool {
        self.entries.extend_from_slice(entries);
        !std::mem::replace(&mut self.is_walked, true)
    }

    /// What is there, or `None`: then whoever comes next starts another task.
    fn take(&mut self) -> Option<Vec<Arc<LogEntry>>> {
        self.is_walked = !self.entries.is_empty();
        self.is_walked.then(|| std::mem::take(&mut self.entries))
    }
}

/// What is said when the server stops.
pub(crate) const STOPPING: &str = "the server is stopping";

pub(crate) fn stopping() -> ApiError {
    let mut error = come_back(StatusCode::SERVICE_UNAVAILABLE, STOPPING);
    error.refusal.retry_after_ms = Some(1_000);
    error
}

/// What to say to who sends more than the server can keep in memory now.
pub(crate) fn too_much() -> ApiError {
    let mut error = come_back(StatusCode::SERVICE_UNAVAILABLE, TOO_MUCH);
    error.refusal.retry_after_ms = Some(2_000);
    error
}

fn too_fast(who: &str, most: u32, wait_millis: u64) -> ApiError {
    let sentence = format!(
        "more requests than {who} may make here ({most} a second): wait {} s, then go on",
        wait_millis.div_ceil(1_000)
    );
    let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, code::TOO_FAST, sentence);
    error.refusal.retry_after_ms = Some(wait_millis);
    error
}

pub(crate) fn come_back(status: StatusCode, sentence: impl Into<String>) -> ApiError {
    let mut error = ApiError::new(status, code::UNAVAILABLE, sentence);
    error.refusal.retry_after_ms = Some(5_000);
    error
}

/// A session that the hub may wake.
pub(crate) struct Registered<B: Backend> {
    shared: Arc<Shared<B>>,
    pub(crate) id: SessionId,
    pub(crate) presence: Arc<Presence>,
}

impl<B: Backend> Drop for Registered<B> {
    fn drop(&mut self) {
        self.shared.presences.closed(&self.presence, clock::now());
        self.shared.hub.lock().forget(self.id);
        self.shared.wakers.lock().remove(&self.id);
    }
}

/// Sessions that are open.
#[derive(Debug, Default)]
pub(super) struct Connections {
    all: usize,
    by_user: BTreeMap<Option<UserId>, usize>,
}

/// One counted session.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    connections: Arc<Mutex<Connections>>,
    user: Option<UserId>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.all -= 1;
        if let Some(own) = open.by_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                open.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use syncline_core::{ChangesetId, DeviceId, Hlc, Tag, Version};

    use super::*;

    fn entry(version: u64) -> Arc<LogEntry> {
        Arc::new(LogEntry {
            version: Version(version),
            tag: Tag::default(),
            changeset: ChangesetId::default(),
            user: None,
            device: DeviceId::default(),
            number: 0,
            hlc: Hlc::default(),
            grants: Vec::new(),
            records: Vec::new(),
            digests: Vec::new(),
        })
    }

    #[test]
    fn what_was_committed_has_one_walker_who_misses_nothing() {
        let mut news = Untold::default();
        assert!(news.add(&[entry(1)]), "somebody has to begin");
        assert!(!news.add(&[entry(2)]), "one is enough");
        let taken = news.take().expect("there is something");
        assert_eq!(taken, [entry(1), entry(2)]);
        assert!(!news.add(&[entry(3)]), "the same looks again");
        assert_eq!(news.take(), Some(vec![entry(3)]));
        assert_eq!(news.take(), None);
        assert!(news.add(&[entry(4)]), "it has ended");
    }
}
