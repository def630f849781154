//! The history of rows: a table in the order of versions, found by row through an index.

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use syncline_core::{DeviceId, Row, UserId, Version};
use syncline_store::{
    HistoryChange, HistoryFrom, HistoryRead, HistoryRecord, HistoryWant, RowMeta, StorageError,
};

use crate::{
    catalog::Catalog,
    fault::{Fault, Result},
    ledger, load,
    pages::Unsettled,
    together::Insert,
    value::{blob, bytes, owned_blob, signed, unsigned, user, version},
};

/// Records deleted in one transaction, as in the log, and transactions of one portion.
const BATCH: i64 = 1_000;
const BATCHES: usize = 10;

/// Changes up to here are not known; `None`: history is not kept.
fn since(conn: &Connection) -> Result<Option<Version>> {
    let sql = "SELECT value FROM syncline_server WHERE name = 'history_since'";
    let mut statement = conn.prepare_cached(sql)?;
    let since = statement.query_row([], |row| unsigned(row, 0)).optional()?;
    Ok(since.map(Version))
}

fn set_since(conn: &Connection, since: Version) -> Result<()> {
    let sql = "INSERT INTO syncline_server VALUES ('history_since', ?1)
               ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    conn.prepare_cached(sql)?.execute([signed(since.0)])?;
    Ok(())
}

pub(crate) fn write(conn: &Connection, records: &[HistoryRecord]) -> Result<()> {
    if records.is_empty() || since(conn)?.is_none() {
        return Ok(());
    }
    let insert = Insert {
        head: "INSERT OR FAIL INTO syncline_history
               (version, table_no, key, entry, user, device, body)",
        tail: "",
    };
    insert.run(conn, records, |record| {
        [
            signed(record.version.0).into(),
            record.table.0.into(),
            blob(record.key.as_bytes()),
            signed(record.entry.0).into(),
            user(record.user.as_ref()),
            blob(&record.device.0),
            owned_blob(record.encode_body()),
        ]
    })
}

/// Begins to keep history with the log's end, or ends it.
pub(crate) fn keep(conn: &mut Connection, keep: bool) -> Result<()> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match (keep, since(&transaction)?) {
        (true, None) => set_since(&transaction, ledger::head(&transaction)?.version)?,
        (false, Some(_)) => {
            let sql = "DELETE FROM syncline_server WHERE name = 'history_since'";
            transaction.execute(sql, [])?;
        }
        (true, Some(_)) | (false, None) => {}
    }
    transaction.commit()?;
    Ok(())
}

/// Moves the place from which on history is known, then deletes a portion of what lies before;
/// whether there is more.
pub(crate) fn trim(conn: &mut Connection, wanted: Version) -> Result<bool> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let up_to = match since(&transaction)? {
        None => i64::MAX,
        Some(since) => {
            if wanted > since {
                set_since(&transaction, wanted)?;
            }
            signed(wanted.max(since).0)
        }
    };
    transaction.commit()?;
    let sql = "DELETE FROM syncline_history WHERE version IN
               (SELECT version FROM syncline_history WHERE version <= ?1
                ORDER BY version LIMIT ?2)";
    for _ in 0..BATCHES {
        let deleted = conn.prepare_cached(sql)?.execute((up_to, BATCH))?;
        if i64::try_from(deleted).is_ok_and(|deleted| deleted < BATCH) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// [`StorageError::Busy`] when another program changed the row and no group has taken it yet.
pub(crate) fn read(
    conn: &Connection,
    catalog: &Catalog,
    want: &HistoryWant,
) -> Result<HistoryRead> {
    let present = match want.from {
        HistoryFrom::Newest | HistoryFrom::Above(_) => present(conn, catalog, want)?,
        HistoryFrom::Below(_) => None,
    };
    let mut read = HistoryRead {
        present,
        since: since(conn)?,
        ..HistoryRead::default()
    };
    let Some(since) = read.since else {
        return Ok(read);
    };
    let (low, high, order) = match want.from {
        HistoryFrom::Newest => (since, i64::MAX, "DESC"),
        HistoryFrom::Below(version) => (since, signed(version.0), "DESC"),
        HistoryFrom::Above(version) => (since.max(version), i64::MAX, "ASC"),
    };
    let sql = format!(
        "SELECT version, entry, user, device, body FROM syncline_history
         WHERE table_no = ?1 AND key = ?2 AND version > ?3 AND version < ?4
         ORDER BY version {order}"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let place = (want.table.0, want.key.as_bytes(), signed(low.0), high);
    let mut rows = statement.query(place)?;
    let mut held = 0;
    while let Some(row) = rows.next()? {
        let body = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
        held += body.len();
        let is_full = read.records.len() >= want.max || held > want.bytes_max;
        if is_full && (!read.records.is_empty() || want.max == 0) {
            read.more = true;
            break;
        }
        read.records.push(record(want, row, body)?);
    }
    Ok(read)
}

/// The row, if it lives.
fn present(
    conn: &Connection,
    catalog: &Catalog,
    want: &HistoryWant,
) -> Result<Option<(Row, RowMeta)>> {
    let entry = catalog.entry(want.table)?;
    if Unsettled::read(conn)?.has(conn, entry, &want.key)? {
        return Err(Fault::Storage(StorageError::Busy));
    }
    let found = load::row(conn, entry, &want.key)?;
    Ok(found.and_then(|loaded| {
        let live = loaded.meta.version > Version::ZERO && !loaded.meta.deleted;
        Some((loaded.row.filter(|_| live)?, loaded.meta))
    }))
}

fn record(want: &HistoryWant, row: &rusqlite::Row<'_>, body: &[u8]) -> Result<HistoryRecord> {
    let mut record = HistoryRecord {
        table: want.table,
        key: want.key.clone(),
        version: version(row, 0)?,
        entry: version(row, 1)?,
        user: row.get::<_, Option<String>>(2)?.map(UserId),
        device: DeviceId(bytes(row, 3)?),
        change: HistoryChange::Update,
        before: Vec::new(),
        after: Vec::new(),
        old: Vec::new(),
    };
    record.decode_body(body)?;
    Ok(record)
}
