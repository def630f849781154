//! A simulator: several replicas and the server's real code on SQLite in memory, in one thread,
//! under virtual time, with everything that goes wrong drawn from one seed.
//!
//! [`simulate`] runs a seed: apps and other programs write at random, connections are cut or go
//! silent, processes die between any two commits, files and the server's data come back as old
//! copies, clocks jump, rules change, the log is trimmed. The promises are checked as it goes
//! (each checkpoint against the server's rows of just that version) and once faults have ended.
//! Sockets, threads, disks and the network front of the server are not in it.

mod app;
mod database;
mod describe;
mod device;
mod link;
mod model;
mod oracle;
mod plan;
#[cfg(feature = "planted")]
pub mod planted;
mod rng;
mod schema;
mod server;
mod trace;
#[cfg(test)]
mod traps;
mod world;

pub use model::Counts;
pub use world::{Failure, Options, Outcome, simulate};
