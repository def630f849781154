//! Integration tests of the replica: one binary, one module for each subject.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on should say where; it looks for the one variant it is about"
)]

mod apply;
mod authority;
mod away;
mod bits;
mod capture_fixture;
mod capture_model;
mod capture_programs;
mod capture_schema;
mod capture_traps;
mod chance;
mod damage;
mod demand;
mod detach;
mod device;
mod echo;
mod fixture;
mod flushes;
mod grants;
mod identities;
mod introspect;
mod leaving;
mod loading;
mod migration_tools;
mod migrations;
mod model;
mod once;

mod outbox;
mod overruled;
mod quota;
mod registration;
mod restored;
mod room;
mod rows;
mod sealing;
mod seeds;
mod session;
mod spine;
mod swaps;
mod traps;
mod trouble;
mod unfit;
