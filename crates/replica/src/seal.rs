//! Sealing: what was captured becomes changesets in the outbox (docs/spec/capture.md, SL).

mod coalesce;
mod cut;
mod references;
mod reseal;

use std::collections::BTreeSet;

use syncline_core::planted;
use syncline_core::{
    Change, ChangesetId, ColumnEdit, Edit, Op, Row, RowKey, Table, Timestamp, Value, Version, merge,
};

use crate::{
    adopt::cascade::{self, Cascades},
    apply::record_extra,
    capture::{self, Before, Draft, DraftChange},
    clock,
    entropy::Entropy,
    error::ReplicaError,
    event::Event,
    meta::{
        buckets, former, ledger,
        outbox::{self, Entry, Seq, State, StoredChange},
        shadow::Shadow,
    },
    seed,
    tables::SyncedTable,
    work::Work,
};

pub(crate) use cut::{CutRefused, cut_refused, oversized, spare_others};
pub(crate) use references::{parent_key, parents};
pub(crate) use reseal::reseal;

/// Marks that are in memory at a time.
const MARKS_TAKEN: usize = 50_000;

/// What a changeset is made of, before it is in the outbox.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    pub(crate) changes: Vec<StoredChange>,
    /// Unacknowledged changesets it needs (spec SL6).
    pub(crate) depends: BTreeSet<Seq>,
    pub(crate) marked: bool,
    pub(crate) require_unchanged: bool,
}

/// Seals everything that was captured, inside the caller's transaction (spec SL7).
///
/// Returns the changesets that are new or grew.
pub(crate) fn seal(
    work: &mut Work<'_>,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<Vec<Seq>, ReplicaError> {
    seal_but(work, &mut Cascades::default(), entropy, now)
}

/// As [`seal`]; what `cascades` did is parked.
pub(crate) fn seal_but(
    work: &mut Work<'_>,
    cascades: &mut Cascades,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<Vec<Seq>, ReplicaError> {
    let mut touched = Vec::new();
    loop {
        let tables = work.tables.iter().map(|table| &table.sql);
        let taken = capture::take_drafts(work.conn, tables, MARKS_TAKEN)?;
        for problem in taken.problems {
            work.events.push(Event::RowUnfit {
                table: problem.table_name.clone(),
                row: problem.row.clone(),
                reason: problem.fault.to_string(),
            });
        }
        for lost in taken.lost {
            let rows = work.lost.entry(lost.table).or_default();
            rows.add(lost.key, lost.last_marked_at.min(now));
        }
        for draft in taken.drafts {
            let (sealed, mut cascaded) = differences(work, cascades, draft, now)?;
            for piece in oversized(sealed) {
                touched.extend(store(work, piece, entropy, now)?);
            }
            while !cascaded.is_empty() {
                let rest = cascaded.split_off(cascaded.len().min(cascade::TOGETHER));
                cascades.park(work, cascaded, entropy, now)?;
                cascaded = rest;
            }
        }
        if !taken.more {
            touched.dedup();
            return Ok(touched);
        }
    }
}

/// The typed differences of one draft (spec SL2, SL3), with shadows for the rows it makes dirty,
/// and apart from them what `cascades` did.
fn differences(
    work: &mut Work<'_>,
    cascades: &mut Cascades,
    draft: Draft,
    now: Timestamp,
) -> Result<(Sealed, Vec<StoredChange>), ReplicaError> {
    let mut sealed = Sealed {
        marked: draft.marked,
        ..Sealed::default()
    };
    let mut cascaded = Vec::new();
    for change in draft.changes {
        let Some(table) = work.table(change.table) else {
            continue;
        };
        let split = cascades.split(work, table, change)?;
        if let Some(meant) = split.meant
            && !waits(work, table, &meant, true)?
        {
            sealed.changes.extend(stored(work, table, meant, now)?);
        }
        if let Some(other) = split.cascaded {
            if waits(work, table, &other, false)? {
                cascades.put_back(work, table, other)?;
            } else {
                cascaded.extend(stored(work, table, other, now)?);
            }
        }
    }
    sealed.changes.sort_by_key(|change| change.at);
    Ok((sealed, cascaded))
}

fn stored(
    work: &mut Work<'_>,
    table: &SyncedTable,
    draft: DraftChange,
    now: Timestamp,
) -> Result<Option<StoredChange>, ReplicaError> {
    let DraftChange {
        key,
        before,
        after,
        first_marked_at,
        ..
    } = draft;
    let change = difference(work, table, &key, before, after.as_ref())?;
    Ok(change.map(|change| StoredChange {
        pos: 0,
        change,
        // A clock that was set back must not make edits of the future.
        at: first_marked_at.min(now),
    }))
}

/// Whether it cannot be said yet what a change is, as the server may have that row from before
/// attaching, too, and its rows are loading: then what the row was is kept (spec SL13), unless
/// nobody meant the change.
fn waits(
    work: &Work<'_>,
    table: &SyncedTable,
    change: &DraftChange,
    is_meant: bool,
) -> Result<bool, ReplicaError> {
    let (t, key) = (table.number(), &change.key);
    if !table.seeding || !buckets::is_loading(work.conn)? || !seed::is_unsent(work, table, key)? {
        return Ok(false);
    }
    match &change.before {
        Before::Image(row) if is_meant => former::keep(work.conn, table, key, row).map(|()| true),
        Before::Image(_) => Ok(true),
        Before::Absent | Before::Unknown => former::is_kept(work.conn, t, key),
    }
}

/// One row's difference; its shadow is made if it was clean (spec SL4, SL5).
pub(crate) fn difference(
    work: &mut Work<'_>,
    table: &SyncedTable,
    key: &RowKey,
    before: Before,
    after: Option<&Row>,
) -> Result<Option<Change>, ReplicaError> {
    let t = table.number();
    let is_dirty = work.has_shadows(t)? && work.shadow(table, key)?.is_some();
    let known = ledger::version_of(work.conn, t, key)?;
    let (image, op) = match before {
        // A row that the server never had (not seeded yet) goes whole.
        _ if !is_dirty && known.is_none() => (None, merge::diff_row(&table.table, None, after)),
        Before::Absent => (None, merge::diff_row(&table.table, None, after)),
        Before::Image(row) => {
            let op = merge::diff_row(&table.table, Some(&row), after);
            (Some(row), op)
        }
        Before::Unknown => {
            if !is_dirty {
                work.distrusted.insert(t);
            }
            let mut op = whole(&table.table, after);
            leave_unreadable(work, table, key, &mut op)?;
            (after.cloned(), Some(op))
        }
    };
    let Some(op) = op else { return Ok(None) };
    let base = match outbox::pending(work.conn, t, key)?.first() {
        Some(first) => first.base,
        None if planted!(BaseOffByOne) => Version(known.map_or(0, |known| known.0 + 1)),
        None => known.unwrap_or(Version::ZERO),
    };
    if !is_dirty {
        work.put_shadow(
            table,
            key,
            &Shadow {
                image,
                hidden: false,
            },
        )?;
    }
    Ok(Some(Change {
        table: t,
        key: key.clone(),
        base,
        op,
    }))
}

/// What makes a row that the server has this one, whatever it was.
fn whole(table: &Table, after: Option<&Row>) -> Op {
    let Some(after) = after else {
        return Op::Delete;
    };
    let values = table.columns.iter().zip(&after.0).enumerate();
    let written = values.filter(|(p, (column, _))| !column.generated && !table.is_key(*p));
    Op::Update(
        written
            .map(|(_, (column, value))| ColumnEdit {
                column: column.number,
                edit: Edit::Set(value.clone()),
            })
            .collect(),
    )
}

/// An encrypted cell that this device cannot read is NULL here, which nobody wrote (spec EN6).
fn leave_unreadable(
    work: &Work<'_>,
    table: &SyncedTable,
    key: &RowKey,
    op: &mut Op,
) -> Result<(), ReplicaError> {
    let Op::Update(edits) = op else {
        return Ok(());
    };
    let Some(known) = ledger::get(work.conn, table.number(), key)? else {
        return Ok(());
    };
    let kept = record_extra(&known)?;
    if !kept.is_empty() {
        edits.retain(|edit| {
            edit.edit != Edit::Set(Value::Null) || !table.is_kept_unread(key, edit.column, &kept)
        });
    }
    Ok(())
}

/// Puts a changeset at the end of the outbox, or joins it with the last one (spec SL9).
pub(crate) fn store(
    work: &mut Work<'_>,
    mut sealed: Sealed,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<Option<Seq>, ReplicaError> {
    let (Some(first), Some(last)) = (
        sealed.changes.iter().map(|c| c.at).min(),
        sealed.changes.iter().map(|c| c.at).max(),
    ) else {
        return Ok(None);
    };
    references::find(work, &mut sealed)?;
    let hlc = clock::stamp(work.conn, last, now)?;
    if let Some(seq) = coalesce::join(work, &sealed, hlc)? {
        return Ok(Some(seq));
    }
    let mut id = ChangesetId::default();
    entropy.fill(&mut id.0);
    let mut entry = Entry {
        seq: outbox::next_seq(work.conn)?,
        id,
        state: State::Sealed,
        number: None,
        version: None,
        hlc,
        marked: sealed.marked,
        sent: false,
        require_unchanged: sealed.require_unchanged,
        doubt: false,
        after: outbox::newest_known(work.conn)?,
        first_number: None,
        whole: None,
        changes: sealed.changes.len() as u64,
        bytes: 0,
        first_at: first,
        last_at: last,
        code: None,
        message: None,
        parked_at: None,
        is_sound: true,
    };
    for (pos, stored) in (0..).zip(&mut sealed.changes) {
        stored.pos = pos;
        entry.bytes += outbox::put_change(work.conn, entry.seq, stored)?;
    }
    outbox::put(work.conn, &entry)?;
    for on in sealed.depends {
        outbox::depend(work.conn, entry.seq, on)?;
    }
    Ok(Some(entry.seq))
}

/// Whether the operation makes a row.
pub(crate) fn is_insert(op: &Op) -> bool {
    match op {
        Op::Insert(_) => true,
        Op::Update(_) | Op::Delete => false,
    }
}
