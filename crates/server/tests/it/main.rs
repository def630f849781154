//! Tests of the server crate: sessions on a storage in memory, and a real server on a real socket.

#![expect(
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a test that goes wrong is to stop where it does"
)]

mod bed;
mod client;
mod demand;
mod gaps;
mod hostile;
#[cfg(feature = "net")]
mod net;
mod opening;
mod pushing;
mod quotas;
mod secrecy;
mod streaming;
