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

    /// The reading after `self` at `now`: never smaller than `self` + 1.
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
