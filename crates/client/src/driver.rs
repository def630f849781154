//! Runs a replica: sockets, timers and a look at the file now and then.

use std::{
    cell::{Cell, RefCell, RefMut},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use syncline_core::{Timestamp, wire::code};
use syncline_replica::{Activity, BEGIN_ANEW, Closing, Event, Replica, Status};
use tokio::sync::watch;

use crate::{
    api::Api,
    credentials::Connection,
    error::ClientError,
    exchange::Exchange,
    file_watch::{FileWatch, LOOK_NEAR},
    system::{now, until},
    transport::{Transport, WebSocketError},
};

/// WebSocket failures in a row, while HTTP works, before the exchange is taken (spec SE22).
const WEB_SOCKET_FAILURES_MAX: u32 = 3;
/// How long the exchange is used before a WebSocket is tried again.
const EXCHANGE_FOR: Duration = Duration::from_secs(60);
/// Progress is told this often at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Connection attempts of an errand that has an end, before it gives up.
const ATTEMPTS_MAX: u32 = 5;
/// How long a frame may take to leave, and further seconds for each so many of its bytes.
const SEND_MAX: Duration = Duration::from_secs(60);
const SEND_BYTES_PER_SECOND: u64 = 8 * 1024;

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Everything local is answered and everything of the server is here.
    InStep,
    /// Everything local is in the server's log, or parked.
    Sent,
    /// Never: until interrupted.
    Forever,
}

/// Ends a run from outside (Ctrl-C, a button).
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<watch::Sender<bool>>);

impl Default for Interrupt {
    fn default() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }
}

impl Interrupt {
    /// Ends every run that has this interrupt, now and later.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is triggered; works in any executor.
    pub async fn triggered(&self) {
        let mut watch = self.watch();
        // The sender lives as long as `self`.
        let _triggered = watch.wait_for(|stop| *stop).await;
    }

    fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows that changed here because of the server.
    pub rows_received: u64,
    /// Changesets that it refused; they are in the queue with their reasons.
    pub refused: u64,
    /// Edits that lost against somebody else's.
    pub edits_lost: u64,
    pub conflicts_opened: u64,
    pub frames: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// How much of the time nothing was to be done here: the network or the server was waited for.
    pub waited: Duration,
}

impl Summary {
    /// Adds what another run did.
    pub(crate) fn add(&mut self, other: &Self) {
        self.rows_received += other.rows_received;
        self.refused += other.refused;
        self.edits_lost += other.edits_lost;
        self.conflicts_opened += other.conflicts_opened;
        self.frames += other.frames;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.waited += other.waited;
    }

    /// What was done since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            rows_received: self.rows_received - earlier.rows_received,
            refused: self.refused - earlier.refused,
            edits_lost: self.edits_lost - earlier.edits_lost,
            conflicts_opened: self.conflicts_opened - earlier.conflicts_opened,
            frames: self.frames - earlier.frames,
            bytes_sent: self.bytes_sent - earlier.bytes_sent,
            bytes_received: self.bytes_received - earlier.bytes_received,
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

/// What a run tells while it lasts.
#[derive(Debug)]
pub enum Notice<'a> {
    /// The replica's own.
    Event(&'a Event),
    /// Changes are on their way to the server: time to look at the status again.
    Sending,
    /// There is no connection; another attempt is made after the pause.
    Disconnected {
        error: &'a ClientError,
        pause: Duration,
    },
}

/// A replica with a server.
#[derive(Debug)]
pub struct Driver {
    /// Never borrowed across an `await`: between two steps of a run others may look at it.
    replica: Rc<RefCell<Replica>>,
    path: PathBuf,
    connection: Connection,
    api: Api,
    summary: Summary,
    /// What the run has done so far, for who listens to its notices.
    progress: Rc<Cell<Summary>>,
    web_socket_failures: u32,
    exchange_until: Option<std::time::Instant>,
    attempts: u32,
    attempts_max: u32,
    file: FileWatch,
    progress_told: std::time::Instant,
    data_version: i64,
}

/// How one attempt to have a connection ended.
enum Attempt {
    Over,
    Interrupted,
    /// Why, and when the replica wants another.
    Failed(ClientError, Option<Timestamp>),
}

/// What a conversation waited for.
enum Woken {
    Received(Result<Vec<u8>, Option<String>>),
    /// The file may have been written.
    Look,
    Timer,
}

/// How one connection ended.
enum End {
    Goal,
    Interrupted,
    Lost(Option<String>),
    Closing(Closing),
}

impl Driver {
    /// A driver for the replica of the file at `path`.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`].
    pub fn new(
        replica: Replica,
        path: PathBuf,
        connection: Connection,
    ) -> Result<Self, ClientError> {
        Self::shared(Rc::new(RefCell::new(replica)), path, connection)
    }

    /// A driver for a replica that others on this thread use between its steps.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`].
    pub fn shared(
        replica: Rc<RefCell<Replica>>,
        path: PathBuf,
        connection: Connection,
    ) -> Result<Self, ClientError> {
        let api = Api::new(&connection)?;
        let file = FileWatch::new(&path);
        if connection.is_in_clear() {
            tracing::warn!(url = %connection.url, "token and rows are sent without encryption");
        }
        Ok(Self {
            replica,
            path,
            connection,
            api,
            summary: Summary::default(),
            progress: Rc::default(),
            web_socket_failures: 0,
            exchange_until: None,
            attempts: 0,
            attempts_max: ATTEMPTS_MAX,
            file,
            progress_told: std::time::Instant::now(),
            data_version: 0,
        })
    }

    /// What a run has done so far; up to date when a notice is told.
    pub(crate) fn progress(&self) -> Rc<Cell<Summary>> {
        Rc::clone(&self.progress)
    }

    /// How often a run that has an end tries to connect before it gives up; at least once.
    pub fn set_attempts_max(&mut self, attempts: u32) {
        self.attempts_max = attempts.max(1);
    }

    /// The replica, to be asked and told; not to be held across an `await`.
    ///
    /// # Panics
    /// While another borrow of it is alive.
    #[must_use]
    pub fn replica(&self) -> RefMut<'_, Replica> {
        self.replica.borrow_mut()
    }

    /// Connects, and connects again, until `goal` is reached; `on_notice` hears everything.
    ///
    /// # Errors
    /// What makes going on pointless: a refusal that does not go away by itself, the file; for
    /// a goal with an end also a server that cannot be reached. [`ClientError::Interrupted`] only
    /// for a goal with an end.
    pub async fn run(
        &mut self,
        goal: Goal,
        interrupt: &Interrupt,
        mut on_notice: impl FnMut(&Notice<'_>, &Status),
    ) -> Result<Summary, ClientError> {
        self.summary = Summary::default();
        self.attempts = 0;
        let mut interrupted = interrupt.watch();
        loop {
            let attempt = self.attempt(goal, &mut interrupted, &mut on_notice).await?;
            let (error, again) = match attempt {
                Attempt::Over => return Ok(self.summary),
                Attempt::Interrupted => return self.interrupted(goal),
                Attempt::Failed(error, again) => (error, again),
            };
            // The replica's own wish to begin again with other tables is no outage.
            let is_outage =
                !matches!(&error, ClientError::Refused { code, .. } if code == BEGIN_ANEW);
            self.attempts += u32::from(is_outage);
            if goal != Goal::Forever && self.attempts >= self.attempts_max {
                return Err(error);
            }
            tracing::info!(%error, "not connected; trying again");
            let pause = again.map_or(Duration::from_secs(1), until);
            if is_outage {
                let status = self.check(self.replica().status())?;
                let error = &error;
                on_notice(&Notice::Disconnected { error, pause }, &status);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = interrupted.wait_for(|stop| *stop) => return self.interrupted(goal),
            }
        }
    }

    /// Connects once and converses until the connection ends.
    async fn attempt(
        &mut self,
        goal: Goal,
        interrupted: &mut watch::Receiver<bool>,
        on_notice: &mut impl FnMut(&Notice<'_>, &Status),
    ) -> Result<Attempt, ClientError> {
        let is_deregistered = self.replica().is_deregistered();
        if self.check(is_deregistered)? {
            return Err(self.deregistered());
        }
        let opening = std::time::Instant::now();
        let opened = tokio::select! {
            opened = self.open() => opened,
            _ = interrupted.wait_for(|stop| *stop) => return Ok(Attempt::Interrupted),
        };
        self.summary.waited += opening.elapsed();
        let mut transport = match opened {
            Ok(transport) => transport,
            Err(error) if !error.is_retryable() => return Err(error),
            Err(error) => {
                let again = self.replica().disconnected(now());
                return Ok(Attempt::Failed(error, again));
            }
        };
        let end = self
            .converse(&mut transport, goal, interrupted, on_notice)
            .await;
        transport.close().await;
        let again = self.replica().disconnected(now());
        let end = end.and_then(|end| self.drain(on_notice).map(|()| end));
        Ok(match end {
            // Another program holds the file.
            Err(error) if error.is_retryable() => Attempt::Failed(error, again),
            Err(error) => return Err(error),
            Ok(End::Goal) => Attempt::Over,
            Ok(End::Interrupted) => Attempt::Interrupted,
            Ok(End::Closing(closing)) if !closing.retry || again.is_none() => {
                return Err(self.closing_error(closing));
            }
            Ok(End::Closing(closing)) => Attempt::Failed(self.closing_error(closing), again),
            Ok(End::Lost(reason)) => {
                let reason = reason.unwrap_or_else(|| "the connection was closed".into());
                Attempt::Failed(self.unreachable(reason), again)
            }
        })
    }

    fn interrupted(&self, goal: Goal) -> Result<Summary, ClientError> {
        match goal {
            Goal::Forever => Ok(self.summary),
            Goal::InStep | Goal::Sent => Err(ClientError::Interrupted),
        }
    }

    /// A strange answer from what is a Syncline server: something between us is in the way.
    fn retryable(&self, error: ClientError) -> ClientError {
        if let ClientError::NotASyncline { reason, .. } = error {
            self.unreachable(reason)
        } else {
            error
        }
    }

    fn deregistered(&self) -> ClientError {
        let status = self.replica().status();
        let unsent = status.map_or(0, |status| status.waiting + status.parked);
        ClientError::deregistered(unsent)
    }

    fn closing_error(&self, closing: Closing) -> ClientError {
        if closing.code == code::DEREGISTERED {
            return self.deregistered();
        }
        let owner = if closing.code == code::WRONG_USER {
            self.replica().status().ok().and_then(|status| status.user)
        } else {
            None
        };
        // The server does not tell whose a device is; this file knows.
        let message = owner.map_or(closing.message, |owner| {
            format!("this file belongs to {owner}: take a token of {owner}, or detach the file")
        });
        ClientError::Refused {
            code: closing.code,
            message,
            retry: closing.retry,
        }
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable {
            url: self.connection.url.clone(),
            reason,
        }
    }

    /// A WebSocket if that works, else the exchange.
    async fn open(&mut self) -> Result<Transport, ClientError> {
        if self
            .exchange_until
            .is_some_and(|until| std::time::Instant::now() < until)
        {
            return Ok(Transport::Exchange(Exchange::open(self.api.clone())));
        }
        match Transport::web_socket(&self.connection, &self.api).await {
            Ok(transport) => {
                self.web_socket_failures = 0;
                Ok(transport)
            }
            Err(WebSocketError::Refused(error) | WebSocketError::Unreachable(error)) => Err(error),
            Err(WebSocketError::Broken(error)) => {
                self.web_socket_failures += 1;
                let works = self.api.is_alive().await;
                if !works || self.web_socket_failures < WEB_SOCKET_FAILURES_MAX {
                    return Err(if works { self.retryable(error) } else { error });
                }
                tracing::info!(%error, "WebSockets fail here; taking plain HTTP");
                self.exchange_until = Some(std::time::Instant::now() + EXCHANGE_FOR);
                Ok(Transport::Exchange(Exchange::open(self.api.clone())))
            }
        }
    }

    /// One connection, from Hello to its end.
    async fn converse(
        &mut self,
        transport: &mut Transport,
        goal: Goal,
        interrupted: &mut watch::Receiver<bool>,
        on_notice: &mut impl FnMut(&Notice<'_>, &Status),
    ) -> Result<End, ClientError> {
        self.data_version = self.read_data_version()?;
        let connected = self.replica().connect(now());
        self.check(connected)?;
        loop {
            while let Some(frame) = self.next_frame() {
                let bytes = frame.len() as u64;
                self.summary.bytes_sent += bytes;
                let max = SEND_MAX + Duration::from_secs(bytes / SEND_BYTES_PER_SECOND);
                let sent = tokio::select! {
                    biased;
                    sent = tokio::time::timeout(max, transport.send(frame)) => sent,
                    _ = interrupted.wait_for(|stop| *stop) => return Ok(End::Interrupted),
                };
                let late = || {
                    Err(format!(
                        "{bytes} bytes were not taken in {} s",
                        max.as_secs()
                    ))
                };
                if let Err(reason) = sent.unwrap_or_else(|_| late()) {
                    return Ok(End::Lost(Some(reason)));
                }
            }
            self.drain(on_notice)?;
            let closing = self.replica().closing().cloned();
            if let Some(closing) = closing {
                return Ok(End::Closing(closing));
            }
            if self.is_reached(goal)? {
                return Ok(End::Goal);
            }
            self.tell_progress(on_notice)?;
            let timeout = self
                .replica()
                .poll_timeout()
                .map_or(Duration::from_secs(25), until);
            let waiting = std::time::Instant::now();
            let woken = tokio::select! {
                received = transport.receive() => Woken::Received(received),
                () = self.file.wait() => Woken::Look,
                () = tokio::time::sleep(timeout) => Woken::Timer,
                _ = interrupted.wait_for(|stop| *stop) => return Ok(End::Interrupted),
            };
            self.summary.waited += waiting.elapsed();
            match woken {
                Woken::Received(Ok(frame)) => {
                    self.attempts = 0;
                    self.summary.frames += 1;
                    self.summary.bytes_received += frame.len() as u64;
                    let handled = self.replica().handle(&frame, now());
                    self.check(handled)?;
                }
                Woken::Received(Err(reason)) => return Ok(End::Lost(reason)),
                Woken::Look => {
                    while !self.look()? && self.file.is_commit_near() {
                        std::thread::sleep(LOOK_NEAR);
                    }
                }
                Woken::Timer => {}
            }
            if self
                .replica()
                .poll_timeout()
                .is_some_and(|then| then <= now())
            {
                let handled = self.replica().handle_timeout(now());
                self.check(handled)?;
            }
            self.file.wrote();
            if self.look()? {
                self.file.wrote();
            }
        }
    }

    /// Seals what other programs committed since the last look; whether there was anything.
    fn look(&mut self) -> Result<bool, ClientError> {
        let version = self.read_data_version()?;
        if version == self.data_version {
            return Ok(false);
        }
        self.data_version = version;
        self.file.found_write();
        let woken = self.replica().wake(now());
        self.check(woken)?;
        Ok(true)
    }

    fn next_frame(&self) -> Option<Vec<u8>> {
        self.replica().poll_transmit()
    }

    fn next_event(&self) -> Option<Event> {
        self.replica().poll_event()
    }

    /// Changes whenever another connection commits to the file.
    fn read_data_version(&self) -> Result<i64, ClientError> {
        let version = self.replica().data_version();
        self.check(version)
    }

    fn is_reached(&mut self, goal: Goal) -> Result<bool, ClientError> {
        let is = |activity: &Activity| {
            // Rows of a file that was just attached are sealed bit by bit: there may be more.
            let sent = activity.connected && activity.waiting == 0 && !activity.seeding;
            match goal {
                Goal::Forever => false,
                Goal::Sent => sent,
                Goal::InStep => {
                    sent && activity.accepted == 0
                        && activity.caught_up
                        && activity.loading.is_none()
                }
            }
        };
        if goal == Goal::Forever || !is(&self.check(self.replica().activity())?) {
            return Ok(false);
        }
        // What was written since the file was last looked at belongs to it too.
        let woken = self.replica().wake(now());
        self.check(woken)?;
        Ok(is(&self.check(self.replica().activity())?))
    }

    fn tell_progress(
        &mut self,
        on_notice: &mut impl FnMut(&Notice<'_>, &Status),
    ) -> Result<(), ClientError> {
        if self.progress_told.elapsed() >= PROGRESS_EVERY {
            self.progress_told = std::time::Instant::now();
            let status = self.check(self.replica().status())?;
            if status.waiting > 0 || status.accepted > 0 {
                on_notice(&Notice::Sending, &status);
            }
        }
        Ok(())
    }

    fn drain(
        &mut self,
        on_notice: &mut impl FnMut(&Notice<'_>, &Status),
    ) -> Result<(), ClientError> {
        let mut status = None;
        while let Some(event) = self.next_event() {
            self.count(&event);
            self.progress.set(self.summary);
            if matches!(event, Event::Connected { .. }) {
                self.remember_url()?;
            }
            let status = match &mut status {
                Some(status) => status,
                None => status.insert(self.check(self.replica().status())?),
            };
            on_notice(&Notice::Event(&event), status);
        }
        Ok(())
    }

    /// The address where the server was met last.
    fn remember_url(&mut self) -> Result<(), ClientError> {
        let url = &self.connection.url;
        let failed = |error| ClientError::replica(&self.path, error);
        let mut replica = self.replica();
        if replica.url().map_err(failed)?.as_deref() != Some(url.as_str()) {
            replica.set_url(url).map_err(failed)?;
        }
        Ok(())
    }

    fn count(&mut self, event: &Event) {
        let summary = &mut self.summary;
        match event {
            Event::RowsChanged(rows) => {
                summary.rows_received += rows.keys.as_ref().map_or(0, |keys| keys.len() as u64);
            }
            Event::ChangeRefused { .. } => summary.refused += 1,
            Event::EditLost { .. } => summary.edits_lost += 1,
            Event::ConflictOpened { .. } => summary.conflicts_opened += 1,
            Event::Connected { .. }
            | Event::ConflictResolved { .. }
            | Event::Loading(_)
            | Event::Live { .. }
            | Event::Diverged { .. }
            | Event::Resynced
            | Event::AccessLost { .. }
            | Event::RowUnstorable { .. }
            | Event::ChangeHidden { .. }
            | Event::RowUnfit { .. }
            | Event::DigestMismatch { .. }
            | Event::Rekeyed { .. }
            | Event::TablesLeftOut { .. }
            | Event::Rescanned { .. } => {}
        }
    }

    fn check<T>(
        &self,
        result: Result<T, syncline_replica::ReplicaError>,
    ) -> Result<T, ClientError> {
        result.map_err(|error| ClientError::replica(&self.path, error))
    }
}
