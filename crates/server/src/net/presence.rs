//! Which devices have sessions, how far they are, and how they were seen last (spec DE3, DE4).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use syncline_core::{DeviceId, Timestamp, Version};
use syncline_store::{DeviceSeen, accounts::LoginId};

use super::{Backend, Shared, clock, committer::Request, wake::Wake};
use crate::SessionId;

/// How often it is written down that sessions have ended.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// Every so many times, those that last are written down too.
const NOTE_OPEN_EVERY: u32 = 60;
/// Devices that are written down in one transaction.
const NOTED_AT_ONCE: usize = 1_000;

/// What others may know of one session while it lasts.
#[derive(Debug)]
pub(crate) struct Presence {
    pub(crate) session: SessionId,
    wake: Arc<Wake>,
    deregistered: AtomicBool,
    signed_out: AtomicBool,
    /// Of an account here, that its token was made for.
    pub(crate) login: Option<LoginId>,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    /// Once the device is open.
    device: Option<DeviceId>,
    is_over: bool,
    checkpoint: Option<Version>,
    is_in_step: bool,
}

impl Presence {
    pub(crate) fn new(session: SessionId, wake: Arc<Wake>, login: Option<LoginId>) -> Self {
        Self {
            session,
            wake,
            deregistered: AtomicBool::new(false),
            signed_out: AtomicBool::new(false),
            login,
            now: Mutex::default(),
        }
    }

    /// Whether the session has to end because its device was deregistered.
    pub(crate) fn is_deregistered(&self) -> bool {
        self.deregistered.load(Ordering::Acquire)
    }

    /// Whether the session has to end because its login did.
    pub(crate) fn is_signed_out(&self) -> bool {
        self.signed_out.load(Ordering::Acquire)
    }

    /// The login that the session was proved by has ended.
    pub(crate) fn set_signed_out(&self) {
        self.signed_out.store(true, Ordering::Release);
    }

    /// What the session knows of its device's progress.
    pub(crate) fn update(&self, checkpoint: Option<Version>, is_in_step: bool) {
        let mut now = self.now.lock();
        (now.checkpoint, now.is_in_step) = (checkpoint, is_in_step);
    }
}

/// A device that is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connected {
    /// `None` until the session has told.
    pub(crate) checkpoint: Option<Version>,
    /// It has everything that there is for it.
    pub(crate) is_in_step: bool,
}

/// The devices of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Presences(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: BTreeMap<DeviceId, Vec<Arc<Presence>>>,
    /// Sessions of accounts here, whether their devices are open or not.
    logins: BTreeMap<LoginId, Vec<Arc<Presence>>>,
    /// Devices whose sessions have ended, still to be written down.
    left: BTreeMap<DeviceId, DeviceSeen>,
}

impl Presences {
    /// A session began.
    pub(crate) fn arrived(&self, presence: &Arc<Presence>) {
        if let Some(login) = presence.login {
            let mut inner = self.0.lock();
            let sessions = inner.logins.entry(login).or_default();
            sessions.push(Arc::clone(presence));
        }
    }

    /// Ends the sessions of a login.
    pub(crate) fn sign_out(&self, login: LoginId) {
        for presence in self.0.lock().logins.get(&login).into_iter().flatten() {
            presence.set_signed_out();
            presence.wake.wake();
        }
    }

    /// The session's device was opened. Called by the committer, before anything that comes later
    /// can deregister it.
    pub(crate) fn opened(&self, presence: &Arc<Presence>, device: DeviceId) {
        let mut inner = self.0.lock();
        let mut now = presence.now.lock();
        now.device = Some(device);
        if !now.is_over {
            let sessions = inner.open.entry(device).or_default();
            sessions.push(Arc::clone(presence));
        }
    }

    /// The session has ended.
    pub(crate) fn closed(&self, presence: &Presence, at: Timestamp) {
        let mut inner = self.0.lock();
        if let Some(login) = presence.login
            && let Some(sessions) = inner.logins.get_mut(&login)
        {
            sessions.retain(|other| other.session != presence.session);
            if sessions.is_empty() {
                inner.logins.remove(&login);
            }
        }
        let mut now = presence.now.lock();
        now.is_over = true;
        let Some(device) = now.device else { return };
        let checkpoint = now.checkpoint;
        drop(now);
        inner.left.insert(device, DeviceSeen { at, checkpoint });
        if let Some(sessions) = inner.open.get_mut(&device) {
            sessions.retain(|other| other.session != presence.session);
            if sessions.is_empty() {
                inner.open.remove(&device);
            }
        }
    }

    /// Ends the device's sessions.
    pub(crate) fn deregister(&self, device: DeviceId) {
        for presence in self.0.lock().open.get(&device).into_iter().flatten() {
            presence.deregistered.store(true, Ordering::Release);
            presence.wake.wake();
        }
    }

    /// `None`: the device has no session.
    pub(crate) fn connected(&self, device: DeviceId) -> Option<Connected> {
        self.0.lock().open.get(&device).map(|open| newest(open))
    }

    /// What is to be written down: of sessions that have ended since, and of all if `all`.
    fn take(&self, all: bool, at: Timestamp) -> BTreeMap<DeviceId, DeviceSeen> {
        let mut inner = self.0.lock();
        let mut seen = std::mem::take(&mut inner.left);
        for (device, open) in inner.open.iter().filter(|_| all) {
            let checkpoint = newest(open).checkpoint;
            seen.insert(*device, DeviceSeen { at, checkpoint });
        }
        seen
    }
}

/// Of several sessions of one device all but the newest are about to end.
fn newest(open: &[Arc<Presence>]) -> Connected {
    let none = Connected {
        checkpoint: None,
        is_in_step: false,
    };
    open.last().map_or(none, |presence| {
        let now = presence.now.lock();
        Connected {
            checkpoint: now.checkpoint,
            is_in_step: now.is_in_step,
        }
    })
}

/// Writes down how devices were seen, as long as the server lives.
pub(crate) async fn note<B: Backend>(shared: Weak<Shared<B>>) {
    for round in 1_u32.. {
        tokio::time::sleep(NOTE_EVERY).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        note_now(&shared, round.is_multiple_of(NOTE_OPEN_EVERY)).await;
    }
}

/// The same at once; of sessions that last, too, if `all`.
pub(crate) async fn note_now<B: Backend>(shared: &Shared<B>, all: bool) {
    let mut seen = shared.presences.take(all, clock::now());
    while !seen.is_empty() {
        let mut first = std::mem::take(&mut seen);
        if let Some(device) = first.keys().nth(NOTED_AT_ONCE).copied() {
            seen = first.split_off(&device);
        }
        if shared.request(Request::Seen(first)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(n: u64) -> Arc<Presence> {
        Arc::new(Presence::new(SessionId(n), Arc::default(), None))
    }

    const PHONE: DeviceId = DeviceId([1; 16]);

    #[test]
    fn de3_the_newest_session_says_how_far_a_device_is() {
        let presences = Presences::default();
        let (old, new) = (presence(1), presence(2));
        presences.opened(&old, PHONE);
        old.update(Some(Version(5)), true);
        presences.opened(&new, PHONE);
        new.update(Some(Version(7)), false);
        let connected = |checkpoint, is_in_step| Connected {
            checkpoint: Some(Version(checkpoint)),
            is_in_step,
        };
        assert_eq!(presences.connected(PHONE), Some(connected(7, false)));
        presences.closed(&old, Timestamp(10));
        assert_eq!(presences.connected(PHONE), Some(connected(7, false)));
        let seen = |at, checkpoint| DeviceSeen {
            at: Timestamp(at),
            checkpoint: Some(Version(checkpoint)),
        };
        let all = presences.take(true, Timestamp(20));
        assert_eq!(all, BTreeMap::from([(PHONE, seen(20, 7))]));
        assert_eq!(presences.take(false, Timestamp(30)), BTreeMap::new());
        presences.closed(&new, Timestamp(40));
        assert_eq!(presences.connected(PHONE), None);
        let left = presences.take(false, Timestamp(50));
        assert_eq!(left, BTreeMap::from([(PHONE, seen(40, 7))]));
    }

    #[test]
    fn de4_a_session_that_ended_before_its_device_was_open_leaves_nothing_behind() {
        let presences = Presences::default();
        let early = presence(1);
        presences.closed(&early, Timestamp(10));
        presences.opened(&early, PHONE);
        assert_eq!(presences.connected(PHONE), None);
        let live = presence(2);
        presences.opened(&live, PHONE);
        presences.deregister(PHONE);
        assert!(live.is_deregistered() && !early.is_deregistered());
    }
}
