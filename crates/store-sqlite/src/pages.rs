//! Reading rows bucket by bucket, encoded as they are sent.

use std::collections::BTreeMap;

use rusqlite::Connection;
use syncline_core::{RowKey, TableNumber};
use syncline_store::{PagePartRead, PageRead, PageWant, RowMeta, StorageError, encode_page_row};

use crate::{
    capture::sweep,
    catalog::{Catalog, Entry},
    fault::{Fault, Result},
    ledger, load,
    rows::key_values,
    value::{self, version},
};

/// Rows that another program changed and no group has taken yet. Their content is not what the
/// log says, and may be meant for other readers: nobody is sent it before the log has it.
#[derive(Debug)]
pub(crate) struct Unsettled(BTreeMap<TableNumber, i64>);

impl Unsettled {
    pub(crate) fn read(conn: &Connection) -> Result<Self> {
        let mut statement = conn.prepare_cached("SELECT table_no, sweep FROM syncline_pending")?;
        let tables = statement.query_map([], |row| Ok((TableNumber(row.get(0)?), row.get(1)?)))?;
        Ok(Self(tables.collect::<rusqlite::Result<_>>()?))
    }

    pub(crate) fn has(&self, conn: &Connection, entry: &Entry, key: &RowKey) -> Result<bool> {
        let Some(&phase) = self.0.get(&entry.table.number) else {
            return Ok(false);
        };
        if phase >= sweep::RESCAN_ROWS {
            return Ok(true);
        }
        let values = key_values(key)?;
        if entry.is_marked(conn, &values)? {
            return Ok(true);
        }
        match entry.other_spelling(conn, &values)? {
            Some(stored) => entry.is_marked(conn, &stored),
            None => Ok(false),
        }
    }
}

/// Pages for `wants` in order. [`StorageError::Busy`] when the very first row is unsettled: the
/// next group settles it.
pub(crate) fn read(
    conn: &Connection,
    catalog: &Catalog,
    wants: &[PageWant],
    bytes_max: usize,
) -> Result<PageRead> {
    let mut page = PageRead {
        version: ledger::head(conn)?.version,
        parts: Vec::new(),
    };
    let unsettled = Unsettled::read(conn)?;
    let mut bytes = 0;
    for want in wants {
        if bytes >= bytes_max && !page.parts.is_empty() {
            break;
        }
        let entry = catalog.entry(want.table)?;
        let room = bytes_max.saturating_sub(bytes);
        let (part, stopped) = read_part(conn, entry, want, room, &unsettled)?;
        bytes += part.rows.len();
        let ends = part.to.is_some() || stopped;
        if part.count > 0 || !stopped {
            page.parts.push(part);
        }
        if ends {
            break;
        }
    }
    if page.parts.is_empty() && !wants.is_empty() {
        return Err(Fault::Storage(StorageError::Busy));
    }
    Ok(page)
}

/// How many rows are to come: kept with the digest, counted only for a part that is under way.
pub(crate) fn rows_to_come(conn: &Connection, wants: &[PageWant]) -> Result<u64> {
    let sql = "SELECT count(*) FROM syncline_members
               WHERE bucket = ?1 AND table_no = ?2 AND key > ?3";
    let mut rows = 0;
    for want in wants {
        rows += match &want.after {
            None => load::digest(conn, want.bucket, want.table)?.count,
            Some(after) => conn
                .prepare_cached(sql)?
                .query_row(
                    (&want.bucket.0[..], want.table.0, after.as_bytes()),
                    |row| row.get::<_, i64>(0),
                )?
                .unsigned_abs(),
        };
    }
    Ok(rows)
}

/// `true`: an unsettled row stopped it.
fn read_part(
    conn: &Connection,
    entry: &Entry,
    want: &PageWant,
    bytes_max: usize,
    unsettled: &Unsettled,
) -> Result<(PagePartRead, bool)> {
    let sql = "SELECT m.key, r.version, r.created, r.owner, r.author FROM syncline_members m
               JOIN syncline_rows r ON r.table_no = m.table_no AND r.key = m.key
               WHERE m.bucket = ?1 AND m.table_no = ?2 AND m.key > ?3 ORDER BY m.key";
    let after = want.after.as_ref().map_or(&[][..], RowKey::as_bytes);
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((&want.bucket.0[..], want.table.0, after))?;
    let mut reading = entry.reader(conn)?;
    let mut part = PagePartRead {
        bucket: want.bucket,
        table: want.table,
        after: want.after.clone(),
        to: None,
        rows: Vec::new(),
        count: 0,
        digest: None,
    };
    let mut last = None;
    loop {
        let Some(row) = rows.next()? else {
            part.digest = Some(load::digest(conn, want.bucket, want.table)?);
            return Ok((part, false));
        };
        if part.count > 0 && part.rows.len() >= bytes_max {
            part.to = last;
            return Ok((part, false));
        }
        let key = value::key(row, 0)?;
        if unsettled.has(conn, entry, &key)? {
            part.to = last;
            return Ok((part, true));
        }
        // The ledger's rows and the table's agree, except for unsettled ones.
        let Some(image) = reading.read(&key)? else {
            return Err(Fault::corrupt(format!(
                "a row of {} is missing",
                entry.table.name
            )));
        };
        let meta = RowMeta {
            version: version(row, 1)?,
            created: version(row, 2)?,
            owner: value::user_of(row, 3)?,
            author: value::user_of(row, 4)?,
            ..RowMeta::default()
        };
        encode_page_row(&entry.table, &key, &image, &meta, &mut part.rows);
        part.count += 1;
        last = Some(key);
    }
}
