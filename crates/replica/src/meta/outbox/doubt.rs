//! Whether the server may have a changeset whose id it has forgotten (spec OB8, OB11).

use rusqlite::Connection;
use syncline_core::Version;

use super::{READING, Seq, WRITING};
use crate::{db::Doing, error::ReplicaError, meta::settings::Key};

/// The newest version that the log is known to have had: what did not exist until now, if it comes
/// there, comes after that.
pub(crate) fn newest_known(conn: &Connection) -> Result<Version, ReplicaError> {
    conn.prepare_cached(
        "SELECT max(ifnull((SELECT max(version) FROM syncline_cursors), 0),
                    ifnull((SELECT value FROM syncline_meta WHERE key = ?1), 0))",
    )
    .and_then(|mut s| s.query_row([Key::Head.name()], |row| row.get::<_, i64>(0)))
    .map(|version| Version(version.cast_unsigned()))
    .doing(READING)
}

/// What is in the log at this version is there after that one.
pub(crate) fn before(version: Version) -> Version {
    Version(version.0.saturating_sub(1))
}

/// The file is a copy: whatever it has, the other one may have sent under a number of its own.
pub(crate) fn doubt_all(conn: &Connection) -> Result<(), ReplicaError> {
    conn.execute("UPDATE syncline_outbox SET doubt = 1 WHERE doubt = 0", [])
        .map(drop)
        .doing(WRITING)
}

/// The log ends at `head`: whatever comes comes after that.
pub(crate) fn clamp_after(conn: &Connection, head: Version) -> Result<(), ReplicaError> {
    conn.execute(
        "UPDATE syncline_outbox SET after = ?1 WHERE after > ?1",
        [head.0.cast_signed()],
    )
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
