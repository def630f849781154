//! Keeps an app's SQLite file in step with a Syncline server, offline included.
//!
//! The app reads and writes its own file with plain SQL, through whatever it likes: rusqlite, sqlx,
//! diesel, another program. A [`SyncManager`] captures what is written, sends it, and brings what
//! others wrote, merged column by column. Without a server, or without a network, everything works
//! and waits.
//!
//! ```no_run
//! use syncline::{Config, Event, SyncManager, Tables};
//!
//! # async fn example() -> Result<(), syncline::Error> {
//! let sync = SyncManager::open("notes.db", Config::from_env()?).await?;
//! let mut events = sync.events();
//! sync.start_auto_sync();
//!
//! let done = sync.sync(Tables::All, |p| println!("{:>3} % {}", p.percentage, p.message)).await?;
//! println!("{} records, {} conflicts", done.records_processed, done.conflicts.len());
//! while let Some(event) = events.next().await {
//!     if let Event::RowsChanged(rows) = event {
//!         println!("{} changed {} rows of {}", rows.by, rows.ids.len(), rows.table);
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! Sockets and timers belong to a thread of the manager's own, so that its futures and streams run
//! in any executor; [`blocking`] does without one. No type of the SQLite library is part of this
//! interface: it shares one SQLite with the versions of sqlx and diesel that the app chose.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod accounts;
mod api;
#[expect(missing_docs, reason = "for the `syncline` command alone")]
mod attach;
pub mod blocking;
mod bus;
#[expect(missing_docs, reason = "for the `syncline` command alone")]
mod compare;
mod config;
mod credentials;
mod database;
mod devices;
#[expect(missing_docs, reason = "for the `syncline` command alone")]
mod driver;
mod dry_run;
#[expect(missing_docs, reason = "for the `syncline` command alone")]
mod error;
mod event;
mod exchange;
mod executor;
mod file_watch;
mod held;
mod history;
mod key_file;
mod manager;
mod migrate;
mod private;
mod provider;
mod queue;
mod resolver;
mod run;
mod stats;
mod store;
mod subscribe;
mod sync_error;
mod system;
mod there;
mod tokens;
mod transport;
mod trust;
mod verify;
mod watch;
mod worker;

pub use accounts::{AccountError, Accounts, Login, SignUp, User};
pub use bus::Events;
pub use config::Config;
pub use devices::{Device, LocalDevice};
pub use driver::Interrupt;
pub use event::{
    Author, ChangeRefused, ConflictNotice, EditLost, Event, OperationFailed, RowsChanged,
};
pub use history::{ColumnChange, History, RowChange, RowChangeKind, RowHistory};
pub use manager::SyncManager;
pub use provider::Provider;
pub use queue::{
    OPERATION_BYTES_MAX, OperationError, OperationState, QueueStats, QueuedOperation, RetryQueue,
};
pub use resolver::{BoxFuture, ConflictCase, Record, Resolver, decide, resolvers};
pub use run::{Operation, Phase, Progress, Run, SyncReport, Tables};
pub use stats::{Health, HealthStatus, SyncRecord, SyncStats};
pub use sync_error::{Error, ErrorKind};
pub use syncline_core::{ChangesetId, DeviceId, RowKey, Timestamp, Value, Version};
pub use syncline_replica::{
    Conflict, ConflictKind, EncryptionKey, LoadProgress, Migrated, QueueState, QueuedChange,
    QueuedChangeset, Resolution, RowCounts, RowRestored, RowState, RowStatus, SealedAnew, Status,
    Subscription, SubscriptionState, TableChange, TableState, TableStatus, Topic, Wanted, Wiped,
};
pub use system::new_id;
pub use tokens::{AccessToken, TokenError, TokenProvider};
pub use watch::{LiveQuery, Row};

/// What programs that drive a replica themselves use, such as the `syncline` command. Not part of
/// the stable interface: it names types of the storage engine.
#[doc(hidden)]
pub mod engine {
    pub use syncline_replica::Keyring;

    pub use crate::{
        accounts::{last_login, login_at},
        api::{Api, Probe},
        attach::{
            AttachPlan, AttachRequest, Met, TablePlan, attach, detach, hydrate, meet, plan_attach,
        },
        compare::{Comparison, Difference, DifferenceKind, compare_table},
        config::connected,
        credentials::{Connection, Token},
        database::{is_attached, open_replica, open_replica_with, rows_to_seed},
        driver::{Driver, Goal, Interrupt, Notice, Summary},
        error::ClientError,
        held::Held,
        history::{PAGE_MAX as HISTORY_PAGE_MAX, history, restore_row},
        key_file::{make as make_key_file, read as read_key_file},
        system::{new_id, now},
        verify::{Verification, verify},
    };
}

const _: () = assert!(
    !syncline_core::planted::COMPILED,
    "bugs planted for the simulator's tests are never shipped"
);
