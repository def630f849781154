//! Answering the planner's wants inside a group's transaction.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Statement, params_from_iter, types::ValueRef};
use syncline_core::planted;
use syncline_core::{
    BucketId, ChangesetId, ColumnType, DeviceId, Lease, Piece, RowKey, TableNumber, Timestamp,
    UserId, Value, Version,
    digest::Digest,
    rules::{Grant, RuleColumn},
    sql::quote,
};
use syncline_store::{
    DeviceState, KnownChangeset, KnownRun, Loaded, LoadedRow, Owned, RowMeta, Want,
};

use crate::{
    catalog::{Catalog, Entry},
    fault::Result,
    reader,
    rows::uuid_spellings,
    value::{self, Bind, bytes, unsigned, version},
};

/// `has_unknown`: tables may have rows that the ledger does not know yet.
pub(crate) fn load(
    conn: &Connection,
    catalog: &Catalog,
    wants: &[Want],
    has_unknown: bool,
    loaded: &mut Loaded,
) -> Result<()> {
    rows(conn, catalog, wants, has_unknown, loaded)?;
    let mut known = conn.prepare_cached(known_changeset())?;
    let mut lost_by = Vec::new();
    for want in wants {
        match want {
            Want::Row(..) => {}
            Want::Matching(table, column, value) => {
                matching(conn, catalog.entry(*table)?, *column, value, loaded)?;
            }
            Want::Changeset(id) => {
                changeset(&mut known, *id, loaded)?;
            }
            Want::Pieces(user, piece) => {
                let known = pieces(conn, user, piece)?;
                loaded.pieces.insert((user.clone(), piece.clone()), known);
            }
            Want::Device(id) => {
                loaded.devices.insert(*id, device(conn, *id)?);
            }
            Want::GrantCount(grant) => {
                let (count, since) = grant_count(conn, *grant)?;
                loaded.put_grant(*grant, count, since);
            }
            Want::LostBy(version) => lost_by.push(*version),
            Want::Digest(bucket, table) => {
                loaded
                    .digests
                    .insert((*bucket, *table), digest(conn, *bucket, *table)?);
            }
            Want::Owned(user) => {
                loaded.owned.insert(user.clone(), user_owns(conn, user)?);
            }
        }
    }
    self::lost_by(conn, lost_by, loaded)
}

/// The rows among `wants`: most of what is wanted.
fn rows(
    conn: &Connection,
    catalog: &Catalog,
    wants: &[Want],
    has_unknown: bool,
    loaded: &mut Loaded,
) -> Result<()> {
    let mut counts = BTreeMap::new();
    for want in wants {
        if let Want::Row(table, _) = want {
            *counts.entry(*table).or_insert(0) += 1;
        }
    }
    for (table, count) in counts {
        loaded.expect_rows(table, count);
    }
    let mut statement = conn.prepare_cached(META)?;
    for want in wants {
        let Want::Row(table, key) = want else {
            continue;
        };
        let entry = catalog.entry(*table)?;
        let row = match meta_by(&mut statement, *table, key)? {
            // Most keys that are asked for are new ones: nobody has to look for them in all the
            // spellings that another program may have given them.
            None if !has_unknown => None,
            meta => with_row(conn, entry, key, meta)?,
        };
        loaded.put_row(*table, key.clone(), row);
    }
    Ok(())
}

/// One entry may hold very many of the versions: it is read once.
fn lost_by(conn: &Connection, mut versions: Vec<Version>, loaded: &mut Loaded) -> Result<()> {
    versions.sort_unstable();
    let mut rest = &versions[..];
    while let [first, ..] = rest {
        let entry = reader::entry_of(conn, *first)?;
        // Without an entry, the log ends before `first`.
        let held = match &entry {
            Some(entry) => rest.partition_point(|version| *version <= entry.version),
            None => rest.len(),
        };
        let (of_entry, later) = rest.split_at(held);
        loaded.put_lost_by(of_entry.iter().copied(), entry.as_deref());
        rest = later;
    }
    Ok(())
}

/// What table and ledger have of a row; `None` when neither knows it.
pub(crate) fn row(conn: &Connection, entry: &Entry, key: &RowKey) -> Result<Option<LoadedRow>> {
    let meta = meta(conn, entry.table.number, key)?;
    with_row(conn, entry, key, meta)
}

fn with_row(
    conn: &Connection,
    entry: &Entry,
    key: &RowKey,
    meta: Option<RowMeta>,
) -> Result<Option<LoadedRow>> {
    let row = entry.read(conn, key)?;
    if row.is_none() && meta.is_none() {
        return Ok(None);
    }
    Ok(Some(LoadedRow {
        row,
        meta: meta.unwrap_or_default(),
    }))
}

pub(crate) fn meta(conn: &Connection, table: TableNumber, key: &RowKey) -> Result<Option<RowMeta>> {
    let mut statement = conn.prepare_cached(META)?;
    meta_by(&mut statement, table, key)
}

const META: &str = "SELECT version, created, owner, author, deleted, state, buckets
                    FROM syncline_rows WHERE table_no = ?1 AND key = ?2";

/// `statement` is [`META`].
fn meta_by(
    statement: &mut Statement<'_>,
    table: TableNumber,
    key: &RowKey,
) -> Result<Option<RowMeta>> {
    let mut rows = statement.query((table.0, key.as_bytes()))?;
    rows.next()?.map(|row| read_meta(row, 0)).transpose()
}

/// Metadata from `version, created, owner, author, deleted, state, buckets`, beginning at
/// column `first`.
pub(crate) fn read_meta(row: &rusqlite::Row<'_>, first: usize) -> Result<RowMeta> {
    let user = |column: usize| value::user_of(row, first + column);
    let blob = |column: usize| {
        row.get_ref(first + column)?
            .as_blob()
            .map_err(rusqlite::Error::from)
    };
    let mut meta = RowMeta {
        version: version(row, first)?,
        created: version(row, first + 1)?,
        owner: user(2)?,
        author: user(3)?,
        deleted: row.get(first + 4)?,
        ..RowMeta::default()
    };
    meta.decode_state(blob(5)?)?;
    meta.decode_buckets(blob(6)?)?;
    Ok(meta)
}

/// Puts every row with this value that the ledger knows as live. Rows that another program
/// wrote and no group has taken yet are not part of any bucket or grant, so they are left out.
fn matching(
    conn: &Connection,
    entry: &Entry,
    column: RuleColumn,
    value: &Value,
    loaded: &mut Loaded,
) -> Result<()> {
    let table = entry.table.number;
    let candidates = match column {
        RuleColumn::Owner => owned(conn, table, value)?,
        RuleColumn::Column(position) => equal(conn, entry, position, value)?,
    };
    let mut keys = Vec::new();
    for key in candidates {
        let Some(found) = row(conn, entry, &key)? else {
            continue;
        };
        let live = found.row.is_some() && !found.meta.deleted && found.meta.version.0 > 0;
        if live {
            loaded.put_row(table, key.clone(), Some(found));
            keys.push(key);
        }
    }
    loaded.put_matching(table, column, value, keys);
    Ok(())
}

pub(crate) fn user_owns(conn: &Connection, user: &UserId) -> Result<Owned> {
    let sql = "SELECT rows, bytes FROM syncline_owned WHERE user = ?1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([&user.0])?;
    let Some(row) = rows.next()? else {
        return Ok(Owned::default());
    };
    let (rows, bytes) = (unsigned(row, 0)?, unsigned(row, 1)?);
    Ok(Owned { rows, bytes })
}

fn owned(conn: &Connection, table: TableNumber, owner: &Value) -> Result<Vec<RowKey>> {
    let Value::Text(owner) = owner else {
        return Ok(Vec::new());
    };
    let sql = "SELECT key FROM syncline_rows WHERE table_no = ?1 AND owner = ?2 AND deleted = 0";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((table.0, owner))?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(value::key(row, 0)?);
    }
    Ok(keys)
}

/// Keys of rows whose column is canonically equal to `value`.
fn equal(conn: &Connection, entry: &Entry, position: usize, value: &Value) -> Result<Vec<RowKey>> {
    let column = &entry.table.columns[position];
    let spellings = match value {
        Value::Text(text) if column.ty == ColumnType::Uuid => uuid_spellings(text).into(),
        Value::Null | Value::Integer(_) | Value::Real(_) | Value::Text(_) | Value::Blob(_) => {
            vec![value.clone()]
        }
    };
    let places: Vec<_> = (1..=spellings.len()).map(|i| format!("?{i}")).collect();
    let keys: Vec<_> = entry
        .table
        .primary_key
        .iter()
        .map(|&p| quote(&entry.table.columns[p].name))
        .collect();
    let name = if column.generated {
        "NULL".into()
    } else {
        quote(&column.name)
    };
    let sql = format!(
        "SELECT {name}, {} FROM {} WHERE {name} IN ({})",
        keys.join(", "),
        entry.text.name,
        places.join(", ")
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(spellings.iter().map(Bind)))?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        // The column's collation may call more values equal than there are.
        if value::read(row.get_ref(0)?).canonical(column.ty) != *value {
            continue;
        }
        let stored = (1..=keys.len()).map(|i| Ok(value::read(row.get_ref(i)?)));
        out.extend(entry.canonical_key(stored.collect::<rusqlite::Result<_>>()?));
    }
    Ok(out)
}

fn known_changeset() -> &'static str {
    match planted!(DedupExpiredEarly) {
        true => {
            "SELECT version, user, device, NULL FROM syncline_log WHERE changeset = ?1
             AND version > (SELECT max(version) FROM syncline_log) - 2000000"
        }
        false => {
            "SELECT version, user, device, NULL FROM syncline_log WHERE changeset = ?1
             UNION ALL
             SELECT NULL, NULL, NULL, min(user) FROM syncline_pieces WHERE whole = ?1"
        }
    }
}

/// A changeset, and whose pieces there are of it. `statement` is [`known_changeset`].
fn changeset(statement: &mut Statement<'_>, id: ChangesetId, loaded: &mut Loaded) -> Result<()> {
    let mut whole = None;
    let mut rows = statement.query([&id.0[..]])?;
    while let Some(row) = rows.next()? {
        if let Some(user) = row.get::<_, Option<String>>(3)? {
            loaded.cut.insert(id, UserId(user));
        } else if row.get_ref(0)? != ValueRef::Null {
            whole = Some(KnownChangeset {
                version: version(row, 0)?,
                user: row.get::<_, Option<String>>(1)?.map(UserId),
                device: DeviceId(bytes(row, 2)?),
            });
        }
    }
    loaded.changesets.insert(id, whole);
    Ok(())
}

/// Where the user's pieces of the same changeset are that have some of these changes. No two of them
/// overlap: of each run the first one that can begins with it or before.
fn pieces(conn: &Connection, user: &UserId, piece: &Piece) -> Result<Vec<KnownRun>> {
    let sql = "SELECT first, last, version FROM syncline_pieces
               WHERE whole = ?1 AND user = ?2 AND last >= ?3 AND first <= ?4 AND first >=
                 ifnull((SELECT max(first) FROM syncline_pieces
                         WHERE whole = ?1 AND user = ?2 AND first <= ?3), ?3)";
    let mut statement = conn.prepare_cached(sql)?;
    let mut known = Vec::new();
    for (first, last) in piece.runs() {
        let mut rows = statement.query((&piece.whole.0[..], &user.0, first, last))?;
        while let Some(row) = rows.next()? {
            known.push(KnownRun {
                first: row.get(0)?,
                last: row.get(1)?,
                version: version(row, 2)?,
            });
        }
    }
    Ok(known)
}

/// What [`device_of`] reads.
macro_rules! select_device {
    ($rest:literal) => {
        concat!(
            "SELECT id, user, name, platform, lease, previous_lease, last_number, forked,
             first_seen, last_seen, checkpoint, deregistered, wipe FROM syncline_devices ",
            $rest
        )
    };
}

pub(crate) fn device(conn: &Connection, id: DeviceId) -> Result<Option<DeviceState>> {
    let mut statement = conn.prepare_cached(select_device!("WHERE id = ?1"))?;
    let mut rows = statement.query([&id.0[..]])?;
    rows.next()?.map(device_of).transpose()
}

/// A user's devices, those that were seen last first.
pub(crate) fn devices(conn: &Connection, user: &UserId, max: usize) -> Result<Vec<DeviceState>> {
    let sql = select_device!(
        "WHERE user = ?1 AND deregistered IS NULL ORDER BY last_seen DESC, id LIMIT ?2"
    );
    let mut statement = conn.prepare_cached(sql)?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let mut rows = statement.query((&user.0, max))?;
    let mut devices = Vec::new();
    while let Some(row) = rows.next()? {
        devices.push(device_of(row)?);
    }
    Ok(devices)
}

fn device_of(row: &rusqlite::Row<'_>) -> Result<DeviceState> {
    let deregistered: Option<i64> = row.get(11)?;
    Ok(DeviceState {
        id: DeviceId(bytes(row, 0)?),
        user: UserId(row.get(1)?),
        name: row.get(2)?,
        platform: row.get(3)?,
        lease: Lease(bytes(row, 4)?),
        previous_lease: Lease(bytes(row, 5)?),
        last_number: unsigned(row, 6)?,
        forked: row.get(7)?,
        first_seen: Timestamp(unsigned(row, 8)?),
        last_seen: Timestamp(unsigned(row, 9)?),
        checkpoint: version(row, 10)?,
        deregistered: deregistered.map(|at| Timestamp(at.cast_unsigned())),
        wipe: row.get(12)?,
    })
}

fn grant_count(conn: &Connection, grant: Grant) -> Result<(u64, Version)> {
    let sql = "SELECT count, since FROM syncline_grants WHERE grantee = ?1 AND bucket = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let found = statement
        .query_row((&grant.grantee.0[..], &grant.bucket.0[..]), |row| {
            Ok((unsigned(row, 0)?, version(row, 1)?))
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Zero where there is none.
pub(crate) fn digest(conn: &Connection, bucket: BucketId, table: TableNumber) -> Result<Digest> {
    let sql = "SELECT count, sum FROM syncline_digests WHERE bucket = ?1 AND table_no = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let digest = statement
        .query_row((&bucket.0[..], table.0), |row| {
            Ok(Digest {
                count: unsigned(row, 0)?,
                sum: unsigned(row, 1)?,
            })
        })
        .optional()?;
    Ok(digest.unwrap_or_default())
}
