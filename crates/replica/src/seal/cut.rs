//! Cutting what is too large, or was refused as a whole (spec SL8).

use std::collections::BTreeSet;

use syncline_core::{
    Timestamp,
    wire::{CHANGES_MAX, Refusal, code},
};

use super::Sealed;
use crate::{
    codec,
    error::ReplicaError,
    meta::outbox::{self, Entry, Seq, State, StoredChange},
    work::{Place, Work},
};

/// Two first marks this far apart were two acts of somebody.
const PAUSE_MICROS: u64 = 1_000_000;
/// Encoded bytes of one changeset that is not marked; below the server's limit with room for
/// what translation adds.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Cuts an unmarked changeset that exceeds the limits: at pauses where there are any, else where
/// the limit falls. A marked one stays whole; the server judges its size.
pub(crate) fn oversized(sealed: Sealed) -> Vec<Sealed> {
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
/// others; one that was too large for the server, and one of rows that were here before attaching,
/// around the row that the refusal names, or in halves. The pieces are new changesets at the end
/// of the outbox; what depended on it depends on them.
pub(crate) fn cut_refused(
    work: &mut Work<'_>,
    entry: &Entry,
    refusal: &Refusal,
) -> Result<CutRefused, ReplicaError> {
    let is_seed = outbox::is_seed(work.conn, entry.seq)?;
    // Whatever it is here, somebody could cut it.
    let is_partly_applied = refusal.code == code::PARTLY_APPLIED;
    if !is_seed && !is_partly_applied && (entry.marked || entry.require_unchanged) {
        return Ok(CutRefused::Whole);
    }
    let Some((_, changes)) = outbox::whole(work.conn, entry.seq)? else {
        return Ok(CutRefused::Whole);
    };
    let acts = match is_seed || refusal.code == code::TOO_LARGE {
        true => around(changes, refusal.change),
        false => at_pauses(changes),
    };
    let acts = match <[Vec<_>; 1]>::try_from(acts) {
        // Somebody has cut inside of an act: until what is applied is apart from what is not.
        Ok([act]) if is_partly_applied => around(act, None),
        Ok([act]) => vec![act],
        Err(acts) => acts,
    };
    // What is not cut any more has still to say of what it is a piece.
    let is_piece_now = is_partly_applied && entry.whole.is_none();
    if acts.len() < 2 && !is_piece_now {
        return Ok(CutRefused::Whole);
    }
    // Who was told of another user was told before anybody looked; and that others sent some of it
    // tells that they may have sent all.
    let is_told = !is_partly_applied && refusal.code != code::WRONG_USER;
    let mut entry = entry.clone();
    entry.doubt |= is_partly_applied;
    replace(work, &entry, acts, is_seed, is_told).map(CutRefused::Pieces)
}

/// Before a row from before attaching is parked: of other such rows only those that need it are to
/// be parked with it, not all that happen to be in the same changesets.
pub(crate) fn spare_others(work: &mut Work<'_>, refused: Seq) -> Result<(), ReplicaError> {
    if !outbox::is_seed(work.conn, refused)? {
        return Ok(());
    }
    let mut parked = BTreeSet::from([refused]);
    let mut rows: BTreeSet<Place> = outbox::keys(work.conn, refused)?.into_iter().collect();
    'again: loop {
        for seq in outbox::dependants(work.conn, parked.iter().copied())? {
            let entry = outbox::entry(work.conn, seq)?;
            let Some(entry) = entry.filter(|entry| entry.state == State::Sealed) else {
                continue;
            };
            if parked.contains(&seq) || !outbox::is_seed(work.conn, seq)? {
                continue;
            }
            let changes = outbox::changes(work.conn, seq, 0, usize::MAX)?;
            let (needing, others) = apart(work, changes, &mut rows)?;
            if needing.is_empty() {
                continue;
            }
            parked.insert(match others.is_empty() {
                true => seq,
                false => replace(work, &entry, vec![others, needing], true, false)?[1],
            });
            continue 'again;
        }
        return Ok(());
    }
}

/// Those changes that need one of `rows`, which they are added to, and the others.
fn apart(
    work: &Work<'_>,
    changes: Vec<StoredChange>,
    rows: &mut BTreeSet<Place>,
) -> Result<(Vec<StoredChange>, Vec<StoredChange>), ReplicaError> {
    let (mut needing, mut others) = (Vec::new(), changes);
    loop {
        let mut left = Vec::new();
        let before = needing.len();
        for stored in others {
            if needs(work, &stored, rows)? {
                rows.insert((stored.change.table, stored.change.key.clone()));
                needing.push(stored);
            } else {
                left.push(stored);
            }
        }
        others = left;
        if needing.len() == before {
            return Ok((needing, others));
        }
    }
}

/// Puts new changesets with these groups of its changes in a changeset's place. Another file that has
/// it may have cut it, too, and sent the pieces: as early as the whole, and under the same ids.
/// `is_told`: an answer of the server says that it has nothing of it.
fn replace(
    work: &mut Work<'_>,
    entry: &Entry,
    mut groups: Vec<Vec<StoredChange>>,
    is_seed: bool,
    is_told: bool,
) -> Result<Vec<Seq>, ReplicaError> {
    // What a server accepted once may be there still, should one that was replaced come back.
    let doubt = entry.doubt || entry.version.is_some() || (!is_told && entry.may_have_come());
    let needed = outbox::depends(work.conn, entry.seq)?;
    let mut dependants = outbox::dependants(work.conn, [entry.seq])?;
    dependants.remove(&entry.seq);
    outbox::remove(work.conn, entry.seq)?;
    let mut pieces: Vec<Seq> = Vec::new();
    for group in &mut groups {
        // As it was in the whole, also in a piece of a piece.
        group.sort_unstable_by_key(|stored| stored.pos);
        let whole = entry.whole.unwrap_or(entry.id);
        let seq = outbox::next_seq(work.conn)?;
        let ats = group.iter().map(|stored| stored.at);
        let mut piece = Entry {
            seq,
            id: outbox::id_of_piece(whole, group.iter().map(|stored| stored.pos)),
            state: State::Sealed,
            number: None,
            first_number: None,
            version: None,
            doubt,
            sent: false,
            changes: group.len() as u64,
            bytes: 0,
            first_at: ats.clone().min().unwrap_or(entry.first_at),
            last_at: ats.max().unwrap_or(entry.last_at),
            whole: Some(whole),
            ..entry.clone()
        };
        for stored in group {
            piece.bytes += outbox::put_change(work.conn, seq, stored)?;
        }
        outbox::put(work.conn, &piece)?;
        if is_seed {
            outbox::set_seed(work.conn, seq)?;
        }
        for (on, state, _) in &needed {
            if *state == State::Sealed && (!is_seed || share_rows(work, *on, seq)?) {
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
            if !is_seed || share_rows(work, *piece, to)? {
                outbox::depend(work.conn, to, *piece)?;
            }
        }
    }
    // As little as the whole would have.
    outbox::let_none_grow(work.conn)?;
    Ok(pieces)
}

/// Whether a changeset touches or references a row that an earlier one touches.
fn share_rows(work: &Work<'_>, earlier: Seq, later: Seq) -> Result<bool, ReplicaError> {
    let rows: BTreeSet<Place> = outbox::keys(work.conn, earlier)?.into_iter().collect();
    for stored in outbox::changes(work.conn, later, 0, usize::MAX)? {
        if needs(work, &stored, &rows)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a change touches or references one of these rows.
fn needs(
    work: &Work<'_>,
    stored: &StoredChange,
    rows: &BTreeSet<Place>,
) -> Result<bool, ReplicaError> {
    let change = &stored.change;
    if rows.contains(&(change.table, change.key.clone())) {
        return Ok(true);
    }
    let Some(table) = work.table(change.table) else {
        return Ok(false);
    };
    let parents = super::references::parents(work, table, &change.key, &change.op)?;
    Ok(parents.iter().any(|parent| rows.contains(parent)))
}

/// What is before the change that was refused, it alone, and what is after; halves where nobody
/// said which it was.
fn around(mut changes: Vec<StoredChange>, refused: Option<u32>) -> Vec<Vec<StoredChange>> {
    let refused = refused.and_then(|change| usize::try_from(change).ok());
    let mut groups = match refused.filter(|change| *change < changes.len()) {
        Some(place) => {
            let after = changes.split_off(place + 1);
            let alone = changes.split_off(place);
            vec![changes, alone, after]
        }
        None => {
            let second = changes.split_off(changes.len() / 2);
            vec![changes, second]
        }
    };
    groups.retain(|group| !group.is_empty());
    groups
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
