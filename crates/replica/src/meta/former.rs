//! What rows from before attaching were before they were changed here, while the server's are still
//! loading (spec SL13).

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension};
use syncline_core::{Op, Row, RowKey, TableNumber, merge};

use super::{
    ledger::row_key,
    outbox::{self, Seq, StoredChange},
};
use crate::{
    codec,
    db::Doing,
    error::ReplicaError,
    seal::parents,
    tables::SyncedTable,
    work::{Place, Work},
};

const READING: &str = "reading what a row was before";
const WRITING: &str = "writing what a row was before";

/// Keeps what the row was, if nothing is kept of it yet.
pub(crate) fn keep(
    conn: &Connection,
    table: &SyncedTable,
    key: &RowKey,
    image: &Row,
) -> Result<(), ReplicaError> {
    let image = codec::encode_row(&table.table, image);
    conn.prepare_cached("INSERT OR IGNORE INTO syncline_former(t, key, image) VALUES(?1, ?2, ?3)")
        .and_then(|mut s| s.execute((table.number().0, key.as_bytes(), image)))
        .map(drop)
        .doing(WRITING)
}

/// Whether the row was changed and nobody knows yet whether the server has it.
pub(crate) fn is_kept(
    conn: &Connection,
    t: TableNumber,
    key: &RowKey,
) -> Result<bool, ReplicaError> {
    conn.prepare_cached(
        "SELECT 1 FROM syncline_former WHERE t = ?1 AND key = ?2 AND image IS NOT NULL",
    )
    .and_then(|mut s| s.query_row((t.0, key.as_bytes()), |_| Ok(())).optional())
    .map(|found| found.is_some())
    .doing(READING)
}

/// What the row was, once: the server has it, and what became of it here is sealed now. That it
/// was kept is remembered, so that what is sealed waits (see [`holds`]).
pub(crate) fn take(
    conn: &Connection,
    table: &SyncedTable,
    key: &RowKey,
) -> Result<Option<Row>, ReplicaError> {
    let place = (table.number().0, key.as_bytes());
    let found: Option<Vec<u8>> = conn
        .prepare_cached("SELECT image FROM syncline_former WHERE t = ?1 AND key = ?2")
        .and_then(|mut s| s.query_row(place, |row| row.get(0)).optional())
        .map(Option::flatten)
        .doing(READING)?;
    let Some(image) = found else {
        return Ok(None);
    };
    conn.prepare_cached("UPDATE syncline_former SET image = NULL WHERE t = ?1 AND key = ?2")
        .and_then(|mut s| s.execute(place))
        .doing(WRITING)?;
    // Where it is damaged, the row is one that the server does not know.
    let image = codec::decode_row(&table.table, &image).ok();
    Ok(image.map(|row| row.canonical(&table.table)))
}

/// Whether a changeset changes rows that were kept.
pub(crate) fn holds(conn: &Connection, seq: Seq) -> Result<bool, ReplicaError> {
    conn.prepare_cached(
        "SELECT EXISTS(SELECT 1 FROM syncline_former)
            AND EXISTS(SELECT 1 FROM syncline_changes c JOIN syncline_former f
                         ON f.t = c.t AND f.key = c.key WHERE c.seq = ?1)",
    )
    .and_then(|mut s| s.query_row([seq], |row| row.get(0)))
    .doing(READING)
}

/// Everything granted is loaded: what is left is not the server's, and what was sealed can go.
///
/// Rows that others refer to came first. Their deletes go after what becomes of those others: the
/// server would refuse them as long as it has rows that refer to them.
pub(crate) fn release(work: &Work<'_>) -> Result<(), ReplicaError> {
    let held = held(work.conn)?;
    let mut deleted: BTreeMap<Place, Seq> = BTreeMap::new();
    for &seq in &held {
        for StoredChange { change, .. } in outbox::changes(work.conn, seq, 0, usize::MAX)? {
            if change.op == Op::Delete {
                deleted.insert((change.table, change.key), seq);
            }
        }
    }
    for &seq in held.iter().filter(|_| !deleted.is_empty()) {
        let mut first = BTreeSet::<Seq>::new();
        for StoredChange { change, .. } in outbox::changes(work.conn, seq, 0, usize::MAX)? {
            let parents = parents_there(work, change.table, &change.key)?;
            first.extend(
                parents
                    .iter()
                    .filter_map(|place| deleted.get(place).copied()),
            );
        }
        for of in first.range(..seq) {
            // Where each needs the other, the server judges.
            if !outbox::dependants(work.conn, [*of])?.contains(&seq) {
                outbox::depend(work.conn, *of, seq)?;
            }
        }
    }
    let sql = "DELETE FROM syncline_former";
    let done = work
        .conn
        .prepare_cached(sql)
        .and_then(|mut s| s.execute([]));
    done.map(drop).doing(WRITING)
}

/// What the row refers to as the server has it.
fn parents_there(
    work: &Work<'_>,
    t: TableNumber,
    key: &RowKey,
) -> Result<Vec<Place>, ReplicaError> {
    let Some(table) = work
        .table(t)
        .filter(|table| !table.table.foreign_keys.is_empty())
    else {
        return Ok(Vec::new());
    };
    let image = work.shadow(table, key)?.and_then(|shadow| shadow.image);
    let whole = image.and_then(|image| merge::diff_row(&table.table, None, Some(&image)));
    whole.map_or(Ok(Vec::new()), |op| parents(work, table, key, &op))
}

/// Changesets of rows that were kept.
fn held(conn: &Connection) -> Result<Vec<Seq>, ReplicaError> {
    let sql = "SELECT DISTINCT c.seq FROM syncline_former f
               JOIN syncline_changes c ON c.t = f.t AND c.key = f.key ORDER BY c.seq";
    let mut statement = conn.prepare_cached(sql).doing(READING)?;
    let found = statement.query_map([], |row| row.get(0));
    found.and_then(Iterator::collect).doing(READING)
}

/// The table's triggers were gone: of a row that is not there nobody knows whether it was deleted,
/// or went with the table.
pub(crate) fn forget_missing(work: &Work<'_>, table: &SyncedTable) -> Result<(), ReplicaError> {
    let t = table.number();
    for key in keys(work.conn, t)? {
        if work.visible(table, &key)?.is_none() {
            let sql = "DELETE FROM syncline_former WHERE t = ?1 AND key = ?2 AND image IS NOT NULL";
            let gone = work.conn.prepare_cached(sql);
            gone.and_then(|mut s| s.execute((t.0, key.as_bytes())))
                .doing(WRITING)?;
        }
    }
    Ok(())
}

/// All that is kept of a table.
pub(crate) fn keys(conn: &Connection, t: TableNumber) -> Result<Vec<RowKey>, ReplicaError> {
    let mut statement = conn
        .prepare_cached("SELECT key FROM syncline_former WHERE t = ?1")
        .doing(READING)?;
    let mut rows = statement.query([t.0]).doing(READING)?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        // One that is damaged is no row's.
        keys.extend(row_key(row.get_ref(0).doing(READING)?).ok());
    }
    Ok(keys)
}

/// Gives a row another key; what is kept under that one stays.
pub(crate) fn move_to(
    conn: &Connection,
    t: TableNumber,
    from: &RowKey,
    to: &RowKey,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE OR IGNORE syncline_former SET key = ?3 WHERE t = ?1 AND key = ?2")
        .and_then(|mut s| s.execute((t.0, from.as_bytes(), to.as_bytes())))
        .map(drop)
        .doing(WRITING)
}
