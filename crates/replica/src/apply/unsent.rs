//! What is here of a row that the server sends, and was never sent from here.

use syncline_core::{Change, Row, RowKey, Version, merge};

use super::record::Stream;
use crate::{
    capture::Before,
    error::ReplicaError,
    meta::{former, given, outbox::StoredChange, shadow::Shadow},
    seal::{self, Sealed},
    tables::{Received, SyncedTable},
    work::Work,
};

/// A row that was here before attaching, not sent yet, and that the server has too. Equal ones are
/// one row, also where what is here was changed since (spec SL13); so are those that the server
/// gave before their table went away (spec OB12). Else what is here becomes a pending insert over
/// the server's.
pub(super) fn keep_unsent(
    work: &mut Work<'_>,
    stream: &mut Stream<'_>,
    table: &SyncedTable,
    key: &RowKey,
    received: &Received,
    version: Version,
) -> Result<(), ReplicaError> {
    let former = former::take(work.conn, table, key)?;
    if !table.is_here || work.shadow(table, key)?.is_some() {
        return Ok(());
    }
    let visible = work.visible(table, key)?;
    let is_unreadable = visible.is_none() && table.sql.exists(work.conn, key)?;
    if visible.as_ref() == Some(&received.row) || is_unreadable {
        return Ok(());
    }
    let given = given::get(work.conn, table, key)?;
    // The row that was changed here, and the version of which that is a change.
    let changed = match (&former, &visible, &given) {
        (Some(former), _, _) if *former == received.row => Some((former, version)),
        (Some(former), _, Some(given)) if given.is(table, former) => {
            // A restored server may be behind what it had given.
            Some((former, given.version.min(version)))
        }
        (_, Some(row), Some(given)) if given.is(table, row) => return Ok(()),
        (_, Some(_), Some(given)) if given.version == version => Some((&received.row, version)),
        _ => None,
    };
    let change = if let Some((before, base)) = changed {
        let op = merge::diff_row(&table.table, Some(before), visible.as_ref());
        let Some(op) = op else { return Ok(()) };
        let (image, hidden) = (Some(received.row.clone()), false);
        work.put_shadow(table, key, &Shadow { image, hidden })?;
        let (table, key) = (table.number(), key.clone());
        Some(Change {
            table,
            key,
            base,
            op,
        })
    } else if visible.is_some() {
        seal::difference(work, table, key, Before::Absent, visible.as_ref())?
    } else {
        None
    };
    match change {
        Some(change) => seal_one(work, stream, change),
        None => Ok(()),
    }
}

/// A row that was changed here while nobody captured, when it could not be compared: in what it
/// differs from the server's of the same version is a change of this device (spec CA8).
pub(super) fn keep_unmarked(
    work: &mut Work<'_>,
    stream: &mut Stream<'_>,
    table: &SyncedTable,
    key: &RowKey,
    server: &Row,
) -> Result<(), ReplicaError> {
    if let Some(mut shadow) = work.shadow(table, key)? {
        shadow.image = Some(server.clone());
        work.put_shadow(table, key, &shadow)?;
    }
    let expected = work.replayed(table, key, Some(server.clone()))?;
    let visible = work.visible(table, key)?;
    if visible == expected {
        return Ok(());
    }
    let before = expected.map_or(Before::Absent, Before::Image);
    let Some(change) = seal::difference(work, table, key, before, visible.as_ref())? else {
        return Ok(());
    };
    seal_one(work, stream, change)
}

fn seal_one(
    work: &mut Work<'_>,
    stream: &mut Stream<'_>,
    change: Change,
) -> Result<(), ReplicaError> {
    let stored = StoredChange {
        pos: 0,
        change,
        at: stream.now,
    };
    let sealed = Sealed {
        changes: vec![stored],
        ..Sealed::default()
    };
    seal::store(work, sealed, stream.entropy, stream.now).map(drop)
}
