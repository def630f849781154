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
    },
    tables::Tables,
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

/// Takes a full list: what is not in it is lost, or stale where the rules renamed everything.
pub(crate) fn full_grants(
    conn: &Connection,
    grants: &Grants,
    renamed: bool,
) -> Result<(), ReplicaError> {
    let granted: BTreeSet<BucketId> = grants.add.iter().copied().collect();
    let released: BTreeSet<BucketId> = grants.released.iter().copied().collect();
    for (b, bucket, _) in buckets::list(conn)? {
        if !granted.contains(&bucket) {
            let lost = match renamed {
                true => BucketState::Stale,
                false => lost_state(&released, &bucket),
            };
            buckets::lose(conn, b, lost)?;
        }
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

/// Erases the rows of lost buckets that no other bucket holds (spec AP8).
pub(crate) fn erase_gone(work: &mut Work<'_>, stream: &Stream<'_>) -> Result<(), ReplicaError> {
    for state in [BucketState::Gone, BucketState::Released] {
        let lost = buckets::in_state(work.conn, state)?;
        if lost.is_empty() {
            continue;
        }
        work.digests.store(work.conn)?;
        let mut rows = 0;
        for b in &lost {
            for t in buckets::tables_of(work.conn, *b)? {
                rows += erase_part(work, stream, (*b, t), state)?;
            }
            work.digests.store(work.conn)?;
            buckets::forget(work.conn, *b)?;
        }
        let buckets = lost.len() as u64;
        work.events.push(match state {
            BucketState::Released => Event::Released { buckets, rows },
            BucketState::Loading | BucketState::Live | BucketState::Stale | BucketState::Gone => {
                Event::AccessLost { buckets, rows }
            }
        });
    }
    Ok(())
}

fn erase_part(
    work: &mut Work<'_>,
    stream: &Stream<'_>,
    (b, t): (ledger::Bucket, TableNumber),
    state: BucketState,
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
            match state {
                BucketState::Released => release(work, table, &key, &known)?,
                BucketState::Loading
                | BucketState::Live
                | BucketState::Stale
                | BucketState::Gone => unsee(work, stream, table, &key, &known)?,
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
