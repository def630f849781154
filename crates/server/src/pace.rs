//! How fast one connection may talk (spec SE25).

use syncline_core::{
    Timestamp,
    wire::{CHANGESET_BYTES_MAX, PUSH_PART_BYTES},
};

use crate::upload::PARTS_MAX;

/// This many seconds' worth may come at once.
pub const BURST_SECONDS: u32 = 10;

/// However slow a connection has to be: a changeset of the greatest size comes through, in all
/// its parts, with what a session says before and beside it. Who is cut begins it anew.
const BURST_MESSAGES_MIN: u64 = PARTS_MAX as u64 + 64;
const BURST_BYTES_MIN: u64 = (CHANGESET_BYTES_MAX + 4 * PUSH_PART_BYTES) as u64;

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
}

impl Pace {
    pub(crate) fn new(rates: Rates, now: Timestamp) -> Self {
        Self {
            messages: Bucket::full(rates.messages_per_second, BURST_MESSAGES_MIN, now),
            bytes: Bucket::full(rates.bytes_per_second, BURST_BYTES_MIN, now),
        }
    }

    /// Counts a message of so many bytes; whether it may come now.
    pub(crate) fn take(&mut self, bytes: usize, now: Timestamp) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.messages.take(1, now) && self.bytes.take(bytes, now)
    }

    /// After how many milliseconds as much may come at once as from a new connection.
    pub(crate) fn pause_millis(&self) -> u64 {
        let buckets = [&self.messages, &self.bytes];
        buckets.map(Bucket::full_in).into_iter().max().unwrap_or(0)
    }
}

/// A token bucket, counted in millionths: what a microsecond brings is a whole number.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    capacity: u64,
    level: u64,
    filled: Timestamp,
}

const MILLIONTHS: u64 = 1_000_000;

impl Bucket {
    fn full(per_second: u32, burst_min: u64, now: Timestamp) -> Self {
        let per_second = u64::from(per_second);
        let burst = (per_second * u64::from(BURST_SECONDS)).max(burst_min);
        let capacity = burst * MILLIONTHS;
        Self {
            per_second,
            capacity,
            level: capacity,
            filled: now,
        }
    }

    /// In how many milliseconds it is full again.
    fn full_in(&self) -> u64 {
        let micros = (self.capacity - self.level).div_ceil(self.per_second.max(1));
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

    fn pace(rates: Rates) -> (Pace, Timestamp) {
        let now = Timestamp(1_700_000_000_000_000);
        (Pace::new(rates, now), now)
    }

    #[test]
    fn se25_ten_seconds_worth_may_come_at_once_and_then_so_many_a_second() {
        let (mut pace, now) = pace(RATES);
        assert!((0..1_000).all(|_| pace.take(1, now)));
        assert!(!pace.take(1, now));
        assert_eq!(pace.pause_millis(), 10_000);
        let later = now.plus_millis(1_000);
        assert!((0..100).all(|_| pace.take(1, later)));
        assert!(!pace.take(1, later));
    }

    #[test]
    fn se25_bytes_are_counted_too() {
        let (mut pace, now) = pace(RATES);
        assert!(pace.take(99_999_999, now) && pace.take(1, now));
        assert!(!pace.take(1, now));
        assert!(pace.take(5_000_000, now.plus_millis(500)));
        assert!(!pace.take(usize::MAX, now.plus_millis(60_000)));
    }

    #[test]
    fn se25_no_more_is_saved_up_than_ten_seconds_bring() {
        let (mut pace, now) = pace(RATES);
        let much_later = Timestamp(u64::MAX);
        assert!(pace.take(100_000_000, much_later));
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
        assert!((0..320).any(|_| !pace.take(1, now)), "but not for ever");
        assert!(pace.pause_millis() > 200_000, "the rate is what it was");
    }
}
