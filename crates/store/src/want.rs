//! Planning in rounds: the planner asks for what it misses, the storage loads it in bulk, and
//! the planner runs again. So planning is pure and a database with a long way needs few trips.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use syncline_core::{
    BucketId, ChangesetId, DeviceId, Piece, Row, RowKey, TableNumber, UserId, Value, Version,
    digest::Digest,
    rules::{Grant, RuleColumn},
};

use crate::{
    log::LogEntry,
    meta::{DeviceState, Owned, RowMeta},
};

/// One thing to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// A row with its metadata, or its tombstone, or its absence.
    Row(TableNumber, RowKey),
    /// The keys of all live rows whose column equals the value (bytewise, whatever the column's
    /// collation; never NULL), and those rows with their metadata.
    Matching(TableNumber, RuleColumn, Value),
    /// Whether this changeset is in the log.
    Changeset(ChangesetId),
    /// What the log has in pieces of the same changeset, the user's.
    Pieces(UserId, Piece),
    Device(DeviceId),
    /// How many paths give the bucket to the grantee, and since when.
    GrantCount(Grant),
    /// The grants that the log's entry with the change of this version took away.
    LostBy(Version),
    Digest(BucketId, TableNumber),
    /// What the user owns, where that is counted.
    Owned(UserId),
}

/// What has been loaded so far in this group; every answer is of the group's own transaction.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    rows: BTreeMap<TableNumber, HashMap<RowKey, Option<LoadedRow>>>,
    /// Canonical value (see [`matching_key`]) → keys.
    matching: BTreeMap<(TableNumber, RuleColumn, Vec<u8>), Vec<RowKey>>,
    /// `None`: not in the log.
    pub changesets: BTreeMap<ChangesetId, Option<KnownChangeset>>,
    /// Whose pieces the log has of which of `changesets`; nothing where there are none.
    pub cut: BTreeMap<ChangesetId, UserId>,
    /// What the log has of the same changesets' changes in pieces of the user's, as far as it
    /// overlaps.
    pub pieces: BTreeMap<(UserId, Piece), Vec<KnownRun>>,
    /// `None`: never seen.
    pub devices: BTreeMap<DeviceId, Option<DeviceState>>,
    /// Zero where there is none.
    pub grants: BTreeMap<Grant, u64>,
    /// Since when grants of `grants` have been there; nothing where there is none.
    pub granted_since: BTreeMap<Grant, Version>,
    /// Nothing where the log does not have the entry.
    pub lost_by: BTreeMap<Version, Arc<BTreeSet<Grant>>>,
    /// Zero where there is none.
    pub digests: BTreeMap<(BucketId, TableNumber), Digest>,
    /// Zero where there is nothing.
    pub owned: BTreeMap<UserId, Owned>,
}

/// A row as loaded: what the table has and what the ledger has of it.
///
/// They agree except for marked rows: one that another program inserted has default metadata
/// (version zero), one that it deleted has the metadata of a live row.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedRow {
    /// As [`Row`] of [`crate::storage::RowWrite::row`]; `None` when there is none, as for a tombstone.
    pub row: Option<Row>,
    pub meta: RowMeta,
}

/// A changeset that the log has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownChangeset {
    pub version: Version,
    /// `None`: another program's.
    pub user: Option<UserId>,
    pub device: DeviceId,
}

/// Changes of a changeset that the log has in a piece of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownRun {
    /// Their places, both included: as [`Piece::runs`].
    pub first: u32,
    pub last: u32,
    /// Where the piece is.
    pub version: Version,
}

impl KnownRun {
    /// The changes of a piece that is at this version.
    pub fn of(piece: &Piece, version: Version) -> impl Iterator<Item = Self> {
        let runs = piece.runs().into_iter();
        runs.map(move |(first, last)| Self {
            first,
            last,
            version,
        })
    }

    /// Whether it has any of these changes.
    #[must_use]
    pub fn overlaps(&self, piece: &Piece) -> bool {
        let begin = piece.places.partition_point(|place| *place < self.first);
        piece
            .places
            .get(begin)
            .is_some_and(|place| *place <= self.last)
    }
}

/// What a planning round could not do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub Vec<Want>);

impl Loaded {
    /// Makes room for so many rows of a table at once.
    pub fn expect_rows(&mut self, table: TableNumber, count: usize) {
        self.rows.entry(table).or_default().reserve(count);
    }

    /// How many rows of a table were asked for so far.
    pub(crate) fn rows_of(&self, table: TableNumber) -> usize {
        self.rows.get(&table).map_or(0, HashMap::len)
    }

    /// Answers [`Want::Row`]; `None`: neither row nor tombstone.
    pub fn put_row(&mut self, table: TableNumber, key: RowKey, row: Option<LoadedRow>) {
        self.rows.entry(table).or_default().insert(key, row);
    }

    /// Answers [`Want::Matching`] with the keys found, in any order; each row is put as well.
    ///
    /// # Panics
    /// If `value` is NULL.
    pub fn put_matching(
        &mut self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
        mut keys: Vec<RowKey>,
    ) {
        keys.sort_unstable();
        self.matching
            .insert((table, column, matching_key(value)), keys);
    }

    /// Answers [`Want::GrantCount`].
    pub fn put_grant(&mut self, grant: Grant, count: u64, since: Version) {
        self.grants.insert(grant, count);
        if count > 0 {
            self.granted_since.insert(grant, since);
        }
    }

    /// Answers [`Want::LostBy`] for versions that one entry holds, with the entry if the log has
    /// it: as many as its records, so they share what it took away.
    pub fn put_lost_by(
        &mut self,
        versions: impl IntoIterator<Item = Version>,
        entry: Option<&LogEntry>,
    ) {
        let grants = entry.map_or(&[][..], |entry| &entry.grants[..]);
        let lost = grants.iter().filter(|change| !change.granted);
        let lost = lost.map(|change| Grant {
            grantee: change.grantee,
            bucket: change.bucket,
        });
        let lost: Arc<BTreeSet<_>> = Arc::new(lost.collect());
        for version in versions {
            self.lost_by.insert(version, Arc::clone(&lost));
        }
    }

    /// What [`Loaded::put_row`] put; the outer `None`: not loaded yet.
    #[must_use]
    pub fn row(&self, table: TableNumber, key: &RowKey) -> Option<Option<&LoadedRow>> {
        self.rows.get(&table)?.get(key).map(Option::as_ref)
    }

    /// What [`Loaded::put_matching`] put, in key order; `None`: not loaded yet.
    ///
    /// # Panics
    /// If `value` is NULL.
    #[must_use]
    pub fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Option<&[RowKey]> {
        self.matching
            .get(&(table, column, matching_key(value)))
            .map(Vec::as_slice)
    }

    /// Whether the answer to `want` is here.
    #[must_use]
    pub fn answers(&self, want: &Want) -> bool {
        match want {
            Want::Row(table, key) => self.row(*table, key).is_some(),
            Want::Matching(table, column, value) => self.matching(*table, *column, value).is_some(),
            Want::Changeset(id) => self.changesets.contains_key(id),
            Want::Pieces(user, piece) => self.pieces.contains_key(&(user.clone(), piece.clone())),
            Want::Device(id) => self.devices.contains_key(id),
            Want::GrantCount(grant) => self.grants.contains_key(grant),
            Want::LostBy(version) => self.lost_by.contains_key(version),
            Want::Digest(bucket, table) => self.digests.contains_key(&(*bucket, *table)),
            Want::Owned(user) => self.owned.contains_key(user),
        }
    }
}

/// A value as key of a matching: its row-key encoding, however long.
///
/// # Panics
/// If the value is NULL: NULL matches nothing and is never asked for.
pub(crate) fn matching_key(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => panic!("NULL matches nothing and is never looked up"),
        Value::Text(text) => [b"t", text.as_bytes()].concat(),
        Value::Blob(bytes) => [b"b", &bytes[..]].concat(),
        Value::Integer(n) => [&b"i"[..], &n.to_le_bytes()].concat(),
        Value::Real(x) => [&b"r"[..], &x.to_bits().to_le_bytes()].concat(),
    }
}

/// Drops doubles, keeping the first of each.
pub(crate) fn without_doubles(mut wants: Vec<Want>) -> Vec<Want> {
    let mut kept = Loaded::default();
    wants.retain(|want| {
        let is_new = !kept.answers(want);
        match want {
            Want::Row(table, key) => kept.put_row(*table, key.clone(), None),
            Want::Matching(table, column, value) => {
                kept.put_matching(*table, *column, value, Vec::new());
            }
            Want::Changeset(id) => drop(kept.changesets.insert(*id, None)),
            Want::Pieces(user, piece) => {
                let asked = (user.clone(), piece.clone());
                kept.pieces.insert(asked, Vec::new());
            }
            Want::Device(id) => drop(kept.devices.insert(*id, None)),
            Want::GrantCount(grant) => drop(kept.grants.insert(*grant, 0)),
            Want::LostBy(version) => drop(kept.lost_by.insert(*version, Arc::default())),
            Want::Digest(bucket, table) => {
                kept.digests.insert((*bucket, *table), Digest::default());
            }
            Want::Owned(user) => drop(kept.owned.insert(user.clone(), Owned::default())),
        }
        is_new
    });
    wants
}
