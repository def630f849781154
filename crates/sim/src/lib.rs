//! x
mod rng; mod link; mod server;
