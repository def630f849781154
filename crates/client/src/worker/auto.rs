//! When auto-sync runs: at start, when the app comes to the foreground, when the server is back,
//! every so often, and a moment after a change.

use std::{
    rc::Rc,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use syncline_core::wire::code;

use super::Core;
use crate::{
    config::Config,
    sync_error::{Error, ErrorKind},
    system,
};

/// How often the file is looked at while rounds are made.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Changes that never pause make a round due after this many pauses.
const DEBOUNCES_MAX: u32 = 10;
/// Pause after the first failed round; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// When nothing else wants to be looked at.
const IDLE: Duration = Duration::from_secs(3_600);

/// What auto-sync remembers.
#[derive(Debug, Default)]
pub(super) struct Auto {
    was_on: bool,
    /// When the next round or connection is due; `None` for none until something happens.
    due_at: Option<Instant>,
    /// What was written since the last round began.
    written: Option<Written>,
    failures: u32,
    /// The file's counter of other programs' commits when it was last looked at.
    seen: Option<i64>,
    /// When the file is looked at next; `None` for now.
    next_look: Option<Instant>,
    /// What the last round or connection was made with.
    acted_on: Option<Config>,
    /// A connection is kept now.
    is_live: bool,
}

/// Changes that wait for a round.
#[derive(Debug, Clone, Copy)]
struct Written {
    first: Instant,
    /// When the round is due for them; `None` for never.
    due_at: Option<Instant>,
}

impl Written {
    /// A further change moves the round on, so that many that follow each other are one round;
    /// but not for ever.
    fn again(before: Option<Self>, now: Instant, debounce: Duration) -> Self {
        let first = before.map_or(now, |written| written.first);
        let quiet = now.checked_add(debounce);
        let latest = first.checked_add(debounce.saturating_mul(DEBOUNCES_MAX));
        Self {
            first,
            due_at: quiet.into_iter().chain(latest).min(),
        }
    }
}

impl Auto {
    fn is_wanted(core: &Core) -> bool {
        core.shared.auto.load(Ordering::Acquire) && core.shared.config().is_sync_available()
    }

    /// Whether it is time, and if so whether the connection is to be kept.
    pub(super) fn due(&mut self, core: &Rc<Core>) -> Option<bool> {
        let is_on = Self::is_wanted(core);
        if is_on && !self.was_on {
            self.due_at = Some(Instant::now());
            self.failures = 0;
        }
        self.was_on = is_on;
        if !is_on || self.next().is_none_or(|at| at > Instant::now()) {
            return None;
        }
        Some(core.shared.config().live)
    }

    /// When the next round or connection is due, for whatever reason.
    fn next(&self) -> Option<Instant> {
        let for_changes = self.written.and_then(|written| written.due_at);
        self.due_at.into_iter().chain(for_changes).min()
    }

    pub(super) fn begun(&mut self, core: &Core, is_live: bool) {
        (self.due_at, self.written) = (None, None);
        self.acted_on = Some(core.shared.config().clone());
        self.is_live = is_live;
    }

    /// Until when the engine may sleep. A point in time: what it is asked meanwhile does not move
    /// it.
    pub(super) fn wake_at(&self, core: &Core, is_running: bool) -> Instant {
        let now = Instant::now();
        let idle = now + IDLE;
        if is_running || !self.was_on {
            return idle;
        }
        let due = self.next().unwrap_or(idle);
        if core.shared.config().live {
            due
        } else {
            due.min(self.next_look.unwrap_or(now))
        }
    }

    /// Looks whether another program wrote into the file, which makes a round due a moment later.
    pub(super) fn look(&mut self, core: &Core, is_running: bool) {
        let (live, debounce) = {
            let config = core.shared.config();
            (config.live, config.debounce)
        };
        if is_running || live || !self.was_on {
            return;
        }
        let now = Instant::now();
        self.next_look = Some(now + LOOK_EVERY);
        let looked = core.with(|replica| {
            let version = replica.data_version()?;
            if self.seen == Some(version) {
                return Ok(None);
            }
            replica.seal(system::now())?;
            let activity = replica.activity()?;
            let has_changes = activity.waiting > 0 || activity.seeding;
            Ok(Some((version, has_changes && !replica.is_deregistered()?)))
        });
        match looked {
            Ok(Some(Some((version, has_changes)))) => {
                self.seen = Some(version);
                if has_changes && self.failures == 0 {
                    self.written = Some(Written::again(self.written, now, debounce));
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the file cannot be looked at now"),
        }
    }

    /// A run has ended: when is the next one?
    pub(super) fn ended(&mut self, core: &Core, failure: Option<&Error>, was_called_for: bool) {
        let (live, interval) = {
            let config = core.shared.config();
            (config.live, config.auto_sync_interval)
        };
        let is_live = std::mem::take(&mut self.is_live);
        let now = Instant::now();
        let after = |pause: Duration| now.checked_add(pause);
        let regular = (!interval.is_zero()).then(|| after(interval)).flatten();
        // What was asked for while it ran is not forgotten.
        let asked = self.due_at.take();
        let next = match failure {
            // Until somebody registers the device anew.
            Some(error) if error.kind() == ErrorKind::Deregistered => None,
            Some(error) => {
                let soon = self.pause(error).and_then(after);
                soon.into_iter().chain(regular).min()
            }
            None => {
                self.failures = 0;
                // A connection that gave way to something else is taken up again.
                if live && (is_live || was_called_for) {
                    Some(now)
                } else {
                    regular
                }
            }
        };
        self.due_at = asked.into_iter().chain(next).min();
    }

    /// After which time it may work; `None` while trying again would fail again, until something
    /// is changed.
    fn pause(&mut self, error: &Error) -> Option<Duration> {
        if error.is_retryable() || error.kind() == ErrorKind::NotConnected {
            let pause = backoff(self.failures);
            self.failures = self.failures.saturating_add(1);
            return Some(pause);
        }
        // What a line garbled or said twice it need not garble again.
        (error.code() == code::MALFORMED).then(|| system::jittered(PAUSE_MAX))
    }

    /// Follows a changed configuration; whether the running connection has to end for it.
    pub(super) fn heed(&mut self, core: &Core) -> bool {
        let hurry = core.shared.hurry.swap(false, Ordering::AcqRel);
        let is_other = self.acted_on.as_ref().is_some_and(|then| {
            let config = core.shared.config();
            config.connection() != then.connection()
                || config.live != then.live
                || config.tables != then.tables
        });
        // With another server, token or choice of tables that may work which failed for good.
        if (hurry || is_other) && self.was_on {
            self.due_at = Some(Instant::now());
            self.failures = 0;
        }
        let is_cut = hurry && !core.shared.connected.load(Ordering::Acquire);
        self.is_live && (is_other || is_cut || !Self::is_wanted(core))
    }
}

/// Doubling, with full jitter above half of it.
fn backoff(failures: u32) -> Duration {
    let whole = PAUSE.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
    system::jittered(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lb6_changes_that_never_pause_do_not_put_a_round_off_for_ever() {
        let (begin, debounce) = (Instant::now(), Duration::from_millis(500));
        let mut written = Written::again(None, begin, debounce);
        assert_eq!(written.due_at, Some(begin + debounce));
        for step in 1..100 {
            let now = begin + LOOK_EVERY * step;
            written = Written::again(Some(written), now, debounce);
            let latest = begin + debounce * DEBOUNCES_MAX;
            assert_eq!(written.due_at, Some((now + debounce).min(latest)), "{step}");
        }
        let never = Written::again(None, begin, Duration::MAX);
        assert_eq!(never.due_at, None);
    }

    #[test]
    fn lb6_what_a_line_garbled_is_tried_again_after_a_long_pause() {
        let mut auto = Auto::default();
        let refused = |code: &str| Error::new(ErrorKind::Refused, code, "no");
        for _ in 0..5 {
            let pause = auto.pause(&refused(code::MALFORMED)).unwrap();
            assert!((PAUSE_MAX / 2..=PAUSE_MAX).contains(&pause), "{pause:?}");
        }
        assert_eq!(auto.pause(&refused(code::FORBIDDEN)), None);
        let offline = Error::new(ErrorKind::NotConnected, "unreachable", "nobody is there");
        let (first, second) = (auto.pause(&offline).unwrap(), auto.pause(&offline).unwrap());
        assert!(
            first <= PAUSE && second <= PAUSE * 2,
            "{first:?} {second:?}"
        );
    }

    #[test]
    fn lb6_pauses_double_up_to_a_minute_and_differ() {
        for failures in 0..40 {
            let whole = PAUSE.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
            for _ in 0..20 {
                let pause = backoff(failures);
                assert!(
                    pause >= whole / 2 && pause <= whole,
                    "{failures}: {pause:?}"
                );
            }
        }
        let many: std::collections::BTreeSet<_> = (0..20).map(|_| backoff(10)).collect();
        assert!(many.len() > 10);
    }
}
