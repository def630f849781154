//! The changes of changesets on disk: which rows they touch, and how.

use rusqlite::{Connection, OptionalExtension, types::ValueRef};
use syncline_core::{Change, Op, RowKey, TableNumber, Timestamp, Version};

use super::{
    Entry, READING, Seq, State, WRITING,
    sum::{self, ChangeSum},
};
use crate::{
    codec,
    db::{self, Doing},
    error::ReplicaError,
    meta::ledger::row_key,
};

/// One change as stored: numbers in it are local.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredChange {
    pub(crate) pos: i64,
    pub(crate) change: Change,
    /// When its row was first touched.
    pub(crate) at: Timestamp,
}

impl StoredChange {
    /// Its position as a server is told: a changeset has far fewer changes than that.
    pub(crate) fn place(&self) -> u32 {
        u32::try_from(self.pos).unwrap_or(u32::MAX)
    }
}

const CHANGES: &str = "SELECT pos, t, key, base, op, at, sum FROM syncline_changes
     WHERE seq = ?1 AND pos >= ?2 ORDER BY pos LIMIT ?3";

/// The changes of a changeset in order, from position `from` on, at most `limit`.
pub(crate) fn changes(
    conn: &Connection,
    seq: Seq,
    from: i64,
    limit: usize,
) -> Result<Vec<StoredChange>, ReplicaError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(CHANGES).doing(READING)?;
    let mut rows = statement.query((seq, from, limit)).doing(READING)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        found.push(read_change(seq, row)?);
    }
    Ok(found)
}

/// Each change of a changeset in order, one in memory at a time; how many there were.
pub(crate) fn each_change(
    conn: &Connection,
    seq: Seq,
    mut told: impl FnMut(StoredChange) -> Result<(), ReplicaError>,
) -> Result<u64, ReplicaError> {
    let mut statement = conn.prepare_cached(CHANGES).doing(READING)?;
    let mut rows = statement.query((seq, 0, i64::MAX)).doing(READING)?;
    let mut count = 0;
    while let Some(row) = rows.next().doing(READING)? {
        told(read_change(seq, row)?)?;
        count += 1;
    }
    Ok(count)
}

/// As [`each_change`], of a changeset that has to have every change that it was given (spec OB15):
/// otherwise what was told is not to be used.
pub(crate) fn each_of_whole(
    conn: &Connection,
    entry: &Entry,
    mut told: impl FnMut(StoredChange) -> Result<(), ReplicaError>,
) -> Result<(), ReplicaError> {
    let mut positions = Vec::new();
    let count = each_change(conn, entry.seq, |stored| {
        if entry.whole.is_some() {
            positions.push(stored.pos);
        }
        told(stored)
    })?;
    sum::check_entry(entry, count)?;
    sum::check_piece(entry, positions)
}

/// A changeset as it is now, with every change that it was given (spec OB15); `None` if it is not
/// there any more. Another program may have joined more with it since it was listed.
pub(crate) fn whole(
    conn: &Connection,
    seq: Seq,
) -> Result<Option<(Entry, Vec<StoredChange>)>, ReplicaError> {
    db::snapshot(conn, || {
        let Some(entry) = super::entry(conn, seq)? else {
            return Ok(None);
        };
        let found = changes(conn, seq, 0, usize::MAX)?;
        sum::check_entry(&entry, found.len() as u64)?;
        sum::check_piece(&entry, found.iter().map(|stored| stored.pos))?;
        Ok(Some((entry, found)))
    })
}

/// Whether it has its id, its time and as many changes as it was given, readable or not.
pub(crate) fn is_complete(conn: &Connection, entry: &Entry) -> Result<bool, ReplicaError> {
    let (count, _) = size(conn, entry.seq)?;
    let is_its = match entry.whole {
        Some(_) => sum::check_piece(entry, positions(conn, entry.seq)?).is_ok(),
        None => true,
    };
    Ok(is_its && sum::check_entry(entry, count).is_ok())
}

/// To be called before its changes are counted anew: what is missing now stays missed.
pub(crate) fn doubt_if_incomplete(
    conn: &Connection,
    entry: &mut Entry,
) -> Result<(), ReplicaError> {
    entry.is_sound = is_complete(conn, entry)?;
    Ok(())
}

fn read_change(seq: Seq, row: &rusqlite::Row<'_>) -> Result<StoredChange, ReplicaError> {
    let key = row_key(row.get_ref(2).doing(READING)?)
        .map_err(|error| sum::damaged(seq, error.to_string()))?;
    let t = table(seq, row.get(1).doing(READING)?)?;
    let base = Version(row.get::<_, i64>(3).doing(READING)?.cast_unsigned());
    let op = read_op(
        seq,
        (t, &key, base),
        row.get_ref(4).doing(READING)?,
        row.get(6).doing(READING)?,
    )?;
    Ok(StoredChange {
        pos: row.get(0).doing(READING)?,
        change: Change {
            table: t,
            key,
            base,
            op,
        },
        at: Timestamp(row.get::<_, i64>(5).doing(READING)?.cast_unsigned()),
    })
}

fn table(seq: Seq, stored: i64) -> Result<TableNumber, ReplicaError> {
    u32::try_from(stored)
        .map(TableNumber)
        .map_err(|_| sum::damaged(seq, "the table of a change has no such number"))
}

fn read_op(
    seq: Seq,
    (t, key, base): (TableNumber, &RowKey, Version),
    stored: ValueRef<'_>,
    sum: Option<i64>,
) -> Result<Op, ReplicaError> {
    let bytes = stored
        .as_blob()
        .map_err(|error| sum::damaged(seq, error.to_string()))?;
    ChangeSum::new(t, key.as_bytes(), base, bytes).check(seq, sum)?;
    codec::decode_op(seq, bytes)
}

/// Those changes of a changeset that can be read, from the first on, at most `limit`.
pub(crate) fn readable(
    conn: &Connection,
    seq: Seq,
    limit: usize,
) -> Result<Vec<StoredChange>, ReplicaError> {
    match changes(conn, seq, 0, limit) {
        Err(ReplicaError::DamagedChangeset { .. }) => {}
        done => return done,
    }
    let mut found = Vec::new();
    for pos in positions(conn, seq)? {
        match change_at(conn, seq, pos) {
            Ok(change) => found.extend(change),
            Err(ReplicaError::DamagedChangeset { .. }) => {}
            Err(error) => return Err(error),
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

/// The change at exactly this position.
pub(crate) fn change_at(
    conn: &Connection,
    seq: Seq,
    pos: i64,
) -> Result<Option<StoredChange>, ReplicaError> {
    let found = changes(conn, seq, pos, 1)?.pop();
    Ok(found.filter(|change| change.pos == pos))
}

/// The positions of a changeset's changes, in order.
pub(crate) fn positions(conn: &Connection, seq: Seq) -> Result<Vec<i64>, ReplicaError> {
    let mut statement = conn
        .prepare_cached("SELECT pos FROM syncline_changes WHERE seq = ?1 ORDER BY pos")
        .doing(READING)?;
    let found = statement.query_map([seq], |row| row.get(0));
    found.and_then(Iterator::collect).doing(READING)
}

/// The change at this position as if it did nothing; `None` if not even its row is known.
pub(crate) fn without_op(
    conn: &Connection,
    seq: Seq,
    pos: i64,
) -> Result<Option<StoredChange>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT t, key, base, at, sum FROM syncline_changes WHERE seq = ?1 AND pos = ?2",
        )
        .doing(READING)?;
    let mut rows = statement.query((seq, pos)).doing(READING)?;
    let Some(row) = rows.next().doing(READING)? else {
        return Ok(None);
    };
    let t = table(seq, row.get(0).doing(READING)?);
    let key = row_key(row.get_ref(1).doing(READING)?);
    let (Ok(t), Ok(key)) = (t, key) else {
        return Ok(None);
    };
    let base = Version(row.get::<_, i64>(2).doing(READING)?.cast_unsigned());
    let place = ChangeSum::new(t, key.as_bytes(), base, &[]);
    if place.check_place(seq, row.get(4).doing(READING)?).is_err() {
        return Ok(None);
    }
    Ok(Some(StoredChange {
        pos,
        change: Change {
            table: t,
            key,
            base,
            op: Op::Update(Vec::new()),
        },
        at: Timestamp(row.get::<_, i64>(3).doing(READING)?.cast_unsigned()),
    }))
}

/// The keys of a changeset's rows, without decoding what happened to them; those that can be read.
pub(crate) fn keys(
    conn: &Connection,
    seq: Seq,
) -> Result<Vec<(TableNumber, RowKey)>, ReplicaError> {
    let mut statement = conn
        .prepare_cached("SELECT t, key FROM syncline_changes WHERE seq = ?1 ORDER BY pos")
        .doing(READING)?;
    let mut rows = statement.query([seq]).doing(READING)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        let t = table(seq, row.get(0).doing(READING)?);
        let key = row_key(row.get_ref(1).doing(READING)?);
        found.extend(t.ok().zip(key.ok()));
    }
    Ok(found)
}

/// Writes one change, whether it is there already or not; returns the bytes of its operation.
pub(crate) fn put_change(
    conn: &Connection,
    seq: Seq,
    stored: &StoredChange,
) -> Result<u64, ReplicaError> {
    let op = codec::encode_op(&stored.change.op);
    let key = stored.change.key.as_bytes();
    conn.prepare_cached(
        "INSERT OR REPLACE INTO syncline_changes(seq, pos, t, key, base, op, at, sum)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .and_then(|mut s| {
        let Change { table, base, .. } = stored.change;
        let sum = ChangeSum::new(table, key, base, &op).stored();
        let (base, at) = (base.0.cast_signed(), stored.at.0.cast_signed());
        s.execute((seq, stored.pos, table.0, key, base, &op, at, sum))
    })
    .doing(WRITING)?;
    Ok((op.len() + key.len()) as u64)
}

pub(crate) fn delete_change(conn: &Connection, seq: Seq, pos: i64) -> Result<(), ReplicaError> {
    conn.prepare_cached("DELETE FROM syncline_changes WHERE seq = ?1 AND pos = ?2")
        .and_then(|mut s| s.execute((seq, pos)))
        .map(drop)
        .doing(WRITING)
}

/// The position after the last change.
pub(crate) fn next_pos(conn: &Connection, seq: Seq) -> Result<i64, ReplicaError> {
    conn.prepare_cached("SELECT ifnull(max(pos), -1) + 1 FROM syncline_changes WHERE seq = ?1")
        .and_then(|mut s| s.query_row([seq], |row| row.get(0)))
        .doing(READING)
}

/// How many changes a changeset has, and how many bytes of operations and keys.
pub(crate) fn size(conn: &Connection, seq: Seq) -> Result<(u64, u64), ReplicaError> {
    conn.prepare_cached(
        "SELECT count(*), ifnull(sum(length(op) + length(key)), 0)
         FROM syncline_changes WHERE seq = ?1",
    )
    .and_then(|mut s| {
        s.query_row([seq], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
    })
    .map(|(changes, bytes)| (changes.cast_unsigned(), bytes.cast_unsigned()))
    .doing(READING)
}

/// As [`size`], table by table: how many changes, bytes of operations, bytes of keys.
pub(crate) fn sizes(
    conn: &Connection,
    seq: Seq,
) -> Result<Vec<(TableNumber, u64, u64, u64)>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT t, count(*), sum(length(op)), sum(length(key)) FROM syncline_changes
             WHERE seq = ?1 GROUP BY t",
        )
        .doing(READING)?;
    let mut rows = statement.query([seq]).doing(READING)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        let t = table(seq, row.get(0).doing(READING)?)?;
        let count = |place| row.get::<_, i64>(place).map(i64::cast_unsigned);
        let (changes, ops, keys) = (count(1), count(2), count(3));
        found.push((
            t,
            changes.doing(READING)?,
            ops.doing(READING)?,
            keys.doing(READING)?,
        ));
    }
    Ok(found)
}

/// Gives a changeset's changes of one table to another changeset.
pub(crate) fn move_changes_of(
    conn: &Connection,
    from: Seq,
    t: TableNumber,
    to: Seq,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_changes SET seq = ?3 WHERE seq = ?1 AND t = ?2")
        .and_then(|mut s| s.execute((from, t.0, to)))
        .map(drop)
        .doing(WRITING)
}

/// Deletes a changeset's changes of one table; how many there were.
pub(crate) fn delete_changes_of(
    conn: &Connection,
    seq: Seq,
    t: TableNumber,
) -> Result<usize, ReplicaError> {
    conn.prepare_cached("DELETE FROM syncline_changes WHERE seq = ?1 AND t = ?2")
        .and_then(|mut s| s.execute((seq, t.0)))
        .doing(WRITING)
}

/// A pending change of one row: its changeset, base and operation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pending {
    pub(crate) seq: Seq,
    pub(crate) state: State,
    pub(crate) base: Version,
    pub(crate) op: Op,
}

const PENDING: &str = "SELECT c.seq, o.state, c.base, c.op, c.sum
     FROM syncline_changes c JOIN syncline_outbox o ON o.seq = c.seq
     WHERE c.t = ?1 AND c.key = ?2 AND o.state <> 2 ORDER BY c.seq";

/// The changes of a row that are replayed over its shadow, in order (spec OB2).
pub(crate) fn pending(
    conn: &Connection,
    t: TableNumber,
    key: &RowKey,
) -> Result<Vec<Pending>, ReplicaError> {
    let mut statement = conn.prepare_cached(PENDING).doing(READING)?;
    let mut rows = statement.query((t.0, key.as_bytes())).doing(READING)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        let seq = row.get(0).doing(READING)?;
        let base = Version(row.get::<_, i64>(2).doing(READING)?.cast_unsigned());
        found.push(Pending {
            seq,
            state: State::from_number(row.get(1).doing(READING)?),
            base,
            op: read_op(
                seq,
                (t, key, base),
                row.get_ref(3).doing(READING)?,
                row.get(4).doing(READING)?,
            )?,
        });
    }
    Ok(found)
}

/// Whether a change of the row was refused and waits for what its user says of it.
pub(crate) fn is_parked(
    conn: &Connection,
    t: TableNumber,
    key: &RowKey,
) -> Result<bool, ReplicaError> {
    conn.prepare_cached(
        "SELECT 1 FROM syncline_changes c JOIN syncline_outbox o ON o.seq = c.seq
         WHERE c.t = ?1 AND c.key = ?2 AND o.state = 2 LIMIT 1",
    )
    .and_then(|mut s| s.exists((t.0, key.as_bytes())))
    .doing(READING)
}

/// Gives the changes of a row another key.
pub(crate) fn move_row(
    conn: &Connection,
    t: TableNumber,
    from: &RowKey,
    to: &RowKey,
) -> Result<(), ReplicaError> {
    let places = touching(conn, t, from)?;
    rewrite(
        conn,
        places.into_iter().map(|place| (place.seq, place.pos)),
        |change| change.key = to.clone(),
    )
}

/// Writes changes anew. What cannot be read stays as it is, and is parked when its turn comes.
fn rewrite(
    conn: &Connection,
    places: impl IntoIterator<Item = (Seq, i64)>,
    anew: impl Fn(&mut Change),
) -> Result<(), ReplicaError> {
    for (seq, pos) in places {
        match change_at(conn, seq, pos) {
            Ok(Some(mut stored)) => {
                anew(&mut stored.change);
                put_change(conn, seq, &stored)?;
            }
            Ok(None) | Err(ReplicaError::DamagedChangeset { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where a change of a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Touching {
    pub(crate) seq: Seq,
    pub(crate) pos: i64,
    pub(crate) state: State,
}

/// Whether an insert of this row waits to be sent.
pub(crate) fn waits_to_be_inserted(
    conn: &Connection,
    t: TableNumber,
    key: &RowKey,
) -> Result<bool, ReplicaError> {
    for pending in touching(conn, t, key)? {
        let change = changes(conn, pending.seq, pending.pos, 1)?;
        let inserts = change
            .iter()
            .any(|stored| matches!(stored.change.op, Op::Insert(_)));
        if inserts && pending.state == State::Sealed {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The changes of a row in any changeset, parked ones included, in order.
pub(crate) fn touching(
    conn: &Connection,
    t: TableNumber,
    key: &RowKey,
) -> Result<Vec<Touching>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT c.seq, c.pos, o.state
             FROM syncline_changes c JOIN syncline_outbox o ON o.seq = c.seq
             WHERE c.t = ?1 AND c.key = ?2 ORDER BY c.seq",
        )
        .doing(READING)?;
    let found = statement.query_map((t.0, key.as_bytes()), |row| {
        Ok(Touching {
            seq: row.get(0)?,
            pos: row.get(1)?,
            state: State::from_number(row.get(2)?),
        })
    });
    found.and_then(Iterator::collect).doing(READING)
}

/// The position of the row's change in this changeset.
pub(crate) fn position(
    conn: &Connection,
    seq: Seq,
    t: TableNumber,
    key: &RowKey,
) -> Result<Option<i64>, ReplicaError> {
    conn.prepare_cached("SELECT pos FROM syncline_changes WHERE t = ?1 AND key = ?2 AND seq = ?3")
        .and_then(|mut s| {
            s.query_row((t.0, key.as_bytes(), seq), |row| row.get(0))
                .optional()
        })
        .doing(READING)
}

/// The insert of this row that was not sent yet is by somebody who knew, at `base`, that the row
/// was deleted.
pub(crate) fn set_insert_base(
    conn: &Connection,
    t: TableNumber,
    key: &RowKey,
    base: Version,
) -> Result<(), ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT c.seq, c.pos FROM syncline_changes c JOIN syncline_outbox o ON o.seq = c.seq
             WHERE c.t = ?1 AND c.key = ?2 AND c.base = 0 AND o.state = 0 AND o.sent = 0",
        )
        .doing(READING)?;
    let places = statement
        .query_map((t.0, key.as_bytes()), read_place)
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .doing(READING)?;
    rewrite(conn, places, |change| change.base = base)
}

/// No base may be later than what the server's log has (spec PL6).
pub(crate) fn clamp_bases(conn: &Connection, common: Version) -> Result<(), ReplicaError> {
    let mut statement = conn
        .prepare_cached("SELECT seq, pos FROM syncline_changes WHERE base > ?1")
        .doing(READING)?;
    let places = statement
        .query_map([common.0.cast_signed()], read_place)
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .doing(READING)?;
    rewrite(conn, places, |change| change.base = common)
}

fn read_place(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Seq, i64)> {
    Ok((row.get(0)?, row.get(1)?))
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::{db, meta};

    #[test]
    fn a_statement_for_each_row_is_prepared_once() {
        let conn = Connection::open_in_memory().unwrap();
        db::prepare_connection(&conn).unwrap();
        meta::create(&conn).unwrap();
        for n in 0..100 {
            let key = RowKey::encode([&syncline_core::Value::Integer(n)]).unwrap();
            assert!(pending(&conn, TableNumber(16), &key).unwrap().is_empty());
        }
        let statement = conn.prepare_cached(PENDING).unwrap();
        assert_eq!(statement.get_status(StatementStatus::Run), 100);
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}
