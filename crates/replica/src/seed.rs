//! Sending the rows that were in the file before it was attached.
//!
//! Seeding begins when everything granted is loaded, so rows that the server has already are
//! known by then and are not sent again. It goes on after the last row that was sealed.

use std::collections::BTreeSet;

use syncline_core::{Change, Row, RowKey, TableNumber, Timestamp};

use crate::{
    capture::Before,
    entropy::Entropy,
    error::ReplicaError,
    event::Event,
    meta::{
        given, ledger,
        names::{self, TableRecord},
        outbox::{self, Seq, State, StoredChange},
    },
    rows::RowError,
    seal::{self, Sealed, parents},
    tables::SyncedTable,
    tally::RowChange,
    work::{Place, Work},
};

/// Rows of one changeset.
pub(crate) const ROWS: usize = 1_000;
/// Bytes of one changeset, about.
const BYTES: usize = 1024 * 1024;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seeded {
    /// This many rows were sealed, or looked at and passed over.
    Rows(usize),
    /// The table has no more.
    Done(TableNumber),
}

/// Seals the next rows of the next table inside the caller's transaction.
pub(crate) fn seal_next(
    work: &mut Work<'_>,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<Seeded, ReplicaError> {
    let waiting: Vec<TableRecord> = names::tables(work.conn)?
        .into_iter()
        .filter(|r| r.seeding && r.left_out.is_none())
        .collect();
    let Some(record) = parents_first(work, &waiting) else {
        // Memory and disk disagree: another process finished it.
        let stale = work.tables.iter().find(|table| table.seeding);
        return Ok(stale.map_or(Seeded::Rows(0), |table| Seeded::Done(table.number())));
    };
    let Some(table) = work.table(record.t) else {
        return Ok(Seeded::Done(record.t));
    };
    let mut chunk = Chunk::default();
    chunk.fill(work, table, record.seed_after.as_ref(), now)?;
    let Some(last) = chunk.last else {
        names::set_seeding(work.conn, record.t, false, None)?;
        given::forget(work.conn, record.t)?;
        return Ok(Seeded::Done(record.t));
    };
    names::set_seeding(work.conn, record.t, true, Some(&last))?;
    // One of its own each time: as if it were marked, it is never joined with edits.
    chunk.sealed.marked = true;
    if let Some(seq) = seal::store(work, chunk.sealed, entropy, now)? {
        outbox::set_seed(work.conn, seq)?;
    }
    Ok(Seeded::Rows(chunk.looked_at))
}

/// A table that references no other waiting one, so that the server never sees a child first;
/// in a circle any.
fn parents_first(work: &Work<'_>, waiting: &[TableRecord]) -> Option<TableRecord> {
    let waits = |name: &str, but: TableNumber| {
        waiting
            .iter()
            .any(|r| r.t != but && r.name.eq_ignore_ascii_case(name))
    };
    let is_free = |record: &&TableRecord| {
        work.table(record.t).is_none_or(|table| {
            table
                .table
                .foreign_keys
                .iter()
                .all(|key| !waits(&key.parent, record.t))
        })
    };
    waiting.iter().find(is_free).or(waiting.first()).cloned()
}

#[derive(Default)]
struct Chunk {
    sealed: Sealed,
    bytes: usize,
    seen: BTreeSet<Place>,
    looked_at: usize,
    /// The key of the last row that has a usable one.
    last: Option<RowKey>,
}

impl Chunk {
    /// Looks at the rows after `after` until there are enough. Rows without a usable key are no
    /// place to go on from another time: however many they are, they are passed over at once.
    fn fill(
        &mut self,
        work: &mut Work<'_>,
        table: &SyncedTable,
        after: Option<&RowKey>,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let mut after = after
            .map(|key| table.sql.place_of(work.conn, key))
            .transpose()?;
        loop {
            let rows = table.sql.scan_from(work.conn, after.take(), ROWS)?;
            let is_end = rows.len() < ROWS;
            for scanned in rows {
                self.looked_at += 1;
                self.take(work, table, scanned.key.as_ref(), scanned.row, now)?;
                self.last = scanned.key.or(self.last.take());
                after = Some(scanned.place);
                if self.bytes >= BYTES || self.sealed.changes.len() >= ROWS {
                    return Ok(());
                }
            }
            if is_end || self.last.is_some() {
                return Ok(());
            }
        }
    }

    fn take(
        &mut self,
        work: &mut Work<'_>,
        table: &SyncedTable,
        key: Option<&RowKey>,
        row: Result<Row, RowError>,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let reason = match (key, row) {
            (Some(key), Ok(row)) => return self.add(work, table, key, &row, now),
            (_, Err(error @ RowError::Database { .. })) => return Err(error.into()),
            (_, Err(error)) => error.to_string(),
            (None, Ok(_)) => "its key is too long".to_owned(),
        };
        // Nobody reads more of them than that.
        if self.looked_at <= ROWS {
            work.events.push(Event::RowUnfit {
                table: table.name().to_owned(),
                row: key.map(ToString::to_string).unwrap_or_default(),
                reason,
            });
        }
        Ok(())
    }

    /// Adds a row the server does not know, after the rows it references.
    fn add(
        &mut self,
        work: &mut Work<'_>,
        table: &SyncedTable,
        key: &RowKey,
        row: &Row,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let mut stack: Vec<(Place, Row, bool)> =
            vec![((table.number(), key.clone()), row.clone(), false)];
        while let Some((place, row, parents_done)) = stack.pop() {
            let Some(table) = work.table(place.0) else {
                continue;
            };
            if parents_done {
                self.seal(work, table, &place.1, &row, now)?;
                continue;
            }
            if !is_unsent(work, table, &place.1)? || !self.seen.insert(place.clone()) {
                continue;
            }
            if given::get(work.conn, table, &place.1)?.is_some_and(|given| given.is(table, &row)) {
                // The server has it no more: it went while the table was away.
                work.erases = true;
                work.show(table, &place.1, None)?;
                work.note(place.0, &place.1, None, RowChange::Deleted);
                continue;
            }
            let op = syncline_core::merge::diff_row(&table.table, None, Some(&row));
            stack.push((place.clone(), row, true));
            let Some(op) = op else { continue };
            for (t, key) in parents(work, table, &place.1, &op)? {
                let Some(parent) = work.table(t).filter(|parent| parent.seeding) else {
                    continue;
                };
                if let Some(row) = work.visible(parent, &key)? {
                    stack.push(((t, key), row, false));
                }
            }
        }
        Ok(())
    }

    fn seal(
        &mut self,
        work: &mut Work<'_>,
        table: &SyncedTable,
        key: &RowKey,
        row: &Row,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let change = seal::difference(work, table, key, Before::Absent, Some(row))?;
        if let Some(change) = change {
            self.bytes += crate::codec::encode_op(&change.op).len() + key.as_bytes().len();
            let pos = self.sealed.changes.len();
            let pos = i64::try_from(pos).expect("a chunk is small");
            self.sealed.changes.push(StoredChange {
                pos,
                change,
                at: now,
            });
        }
        Ok(())
    }
}

/// Whether neither the server nor the outbox knows the row.
pub(crate) fn is_unsent(
    work: &Work<'_>,
    table: &SyncedTable,
    key: &RowKey,
) -> Result<bool, ReplicaError> {
    Ok(
        ledger::version_of(work.conn, table.number(), key)?.is_none()
            && work.shadow(table, key)?.is_none(),
    )
}

/// Whether a change references a row that the server must have first and that is not on its way:
/// one still to be seeded, or in a changeset that `is_on_its_way` denies.
pub(crate) fn is_early(
    work: &Work<'_>,
    change: &Change,
    is_on_its_way: impl Fn(Seq) -> bool,
) -> Result<bool, ReplicaError> {
    let Some(table) = work.table(change.table) else {
        return Ok(false);
    };
    for (t, key) in parents(work, table, &change.key, &change.op)? {
        let Some(parent) = work.table(t) else {
            continue;
        };
        let waits = outbox::pending(work.conn, t, &key)?.iter().any(|pending| {
            pending.state == State::Sealed
                && seal::is_insert(&pending.op)
                && !is_on_its_way(pending.seq)
        });
        if waits
            || (parent.seeding
                && is_unsent(work, parent, &key)?
                && work.visible(parent, &key)?.is_some())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A row from before attaching is sealed after edits that reference it, and goes before them (spec
/// SE16): what gets its number now depends on those of `overtakers`, as on any other insert.
pub(crate) fn depend_on_overtakers(
    work: &Work<'_>,
    seq: Seq,
    overtakers: &BTreeSet<Seq>,
) -> Result<(), ReplicaError> {
    if overtakers.is_empty() {
        return Ok(());
    }
    // Where they reference one another in a circle, one has to go first.
    let dependants = outbox::dependants(work.conn, [seq])?;
    for StoredChange { change, .. } in outbox::changes(work.conn, seq, 0, usize::MAX)? {
        let Some(table) = work.table(change.table) else {
            continue;
        };
        for (t, key) in parents(work, table, &change.key, &change.op)? {
            for pending in outbox::pending(work.conn, t, &key)? {
                if overtakers.contains(&pending.seq)
                    && !dependants.contains(&pending.seq)
                    && seal::is_insert(&pending.op)
                {
                    outbox::depend(work.conn, seq, pending.seq)?;
                }
            }
        }
    }
    Ok(())
}
