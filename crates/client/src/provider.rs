//! What an app syncs with, behind a trait: so that its screens need not know which it is.

use std::{fmt, sync::Arc};

use syncline_core::DeviceId;

use crate::{
    devices::{Device, LocalDevice},
    manager::SyncManager,
    resolver::BoxFuture,
    sync_error::Error,
};

/// Where rows are synced with, and the devices that it knows of this user.
///
/// [`SyncManager::provider`] gives the one that is configured. An app may have others of its own,
/// for tests or for what it synced with before.
pub trait Provider: fmt::Debug + Send + Sync {
    /// A short name for people and for logs.
    fn name(&self) -> &str;

    /// Whether a session is open now.
    fn is_connected(&self) -> bool;

    /// Asks whether it can be reached and takes us; the error says why not.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotConnected`], [`crate::ErrorKind::Authentication`],
    /// [`crate::ErrorKind::Deregistered`] and others.
    fn validate_connection(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// As [`SyncManager::register_device`].
    ///
    /// # Errors
    /// The same.
    fn register_device(&self, name: &str) -> BoxFuture<'_, Result<LocalDevice, Error>>;

    /// As [`SyncManager::devices`].
    ///
    /// # Errors
    /// The same.
    fn registered_devices(&self) -> BoxFuture<'_, Result<Vec<Device>, Error>>;

    /// As [`SyncManager::rename_device`].
    ///
    /// # Errors
    /// The same.
    fn rename_device(&self, device: DeviceId, name: &str) -> BoxFuture<'_, Result<(), Error>>;

    /// As [`SyncManager::deregister_device`].
    ///
    /// # Errors
    /// The same.
    fn deregister_device(&self, device: DeviceId) -> BoxFuture<'_, Result<(), Error>>;
}

/// A Syncline server.
#[derive(Debug)]
struct Server(SyncManager);

impl Provider for Server {
    fn name(&self) -> &str {
        "syncline"
    }

    fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    fn validate_connection(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.validate_connection())
    }

    fn register_device(&self, name: &str) -> BoxFuture<'_, Result<LocalDevice, Error>> {
        Box::pin(self.0.register_device(name.to_owned()))
    }

    fn registered_devices(&self) -> BoxFuture<'_, Result<Vec<Device>, Error>> {
        Box::pin(self.0.devices())
    }

    fn rename_device(&self, device: DeviceId, name: &str) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.rename_device(device, name.to_owned()))
    }

    fn deregister_device(&self, device: DeviceId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.deregister_device(device))
    }
}

impl SyncManager {
    /// What this manager syncs with; `None` while no server is configured. It follows the
    /// configuration: after another server was set, it is that one.
    #[must_use]
    pub fn provider(&self) -> Option<Arc<dyn Provider>> {
        let server = || Arc::new(Server(self.clone())) as Arc<dyn Provider>;
        self.is_sync_available().then(server)
    }
}
