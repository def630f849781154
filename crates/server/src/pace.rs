//! How fast one connection may talk (spec SE25, LI4).

use syncline_core::{
    Timestamp,
    wire::{CHANGESET_BYTES_MAX, PUSH_PART_BYTES},
};

use crate::{session::PUSHES_MAX, upload::PARTS_MAX};

/// This many seconds' worth may come at once.
pub const BURST_SECONDS: u32 = 10;

/// However slow a connection has to be, a replica that hears that it is too fast only when it has
/// sent what it had ready is not cut: a changeset of the greatest size in all its parts, or as many
/// small ones as may be unanswered, with what a session says before and beside them.
const ROOM_MESSAGES: u64 = max(PARTS_MAX, PUSHES_MAX) as u64 + 64;
const ROOM_BYTES: u64 = (CHANGESET_BYTES_MAX + 32 * PUSH_PART_BYTES) as u64;

const fn max(a: u32, b: u32) -> u32 {
    if a > b { a } else { b }
}

/// What one connection may send in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    pub messages_per_second: u32,
    pub bytes_per_second: u32,
}

/// What one connection may still send.
#[derive(Debug)]
pub(crate) struct Pace {
    messages: Bucket,
    bytes: Bucket,
    /// The replica was told to slow down; it is not told again before.
    told_until: Timestamp,
}

impl Pace {
    pub(crate) fn new(rates: Rates, now: Timestamp) -> Self {
        Self {
            messages: Bucket::full(rates.messages_per_second, ROOM_MESSAGES, now),
            bytes: Bucket::full(rates.bytes_per_second, ROOM_BYTES, now),
            told_until: now,
        }
    }

    /// Counts a message of so many bytes; whether it may come now.
    pub(crate) fn take(&mut self, bytes: usize, now: Timestamp) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.messages.take(1, now) && self.bytes.take(bytes, now)
    }

    /// Where the replica is to be told to slow down: for how many milliseconds.
    pub(crate) fn warning(&mut self, now: Timestamp) -> Option<u64> {
        let pause = self.pause_millis();
        if pause == 0 || now < self.told_until {
            return None;
        }
        let pause = pause + MORE_MILLIS;
        self.told_until = now.plus_millis(pause);
        Some(pause)
    }

    /// After how many milliseconds there is room again for the largest changeset.
    pub(crate) fn pause_millis(&self) -> u64 {
        let buckets = [&self.messages, &self.bytes];
        buckets.map(Bucket::low_for).into_iter().max().unwrap_or(0)
    }
}

/// Whoever is told to slow down waits for this much more than is missing, so that it is not told so
/// again at once.
const MORE_MILLIS: u64 = 1_000;

/// A token bucket, counted in millionths: what a microsecond brings is a whole number.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    capacity: u64,
    /// Below it the replica is told to slow down.
    low: u64,
    level: u64,
    filled: Timestamp,
}

const MILLIONTHS: u64 = 1_000_000;

impl Bucket {
    fn full(per_second: u32, room: u64, now: Timestamp) -> Self {
        let per_second = u64::from(per_second);
        let burst = (per_second * u64::from(BURST_SECONDS)).max(2 * room);
        let capacity = burst * MILLIONTHS;
        Self {
            per_second,
            capacity,
            low: capacity / 2,
            level: capacity,
            filled: now,
        }
    }

    /// In how many milliseconds it is not low any more.
    fn low_for(&self) -> u64 {
        let micros = self
            .low
            .saturating_sub(self.level)
            .div_ceil(self.per_second.max(1));
        micros.div_ceil(1_000)
    }

    fn take(&mut self, cost: u64, now: Timestamp) -> bool {
        // A clock that was set back brings nothing.
        let micros = now.0.saturating_sub(self.filled.0);
        self.filled = now;
        let more = micros.saturating_mul(self.per_second);
        let level = self.level.saturating_add(more).min(self.capacity);
        match level.checked_sub(cost.saturating_mul(MILLIONTHS)) {
            Some(left) => {
                self.level = left;
                true
            }
            None => {
                self.level = level;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        messages_per_second: 100,
        bytes_per_second: 10_000_000,
    };

    const RATES_OF_BYTES: Rates = Rates {
        messages_per_second: 100,
        bytes_per_second: 20_000_000,
    };

    fn pace(rates: Rates) -> (Pace, Timestamp) {
        let now = Timestamp(1_700_000_000_000_000);
        (Pace::new(rates, now), now)
    }

    #[test]
    fn se25_ten_seconds_worth_may_come_at_once_and_then_so_many_a_second() {
        let (mut pace, now) = pace(RATES);
        assert!((0..1_000).all(|_| pace.take(1, now)));
        assert!(!pace.take(1, now));
        assert_eq!(pace.pause_millis(), 5_000, "until half of it may come");
        let later = now.plus_millis(1_000);
        assert!((0..100).all(|_| pace.take(1, later)));
        assert!(!pace.take(1, later));
    }

    #[test]
    fn se25_bytes_are_counted_too() {
        let (mut pace, now) = pace(RATES_OF_BYTES);
        assert!(pace.take(199_999_999, now) && pace.take(1, now));
        assert!(!pace.take(1, now));
        assert!(pace.take(10_000_000, now.plus_millis(500)));
        assert!(!pace.take(usize::MAX, now.plus_millis(60_000)));
    }

    #[test]
    fn li4_whoever_waits_as_told_is_never_cut() {
        let (mut pace, start) = pace(Rates {
            messages_per_second: 10,
            bytes_per_second: 262_144,
        });
        let (mut now, mut warned) = (start, 0);
        // As much as a replica may have unanswered, again and again.
        for _ in 0..100 {
            let mut wait = 0;
            for _ in 0..PUSHES_MAX {
                assert!(pace.take(1_000, now));
                wait = pace.warning(now).map_or(wait, |pause| pause.max(wait));
            }
            warned += u32::from(wait > 0);
            now = now.plus_millis(pace.pause_millis().max(wait));
        }
        assert!(warned > 90, "{warned}");
        let seconds = (now.0 - start.0) / 1_000_000;
        assert!(
            (2_500..=2_560).contains(&seconds),
            "25,600 at ten a second: {seconds}"
        );
    }

    #[test]
    fn se25_no_more_is_saved_up_than_ten_seconds_bring() {
        let (mut pace, now) = pace(RATES_OF_BYTES);
        let much_later = Timestamp(u64::MAX);
        assert!(pace.take(200_000_000, much_later));
        assert!(!pace.take(1, much_later));
        assert!(
            !pace.take(1, now),
            "a clock that is set back brings nothing"
        );
    }

    #[test]
    fn se25_the_largest_changeset_comes_through_at_any_rate() {
        let (mut pace, now) = pace(Rates {
            messages_per_second: 10,
            bytes_per_second: 262_144,
        });
        // Hello, and what announces the parts; each part with what stands around its bytes.
        assert!(pace.take(1_000, now) && pace.take(100, now));
        assert!((0..PARTS_MAX).all(|_| pace.take(PUSH_PART_BYTES + 64, now)));
        // Another one that was ready too comes through before it is cut, and is too much.
        assert_eq!(pace.warning(now), None);
        assert!((0..PARTS_MAX).all(|_| pace.take(PUSH_PART_BYTES + 64, now)));
        let pause = pace.warning(now).expect("it was a lot");
        assert_eq!(pace.warning(now.plus_millis(pause - 1)), None, "said once");
        assert!(
            (0..ROOM_MESSAGES).any(|_| !pace.take(1, now)),
            "but not for ever"
        );
        assert!(pace.pause_millis() > 200_000, "the rate is what it was");
    }
}
