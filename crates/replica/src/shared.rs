//! The one connection of a replica, which the app and the engine share, each with its settings.

use std::{cell::Cell, ops::Deref};

use rusqlite::{Connection, config::DbConfig, types::FromSql};
use syncline_core::planted;

use crate::{
    db::{self, Doing},
    error::ReplicaError,
    repeat,
    replica::Replica,
};

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
    /// How far the app's commits wait for the disk, once it is known that ours need not. A file
    /// with a write-ahead log keeps it while a connection is open.
    level: Cell<Option<i64>>,
    defers_sync: Cell<bool>,
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
            level: Cell::new(None),
            defers_sync: Cell::new(false),
        }
    }

    /// Runs `work` without waiting for the disk at each commit, where a power cut could take no
    /// more than the newest commits by that: with a write-ahead log (spec OB14).
    pub(crate) fn deferring_sync<T>(
        replica: &mut Replica,
        work: impl FnOnce(&mut Replica) -> Result<T, ReplicaError>,
    ) -> Result<T, ReplicaError> {
        if replica.conn.defers_sync() {
            return work(replica);
        }
        replica.conn.defer_sync()?;
        let done = work(replica);
        replica.conn.resume_sync()?;
        done
    }

    /// Whether commits are on the disk only once a later one waits for it.
    pub(crate) fn defers_sync(&self) -> bool {
        self.defers_sync.get()
    }

    /// Has everything that was committed so far on the disk: `write` is, and so is all before it.
    pub(crate) fn synced(
        &self,
        write: impl FnOnce(&Connection) -> Result<(), ReplicaError>,
    ) -> Result<(), ReplicaError> {
        let defers = self.defers_sync();
        self.resume_sync()?;
        let done = db::immediate(&self.conn, || write(&self.conn));
        if defers {
            self.defer_sync()?;
        }
        done
    }

    fn defer_sync(&self) -> Result<(), ReplicaError> {
        const NORMAL: i64 = 1;
        if self.level.get().is_none() {
            let mode: String = self.pragma("PRAGMA journal_mode")?;
            let level: i64 = self.pragma("PRAGMA synchronous")?;
            self.level
                .set((mode.eq_ignore_ascii_case("wal") && level > NORMAL).then_some(level));
        }
        if self.level.get().is_some() && self.conn.is_autocommit() {
            self.set_synchronous(NORMAL)?;
            self.defers_sync.set(true);
        }
        Ok(())
    }

    fn resume_sync(&self) -> Result<(), ReplicaError> {
        if let Some(level) = self.level.get().filter(|_| self.defers_sync()) {
            self.set_synchronous(level)?;
            self.defers_sync.set(false);
        }
        Ok(())
    }

    fn pragma<T: FromSql>(&self, text: &str) -> Result<T, ReplicaError> {
        self.conn
            .query_row(text, [], |row| row.get(0))
            .doing("asking how the file is written")
    }

    fn set_synchronous(&self, level: i64) -> Result<(), ReplicaError> {
        self.conn
            .execute_batch(&format!("PRAGMA synchronous = {level}"))
            .doing("setting how commits wait for the disk")
    }

    /// The connection for writes that are the app's: captured, and with its triggers.
    pub(crate) fn app(&self) -> Result<&Connection, ReplicaError> {
        self.resume_sync()?;
        // It may set another.
        self.level.set(None);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn level(conn: &Connection) -> i64 {
        conn.query_row("PRAGMA synchronous", [], |row| row.get(0))
            .unwrap()
    }

    fn replica(mode: &str, folder: &tempfile::TempDir) -> Replica {
        let conn = Connection::open(folder.path().join(mode)).unwrap();
        let sql = format!("PRAGMA journal_mode = {mode}; CREATE TABLE t(id TEXT PRIMARY KEY)");
        conn.execute_batch(&sql).unwrap();
        let entropy = Box::new(|bytes: &mut [u8]| bytes.fill(7));
        Replica::attach(conn, Default::default(), entropy).unwrap()
    }

    #[test]
    fn ob14_only_what_may_be_lost_does_not_wait_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, deferred) in [("WAL", 1), ("DELETE", 2)] {
            let mut replica = replica(mode, &folder);
            let seen = Shared::deferring_sync(&mut replica, |replica| {
                let mut seen = vec![level(&replica.conn)];
                replica.conn.synced(|conn| {
                    seen.push(level(conn));
                    Ok(())
                })?;
                seen.push(level(&replica.conn));
                // What the app does waits, wherever it is called from.
                seen.push(level(replica.conn.app()?));
                Ok(seen)
            });
            assert_eq!(seen.unwrap(), [deferred, 2, deferred, 2], "{mode}");
            assert_eq!(level(&replica.conn), 2, "{mode}");
        }
    }

    #[test]
    fn ob14_the_apps_own_setting_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut replica = replica("WAL", &folder);
        for own in [0, 1, 3] {
            let sql = format!("PRAGMA synchronous = {own}");
            replica.connection().execute_batch(&sql).unwrap();
            let seen = Shared::deferring_sync(&mut replica, |replica| Ok(level(&replica.conn)));
            assert_eq!(seen.unwrap(), own.min(1));
            assert_eq!(level(replica.connection()), own);
        }
    }
}
