//! Runs a replica: sockets, timers and a look at the file now and then.

mod connect;
mod goal;
mod interrupt;
mod notices;
mod summary;

use std::{
    cell::{Cell, RefCell, RefMut},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use syncline_core::{Timestamp, wire::code};
use syncline_replica::{Activity, BEGIN_ANEW, Closing, Event, Replica, Status, Wiped};
use tokio::sync::watch;

pub use self::{interrupt::Interrupt, summary::Summary};
use crate::{
    api::Api,
    credentials::{Connection, Token},
    error::ClientError,
    file_watch::{FileWatch, LOOK_NEAR},
    system::{now, until},
    transport::{Broken, Transport, bytes_of},
};

/// Connection attempts of an errand that has an end, before it gives up.
const ATTEMPTS_MAX: u32 = 5;
/// How long a frame may take to leave, and further seconds for each so many of its bytes.
const SEND_MAX: Duration = Duration::from_secs(60);
const SEND_BYTES_PER_SECOND: u64 = 8 * 1024;

/// How long a device that is not wanted waits to hear whether it is to be wiped.
const WISH_MAX: Duration = Duration::from_secs(5);

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
    /// The device was removed from its user's list, and what it synced from this file, as the
    /// user asked.
    Wiped(&'a Wiped),
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
    /// The server has not taken a token, and another one was asked for since it took one.
    is_token_renewed: bool,
    file: FileWatch,
    progress_told: std::time::Instant,
    data_version: i64,
    /// Why the server does not send all that the user may see.
    withheld: Option<Closing>,
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
    Received(Result<Vec<u8>, Broken>),
    /// The session's token is followed by another.
    Renewed(Result<Token, ClientError>),
    /// The file may have been written.
    Look,
    Timer,
}

/// How one connection ended.
enum End {
    Goal,
    Interrupted,
    Lost(Broken),
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
            is_token_renewed: false,
            file,
            progress_told: std::time::Instant::now(),
            data_version: 0,
            withheld: None,
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
            let attempt = self.attempt(goal, &mut interrupted, &mut on_notice).await;
            if let Err(error) = &attempt
                && error.is_about_us()
                && self.heed_wish(&mut interrupted, &mut on_notice).await?
            {
                return Err(ClientError::wiped());
            }
            let (error, again) = match attempt? {
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
        let (mut transport, token) = match opened {
            Ok(opened) => opened,
            Err(error) if !error.is_retryable() => return Err(error),
            Err(error) => {
                self.keep_to(&error);
                let again = self.replica().disconnected(now());
                return Ok(Attempt::Failed(error, again));
            }
        };
        let end = self
            .converse(&mut transport, &token, goal, interrupted, on_notice)
            .await;
        transport.close().await;
        if let Ok(End::Lost(Broken::Refused(error))) = &end {
            self.keep_to(error);
        }
        let again = self.replica().disconnected(now());
        let mut end = end.and_then(|end| self.drain(on_notice).map(|()| end));
        if let Ok(End::Lost(Broken::Refused(error))) = end {
            end = Err(error);
        }
        let is_token_over = match &end {
            Ok(End::Closing(closing)) => !closing.retry && closing.code == code::UNAUTHORIZED,
            Ok(End::Goal | End::Interrupted | End::Lost(_)) => false,
            Err(error) => error.is_unauthorized(),
        };
        if is_token_over && self.another_token(&token).await?.is_some() {
            let reason = "the server does not take the token any more".to_owned();
            return Ok(Attempt::Failed(self.unreachable(reason), Some(now())));
        }
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
            Ok(End::Lost(broken)) => {
                let reason = match broken {
                    Broken::Closed => "the connection was closed".to_owned(),
                    Broken::Lost(reason) => reason,
                    Broken::Refused(error) => error.to_string(),
                };
                Attempt::Failed(self.unreachable(reason), again)
            }
        })
    }

    /// Removes what was synced, if this device's user asked for it: told to whoever has its lease,
    /// because it may have no token any more (spec DE9, DE10). Whether it is removed now.
    async fn heed_wish(
        &mut self,
        interrupted: &mut watch::Receiver<bool>,
        on_notice: &mut impl FnMut(&Notice<'_>, &Status),
    ) -> Result<bool, ClientError> {
        if self.check(self.replica().is_wiped())? {
            let erased = self.replica().erase();
            self.check(erased)?;
            // Somebody may have asked to register it anew since.
            return self.check(self.replica().is_deregistered());
        }
        let Some(proof) = self.check(self.replica().proof())? else {
            return Ok(false);
        };
        let asked = tokio::time::timeout(WISH_MAX, self.api.is_to_be_wiped(proof));
        let asked = tokio::select! {
            asked = asked => asked,
            _ = interrupted.wait_for(|stop| *stop) => return Ok(false),
        };
        if !matches!(asked, Ok(Ok(true))) {
            tracing::debug!(?asked, "this device is not to be wiped, as far as is known");
            return Ok(false);
        }
        let wiped = self.replica().wipe(now());
        let wiped = self.check(wiped)?;
        let status = self.check(self.replica().status())?;
        on_notice(&Notice::Wiped(&wiped), &status);
        Ok(true)
    }

    fn interrupted(&self, goal: Goal) -> Result<Summary, ClientError> {
        match goal {
            Goal::Forever => Ok(self.summary),
            Goal::InStep | Goal::Sent => Err(ClientError::Interrupted),
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
            // The replica keeps to what its session was told.
            retry_after: None,
        }
    }

    /// One connection, from Hello to its end.
    async fn converse(
        &mut self,
        transport: &mut Transport,
        token: &Token,
        goal: Goal,
        interrupted: &mut watch::Receiver<bool>,
        on_notice: &mut impl FnMut(&Notice<'_>, &Status),
    ) -> Result<End, ClientError> {
        let mut renewal = self.renewal(token);
        self.data_version = self.read_data_version()?;
        let connected = self.replica().connect(now());
        self.check(connected)?;
        let mut lost = None;
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
                    return Ok(End::Lost(Broken::Lost(reason)));
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
            if let Some(broken) = lost {
                return Ok(End::Lost(broken));
            }
            let timeout = self
                .replica()
                .poll_timeout()
                .map_or(Duration::from_secs(25), until);
            let waiting = std::time::Instant::now();
            let woken = tokio::select! {
                received = transport.receive() => Woken::Received(received),
                renewed = &mut renewal => Woken::Renewed(renewed),
                () = self.file.wait() => Woken::Look,
                () = tokio::time::sleep(timeout) => Woken::Timer,
                _ = interrupted.wait_for(|stop| *stop) => return Ok(End::Interrupted),
            };
            self.summary.waited += waiting.elapsed();
            match woken {
                Woken::Received(Ok(frame)) => {
                    self.attempts = 0;
                    let (frames, end) = transport.with_others(frame);
                    lost = end;
                    self.summary.frames += frames.len() as u64;
                    self.summary.bytes_received += bytes_of(&frames) as u64;
                    let frames = frames.iter().map(Vec::as_slice);
                    let handled = self.replica().handle_all(frames, now());
                    self.check(handled)?;
                }
                Woken::Received(Err(broken)) => return Ok(End::Lost(broken)),
                Woken::Renewed(Err(error)) => return Err(error),
                Woken::Renewed(Ok(token)) => {
                    if transport.has_one_token() {
                        self.replica().renew_token(token.as_str().to_owned());
                    }
                    renewal = self.renewal(&token);
                }
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

    fn check<T>(
        &self,
        result: Result<T, syncline_replica::ReplicaError>,
    ) -> Result<T, ClientError> {
        result.map_err(|error| ClientError::replica(&self.path, error))
    }
}
