//! Tables that go away, for a moment or for good, while changes of theirs are unsent.

use syncline_core::{TableNumber, Timestamp};

use crate::{
    capture,
    error::ReplicaError,
    event::Event,
    meta::{
        ledger,
        names::{self, TableRecord},
        outbox::{self, Seq, State},
        settings::{self, Key},
    },
    tables::load,
    work::Work,
};

/// Code of changesets parked because a table that they change is not in the file, or not as the
/// server has it. They are unparked when it is.
const TABLE_GONE: &str = "table_gone";
/// Changesets looked at together.
const LOOKED_AT: usize = 100;

/// A table does not sync any more: what is known of it goes, so that it begins anew should it
/// come back. Its rows stay.
///
/// A migration may take it away for a moment only, so unsent changes that the server could take
/// are parked. Those of a table that the server does not have are dropped: nobody misses them.
pub(super) fn forget(
    work: &mut Work<'_>,
    record: &TableRecord,
    now: Timestamp,
) -> Result<(), ReplicaError> {
    let t = record.t;
    capture::uninstall_table(work.conn, t)?;
    let schema = load::schema(work.conn)?.map(|info| info.to_schema());
    if schema.is_some_and(|schema| schema.table(&record.name).is_some()) {
        park_unsent(work, record, now)?;
    } else {
        drop_unsent(work, t)?;
    }
    ledger::forget_table(work.conn, t)?;
    let seeding = settings::get(work.conn, Key::Seeding)?.unwrap_or(true);
    names::set_seeding(work.conn, t, seeding, None)
}

fn park_unsent(
    work: &mut Work<'_>,
    record: &TableRecord,
    now: Timestamp,
) -> Result<(), ReplicaError> {
    let mut roots: Vec<Seq> = Vec::new();
    let mut after = 0;
    loop {
        let entries = outbox::in_state(work.conn, State::Sealed, after, LOOKED_AT)?;
        let Some(last) = entries.last() else { break };
        after = last.seq;
        for entry in entries {
            let keys = outbox::keys(work.conn, entry.seq)?;
            if keys.iter().any(|(t, _)| *t == record.t) {
                roots.push(entry.seq);
            }
        }
    }
    let Some(first) = roots.first().copied() else {
        return Ok(());
    };
    let reason = record
        .left_out
        .as_deref()
        .unwrap_or("it does not sync any more");
    let message = format!(
        "the table {} cannot sync: {reason}; this is sent when it can again",
        record.name
    );
    let first = outbox::entry(work.conn, first)?;
    let parked = work.park(roots, TABLE_GONE, &message, now)?;
    if let Some(first) = first {
        work.events.push(Event::ChangeRefused {
            changeset: first.id,
            code: TABLE_GONE.to_owned(),
            message,
            parked,
        });
    }
    Ok(())
}

fn drop_unsent(work: &Work<'_>, t: TableNumber) -> Result<(), ReplicaError> {
    let mut after = 0;
    loop {
        let entries = outbox::in_state(work.conn, State::Sealed, after, LOOKED_AT)?;
        let Some(last) = entries.last() else {
            return Ok(());
        };
        after = last.seq;
        for mut entry in entries {
            if outbox::delete_changes_of(work.conn, entry.seq, t)? == 0 {
                continue;
            }
            let (changes, bytes) = outbox::size(work.conn, entry.seq)?;
            if changes == 0 {
                outbox::remove(work.conn, entry.seq)?;
            } else {
                entry.changes = changes;
                entry.bytes = bytes;
                outbox::put(work.conn, &entry)?;
            }
        }
    }
}

/// Unparks what waited for tables that are all back, with what depends on it.
pub(super) fn take_back(work: &mut Work<'_>) -> Result<(), ReplicaError> {
    let parked = outbox::in_state(work.conn, State::Parked, 0, usize::MAX)?;
    let waiting = parked
        .into_iter()
        .filter(|entry| entry.code.as_deref() == Some(TABLE_GONE));
    let mut roots = Vec::new();
    for entry in waiting {
        if !work.misses_a_table(entry.seq)? {
            roots.push(entry.seq);
        }
    }
    for seq in outbox::dependants(work.conn, roots)? {
        let entry = outbox::entry(work.conn, seq)?;
        if let Some(entry) = entry.filter(|entry| entry.state == State::Parked)
            && !work.misses_a_table(seq)?
        {
            work.unpark(entry)?;
        }
    }
    Ok(())
}

impl Work<'_> {
    /// Whether the changeset changes a table that does not sync: sent now, that part would be
    /// left out for ever.
    pub(crate) fn misses_a_table(&self, seq: Seq) -> Result<bool, ReplicaError> {
        let keys = outbox::keys(self.conn, seq)?;
        Ok(keys.iter().any(|(t, _)| self.table(*t).is_none()))
    }
}
