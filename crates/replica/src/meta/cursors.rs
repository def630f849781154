//! The last cursors, exponentially spaced, so that a restored server finds a common one.

use rusqlite::Connection;
use syncline_core::{Cursor, Tag, Version, wire::CURSORS_MAX};

use crate::{db::Doing, error::ReplicaError};

/// The newest are kept whatever their spacing.
const NEWEST_KEPT: usize = 4;
/// Ages below 2^20 µs (a second) count as one class.
const FIRST_CLASS: u32 = 20;

/// All kept cursors, newest first.
pub(crate) fn list(conn: &Connection) -> Result<Vec<Cursor>, ReplicaError> {
    const DOING: &str = "reading the cursors";
    let mut statement = conn
        .prepare_cached("SELECT version, tag, mac FROM syncline_cursors ORDER BY version DESC")
        .doing(DOING)?;
    let cursors = statement.query_map([], |row| {
        Ok(Cursor {
            version: Version(row.get::<_, i64>(0)?.cast_unsigned()),
            tag: Tag(row.get(1)?),
            mac: Tag(row.get(2)?),
        })
    });
    cursors.and_then(Iterator::collect).doing(DOING)
}

/// The version of the newest cursor.
pub(crate) fn newest(conn: &Connection) -> Result<Option<Version>, ReplicaError> {
    conn.prepare_cached("SELECT max(version) FROM syncline_cursors")
        .and_then(|mut s| s.query_row([], |row| row.get::<_, Option<i64>>(0)))
        .map(|version| version.map(|v| Version(v.cast_unsigned())))
        .doing("reading the cursors")
}

/// Adds a cursor and forgets what [`superfluous`] says.
pub(crate) fn add(conn: &Connection, cursor: &Cursor) -> Result<(), ReplicaError> {
    const DOING: &str = "writing a cursor";
    conn.prepare_cached(
        "INSERT OR REPLACE INTO syncline_cursors(version, tag, mac) VALUES(?1, ?2, ?3)",
    )
    .and_then(|mut s| s.execute((cursor.version.0.cast_signed(), cursor.tag.0, cursor.mac.0)))
    .doing(DOING)?;
    let versions: Vec<u64> = list(conn)?.iter().map(|c| c.version.0).collect();
    for version in superfluous(&versions) {
        conn.prepare_cached("DELETE FROM syncline_cursors WHERE version = ?1")
            .and_then(|mut s| s.execute([version.cast_signed()]))
            .doing(DOING)?;
    }
    Ok(())
}

/// Forgets all of them: a Reload begins.
pub(crate) fn clear(conn: &Connection) -> Result<(), ReplicaError> {
    conn.execute("DELETE FROM syncline_cursors", [])
        .map(drop)
        .doing("forgetting the cursors")
}

/// Of `versions`, newest first: those that are neither among the newest nor the oldest of their
/// age class, where each class is twice as long as the one before.
fn superfluous(versions: &[u64]) -> Vec<u64> {
    let Some(&newest) = versions.first() else {
        return Vec::new();
    };
    let class = |version: u64| (64 - (newest - version).leading_zeros()).max(FIRST_CLASS);
    let mut out: Vec<u64> = versions
        .windows(2)
        .skip(NEWEST_KEPT.saturating_sub(1))
        .filter(|pair| class(pair[0]) == class(pair[1]))
        .map(|pair| pair[0])
        .collect();
    // Classes past 2^47 µs hardly exist, but the limit on the wire is a hard one.
    let kept = versions.len() - out.len();
    out.extend(versions.iter().rev().take(kept.saturating_sub(CURSORS_MAX)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ap10_cursors_stay_few_and_reach_far_back() {
        let mut kept: Vec<u64> = Vec::new();
        let mut now = 1_700_000_000_000_000;
        for step in 0..200_000_u64 {
            now += 1 + (step % 977) * 10_000;
            kept.insert(0, now);
            let gone = superfluous(&kept);
            kept.retain(|v| !gone.contains(v));
            assert!(kept.len() <= CURSORS_MAX);
        }
        assert_eq!(kept[0], now);
        assert!(now - kept.last().unwrap() > (now - 1_700_000_000_000_000) / 4);
    }
}
