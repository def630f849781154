//! The library as an app uses it, against a real server with a real SQLite file.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on may say so anywhere, and waits for one event of many"
)]

mod accounts;
mod auto;
mod blocking;
mod conflicts;
mod devices;
mod encryption;
mod history;
mod limits;
mod migrate;
mod offline_first;
mod open;
mod queue;
mod quickstart;
mod runs;
mod stats;
mod support;
mod traps;
mod watch;
