//! The one place of the server that reads a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use syncline_core::Timestamp;

/// Microseconds since 1970 by the system's clock.
pub(crate) fn now() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}

/// How long until `then`; nothing if it has passed.
pub(crate) fn until(then: Timestamp) -> Duration {
    Duration::from_micros(then.0.saturating_sub(now().0))
}
