//! The outbox on disk: changesets and what they depend on (docs/spec/outbox.md).

mod changes;
mod doubt;
mod piece;
mod sum;

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};
use syncline_core::{ChangesetId, Hlc, Timestamp, Version};

use super::settings::{self, Key};
use crate::{db::Doing, error::ReplicaError};

pub(crate) use changes::{
    StoredChange, change_at, changes, clamp_bases, delete_change, delete_changes_of,
    doubt_if_incomplete, each_change, each_of_whole, is_complete, is_parked, keys, move_changes_of,
    move_row, next_pos, pending, position, positions, put_change, readable, set_insert_base, size,
    sizes, touching, waits_to_be_inserted, whole, without_op,
};
pub(crate) use doubt::{ask_again, before, clamp_after, doubt_all, hold_younger, newest_known};
pub(crate) use piece::{id_of_piece, name_piece, piece_of, piece_to_keep};

/// A changeset's place in the order of this file: never reused, never sent.
pub(crate) type Seq = i64;

/// Where a changeset stands on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Sealed,
    Accepted,
    Parked,
}

impl State {
    fn number(self) -> i64 {
        match self {
            Self::Sealed => 0,
            Self::Accepted => 1,
            Self::Parked => 2,
        }
    }

    fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Sealed,
            1 => Self::Accepted,
            _ => Self::Parked,
        }
    }
}

/// A changeset without its changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) seq: Seq,
    pub(crate) id: ChangesetId,
    pub(crate) state: State,
    /// Given when it is sent.
    pub(crate) number: Option<u64>,
    /// The first one that it was given and that no answer settled.
    pub(crate) first_number: Option<u64>,
    /// Where it is in the log.
    pub(crate) version: Option<Version>,
    pub(crate) hlc: Hlc,
    pub(crate) marked: bool,
    /// It was sent at least once: its content never changes any more (spec SL9).
    pub(crate) sent: bool,
    pub(crate) require_unchanged: bool,
    /// It may have come from another file, which this one was copied from or to, or before it was
    /// cut: its number tells nothing.
    pub(crate) doubt: bool,
    /// If the server's log has it, then after this version.
    pub(crate) after: Version,
    /// What it was cut from: its changes have the positions that they had there.
    pub(crate) whole: Option<ChangesetId>,
    pub(crate) changes: u64,
    pub(crate) bytes: u64,
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) parked_at: Option<Timestamp>,
    /// Its id, its time and how many changes it has are what was written: once they are not, they
    /// never are again (spec OB15).
    pub(crate) is_sound: bool,
}

impl Entry {
    /// Whether the server may have it.
    pub(crate) fn may_have_come(&self) -> bool {
        self.doubt || self.version.is_some() || self.first_number.is_some()
    }

    /// Whether the server may have it although it has not counted its number.
    pub(crate) fn may_have_come_otherwise(&self) -> bool {
        let is_other = |first| Some(first) != self.number;
        self.doubt || self.version.is_some() || self.first_number.is_some_and(is_other)
    }
}

const READING: &str = "reading the outbox";
const WRITING: &str = "writing the outbox";

const ENTRY: &str = "SELECT seq, id, state, number, version, hlc, marked, require_unchanged,
    doubt, changes, bytes, first_at, last_at, code, message, parked_at, sent, sum, after,
    first_number, whole FROM syncline_outbox ";

fn read_entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    let unsigned = |index: usize| row.get::<_, i64>(index).map(i64::cast_unsigned);
    let optional = |index: usize| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(i64::cast_unsigned))
    };
    let mut entry = Entry {
        seq: row.get(0)?,
        id: ChangesetId(row.get(1)?),
        state: State::from_number(row.get(2)?),
        number: optional(3)?,
        version: optional(4)?.map(Version),
        hlc: Hlc(unsigned(5)?),
        marked: row.get(6)?,
        require_unchanged: row.get(7)?,
        doubt: row.get(8)?,
        changes: unsigned(9)?,
        bytes: unsigned(10)?,
        first_at: Timestamp(unsigned(11)?),
        last_at: Timestamp(unsigned(12)?),
        code: row.get(13)?,
        message: row.get(14)?,
        parked_at: optional(15)?.map(Timestamp),
        sent: row.get(16)?,
        after: Version(unsigned(18)?),
        first_number: optional(19)?,
        whole: row.get::<_, Option<_>>(20)?.map(ChangesetId),
        is_sound: true,
    };
    let stored: Option<i64> = row.get(17)?;
    entry.is_sound = stored.is_none_or(|stored| stored == sum::of_entry(&entry));
    Ok(entry)
}

fn entries(
    conn: &Connection,
    clause: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Entry>, ReplicaError> {
    let sql = format!("{ENTRY}{clause}");
    let mut statement = conn.prepare_cached(&sql).doing(READING)?;
    let found = statement.query_map(params, read_entry);
    found.and_then(Iterator::collect).doing(READING)
}

pub(crate) fn entry(conn: &Connection, seq: Seq) -> Result<Option<Entry>, ReplicaError> {
    Ok(entries(conn, "WHERE seq = ?1", [seq])?.pop())
}

pub(crate) fn by_id(conn: &Connection, id: ChangesetId) -> Result<Option<Entry>, ReplicaError> {
    Ok(entries(conn, "WHERE id = ?1", [id.0])?.pop())
}

/// The pieces that a changeset was cut into.
pub(crate) fn by_whole(conn: &Connection, whole: ChangesetId) -> Result<Vec<Entry>, ReplicaError> {
    entries(conn, "WHERE whole = ?1 ORDER BY seq", [whole.0])
}

/// At most `limit` changesets in this state after `after`, in order.
pub(crate) fn in_state(
    conn: &Connection,
    state: State,
    after: Seq,
    limit: usize,
) -> Result<Vec<Entry>, ReplicaError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    entries(
        conn,
        "WHERE state = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        (state.number(), after, limit),
    )
}

/// At most `limit` changesets after `after` that are parked with this code and no larger than this,
/// in order.
pub(crate) fn parked_with(
    conn: &Connection,
    after: Seq,
    code: &str,
    changes_max: u64,
    bytes_max: u64,
    limit: usize,
) -> Result<Vec<Entry>, ReplicaError> {
    let [changes_max, bytes_max, limit] =
        [changes_max, bytes_max, limit as u64].map(|max| i64::try_from(max).unwrap_or(i64::MAX));
    let parked = State::Parked.number();
    entries(
        conn,
        "WHERE state = ?1 AND code = ?2 AND changes <= ?3 AND bytes <= ?4 AND seq > ?5
         ORDER BY seq LIMIT ?6",
        (parked, code, changes_max, bytes_max, after, limit),
    )
}

/// At most `limit` changesets of any state after `after`, in order.
pub(crate) fn list(
    conn: &Connection,
    after: Seq,
    limit: usize,
) -> Result<Vec<Entry>, ReplicaError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    entries(conn, "WHERE seq > ?1 ORDER BY seq LIMIT ?2", (after, limit))
}

/// The youngest changeset.
pub(crate) fn last(conn: &Connection) -> Result<Option<Entry>, ReplicaError> {
    Ok(entries(conn, "ORDER BY seq DESC LIMIT 1", [])?.pop())
}

/// A place for the next changeset, above all that are or were there: sessions remember places.
pub(crate) fn next_seq(conn: &Connection) -> Result<Seq, ReplicaError> {
    let seq = settings::get::<Seq>(conn, Key::LastSeq)?.unwrap_or(0) + 1;
    settings::put(conn, Key::LastSeq, seq)?;
    Ok(seq)
}

/// The file was opened: it may be a copy or a backup whose changesets were sent from elsewhere as
/// they are now, so none of them grows any more (spec SL9). What is in no state
/// that it can be in waits (spec OB15).
pub(crate) fn close_all(conn: &Connection) -> Result<(), ReplicaError> {
    conn.execute(
        "UPDATE syncline_outbox SET state = 0 WHERE state NOT IN (0, 1, 2)
         OR state = 1 AND version IS NULL OR state = 2 AND code IS NULL",
        [],
    )
    .doing(WRITING)?;
    let_none_grow(conn)
}

/// What is in the outbox stays as it is: another file may have it, too, or what it was made of.
pub(crate) fn let_none_grow(conn: &Connection) -> Result<(), ReplicaError> {
    let last = settings::get::<Seq>(conn, Key::LastSeq)?;
    if let Some(last) = last.filter(|last| *last > 0)
        && joins_after(conn)? != last
    {
        settings::put(conn, Key::JoinsAfter, last)?;
    }
    Ok(())
}

/// Only changesets after this place may grow.
pub(crate) fn joins_after(conn: &Connection) -> Result<Seq, ReplicaError> {
    Ok(settings::get::<Seq>(conn, Key::JoinsAfter)?.unwrap_or(0))
}

/// How many changesets are in this state.
pub(crate) fn count(conn: &Connection, state: State) -> Result<u64, ReplicaError> {
    conn.prepare_cached("SELECT count(*) FROM syncline_outbox WHERE state = ?1")
        .and_then(|mut s| s.query_row([state.number()], |row| row.get::<_, i64>(0)))
        .map(i64::cast_unsigned)
        .doing(READING)
}

/// Writes a changeset's row, whether it is there already or not. Another changeset of the same id
/// is an error: it would be lost for this one.
pub(crate) fn put(conn: &Connection, entry: &Entry) -> Result<(), ReplicaError> {
    let optional = |number: Option<u64>| number.map(u64::cast_signed);
    conn.prepare_cached(
        "INSERT INTO syncline_outbox(seq, id, state, number, version, hlc, marked,
           require_unchanged, doubt, changes, bytes, first_at, last_at, code, message,
           parked_at, sent, sum, after, first_number, whole)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
           ?19, ?20, ?21)
         ON CONFLICT(seq) DO UPDATE SET id = ?2, state = ?3, number = ?4, version = ?5, hlc = ?6,
           marked = ?7, require_unchanged = ?8, doubt = ?9, changes = ?10, bytes = ?11,
           first_at = ?12, last_at = ?13, code = ?14, message = ?15, parked_at = ?16, sent = ?17,
           sum = ?18, after = ?19, first_number = ?20, whole = ?21",
    )
    .and_then(|mut s| {
        s.execute(rusqlite::params![
            entry.seq,
            entry.id.0,
            entry.state.number(),
            optional(entry.number),
            optional(entry.version.map(|v| v.0)),
            entry.hlc.0.cast_signed(),
            entry.marked,
            entry.require_unchanged,
            entry.doubt,
            entry.changes.cast_signed(),
            entry.bytes.cast_signed(),
            entry.first_at.0.cast_signed(),
            entry.last_at.0.cast_signed(),
            entry.code,
            entry.message,
            optional(entry.parked_at.map(|t| t.0)),
            entry.sent,
            sum::of_entry(entry),
            entry.after.0.cast_signed(),
            optional(entry.first_number),
            entry.whole.map(|whole| whole.0),
        ])
    })
    .map(drop)
    .doing(WRITING)
}

/// Removes a changeset, its changes and every mention of it.
pub(crate) fn remove(conn: &Connection, seq: Seq) -> Result<(), ReplicaError> {
    for sql in [
        "DELETE FROM syncline_changes WHERE seq = ?1",
        "DELETE FROM syncline_depends WHERE seq = ?1",
        "DELETE FROM syncline_depends WHERE on_seq = ?1",
        "DELETE FROM syncline_outbox WHERE seq = ?1",
    ] {
        conn.prepare_cached(sql)
            .and_then(|mut s| s.execute([seq]))
            .doing(WRITING)?;
    }
    Ok(())
}

/// Gives a changeset another place in the order.
pub(crate) fn move_to(conn: &Connection, from: Seq, to: Seq) -> Result<(), ReplicaError> {
    for sql in [
        "UPDATE syncline_changes SET seq = ?2 WHERE seq = ?1",
        "UPDATE syncline_depends SET seq = ?2 WHERE seq = ?1",
        "UPDATE syncline_depends SET on_seq = ?2 WHERE on_seq = ?1",
        "UPDATE syncline_outbox SET seq = ?2 WHERE seq = ?1",
    ] {
        conn.prepare_cached(sql)
            .and_then(|mut s| s.execute([from, to]))
            .doing(WRITING)?;
    }
    let_none_grow(conn)
}

/// Writes that `seq` needs `on` (spec SL6).
pub(crate) fn depend(conn: &Connection, seq: Seq, on: Seq) -> Result<(), ReplicaError> {
    conn.prepare_cached("INSERT OR IGNORE INTO syncline_depends(seq, on_seq) VALUES(?1, ?2)")
        .and_then(|mut s| s.execute([seq, on]))
        .map(drop)
        .doing(WRITING)
}

/// What a changeset depends on directly, with their states and numbers.
pub(crate) fn depends(
    conn: &Connection,
    seq: Seq,
) -> Result<Vec<(Seq, State, Option<u64>)>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT o.seq, o.state, o.number FROM syncline_depends d
             JOIN syncline_outbox o ON o.seq = d.on_seq WHERE d.seq = ?1 ORDER BY o.seq",
        )
        .doing(READING)?;
    let found = statement.query_map([seq], |row| {
        let number: Option<i64> = row.get(2)?;
        Ok((
            row.get(0)?,
            State::from_number(row.get(1)?),
            number.map(i64::cast_unsigned),
        ))
    });
    found.and_then(Iterator::collect).doing(READING)
}

/// Everything that depends on these, directly or not, itself included, in order (spec OB5).
pub(crate) fn dependants(
    conn: &Connection,
    roots: impl IntoIterator<Item = Seq>,
) -> Result<BTreeSet<Seq>, ReplicaError> {
    let mut found: BTreeSet<Seq> = BTreeSet::new();
    let mut open: Vec<Seq> = roots.into_iter().collect();
    while let Some(seq) = open.pop() {
        if !found.insert(seq) {
            continue;
        }
        let mut statement = conn
            .prepare_cached("SELECT seq FROM syncline_depends WHERE on_seq = ?1")
            .doing(READING)?;
        let next = statement.query_map([seq], |row| row.get(0));
        open.extend(
            next.and_then(Iterator::collect::<rusqlite::Result<Vec<Seq>>>)
                .doing(READING)?,
        );
    }
    Ok(found)
}

/// Takes numbers from `next` on back: the server has not counted them, and whatever has one gets
/// another when it is sent again, contiguous and in order (spec OB7, OB8). A server that was
/// restored may have counted them before that, and be replaced by that one once more.
pub(crate) fn take_numbers(
    conn: &Connection,
    next: u64,
    is_restored: bool,
) -> Result<(), ReplicaError> {
    let next = [next.cast_signed()];
    conn.execute(
        "UPDATE syncline_outbox SET number = NULL WHERE number >= ?1",
        next,
    )
    .doing(WRITING)?;
    if !is_restored {
        conn.execute(
            "UPDATE syncline_outbox SET first_number = NULL WHERE first_number >= ?1",
            next,
        )
        .doing(WRITING)?;
    }
    Ok(())
}

/// Gives it its number when it is sent. What nothing else can have brought to the server was not in
/// its log at the last Welcome (spec OB11): what was counted has its number still, and what was
/// accepted has a version.
pub(crate) fn set_number(conn: &Connection, seq: Seq, number: u64) -> Result<(), ReplicaError> {
    let head = settings::get_count(conn, Key::Head)?;
    conn.prepare_cached(
        "UPDATE syncline_outbox SET number = ?2, first_number = ifnull(first_number, ?2), sent = 1,
           after = CASE WHEN doubt = 0 AND first_number IS NULL AND version IS NULL
             THEN max(after, ?3) ELSE after END
         WHERE seq = ?1",
    )
    .and_then(|mut s| s.execute((seq, number.cast_signed(), head.cast_signed())))
    .map(drop)
    .doing(WRITING)
}

/// Writes that a changeset is of rows that were here before attaching: marked, so that it is never
/// joined with anything, but no transaction that has to stay whole. Parking it forgets that.
pub(crate) fn set_seed(conn: &Connection, seq: Seq) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_outbox SET marked = 2 WHERE seq = ?1")
        .and_then(|mut s| s.execute([seq]))
        .map(drop)
        .doing(WRITING)
}

pub(crate) fn is_seed(conn: &Connection, seq: Seq) -> Result<bool, ReplicaError> {
    conn.prepare_cached("SELECT marked = 2 FROM syncline_outbox WHERE seq = ?1")
        .and_then(|mut s| s.query_row([seq], |row| row.get(0)).optional())
        .map(|found| found.unwrap_or(false))
        .doing(READING)
}

/// It is sent again under a new number, at its place in the order (spec OB6).
pub(crate) fn set_unnumbered(conn: &Connection, seq: Seq) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_outbox SET number = NULL WHERE seq = ?1")
        .and_then(|mut s| s.execute([seq]))
        .map(drop)
        .doing(WRITING)
}
