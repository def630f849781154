//! The messages. Field numbers are for ever; new fields are optional or have a default.

mod greeting;
mod push;
mod stream;

use minicbor::{Decode, Encode};

pub use self::{greeting::*, push::*, stream::*};
use crate::ids::Timestamp;

/// The protocol this build speaks; a peer with another major number is refused by name.
pub const PROTOCOL: u32 = 1;

/// From a replica to a server.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time for each connection, never kept in numbers"
)]
pub enum ClientMessage {
    Hello(Hello),
    Push(Push),
    PushPart(PushPart),
    Credit(Credit),
    Token(TokenRenewal),
    Ping(Ping),
    Load(Load),
    Subscribe(Subscribe),
    /// A kind this build does not know: ignored.
    Unknown(u32),
}

/// From a server to a replica.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    Welcome(Box<Welcome>),
    PushResult(PushResult),
    Grants(Grants),
    Page(Page),
    Changes(Changes),
    Checkpoint(Checkpoint),
    Refusal(Refusal),
    Pong(Ping),
    /// A kind this build does not know: ignored.
    Unknown(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ping {
    #[n(0)]
    pub sent: Timestamp,
    /// The answerer's clock, in a Pong.
    #[n(1)]
    pub now: Timestamp,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
