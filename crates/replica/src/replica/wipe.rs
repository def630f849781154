//! Removing everything that was synced, because the device's user asked for it (spec DE10).

use syncline_core::{RowKey, Timestamp};

use super::Replica;
use crate::{
    attach::{AttachOptions, Seeding, TableChoice},
    capture,
    db::{self, Doing},
    error::ReplicaError,
    meta::{
        self,
        outbox::{self, State},
        settings::{self, Key},
    },
    queue::QueueState,
    repeat,
    rows::RowError,
    session::{Events, Session},
    sql::quoted,
    tables::load,
};

/// Changesets of the outbox read at once.
const PAGE: usize = 100;

/// The rows are gone, and the file is still to be written anew without them.
const ROWS_GONE: i64 = 1;
/// Nothing of them is in the file any more.
const ERASED: i64 = 2;

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wiped {
    /// How many rows.
    pub rows: u64,
    /// Changesets that had not reached the server.
    pub unsent: u64,
    /// Table and key of rows that these changed; at most [`Wiped::ROWS_LISTED`].
    pub unsent_rows: Vec<(String, RowKey)>,
}

impl Wiped {
    /// Most rows that are named.
    pub const ROWS_LISTED: usize = 1_000;
}

impl Replica {
    /// Removes the rows of all tables that sync, what was not sent, and all metadata, in one
    /// transaction; then writes the file anew, so that nothing of it stays in free pages or in
    /// the WAL. What remains is the app's schema, and that this device was deregistered: it opens
    /// no session until [`Replica::register_anew`], and then as a device that never was.
    ///
    /// # Errors
    /// The database's. If [`Replica::is_wiped`] then says so the rows are gone, and
    /// [`Replica::erase`] is to be called again.
    pub fn wipe(&mut self, now: Timestamp) -> Result<Wiped, ReplicaError> {
        // What cannot be sealed cannot be named, and goes all the same.
        let _sealed = self.seal(now);
        let mut wiped = self.unsent()?;
        let options = self.options()?;
        let mut device = [0; 16];
        self.entropy.fill(&mut device);
        // The twins of the app's own triggers fire: an index of words forgets the rows, too.
        let made = self.conn.untriggered(|| {
            db::immediate(&self.conn, || {
                for table in self.tables.iter().filter(|table| table.is_here) {
                    let sql = format!("DELETE FROM {}", quoted(table.name()));
                    let failed = |error| RowError::database(&table.table)(error);
                    let delete = || self.conn.execute(&sql, []).map_err(failed);
                    let deleted = repeat::write(&self.conn, delete)??;
                    wiped.rows += deleted as u64;
                }
                capture::remove_everything(&self.conn)?;
                meta::create(&self.conn)?;
                settings::put(&self.conn, Key::Device, device)?;
                options.store(&self.conn)?;
                settings::put(&self.conn, Key::Deregistered, true)?;
                settings::put(&self.conn, Key::Wiped, ROWS_GONE)?;
                load::create_inbox(&self.conn)?;
                let tables = load::build(&self.conn)?;
                capture::install(&self.conn, &tables.structures())?;
                let objects = load::read_objects(&self.conn)?;
                Ok::<_, ReplicaError>((tables, objects, capture::schema_version(&self.conn)?))
            })
        })?;
        let (tables, objects, schema_version) = made;
        self.tables = tables;
        self.schema_version = Some(schema_version);
        (self.session, self.events) = (Session::default(), Events::default());
        self.tally.clear();
        self.conn
            .untriggered(|| repeat::install(&self.conn, &objects, &self.tables))?;
        self.erase()?;
        Ok(wiped)
    }

    /// Whether [`Replica::wipe`] has removed the rows, and this device was not registered since.
    ///
    /// # Errors
    /// The database's.
    pub fn is_wiped(&self) -> Result<bool, ReplicaError> {
        Ok(settings::get::<i64>(&self.conn, Key::Wiped)?.is_some())
    }

    /// Writes the file anew without the rows that [`Replica::wipe`] removed, where that is still
    /// to be done: another program may have been reading.
    ///
    /// # Errors
    /// The database's, busy while another program reads or writes.
    pub fn erase(&mut self) -> Result<(), ReplicaError> {
        if settings::get(&self.conn, Key::Wiped)? != Some(ROWS_GONE) {
            return Ok(());
        }
        let doing = "writing the file anew without the rows that were removed";
        self.conn.flush_prepared_statement_cache();
        self.conn.execute_batch("VACUUM").doing(doing)?;
        let busy: i64 = self
            .conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .doing(doing)?;
        if busy != 0 {
            let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
            return Err(rusqlite::Error::SqliteFailure(busy, None)).doing(doing);
        }
        settings::put(&self.conn, Key::Wiped, ERASED)
    }

    /// What has not reached the server.
    fn unsent(&self) -> Result<Wiped, ReplicaError> {
        let count = |state| outbox::count(&self.conn, state);
        let mut wiped = Wiped {
            unsent: count(State::Sealed)? + count(State::Parked)?,
            ..Wiped::default()
        };
        let mut after = None;
        while wiped.unsent_rows.len() < Wiped::ROWS_LISTED {
            let page = self.queue(after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let is_there = |state: &QueueState| matches!(state, QueueState::Accepted { .. });
            let unsent = page.into_iter().filter(|queued| !is_there(&queued.state));
            for change in unsent.flat_map(|queued| queued.changes) {
                let row = (change.table, change.change.key);
                if !wiped.unsent_rows.contains(&row) {
                    wiped.unsent_rows.push(row);
                }
            }
        }
        wiped.unsent_rows.truncate(Wiped::ROWS_LISTED);
        Ok(wiped)
    }

    /// As the file was attached.
    fn options(&self) -> Result<AttachOptions, ReplicaError> {
        let text = |key| settings::get::<String>(&self.conn, key);
        let tables = match self.chosen()? {
            Some(names) => TableChoice::Only(names),
            None => TableChoice::All,
        };
        Ok(AttachOptions {
            tables,
            create_missing: settings::get(&self.conn, Key::CreateMissing)?.unwrap_or(false),
            subscriptions: Vec::new(),
            seeding: Seeding::Skip,
            device_name: text(Key::DeviceName)?.unwrap_or_default(),
            platform: text(Key::Platform)?.unwrap_or_default(),
            url: text(Key::Url)?,
        })
    }
}
