//! Computing edits anew once it is known how their columns merge (spec SL11).

use std::collections::BTreeSet;

use syncline_core::{Column, ColumnEdit, Op, Row, RowKey, Table, merge};

use super::is_insert;
use crate::{
    error::ReplicaError,
    meta::{
        former, ledger,
        outbox::{self, Seq, State},
        shadow,
    },
    tables::{SyncedTable, Tables},
    work::Work,
};

/// Rows looked at together.
const TAKEN: usize = 1_000;

/// Computes the edits that were never sent anew in all tables whose columns merge in another way
/// or have another type than in `old`: a counter's value that was sealed before the first contact
/// becomes a difference, a UUID in capitals the server's key.
pub(crate) fn reseal(work: &mut Work<'_>, old: &Tables) -> Result<(), ReplicaError> {
    let mut touched = BTreeSet::new();
    for table in work.tables.iter() {
        let before = old.local(table.number());
        if before.is_some_and(|before| differ(&before.table, &table.table)) {
            reseal_table(work, table, &mut touched)?;
        }
    }
    for seq in touched {
        if let Some(mut entry) = outbox::entry(work.conn, seq)? {
            // None came or went: where one is missing, it stays missed.
            (_, entry.bytes) = outbox::size(work.conn, seq)?;
            outbox::put(work.conn, &entry)?;
        }
    }
    Ok(())
}

/// Whether a column of both merges in another way or has another type.
fn differ(before: &Table, now: &Table) -> bool {
    now.columns.iter().any(|column| {
        let was = before
            .position_of(column.number)
            .map(|p| &before.columns[p]);
        let ways = |c: &Column| (c.generated, c.ty, c.merge, c.merge_paths.clone());
        was.is_some_and(|was| ways(was) != ways(column))
    })
}

fn reseal_table(
    work: &Work<'_>,
    table: &SyncedTable,
    touched: &mut BTreeSet<Seq>,
) -> Result<(), ReplicaError> {
    let t = table.number();
    for key in former::keys(work.conn, t)? {
        if let Some(new) = spelled(table, &key) {
            former::move_to(work.conn, t, &key, &new)?;
        }
    }
    let mut after: Option<RowKey> = None;
    loop {
        let keys = shadow::keys_after(work.conn, t, after.as_ref(), TAKEN)?;
        let Some(last) = keys.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for key in keys {
            reseal_row(work, table, &key, touched)?;
        }
    }
}

/// Each change leads from the image before it to the one after it, as it did when it was sealed.
fn reseal_row(
    work: &Work<'_>,
    table: &SyncedTable,
    key: &RowKey,
    touched: &mut BTreeSet<Seq>,
) -> Result<(), ReplicaError> {
    let t = table.number();
    let mut open = BTreeSet::new();
    for place in outbox::touching(work.conn, t, key)? {
        let entry = outbox::entry(work.conn, place.seq)?;
        if place.state == State::Sealed && entry.is_some_and(|entry| !entry.sent) {
            open.insert(place.seq);
        }
    }
    let key = &spell(work, table, key, &open)?;
    let canonical = |row: Row| row.canonical(&table.table);
    let Some(mut shadow) = work.shadow(table, key)? else {
        return Ok(());
    };
    let mut image = shadow.image.clone().map(canonical);
    if shadow.image != image {
        shadow.image.clone_from(&image);
        shadow::put(work.conn, table, key, &shadow)?;
    }
    for place in outbox::touching(work.conn, t, key)? {
        if place.state == State::Parked {
            continue;
        }
        let Some(mut stored) = outbox::change_at(work.conn, place.seq, place.pos)? else {
            continue;
        };
        let op = travelling(&table.table, &stored.change.op);
        let Ok(next) = merge::apply_op(&table.table, image.as_ref(), &op) else {
            continue;
        };
        let next = next.map(canonical);
        let from = image.as_ref().filter(|_| !is_insert(&stored.change.op));
        let op = merge::diff_row(&table.table, from, next.as_ref());
        if let Some(op) = op.filter(|_| open.contains(&place.seq))
            && op != stored.change.op
        {
            stored.change.op = op;
            outbox::put_change(work.conn, place.seq, &stored)?;
            touched.insert(place.seq);
        }
        image = next;
    }
    Ok(())
}

/// The operation without the columns that the server does not have: the row has them here, they
/// are neither sent nor replayed.
fn travelling(table: &Table, op: &Op) -> Op {
    let kept = |edits: &[ColumnEdit]| -> Vec<ColumnEdit> {
        let travels = |edit: &&ColumnEdit| {
            let position = table.position_of(edit.column);
            position.is_some_and(|p| !table.columns[p].generated)
        };
        edits.iter().filter(travels).cloned().collect()
    };
    match op {
        Op::Insert(edits) => Op::Insert(kept(edits)),
        Op::Update(edits) => Op::Update(kept(edits)),
        Op::Delete => Op::Delete,
    }
}

/// Gives a row that no server knows yet the key that it has by the types known now; what it was
/// sent under stays.
fn spell(
    work: &Work<'_>,
    table: &SyncedTable,
    key: &RowKey,
    open: &BTreeSet<Seq>,
) -> Result<RowKey, ReplicaError> {
    let t = table.number();
    let Some(new) = spelled(table, key) else {
        return Ok(key.clone());
    };
    let touching = outbox::touching(work.conn, t, key)?;
    let is_known = ledger::version_of(work.conn, t, key)?.is_some()
        || touching.iter().any(|place| !open.contains(&place.seq));
    let is_taken =
        work.shadow(table, &new)?.is_some() || ledger::version_of(work.conn, t, &new)?.is_some();
    if is_known || is_taken {
        return Ok(key.clone());
    }
    shadow::move_to(work.conn, t, key, &new)?;
    outbox::move_row(work.conn, t, key, &new)?;
    Ok(new)
}

/// The key by the types known now, if it is another one.
fn spelled(table: &SyncedTable, key: &RowKey) -> Option<RowKey> {
    let types = table
        .table
        .primary_key
        .iter()
        .map(|&p| table.table.columns[p].ty);
    let values = key.decode().unwrap_or_default().into_iter().zip(types);
    let values: Vec<_> = values.map(|(value, ty)| value.canonical(ty)).collect();
    RowKey::encode(&values).ok().filter(|new| new != key)
}
