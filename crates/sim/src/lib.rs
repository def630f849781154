//! A deterministic simulator: many replicas, the server's real code, a hostile network, one seed.
//!
//! Everything runs in one thread under virtual time: replicas and the server's storage on SQLite
//! in memory, sessions driven by hand. A [`Scenario`] says how big and how hostile, a seed decides
//! the rest, and the same seed gives the same run. [`run`] first breaks things (safety is checked
//! at every step), then heals everything and demands that all agree (convergence).

#![forbid(unsafe_code)]

mod check;
mod device;
mod link;
mod rng;
mod server;
mod workload;
mod world;

pub use world::{Failure, Report, Scenario, run};
