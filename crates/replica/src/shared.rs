//! The one connection of a replica, which the app and the engine share.

use std::{cell::Cell, ops::Deref};

use rusqlite::{Connection, config::DbConfig};
use syncline_core::planted;

use crate::{db::Doing, error::ReplicaError, repeat};

/// A connection on which triggers fire and foreign keys are enforced as the app wants it, or,
/// while the engine works, not at all (spec AP5, CA7).
///
/// Switching has SQLite prepare every statement anew. So it stays with the engine until the app
/// gets it: [`Shared::app`].
#[derive(Debug)]
pub(crate) struct Shared {
    conn: Connection,
    /// What the app has set, while the engine has it switched off.
    set_by_app: Cell<Option<Switches>>,
}

#[derive(Debug, Clone, Copy)]
struct Switches {
    triggers: bool,
    foreign_keys: bool,
}

const DOING: &str = "switching triggers";
const TRIGGERS: DbConfig = DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
const FOREIGN_KEYS: DbConfig = DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY;

impl Shared {
    pub(crate) fn new(conn: Connection) -> Self {
        Self {
            conn,
            set_by_app: Cell::new(None),
        }
    }

    /// The connection for writes that are the app's: captured, and with its triggers.
    pub(crate) fn app(&self) -> Result<&Connection, ReplicaError> {
        if let Some(switches) = self.set_by_app.get() {
            self.switch(switches)?;
            self.set_by_app.set(None);
        }
        Ok(&self.conn)
    }

    /// Runs `work` with the app's and our triggers off, their twins firing, and foreign keys not
    /// enforced, on this connection only.
    pub(crate) fn untriggered<T, E: From<ReplicaError>>(
        &self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if !self.conn.is_autocommit() {
            return Err(ReplicaError::InTransaction.into());
        }
        if self.set_by_app.get().is_none() {
            let is_on = |config| self.conn.db_config(config).doing(DOING);
            self.set_by_app.set(Some(Switches {
                triggers: is_on(TRIGGERS)?,
                foreign_keys: is_on(FOREIGN_KEYS)?,
            }));
            self.switch(Switches {
                triggers: planted!(EchoCaptured),
                foreign_keys: planted!(CascadeOnLostGrant),
            })?;
        }
        repeat::awake(&self.conn, work)
    }

    pub(crate) fn into_inner(self) -> Result<Connection, ReplicaError> {
        self.app()?;
        Ok(self.conn)
    }

    fn switch(&self, to: Switches) -> Result<(), ReplicaError> {
        for (config, on) in [(TRIGGERS, to.triggers), (FOREIGN_KEYS, to.foreign_keys)] {
            self.conn.set_db_config(config, on).doing(DOING)?;
        }
        Ok(())
    }
}

/// For the engine: its own tables have no triggers, and reading is the same either way.
impl Deref for Shared {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.conn
    }
}
