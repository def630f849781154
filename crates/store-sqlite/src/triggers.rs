//! Whether triggers fire for what the writer's connection writes.

use rusqlite::{Connection, config::DbConfig};

/// Groups after which triggers that nobody needed any more are switched off.
const IDLE_MAX: u32 = 64;

/// Where a write can change nothing besides, the only triggers are ours, which find that they have
/// nothing to do; finding that takes longer than the write itself. Switching has SQLite prepare
/// every statement anew, so once they were needed, they stay on for a while.
#[derive(Debug)]
pub(crate) struct Triggers {
    are_on: bool,
    /// Groups since they were needed.
    idle: u32,
}

impl Triggers {
    /// Those of a new connection, on which nothing needed them.
    pub(crate) fn new() -> Self {
        Self {
            are_on: true,
            idle: IDLE_MAX,
        }
    }

    pub(crate) fn are_on(&self) -> bool {
        self.are_on
    }

    /// They fire from now on, as what is written next may need them.
    pub(crate) fn fire(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.idle = 0;
        self.switch(conn, true)
    }

    /// They fire until the next group begins.
    pub(crate) fn fire_once(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.idle = IDLE_MAX;
        self.switch(conn, true)
    }

    /// A group begins.
    pub(crate) fn rest(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.idle < IDLE_MAX {
            self.idle += 1;
            return Ok(());
        }
        self.switch(conn, false)
    }

    fn switch(&mut self, conn: &Connection, on: bool) -> rusqlite::Result<()> {
        if self.are_on != on {
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, on)?;
            self.are_on = on;
        }
        Ok(())
    }
}
