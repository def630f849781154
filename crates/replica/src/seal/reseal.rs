//! Computing edits anew once it is known how their columns merge (spec SL11).

use std::collections::BTreeSet;

use syncline_core::{Op, Row, RowKey, Table, merge};

use crate::{
    error::ReplicaError,
    meta::{
        outbox::{self, Seq, State},
        shadow,
    },
    tables::{SyncedTable, Tables},
    work::Work,
};

/// Rows looked at together.
const TAKEN: usize = 1_000;

/// Computes the edits that were never sent anew in all tables that merge in another way than in
/// `old`: a counter's value that was sealed before the first contact becomes a difference.
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
            (entry.changes, entry.bytes) = outbox::size(work.conn, seq)?;
            outbox::put(work.conn, &entry)?;
        }
    }
    Ok(())
}

/// Whether a column of both merges in another way.
fn differ(before: &Table, now: &Table) -> bool {
    now.columns.iter().any(|column| {
        let was = before
            .position_of(column.number)
            .map(|p| &before.columns[p]);
        was.is_some_and(|was| (was.merge, &was.merge_paths) != (column.merge, &column.merge_paths))
    })
}

fn reseal_table(
    work: &Work<'_>,
    table: &SyncedTable,
    touched: &mut BTreeSet<Seq>,
) -> Result<(), ReplicaError> {
    let mut after: Option<RowKey> = None;
    loop {
        let keys = shadow::keys_after(work.conn, table.number(), after.as_ref(), TAKEN)?;
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
    let mut image: Option<Row> = work.shadow(table, key)?.and_then(|shadow| shadow.image);
    for place in outbox::touching(work.conn, table.number(), key)? {
        if place.state == State::Parked {
            continue;
        }
        let Some(mut stored) = outbox::change_at(work.conn, place.seq, place.pos)? else {
            continue;
        };
        let Ok(next) = merge::apply_op(&table.table, image.as_ref(), &stored.change.op) else {
            continue;
        };
        let is_open = place.state == State::Sealed && matches!(stored.change.op, Op::Update(_));
        if is_open
            && let Some(op) = merge::diff_row(&table.table, image.as_ref(), next.as_ref())
            && op != stored.change.op
            && outbox::entry(work.conn, place.seq)?.is_some_and(|entry| !entry.sent)
        {
            stored.change.op = op;
            outbox::put_change(work.conn, place.seq, &stored)?;
            touched.insert(place.seq);
        }
        image = next;
    }
    Ok(())
}
