//! What this device asks for of the tables that sync on demand.

use rusqlite::{Connection, OptionalExtension};
use syncline_core::{Timestamp, planted};

use crate::{db::Doing, error::ReplicaError};

/// One subscription, by the file's names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stored {
    pub(crate) table: String,
    pub(crate) column: Option<String>,
    /// An encoded row key, or the column's value encoded like one; `None`: the whole table.
    pub(crate) key: Option<Vec<u8>>,
    /// What it asks for is here.
    pub(crate) live: bool,
    /// Nobody wants it any more: it ends then.
    pub(crate) ends: Option<Timestamp>,
}

const READING: &str = "reading the subscriptions";
const WRITING: &str = "writing the subscriptions";

/// All of them: those that are wanted first, oldest first, then those that end last.
pub(crate) fn list(conn: &Connection) -> Result<Vec<Stored>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT tbl, col, key, live, ends FROM syncline_subscriptions
             ORDER BY ends IS NOT NULL, ends DESC, number, tbl, col, key",
        )
        .doing(READING)?;
    let found = statement.query_map([], |row| {
        let (column, key): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
        Ok(Stored {
            table: row.get(0)?,
            column: Some(column).filter(|column| !column.is_empty()),
            key: Some(key).filter(|key| !key.is_empty()),
            live: row.get::<_, i64>(3)? == 1,
            ends: row
                .get::<_, Option<i64>>(4)?
                .map(|at| Timestamp(at.cast_unsigned())),
        })
    });
    found.and_then(Iterator::collect).doing(READING)
}

/// How many there are, and the bytes of what they name.
pub(crate) fn size(conn: &Connection) -> Result<(u64, u64), ReplicaError> {
    conn.prepare_cached("SELECT count(*), ifnull(sum(length(key)), 0) FROM syncline_subscriptions")
        .and_then(|mut s| {
            s.query_row([], |row| {
                let (count, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
                Ok((count.cast_unsigned(), bytes.cast_unsigned()))
            })
        })
        .doing(READING)
}

/// How many are wanted.
pub(crate) fn count(conn: &Connection) -> Result<u64, ReplicaError> {
    conn.prepare_cached("SELECT count(*) FROM syncline_subscriptions WHERE ends IS NULL")
        .and_then(|mut s| s.query_row([], |row| row.get::<_, i64>(0)))
        .map(i64::cast_unsigned)
        .doing(READING)
}

/// Whether it is there, and if so whether it is wanted.
pub(crate) fn is_wanted(conn: &Connection, stored: &Stored) -> Result<Option<bool>, ReplicaError> {
    conn.prepare_cached(
        "SELECT ends IS NULL FROM syncline_subscriptions WHERE tbl = ?1 AND col = ?2 AND key = ?3",
    )
    .and_then(|mut s| s.query_row(place(stored), |row| row.get(0)).optional())
    .doing(READING)
}

/// Adds one as the change `number`.
pub(crate) fn put(conn: &Connection, stored: &Stored, number: u64) -> Result<(), ReplicaError> {
    let (table, column, key) = place(stored);
    conn.prepare_cached(
        "INSERT INTO syncline_subscriptions(tbl, col, key, number) VALUES(?1, ?2, ?3, ?4)",
    )
    .and_then(|mut s| s.execute((table, column, key, number.cast_signed())))
    .map(drop)
    .doing(WRITING)
}

/// Keeps one that was to end. What the server was told to end is asked for again, as the change
/// `number`.
pub(crate) fn keep(conn: &Connection, stored: &Stored, number: u64) -> Result<(), ReplicaError> {
    let (table, column, key) = place(stored);
    conn.prepare_cached(
        "UPDATE syncline_subscriptions SET ends = NULL, number = CASE live WHEN 1 THEN number ELSE ?4 END
         WHERE tbl = ?1 AND col = ?2 AND key = ?3",
    )
    .and_then(|mut s| s.execute((table, column, key, number.cast_signed())))
    .map(drop)
    .doing(WRITING)
}

/// Says when it ends.
pub(crate) fn set_end(
    conn: &Connection,
    stored: &Stored,
    ends: Timestamp,
) -> Result<(), ReplicaError> {
    let (table, column, key) = place(stored);
    let ends = i64::try_from(ends.0).unwrap_or(i64::MAX);
    conn.prepare_cached(
        "UPDATE syncline_subscriptions SET ends = ?4 WHERE tbl = ?1 AND col = ?2 AND key = ?3",
    )
    .and_then(|mut s| s.execute((table, column, key, ends)))
    .map(drop)
    .doing(WRITING)
}

/// The server is told to end it.
pub(crate) fn set_ending(conn: &Connection, stored: &Stored) -> Result<(), ReplicaError> {
    conn.prepare_cached(
        "UPDATE syncline_subscriptions SET live = 0 WHERE tbl = ?1 AND col = ?2 AND key = ?3",
    )
    .and_then(|mut s| s.execute(place(stored)))
    .map(drop)
    .doing(WRITING)
}

/// Forgets one that has ended, unless it was subscribed to again since it was read.
pub(crate) fn forget(conn: &Connection, stored: &Stored) -> Result<(), ReplicaError> {
    let (table, column, key) = place(stored);
    let ends = stored.ends.map(|ends| ends.0.cast_signed());
    conn.prepare_cached(
        "DELETE FROM syncline_subscriptions
         WHERE tbl = ?1 AND col = ?2 AND key = ?3 AND ends = ?4",
    )
    .and_then(|mut s| s.execute((table, column, key, ends)))
    .map(drop)
    .doing(WRITING)
}

/// What was asked for up to the change `number` is here, as far as the server was told of it; those
/// of which it was not known.
pub(crate) fn set_live(
    conn: &Connection,
    number: u64,
    is_told: impl Fn(&Stored) -> bool,
) -> Result<Vec<Stored>, ReplicaError> {
    let number = match planted!(LiveTooEarly) {
        true => i64::MAX as u64,
        false => number,
    };
    let any = conn
        .prepare_cached(
            "SELECT EXISTS(SELECT 1 FROM syncline_subscriptions
             WHERE live = 0 AND ends IS NULL AND number <= ?1)",
        )
        .and_then(|mut s| s.query_row([number.cast_signed()], |row| row.get::<_, bool>(0)))
        .doing(READING)?;
    if !any {
        return Ok(Vec::new());
    }
    let mut new = Vec::new();
    for stored in list(conn)? {
        if stored.live || stored.ends.is_some() || !is_told(&stored) {
            continue;
        }
        let (table, column, key) = place(&stored);
        let is_heard = conn
            .prepare_cached(
                "UPDATE syncline_subscriptions SET live = 1
                 WHERE tbl = ?1 AND col = ?2 AND key = ?3 AND number <= ?4",
            )
            .and_then(|mut s| s.execute((table, column, key, number.cast_signed())))
            .doing(WRITING)?;
        if is_heard > 0 {
            new.push(Stored {
                live: true,
                ..stored
            });
        }
    }
    Ok(new)
}

/// The server is told of one with the change `number` that there was no room for with the change
/// `before`.
pub(crate) fn tell_later(
    conn: &Connection,
    stored: &Stored,
    number: u64,
    before: u64,
) -> Result<(), ReplicaError> {
    let (table, column, key) = place(stored);
    conn.prepare_cached(
        "UPDATE syncline_subscriptions SET number = ?4
         WHERE tbl = ?1 AND col = ?2 AND key = ?3 AND live = 0 AND number <= ?5",
    )
    .and_then(|mut s| {
        s.execute((
            table,
            column,
            key,
            number.cast_signed(),
            before.cast_signed(),
        ))
    })
    .map(drop)
    .doing(WRITING)
}

fn place(stored: &Stored) -> (&str, &str, &[u8]) {
    (
        &stored.table,
        stored.column.as_deref().unwrap_or_default(),
        stored.key.as_deref().unwrap_or_default(),
    )
}
