//! Silence, reconnecting, waking (spec SE21, SE22).

use syncline_core::planted;
use syncline_core::{
    Timestamp,
    wire::{ClientMessage, Ping},
};

use super::{BEGIN_ANEW, Phase, TIMEOUT};
use crate::{entropy::Entropy, error::ReplicaError, replica::Replica};

/// Silence after which the server is asked for a sign of life.
const PING_AFTER_MS: u64 = 25_000;
/// Silence after that which ends the session.
const DEAD_AFTER_MS: u64 = 10_000;
/// First pause before connecting again; it doubles.
const PAUSE_MS: u64 = 250;
const PAUSE_MAX_MS: u64 = 30_000;
/// Pause after the file could not be looked at, being locked for instance.
const WAKE_AGAIN_MS: u64 = 1_000;

/// Time without a fault after which the server counts as sound again.
const SOUND_AFTER_MS: u64 = 60_000;
/// Faults in a row after which everything is asked for anew.
const FAULTS_MAX: u32 = 2;

/// Failed attempts to connect, and what the server asked for.
#[derive(Debug, Default)]
pub(crate) struct Reconnect {
    attempts: u32,
    not_before: Option<Timestamp>,
    /// Sessions in a row that ended because of what the server sent (spec SE24).
    faults: u32,
    fault_at: Timestamp,
    anew: Anew,
}

/// Whether everything is asked for anew after faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Anew {
    #[default]
    No,
    /// With the next Hello.
    Next,
    Done,
}

impl Reconnect {
    /// A Welcome. It says nothing about what comes after it: pauses go on growing after a fault.
    pub(super) fn succeeded(&mut self) {
        if self.faults == 0 {
            *self = Self::default();
        }
    }

    /// Everything is here, as of a checkpoint that was just applied.
    pub(super) fn live(&mut self, now: Timestamp) {
        if self.faults > 0 && self.fault_at.plus_millis(SOUND_AFTER_MS) <= now {
            *self = Self::default();
        }
    }

    pub(super) fn fault(&mut self, now: Timestamp) {
        self.faults = self.faults.saturating_add(1);
        self.fault_at = now;
    }

    /// Whether the session that begins is to be given up for one in which everything is asked for
    /// anew: only once, and only where the server has just said that it has what we know of it.
    pub(super) fn wants_anew(&mut self) -> bool {
        let wants = self.faults >= FAULTS_MAX && self.anew == Anew::No;
        if wants {
            self.anew = Anew::Next;
        }
        wants
    }

    /// Whether this Hello asks for everything anew. Should it not arrive, the next one does not:
    /// by then the server may have lost something, which cursors tell.
    pub(super) fn begin_anew(&mut self) -> bool {
        let begins = self.anew == Anew::Next;
        if begins {
            self.anew = Anew::Done;
        }
        begins
    }

    pub(super) fn not_before(&mut self, at: Timestamp) {
        self.not_before = self.not_before.max(Some(at));
    }

    /// Full jitter: anywhere between now, or when the server allows it, and the pause later. Not
    /// all who were told the same time come back at once.
    fn next(&mut self, now: Timestamp, entropy: &mut dyn Entropy) -> Timestamp {
        if planted!(BackoffNeverGrows) {
            self.attempts = 0;
        }
        let pause = jittered(self.attempts, entropy);
        self.attempts = self.attempts.saturating_add(1);
        let earliest = self.not_before.take();
        earliest.unwrap_or(now).max(now).plus_millis(pause)
    }
}

/// A random pause in milliseconds after this many failures.
pub(super) fn jittered(failures: u32, entropy: &mut dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    let pause = PAUSE_MS
        .saturating_mul(1 << failures.min(16))
        .min(PAUSE_MAX_MS);
    u64::from_le_bytes(bytes) % (pause + 1)
}

impl Replica {
    /// To be called at the time that [`Replica::poll_timeout`] gave; calling earlier is harmless.
    ///
    /// # Errors
    /// The database's.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        self.mending(now, |replica| replica.try_timeout(now))
    }

    fn try_timeout(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        if self.session.wake_at.is_some_and(|at| at <= now) {
            self.wake(now)?;
        }
        if self.session.phase == Phase::Closed || self.session.closing.is_some() {
            return Ok(());
        }
        self.session.held_until = self.session.held_until.filter(|at| *at > now);
        match self.session.pinged {
            Some(pinged) if pinged.plus_millis(DEAD_AFTER_MS) <= now => {
                self.session
                    .close(TIMEOUT, "the server does not answer any more", true);
            }
            None if self.session.last_heard.plus_millis(PING_AFTER_MS) <= now => {
                self.session.pinged = Some(now);
                if self.session.phase == Phase::Streaming {
                    let ping = Ping { sent: now, now };
                    self.session.send(&ClientMessage::Ping(ping));
                }
            }
            Some(_) | None => {}
        }
        self.tell_checkpoint(now);
        self.pump(now)
    }

    /// When [`Replica::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let session = &self.session;
        let mut at = session.wake_at;
        let mut sooner = |time: Timestamp| at = Some(at.map_or(time, |at| at.min(time)));
        if session.phase != Phase::Closed && session.closing.is_none() {
            match session.pinged {
                Some(pinged) => sooner(pinged.plus_millis(DEAD_AFTER_MS)),
                None => sooner(session.last_heard.plus_millis(PING_AFTER_MS)),
            }
            session.again.values().copied().for_each(&mut sooner);
            session.held_until.into_iter().for_each(&mut sooner);
            session
                .tell_checkpoint_at()
                .into_iter()
                .for_each(&mut sooner);
            let ends = session.subscriptions.next_end;
            ends.filter(|_| !session.subscriptions.ends_later)
                .into_iter()
                .for_each(sooner);
        }
        at
    }

    /// The file may have changed: seals and pushes. Cheap when nothing did.
    ///
    /// # Errors
    /// The database's. [`Replica::poll_timeout`] then asks for another try.
    pub fn wake(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        self.session.wake_at = None;
        if let Err(error) = self.seal_to_send(now) {
            // Nobody else would look again: what woke us is told once.
            self.wake_within(now, WAKE_AGAIN_MS);
            return Err(error);
        }
        let pumped = self.pump(now);
        // By the time that it could be sent later, it may have become another.
        self.session.ready = None;
        pumped
    }

    /// As [`Replica::wake`], but within `delay_ms` from now: calls that follow until then are
    /// joined, so that fast typing becomes one change. The earliest time asked for counts.
    pub fn wake_within(&mut self, now: Timestamp, delay_ms: u64) {
        let at = now.plus_millis(delay_ms);
        self.session.wake_at = Some(self.session.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// The server, or something on the way, wants no connection before `at`.
    pub fn connect_not_before(&mut self, at: Timestamp) {
        self.session.reconnect.not_before(at);
    }

    /// The transport is closed, by whoever; everything unanswered counts as unsent. Returns when
    /// to connect again (full jitter, spec SE22); `None` when that would be pointless until the
    /// token, the server or the file changes.
    pub fn disconnected(&mut self, now: Timestamp) -> Option<Timestamp> {
        let closing = self.session.closing.take();
        self.session.reset();
        match closing {
            Some(closing) if closing.code == BEGIN_ANEW => Some(now),
            Some(closing) if !closing.retry => None,
            Some(_) | None => Some(self.session.reconnect.next(now, &mut *self.entropy)),
        }
    }
}
