//! What a replica tells its app.

use syncline_core::{ChangesetId, RowKey, Version};

use crate::replica::Topic;

/// Something the app may want to know. Delivered by [`crate::Replica::poll_event`] in order.
///
/// At most [`Event::PENDING_MAX`] wait; past that the oldest [`Event::RowsChanged`] lose their
/// keys, so "read everything again" is never lost.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The server answered Hello; the stream begins.
    Connected {
        user: String,
        forked: bool,
    },
    /// Rows of the app's tables changed by what the server sent or by its verdicts.
    RowsChanged(RowsChanged),
    /// A changeset of this device was refused, rolled back and parked, with what depends on it.
    ChangeRefused {
        changeset: ChangesetId,
        code: String,
        message: String,
        parked: Vec<ChangesetId>,
    },
    /// An edit was accepted and lost against somebody else's.
    EditLost {
        table: String,
        key: RowKey,
        column: Option<String>,
        reason: String,
    },
    ConflictOpened {
        id: String,
        table: String,
    },
    ConflictResolved {
        id: String,
        table: String,
    },
    /// Rows are being loaded.
    Loading(LoadProgress),
    /// Everything granted is here and up to date with the server at `version`.
    Live {
        version: Version,
    },
    /// The server lost commits: own changesets are sent again, rows are loaded again.
    Diverged {
        resent: u64,
    },
    /// The cursor was older than the server's log, or its rules changed: rows are loaded again.
    Resynced,
    /// Rows of these buckets went because the user may not see them any more.
    AccessLost {
        buckets: u64,
        rows: u64,
    },
    /// Rows of these buckets went because nobody subscribes to them any more.
    Released {
        buckets: u64,
        rows: u64,
    },
    /// What was subscribed to is here, as far as the user may see it.
    Subscribed(Topic),
    /// The server does not send all that is subscribed to: too much at a time.
    SubscriptionsRefused {
        code: String,
        message: String,
    },
    /// The server does not load what the user may see: more rows than a device may hold.
    LoadingRefused {
        code: String,
        message: String,
    },
    /// The server has a row that this database cannot hold: it is kept aside and tried again.
    RowUnstorable {
        table: String,
        key: RowKey,
        reason: String,
    },
    /// An unsent change does not fit beside what the server has, or not any more: the row is as the
    /// server has it until the server has judged the change.
    ChangeHidden {
        table: String,
        key: RowKey,
        reason: String,
    },
    /// A row of the app's cannot sync as it is: text that is not UTF-8, a key that is NULL.
    RowUnfit {
        table: String,
        row: String,
        reason: String,
    },
    /// Values of an encrypted column that cannot be read here: they are NULL, and stay on the server
    /// as they are until somebody writes them anew.
    CellsUnreadable {
        table: String,
        column: String,
        /// One of the rows.
        key: RowKey,
        rows: u64,
        reason: String,
    },
    /// The rows of a table differ from the server's and are loaded again.
    DigestMismatch {
        table: String,
    },
    /// An integer key made here was taken: the row has another key now.
    Rekeyed {
        table: String,
        from: RowKey,
        to: RowKey,
    },
    /// Tables of the server and of the file were matched; these local ones do not sync, and why.
    TablesLeftOut {
        tables: Vec<(String, String)>,
    },
    /// The app's schema or our triggers had changed: capture was installed again, and this many
    /// rows were found changed meanwhile.
    Rescanned {
        rows: u64,
    },
}

impl Event {
    /// Most events that wait for the app.
    pub const PENDING_MAX: usize = 4096;
}

/// Rows of one table that changed at once.
#[derive(Debug, Clone, PartialEq)]
pub struct RowsChanged {
    pub table: String,
    /// In key order; `None` when they were too many to list: read the table again.
    pub keys: Option<Vec<RowKey>>,
    /// Who changed them, where it was one person.
    pub author: Option<String>,
}

/// How far loading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Rows received since loading began, across reconnects.
    pub done: u64,
    /// Rows to come as far as the server knows.
    pub remaining: Option<u64>,
}
