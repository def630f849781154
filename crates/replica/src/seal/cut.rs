//! Cutting what is too large, or was refused as a whole (spec SL8).

use syncline_core::{Timestamp, wire::CHANGES_MAX};

use super::Sealed;
use crate::{
    codec,
    entropy::Entropy,
    error::ReplicaError,
    meta::outbox::{self, Entry, Seq, State, StoredChange},
    work::Work,
};

/// Two first marks this far apart were two acts of somebody.
const PAUSE_MICROS: u64 = 1_000_000;
/// Encoded bytes of one changeset that is not marked; below the server's limit with room for
/// what translation adds.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Cuts an unmarked changeset that exceeds the limits: at pauses where there are any, else where
/// the limit falls. A marked one stays whole; the server judges its size.
pub(super) fn oversized(sealed: Sealed) -> Vec<Sealed> {
    let bytes: usize = sealed.changes.iter().map(weight).sum();
    if sealed.marked || (sealed.changes.len() <= CHANGES_MAX && bytes <= BYTES_MAX) {
        return vec![sealed];
    }
    let mut pieces: Vec<Vec<StoredChange>> = Vec::new();
    for act in at_pauses(sealed.changes) {
        let mut room = 0;
        let mut count = CHANGES_MAX;
        for change in act {
            let weight = weight(&change);
            count += 1;
            match pieces.last_mut() {
                Some(piece) if count <= CHANGES_MAX && weight <= room => {
                    room -= weight;
                    piece.push(change);
                }
                _ => {
                    room = BYTES_MAX.saturating_sub(weight);
                    count = 1;
                    pieces.push(vec![change]);
                }
            }
        }
    }
    pieces
        .into_iter()
        .map(|changes| Sealed {
            changes,
            ..Sealed::default()
        })
        .collect()
}

/// What became of a refused changeset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CutRefused {
    /// It was one act: nothing to cut.
    Whole,
    /// These replace it, in order.
    Pieces(Vec<Seq>),
}

/// Cuts a refused, unmarked changeset at its pauses, so that one bad act does not hold the
/// others. The pieces are new changesets at the end of the outbox; what depended on it depends
/// on all of them.
pub(crate) fn cut_refused(
    work: &mut Work<'_>,
    entry: &Entry,
    entropy: &mut dyn Entropy,
) -> Result<CutRefused, ReplicaError> {
    if entry.marked || entry.require_unchanged {
        return Ok(CutRefused::Whole);
    }
    let changes = outbox::changes(work.conn, entry.seq, 0, usize::MAX)?;
    let mut acts = at_pauses(changes);
    if acts.len() < 2 {
        return Ok(CutRefused::Whole);
    }
    let needed = outbox::depends(work.conn, entry.seq)?;
    let mut dependants = outbox::dependants(work.conn, [entry.seq])?;
    dependants.remove(&entry.seq);
    outbox::remove(work.conn, entry.seq)?;
    let mut pieces: Vec<Seq> = Vec::new();
    for act in &mut acts {
        let mut id = entry.id;
        entropy.fill(&mut id.0);
        let seq = outbox::next_seq(work.conn)?;
        let mut piece = Entry {
            seq,
            id,
            state: State::Sealed,
            number: None,
            sent: false,
            changes: act.len() as u64,
            bytes: 0,
            first_at: act.first().map_or(entry.first_at, |change| change.at),
            last_at: act.last().map_or(entry.last_at, |change| change.at),
            ..entry.clone()
        };
        for (pos, stored) in (0..).zip(act) {
            stored.pos = pos;
            piece.bytes += outbox::put_change(work.conn, seq, stored)?;
        }
        outbox::put(work.conn, &piece)?;
        for (on, state, _) in &needed {
            if *state == State::Sealed {
                outbox::depend(work.conn, seq, *on)?;
            }
        }
        // Later acts may build on earlier ones.
        for earlier in pieces.iter().copied() {
            if share_rows(work, earlier, seq)? {
                outbox::depend(work.conn, seq, earlier)?;
            }
        }
        pieces.push(seq);
    }
    for dependant in dependants {
        let to = outbox::next_seq(work.conn)?;
        outbox::move_to(work.conn, dependant, to)?;
        outbox::set_unnumbered(work.conn, to)?;
        for piece in &pieces {
            outbox::depend(work.conn, to, *piece)?;
        }
    }
    Ok(CutRefused::Pieces(pieces))
}

/// Whether two changesets touch or reference a common row.
fn share_rows(work: &Work<'_>, earlier: Seq, later: Seq) -> Result<bool, ReplicaError> {
    let rows: std::collections::BTreeSet<_> =
        outbox::keys(work.conn, earlier)?.into_iter().collect();
    for stored in outbox::changes(work.conn, later, 0, usize::MAX)? {
        let change = &stored.change;
        if rows.contains(&(change.table, change.key.clone())) {
            return Ok(true);
        }
        let Some(table) = work.table(change.table) else {
            continue;
        };
        let parents = super::references::parents(work, table, &change.key, &change.op)?;
        if parents.iter().any(|parent| rows.contains(parent)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The changes in groups without a pause inside, in order of time.
fn at_pauses(mut changes: Vec<StoredChange>) -> Vec<Vec<StoredChange>> {
    changes.sort_by_key(|change| (change.at, change.pos));
    let mut acts: Vec<Vec<StoredChange>> = Vec::new();
    let mut last = Timestamp(0);
    for change in changes {
        let pause = change.at.0.saturating_sub(last.0) >= PAUSE_MICROS;
        last = change.at;
        match acts.last_mut() {
            Some(act) if !pause => act.push(change),
            _ => acts.push(vec![change]),
        }
    }
    acts
}

fn weight(change: &StoredChange) -> usize {
    codec::encode_op(&change.change.op).len() + change.change.key.as_bytes().len() + 16
}
