//! What the engine's thread owns: the file.

use std::{
    cell::{Cell, RefCell, RefMut},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use syncline_core::Timestamp;
use syncline_replica::{Keyring, Replica, ReplicaError};
use tokio::sync::Notify;

use super::Shared;
use crate::{
    credentials::Connection,
    database,
    error::ClientError,
    event::Event,
    queue::Handlers,
    resolver::Resolvers,
    run::{Operation, SyncReport},
    store::Store,
    sync_error::Error,
    system,
};

/// One file and its replica, once it is attached.
///
/// Cells are borrowed for a step at a time, never across an `await`.
pub(crate) struct Core {
    pub(crate) path: PathBuf,
    pub(crate) shared: Arc<Shared>,
    replica: RefCell<Option<Rc<RefCell<Replica>>>>,
    store: RefCell<Option<Store>>,
    /// Who does the app's own operations.
    pub(crate) handlers: RefCell<Handlers>,
    /// Who decides conflicts.
    pub(crate) resolvers: RefCell<Resolvers>,
    /// A resolver has come to an end.
    pub(crate) decided: Notify,
    /// There may be an operation to be done.
    pub(crate) operations_changed: Notify,
    /// When a run last reached its end.
    pub(crate) last_sync: Cell<Option<Timestamp>>,
}

impl Core {
    /// Opens the file, which is made if there is none. One that is not attached stays as it is.
    pub(super) fn open(path: PathBuf, shared: Arc<Shared>) -> Result<Self, Error> {
        if !path.exists() {
            drop(database::create(&path)?);
        }
        let replica = database::open_attached(&path, shared.config().keyring())?;
        let replica = replica.map(|replica| Rc::new(RefCell::new(replica)));
        Ok(Self {
            path,
            shared,
            replica: RefCell::new(replica),
            store: RefCell::default(),
            handlers: RefCell::default(),
            resolvers: RefCell::default(),
            decided: Notify::new(),
            operations_changed: Notify::new(),
            last_sync: Cell::default(),
        })
    }

    /// The keys of encrypted columns.
    pub(crate) fn keys(&self) -> Keyring {
        self.shared.config().keyring()
    }

    /// The replica; `None` before a server was met first.
    pub(crate) fn replica(&self) -> Option<Rc<RefCell<Replica>>> {
        self.replica.borrow().clone()
    }

    /// Takes a file that was just attached.
    pub(crate) fn attached(&self, replica: Replica) -> Rc<RefCell<Replica>> {
        let replica = Rc::new(RefCell::new(replica));
        *self.replica.borrow_mut() = Some(Rc::clone(&replica));
        replica
    }

    /// Asks the replica; `None` if the file is not attached.
    pub(crate) fn with<T>(
        &self,
        ask: impl FnOnce(&mut Replica) -> Result<T, ReplicaError>,
    ) -> Result<Option<T>, Error> {
        let Some(replica) = self.replica() else {
            return Ok(None);
        };
        let answer = ask(&mut replica.borrow_mut());
        answer.map(Some).map_err(|error| self.failed(error))
    }

    /// The library's own tables went with everything else that was synced.
    pub(super) fn wiped(&self) {
        self.store.borrow_mut().take();
    }

    /// The library's own tables, which are made if there are none.
    pub(crate) fn store(&self) -> Result<RefMut<'_, Store>, Error> {
        let found = self.look_for_store(true)?;
        found.ok_or_else(Error::closed)
    }

    /// The library's own tables; `None` if there are none.
    pub(crate) fn store_if_any(&self) -> Result<Option<RefMut<'_, Store>>, Error> {
        self.look_for_store(false)
    }

    fn look_for_store(&self, create: bool) -> Result<Option<RefMut<'_, Store>>, Error> {
        let mut store = self.store.borrow_mut();
        if store.is_none() {
            *store = Store::open(&self.path, create)?;
        }
        Ok(RefMut::filter_map(store, Option::as_mut).ok())
    }

    /// Remembers a run that has ended; that it cannot is no reason to fail.
    pub(crate) fn record(&self, report: &SyncReport, error: Option<&Error>) {
        if error.is_none() {
            self.last_sync.set(Some(system::now()));
        }
        let is_idle = report.records_processed == 0 && report.errors.is_empty();
        if self.replica().is_none() || (report.operation == Operation::Auto && is_idle) {
            return;
        }
        let error = error.map(ToString::to_string);
        let recorded = self
            .store()
            .and_then(|store| store.record(report, error.as_deref()));
        if let Err(error) = recorded {
            tracing::warn!(%error, "the history of syncs cannot be written");
        }
    }

    pub(crate) fn failed(&self, error: ReplicaError) -> Error {
        ClientError::replica(&self.path, error).into()
    }

    /// The server that is configured.
    pub(crate) fn connection(&self) -> Result<Connection, Error> {
        let config = self.shared.config();
        let connection = config.connection();
        connection.ok_or_else(|| Error::from(ClientError::NoServer))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn tell(&self, event: &Event) {
        self.shared.bus.publish(event);
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        self.replica.borrow_mut().take();
        self.store.borrow_mut().take();
    }
}
