//! The granted buckets, and how far each of their tables is loaded.

use rusqlite::{Connection, OptionalExtension};
use syncline_core::{BucketId, TableNumber, Version};

use super::{
    ledger::Bucket,
    settings::{self, Key},
};
use crate::{db::Doing, error::ReplicaError};

/// State of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BucketState {
    /// Some table of it may not be live yet.
    Loading,
    Live,
    /// The rules changed and with them the names: its rows stay until the new ones are loaded.
    Stale,
    /// Lost: nameless, its rows go with the next checkpoint.
    Gone,
    /// As gone, but only because nobody subscribes to it any more: what was written to its rows
    /// meanwhile can still be sent.
    Released,
}

impl BucketState {
    fn number(self) -> i64 {
        match self {
            Self::Loading => 0,
            Self::Live => 1,
            Self::Stale => 2,
            Self::Gone => 3,
            Self::Released => 4,
        }
    }

    fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Loading,
            1 => Self::Live,
            2 => Self::Stale,
            4 => Self::Released,
            _ => Self::Gone,
        }
    }
}

/// How far a (bucket, table) is loaded, and its receipt digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) b: Bucket,
    pub(crate) t: TableNumber,
    pub(crate) live: bool,
    /// While loading: the last key that was received.
    pub(crate) after: Option<Vec<u8>>,
    pub(crate) count: u64,
    pub(crate) sum: u64,
}

const READING: &str = "reading the granted buckets";
const WRITING: &str = "writing the granted buckets";

/// Buckets with a name, by number.
pub(crate) fn list(
    conn: &Connection,
) -> Result<Vec<(Bucket, BucketId, BucketState)>, ReplicaError> {
    let mut statement = conn
        .prepare_cached("SELECT b, bucket, state FROM syncline_buckets WHERE state < 2 ORDER BY b")
        .doing(READING)?;
    let found = statement.query_map([], |row| {
        Ok((
            row.get(0)?,
            BucketId(row.get(1)?),
            BucketState::from_number(row.get(2)?),
        ))
    });
    found.and_then(Iterator::collect).doing(READING)
}

/// How many buckets have a name, and the sum of their ids ([`BucketId::summand`]).
pub(crate) fn summary(conn: &Connection) -> Result<(u64, u64), ReplicaError> {
    let mut statement = conn
        .prepare_cached("SELECT bucket FROM syncline_buckets WHERE state < 2")
        .doing(READING)?;
    let mut rows = statement.query([]).doing(READING)?;
    let (mut count, mut sum) = (0, 0_u64);
    while let Some(row) = rows.next().doing(READING)? {
        let bucket = BucketId(row.get(0).doing(READING)?);
        count += 1;
        sum = sum.wrapping_add(bucket.summand());
    }
    Ok((count, sum))
}

/// The number of a granted bucket.
pub(crate) fn number(conn: &Connection, bucket: BucketId) -> Result<Option<Bucket>, ReplicaError> {
    conn.prepare_cached("SELECT b FROM syncline_buckets WHERE bucket = ?1")
        .and_then(|mut s| s.query_row([bucket.0], |row| row.get(0)).optional())
        .doing(READING)
}

/// The name of a granted bucket.
pub(crate) fn name(conn: &Connection, b: Bucket) -> Result<Option<BucketId>, ReplicaError> {
    conn.prepare_cached("SELECT bucket FROM syncline_buckets WHERE b = ?1 AND state < 2")
        .and_then(|mut s| s.query_row([b], |row| row.get(0).map(BucketId)).optional())
        .doing(READING)
}

/// Adds a bucket, loading; its number. Does nothing for one that is there.
pub(crate) fn add(conn: &Connection, bucket: BucketId) -> Result<Bucket, ReplicaError> {
    if let Some(b) = number(conn, bucket)? {
        return Ok(b);
    }
    conn.prepare_cached("INSERT INTO syncline_buckets(bucket, state) VALUES(?1, 0)")
        .and_then(|mut s| s.execute([bucket.0]))
        .doing(WRITING)?;
    Ok(conn.last_insert_rowid())
}

/// Takes a lost bucket's name away: records cannot reach it any more (spec AP8).
pub(crate) fn lose(conn: &Connection, b: Bucket, state: BucketState) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_buckets SET bucket = NULL, state = ?2 WHERE b = ?1")
        .and_then(|mut s| s.execute((b, state.number())))
        .map(drop)
        .doing(WRITING)
}

/// Buckets in this state, by number.
pub(crate) fn in_state(conn: &Connection, state: BucketState) -> Result<Vec<Bucket>, ReplicaError> {
    let mut statement = conn
        .prepare_cached("SELECT b FROM syncline_buckets WHERE state = ?1 ORDER BY b")
        .doing(READING)?;
    let found = statement.query_map([state.number()], |row| row.get(0));
    found.and_then(Iterator::collect).doing(READING)
}

/// Moves every bucket of one state to another.
pub(crate) fn move_state(
    conn: &Connection,
    from: BucketState,
    to: BucketState,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_buckets SET state = ?2 WHERE state = ?1")
        .and_then(|mut s| s.execute((from.number(), to.number())))
        .map(drop)
        .doing(WRITING)
}

/// Forgets a bucket that has no rows any more.
pub(crate) fn forget(conn: &Connection, b: Bucket) -> Result<(), ReplicaError> {
    for sql in [
        "DELETE FROM syncline_parts WHERE b = ?1",
        "DELETE FROM syncline_ahead WHERE b = ?1",
        "DELETE FROM syncline_buckets WHERE b = ?1",
    ] {
        conn.prepare_cached(sql)
            .and_then(|mut s| s.execute([b]))
            .doing(WRITING)?;
    }
    Ok(())
}

/// Forgets that a table has, or had, rows in a bucket.
pub(crate) fn forget_part(
    conn: &Connection,
    b: Bucket,
    t: TableNumber,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("DELETE FROM syncline_parts WHERE b = ?1 AND t = ?2")
        .and_then(|mut s| s.execute((b, t.0)))
        .map(drop)
        .doing(WRITING)
}

/// The (bucket, table)s of granted buckets that are not live.
pub(crate) fn unloaded(
    conn: &Connection,
) -> Result<Vec<(Bucket, BucketId, TableNumber)>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT p.b, b.bucket, p.t FROM syncline_parts p JOIN syncline_buckets b ON b.b = p.b
             WHERE p.state = 0 AND b.state < 2 ORDER BY p.b, p.t",
        )
        .doing(READING)?;
    let found = statement.query_map([], |row| {
        Ok((row.get(0)?, BucketId(row.get(1)?), TableNumber(row.get(2)?)))
    });
    found.and_then(Iterator::collect).doing(READING)
}

/// Starts loading a bucket from the beginning; its rows stay. What pages told of it that no
/// checkpoint has passed goes: a row that is there no longer would be told by nothing.
pub(crate) fn reload(conn: &Connection, b: Bucket) -> Result<(), ReplicaError> {
    for sql in [
        "UPDATE syncline_buckets SET state = 0 WHERE b = ?1",
        "UPDATE syncline_parts SET state = 0, after = NULL, sure = NULL, next = NULL, told = NULL,
           newest = NULL WHERE b = ?1",
        "DELETE FROM syncline_ahead WHERE b = ?1",
    ] {
        conn.prepare_cached(sql)
            .and_then(|mut s| s.execute([b]))
            .doing(WRITING)?;
    }
    Ok(())
}

/// The granted buckets in which a table is live and has, or had, rows.
pub(crate) fn live_in(conn: &Connection, t: TableNumber) -> Result<Vec<BucketId>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT b.bucket FROM syncline_parts p JOIN syncline_buckets b ON b.b = p.b
             WHERE p.t = ?1 AND p.state = 1 AND b.state < 2 ORDER BY p.b",
        )
        .doing(READING)?;
    let found = statement.query_map([t.0], |row| row.get(0).map(BucketId));
    found.and_then(Iterator::collect).doing(READING)
}

/// Starts loading a table of every bucket from the beginning; its rows stay.
pub(crate) fn reload_table(conn: &Connection, t: TableNumber) -> Result<(), ReplicaError> {
    for sql in [
        "UPDATE syncline_tables SET loaded = 0 WHERE t = ?1",
        "UPDATE syncline_parts SET state = 0, after = NULL, sure = NULL, next = NULL, told = NULL,
           newest = NULL WHERE t = ?1",
        "DELETE FROM syncline_ahead WHERE t = ?1",
    ] {
        conn.prepare_cached(sql)
            .and_then(|mut s| s.execute([t.0]))
            .doing(WRITING)?;
    }
    Ok(())
}

/// Starts loading everything from the beginning (spec LO5).
pub(crate) fn reload_all(conn: &Connection) -> Result<(), ReplicaError> {
    conn.execute_batch(
        "UPDATE syncline_buckets SET state = 0 WHERE state < 2;
         UPDATE syncline_parts SET state = 0, after = NULL, sure = NULL, next = NULL, told = NULL,
           newest = NULL;
         UPDATE syncline_tables SET loaded = 0;
         DELETE FROM syncline_ahead;",
    )
    .doing(WRITING)
}

/// Everything about one (bucket, table).
pub(crate) fn part(
    conn: &Connection,
    b: Bucket,
    t: TableNumber,
) -> Result<Option<Part>, ReplicaError> {
    conn.prepare_cached(
        "SELECT b, t, state, after, count, sum FROM syncline_parts WHERE b = ?1 AND t = ?2",
    )
    .and_then(|mut s| s.query_row((b, t.0), read_part).optional())
    .doing(READING)
}

/// Whether anything of a granted bucket is still loading.
pub(crate) fn is_loading(conn: &Connection) -> Result<bool, ReplicaError> {
    conn.prepare_cached(
        "SELECT EXISTS(SELECT 1 FROM syncline_buckets WHERE state = 0)
             OR EXISTS(SELECT 1 FROM syncline_tables WHERE loaded = 0 AND left_out IS NULL)
             OR EXISTS(SELECT 1 FROM syncline_parts p JOIN syncline_buckets b ON b.b = p.b
                       WHERE p.state = 0 AND b.state < 2)",
    )
    .and_then(|mut s| s.query_row([], |row| row.get(0)))
    .doing(READING)
}

/// Whether any bucket of the table is live, or partly loaded.
pub(crate) fn any_progress(conn: &Connection, t: TableNumber) -> Result<bool, ReplicaError> {
    conn.prepare_cached(
        "SELECT EXISTS(SELECT 1 FROM syncline_parts p JOIN syncline_buckets b ON b.b = p.b
                       WHERE p.t = ?1 AND b.state < 2 AND (p.state = 1 OR p.after IS NOT NULL))",
    )
    .and_then(|mut s| s.query_row([t.0], |row| row.get(0)))
    .doing(READING)
}

/// A bucket of which a table is to be loaded, and the last key that came.
pub(crate) type Unloaded = (BucketId, Option<Vec<u8>>);

/// What of a table is to be loaded, and how far it came: at most `limit` buckets, by number.
/// Buckets without any row of a table that was `loaded` once are live.
pub(crate) fn to_load(
    conn: &Connection,
    t: TableNumber,
    loaded: bool,
    limit: usize,
) -> Result<Vec<Unloaded>, ReplicaError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // A comparison would have all buckets looked at, of which there may be many thousands.
    let state = if loaded { "= 0" } else { "<= 1" };
    let mut statement = conn
        .prepare_cached(&format!(
            "SELECT b.b, b.bucket, p.after
             FROM syncline_parts p JOIN syncline_buckets b ON b.b = p.b
             WHERE p.t = ?1 AND p.state = 0 AND b.state < 2
             UNION ALL
             SELECT b.b, b.bucket, NULL FROM syncline_buckets b
             WHERE b.state {state}
               AND NOT EXISTS(SELECT 1 FROM syncline_parts p WHERE p.b = b.b AND p.t = ?1)
             ORDER BY 1 LIMIT ?2"
        ))
        .doing(READING)?;
    let found = statement.query_map((t.0, limit), |row| Ok((BucketId(row.get(1)?), row.get(2)?)));
    found.and_then(Iterator::collect).doing(READING)
}

/// Whether the table is still loading in some granted bucket.
pub(crate) fn is_table_loading(conn: &Connection, t: TableNumber) -> Result<bool, ReplicaError> {
    conn.prepare_cached(
        "SELECT EXISTS(SELECT 1 FROM syncline_tables WHERE t = ?1 AND loaded = 0)
             OR EXISTS(SELECT 1 FROM syncline_parts p JOIN syncline_buckets b ON b.b = p.b
                       WHERE p.t = ?1 AND p.state = 0 AND b.state < 2)",
    )
    .and_then(|mut s| s.query_row([t.0], |row| row.get(0)))
    .doing(READING)
}

/// Whether a (bucket, table) of which nothing was received so far is still to be loaded.
pub(crate) fn is_to_load(
    conn: &Connection,
    b: Bucket,
    t: TableNumber,
) -> Result<bool, ReplicaError> {
    conn.prepare_cached(
        "SELECT EXISTS(SELECT 1 FROM syncline_buckets WHERE b = ?1 AND state <> 1)
             OR EXISTS(SELECT 1 FROM syncline_tables WHERE t = ?2 AND loaded <> 1)",
    )
    .and_then(|mut s| s.query_row((b, t.0), |row| row.get(0)))
    .doing(READING)
}

/// Whether [`is_table_loading`] holds for any table.
pub(crate) fn is_any_table_loading(conn: &Connection) -> Result<bool, ReplicaError> {
    conn.prepare_cached(
        "SELECT EXISTS(SELECT 1 FROM syncline_tables WHERE loaded = 0)
             OR EXISTS(SELECT 1 FROM syncline_parts p JOIN syncline_buckets b ON b.b = p.b
                       WHERE p.state = 0 AND b.state < 2)",
    )
    .and_then(|mut s| s.query_row([], |row| row.get(0)))
    .doing(READING)
}

/// The tables in which a bucket has, or had, rows.
pub(crate) fn tables_of(conn: &Connection, b: Bucket) -> Result<Vec<TableNumber>, ReplicaError> {
    let mut statement = conn
        .prepare_cached("SELECT t FROM syncline_parts WHERE b = ?1 ORDER BY t")
        .doing(READING)?;
    let found = statement.query_map([b], |row| row.get(0).map(TableNumber));
    found.and_then(Iterator::collect).doing(READING)
}

fn read_part(row: &rusqlite::Row<'_>) -> rusqlite::Result<Part> {
    Ok(Part {
        b: row.get(0)?,
        t: TableNumber(row.get(1)?),
        live: row.get::<_, i64>(2)? == 1,
        after: row.get(3)?,
        count: row.get::<_, i64>(4)?.cast_unsigned(),
        sum: row.get::<_, i64>(5)?.cast_unsigned(),
    })
}

/// Makes a (bucket, table) live, or loading from the beginning.
pub(crate) fn set_live(
    conn: &Connection,
    b: Bucket,
    t: TableNumber,
    live: bool,
) -> Result<(), ReplicaError> {
    ensure_part(conn, b, t)?;
    conn.prepare_cached(
        "UPDATE syncline_parts SET state = ?3, after = NULL, sure = NULL, next = NULL,
           told = NULL, newest = NULL WHERE b = ?1 AND t = ?2",
    )
    .and_then(|mut s| s.execute((b, t.0, i64::from(live))))
    .map(drop)
    .doing(WRITING)
}

/// A (bucket, table) has loaded up to the key `after`. `beyond`: the page's version, where it is
/// later than the last checkpoint.
pub(crate) fn set_position(
    conn: &Connection,
    b: Bucket,
    t: TableNumber,
    after: Option<&[u8]>,
    beyond: Option<Version>,
) -> Result<(), ReplicaError> {
    ensure_part(conn, b, t)?;
    conn.prepare_cached(
        "UPDATE syncline_parts SET state = 0, after = ?3,
           sure = CASE WHEN ?4 IS NULL AND told IS NULL THEN ?3 ELSE sure END,
           next = CASE WHEN told IS NULL THEN ?3 ELSE next END,
           told = ifnull(told, ?4), newest = max(ifnull(newest, ?4), ifnull(?4, newest))
         WHERE b = ?1 AND t = ?2",
    )
    .and_then(|mut s| s.execute((b, t.0, after, beyond.map(|version| version.0.cast_signed()))))
    .map(drop)
    .doing(WRITING)
}

/// A checkpoint has passed what pages told up to there.
pub(crate) fn passed(conn: &Connection, version: Version) -> Result<(), ReplicaError> {
    conn.prepare_cached(
        "UPDATE syncline_parts SET
           sure = CASE WHEN newest <= ?1 THEN after ELSE next END,
           told = CASE WHEN newest <= ?1 THEN NULL ELSE newest END, next = after
         WHERE told <= ?1",
    )
    .and_then(|mut s| s.execute([version.0.cast_signed()]))
    .map(drop)
    .doing(WRITING)
}

/// What pages told that no checkpoint has passed is asked for again: only a cursor tells whether the
/// server still has what it told of (spec LO6).
pub(crate) fn go_back(conn: &Connection) -> Result<(), ReplicaError> {
    let sql = "UPDATE syncline_parts SET after = sure, told = NULL, newest = NULL
               WHERE told IS NOT NULL";
    if conn.execute(sql, []).doing(WRITING)? == 0 {
        return Ok(());
    }
    settings::remove(conn, Key::LoadedRows)?;
    conn.execute_batch("DELETE FROM syncline_ahead")
        .doing(WRITING)
}

/// Adds differences to a (bucket, table)'s receipt digest.
pub(crate) fn add_to_digest(
    conn: &Connection,
    b: Bucket,
    t: TableNumber,
    count: u64,
    sum: u64,
) -> Result<(), ReplicaError> {
    ensure_part(conn, b, t)?;
    // SQLite turns an integer sum that overflows into a real: add here, modulo 2^64.
    let part = part(conn, b, t)?.expect("made just above");
    let (count, sum) = (part.count.wrapping_add(count), part.sum.wrapping_add(sum));
    set_digest(conn, b, t, count, sum)
}

/// Sets a (bucket, table)'s receipt digest.
pub(crate) fn set_digest(
    conn: &Connection,
    b: Bucket,
    t: TableNumber,
    count: u64,
    sum: u64,
) -> Result<(), ReplicaError> {
    ensure_part(conn, b, t)?;
    conn.prepare_cached("UPDATE syncline_parts SET count = ?3, sum = ?4 WHERE b = ?1 AND t = ?2")
        .and_then(|mut s| s.execute((b, t.0, count.cast_signed(), sum.cast_signed())))
        .map(drop)
        .doing(WRITING)
}

fn ensure_part(conn: &Connection, b: Bucket, t: TableNumber) -> Result<(), ReplicaError> {
    // A table in which a live bucket had no rows so far is live.
    conn.prepare_cached(
        "INSERT OR IGNORE INTO syncline_parts(b, t, state) VALUES(?1, ?2,
           EXISTS(SELECT 1 FROM syncline_buckets WHERE b = ?1 AND state = 1)
           AND EXISTS(SELECT 1 FROM syncline_tables WHERE t = ?2 AND loaded = 1))",
    )
    .and_then(|mut s| s.execute((b, t.0)))
    .map(drop)
    .doing(WRITING)
}
