//! The device's clock corrected towards the server's, and the one HLC of each changeset.

use rusqlite::Connection;
use syncline_core::{Hlc, Timestamp};

use crate::{
    error::ReplicaError,
    meta::settings::{self, Key},
};

/// `now` by the server's clock, as far as it was measured.
pub(crate) fn corrected(conn: &Connection, now: Timestamp) -> Result<Timestamp, ReplicaError> {
    let offset: i64 = settings::get(conn, Key::ClockOffset)?.unwrap_or(0);
    Ok(Timestamp(now.0.saturating_add_signed(offset)))
}

/// Measures the offset from one exchange: the server's clock was read half way.
pub(crate) fn measure(
    conn: &Connection,
    sent: Timestamp,
    received: Timestamp,
    server: Timestamp,
) -> Result<(), ReplicaError> {
    let halfway = sent.0 / 2 + received.0.max(sent.0) / 2;
    let offset = server.0.cast_signed().saturating_sub(halfway.cast_signed());
    settings::put(conn, Key::ClockOffset, offset)
}

/// The reading for a changeset whose last row was touched at `touched` by the device's clock.
///
/// Edits made long before they are sealed (by other programs, while no engine ran) carry the
/// time of the edit; still no reading is given twice or out of order (spec SL6).
pub(crate) fn stamp(
    conn: &Connection,
    touched: Timestamp,
    now: Timestamp,
) -> Result<Hlc, ReplicaError> {
    let time = corrected(conn, touched.min(now))?;
    let hlc = last(conn)?.tick(time);
    settings::put(conn, Key::Hlc, hlc.0.cast_signed())?;
    Ok(hlc)
}

/// Nothing that is stamped after this is earlier than `seen`, as long as `seen` itself is no
/// further ahead than the server would accept.
pub(crate) fn observe(conn: &Connection, seen: Hlc, now: Timestamp) -> Result<(), ReplicaError> {
    let seen = seen.clamped(corrected(conn, now)?);
    if seen > last(conn)? {
        settings::put(conn, Key::Hlc, seen.0.cast_signed())?;
    }
    Ok(())
}

fn last(conn: &Connection) -> Result<Hlc, ReplicaError> {
    Ok(Hlc(settings::get_count(conn, Key::Hlc)?))
}
