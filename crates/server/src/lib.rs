//! The authority: sessions, the hub and, with the feature `net`, HTTP and WebSocket around them.
//!
//! [`Session`] and [`Hub`] are pure state machines: frames, log entries and time in, frames and
//! requests out. The simulator drives them as the network front does. This crate does not know
//! which storage it was given.

#![forbid(unsafe_code)]

mod changes;
pub mod demand;
#[cfg(feature = "net")]
mod history;
pub mod hub;
#[cfg(feature = "net")]
pub mod net;
mod pace;
mod quota;
pub mod recent;
pub mod session;
pub mod sight;
mod stream;
mod upload;

pub use hub::{Hub, SessionId};
pub use pace::{BURST_SECONDS, Rates};
pub use recent::Recent;
pub use session::{Action, Session, SessionContext};
