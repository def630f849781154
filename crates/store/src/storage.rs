//! What a database must offer to be a server's storage.
//!
//! The traits are asynchronous so that PostgreSQL can implement them; SQLite's futures are
//! ready at once, so a simulator and a thread of its own can drive them without a runtime.

#![expect(
    async_fn_in_trait,
    reason = "each storage is driven from one thread of its own"
)]

use std::sync::Arc;

use syncline_core::{
    BucketId, DeviceId, Piece, Row, RowKey, Schema, TableNumber, Tag, UserId, Version,
    config::Config,
    digest::Digest,
    rules::{Grant, GranteeId, RuleColumn},
};

use crate::{
    accounts::AccountRecords,
    history::{HistoryRead, HistoryRecord, HistoryWant},
    log::LogEntry,
    marks::MarksTaken,
    meta::{DeviceState, Owned, RowMeta},
    plan::row_bytes,
    room::Room,
    want::{Loaded, LoadedRow, Want},
};

/// Why the storage did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A constraint of the database refuses a row: the changeset's fault.
    #[error("{message}")]
    Constraint {
        /// Names only what the writer itself sent.
        message: String,
        table: Option<String>,
    },
    /// Somebody else holds a lock: try again.
    #[error("the database is busy")]
    Busy,
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// Anything else: the operator's concern. Nothing was committed.
    #[error("the storage failed: {0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Metadata that cannot be true.
    #[error("the server's metadata is damaged: {0}")]
    Corrupt(String),
}

/// The end of the log and its oldest part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    pub version: Version,
    pub tag: Tag,
    /// Cursors below this cannot be continued.
    pub horizon: Version,
    /// Buckets got new names at this version: cursors below it reload everything.
    pub rules_since: Version,
}

/// A database that holds rows, metadata and log. One writer at a time.
pub trait Storage {
    type Group<'s>: Group
    where
        Self: 's;

    /// The id of this server's data, made once at random.
    fn server_id(&self) -> DeviceId;
    /// A secret of this server's data, made once at random: keys buckets and signs cursors.
    fn secret(&self) -> &[u8; 32];

    /// Brings the tables to what `config` declares, numbers tables and columns for ever, and
    /// installs capture. Tables declared without columns are read from the database. Rows that
    /// a table has when it is declared first are marked, as if another program had inserted them
    /// just now; so is whatever changed while capture was not installed.
    ///
    /// # Errors
    /// [`SchemaError`]; then nothing was changed.
    async fn apply_schema(
        &mut self,
        config: &Config,
        options: &SchemaOptions,
    ) -> Result<SchemaReport, SchemaError>;

    /// Makes what looking rows up by these columns ([`Want::Matching`]) needs to be fast, and
    /// says in a sentence each what was made. To be called after [`Storage::apply_schema`] with
    /// [`syncline_core::rules::Rules::lookups`].
    ///
    /// # Errors
    /// As every write.
    async fn prepare_lookups(
        &mut self,
        lookups: &[(TableNumber, RuleColumn)],
    ) -> Result<Vec<String>, StorageError> {
        let _ = lookups;
        Ok(Vec::new())
    }

    /// Whether another program may have written since the last call; cheap enough to be asked
    /// fifty times a second. `true` when in doubt.
    fn changed_elsewhere(&mut self) -> bool;

    /// Opens the one transaction that a group of changesets is committed in.
    ///
    /// # Errors
    /// [`StorageError::Busy`] and worse.
    async fn begin(&mut self) -> Result<Self::Group<'_>, StorageError>;

    /// Forgets log entries, tombstones and changeset ids up to and including the newest entry
    /// that ends at or before `horizon`. That entry's version becomes [`Head::horizon`] and keeps
    /// its tag; the last entry of the log stays whatever is asked.
    ///
    /// # Errors
    /// As every write.
    async fn trim(&mut self, horizon: Version) -> Result<(), StorageError>;

    /// Whether history is kept from now on (spec PL21); a new database keeps it. What was kept
    /// is forgotten when it is not to be kept any more, so that a history never has a gap.
    /// [`Storage::trim_history`] makes room for the rest.
    ///
    /// # Errors
    /// As every write.
    async fn keep_history(&mut self, keep: bool) -> Result<(), StorageError>;

    /// Forgets the records of history up to and including `horizon`, and all where none is kept.
    /// They are not read any more from then on; a portion of them is deleted, small enough for
    /// others not to wait long, and `true` says that there is more to be deleted.
    ///
    /// # Errors
    /// As every write.
    async fn trim_history(&mut self, horizon: Version) -> Result<bool, StorageError>;
}

/// One open transaction. Dropping it rolls back.
///
/// Wherever a [`Row`] appears it is canonical, aligned with its table, and NULL in generated
/// columns.
pub trait Group {
    fn head(&self) -> Head;
    /// Whether such a write may change anything besides the row image written: triggers,
    /// cascades, conversions. A changeset with such a write is stored alone, to know whose
    /// effect it was.
    fn reacts(&self, table: TableNumber, kind: WriteKind) -> bool;
    /// Adds the answers of all `wants` to `loaded`, replacing what is there. Sees what this
    /// group wrote.
    ///
    /// # Errors
    /// As every read.
    async fn load(&mut self, wants: &[Want], loaded: &mut Loaded) -> Result<(), StorageError>;
    /// Rows whose metadata is that of a live row, in key order after `after`, as long as there
    /// is `room`.
    ///
    /// # Errors
    /// As every read.
    async fn scan(
        &mut self,
        table: TableNumber,
        after: Option<&RowKey>,
        room: Room,
    ) -> Result<Vec<(RowKey, LoadedRow)>, StorageError>;
    /// Writes final row images, one for each row, in the order they were first touched.
    ///
    /// Constraints hold for the result: where the database checks them row by row, two rows
    /// that swap unique values have to get past each other. The marks that our own writes leave
    /// are taken back where the stored row equals the image; what else the database did stays
    /// marked.
    ///
    /// # Errors
    /// [`StorageError::Constraint`] when the database refuses a row.
    async fn write_rows(&mut self, writes: &[RowWrite<'_>]) -> Result<(), StorageError>;
    /// Takes marks as long as there is `room`: rows that something other than
    /// [`Group::write_rows`] changed, each once. What has no room waits, and is not read into
    /// memory either.
    ///
    /// # Errors
    /// As every write.
    async fn take_marks(&mut self, room: Room) -> Result<MarksTaken, StorageError>;
    /// Forgets all grants, digests and the rules fingerprint; the next [`Ledger`]s build them
    /// anew. Until one brings a fingerprint, [`SchemaReport::rules`] is `None`.
    ///
    /// # Errors
    /// As every write.
    async fn clear_rules(&mut self) -> Result<(), StorageError>;
    /// The fingerprint of the tables whose rows [`Ledger::owned`] counts; `None` where they are
    /// not counted, or not all.
    ///
    /// # Errors
    /// As every read.
    async fn counted(&mut self) -> Result<Option<[u8; 32]>, StorageError>;
    /// Forgets what users own, and that it was counted.
    ///
    /// # Errors
    /// As every write.
    async fn clear_owned(&mut self) -> Result<(), StorageError>;
    /// Writes metadata, log, digests, grants and devices. May be called again with more.
    ///
    /// # Errors
    /// As every write.
    async fn write_ledger(&mut self, ledger: &Ledger) -> Result<(), StorageError>;
    /// Accounts and the audit log in this transaction; `None` where there is no place for them.
    fn records(&mut self) -> Option<Box<dyn AccountRecords + '_>>;
    /// Commits durably: after this returns, a power cut loses nothing.
    ///
    /// # Errors
    /// A deferred constraint, or the disk. Then nothing was committed.
    async fn commit(self) -> Result<(), StorageError>;
    /// Undoes everything.
    async fn rollback(self);
}

/// What is done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriteKind {
    Insert,
    Update,
    Delete,
}

/// A final image to store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowWrite<'r> {
    pub table: TableNumber,
    pub key: &'r RowKey,
    /// `None` deletes.
    pub row: Option<&'r Row>,
    /// Whether a live row with this key is there already.
    pub exists: bool,
    /// Update: column positions that differ from what is there. Insert: column positions that
    /// the database's defaults fill; such a row stays marked.
    pub columns: &'r [usize],
}

impl RowWrite<'_> {
    /// What storing this does to the row.
    #[must_use]
    pub fn kind(&self) -> WriteKind {
        match (self.row, self.exists) {
            (None, _) => WriteKind::Delete,
            (Some(_), true) => WriteKind::Update,
            (Some(_), false) => WriteKind::Insert,
        }
    }
}

/// What a group leaves behind besides rows. Absolute values, not differences.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Final metadata, each row once, with the buckets that are in the ledger now (to maintain
    /// members).
    pub metas: Vec<(TableNumber, RowKey, RowMeta, Vec<BucketId>)>,
    pub entries: Vec<Arc<LogEntry>>,
    /// Whose pieces of which changesets entries are, by their versions.
    pub pieces: Vec<(Version, UserId, Piece)>,
    /// What the entries did to rows, in order of version.
    pub history: Vec<HistoryRecord>,
    pub digests: Vec<(BucketId, TableNumber, Digest)>,
    /// Path counts, with the version at which a count last rose from zero.
    pub grants: Vec<(Grant, u64, Option<Version>)>,
    pub devices: Vec<DeviceState>,
    /// What users own now, where it is counted.
    pub owned: Vec<(UserId, Owned)>,
    /// What is to be known of the counts in `owned` from now on.
    pub counted: Counted,
    /// The fingerprint of the rules that buckets and grants are computed with, when it changed:
    /// [`Head::rules_since`] becomes the log's end.
    pub rules: Option<[u8; 32]>,
}

/// What becomes of [`Group::counted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counted {
    /// It stays what it was.
    #[default]
    Same,
    /// Every row of tables with this fingerprint is counted.
    All([u8; 32]),
    /// Nobody knows any more whether all are: to be counted anew at the next start.
    Doubtful,
}

/// How far [`Storage::apply_schema`] may go.
#[derive(Debug, Clone, Default)]
pub struct SchemaOptions {
    /// Create and alter tables; otherwise only read them.
    pub managed: bool,
    /// Destructive changes allowed by name: `drop:tasks.note`.
    pub allow: Vec<String>,
}

/// What [`Storage::apply_schema`] found and did.
#[derive(Debug, Clone, Default)]
pub struct SchemaReport {
    /// With the numbers that are valid for ever, built-in tables included.
    pub schema: Schema,
    /// What was changed, a sentence each.
    pub notes: Vec<String>,
    /// The rules fingerprint of the last run; `None` on the first.
    pub rules: Option<[u8; 32]>,
}

/// Why a schema cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Needs a decision of the operator.
    #[error("{what} would lose data; allow it with --allow {allow}")]
    Destructive { what: String, allow: String },
    #[error("{0}")]
    Unsupported(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Where a (bucket, table) is to be read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageWant {
    pub bucket: BucketId,
    pub table: TableNumber,
    /// Exclusive.
    pub after: Option<RowKey>,
}

/// Rows that were asked for by their keys.
#[derive(Debug, Clone, Default)]
pub struct RowsRead {
    pub rows: Vec<(RowKey, Row, RowMeta)>,
    /// How many of the keys were looked at: fewer than all once the rows hold enough.
    pub looked_at: usize,
    bytes: u64,
}

impl RowsRead {
    /// Adds what the next key names, if it is there; whether that is enough.
    pub fn add(&mut self, key: &RowKey, found: Option<(Row, RowMeta)>, bytes_max: usize) -> bool {
        self.looked_at += 1;
        if let Some((row, meta)) = found {
            self.bytes += row_bytes(key, &row);
            self.rows.push((key.clone(), row, meta));
        }
        usize::try_from(self.bytes).is_ok_and(|bytes| bytes >= bytes_max)
    }
}

/// Rows of (bucket, table)s, all read in one snapshot.
#[derive(Debug, Clone, Default)]
pub struct PageRead {
    /// The log's end in that snapshot.
    pub version: Version,
    pub parts: Vec<PagePartRead>,
}

/// The rows of one [`PageWant`], in key order.
#[derive(Debug, Clone)]
pub struct PagePartRead {
    pub bucket: BucketId,
    pub table: TableNumber,
    pub after: Option<RowKey>,
    /// `None` when the part reaches the end.
    pub to: Option<RowKey>,
    /// Encoded whole [`syncline_core::wire::RowBody`]s, one after the other.
    pub rows: Vec<u8>,
    pub count: u32,
    /// At `version`, when the part reaches the end.
    pub digest: Option<Digest>,
}

/// A key, its version and the hash of its content, for `verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowHash {
    pub key: RowKey,
    pub version: Version,
    pub hash: u64,
}

/// Hashes of rows in key order, as far as they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HashesRead {
    pub rows: Vec<RowHash>,
    /// Where to go on, which is not always after the last of `rows`; `None` at the end. There may
    /// be nothing after it all the same.
    pub next: Option<RowKey>,
}

/// Reads beside the writer; each call is one snapshot.
pub trait Reader {
    /// The end of the log.
    ///
    /// # Errors
    /// As every read.
    async fn head(&mut self) -> Result<Head, StorageError>;
    /// Entries after `after`, oldest first: at least one if there is one, else as many as fit
    /// into `bytes_max` encoded bytes.
    ///
    /// # Errors
    /// As every read.
    async fn log_after(
        &mut self,
        after: Version,
        bytes_max: usize,
    ) -> Result<Vec<Arc<LogEntry>>, StorageError>;
    /// The tag of the entry that ends at exactly `version`; version zero has the zero tag.
    ///
    /// # Errors
    /// As every read.
    async fn tag_at(&mut self, version: Version) -> Result<Option<Tag>, StorageError>;
    /// Pages for `wants` in order, until `bytes_max` is reached (one row at least).
    ///
    /// # Errors
    /// As every read.
    async fn pages(
        &mut self,
        wants: &[PageWant],
        bytes_max: usize,
    ) -> Result<PageRead, StorageError>;
    /// How many rows `wants` have to come, to tell how far loading is.
    ///
    /// # Errors
    /// As every read.
    async fn rows_to_come(&mut self, wants: &[PageWant]) -> Result<u64, StorageError>;
    /// Every bucket granted to any of `grantees`, with the version since when, and the head of
    /// the same snapshot.
    ///
    /// # Errors
    /// As every read.
    async fn grants(
        &mut self,
        grantees: &[GranteeId],
    ) -> Result<(Head, Vec<(Grant, Version)>), StorageError>;
    /// Hashes of `table`'s live rows that lie in any of `buckets`, in key order after `after`,
    /// at most `max`, and none from the first row on that another program wrote and no group has
    /// settled.
    ///
    /// # Errors
    /// As every read; [`StorageError::Busy`] when the very first row is not settled.
    async fn hashes(
        &mut self,
        table: TableNumber,
        buckets: &[BucketId],
        after: Option<&RowKey>,
        max: usize,
    ) -> Result<HashesRead, StorageError>;
    /// One device, whoever's, deregistered or not.
    ///
    /// # Errors
    /// As every read.
    async fn device(&mut self, id: DeviceId) -> Result<Option<DeviceState>, StorageError>;
    /// Devices of `user` that are not deregistered, those that were seen last first, by id where
    /// that is the same; at most `max`.
    ///
    /// # Errors
    /// As every read.
    async fn devices(
        &mut self,
        user: &UserId,
        max: usize,
    ) -> Result<Vec<DeviceState>, StorageError>;
    /// Live rows themselves, for JSON over HTTP: of `keys` in their order, until the rows hold
    /// `bytes_max`, at least the first.
    ///
    /// # Errors
    /// As every read.
    async fn rows(
        &mut self,
        table: TableNumber,
        keys: &[RowKey],
        bytes_max: usize,
    ) -> Result<RowsRead, StorageError>;
    /// A part of a row's history, and the row as it is; nothing of a row that never was.
    ///
    /// # Errors
    /// As every read.
    async fn history(&mut self, want: &HistoryWant) -> Result<HistoryRead, StorageError>;
    /// Answers `wants` as [`Group::load`] does, all of one snapshot.
    ///
    /// # Errors
    /// As every read.
    async fn look(&mut self, wants: &[Want], loaded: &mut Loaded) -> Result<(), StorageError>;
    /// Keys of `table`'s live rows, in key order after `after`, at most `max`.
    ///
    /// # Errors
    /// As every read.
    async fn keys(
        &mut self,
        table: TableNumber,
        after: Option<&RowKey>,
        max: usize,
    ) -> Result<Vec<RowKey>, StorageError>;
}
