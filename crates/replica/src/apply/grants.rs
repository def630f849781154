//! Gaining and losing buckets, and what has to be loaded (docs/spec/session.md, SE5–SE10).

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_core::{
    BucketId, TableNumber,
    wire::{Grants, LoadPosition},
};

use super::record::{Stream, release, unsee};
use crate::{
    error::ReplicaError,
    event::Event,
    meta::{
        buckets::{self, BucketState},
        ledger, members, names,
        settings::{self, Key},
    },
    tables::{SyncedTable, Tables},
    work::Work,
};

/// Rows of a lost bucket that are erased at a time.
const ERASED: usize = 1_000;
/// Most positions named one by one; past that whole tables are loaded again.
const POSITIONS_MAX: usize = 8_192;

/// Buckets that are granted now; those not held yet start loading.
pub(crate) fn add_grants(conn: &Connection, add: &[BucketId]) -> Result<(), ReplicaError> {
    for bucket in add {
        buckets::add(conn, *bucket)?;
    }
    Ok(())
}

/// Buckets that are lost; `released`: those of them that the user may see all the same. They lose
/// their names at once, their rows with the next checkpoint.
pub(crate) fn drop_grants(
    conn: &Connection,
    drop: &[BucketId],
    released: &[BucketId],
) -> Result<(), ReplicaError> {
    let released: BTreeSet<BucketId> = released.iter().copied().collect();
    for bucket in drop {
        if let Some(b) = buckets::number(conn, *bucket)? {
            buckets::lose(conn, b, lost_state(&released, bucket))?;
        }
    }
    Ok(())
}

fn lost_state(released: &BTreeSet<BucketId>, bucket: &BucketId) -> BucketState {
    match released.contains(bucket) {
        true => BucketState::Released,
        false => BucketState::Gone,
    }
}

/// Takes a full list: what is not in it is lost, or stale where the rules renamed everything;
/// `reloads`: with this session, and not with one that was cut.
pub(crate) fn full_grants(
    conn: &Connection,
    grants: &Grants,
    renamed: bool,
    reloads: bool,
) -> Result<(), ReplicaError> {
    let granted: BTreeSet<BucketId> = grants.add.iter().copied().collect();
    let released: BTreeSet<BucketId> = grants.released.iter().copied().collect();
    for (b, bucket, _) in buckets::list(conn)? {
        if !granted.contains(&bucket) {
            // Which of the rows are not asked for any more is known once the others are loaded.
            let is_renamed = renamed && (reloads || !released.contains(&bucket));
            let lost = match is_renamed {
                true => BucketState::Stale,
                false => lost_state(&released, &bucket),
            };
            buckets::lose(conn, b, lost)?;
        }
    }
    if renamed && reloads {
        put_released(conn, &grants.released_tables)?;
    }
    for bucket in granted {
        buckets::add(conn, bucket)?;
    }
    for bucket in &grants.reload {
        if let Some(b) = buckets::number(conn, *bucket)? {
            buckets::reload(conn, b)?;
        }
    }
    Ok(())
}

/// Remembers what [`erase_stale`] is to know.
fn put_released(conn: &Connection, tables: &[TableNumber]) -> Result<(), ReplicaError> {
    let tables: Vec<String> = tables.iter().map(|table| table.0.to_string()).collect();
    settings::put(conn, Key::RenamedReleased, tables.join("\n"))
}

/// Erases the rows of lost buckets that no other bucket holds (spec AP8).
pub(crate) fn erase_gone(work: &mut Work<'_>, stream: &Stream<'_>) -> Result<(), ReplicaError> {
    for (state, is_released) in [(BucketState::Gone, false), (BucketState::Released, true)] {
        let buckets = buckets::in_state(work.conn, state)?;
        if buckets.is_empty() {
            continue;
        }
        let mut erased = Erased::default();
        erase_buckets(work, stream, &buckets, &|_| is_released, &mut erased)?;
        let (buckets, rows) = (buckets.len() as u64, erased.lost + erased.released);
        work.events.push(match is_released {
            true => Event::Released { buckets, rows },
            false => Event::AccessLost { buckets, rows },
        });
    }
    Ok(())
}

/// Erases what new rules left behind once everything else is loaded: rows of buckets that have
/// other names now, or are gone, and those of tables that lie in a bucket no more (`unloaded`).
///
/// They count as released in tables of which rows are not asked for: what waits to be sent to them
/// still is, and the server's rules judge it (spec SU4).
pub(crate) fn erase_stale(
    work: &mut Work<'_>,
    stream: &Stream<'_>,
    unloaded: &[(ledger::Bucket, TableNumber)],
) -> Result<(), ReplicaError> {
    let text: String = settings::get(work.conn, Key::RenamedReleased)?.unwrap_or_default();
    let numbers = text.lines().filter_map(|line| line.parse().ok());
    let tables = numbers.filter_map(|number| work.tables.remote(TableNumber(number)));
    let released: BTreeSet<TableNumber> = tables.map(SyncedTable::number).collect();
    let is_released = |t| released.contains(&t);
    let stale = buckets::in_state(work.conn, BucketState::Stale)?;
    let mut erased = Erased::default();
    work.digests.store(work.conn)?;
    for &(b, t) in unloaded {
        erased.add(
            erase_part(work, stream, (b, t), is_released(t))?,
            is_released(t),
        );
        work.digests.store(work.conn)?;
        buckets::forget_part(work.conn, b, t)?;
    }
    erase_buckets(work, stream, &stale, &is_released, &mut erased)?;
    // Nothing is told of what only has another name.
    let buckets = (stale.len() + unloaded.len()) as u64;
    let Erased { lost, released } = erased;
    if lost > 0 {
        let rows = lost;
        work.events.push(Event::AccessLost { buckets, rows });
    }
    if released > 0 {
        let rows = released;
        work.events.push(Event::Released { buckets, rows });
    }
    Ok(())
}

/// How many rows were erased.
#[derive(Default)]
struct Erased {
    lost: u64,
    released: u64,
}

impl Erased {
    fn add(&mut self, rows: u64, is_released: bool) {
        match is_released {
            true => self.released += rows,
            false => self.lost += rows,
        }
    }
}

fn erase_buckets(
    work: &mut Work<'_>,
    stream: &Stream<'_>,
    buckets: &[ledger::Bucket],
    is_released: &dyn Fn(TableNumber) -> bool,
    erased: &mut Erased,
) -> Result<(), ReplicaError> {
    work.digests.store(work.conn)?;
    for &b in buckets {
        for t in buckets::tables_of(work.conn, b)? {
            let is_released = is_released(t);
            erased.add(erase_part(work, stream, (b, t), is_released)?, is_released);
        }
        work.digests.store(work.conn)?;
        buckets::forget(work.conn, b)?;
    }
    Ok(())
}

fn erase_part(
    work: &mut Work<'_>,
    stream: &Stream<'_>,
    (b, t): (ledger::Bucket, TableNumber),
    is_released: bool,
) -> Result<u64, ReplicaError> {
    let mut erased = 0;
    loop {
        let keys = work.members_within(b, t, (None, None), ERASED)?;
        if keys.is_empty() {
            return Ok(erased);
        }
        for key in keys {
            let known = ledger::get(work.conn, t, &key)?;
            // A list that disagrees with its rows is damaged: what it says wrongly goes, too, or
            // this would never end.
            let known = known.filter(|known| known.buckets.contains(&b));
            let (Some(known), Some(table)) = (known, work.table(t)) else {
                members::leave(work.conn, b, t, &key)?;
                continue;
            };
            let mut next = known.clone();
            next.buckets.retain(|other| *other != b);
            if !next.buckets.is_empty() {
                work.set_known(table, &key, Some(&known), Some(&next))?;
                continue;
            }
            match is_released {
                true => release(work, table, &key, &known)?,
                false => unsee(work, stream, table, &key, &known)?,
            }
            erased += 1;
        }
    }
}

/// What is still to be loaded and how far it came (spec LO6).
pub(crate) fn load_positions(
    conn: &Connection,
    tables: &Tables,
) -> Result<Vec<LoadPosition>, ReplicaError> {
    let loaded: BTreeSet<TableNumber> = names::tables(conn)?
        .into_iter()
        .filter(|r| r.loaded)
        .map(|r| r.t)
        .collect();
    let mut positions = Vec::new();
    for table in tables.iter() {
        let Some(remote) = &table.remote else {
            continue;
        };
        let (t, number) = (table.number(), remote.table.number);
        let whole = LoadPosition {
            bucket: None,
            table: number,
            after: None,
        };
        if !loaded.contains(&t) && !buckets::any_progress(conn, t)? {
            positions.push(whole);
            continue;
        }
        let of_table = buckets::to_load(conn, t, loaded.contains(&t), POSITIONS_MAX + 1)?;
        if positions.len() + of_table.len() > POSITIONS_MAX {
            buckets::reload_table(conn, t)?;
            positions.push(whole);
            continue;
        }
        positions.extend(of_table.into_iter().map(|(bucket, after)| LoadPosition {
            bucket: Some(bucket),
            table: number,
            after,
        }));
    }
    Ok(positions)
}
