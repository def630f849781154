//! The server's side of storage: what a database must offer, and the commit pipeline that
//! turns arriving changesets into a log, without knowing which database it has.
//!
//! [`Storage`] and [`Reader`] are the traits, [`commit_group`] is the pipeline and
//! [`plan`](mod@plan) its pure heart. Every storage passes the suite in `contract`.

#![forbid(unsafe_code)]

pub mod accounts;
mod audit;
mod body;
#[cfg(any(test, feature = "testkit"))]
pub mod contract;
pub mod cursor;
pub mod device;
pub mod encoding;
pub mod history;
mod inspect;
pub mod log;
pub mod marks;
#[cfg(any(test, feature = "testkit"))]
pub mod memory;
pub mod meta;
pub mod pipeline;
pub mod plan;
mod room;
pub mod storage;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod want;

pub use audit::Auditor;
pub use body::encode_page_row;
pub use cursor::{check_cursor, sign_cursor};
pub use device::{
    DeviceHello, DeviceOpened, DeviceSeen, HTTP_PLATFORM, OpenDeviceError, deregister_device,
    note_devices, open_device, rename_device,
};
pub use encoding::EncodingError;
pub use history::{After, HistoryChange, HistoryFrom, HistoryRead, HistoryRecord, HistoryWant};
pub use inspect::{Snapshot, inspect};
pub use log::{AccessChange, AccessTo, GrantChange, LogEntry, LogRecord};
pub use marks::{Mark, MarksTaken};
pub use meta::{ColumnStates, DeviceState, Owned, RowMeta};
pub use pipeline::{
    GroupOutcome, Rebuilt, commit_group, count_owned, drain_external, rebuild_rules,
};
pub use plan::{Context, Refusals, Submission};
pub use room::Room;
pub use storage::{
    Counted, Group, HashesRead, Head, Ledger, PagePartRead, PageRead, PageWant, Reader, RowHash,
    RowWrite, RowsRead, SchemaError, SchemaOptions, SchemaReport, Storage, StorageError, WriteKind,
};
pub use want::{KnownChangeset, KnownRun, Loaded, LoadedRow, Missing, Want};

/// The device that other programs' writes into the server's database are filed under. No replica
/// gets this id.
pub const EXTERNAL: syncline_core::DeviceId = syncline_core::DeviceId([0xFF; 16]);
