//! A storage in memory, for tests of the pipeline and for learning what a storage has to do.
//!
//! It keeps the contract of [`Storage`] with maps: a group works on a copy and replaces the
//! original when it commits. NOT NULL, UNIQUE and foreign keys hold as declared; cascades, literal
//! defaults and [`MemoryStorage::on_write`] change rows by themselves and leave marks.

mod data;
mod external;
mod group;
mod reader;
mod schema;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use syncline_core::{DeviceId, Row, TableNumber, Version, config::Config};

use crate::storage::{SchemaError, SchemaOptions, SchemaReport, Storage, StorageError, WriteKind};
use crate::testkit::External;
#[cfg(test)]
use crate::want::Want;

use data::Data;
pub use group::MemoryGroup;
pub use reader::MemoryReader;

/// A database in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryStorage {
    data: Arc<Mutex<Data>>,
    triggers: Vec<Trigger>,
    /// The next so many calls of commit fail.
    failures: Arc<Mutex<Vec<StorageError>>>,
    /// Everything that groups loaded.
    #[cfg(test)]
    pub(crate) asked: Arc<Mutex<Vec<Want>>>,
}

/// Something that changes every written row.
#[derive(Clone)]
struct Trigger {
    table: TableNumber,
    kind: WriteKind,
    /// The row that is stored instead.
    change: Arc<dyn Fn(&Row) -> Row + Send + Sync>,
}

impl fmt::Debug for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trigger")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStorage {
    /// An empty database.
    #[must_use]
    pub fn new() -> Self {
        Self {
            data: Arc::new(Mutex::new(Data {
                history_since: Some(Version::ZERO),
                ..Data::default()
            })),
            triggers: Vec::new(),
            failures: Arc::default(),
            #[cfg(test)]
            asked: Arc::default(),
        }
    }

    /// A reader of the same database.
    #[must_use]
    pub fn reader(&self) -> MemoryReader {
        MemoryReader::new(Arc::clone(&self.data))
    }

    /// From now on each row that is written like this is stored as `change` makes it: a trigger
    /// of the app.
    pub fn on_write(
        &mut self,
        table: TableNumber,
        kind: WriteKind,
        change: impl Fn(&Row) -> Row + Send + Sync + 'static,
    ) {
        self.triggers.push(Trigger {
            table,
            kind,
            change: Arc::new(change),
        });
    }

    /// Does what another program's transaction does.
    ///
    /// # Errors
    /// [`StorageError::Constraint`]; then nothing was changed.
    pub fn external(&self, statements: &[External<'_>]) -> Result<(), StorageError> {
        let mut data = lock(&self.data);
        let mut working = data.clone();
        for statement in statements {
            external::execute(&mut working, statement)?;
        }
        working.check()?;
        working.changed_elsewhere = true;
        *data = working;
        Ok(())
    }

    /// The next commit fails like this.
    pub fn fail_commit(&self, error: StorageError) {
        lock(&self.failures).push(error);
    }
}

impl Storage for MemoryStorage {
    type Group<'s> = MemoryGroup<'s>;

    fn server_id(&self) -> DeviceId {
        DeviceId([0xA5; 16])
    }

    fn secret(&self) -> &[u8; 32] {
        &[0x5A; 32]
    }

    async fn apply_schema(
        &mut self,
        config: &Config,
        options: &SchemaOptions,
    ) -> Result<SchemaReport, SchemaError> {
        let mut data = lock(&self.data);
        let mut working = data.clone();
        let report = schema::apply(&mut working, config, options)?;
        *data = working;
        Ok(report)
    }

    fn changed_elsewhere(&mut self) -> bool {
        let mut data = lock(&self.data);
        std::mem::take(&mut data.changed_elsewhere) || !data.marks.is_empty()
    }

    async fn begin(&mut self) -> Result<MemoryGroup<'_>, StorageError> {
        let working = lock(&self.data).clone();
        Ok(MemoryGroup::new(self, working))
    }

    async fn trim(&mut self, horizon: Version) -> Result<(), StorageError> {
        lock(&self.data).trim(horizon);
        Ok(())
    }

    async fn keep_history(&mut self, keep: bool) -> Result<(), StorageError> {
        lock(&self.data).keep_history(keep);
        Ok(())
    }

    async fn trim_history(&mut self, horizon: Version) -> Result<bool, StorageError> {
        lock(&self.data).trim_history(horizon);
        Ok(false)
    }
}

/// A panic elsewhere leaves whole states only: they are replaced, never changed in place.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
