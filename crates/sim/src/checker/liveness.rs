//! Nobody waits for nothing: who has a sound connection hears in time that this was all, and who
//! has none does not try again and again at one pace.

use std::collections::VecDeque;

use anyhow::bail;
use syncline_core::Timestamp;

/// How long a device with a sound connection, and a server with nothing to do, may leave
/// something open. All that is due then is due at once; the pause for telling a checkpoint is 2 s.
pub(crate) const TOLD_WITHIN_MS: u64 = 3_000;
/// Longest pause before connecting again (spec SE22).
const PAUSE_MAX_MS: u64 = 30_000;
/// What the app's edits wait for at most before the engine looks at them.
const WAKE_WITHIN_MS: u64 = 20_000;
/// What is left to do once all are connected and everything is sealed.
const WORK_WITHIN_MS: u64 = 10_000;
/// After faults: everybody is connected after one more pause, by then every edit was looked at,
/// and the work itself takes seconds.
pub(crate) const REST_WITHIN_MS: u64 = PAUSE_MAX_MS + WAKE_WITHIN_MS + WORK_WITHIN_MS;

/// Connections in [`TRIES_WITHIN_MS`] that no fault of the run explains. Pauses that double from
/// 250 ms allow ten in the first minute; the rest is for sessions that end on purpose.
const TRIES_MAX: usize = 24;
const TRIES_WITHIN_MS: u64 = 60_000;

/// What is remembered of one device.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    quiet_since: Option<Timestamp>,
    /// It was looked at since.
    is_judged: bool,
    tries: VecDeque<Timestamp>,
}

impl Patience {
    /// Nothing happens to the device from `now` on until `then`. `is_quiet`: its connection is
    /// sound and empty, and nobody has anything to do for it. Whether it has to be all told now.
    pub(crate) fn is_over(&mut self, is_quiet: bool, now: Timestamp, then: Timestamp) -> bool {
        if !is_quiet {
            self.quiet_since = None;
            self.is_judged = false;
            return false;
        }
        let since = *self.quiet_since.get_or_insert(now);
        let is_over = !self.is_judged && then > since.plus_millis(TOLD_WITHIN_MS);
        self.is_judged |= is_over;
        is_over
    }

    /// A fault ended its connection: what it does next is no loop.
    pub(crate) fn disturbed(&mut self) {
        self.tries.clear();
        self.quiet_since = None;
    }

    /// It connects.
    ///
    /// # Errors
    /// It did so too often in the last minute.
    pub(crate) fn connects(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let is_old = |at: &Timestamp| at.plus_millis(TRIES_WITHIN_MS) < now;
        while self.tries.front().is_some_and(is_old) {
            self.tries.pop_front();
        }
        self.tries.push_back(now);
        if self.tries.len() > TRIES_MAX {
            bail!(
                "connects for the {}th time in a minute, with no fault to blame",
                self.tries.len()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_000_000_000);

    #[test]
    fn se13_a_device_that_is_not_told_is_noticed_after_three_seconds() {
        let mut patience = Patience::default();
        let at = |ms| START.plus_millis(ms);
        assert!(!patience.is_over(true, at(0), at(2_000)));
        assert!(patience.is_over(true, at(2_000), at(25_000)));
        assert!(!patience.is_over(true, at(25_000), at(50_000)), "once");
        assert!(
            !patience.is_over(false, at(50_000), at(60_000)),
            "it is busy"
        );
        assert!(!patience.is_over(true, at(60_000), at(63_000)));
        assert!(patience.is_over(true, at(63_000), at(63_001)));
    }

    #[test]
    fn se22_connecting_at_one_pace_is_noticed_and_growing_pauses_are_not() {
        let mut loops = Patience::default();
        let found = (0..60).find(|i| loops.connects(START.plus_millis(i * 1_000)).is_err());
        assert_eq!(found, Some(24));

        let mut backs_off = Patience::default();
        let mut now = START;
        for failures in 0..20 {
            backs_off.connects(now).expect("pauses grow");
            // A third of the pause at most: luck is bad, but not always.
            now = now.plus_millis((250_u64 << failures.min(7)).min(PAUSE_MAX_MS) / 3);
        }

        let mut cut_off = Patience::default();
        for i in 0..100 {
            cut_off.disturbed();
            cut_off
                .connects(START.plus_millis(i))
                .expect("it is cut off");
        }
    }
}
