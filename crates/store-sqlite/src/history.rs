//! The history of rows: a table in the order of versions, found by row through an index, and
//! what rows that were only inserted say of themselves.

use std::{collections::BTreeSet, sync::LazyLock};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use syncline_core::{DeviceId, Row, RowKey, TableNumber, UserId, Version};
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

/// Records that a ledger brings. Of a row that is only inserted none is written: its metadata say
/// the same, once they hold the end of the log entry. It is written when they are about to be
/// something else.
pub(crate) struct Inserts<'l> {
    since: Option<Version>,
    /// In order of version.
    records: &'l [HistoryRecord],
    /// By place in `records`: rows whose metadata say it.
    is_put_off: Vec<bool>,
    /// Rows that die here; one that lives again may say of its metadata only what it does now.
    deaths: BTreeSet<(TableNumber, &'l RowKey)>,
}

impl<'l> Inserts<'l> {
    pub(crate) fn new(conn: &Connection, records: &'l [HistoryRecord]) -> Result<Self> {
        Ok(Self {
            since: since(conn)?,
            records,
            is_put_off: vec![false; records.len()],
            deaths: records
                .iter()
                .filter(|record| record.change == HistoryChange::Delete)
                .map(|record| (record.table, &record.key))
                .collect(),
        })
    }

    /// Before a row's metadata are written: what they are to say of its insert. Writes what those
    /// before them said.
    pub(crate) fn put_off(
        &mut self,
        conn: &Connection,
        table: TableNumber,
        key: &RowKey,
        meta: &RowMeta,
    ) -> Result<Option<Version>> {
        let Some(since) = self.since else {
            return Ok(None);
        };
        let own = self
            .records
            .binary_search_by_key(&meta.version, |record| record.version);
        if let Ok(place) = own
            && says_insert(table, key, meta, &self.records[place])
        {
            if self.deaths.contains(&(table, key)) {
                write_put_off(conn, since, table, key)?;
            }
            self.is_put_off[place] = true;
            return Ok(Some(self.records[place].entry));
        }
        write_put_off(conn, since, table, key)?;
        Ok(None)
    }

    /// Writes the records that were not put off.
    pub(crate) fn write_rest(self, conn: &Connection) -> Result<()> {
        if self.since.is_none() {
            return Ok(());
        }
        let rest = self.records.iter().zip(self.is_put_off);
        let rest = rest.filter_map(|(record, is_put_off)| (!is_put_off).then_some(record));
        write(conn, &rest.collect::<Vec<_>>())
    }
}

/// Writes the record of a row's insert, if it was put off and is not forgotten yet.
fn write_put_off(
    conn: &Connection,
    since: Version,
    table: TableNumber,
    key: &RowKey,
) -> Result<()> {
    match insert_of(conn, table, key)? {
        Some(record) if record.version > since => write(conn, &[&record]),
        Some(_) | None => Ok(()),
    }
}

/// Whether [`insert_by`] makes this record of the row's metadata again.
fn says_insert(table: TableNumber, key: &RowKey, meta: &RowMeta, record: &HistoryRecord) -> bool {
    let says = record.change == HistoryChange::Insert
        && (record.table, &record.key) == (table, key)
        && !meta.deleted
        && record.user == meta.author
        && record.device == meta.clock.device
        && record.before.is_empty()
        && record.after == meta.buckets
        && record.old.is_empty();
    debug_assert!(!says || *record == insert_by(record.table, key, meta, record.entry));
    says
}

/// The record of a row's insert, of the row's metadata since then.
fn insert_by(table: TableNumber, key: &RowKey, meta: &RowMeta, entry: Version) -> HistoryRecord {
    HistoryRecord {
        table,
        key: key.clone(),
        version: meta.version,
        entry,
        user: meta.author.clone(),
        device: meta.clock.device,
        change: HistoryChange::Insert,
        before: Vec::new(),
        after: meta.buckets.clone(),
        old: Vec::new(),
    }
}

/// The record of a row's insert, if it was put off.
fn insert_of(conn: &Connection, table: TableNumber, key: &RowKey) -> Result<Option<HistoryRecord>> {
    let sql = "SELECT born, version, created, owner, author, deleted, state, buckets
               FROM syncline_rows WHERE table_no = ?1 AND key = ?2 AND born IS NOT NULL";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((table.0, key.as_bytes()))?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let meta = load::read_meta(row, 1)?;
    Ok(Some(insert_by(table, key, &meta, version(row, 0)?)))
}

fn write(conn: &Connection, records: &[&HistoryRecord]) -> Result<()> {
    static INSERT: LazyLock<Insert<7>> = LazyLock::new(|| {
        let columns = "(version, table_no, key, entry, user, device, body)";
        Insert::new(
            &format!("INSERT OR FAIL INTO syncline_history {columns}"),
            "",
        )
    });
    INSERT.run(conn, records, |record| {
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
    // The youngest of the row's records, if it has one.
    let put_off = insert_of(conn, want.table, &want.key)?
        .filter(|record| record.version > low && signed(record.version.0) < high);
    let mut reading = Reading {
        want,
        read: &mut read,
        held: 0,
    };
    let is_downward = order == "DESC";
    if is_downward && let Some(record) = &put_off {
        reading.take(record.clone(), record.encode_body().len());
    }
    let sql = format!(
        "SELECT version, entry, user, device, body FROM syncline_history
         WHERE table_no = ?1 AND key = ?2 AND version > ?3 AND version < ?4
         ORDER BY version {order}"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let place = (want.table.0, want.key.as_bytes(), signed(low.0), high);
    let mut rows = statement.query(place)?;
    while !reading.read.more
        && let Some(row) = rows.next()?
    {
        let body = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
        reading.take(record(want, row, body)?, body.len());
    }
    if !is_downward && let Some(record) = put_off {
        let bytes = record.encode_body().len();
        reading.take(record, bytes);
    }
    Ok(read)
}

/// Records on their way into an answer.
struct Reading<'a> {
    want: &'a HistoryWant,
    read: &'a mut HistoryRead,
    /// Bytes of them.
    held: usize,
}

impl Reading<'_> {
    /// Adds a record of so many bytes, or notes that there is more than the answer may hold.
    fn take(&mut self, record: HistoryRecord, bytes: usize) {
        let (want, read) = (self.want, &mut *self.read);
        self.held += bytes;
        let is_full = read.records.len() >= want.max || self.held > want.bytes_max;
        read.more |= is_full && (!read.records.is_empty() || want.max == 0);
        if !read.more {
            read.records.push(record);
        }
    }
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
