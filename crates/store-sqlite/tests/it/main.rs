//! The storage from outside: on real files, beside real foreign programs.

mod capture;
mod contract;
mod crash;
mod grouping;
mod ledger;
mod lookups;
mod open;
mod reader;
mod schema;
mod support;
mod write;
