//! A simulator: several replicas and the server's real code on SQLite in memory, in one thread,
//! under virtual time, with everything that goes wrong drawn from one seed.
//!
//! [`simulate`] runs a seed: apps and other programs write at random, connections are cut or go
//! silent, processes die between any two commits, files and the server's data come back as old
//! copies, clocks jump, rules change, the log is trimmed. The promises are checked as it goes
//! (each checkpoint against the server's rows of just that version) and once faults have ended.
//! A run is a [`Script`], made of a seed or of a fuzzer's bytes ([`simulate_bytes`]); one that
//! fails is made shorter by [`shrink()`].
//! Sockets, threads, disks and the network front of the server are not in it.

mod app;
mod checker;
mod database;
mod describe;
mod device;
mod given;
mod link;
mod model;
mod oracle;
mod plan;
#[cfg(feature = "planted")]
pub mod planted;
mod rng;
mod rows;
mod schema;
mod script;
mod server;
mod shrink;
mod subject;
mod trace;
#[cfg(test)]
mod traps;
mod truth;
mod words;
mod world;

pub use model::{Counts, TableSeen};
pub use plan::Scenario;
pub use script::Script;
pub use shrink::{Shrunk, shrink};
pub use subject::App;
pub use words::{Steps, cut_down, parse_range, parse_scenario, parse_steps};
pub use world::{
    Failure, Options, Outcome, Sizes, simulate, simulate_app, simulate_bytes, simulate_script,
};
