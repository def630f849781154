//! Another key for an unsent row whose integer key was taken (spec OB10).

use std::collections::BTreeSet;

use rusqlite::OptionalExtension;
use syncline_core::{ColumnEdit, ColumnNumber, Edit, Op, RowKey, Value, schema::ForeignKey};

use crate::{
    db::Doing,
    error::ReplicaError,
    event::Event,
    meta::{
        ledger,
        outbox::{self, Entry, Seq, State, StoredChange},
        shadow::Shadow,
    },
    seal::is_insert,
    sql,
    tables::SyncedTable,
    work::Work,
};

/// Gives the row inserted by the refused `change` of `entry` a key that is free here, with all
/// unsent changes of it and references to it, and seals them for sending again.
///
/// `false` if the change is no insert under a single integer key.
pub(crate) fn rekey(
    work: &mut Work<'_>,
    entry: &Entry,
    change: Option<u32>,
) -> Result<bool, ReplicaError> {
    let Some(position) = change else {
        return Ok(false);
    };
    let found = outbox::changes(work.conn, entry.seq, 0, usize::MAX)?;
    let Some(taken) = found.into_iter().nth(position as usize) else {
        return Ok(false);
    };
    let Some(table) = work.table(taken.change.table) else {
        return Ok(false);
    };
    let &[key_position] = table.table.primary_key.as_slice() else {
        return Ok(false);
    };
    let from = taken.change.key;
    let Some(&Value::Integer(old)) = from.decode().unwrap_or_default().first() else {
        return Ok(false);
    };
    if !is_insert(&taken.change.op) {
        return Ok(false);
    }
    let new = free_key(work, table, key_position, old)?;
    let to = RowKey::encode([&Value::Integer(new)]).map_err(|error| ReplicaError::Row {
        reason: error.to_string(),
    })?;

    let mut affected = vec![entry.seq];
    affected.extend(move_row(work, table, &from, &to, key_position, new)?);
    affected.extend(move_references(work, table, old, new)?);
    // What was written on top of any of them stays behind it.
    for seq in outbox::dependants(work.conn, affected)? {
        let Some(entry) = outbox::entry(work.conn, seq)? else {
            continue;
        };
        if entry.state == State::Sealed {
            let end = outbox::next_seq(work.conn)?;
            outbox::move_to(work.conn, seq, end)?;
            outbox::set_unnumbered(work.conn, end)?;
        }
    }
    work.events.push(Event::Rekeyed {
        table: table.name().to_owned(),
        from,
        to,
    });
    Ok(true)
}

/// One above every key that the file or the server is known to have, and above all that rows of
/// the file refer to: a child without its parent must not become the child of another. Above the
/// `taken` one too: the row may be deleted here already, and the one in its way not be here yet.
fn free_key(
    work: &Work<'_>,
    table: &SyncedTable,
    key_position: usize,
    taken: i64,
) -> Result<i64, ReplicaError> {
    let mut last = largest(work, table, key_position)?;
    for child in work.tables.iter() {
        for position in references(child, table) {
            last = last.max(largest(work, child, position)?);
        }
    }
    let known = ledger::last_key(work.conn, table.number())?;
    let known = known.and_then(|key| match key.decode().ok()?.first()? {
        Value::Integer(number) => Some(*number),
        Value::Null | Value::Real(_) | Value::Text(_) | Value::Blob(_) => None,
    });
    let last = last.max(known.unwrap_or(0)).max(taken);
    Ok(last.max(largest_unsent(work, table)?).saturating_add(1))
}

/// The largest integer key of the table in changes that wait, or to which they refer: rows that were
/// inserted and deleted again are nowhere else, and what is parked may be sent again.
fn largest_unsent(work: &Work<'_>, table: &SyncedTable) -> Result<i64, ReplicaError> {
    let mut last = 0;
    for state in [State::Sealed, State::Accepted, State::Parked] {
        for entry in outbox::in_state(work.conn, state, 0, usize::MAX)? {
            for (t, key) in outbox::keys(work.conn, entry.seq)? {
                let Some(of) = work.table(t) else { continue };
                let references = references(of, table);
                let values = key.decode().unwrap_or_default();
                for (value, position) in values.iter().zip(&of.table.primary_key) {
                    if let Value::Integer(number) = value
                        && (t == table.number() || references.contains(position))
                    {
                        last = last.max(*number);
                    }
                }
                last = last.max(largest_referred(work, of, &references, (entry.seq, &key))?);
            }
        }
    }
    Ok(last)
}

/// The largest integer that a changeset writes into columns of one of its rows.
fn largest_referred(
    work: &Work<'_>,
    table: &SyncedTable,
    positions: &[usize],
    (seq, key): (Seq, &RowKey),
) -> Result<i64, ReplicaError> {
    let mut last = 0;
    let columns: Vec<_> = positions
        .iter()
        .map(|&p| table.table.columns[p].number)
        .collect();
    if columns.is_empty() {
        return Ok(last);
    }
    let Some(pos) = outbox::position(work.conn, seq, table.number(), key)? else {
        return Ok(last);
    };
    let Some(stored) = outbox::change_at(work.conn, seq, pos)? else {
        return Ok(last);
    };
    let edits = match stored.change.op {
        Op::Insert(edits) | Op::Update(edits) => edits,
        Op::Delete => Vec::new(),
    };
    for edit in edits.iter().filter(|edit| columns.contains(&edit.column)) {
        if let Edit::Set(Value::Integer(number)) = edit.edit {
            last = last.max(number);
        }
    }
    Ok(last)
}

/// The largest integer in a column, or zero.
fn largest(work: &Work<'_>, table: &SyncedTable, position: usize) -> Result<i64, ReplicaError> {
    let column = sql::quoted(&table.table.columns[position].name);
    let name = sql::quoted(table.name());
    let text = format!("SELECT max({column}) FROM {name} WHERE typeof({column}) = 'integer'");
    let found: Option<i64> = work
        .conn
        .query_row(&text, [], |row| row.get(0))
        .optional()
        .doing("looking for a free key")?
        .flatten();
    Ok(found.unwrap_or(0).max(0))
}

/// Moves the pending changes of the row to its new key.
fn move_row(
    work: &mut Work<'_>,
    table: &SyncedTable,
    from: &RowKey,
    to: &RowKey,
    key_position: usize,
    new: i64,
) -> Result<Vec<Seq>, ReplicaError> {
    let column = table.table.columns[key_position].number;
    let mut moved = Vec::new();
    for pending in outbox::touching(work.conn, table.number(), from)? {
        if pending.state != State::Sealed {
            continue;
        }
        for mut stored in outbox::changes(work.conn, pending.seq, pending.pos, 1)? {
            stored.change.key = to.clone();
            if let Op::Insert(edits) = &mut stored.change.op {
                for edit in edits.iter_mut().filter(|edit| edit.column == column) {
                    edit.edit = Edit::Set(Value::Integer(new));
                }
            }
            outbox::put_change(work.conn, pending.seq, &stored)?;
        }
        moved.push(pending.seq);
    }
    work.put_shadow(
        table,
        to,
        &Shadow {
            image: None,
            hidden: false,
        },
    )?;
    work.keep_own(table, from, to)?;
    work.refresh(table.number(), from.clone());
    work.refresh(table.number(), to.clone());
    Ok(moved)
}

/// Rewrites the unsent references of other rows to the row.
fn move_references(
    work: &mut Work<'_>,
    parent: &SyncedTable,
    old: i64,
    new: i64,
) -> Result<Vec<Seq>, ReplicaError> {
    let mut moved = Vec::new();
    // Rows that moved with their insert: what was changed of them later follows.
    let mut followed = BTreeSet::new();
    let mut after = 0;
    loop {
        let entries = outbox::in_state(work.conn, State::Sealed, after, 100)?;
        let Some(last) = entries.last() else {
            return Ok(moved);
        };
        after = last.seq;
        for entry in entries {
            for stored in outbox::changes(work.conn, entry.seq, 0, usize::MAX)? {
                let Some(child) = work.table(stored.change.table) else {
                    continue;
                };
                let place = (child.number(), stored.change.key.clone());
                if followed.contains(&place)
                    || outbox::waits_to_be_inserted(work.conn, child.number(), &place.1)?
                {
                    followed.insert(place.clone());
                }
                let is_ours = followed.contains(&place);
                if move_reference(
                    work,
                    child,
                    parent,
                    (entry.seq, stored),
                    is_ours,
                    (old, new),
                )? {
                    moved.push(entry.seq);
                }
            }
        }
    }
}

/// Rewrites one change that references the row; its own key too, where the reference is part of
/// it and the row was inserted here as well. A change of the server's row of that key stays: it
/// is about the row that has the old key.
fn move_reference(
    work: &mut Work<'_>,
    child: &SyncedTable,
    parent: &SyncedTable,
    (seq, mut stored): (Seq, StoredChange),
    is_ours: bool,
    (old, new): (i64, i64),
) -> Result<bool, ReplicaError> {
    let positions = references(child, parent);
    let columns: Vec<_> = positions
        .iter()
        .map(|&p| child.table.columns[p].number)
        .collect();
    let from = stored.change.key.clone();
    let moved = moved_key(child, &from, &positions, old, new);
    if moved.is_some() && !is_ours {
        return Ok(false);
    }
    let mut found = point_elsewhere(&mut stored.change.op, &columns, old, new);
    if let Some(to) = moved {
        stored.change.key = to.clone();
        work.keep_own(child, &from, &to)?;
        work.put_shadow(
            child,
            &to,
            &Shadow {
                image: None,
                hidden: false,
            },
        )?;
        work.refresh(child.number(), to);
        found = true;
    }
    if found {
        outbox::put_change(work.conn, seq, &stored)?;
        work.refresh(child.number(), from);
    }
    Ok(found)
}

/// The key with the reference in it moved; `None` if it has none.
fn moved_key(
    child: &SyncedTable,
    key: &RowKey,
    positions: &[usize],
    old: i64,
    new: i64,
) -> Option<RowKey> {
    let mut values = key.decode().ok()?;
    let mut found = false;
    for (value, position) in values.iter_mut().zip(&child.table.primary_key) {
        if positions.contains(position) && *value == Value::Integer(old) {
            *value = Value::Integer(new);
            found = true;
        }
    }
    if found {
        RowKey::encode(&values).ok()
    } else {
        None
    }
}

/// The positions of the columns of `child` that hold keys of `parent`.
fn references(child: &SyncedTable, parent: &SyncedTable) -> Vec<usize> {
    let to_key = |foreign_key: &&ForeignKey| {
        let key = &parent.table.columns[parent.table.primary_key[0]].name;
        foreign_key.parent.eq_ignore_ascii_case(parent.name())
            && match foreign_key.parent_columns.as_slice() {
                [] => true,
                [one] => one.eq_ignore_ascii_case(key),
                _ => false,
            }
    };
    let found = child.table.foreign_keys.iter().filter(to_key);
    found
        .filter_map(|foreign_key| foreign_key.columns.first().copied())
        .collect()
}

fn point_elsewhere(op: &mut Op, columns: &[ColumnNumber], old: i64, new: i64) -> bool {
    let edits: &mut [ColumnEdit] = match op {
        Op::Insert(edits) | Op::Update(edits) => edits,
        Op::Delete => &mut [],
    };
    let mut found = false;
    for edit in edits
        .iter_mut()
        .filter(|edit| columns.contains(&edit.column))
    {
        if edit.edit == Edit::Set(Value::Integer(old)) {
            edit.edit = Edit::Set(Value::Integer(new));
            found = true;
        }
    }
    found
}
