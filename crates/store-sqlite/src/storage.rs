//! The one writer of a data file.

use std::{
    fs::{DirBuilder, OpenOptions},
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use rusqlite::Connection;
use syncline_core::{DeviceId, TableNumber, Version, config::Config, rules::RuleColumn};
use syncline_store::{SchemaError, SchemaOptions, SchemaReport, Storage, StorageError};

use crate::{
    accounts::SqliteAccounts,
    backup::RESTORING,
    catalog::Catalog,
    fault::{Fault, Result},
    format::{self, Identity},
    group::SqliteGroup,
    history, ledger,
    lock::{DataLock, private, side_file},
    lookups, marks,
    open::OpenError,
    place::Place,
    reader::SqliteReader,
    schema,
    triggers::Triggers,
    trim,
};

/// SQLite before 3.51.3 can corrupt a database in WAL mode.
const SQLITE_MIN: i32 = 3_051_003;

/// The tables as last applied; readers look at the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedCatalog(Arc<RwLock<Arc<Catalog>>>);

impl SharedCatalog {
    pub(crate) fn of(catalog: Catalog) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(catalog))))
    }

    pub(crate) fn get(&self) -> Arc<Catalog> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
    fn set(&self, catalog: Catalog) -> Arc<Catalog> {
        let catalog = Arc::new(catalog);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = catalog.clone();
        catalog
    }
}

/// A server's data in one SQLite file: the writer's side.
///
/// Call everything from one thread of its own: SQLite's calls block. Other programs may write
/// the apps' tables at the same time, with whatever SQLite they have.
#[derive(Debug)]
pub struct SqliteStorage {
    conn: Connection,
    place: Place,
    identity: Identity,
    catalog: SharedCatalog,
    /// A write or sync failed: what is on the disk is to be found out first.
    distrusted: bool,
    triggers: Triggers,
    _lock: Option<DataLock>,
}

impl SqliteStorage {
    /// Opens or creates the data file at `path`, and its folder.
    ///
    /// `entropy`: random bytes, of which a new file's server id and secret are made. A folder
    /// that is created is for its owner alone, like all files.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: impl AsRef<Path>, entropy: &[u8; 32]) -> Result<Self, OpenError> {
        check_sqlite()?;
        let path = path.as_ref();
        let io = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        // A new, empty server in place of the one that is being restored would be worse than none.
        if !path.exists() && side_file(path, RESTORING).exists() {
            let path = path.to_owned();
            return Err(OpenError::Restoring { path });
        }
        create_file(path).map_err(io)?;
        // Two ways to the same file are one lock.
        let path = path.canonicalize().map_err(io)?;
        let lock = DataLock::take(&path)?;
        Self::prepare(Place::File(path), Some(lock), entropy)
    }

    /// Opens or creates a database in this process's memory, which lives as long as a storage or
    /// reader of the same name does.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_in_memory(name: &str, entropy: &[u8; 32]) -> Result<Self, OpenError> {
        check_sqlite()?;
        Self::prepare(Place::Memory(name.to_owned()), None, entropy)
    }

    fn prepare(
        place: Place,
        lock: Option<DataLock>,
        entropy: &[u8; 32],
    ) -> Result<Self, OpenError> {
        let path = place.path().unwrap_or(Path::new("memory"));
        let mut conn = place
            .writer()
            .map_err(|error| format::describe(path, error))?;
        let identity = format::prepare(&mut conn, &place, entropy)?;
        Ok(Self {
            conn,
            place,
            identity,
            catalog: SharedCatalog::default(),
            distrusted: false,
            triggers: Triggers::new(),
            _lock: lock,
        })
    }

    /// A reader with a connection of its own, for another thread.
    ///
    /// # Errors
    /// As every read.
    pub fn reader(&self) -> Result<SqliteReader, StorageError> {
        Ok(SqliteReader::new(self.place.clone(), self.catalog.clone())?)
    }

    /// The accounts in this file, over a connection of their own.
    ///
    /// # Errors
    /// As every read.
    pub fn accounts(&self) -> Result<SqliteAccounts, StorageError> {
        Ok(SqliteAccounts::new(self.place.clone())?)
    }

    /// The writer's connection: for simulations that make its disk fail. Never write with it.
    #[doc(hidden)]
    #[must_use]
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.conn
    }

    pub(crate) fn conn(&self) -> &Connection {
        &self.conn
    }

    pub(crate) fn note(&mut self, fault: &Fault) {
        self.distrusted |= fault.distrusts_connection();
    }

    pub(crate) fn distrust(&mut self) {
        self.distrusted = true;
    }

    /// Whether triggers fire for what the group writes.
    pub(crate) fn triggers_fire(&self) -> bool {
        self.triggers.are_on()
    }

    /// Has them fire from now on.
    pub(crate) fn fire_triggers(&mut self) -> Result<()> {
        Ok(self.triggers.fire(&self.conn)?)
    }

    pub(crate) fn roll_back(&mut self) {
        // SQLite has rolled back by itself after some errors.
        if !self.conn.is_autocommit() && self.conn.execute_batch("ROLLBACK").is_err() {
            self.distrusted = true;
        }
    }

    fn begin_group(&mut self) -> Result<SqliteGroup<'_>> {
        if self.distrusted {
            self.reopen()?;
        }
        self.triggers.rest(&self.conn)?;
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        match self.look_around() {
            Ok((catalog, head)) => Ok(SqliteGroup::new(self, catalog, head)),
            Err(fault) => {
                self.note(&fault);
                self.roll_back();
                Err(fault)
            }
        }
    }

    /// In the open transaction: has another program changed the schema, and where are we?
    fn look_around(&self) -> Result<(Arc<Catalog>, syncline_store::Head)> {
        let mut catalog = self.catalog.get();
        if schema::version(&self.conn)? != catalog.schema_version {
            catalog = self.reload()?;
        }
        Ok((catalog, ledger::head(&self.conn)?))
    }

    /// Reads the synced tables again.
    fn reload(&self) -> Result<Arc<Catalog>> {
        let catalog = schema::reload(&self.conn, &self.catalog.get())?;
        Ok(self.catalog.set(catalog))
    }

    /// Opens the file anew after an error of the disk. What a failed sync left in the operating
    /// system's memory may never reach the disk, so the log in the WAL is written to the
    /// database itself, with a sync that is not a repetition, before anything builds on it.
    fn reopen(&mut self) -> Result<()> {
        let conn = self.place.writer()?;
        let identity = format::identity(&conn)?;
        let is_ours = identity.is_some_and(|found| found.server == self.identity.server);
        if !is_ours {
            return Err(Fault::corrupt("the data file is another one than before"));
        }
        let busy: bool = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy {
            return Err(Fault::Storage(StorageError::Busy));
        }
        ledger::head(&conn)?;
        self.conn = conn;
        self.triggers = Triggers::new();
        self.distrusted = false;
        Ok(())
    }
}

impl Storage for SqliteStorage {
    type Group<'s> = SqliteGroup<'s>;

    fn server_id(&self) -> DeviceId {
        self.identity.server
    }

    fn secret(&self) -> &[u8; 32] {
        &self.identity.secret
    }

    async fn apply_schema(
        &mut self,
        config: &Config,
        options: &SchemaOptions,
    ) -> Result<SchemaReport, SchemaError> {
        if self.distrusted {
            self.reopen().map_err(StorageError::from)?;
        }
        let firing = self.triggers.fire_once(&self.conn);
        firing.map_err(|error| StorageError::from(Fault::from(error)))?;
        let (catalog, report) = schema::apply(&mut self.conn, config, options)?;
        self.catalog.set(catalog);
        Ok(report)
    }

    async fn prepare_lookups(
        &mut self,
        lookups: &[(TableNumber, RuleColumn)],
    ) -> Result<Vec<String>, StorageError> {
        if self.distrusted {
            self.reopen()?;
        }
        let catalog = self.catalog.get();
        let notes = lookups::prepare(&mut self.conn, &catalog, lookups);
        let notes = notes.inspect_err(|fault| self.distrusted |= fault.distrusts_connection())?;
        if schema::version(&self.conn)? != catalog.schema_version {
            self.reload()?;
        }
        Ok(notes)
    }

    fn changed_elsewhere(&mut self) -> bool {
        self.distrusted || marks::any_pending(&self.conn).unwrap_or(true)
    }

    async fn begin(&mut self) -> Result<SqliteGroup<'_>, StorageError> {
        Ok(self.begin_group()?)
    }

    async fn trim(&mut self, horizon: Version) -> Result<(), StorageError> {
        if self.distrusted {
            self.reopen()?;
        }
        let result = trim::trim(&mut self.conn, horizon);
        Ok(result.inspect_err(|fault| self.distrusted |= fault.distrusts_connection())?)
    }

    async fn keep_history(&mut self, keep: bool) -> Result<(), StorageError> {
        if self.distrusted {
            self.reopen()?;
        }
        let result = history::keep(&mut self.conn, keep);
        Ok(result.inspect_err(|fault| self.distrusted |= fault.distrusts_connection())?)
    }

    async fn trim_history(&mut self, horizon: Version) -> Result<bool, StorageError> {
        if self.distrusted {
            self.reopen()?;
        }
        let result = history::trim(&mut self.conn, horizon);
        Ok(result.inspect_err(|fault| self.distrusted |= fault.distrusts_connection())?)
    }
}

fn check_sqlite() -> Result<(), OpenError> {
    if rusqlite::version_number() < SQLITE_MIN {
        return Err(OpenError::Sqlite {
            found: rusqlite::version(),
        });
    }
    Ok(())
}

/// SQLite gives its side files the permissions of the database.
fn create_file(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt as _;
            builder.mode(0o700);
        }
        builder.create(folder)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    private(&mut options);
    options.open(path).map(drop)
}
