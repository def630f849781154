//! Writing what a group leaves behind besides rows.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use rusqlite::{
    Connection,
    types::{Null, ToSqlOutput, ValueRef},
};
use syncline_core::{
    BucketId, Piece, RowKey, TableNumber, Tag, UserId, Version, digest::content_hash,
};
use syncline_store::{Counted, DeviceState, Head, Ledger, LogEntry, Owned, RowMeta};

use crate::{
    capture::sweep,
    catalog::{Catalog, Entry},
    fault::{Fault, Result},
    history::Inserts,
    together::Insert,
    value::{blob, bytes, owned_blob, signed, user, version},
};

/// The end of the log and its oldest part.
pub(crate) fn head(conn: &Connection) -> Result<Head> {
    // Each group asks this: with one statement.
    let sql = "SELECT h.value, r.value, l.version, l.tag
               FROM syncline_server h JOIN syncline_server r LEFT JOIN syncline_log l
               ON l.version = (SELECT max(version) FROM syncline_log)
               WHERE h.name = 'horizon' AND r.name = 'rules_since'";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else {
        return Err(Fault::corrupt("horizon or rules_since is missing"));
    };
    let (horizon, rules_since) = (version(row, 0)?, version(row, 1)?);
    let is_empty = row.get_ref(2)? == ValueRef::Null;
    let (version, tag) = match is_empty {
        true => (Version::ZERO, Tag::default()),
        false => (version(row, 2)?, Tag(bytes(row, 3)?)),
    };
    Ok(Head {
        version,
        tag,
        horizon,
        rules_since,
    })
}

pub(crate) fn set(conn: &Connection, name: &str, value: Version) -> Result<()> {
    let sql = "UPDATE syncline_server SET value = ?2 WHERE name = ?1";
    conn.prepare_cached(sql)?.execute((name, signed(value.0)))?;
    Ok(())
}

/// The fingerprint that buckets and grants were computed with.
pub(crate) fn rules(conn: &Connection) -> Result<Option<[u8; 32]>> {
    let sql = "SELECT value FROM syncline_server WHERE name = 'rules'";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    rows.next()?.map(|row| bytes(row, 0)).transpose()
}

/// Forgets what depends on the rules, except where rows lie: that is replaced row by row.
pub(crate) fn clear_rules(conn: &Connection) -> Result<()> {
    conn.execute_batch(
        "DELETE FROM syncline_grants;
         DELETE FROM syncline_digests;
         DELETE FROM syncline_server WHERE name = 'rules';",
    )?;
    Ok(())
}

/// Content hashes of the rows as this group stored them; `None` where the row has to be read.
pub(crate) type Hashes = HashMap<(TableNumber, RowKey), Option<u64>>;

/// `nothing_pends`: no table is being compared with the ledger, as far as the caller knows.
pub(crate) fn write(
    conn: &Connection,
    catalog: &Catalog,
    ledger: &Ledger,
    hashes: &Hashes,
    nothing_pends: bool,
) -> Result<()> {
    let rescanned = match nothing_pends {
        true => Vec::new(),
        false => tables_being_rescanned(conn)?,
    };
    let mut inserts = Inserts::new(conn, &ledger.history)?;
    let mut metas = Vec::with_capacity(ledger.metas.len());
    let mut joined = Vec::with_capacity(ledger.metas.len());
    for (table, key, meta, before) in &ledger.metas {
        let entry = catalog.entry(*table)?;
        let hash = if meta.deleted || rescanned.contains(table) {
            // A rescan must not take a row for known that it has not come to yet.
            None
        } else {
            hash(conn, entry, key, hashes)?
        };
        let born = inserts.put_off(conn, *table, key, meta)?;
        metas.push((*table, key, meta, hash, born));
        leave(conn, *table, key, before, &meta.buckets)?;
        let joins = meta
            .buckets
            .iter()
            .filter(|bucket| !before.contains(bucket));
        joined.extend(joins.map(|bucket| (bucket, *table, key)));
    }
    write_metas(conn, &metas)?;
    write_members(conn, &joined)?;
    write_entries(conn, &ledger.entries)?;
    write_pieces(conn, &ledger.pieces)?;
    inserts.write_rest(conn)?;
    write_digests(conn, ledger)?;
    write_grants(conn, ledger)?;
    for device in &ledger.devices {
        write_device(conn, device)?;
    }
    write_owned(conn, ledger)?;
    if let Some(rules) = &ledger.rules {
        let sql = "INSERT INTO syncline_server VALUES ('rules', ?1)
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        conn.prepare_cached(sql)?.execute([&rules[..]])?;
        set(conn, "rules_since", head(conn)?.version)?;
    }
    Ok(())
}

fn tables_being_rescanned(conn: &Connection) -> Result<Vec<TableNumber>> {
    let sql = "SELECT table_no FROM syncline_pending WHERE sweep >= ?1";
    let mut statement = conn.prepare_cached(sql)?;
    let tables = statement.query_map([sweep::RESCAN_ROWS], |row| row.get(0).map(TableNumber))?;
    Ok(tables.collect::<rusqlite::Result<_>>()?)
}

fn hash(conn: &Connection, entry: &Entry, key: &RowKey, hashes: &Hashes) -> Result<Option<i64>> {
    let known = hashes
        .get(&(entry.table.number, key.clone()))
        .copied()
        .flatten();
    let hash = match known {
        Some(hash) => Some(hash),
        None => entry
            .read(conn, key)?
            .map(|row| content_hash(&entry.table, &row)),
    };
    Ok(hash.map(signed))
}

/// A row's metadata, the hash of its content, and the end of the entry that inserted it.
type Meta<'l> = (
    TableNumber,
    &'l RowKey,
    &'l RowMeta,
    Option<i64>,
    Option<Version>,
);

fn write_metas(conn: &Connection, metas: &[Meta<'_>]) -> Result<()> {
    static INSERT: LazyLock<Insert<11>> = LazyLock::new(|| {
        Insert::new(
            "INSERT OR FAIL INTO syncline_rows
             (table_no, key, version, created, owner, author, deleted, hash, state, buckets,
              born)",
            "ON CONFLICT (table_no, key) DO UPDATE SET version = excluded.version,
             created = excluded.created, owner = excluded.owner, author = excluded.author,
             deleted = excluded.deleted, hash = excluded.hash, state = excluded.state,
             buckets = excluded.buckets, born = excluded.born",
        )
    });
    INSERT.run(conn, metas, |(table, key, meta, hash, born)| {
        [
            table.0.into(),
            blob(key.as_bytes()),
            signed(meta.version.0).into(),
            signed(meta.created.0).into(),
            user(meta.owner.as_ref()),
            user(meta.author.as_ref()),
            meta.deleted.into(),
            hash.map_or(Null.into(), ToSqlOutput::from),
            owned_blob(meta.encode_state()),
            owned_blob(meta.encode_buckets()),
            born.map_or(Null.into(), |version| signed(version.0).into()),
        ]
    })
}

fn leave(
    conn: &Connection,
    table: TableNumber,
    key: &RowKey,
    before: &[BucketId],
    after: &[BucketId],
) -> Result<()> {
    let sql = "DELETE FROM syncline_members WHERE bucket = ?1 AND table_no = ?2 AND key = ?3";
    for bucket in before.iter().filter(|bucket| !after.contains(bucket)) {
        let place = (&bucket.0[..], table.0, key.as_bytes());
        conn.prepare_cached(sql)?.execute(place)?;
    }
    Ok(())
}

fn write_members(conn: &Connection, joined: &[(&BucketId, TableNumber, &RowKey)]) -> Result<()> {
    static INSERT: LazyLock<Insert<3>> = LazyLock::new(|| {
        let head = "INSERT OR FAIL INTO syncline_members";
        Insert::new(head, "ON CONFLICT DO NOTHING")
    });
    INSERT.run(conn, joined, |(bucket, table, key)| {
        [blob(&bucket.0), table.0.into(), blob(key.as_bytes())]
    })
}

fn write_entries(conn: &Connection, entries: &[Arc<LogEntry>]) -> Result<()> {
    static INSERT: LazyLock<Insert<8>> = LazyLock::new(|| {
        let columns = "(version, tag, changeset, user, device, number, hlc, body)";
        Insert::new(&format!("INSERT OR FAIL INTO syncline_log {columns}"), "")
    });
    // A large one by itself: its body is bound as a copy.
    for some in entries.chunk_by(|a, b| is_small(a) && is_small(b)) {
        INSERT.run(conn, some, |entry| {
            [
                signed(entry.version.0).into(),
                blob(&entry.tag.0),
                blob(&entry.changeset.0),
                user(entry.user.as_ref()),
                blob(&entry.device.0),
                signed(entry.number).into(),
                signed(entry.hlc.0).into(),
                owned_blob(entry.encode_body()),
            ]
        })?;
    }
    Ok(())
}

fn write_pieces(conn: &Connection, pieces: &[(Version, UserId, Piece)]) -> Result<()> {
    for (version, user, piece) in pieces {
        let sql = "INSERT OR REPLACE INTO syncline_pieces(whole, user, first, last, version)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut statement = conn.prepare_cached(sql)?;
        for (first, last) in piece.runs() {
            let version = signed(version.0);
            statement.execute((&piece.whole.0[..], &user.0, first, last, version))?;
        }
    }
    Ok(())
}

/// Bytes of rows up to which an entry is written together with others.
const SMALL_ENTRY: usize = 64 * 1024;

fn is_small(entry: &LogEntry) -> bool {
    let bytes = |body: &Option<Arc<[u8]>>| body.as_ref().map_or(0, |body| body.len());
    let of_records = entry
        .records
        .iter()
        .map(|record| bytes(&record.whole) + bytes(&record.columns));
    of_records.sum::<usize>() <= SMALL_ENTRY
}

fn write_digests(conn: &Connection, ledger: &Ledger) -> Result<()> {
    for (bucket, table, digest) in &ledger.digests {
        if digest.count == 0 {
            let sql = "DELETE FROM syncline_digests WHERE bucket = ?1 AND table_no = ?2";
            conn.prepare_cached(sql)?
                .execute((&bucket.0[..], table.0))?;
            continue;
        }
        let sql = "INSERT INTO syncline_digests VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (bucket, table_no) DO UPDATE
                   SET count = excluded.count, sum = excluded.sum";
        conn.prepare_cached(sql)?.execute((
            &bucket.0[..],
            table.0,
            signed(digest.count),
            signed(digest.sum),
        ))?;
    }
    Ok(())
}

fn write_grants(conn: &Connection, ledger: &Ledger) -> Result<()> {
    for (grant, count, since) in &ledger.grants {
        let ids = (&grant.grantee.0[..], &grant.bucket.0[..]);
        if *count == 0 {
            let sql = "DELETE FROM syncline_grants WHERE grantee = ?1 AND bucket = ?2";
            conn.prepare_cached(sql)?.execute(ids)?;
            continue;
        }
        let sql = "INSERT INTO syncline_grants VALUES (?1, ?2, ?3, ifnull(?4, 0))
                   ON CONFLICT (grantee, bucket) DO UPDATE
                   SET count = excluded.count, since = ifnull(?4, since)";
        let since = since.map(|version| signed(version.0));
        conn.prepare_cached(sql)?
            .execute((ids.0, ids.1, signed(*count), since))?;
    }
    Ok(())
}

fn write_owned(conn: &Connection, ledger: &Ledger) -> Result<()> {
    for (user, owned) in &ledger.owned {
        if *owned == Owned::default() {
            let sql = "DELETE FROM syncline_owned WHERE user = ?1";
            conn.prepare_cached(sql)?.execute([&user.0])?;
            continue;
        }
        let sql = "INSERT INTO syncline_owned VALUES (?1, ?2, ?3)
                   ON CONFLICT (user) DO UPDATE SET rows = excluded.rows, bytes = excluded.bytes";
        let (rows, bytes) = (signed(owned.rows), signed(owned.bytes));
        conn.prepare_cached(sql)?.execute((&user.0, rows, bytes))?;
    }
    match ledger.counted {
        Counted::Same => {}
        Counted::All(fingerprint) => {
            let sql = "INSERT INTO syncline_server VALUES ('counted', ?1)
                       ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            conn.execute(sql, [&fingerprint[..]])?;
        }
        Counted::Doubtful => {
            conn.execute("DELETE FROM syncline_server WHERE name = 'counted'", [])?;
        }
    }
    Ok(())
}

/// The fingerprint of the tables whose rows are counted for their owners.
pub(crate) fn counted(conn: &Connection) -> Result<Option<[u8; 32]>> {
    let sql = "SELECT value FROM syncline_server WHERE name = 'counted'";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    rows.next()?.map(|row| bytes(row, 0)).transpose()
}

/// Forgets what users own.
pub(crate) fn clear_owned(conn: &Connection) -> Result<()> {
    conn.execute_batch(
        "DELETE FROM syncline_owned;
         DELETE FROM syncline_server WHERE name = 'counted';",
    )?;
    Ok(())
}

fn write_device(conn: &Connection, device: &DeviceState) -> Result<()> {
    // Most groups count a number of a device that is there. Its user, which has an index of its
    // own, is left alone.
    let sql = "UPDATE syncline_devices SET name = ?3, platform = ?4, lease = ?5,
               previous_lease = ?6, last_number = ?7, forked = ?8, first_seen = ?9,
               last_seen = ?10, checkpoint = ?11, deregistered = ?12, wipe = ?13
               WHERE id = ?1 AND user = ?2";
    let new = "INSERT INTO syncline_devices
               (id, user, name, platform, lease, previous_lease, last_number, forked,
                first_seen, last_seen, checkpoint, deregistered, wipe)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
               ON CONFLICT (id) DO UPDATE SET user = excluded.user, name = excluded.name,
               platform = excluded.platform, lease = excluded.lease,
               previous_lease = excluded.previous_lease, last_number = excluded.last_number,
               forked = excluded.forked, first_seen = excluded.first_seen,
               last_seen = excluded.last_seen, checkpoint = excluded.checkpoint,
               deregistered = excluded.deregistered, wipe = excluded.wipe";
    let columns = (
        &device.id.0[..],
        &device.user.0,
        &device.name,
        &device.platform,
        &device.lease.0[..],
        &device.previous_lease.0[..],
        signed(device.last_number),
        device.forked,
        signed(device.first_seen.0),
        signed(device.last_seen.0),
        signed(device.checkpoint.0),
        device.deregistered.map(|at| signed(at.0)),
        device.wipe,
    );
    if conn.prepare_cached(sql)?.execute(columns)? == 0 {
        conn.prepare_cached(new)?.execute(columns)?;
    }
    Ok(())
}
