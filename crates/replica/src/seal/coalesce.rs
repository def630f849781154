//! Joining neighbouring unsent changesets by net difference (spec SL9).

use std::collections::BTreeSet;

use syncline_core::{
    Hlc,
    merge::{self, Joined},
};

use super::Sealed;
use crate::{
    error::ReplicaError,
    meta::outbox::{self, Entry, Seq, State, StoredChange},
    work::Work,
};
use syncline_core::planted;

/// A joined changeset does not grow past this: it is what one refusal parks.
const CHANGES_JOINED: u64 = 10_000;
const BYTES_JOINED: u64 = 4 * 1024 * 1024;

/// Joins `sealed` with the last changeset if nobody asked for either to stay alone and neither
/// was ever sent, by a file that this one is a copy of neither.
pub(super) fn join(
    work: &mut Work<'_>,
    sealed: &Sealed,
    hlc: Hlc,
) -> Result<Option<Seq>, ReplicaError> {
    let Some(last) = outbox::last(work.conn)? else {
        return Ok(None);
    };
    let is_open = last.state == State::Sealed
        && (!last.sent || planted!(SentChangesetGrows))
        && !last.marked
        && !last.doubt
        && last.seq > outbox::joins_after(work.conn)?
        && outbox::is_complete(work.conn, &last)?;
    let is_small = sealed.changes.len() as u64 <= CHANGES_JOINED && last.bytes <= BYTES_JOINED;
    if !is_open || !is_small || sealed.marked || sealed.require_unchanged || last.require_unchanged
    {
        return Ok(None);
    }
    let Some(steps) = plan(work, last.seq, sealed)? else {
        return Ok(None);
    };
    // Of the rows that both change one change is left, or none.
    let grows = |step: &Step| matches!(step, Step::Append(_));
    let appended = steps.iter().filter(|step| grows(step)).count() as u64;
    if appended > 0 && last.changes + appended > CHANGES_JOINED {
        return Ok(None);
    }
    carry_out(work, last, sealed, steps, hlc).map(Some)
}

/// What happens to the last changeset for each change of the new one.
enum Step {
    Append(StoredChange),
    Replace(StoredChange),
    Vanish(StoredChange),
}

/// `None` if some row's two changes cannot be one.
fn plan(work: &Work<'_>, last: Seq, sealed: &Sealed) -> Result<Option<Vec<Step>>, ReplicaError> {
    let mut steps = Vec::new();
    for new in &sealed.changes {
        let change = &new.change;
        let Some(pos) = outbox::position(work.conn, last, change.table, &change.key)? else {
            steps.push(Step::Append(new.clone()));
            continue;
        };
        let earlier = outbox::changes(work.conn, last, pos, 1)?.pop();
        let (Some(mut stored), Some(table)) = (earlier, work.table(change.table)) else {
            return Ok(None);
        };
        match merge::coalesce_ops(&table.table, &stored.change.op, &change.op) {
            Joined::One(op) => {
                stored.change.op = op;
                steps.push(Step::Replace(stored));
            }
            Joined::Nothing => steps.push(Step::Vanish(stored)),
            Joined::Apart => return Ok(None),
        }
    }
    Ok(Some(steps))
}

fn carry_out(
    work: &mut Work<'_>,
    mut last: Entry,
    sealed: &Sealed,
    steps: Vec<Step>,
    hlc: Hlc,
) -> Result<Seq, ReplicaError> {
    let seq = last.seq;
    let mut next = outbox::next_pos(work.conn, seq)?;
    for step in steps {
        match step {
            Step::Append(mut stored) => {
                stored.pos = next;
                next += 1;
                outbox::put_change(work.conn, seq, &stored)?;
            }
            Step::Replace(stored) => {
                outbox::put_change(work.conn, seq, &stored)?;
            }
            Step::Vanish(stored) => {
                outbox::delete_change(work.conn, seq, stored.pos)?;
                work.refresh(stored.change.table, stored.change.key);
            }
        }
    }
    let (changes, bytes) = outbox::size(work.conn, seq)?;
    if changes == 0 {
        outbox::remove(work.conn, seq)?;
        return Ok(seq);
    }
    last.changes = changes;
    last.bytes = bytes;
    last.hlc = hlc;
    let times = sealed.changes.iter().map(|change| change.at);
    last.last_at = times
        .chain([last.last_at])
        .max()
        .expect("at least one time is there");
    outbox::put(work.conn, &last)?;
    let needed: BTreeSet<_> = sealed
        .depends
        .iter()
        .copied()
        .filter(|on| *on != seq)
        .collect();
    for on in needed {
        outbox::depend(work.conn, seq, on)?;
    }
    Ok(seq)
}
