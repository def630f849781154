//! What the replica knows of each row the server gave (spec AP3).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use rusqlite::{CachedStatement, Connection, OptionalExtension, ToSql, types::ValueRef};
use syncline_core::{RowKey, TableNumber, Version};

use super::members;
use crate::{db::Doing, error::ReplicaError, tables::SyncedTable};

/// A bucket's number in this file.
pub(crate) type Bucket = i64;
/// A user's number in this file.
pub(crate) type User = i64;

/// One row's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Known {
    pub(crate) version: Version,
    /// Content hash of the server's image.
    pub(crate) hash: u64,
    /// Sorted, without doubles.
    pub(crate) buckets: Vec<Bucket>,
    pub(crate) owner: Option<User>,
    pub(crate) created: Version,
    pub(crate) author: Option<User>,
    /// Columns that this file does not have, as the server sent them.
    pub(crate) extra: Option<Vec<u8>>,
}

impl Known {
    /// Whether nobody changed the row since its owner inserted it.
    pub(crate) fn is_as_inserted(&self) -> bool {
        self.version == self.created
    }
}

const READING: &str = "reading a row's metadata";
const WRITING: &str = "writing a row's metadata";

pub(crate) fn get(
    conn: &Connection,
    t: TableNumber,
    key: &RowKey,
) -> Result<Option<Known>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT version, hash, buckets, owner, created, author, extra
             FROM syncline_rows WHERE t = ?1 AND key = ?2",
        )
        .doing(READING)?;
    let known = statement.query_row((t.0, key.as_bytes()), |row| {
        Ok(Known {
            version: version(row.get(0)?),
            hash: row.get::<_, i64>(1)?.cast_unsigned(),
            buckets: unpack(row.get_ref(2)?),
            owner: row.get(3)?,
            created: version(row.get(4)?),
            author: row.get(5)?,
            extra: row.get(6)?,
        })
    });
    known.optional().doing(READING)
}

/// Rows of which something is kept beside the file, in order of key after `after`.
pub(crate) fn with_extra(
    conn: &Connection,
    t: TableNumber,
    after: &[u8],
    max: usize,
) -> Result<Vec<(RowKey, Known)>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT key FROM syncline_rows
             WHERE t = ?1 AND key > ?2 AND extra IS NOT NULL ORDER BY key LIMIT ?3",
        )
        .doing(READING)?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let mut rows = statement.query((t.0, after, max)).doing(READING)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        let key = row_key(row.get_ref(0).doing(READING)?)?;
        if let Some(known) = get(conn, t, &key)? {
            found.push((key, known));
        }
    }
    Ok(found)
}

/// The version alone.
pub(crate) fn version_of(
    conn: &Connection,
    t: TableNumber,
    key: &RowKey,
) -> Result<Option<Version>, ReplicaError> {
    conn.prepare_cached("SELECT version FROM syncline_rows WHERE t = ?1 AND key = ?2")
        .and_then(|mut s| {
            s.query_row((t.0, key.as_bytes()), |row| row.get(0).map(version))
                .optional()
        })
        .doing(READING)
}

/// Whether any row of `t` within `(after, to]` is known.
pub(crate) fn any_within(
    conn: &Connection,
    t: TableNumber,
    after: Option<&[u8]>,
    to: Option<&[u8]>,
) -> Result<bool, ReplicaError> {
    conn.prepare_cached(
        "SELECT 1 FROM syncline_rows WHERE t = ?1 AND key > ?2 AND (?3 IS NULL OR key <= ?3) LIMIT 1",
    )
    .and_then(|mut s| s.query_row((t.0, after.unwrap_or_default(), to), |_| Ok(())).optional())
    .map(|found| found.is_some())
    .doing(READING)
}

/// Writes metadata of many rows with one statement; memberships are apart.
pub(crate) struct Writer<'c>(CachedStatement<'c>);

impl<'c> Writer<'c> {
    pub(crate) fn new(conn: &'c Connection) -> Result<Self, ReplicaError> {
        conn.prepare_cached(
            "INSERT OR REPLACE INTO syncline_rows
               (t, key, version, hash, buckets, owner, created, author, extra)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )
        .map(Self)
        .doing(WRITING)
    }

    /// Writes a row's metadata, whether it is there already or not.
    pub(crate) fn put(
        &mut self,
        t: TableNumber,
        key: &RowKey,
        known: &Known,
    ) -> Result<(), ReplicaError> {
        let packed = pack(&known.buckets);
        self.0
            .execute((
                t.0,
                key.as_bytes(),
                known.version.0.cast_signed(),
                known.hash.cast_signed(),
                &packed as &dyn ToSql,
                known.owner,
                known.created.0.cast_signed(),
                known.author,
                &known.extra,
            ))
            .map(drop)
            .doing(WRITING)
    }
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

pub(crate) fn delete(conn: &Connection, t: TableNumber, key: &RowKey) -> Result<(), ReplicaError> {
    conn.prepare_cached("DELETE FROM syncline_rows WHERE t = ?1 AND key = ?2")
        .and_then(|mut statement| statement.execute((t.0, key.as_bytes())))
        .map(drop)
        .doing(WRITING)
}

/// At most `limit` known rows of `t` after `after`, ascending.
pub(crate) fn keys_after(
    conn: &Connection,
    t: TableNumber,
    after: Option<&RowKey>,
    limit: usize,
) -> Result<Vec<RowKey>, ReplicaError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn
        .prepare_cached(
            "SELECT key FROM syncline_rows WHERE t = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
        )
        .doing(READING)?;
    let after = after.map(RowKey::as_bytes).unwrap_or_default();
    let mut rows = statement.query((t.0, after, limit)).doing(READING)?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        keys.push(row_key(row.get_ref(0).doing(READING)?)?);
    }
    Ok(keys)
}

/// Forgets everything about a table's rows.
pub(crate) fn forget_table(conn: &Connection, t: TableNumber) -> Result<(), ReplicaError> {
    for sql in [
        "DELETE FROM syncline_rows WHERE t = ?1",
        "DELETE FROM syncline_members WHERE t = ?1",
        "DELETE FROM syncline_shadow WHERE t = ?1",
        "DELETE FROM syncline_former WHERE t = ?1",
        "DELETE FROM syncline_ahead WHERE t = ?1",
        "DELETE FROM syncline_parts WHERE t = ?1",
        "UPDATE syncline_tables SET loaded = 0, rows = 0, unsure = 0, members = 0 WHERE t = ?1",
    ] {
        conn.prepare_cached(sql)
            .and_then(|mut s| s.execute([t.0]))
            .doing(WRITING)?;
    }
    Ok(())
}

/// Sets the version of every row later than `common` to zero, so that any page of a restored
/// server replaces it.
pub(crate) fn distrust_after(
    work: &mut crate::work::Work<'_>,
    common: Version,
) -> Result<(), ReplicaError> {
    let tables = work.tables;
    for table in tables.iter() {
        let mut after: Option<RowKey> = None;
        loop {
            let keys = keys_after(work.conn, table.number(), after.as_ref(), 1_000)?;
            let Some(last) = keys.last() else { break };
            after = Some(last.clone());
            for key in keys {
                let Some(known) = get(work.conn, table.number(), &key)? else {
                    continue;
                };
                if known.version > common {
                    let next = Known {
                        version: Version::ZERO,
                        ..known.clone()
                    };
                    work.set_known(table, &key, Some(&known), Some(&next))?;
                }
            }
        }
    }
    Ok(())
}

/// Makes memberships and receipt digests of some buckets of a table anew from the rows.
pub(crate) fn recount(
    conn: &Connection,
    table: &SyncedTable,
    of: &BTreeSet<Bucket>,
) -> Result<(), ReplicaError> {
    let t = table.number();
    let mut sums: BTreeMap<Bucket, (u64, u64)> = of.iter().map(|b| (*b, (0, 0))).collect();
    for_each(conn, t, |key, known| {
        for b in known.buckets {
            if let Some((count, sum)) = sums.get_mut(&b) {
                *count += 1;
                *sum = sum.wrapping_add(table.receipt(&key, known.version));
            }
        }
        Ok(())
    })?;
    for (b, (count, sum)) in sums {
        super::buckets::set_digest(conn, b, t, count, sum)?;
    }
    if members::are_listed(conn, t)? {
        members::list(conn, t)?;
    }
    Ok(())
}

/// Every known row of `t`, ascending.
fn for_each(
    conn: &Connection,
    t: TableNumber,
    mut take: impl FnMut(RowKey, Known) -> Result<(), ReplicaError>,
) -> Result<(), ReplicaError> {
    let mut after: Option<RowKey> = None;
    loop {
        let keys = keys_after(conn, t, after.as_ref(), 1_000)?;
        let Some(last) = keys.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for key in keys {
            if let Some(known) = get(conn, t, &key)? {
                take(key, known)?;
            }
        }
    }
}

/// The greatest key of `t` that the server gave.
pub(crate) fn last_key(conn: &Connection, t: TableNumber) -> Result<Option<RowKey>, ReplicaError> {
    let stored: Option<Option<Vec<u8>>> = conn
        .prepare_cached("SELECT max(key) FROM syncline_rows WHERE t = ?1")
        .and_then(|mut s| s.query_row([t.0], |row| row.get(0)).optional())
        .doing(READING)?;
    stored
        .flatten()
        .map(|bytes| row_key(ValueRef::Blob(&bytes)))
        .transpose()
}

/// Differences of receipt digests, gathered while a transaction changes rows.
#[derive(Debug, Default)]
pub(crate) struct DigestChanges(BTreeMap<(Bucket, TableNumber), (u64, u64)>);

impl DigestChanges {
    /// A receipt came to the (bucket, local table).
    pub(crate) fn add(&mut self, b: Bucket, t: TableNumber, receipt: u64) {
        let (count, sum) = self.0.entry((b, t)).or_default();
        *count = count.wrapping_add(1);
        *sum = sum.wrapping_add(receipt);
    }

    /// A receipt went.
    pub(crate) fn remove(&mut self, b: Bucket, t: TableNumber, receipt: u64) {
        let (count, sum) = self.0.entry((b, t)).or_default();
        *count = count.wrapping_sub(1);
        *sum = sum.wrapping_sub(receipt);
    }

    /// Writes the differences.
    pub(crate) fn store(&mut self, conn: &Connection) -> Result<(), ReplicaError> {
        for ((b, t), (count, sum)) in std::mem::take(&mut self.0) {
            super::buckets::add_to_digest(conn, b, t, count, sum)?;
        }
        Ok(())
    }
}

/// A row's key as stored.
pub(crate) fn row_key(stored: ValueRef<'_>) -> Result<RowKey, ReplicaError> {
    stored
        .as_blob()
        .ok()
        .and_then(|bytes| RowKey::from_bytes(bytes).ok())
        .ok_or_else(|| ReplicaError::Damaged {
            what: "a stored row key is malformed".into(),
        })
}

fn version(stored: i64) -> Version {
    Version(stored.cast_unsigned())
}

/// One bucket is an integer, several a blob of 8 bytes each.
fn pack(buckets: &[Bucket]) -> rusqlite::types::Value {
    match buckets {
        [one] => rusqlite::types::Value::Integer(*one),
        several => {
            rusqlite::types::Value::Blob(several.iter().flat_map(|b| b.to_le_bytes()).collect())
        }
    }
}

pub(super) fn unpack(stored: ValueRef<'_>) -> Vec<Bucket> {
    match stored {
        ValueRef::Integer(one) => vec![one],
        ValueRef::Blob(bytes) => bytes
            .chunks_exact(8)
            .map(|chunk| {
                Bucket::from_le_bytes(chunk.try_into().expect("chunks_exact gives 8 bytes"))
            })
            .collect(),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Text(_) => Vec::new(),
    }
}
