//! Whether the server may have a changeset whose id it has forgotten (spec OB8, OB11).

use rusqlite::Connection;
use syncline_core::{Hlc, Timestamp, Version};

use super::{READING, Seq, WRITING};
use crate::{db::Doing, error::ReplicaError};

/// Whether a changeset may be in the server's log under an id that it has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Only this file has it, and knows every answer or asks under the same number again.
    None,
    /// It may have been sent without an answer, by this file or by what it is a copy of.
    IfOld,
    /// As before, and it is older than what the server remembers.
    Old,
}

impl Doubt {
    pub(super) fn number(self) -> i64 {
        match self {
            Self::None => 0,
            Self::Old => 1,
            Self::IfOld => 2,
        }
    }

    pub(super) fn from_number(number: i64) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Old,
            _ => Self::IfOld,
        }
    }
}

/// The file is a copy: what is unsent here or parked may have been sent by the other one, and be
/// forgotten by the server if it was made on something below the horizon, or before it (spec OB8).
/// An insert is made on the `checkpoint` that the file had reached.
pub(crate) fn doubt_all(
    conn: &Connection,
    checkpoint: Version,
    horizon: Version,
) -> Result<(), ReplicaError> {
    let is_below = horizon > checkpoint;
    conn.execute(
        "UPDATE syncline_outbox SET may_be_applied = CASE
           WHEN may_be_applied = 1 OR ?1 OR (?2 > 0 AND hlc <= ?3) OR EXISTS(
             SELECT 1 FROM syncline_changes c
             WHERE c.seq = syncline_outbox.seq AND c.base > 0 AND c.base < ?2)
           THEN 1 ELSE 2 END
         WHERE state IN (0, 2)",
        (
            is_below,
            horizon.0.cast_signed(),
            sealed_by(horizon).0.cast_signed(),
        ),
    )
    .map(drop)
    .doing(WRITING)
}

/// Whether something waits for its answer that the server counted: its number is below `next`.
pub(crate) fn waits_for_an_answer(conn: &Connection, next: u64) -> Result<bool, ReplicaError> {
    conn.prepare_cached("SELECT 1 FROM syncline_outbox WHERE state = 0 AND number < ?1")
        .and_then(|mut s| s.exists([next.cast_signed()]))
        .doing(READING)
}

/// Of what waits so, the least version that one is known to have: it was accepted, and is asked
/// about again.
pub(crate) fn least_asked_about(
    conn: &Connection,
    next: u64,
) -> Result<Option<Version>, ReplicaError> {
    conn.prepare_cached("SELECT min(version) FROM syncline_outbox WHERE state = 0 AND number < ?1")
        .and_then(|mut s| s.query_row([next.cast_signed()], |row| row.get::<_, Option<i64>>(0)))
        .map(|version| version.map(|version| Version(version.cast_unsigned())))
        .doing(READING)
}

/// Whether something is doubted once it is old.
pub(crate) fn is_any_doubtful(conn: &Connection) -> Result<bool, ReplicaError> {
    conn.prepare_cached("SELECT 1 FROM syncline_outbox WHERE may_be_applied = 2")
        .and_then(|mut s| s.exists([]))
        .doing(READING)
}

/// The server may have forgotten what became of that which it counted, and which waits.
pub(crate) fn doubt_unanswered(conn: &Connection, next: u64) -> Result<(), ReplicaError> {
    conn.prepare_cached(
        "UPDATE syncline_outbox SET may_be_applied = 1 WHERE state = 0 AND number < ?1",
    )
    .and_then(|mut s| s.execute([next.cast_signed()]))
    .map(drop)
    .doing(WRITING)
}

/// Has what was accepted after every checkpoint of ours sent once more: a server that was restored
/// since may have lost it although it knows our cursor. One that has it says so again, unless it
/// is too old for its id to be known (spec OB4).
pub(crate) fn ask_again(conn: &Connection, horizon: Version) -> Result<(), ReplicaError> {
    let asked: Vec<Seq> = conn
        .prepare_cached("SELECT seq FROM syncline_outbox WHERE state = 1 AND version > ?1")
        .and_then(|mut s| {
            let seqs = s.query_map([horizon.0.cast_signed()], |row| row.get(0));
            seqs.and_then(Iterator::collect)
        })
        .doing(READING)?;
    conn.prepare_cached("UPDATE syncline_outbox SET state = 0 WHERE state = 1 AND version > ?1")
        .and_then(|mut s| s.execute([horizon.0.cast_signed()]))
        .doing(WRITING)?;
    asked
        .into_iter()
        .try_for_each(|seq| hold_younger(conn, seq))
}

/// What was written on top of a changeset that counted as accepted depends on it again, for it
/// may be refused now (spec OB5).
pub(crate) fn hold_younger(conn: &Connection, seq: Seq) -> Result<(), ReplicaError> {
    conn.prepare_cached(
        "INSERT OR IGNORE INTO syncline_depends(seq, on_seq)
         SELECT younger.seq, c.seq FROM syncline_changes c
         JOIN syncline_changes younger ON younger.t = c.t AND younger.key = c.key
         JOIN syncline_outbox o ON o.seq = younger.seq
         WHERE c.seq = ?1 AND younger.seq > c.seq AND o.state = 0",
    )
    .and_then(|mut s| s.execute([seq]))
    .map(drop)
    .doing(WRITING)
}

/// The latest reading of a changeset that can be in the log at the horizon: a clock may run ahead
/// by what is allowed.
pub(crate) fn sealed_by(horizon: Version) -> Hlc {
    Hlc::at(Timestamp(horizon.0).plus_millis(Hlc::SKEW_MAX_MILLIS))
}
