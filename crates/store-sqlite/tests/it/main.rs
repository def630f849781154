//! The storage from outside: on real files, beside real foreign programs.

mod capture;
mod contract;
mod crash;
mod grouping;
mod lookups;
mod marks;
mod open;
mod preview;
mod schema;
mod support;
mod write;
