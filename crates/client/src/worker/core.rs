//! What the engine's thread owns: the file.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use syncline_replica::{Replica, ReplicaError};

use super::Shared;
use crate::{
    credentials::Connection, database, error::ClientError, event::Event, sync_error::Error,
};

/// One file and its replica, once it is attached.
///
/// Cells are borrowed for a step at a time, never across an `await`.
pub(crate) struct Core {
    pub(crate) path: PathBuf,
    pub(crate) shared: Arc<Shared>,
    replica: RefCell<Option<Rc<RefCell<Replica>>>>,
}

impl Core {
    /// Opens the file, which is made if there is none. One that is not attached stays as it is.
    pub(super) fn open(path: PathBuf, shared: Arc<Shared>) -> Result<Self, Error> {
        if !path.exists() {
            drop(database::create(&path)?);
        }
        let replica = if database::is_attached(&path)? {
            Some(Rc::new(RefCell::new(database::open_replica(&path)?)))
        } else {
            None
        };
        Ok(Self {
            path,
            shared,
            replica: RefCell::new(replica),
        })
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
    }
}
