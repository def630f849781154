//! Keeps an SQLite database in step with a Syncline server.
//!
//! A [`syncline_replica::Replica`] does the thinking; this crate gives it sockets, a clock and
//! random bytes. [`Connection`] says which server as whom, [`Driver`] runs a replica until a
//! [`Goal`] is reached, and [`attach`], [`hydrate`] and [`verify`] are the errands around it.

#![forbid(unsafe_code)]

mod api;
mod attach;
mod compare;
mod credentials;
mod database;
mod driver;
mod error;
mod exchange;
mod system;
mod transport;
mod verify;

pub use api::{Api, Probe};
pub use attach::{
    AttachPlan, AttachRequest, TablePlan, attach, detach, hydrate, meet, plan_attach,
};
pub use compare::{Comparison, Difference, DifferenceKind, compare_table};
pub use credentials::{Connection, Token};
pub use database::{is_attached, open_replica, rows_to_seed};
pub use driver::{Driver, Goal, Interrupt, Notice, Summary};
pub use error::ClientError;
pub use system::{new_id, now};
pub use verify::{Verification, verify};
