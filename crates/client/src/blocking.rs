//! The same without async: every call waits on the thread that makes it.
//!
//! ```no_run
//! use syncline::{Config, Tables, blocking::SyncManager};
//!
//! let sync = SyncManager::open("notes.db", Config::from_env()?)?;
//! let done = sync.sync(Tables::All, |p| println!("{} %", p.percentage))?;
//! println!("{} records", done.records_processed);
//! # Ok::<(), syncline::Error>(())
//! ```
//!
//! Not to be used on a thread of an async runtime, which it would hold up.

use std::{future::IntoFuture, path::Path, sync::Arc};

use crate::{
    Config, Conflict, Device, DeviceId, Error, Event, LocalDevice, Progress, Provider, Resolution,
    RowHistory, RowRestored, SealedAnew, Status, SyncReport, Tables, Value, Version,
    executor::block_on,
};

/// Waits for a call that needs no manager, as those of [`crate::Accounts`] are.
pub fn wait<F: IntoFuture>(call: F) -> F::Output {
    block_on(call.into_future())
}

/// A [`crate::SyncManager`] for code without async.
#[derive(Debug, Clone)]
pub struct SyncManager(crate::SyncManager);

/// The events of a [`SyncManager`]; [`Iterator::next`] waits for one.
#[derive(Debug)]
pub struct Events(crate::Events);

impl SyncManager {
    /// As [`crate::SyncManager::open`].
    ///
    /// # Errors
    /// The same.
    pub fn open(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        block_on(crate::SyncManager::open(path, config)).map(Self)
    }

    /// The manager itself, for everything that does not wait: configuration, auto-sync.
    #[must_use]
    pub fn handle(&self) -> &crate::SyncManager {
        &self.0
    }

    /// Waits for any call of [`SyncManager::handle`]: `sync.wait(sync.handle().stats())`.
    pub fn wait<F: IntoFuture>(&self, call: F) -> F::Output {
        block_on(call.into_future())
    }

    /// As [`crate::SyncManager::close`].
    pub fn close(&self) {
        block_on(self.0.close());
    }

    /// Events from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events(self.0.events())
    }

    /// As [`crate::SyncManager::seed`].
    ///
    /// # Errors
    /// The same.
    pub fn seed(
        &self,
        tables: Tables,
        on_progress: impl FnMut(Progress) + Send,
    ) -> Result<SyncReport, Error> {
        self.wait(self.0.seed(tables, on_progress))
    }

    /// As [`crate::SyncManager::hydrate`].
    ///
    /// # Errors
    /// The same.
    pub fn hydrate(
        &self,
        tables: Tables,
        on_progress: impl FnMut(Progress) + Send,
    ) -> Result<SyncReport, Error> {
        self.wait(self.0.hydrate(tables, on_progress))
    }

    /// As [`crate::SyncManager::sync`].
    ///
    /// # Errors
    /// The same.
    pub fn sync(
        &self,
        tables: Tables,
        on_progress: impl FnMut(Progress) + Send,
    ) -> Result<SyncReport, Error> {
        self.wait(self.0.sync(tables, on_progress))
    }

    /// As [`crate::SyncManager::status`].
    ///
    /// # Errors
    /// The same.
    pub fn status(&self) -> Result<Option<Status>, Error> {
        self.wait(self.0.status())
    }

    /// As [`crate::SyncManager::local_device`].
    ///
    /// # Errors
    /// The same.
    pub fn local_device(&self) -> Result<LocalDevice, Error> {
        self.wait(self.0.local_device())
    }

    /// As [`crate::SyncManager::devices`].
    ///
    /// # Errors
    /// The same.
    pub fn devices(&self) -> Result<Vec<Device>, Error> {
        self.wait(self.0.devices())
    }

    /// As [`crate::SyncManager::register_device`].
    ///
    /// # Errors
    /// The same.
    pub fn register_device(&self, name: impl Into<String>) -> Result<LocalDevice, Error> {
        self.wait(self.0.register_device(name))
    }

    /// As [`crate::SyncManager::rename_device`].
    ///
    /// # Errors
    /// The same.
    pub fn rename_device(&self, device: DeviceId, name: impl Into<String>) -> Result<(), Error> {
        self.wait(self.0.rename_device(device, name))
    }

    /// As [`crate::SyncManager::deregister_device`].
    ///
    /// # Errors
    /// The same.
    pub fn deregister_device(&self, device: DeviceId) -> Result<(), Error> {
        self.wait(self.0.deregister_device(device))
    }

    /// As [`crate::SyncManager::provider`]; wait for its calls with [`SyncManager::wait`].
    #[must_use]
    pub fn provider(&self) -> Option<Arc<dyn Provider>> {
        self.0.provider()
    }

    /// As [`crate::SyncManager::conflicts`].
    ///
    /// # Errors
    /// The same.
    pub fn conflicts(&self, open_only: bool) -> Result<Vec<Conflict>, Error> {
        self.wait(self.0.conflicts(open_only))
    }

    /// As [`crate::SyncManager::history`]: the newest changes. For more or older ones:
    /// `sync.wait(sync.handle().history(table, key).before(version))`.
    ///
    /// # Errors
    /// The same.
    pub fn history(&self, table: &str, key: Vec<Value>) -> Result<RowHistory, Error> {
        self.wait(self.0.history(table, key))
    }

    /// As [`crate::SyncManager::restore_row`].
    ///
    /// # Errors
    /// The same.
    pub fn restore_row(
        &self,
        table: &str,
        key: Vec<Value>,
        version: Version,
    ) -> Result<RowRestored, Error> {
        self.wait(self.0.restore_row(table, key, version))
    }

    /// As [`crate::SyncManager::seal_anew`].
    ///
    /// # Errors
    /// The same.
    pub fn seal_anew(
        &self,
        progress: impl Fn(&SealedAnew) + Send + 'static,
    ) -> Result<SealedAnew, Error> {
        self.wait(self.0.seal_anew(progress))
    }

    /// As [`crate::SyncManager::resolve`].
    ///
    /// # Errors
    /// The same.
    pub fn resolve(&self, id: impl Into<String>, resolution: Resolution) -> Result<(), Error> {
        self.wait(self.0.resolve(id, resolution))
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        block_on(self.0.next())
    }
}
