//! What can be asked at any time, without reading the app's tables.

use syncline_core::{ChangesetId, DeviceId, RowKey, Timestamp, Version, wire::Quota};

use crate::event::LoadProgress;

/// The replica at one moment. Counts are kept, never computed from the app's tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub device: DeviceId,
    /// `None` before first contact.
    pub server: Option<DeviceId>,
    pub user: Option<String>,
    pub url: Option<String>,
    /// Whether a session is streaming on this [`crate::Replica`] (another process may have one).
    pub connected: bool,
    /// The user took this device off the list: nothing is sent or received until it is registered
    /// anew ([`crate::Replica::register_anew`]).
    pub deregistered: bool,
    pub tables: Vec<TableStatus>,
    /// Changesets that wait to be sent or answered.
    pub waiting: u64,
    /// Changesets in the server's log, waiting for their checkpoint.
    pub accepted: u64,
    pub parked: u64,
    /// Open conflicts in the inbox.
    pub conflicts: u64,
    /// Rows of the server that this database cannot hold, but for those with unsent changes.
    pub unstorable: u64,
    /// The version of the last checkpoint.
    pub checkpoint: Option<Version>,
    /// The server had nothing more at the last checkpoint; while connected: of this session.
    pub caught_up: bool,
    /// `None` when everything is live.
    pub loading: Option<LoadProgress>,
    /// What the user owned when the server was met last; `None` if it did not say.
    pub quota: Option<Quota>,
}

/// The part of [`Status`] that says how far a session has come: cheap with any number of tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    pub connected: bool,
    pub waiting: u64,
    pub accepted: u64,
    /// Rows that were here before attaching are still to be sent.
    pub seeding: bool,
    pub caught_up: bool,
    pub loading: Option<LoadProgress>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStatus {
    pub name: String,
    pub state: TableState,
    /// Rows that the server gave.
    pub rows: u64,
    /// Rows that were here before attaching are still to be sent.
    pub seeding: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableState {
    /// Not matched with a server's table yet.
    Unmatched,
    Loading,
    Live,
    /// Does not sync, and why.
    LeftOut {
        reason: String,
    },
}

/// What is known of one row (requirement 1.12).
#[derive(Debug, Clone, PartialEq)]
pub struct RowStatus {
    pub state: RowState,
    /// The server's version; `None` for a row the server does not have yet.
    pub version: Option<Version>,
    pub owner: Option<String>,
    pub created_at: Option<Timestamp>,
    pub modified_at: Option<Timestamp>,
    pub modified_by: Option<String>,
    /// Changesets of this device that touch it and wait, parked ones included.
    pub pending: Vec<ChangesetId>,
    /// Ids of open conflicts about it.
    pub conflicts: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    Synced,
    Pending,
    Conflict,
    /// Neither the server nor this file has it.
    Unknown,
}

/// A row whose content is not what the replica's metadata says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDifference {
    pub table: String,
    pub key: RowKey,
    pub fault: LocalFault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalFault {
    /// The content differs from what the server sent and no change of it was captured.
    Differs,
    /// The server's row is not in the table.
    Missing,
    /// The table has a row that neither the server gave nor anybody was seen to insert.
    Unaccounted,
}
