//! Reading beside the writer.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;
use syncline_core::{
    BucketId, ChangesetId, DeviceId, Hlc, RowKey, TableNumber, Tag, UserId, Version,
    digest::content_hash,
    rules::{Grant, GranteeId},
};
use syncline_store::{
    DeviceState, HashesRead, Head, HistoryRead, HistoryWant, Loaded, LogEntry, PageRead, PageWant,
    Reader, RowHash, RowsRead, StorageError, Want,
};

use crate::{
    catalog::Catalog,
    fault::{Fault, Result},
    history, ledger, load, pages,
    place::Place,
    storage::SharedCatalog,
    value::{self, bytes, signed, unsigned, version},
};

/// A read that takes longer is given up: it would keep the WAL from being emptied.
const READ_TIME_MAX: Duration = Duration::from_secs(10);
/// How many steps of SQLite's machine lie between two looks at the clock.
const STEPS_BETWEEN_LOOKS: i32 = 50_000;

/// Reads a data file while a [`crate::SqliteStorage`] writes it. Each call sees one snapshot.
#[derive(Debug)]
pub struct SqliteReader {
    conn: Connection,
    place: Place,
    catalog: SharedCatalog,
    deadline: Deadline,
    distrusted: bool,
}

/// The time at which the present read is given up, in milliseconds after `start`.
#[derive(Debug, Clone)]
struct Deadline {
    start: Instant,
    at: Arc<AtomicU64>,
}

impl Deadline {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
    fn begin(&self) {
        let limit = u64::try_from(READ_TIME_MAX.as_millis()).unwrap_or(u64::MAX);
        self.at
            .store(self.now().saturating_add(limit), Ordering::Relaxed);
    }
    fn has_passed(&self) -> bool {
        self.now() > self.at.load(Ordering::Relaxed)
    }
}

impl SqliteReader {
    pub(crate) fn new(place: Place, catalog: SharedCatalog) -> Result<Self> {
        let deadline = Deadline {
            start: Instant::now(),
            at: Arc::new(AtomicU64::new(u64::MAX)),
        };
        let conn = connect(&place, &deadline)?;
        Ok(Self {
            conn,
            place,
            catalog,
            deadline,
            distrusted: false,
        })
    }

    /// Runs `read` in one snapshot.
    fn snapshot<T>(
        &mut self,
        read: impl FnOnce(&Connection, &Catalog) -> Result<T>,
    ) -> Result<T, StorageError> {
        let result = self.try_snapshot(read);
        if !self.conn.is_autocommit() && self.conn.execute_batch("ROLLBACK").is_err() {
            self.distrusted = true;
        }
        Ok(result.inspect_err(|fault| self.distrusted |= fault.distrusts_connection())?)
    }

    fn try_snapshot<T>(
        &mut self,
        read: impl FnOnce(&Connection, &Catalog) -> Result<T>,
    ) -> Result<T> {
        if self.distrusted {
            self.conn = connect(&self.place, &self.deadline)?;
            self.distrusted = false;
        }
        self.deadline.begin();
        self.conn.execute_batch("BEGIN")?;
        let catalog = self.catalog.get();
        let value = read(&self.conn, &catalog)?;
        self.conn.execute_batch("COMMIT")?;
        Ok(value)
    }
}

fn connect(place: &Place, deadline: &Deadline) -> Result<Connection> {
    let mut conn = place.reader()?;
    // In memory there is no WAL to hold up, and a simulation must not depend on real time.
    if place.path().is_some() {
        let deadline = deadline.clone();
        conn.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || deadline.has_passed()))?;
    }
    Ok(conn)
}

impl Reader for SqliteReader {
    async fn head(&mut self) -> Result<Head, StorageError> {
        self.snapshot(|conn, _| ledger::head(conn))
    }

    async fn log_after(
        &mut self,
        after: Version,
        bytes_max: usize,
    ) -> Result<Vec<Arc<LogEntry>>, StorageError> {
        self.snapshot(|conn, _| log_after(conn, after, bytes_max))
    }

    async fn tag_at(&mut self, version: Version) -> Result<Option<Tag>, StorageError> {
        self.snapshot(|conn, _| tag_at(conn, version))
    }

    async fn pages(
        &mut self,
        wants: &[PageWant],
        bytes_max: usize,
    ) -> Result<PageRead, StorageError> {
        self.snapshot(|conn, catalog| pages::read(conn, catalog, wants, bytes_max))
    }

    async fn rows_to_come(&mut self, wants: &[PageWant]) -> Result<u64, StorageError> {
        self.snapshot(|conn, _| pages::rows_to_come(conn, wants))
    }

    async fn grants(
        &mut self,
        grantees: &[GranteeId],
    ) -> Result<(Head, Vec<(Grant, Version)>), StorageError> {
        self.snapshot(|conn, _| Ok((ledger::head(conn)?, grants(conn, grantees)?)))
    }

    async fn hashes(
        &mut self,
        table: TableNumber,
        buckets: &[BucketId],
        after: Option<&RowKey>,
        max: usize,
    ) -> Result<HashesRead, StorageError> {
        self.snapshot(|conn, catalog| hashes(conn, catalog, table, buckets, after, max))
    }

    async fn device(&mut self, id: DeviceId) -> Result<Option<DeviceState>, StorageError> {
        self.snapshot(|conn, _| load::device(conn, id))
    }

    async fn devices(
        &mut self,
        user: &UserId,
        max: usize,
    ) -> Result<Vec<DeviceState>, StorageError> {
        self.snapshot(|conn, _| load::devices(conn, user, max))
    }

    async fn rows(
        &mut self,
        table: TableNumber,
        keys: &[RowKey],
        bytes_max: usize,
    ) -> Result<RowsRead, StorageError> {
        self.snapshot(|conn, catalog| rows(conn, catalog, table, keys, bytes_max))
    }

    async fn history(&mut self, want: &HistoryWant) -> Result<HistoryRead, StorageError> {
        self.snapshot(|conn, catalog| history::read(conn, catalog, want))
    }

    async fn look(&mut self, wants: &[Want], loaded: &mut Loaded) -> Result<(), StorageError> {
        self.snapshot(|conn, catalog| load::load(conn, catalog, wants, true, loaded))
    }

    async fn keys(
        &mut self,
        table: TableNumber,
        after: Option<&RowKey>,
        max: usize,
    ) -> Result<Vec<RowKey>, StorageError> {
        self.snapshot(|conn, _| keys(conn, table, after, max))
    }
}

fn keys(
    conn: &Connection,
    table: TableNumber,
    after: Option<&RowKey>,
    max: usize,
) -> Result<Vec<RowKey>> {
    let sql = "SELECT key FROM syncline_rows WHERE table_no = ?1 AND key > ?2 AND deleted = 0
               ORDER BY key LIMIT ?3";
    let after = after.map_or(&[][..], RowKey::as_bytes);
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((table.0, after, value::limit(max)))?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(value::key(row, 0)?);
    }
    Ok(keys)
}

fn log_after(conn: &Connection, after: Version, bytes_max: usize) -> Result<Vec<Arc<LogEntry>>> {
    let sql = "SELECT version, tag, changeset, user, device, number, hlc, body FROM syncline_log
               WHERE version > ?1 AND changeset IS NOT NULL ORDER BY version";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([signed(after.0)])?;
    let mut entries = Vec::new();
    let mut read = 0;
    while let Some(row) = rows.next()? {
        let body = row.get_ref(7)?.as_blob().map_err(rusqlite::Error::from)?;
        read += body.len();
        if read > bytes_max && !entries.is_empty() {
            break;
        }
        let mut entry = LogEntry {
            version: version(row, 0)?,
            tag: Tag(bytes(row, 1)?),
            changeset: ChangesetId(bytes(row, 2)?),
            user: row.get::<_, Option<String>>(3)?.map(UserId),
            device: DeviceId(bytes(row, 4)?),
            number: unsigned(row, 5)?,
            hlc: Hlc(unsigned(row, 6)?),
            grants: Vec::new(),
            records: Vec::new(),
            digests: Vec::new(),
        };
        entry.decode_body(body)?;
        entries.push(Arc::new(entry));
    }
    Ok(entries)
}

/// The entry that holds the change of version `at`; `None` when it is forgotten.
pub(crate) fn entry_of(conn: &Connection, at: Version) -> Result<Option<Arc<LogEntry>>> {
    let before = Version(at.0.saturating_sub(1));
    Ok(log_after(conn, before, 0)?.into_iter().next())
}

fn tag_at(conn: &Connection, wanted: Version) -> Result<Option<Tag>> {
    if wanted == Version::ZERO {
        return Ok(Some(Tag::default()));
    }
    let mut statement = conn.prepare_cached("SELECT tag FROM syncline_log WHERE version = ?1")?;
    let mut rows = statement.query([signed(wanted.0)])?;
    Ok(rows.next()?.map(|row| bytes(row, 0)).transpose()?.map(Tag))
}

fn grants(conn: &Connection, grantees: &[GranteeId]) -> Result<Vec<(Grant, Version)>> {
    let sql = "SELECT bucket, since FROM syncline_grants WHERE grantee = ?1 ORDER BY bucket";
    let mut statement = conn.prepare_cached(sql)?;
    let mut out = Vec::new();
    for &grantee in grantees {
        let mut rows = statement.query([&grantee.0[..]])?;
        while let Some(row) = rows.next()? {
            let bucket = BucketId(bytes(row, 0)?);
            out.push((Grant { grantee, bucket }, version(row, 1)?));
        }
    }
    Ok(out)
}

fn hashes(
    conn: &Connection,
    catalog: &Catalog,
    table: TableNumber,
    buckets: &[BucketId],
    after: Option<&RowKey>,
    max: usize,
) -> Result<HashesRead> {
    let entry = catalog.entry(table)?;
    let unsettled = pages::Unsettled::read(conn)?;
    let mut rows = Vec::new();
    let keys = first_keys(conn, table, buckets, after, max)?;
    let mut is_more = keys.len() >= max;
    let mut next = None;
    for key in keys {
        if unsettled.has(conn, entry, &key)? {
            if next.is_none() {
                return Err(Fault::Storage(StorageError::Busy));
            }
            is_more = true;
            break;
        }
        next = Some(key.clone());
        let Some(found) = load::row(conn, entry, &key)? else {
            continue;
        };
        if let Some(row) = found.row {
            let hash = content_hash(&entry.table, &row);
            rows.push(RowHash {
                key,
                version: found.meta.version,
                hash,
            });
        }
    }
    Ok(HashesRead {
        rows,
        next: next.filter(|_| is_more),
    })
}

/// The first `max` keys after `after` that lie in any of the buckets.
fn first_keys(
    conn: &Connection,
    table: TableNumber,
    buckets: &[BucketId],
    after: Option<&RowKey>,
    max: usize,
) -> Result<BTreeSet<RowKey>> {
    let sql = "SELECT key FROM syncline_members
               WHERE bucket = ?1 AND table_no = ?2 AND key > ?3 ORDER BY key";
    let after = after.map_or(&[][..], RowKey::as_bytes);
    let mut statement = conn.prepare_cached(sql)?;
    let mut keys = BTreeSet::new();
    for bucket in buckets {
        let mut rows = statement.query((&bucket.0[..], table.0, after))?;
        while let Some(row) = rows.next()? {
            let key = value::key(row, 0)?;
            let is_full = keys.len() >= max;
            if is_full && keys.last().is_none_or(|last| *last <= key) {
                break;
            }
            if keys.insert(key) && is_full {
                keys.pop_last();
            }
        }
    }
    Ok(keys)
}

fn rows(
    conn: &Connection,
    catalog: &Catalog,
    table: TableNumber,
    keys: &[RowKey],
    bytes_max: usize,
) -> Result<RowsRead> {
    let entry = catalog.entry(table)?;
    let unsettled = pages::Unsettled::read(conn)?;
    let mut read = RowsRead::default();
    for key in keys {
        if unsettled.has(conn, entry, key)? {
            return Err(Fault::Storage(StorageError::Busy));
        }
        let found = load::row(conn, entry, key)?;
        let found = found.filter(|found| found.meta.version > Version::ZERO);
        let found = found.and_then(|found| Some((found.row?, found.meta)));
        if read.add(key, found, bytes_max) {
            break;
        }
    }
    Ok(read)
}
