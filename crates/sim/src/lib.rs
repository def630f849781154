//! x
mod link;
mod rng;
mod server;
