//! How fast one connection may talk (spec SE25).

use syncline_core::Timestamp;

/// This many seconds' worth may come at once.
pub const BURST_SECONDS: u32 = 10;

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
            messages: Bucket::full(rates.messages_per_second, now),
            bytes: Bucket::full(rates.bytes_per_second, now),
        }
    }

    /// Counts a message of so many bytes; whether it may come now.
    pub(crate) fn take(&mut self, bytes: usize, now: Timestamp) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.messages.take(1, now) && self.bytes.take(bytes, now)
    }
}

/// A token bucket, counted in millionths: what a microsecond brings is a whole number.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    level: u64,
    filled: Timestamp,
}

const MILLIONTHS: u64 = 1_000_000;

impl Bucket {
    fn full(per_second: u32, now: Timestamp) -> Self {
        let per_second = u64::from(per_second);
        Self {
            per_second,
            level: Self::capacity(per_second),
            filled: now,
        }
    }

    fn capacity(per_second: u64) -> u64 {
        per_second * u64::from(BURST_SECONDS) * MILLIONTHS
    }

    fn take(&mut self, cost: u64, now: Timestamp) -> bool {
        // A clock that was set back brings nothing.
        let micros = now.0.saturating_sub(self.filled.0);
        self.filled = now;
        let more = micros.saturating_mul(self.per_second);
        let level = self
            .level
            .saturating_add(more)
            .min(Self::capacity(self.per_second));
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
        messages_per_second: 10,
        bytes_per_second: 1_000,
    };

    fn pace() -> (Pace, Timestamp) {
        let now = Timestamp(1_700_000_000_000_000);
        (Pace::new(RATES, now), now)
    }

    #[test]
    fn se25_ten_seconds_worth_may_come_at_once_and_then_so_many_a_second() {
        let (mut pace, now) = pace();
        assert!((0..100).all(|_| pace.take(1, now)));
        assert!(!pace.take(1, now));
        let later = now.plus_millis(1_000);
        assert!((0..10).all(|_| pace.take(1, later)));
        assert!(!pace.take(1, later));
    }

    #[test]
    fn se25_bytes_are_counted_too() {
        let (mut pace, now) = pace();
        assert!(pace.take(9_999, now) && pace.take(1, now));
        assert!(!pace.take(1, now));
        assert!(pace.take(500, now.plus_millis(500)));
        assert!(!pace.take(usize::MAX, now.plus_millis(60_000)));
    }

    #[test]
    fn se25_no_more_is_saved_up_than_ten_seconds_bring() {
        let (mut pace, now) = pace();
        let much_later = Timestamp(u64::MAX);
        assert!(pace.take(10_000, much_later));
        assert!(!pace.take(1, much_later));
        assert!(
            !pace.take(1, now),
            "a clock that is set back brings nothing"
        );
    }
}
