//! How many HTTP requests somebody may make (spec LI3): a token bucket for each key, kept as the
//! one time at which it would be full again.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use syncline_core::Timestamp;

use crate::pace::BURST_SECONDS;

/// Keys that are remembered; those that owe the least make room.
const KEYS_MAX: usize = 50_000;
/// Nobody is told to come back sooner: `Retry-After` counts in seconds.
const WAIT_MIN_MILLIS: u64 = 1_000;
const BURST_MICROS: u64 = BURST_SECONDS as u64 * 1_000_000;

/// What was asked for lately, by whom.
#[derive(Debug)]
pub(crate) struct Requests<K>(Mutex<BTreeMap<K, Timestamp>>);

impl<K> Default for Requests<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord> Requests<K> {
    /// Counts a request of `key`, which may make `per_second`, and ten seconds' worth at once.
    ///
    /// # Errors
    /// How many milliseconds to wait first; then nothing is counted.
    pub(crate) fn count(&self, key: K, per_second: u32, now: Timestamp) -> Result<(), u64> {
        let cost = (1_000_000 / u64::from(per_second.max(1))).max(1);
        let mut full_at = self.0.lock();
        if full_at.len() >= KEYS_MAX && !full_at.contains_key(&key) {
            make_room(&mut full_at, now);
        }
        let full_at = full_at.entry(key).or_insert(now);
        // A clock that was set back locks nobody out until it is as late as it was.
        let owed = full_at.0.saturating_sub(now.0).min(BURST_MICROS);
        *full_at = Timestamp(now.0.saturating_add(owed));
        match (owed + cost).checked_sub(BURST_MICROS) {
            None | Some(0) => {
                full_at.0 = full_at.0.saturating_add(cost);
                Ok(())
            }
            Some(wait) => Err(wait.div_ceil(1_000).max(WAIT_MIN_MILLIS)),
        }
    }

    /// Drops those that may ask for as much as if they had never asked.
    pub(crate) fn forget(&self, now: Timestamp) {
        self.0.lock().retain(|_, full_at| *full_at > now);
    }
}

fn make_room<K: Ord>(full_at: &mut BTreeMap<K, Timestamp>, now: Timestamp) {
    full_at.retain(|_, at| *at > now);
    if full_at.len() < KEYS_MAX {
        return;
    }
    let mut times: Vec<Timestamp> = full_at.values().copied().collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    let more = full_at.values().filter(|at| **at > median).count();
    // Of those that owe just as much as the one in the middle, as many as there is room for.
    let mut left = middle.saturating_sub(more);
    full_at.retain(|_, at| {
        if *at != median {
            return *at > median;
        }
        let stays = left > 0;
        left -= usize::from(stays);
        stays
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    #[test]
    fn li3_ten_seconds_worth_may_come_at_once_and_then_so_many_a_second() {
        let requests = Requests::default();
        assert!((0..1_000).all(|_| requests.count("ana", 100, at(0)).is_ok()));
        assert_eq!(requests.count("ana", 100, at(0)), Err(1_000));
        assert_eq!(requests.count("ben", 100, at(0)), Ok(()), "another one");
        assert!((0..100).all(|_| requests.count("ana", 100, at(1_000)).is_ok()));
        assert_eq!(requests.count("ana", 100, at(1_000)), Err(1_000));
        assert!((0..1_000).all(|_| requests.count("ana", 100, at(99_000)).is_ok()));
        assert_eq!(requests.count("ana", 100, at(99_000)), Err(1_000));
    }

    #[test]
    fn li3_a_wait_that_is_kept_to_is_enough() {
        let requests = Requests::default();
        let mut now = 0;
        for _ in 0..30 {
            if let Err(wait) = requests.count("ana", 1, at(now)) {
                now += wait;
                requests.count("ana", 1, at(now)).expect("it waited");
            }
        }
        assert_eq!(now, 20_000, "ten at once, and twenty more at one a second");
    }

    #[test]
    fn li3_a_clock_that_is_set_back_locks_nobody_out() {
        let requests = Requests::default();
        requests.count("ana", 10, at(1_000_000)).expect("the first");
        assert_eq!(requests.count("ana", 10, at(0)), Err(1_000));
        // As if ten seconds' worth had just been asked for.
        assert_eq!(requests.count("ana", 10, at(1_000)), Ok(()));
    }

    #[test]
    fn li3_memory_is_bounded_and_those_who_ask_most_are_remembered() {
        let requests = Requests::default();
        for _ in 0..100 {
            requests.count(u64::MAX, 10, at(0)).expect("a burst");
        }
        for key in 0..2 * KEYS_MAX as u64 {
            let _counted = requests.count(key, 10, at(0));
        }
        assert!(requests.0.lock().len() <= KEYS_MAX);
        assert_eq!(requests.count(u64::MAX, 10, at(0)), Err(1_000));
        requests.forget(at(10_001));
        assert_eq!(requests.0.lock().len(), 0);
    }
}
