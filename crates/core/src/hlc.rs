//! Hybrid logical clock: physical milliseconds, a counter, and no trust in either (spec ID9).

use crate::ids::Timestamp;

/// A reading of a hybrid logical clock: 48 bits of milliseconds, 16 bits of counter.
///
/// Ordered as a number. Ties between devices are broken by changeset id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// How far a device's clock may run ahead of the server's before it is clamped.
    pub const SKEW_MAX_MILLIS: u64 = 60_000;

    /// The first reading within the millisecond of `time`.
    #[must_use]
    pub fn at(time: Timestamp) -> Self {
        Self(time.as_millis().min(0xFFFF_FFFF_FFFF) << 16)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The reading after `self` at `now`: never smaller than `self` + 1, wherever the clock steps.
    ///
    /// A counter overflow runs into the next millisecond, which keeps the order.
    #[must_use]
    pub fn tick(self, now: Timestamp) -> Self {
        Self(Self::at(now).0.max(self.0.saturating_add(1)))
    }

    /// The reading right after `self`.
    #[must_use]
    pub fn successor(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// `self`, or the latest reading a server at `now` accepts if `self` is ahead of that.
    #[must_use]
    pub fn clamped(self, now: Timestamp) -> Self {
        self.min(Self::at(now.plus_millis(Self::SKEW_MAX_MILLIS)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time() -> impl Strategy<Value = Timestamp> {
        prop_oneof![
            (0..5_000_u64).prop_map(Timestamp::from_millis),
            any::<u64>().prop_map(Timestamp),
        ]
    }

    proptest! {
        #[test]
        fn id9_readings_grow_however_the_clock_steps(times in prop::collection::vec(time(), 1..50)) {
            let mut last = Hlc::default();
            for now in times {
                let next = last.tick(now);
                // At the very end of time there is nothing left to grow into.
                prop_assert!(next > last || last == Hlc(u64::MAX));
                prop_assert!(next >= Hlc::at(now));
                prop_assert!(next == Hlc::at(now) || next == last.successor());
                last = next;
            }
        }

        #[test]
        fn id9_a_server_takes_nothing_more_than_a_minute_ahead(a: u64, b: u64, now in time()) {
            let latest = Hlc::at(now.plus_millis(Hlc::SKEW_MAX_MILLIS));
            let (a, b) = (Hlc(a), Hlc(b));
            prop_assert!(a.clamped(now) <= latest);
            prop_assert_eq!(a.clamped(now).clamped(now), a.clamped(now));
            prop_assert!(a > latest || a.clamped(now) == a);
            prop_assert!(a > b || a.clamped(now) <= b.clamped(now), "the order is kept");
        }
    }

    #[test]
    fn id9_a_full_counter_runs_into_the_next_millisecond() {
        let now = Timestamp::from_millis(7);
        let full = Hlc((7 << 16) | 0xFFFF);
        assert_eq!(full.millis(), 7);
        assert_eq!(full.tick(now), Hlc(8 << 16));
        assert_eq!(Hlc::at(now).tick(now), Hlc((7 << 16) + 1));
        assert_eq!(Hlc::at(now).tick(Timestamp::from_millis(9)), Hlc(9 << 16));
    }
}
