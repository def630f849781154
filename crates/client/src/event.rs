//! What a sync manager tells its app.

use std::{fmt, time::Duration};

use syncline_core::{ChangesetId, RowKey};
use syncline_replica::{self as replica, Topic, Wiped};

use crate::{
    run::{Operation, Progress, SyncReport},
    sync_error::Error,
};

/// Something the app may want to know. Delivered in order by [`crate::Events`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A sync begins: one that was called for, or a round of auto-sync.
    SyncStarted(Operation),
    /// How far it is; a few times a second at most.
    SyncProgress(Progress),
    /// It reached its end.
    SyncCompleted(SyncReport),
    /// It failed, or the connection was lost; auto-sync tries again by itself if the error says so.
    SyncError(Error),
    /// An edit made here waits for a decision: [`crate::SyncManager::resolve`], or a resolver.
    ConflictDetected(ConflictNotice),
    /// Somebody decided, here or on another device.
    ConflictResolved(ConflictNotice),
    /// Rows changed because of the server, all of one commit at once.
    RowsChanged(RowsChanged),
    /// The server refused a transaction; its effect was undone here.
    ChangeRefused(ChangeRefused),
    /// An edit made here lost against somebody else's.
    EditLost(EditLost),
    /// The server took the token.
    Connected {
        /// As whom.
        user: String,
    },
    /// There is no connection; the next attempt follows by itself.
    Disconnected {
        /// Why.
        error: Error,
        /// When it is tried again.
        retry_after: Duration,
    },
    /// The login has ended, or the app's token provider says so: somebody has to sign in again.
    /// Until then nothing syncs and nothing is lost. It goes on with [`crate::Config::login`] of
    /// a new login of the same user.
    SignedOut {
        /// A sentence for people.
        reason: String,
    },
    /// This device was removed from its user's list, and with it from this file what was synced:
    /// the user asked for that. The tables are there, empty.
    Wiped(Wiped),
    /// Everything the server has for this user is here.
    Live,
    /// An integer key given here was taken: the row has another one now.
    Rekeyed {
        /// The table.
        table: String,
        /// The key that was given.
        from: RowKey,
        /// The key that the row has.
        to: RowKey,
    },
    /// A permission ended; its rows were removed here.
    AccessLost {
        /// How many.
        rows: u64,
    },
    /// What was subscribed to is here, as far as this user may see it
    /// ([`crate::SyncManager::subscribe`]).
    Subscribed(Topic),
    /// Nobody subscribes to these rows any more; they were removed here.
    Released {
        /// How many.
        rows: u64,
    },
    /// The server does not send all that is subscribed to.
    SubscriptionsRefused {
        /// A stable name: `too_many_subscriptions`.
        code: String,
        /// A sentence with the limit.
        message: String,
    },
    /// The server does not send rows that this user may see: they are too many for a device. What
    /// is here stays, and goes on.
    LoadingRefused {
        /// A stable name: `too_many_rows`.
        code: String,
        /// A sentence with the limit.
        message: String,
    },
    /// Tables that do not sync: name and reason.
    TablesLeftOut(Vec<(String, String)>),
    /// A row that cannot be sent as it is, or that this database cannot hold or show.
    RowUnfit {
        /// The table.
        table: String,
        /// The row's key as text.
        row: String,
        /// Why.
        reason: String,
    },
    /// The app's tables were rebuilt: capture was installed again, and this many rows were found
    /// changed meanwhile.
    Rescanned {
        /// How many.
        rows: u64,
    },
    /// Rows are loaded again: the server was restored, the device was away for too long, or a
    /// table was not what the server has. Nothing unsent is lost.
    Reloading {
        /// Why, in a sentence.
        reason: String,
    },
    /// One of the app's own operations failed for good; it waits in the queue.
    OperationFailed(OperationFailed),
    /// This listener was too slow: so many events are missing before the next one. Read what you
    /// show again.
    Lagged(u64),
}

impl Event {
    /// A stable name: `sync_started`, `sync_progress`, `sync_completed`, `sync_error`,
    /// `conflict_detected`, `rows_changed` and so on.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SyncStarted(_) => "sync_started",
            Self::SyncProgress(_) => "sync_progress",
            Self::SyncCompleted(_) => "sync_completed",
            Self::SyncError(_) => "sync_error",
            Self::ConflictDetected(_) => "conflict_detected",
            Self::ConflictResolved(_) => "conflict_resolved",
            Self::RowsChanged(_) => "rows_changed",
            Self::ChangeRefused(_) => "change_refused",
            Self::EditLost(_) => "edit_lost",
            Self::Connected { .. } => "connected",
            Self::Disconnected { .. } => "disconnected",
            Self::SignedOut { .. } => "signed_out",
            Self::Wiped(_) => "wiped",
            Self::Live => "live",
            Self::Rekeyed { .. } => "rekeyed",
            Self::AccessLost { .. } => "access_lost",
            Self::Subscribed(_) => "subscribed",
            Self::Released { .. } => "released",
            Self::SubscriptionsRefused { .. } => "subscriptions_refused",
            Self::LoadingRefused { .. } => "loading_refused",
            Self::TablesLeftOut(_) => "tables_left_out",
            Self::RowUnfit { .. } => "row_unfit",
            Self::Rescanned { .. } => "rescanned",
            Self::Reloading { .. } => "reloading",
            Self::OperationFailed(_) => "operation_failed",
            Self::Lagged(_) => "lagged",
        }
    }

    /// What the engine said in the app's words; `None` for what shows as progress.
    pub(crate) fn of(event: &replica::Event) -> Option<Self> {
        use replica::Event as E;
        let reloading = |reason: String| Some(Self::Reloading { reason });
        Some(match event {
            E::Connected { user, .. } => Self::Connected { user: user.clone() },
            E::RowsChanged(rows) => Self::RowsChanged(RowsChanged {
                table: rows.table.clone(),
                ids: rows.keys.clone().unwrap_or_default(),
                is_complete: rows.keys.is_some(),
                by: Author(rows.author.clone()),
            }),
            E::ConflictOpened { id, table } => Self::ConflictDetected(ConflictNotice {
                id: id.clone(),
                table: table.clone(),
            }),
            E::ConflictResolved { id, table } => Self::ConflictResolved(ConflictNotice {
                id: id.clone(),
                table: table.clone(),
            }),
            E::ChangeRefused {
                changeset,
                code,
                message,
                parked,
            } => Self::ChangeRefused(ChangeRefused {
                changeset: *changeset,
                row: String::new(),
                code: code.clone(),
                reason: message.clone(),
                parked: parked.clone(),
            }),
            E::EditLost {
                table,
                key,
                column,
                reason,
            } => Self::EditLost(EditLost {
                table: table.clone(),
                id: key.clone(),
                column: column.clone(),
                reason: reason.clone(),
            }),
            E::Live { .. } => Self::Live,
            E::Loading(_) => return None,
            E::Diverged { resent } => {
                return reloading(format!(
                    "the server was restored from a backup; {resent} changesets are sent again"
                ));
            }
            E::Resynced => return reloading("this device was away for too long".into()),
            E::DigestMismatch { table } => {
                return reloading(format!("{table} was not what the server has"));
            }
            E::AccessLost { rows, .. } => Self::AccessLost { rows: *rows },
            E::Subscribed(topic) => Self::Subscribed(topic.clone()),
            E::Released { rows, .. } => Self::Released { rows: *rows },
            E::SubscriptionsRefused { code, message } => Self::SubscriptionsRefused {
                code: code.clone(),
                message: message.clone(),
            },
            E::LoadingRefused { code, message } => Self::LoadingRefused {
                code: code.clone(),
                message: message.clone(),
            },
            E::RowUnstorable { table, key, reason } | E::ChangeHidden { table, key, reason } => {
                Self::RowUnfit {
                    table: table.clone(),
                    row: key.to_string(),
                    reason: reason.clone(),
                }
            }
            E::RowUnfit { table, row, reason } => Self::RowUnfit {
                table: table.clone(),
                row: row.clone(),
                reason: reason.clone(),
            },
            E::CellsUnreadable {
                table,
                column,
                key,
                rows,
                reason,
            } => Self::RowUnfit {
                table: table.clone(),
                row: key.to_string(),
                reason: format!("{column} cannot be read in {rows} rows: {reason}"),
            },
            E::Rekeyed { table, from, to } => Self::Rekeyed {
                table: table.clone(),
                from: from.clone(),
                to: to.clone(),
            },
            E::TablesLeftOut { tables } => Self::TablesLeftOut(tables.clone()),
            E::Rescanned { rows } => Self::Rescanned { rows: *rows },
        })
    }
}

/// Rows of one table that changed at once because of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct RowsChanged {
    /// The table.
    pub table: String,
    /// The keys of the rows, in key order; empty when they are too many.
    pub ids: Vec<RowKey>,
    /// `false`: too many rows to list. Read the table again.
    pub is_complete: bool,
    /// Who changed them.
    pub by: Author,
}

/// Who changed something: one person, or several, or another program. Prints as a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Author(pub(crate) Option<String>);

impl Author {
    /// The user, where it was one person.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("others"))
    }
}

/// A conflict that was opened or decided; [`crate::SyncManager::conflict`] tells the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictNotice {
    /// Its id.
    pub id: String,
    /// The table of its row.
    pub table: String,
}

/// A transaction that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRefused {
    /// Its id in the queue, where it waits with its reason.
    pub changeset: ChangesetId,
    /// Table and key of its first row.
    pub row: String,
    /// The server's code.
    pub code: String,
    /// The server's sentence.
    pub reason: String,
    /// Everything that waits because of it, itself included.
    pub parked: Vec<ChangesetId>,
}

/// One of the app's own operations that failed for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationFailed {
    /// Its id.
    pub id: String,
    /// Which handler did it.
    pub kind: String,
    /// What went wrong last.
    pub reason: String,
}

/// An edit that lost.
#[derive(Debug, Clone, PartialEq)]
pub struct EditLost {
    /// The table.
    pub table: String,
    /// The row's key.
    pub id: RowKey,
    /// `None` for the whole row.
    pub column: Option<String>,
    /// Why.
    pub reason: String,
}
