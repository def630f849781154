//! The storage from outside: on real files, beside real foreign programs.

mod capture;
mod crash;
mod ledger;
mod open;
mod reader;
mod schema;
mod support;
mod write;
