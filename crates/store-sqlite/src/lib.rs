//! Embedded storage of the Syncline server: rows, metadata and log in one SQLite file.
//!
//! [`SqliteStorage`] is the one writer, [`SqliteReader`] reads beside it. What other programs
//! write into the same file is caught by triggers that use nothing but built-in SQL. Nothing
//! here knows of changesets' meaning, of rules or of sessions: that is `syncline-store` and
//! `syncline-server`.

#![forbid(unsafe_code)]

mod accounts;
mod backup;
mod capture;
mod catalog;
mod explain;
mod fault;
mod format;
mod group;
mod history;
mod introspect;
mod ledger;
mod load;
mod lock;
mod lookups;
mod marks;
mod open;
mod pages;
mod place;
mod preview;
mod reader;
mod rows;
mod schema;
mod storage;
mod together;
mod triggers;
mod trim;
mod value;
mod write;

pub use accounts::SqliteAccounts;
pub use backup::{BackupError, SideFiles, back_up, restore};
pub use open::OpenError;
pub use preview::{Beside, Preview, PreviewError, beside, preview};
pub use reader::SqliteReader;
pub use storage::SqliteStorage;
