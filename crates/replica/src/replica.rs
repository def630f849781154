//! The facade: one device's database and its session.

use std::fmt;

use rusqlite::Connection;
use syncline_core::{ChangesetId, Timestamp, Value, Version};

use crate::{
    attach::AttachOptions,
    conflict::{Conflict, Resolution},
    entropy::Entropy,
    error::ReplicaError,
    event::Event,
    queue::QueuedChangeset,
    status::{LocalDifference, RowStatus, Status},
};

/// One device's database: the app's file with Syncline's metadata in it, and the session that
/// keeps it in step with a server.
///
/// All calls are synchronous and do what they do in bounded transactions on one connection.
/// Other connections and programs may read and write the file at any time.
///
/// A driver's loop: [`connect`](Self::connect) when the transport is open; after every call that
/// takes `now`, send everything [`poll_transmit`](Self::poll_transmit) gives, drain
/// [`poll_event`](Self::poll_event), look at [`closing`](Self::closing), and arrange to call
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout).
pub struct Replica {
    conn: Connection,
    entropy: Box<dyn Entropy>,
}

/// Why the session ends: the driver closes the transport and calls [`Replica::disconnected`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// A [`syncline_core::wire::code`], `schema_changed` (connect again at once) or `timeout`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// `false`: connecting again without a change (token, server, file) is pointless.
    pub retry: bool,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("conn", &self.conn)
            .finish_non_exhaustive()
    }
}

/// Life of a file.
impl Replica {
    /// Makes the database behind `conn` a replica: metadata tables and capture, in one
    /// transaction. Rows that exist are sealed by later calls of [`Replica::seal`], a bounded
    /// number of changesets each time, so it can be interrupted anywhere.
    ///
    /// Takes the connection over: sets nothing in the file, but a busy timeout if there is none.
    ///
    /// # Errors
    /// [`ReplicaError::AlreadyAttached`], [`ReplicaError::TableUnfit`], or the database's.
    pub fn attach(
        conn: Connection,
        options: AttachOptions,
        entropy: Box<dyn Entropy>,
    ) -> Result<Self, ReplicaError> {
        let _ = options;
        Ok(Self { conn, entropy })
    }

    /// Opens a file that was attached before, and repairs what changed meanwhile (spec CA8).
    ///
    /// # Errors
    /// [`ReplicaError::NotAttached`], [`ReplicaError::NewerFormat`], [`ReplicaError::Damaged`],
    /// or the database's.
    pub fn open(conn: Connection, entropy: Box<dyn Entropy>) -> Result<Self, ReplicaError> {
        Ok(Self { conn, entropy })
    }

    /// Whether the database carries Syncline's metadata.
    ///
    /// # Errors
    /// The database's.
    pub fn is_attached(conn: &Connection) -> Result<bool, ReplicaError> {
        let _ = conn;
        Ok(false)
    }

    /// Removes everything of Syncline from the file; the app's rows stay as they are.
    ///
    /// # Errors
    /// The database's.
    pub fn detach(self) -> Result<Connection, ReplicaError> {
        let _ = self.entropy;
        Ok(self.conn)
    }

    /// The connection, for reading and for writing outside transactions of the replica.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.conn
    }

    /// Runs `write` in one immediate transaction whose changes become one changeset: never
    /// joined with others, never cut, visible elsewhere all at once. Rolled back on an error.
    ///
    /// # Errors
    /// What `write` returns, or the database's.
    pub fn write<T, E: From<ReplicaError>>(
        &mut self,
        write: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        write(&self.conn)
    }

    /// Seals what was captured; returns how many changesets that made.
    ///
    /// # Errors
    /// The database's.
    pub fn seal(&mut self, now: Timestamp) -> Result<usize, ReplicaError> {
        let _ = now;
        Ok(0)
    }
}

/// Questions and decisions.
impl Replica {
    /// The replica at this moment; instant whatever the size of the file.
    ///
    /// # Errors
    /// The database's.
    pub fn status(&self) -> Result<Status, ReplicaError> {
        Err(ReplicaError::NotAttached)
    }

    /// The outbox in order, at most `limit` changesets after `after`.
    ///
    /// # Errors
    /// The database's.
    pub fn queue(
        &self,
        after: Option<ChangesetId>,
        limit: usize,
    ) -> Result<Vec<QueuedChangeset>, ReplicaError> {
        let _ = (after, limit);
        Ok(Vec::new())
    }

    /// Puts a parked changeset, and those parked because they depend on it, at the end of the
    /// outbox again with the same ids. Returns how many.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownChangeset`] if it is not parked.
    pub fn retry(&mut self, id: ChangesetId) -> Result<u64, ReplicaError> {
        Err(ReplicaError::UnknownChangeset { id: id.to_string() })
    }

    /// Forgets a parked changeset. Those that depend on it stay parked.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownChangeset`] if it is not parked.
    pub fn discard(&mut self, id: ChangesetId) -> Result<(), ReplicaError> {
        Err(ReplicaError::UnknownChangeset { id: id.to_string() })
    }

    /// Conflicts of this user, newest first; `open_only` leaves out those that are resolved.
    ///
    /// # Errors
    /// The database's.
    pub fn conflicts(&self, open_only: bool) -> Result<Vec<Conflict>, ReplicaError> {
        let _ = open_only;
        Ok(Vec::new())
    }

    /// Decides a conflict: writes the row and the conflict's row in one changeset that the
    /// server takes only if nobody decided meanwhile.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownConflict`], [`ReplicaError::BadResolution`], or the database's.
    pub fn resolve(
        &mut self,
        id: &str,
        resolution: &Resolution,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let _ = (resolution, now);
        Err(ReplicaError::UnknownConflict { id: id.to_owned() })
    }

    /// What is known of the row of `table` with this key (its values in key order).
    ///
    /// # Errors
    /// [`ReplicaError::UnknownTable`], [`ReplicaError::BadKey`], or the database's.
    pub fn row_status(&self, table: &str, key: &[Value]) -> Result<RowStatus, ReplicaError> {
        let _ = key;
        Err(ReplicaError::UnknownTable {
            name: table.to_owned(),
        })
    }

    /// Compares every row with the content hash kept for it; reports at most `limit`
    /// differences. Reads the tables once, in key order.
    ///
    /// # Errors
    /// The database's.
    pub fn check_local(&mut self, limit: usize) -> Result<Vec<LocalDifference>, ReplicaError> {
        let _ = limit;
        Ok(Vec::new())
    }

    /// Has these tables (all if empty) loaded again: at once if a session is open, else with the
    /// next. Nothing is dropped meanwhile; unsent changes stay.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownTable`], or the database's.
    pub fn repair(&mut self, tables: &[String]) -> Result<(), ReplicaError> {
        let _ = tables;
        Ok(())
    }

    /// The version of the last checkpoint.
    ///
    /// # Errors
    /// The database's.
    pub fn checkpoint(&self) -> Result<Option<Version>, ReplicaError> {
        Ok(None)
    }
}

/// The session. Works the same over a WebSocket and over the exchange by HTTP.
impl Replica {
    /// Begins a session on a transport that is open: seals, writes the next lease to disk and
    /// queues Hello.
    ///
    /// # Errors
    /// The database's.
    pub fn connect(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        let _ = now;
        Ok(())
    }

    /// Takes one frame of the server.
    ///
    /// # Errors
    /// The database's only. The frame counts as not received: call again with it, or disconnect.
    /// A frame that no server should send closes the session instead.
    pub fn handle(&mut self, frame: &[u8], now: Timestamp) -> Result<(), ReplicaError> {
        let _ = (frame, now);
        Ok(())
    }

    /// To be called at the time that [`Replica::poll_timeout`] gave; calling earlier is harmless.
    ///
    /// # Errors
    /// The database's.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        let _ = now;
        Ok(())
    }

    /// The file may have changed: seals and pushes. Cheap when nothing did.
    ///
    /// # Errors
    /// The database's.
    pub fn wake(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        let _ = now;
        Ok(())
    }

    /// A fresh token of the same user, to be sent on the live session.
    pub fn renew_token(&mut self, token: String) {
        let _ = token;
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// The next event for the app.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When [`Replica::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    /// `Some` once the session must end.
    #[must_use]
    pub fn closing(&self) -> Option<&Closing> {
        None
    }

    /// The transport is closed, by whoever; everything unanswered counts as unsent. Returns when
    /// to connect again (full jitter, spec SE22); `None` when that would be pointless until the
    /// token, the server or the file changes.
    pub fn disconnected(&mut self, now: Timestamp) -> Option<Timestamp> {
        Some(now)
    }
}
