//! One device's database: capture, outbox, apply, conflicts and the session state machine.
//!
//! [`Replica`] owns one SQLite connection to the app's file and nothing else: no socket, no timer,
//! no clock. A driver (the client library, the browser, the simulator) hands it frames and the
//! time, sends what [`Replica::poll_transmit`] gives and tells the app what
//! [`Replica::poll_event`] reports.

mod adopt;
mod apply;
mod attach;
pub mod capture;
mod cipher;
mod clock;
mod codec;
mod conflict;
mod db;
mod entropy;
mod error;
mod event;
pub mod introspect;
mod mend;
mod meta;
mod migration;
mod objects;
mod queue;
mod rekey;
mod repeat;
mod replica;
pub mod rows;
mod seal;
mod seed;
mod session;
mod shared;
mod sql;
mod status;
mod tables;
mod tally;
mod verdict;
mod work;

pub use attach::{AttachOptions, Seeding, TableChoice};
pub use cipher::{EncryptionKey, Keyring, NotAKey};
pub use conflict::{Conflict, ConflictKind, Resolution};
pub use entropy::Entropy;
pub use error::ReplicaError;
pub use event::{Event, LoadProgress, RowsChanged};
pub use migration::{Migrated, TableChange, TablesSeen};
pub use queue::{QueueState, QueuedChange, QueuedChangeset};
pub use replica::{
    AnewPlace, ColumnThere, ConflictSides, Replica, RowRestored, RowThere, SealedAnew,
    Subscription, SubscriptionState, Topic, Wanted, Wiped,
};
pub use session::{
    BEGIN_ANEW, Closing, ENCRYPTION_ENDED, ENCRYPTION_KEY_MISSING, ENCRYPTION_KEY_WRONG, Held,
    OLD_COPY, TIMEOUT,
};
pub use status::{
    Activity, LocalDifference, LocalFault, RowState, RowStatus, Status, TableState, TableStatus,
};
pub use tally::{RowCounts, TableTally};
