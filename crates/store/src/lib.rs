//! The server's side of storage: what a database must offer, and the commit pipeline that
//! turns arriving changesets into a log, without knowing which database it has.
//!
//! [`Storage`] and [`Reader`] are the traits, [`commit_group`] is the pipeline and
//! [`plan`](mod@plan) its pure heart. Every storage passes the suite in `contract`.

#![forbid(unsafe_code)]

pub mod encoding;
pub mod log;
pub mod meta;
pub mod storage;
pub mod want;

pub use encoding::EncodingError;
pub use log::{GrantChange, LogEntry, LogRecord};
pub use meta::{DeviceState, RowMeta};
pub use storage::{
    Group, Head, Ledger, Mark, PagePartRead, PageRead, PageWant, Reader, RowHash, RowWrite,
    SchemaError, SchemaOptions, SchemaReport, Storage, StorageError, WriteKind,
};
pub use want::{KnownChangeset, Loaded, LoadedRow, Missing, Want};
