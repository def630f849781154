//! Frames: one flag byte and one message, compressed where that pays (spec WI1–WI6).

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::{
    limits,
    message::{ClientMessage, ServerMessage},
};

/// Longest payload of a server's frame, inflated: the largest changeset and room around it.
pub const INFLATED_BYTES_MAX: usize = 80 * 1024 * 1024;
/// Longest payload of a client's frame, inflated: large changesets travel in parts.
pub const CLIENT_INFLATED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Payloads up to this length are never compressed.
pub const COMPRESS_ABOVE_BYTES: usize = 1024;

/// What a checkpoint or an answer takes.
const SHORT_BYTES: usize = 256;

const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;

/// Why a frame cannot be read. The sender's fault, always.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the frame is empty")]
    Empty,
    #[error("the frame's flag byte is {0}; this version knows 0 (plain) and 1 (deflate)")]
    UnknownFlag(u8),
    #[error("the payload is longer than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the compressed payload is damaged or cut short")]
    Deflate,
    #[error(
        "the peer speaks protocol {theirs}, this version {}: upgrade the older of the two",
        super::PROTOCOL
    )]
    Protocol { theirs: u32 },
    #[error("the payload is no message of kind {kind:?}: {reason}")]
    Malformed {
        /// The message's kind where it could be read.
        kind: Option<u32>,
        reason: String,
    },
}

impl FrameError {
    /// The code of the [`super::Refusal`] that answers such a frame.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => super::code::TOO_LARGE,
            Self::Protocol { .. } => super::code::PROTOCOL,
            Self::Empty | Self::UnknownFlag(_) | Self::Deflate | Self::Malformed { .. } => {
                super::code::MALFORMED
            }
        }
    }
}

/// Kinds of messages: given once, never reused (spec WI3).
mod kind {
    pub(super) mod client {
        pub(in super::super) const HELLO: u32 = 1;
        pub(in super::super) const PUSH: u32 = 2;
        pub(in super::super) const PUSH_PART: u32 = 3;
        pub(in super::super) const CREDIT: u32 = 4;
        pub(in super::super) const TOKEN: u32 = 5;
        pub(in super::super) const PING: u32 = 6;
        pub(in super::super) const LOAD: u32 = 7;
        pub(in super::super) const SUBSCRIBE: u32 = 8;
    }
    pub(super) mod server {
        pub(in super::super) const WELCOME: u32 = 1;
        pub(in super::super) const PUSH_RESULT: u32 = 2;
        pub(in super::super) const GRANTS: u32 = 3;
        pub(in super::super) const PAGE: u32 = 4;
        pub(in super::super) const CHANGES: u32 = 5;
        pub(in super::super) const CHECKPOINT: u32 = 6;
        pub(in super::super) const REFUSAL: u32 = 7;
        pub(in super::super) const PONG: u32 = 8;
    }
}

/// The frame of a replica's message. `Unknown` becomes a message with no fields.
#[must_use]
pub fn encode_client(message: &ClientMessage) -> Vec<u8> {
    use kind::client as k;
    match message {
        ClientMessage::Hello(m) => frame(k::HELLO, m),
        ClientMessage::Push(m) => frame(k::PUSH, m),
        ClientMessage::PushPart(m) => frame(k::PUSH_PART, m),
        ClientMessage::Credit(m) => frame(k::CREDIT, m),
        ClientMessage::Token(m) => frame(k::TOKEN, m),
        ClientMessage::Ping(m) => frame(k::PING, m),
        ClientMessage::Load(m) => frame(k::LOAD, m),
        ClientMessage::Subscribe(m) => frame(k::SUBSCRIBE, m),
        ClientMessage::Unknown(kind) => frame(*kind, NoFields),
    }
}

/// The frame of a server's message. `Unknown` becomes a message with no fields.
#[must_use]
pub fn encode_server(message: &ServerMessage) -> Vec<u8> {
    use kind::server as k;
    match message {
        ServerMessage::Welcome(m) => frame(k::WELCOME, m),
        ServerMessage::PushResult(m) => frame(k::PUSH_RESULT, m),
        ServerMessage::Grants(m) => frame(k::GRANTS, m),
        ServerMessage::Page(m) => frame(k::PAGE, m),
        ServerMessage::Changes(m) => frame(k::CHANGES, m),
        ServerMessage::Checkpoint(m) => frame(k::CHECKPOINT, m),
        ServerMessage::Refusal(m) => frame(k::REFUSAL, m),
        ServerMessage::Pong(m) => frame(k::PONG, m),
        ServerMessage::Unknown(kind) => frame(*kind, NoFields),
    }
}

/// Reads a frame that a replica sent.
///
/// # Errors
/// [`FrameError`] for anything that is not exactly one message within
/// [`CLIENT_INFLATED_BYTES_MAX`]; [`FrameError::Protocol`] for a Hello of another protocol that
/// looks different from ours.
pub fn decode_client(frame: &[u8]) -> Result<ClientMessage, FrameError> {
    use kind::client as k;
    let mut inflated = Vec::new();
    let (kind, d) = open(frame, CLIENT_INFLATED_BYTES_MAX, &mut inflated)?;
    Ok(match kind {
        k::HELLO => ClientMessage::Hello(opening(kind, d)?),
        k::PUSH => ClientMessage::Push(body(kind, d)?),
        k::PUSH_PART => ClientMessage::PushPart(body(kind, d)?),
        k::CREDIT => ClientMessage::Credit(body(kind, d)?),
        k::TOKEN => ClientMessage::Token(body(kind, d)?),
        k::PING => ClientMessage::Ping(body(kind, d)?),
        k::LOAD => ClientMessage::Load(body(kind, d)?),
        k::SUBSCRIBE => ClientMessage::Subscribe(body(kind, d)?),
        unknown => ClientMessage::Unknown(unknown),
    })
}

/// Reads a frame that a server sent.
///
/// # Errors
/// [`FrameError`] for anything that is not exactly one message within [`INFLATED_BYTES_MAX`].
pub fn decode_server(frame: &[u8]) -> Result<ServerMessage, FrameError> {
    use kind::server as k;
    let mut inflated = Vec::new();
    let (kind, d) = open(frame, INFLATED_BYTES_MAX, &mut inflated)?;
    Ok(match kind {
        k::WELCOME => ServerMessage::Welcome(opening(kind, d)?),
        k::PUSH_RESULT => ServerMessage::PushResult(body(kind, d)?),
        k::GRANTS => ServerMessage::Grants(body(kind, d)?),
        k::PAGE => ServerMessage::Page(body(kind, d)?),
        k::CHANGES => ServerMessage::Changes(body(kind, d)?),
        k::CHECKPOINT => ServerMessage::Checkpoint(body(kind, d)?),
        k::REFUSAL => ServerMessage::Refusal(body(kind, d)?),
        k::PONG => ServerMessage::Pong(body(kind, d)?),
        unknown => ServerMessage::Unknown(unknown),
    })
}

/// An empty map, for a kind this build does not know.
struct NoFields;

impl<C> Encode<C> for NoFields {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.map(0)?.ok()
    }
}

fn frame(kind: u32, fields: impl Encode<()>) -> Vec<u8> {
    // Most are short: these grow no buffer.
    let mut out = Vec::with_capacity(SHORT_BYTES);
    out.push(PLAIN);
    let mut e = Encoder::new(&mut out);
    e.array(2)
        .and_then(|e| e.u32(kind))
        .and_then(|e| e.encode(fields))
        .map(drop)
        .expect("writing to memory cannot fail");
    deflated(&out[1..]).unwrap_or(out)
}

/// The compressed frame of `payload`, or `None` when it would not be smaller.
fn deflated(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() <= COMPRESS_ABOVE_BYTES {
        return None;
    }
    let mut out = Vec::with_capacity(payload.len());
    out.push(DEFLATED);
    // The buffer is as long as the plain frame: a payload that does not fit is not smaller.
    let is_smaller = DEFLATE.with_borrow_mut(|deflate| {
        deflate.reset();
        let status = deflate.compress_vec(payload, &mut out, FlushCompress::Finish);
        let is_smaller = matches!(status, Ok(Status::StreamEnd));
        if !is_smaller {
            end_stream(deflate, payload);
        }
        is_smaller
    });
    is_smaller.then_some(out)
}

/// Compresses the rest of `payload` for nobody: a deflater that is reset with a part of its output
/// still in its buffer panics at a later payload (zlib-rs 0.6.8 forgets where that part began).
fn end_stream(deflate: &mut Compress, payload: &[u8]) {
    let mut unread = [0; 4096];
    loop {
        let before = (deflate.total_in(), deflate.total_out());
        let rest = usize::try_from(before.0).map_or(&[][..], |taken| &payload[taken..]);
        let status = deflate.compress(rest, &mut unread, FlushCompress::Finish);
        match status {
            Ok(Status::StreamEnd) => return,
            Ok(Status::Ok | Status::BufError)
                if before != (deflate.total_in(), deflate.total_out()) => {}
            Ok(Status::Ok | Status::BufError) | Err(_) => return *deflate = deflater(),
        }
    }
}

/// Rows are repetitive: the fastest level gets most of what the slow ones get.
fn deflater() -> Compress {
    Compress::new(Compression::fast(), false)
}

thread_local! {
    /// Kept, for it holds a quarter of a megabyte: one for each frame leaves holes in the heap of a
    /// server into which the little that each session keeps falls, so that the next takes more.
    static DEFLATE: RefCell<Compress> = RefCell::new(deflater());
    static INFLATE: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// The kind of the message in `frame` and a decoder at its fields; `inflated` holds the payload
/// where it was compressed.
fn open<'b>(
    frame: &'b [u8],
    limit: usize,
    inflated: &'b mut Vec<u8>,
) -> Result<(u32, Decoder<'b>), FrameError> {
    let (&flag, payload) = frame.split_first().ok_or(FrameError::Empty)?;
    let payload = match flag {
        PLAIN if payload.len() > limit => return Err(FrameError::TooLarge { limit }),
        PLAIN => payload,
        DEFLATED => {
            inflate(payload, limit, inflated)?;
            inflated
        }
        unknown => return Err(FrameError::UnknownFlag(unknown)),
    };
    let malformed = |reason: String| FrameError::Malformed { kind: None, reason };
    let mut d = Decoder::new(payload);
    match d.array() {
        Ok(Some(2)) => {}
        Ok(_) => {
            return Err(malformed(
                "a message is an array of a kind and a map".into(),
            ));
        }
        Err(error) => return Err(malformed(error.to_string())),
    }
    let kind = d.u32().map_err(|error| malformed(error.to_string()))?;
    walk(kind, d.clone())?;
    Ok((kind, d))
}

/// Checks that `d` is at one item, no deeper than it may be, and nothing after it.
fn walk(kind: u32, mut d: Decoder<'_>) -> Result<(), FrameError> {
    // The array around it is a level too.
    limits::skip_within(&mut d, limits::NESTING_MAX - 1)
        .map_err(|error| malformed(kind, error.to_string()))?;
    if d.position() != d.input().len() {
        return Err(malformed(kind, "bytes follow the message".into()));
    }
    Ok(())
}

fn inflate(payload: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
    INFLATE.with_borrow_mut(|inflate| {
        inflate.reset(false);
        inflate_with(inflate, payload, limit, out)
    })
}

/// Inflates all of `payload` into `out`, whose length never passes `limit` by more than a byte.
fn inflate_with(
    inflate: &mut Decompress,
    payload: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    let mut done = 0;
    loop {
        if out.len() == out.capacity() {
            let more = out.len().max(4 * payload.len()).max(4096);
            out.reserve_exact(more.min(limit + 1 - out.len()));
        }
        let before = (done, out.len());
        let status = inflate
            .decompress_vec(&payload[done..], out, FlushDecompress::None)
            .map_err(|_| FrameError::Deflate)?;
        done = usize::try_from(inflate.total_in()).map_err(|_| FrameError::Deflate)?;
        if out.len() > limit {
            return Err(FrameError::TooLarge { limit });
        }
        match status {
            Status::StreamEnd if done == payload.len() => return Ok(()),
            Status::Ok | Status::BufError if before != (done, out.len()) => {}
            // Bytes after the end, or no end: there was room, and nothing moved.
            Status::StreamEnd | Status::Ok | Status::BufError => return Err(FrameError::Deflate),
        }
    }
}

fn body<'b, T: Decode<'b, ()>>(kind: u32, mut d: Decoder<'b>) -> Result<T, FrameError> {
    d.decode()
        .map_err(|error| malformed(kind, error.to_string()))
}

/// A message that begins a session. One that cannot be read may be of a protocol that gives its
/// fields another meaning; then that is what its sender has to know.
fn opening<'b, T: Decode<'b, ()>>(kind: u32, d: Decoder<'b>) -> Result<T, FrameError> {
    body(kind, d.clone()).map_err(|error| match protocol(d) {
        Some(theirs) if theirs != super::PROTOCOL => FrameError::Protocol { theirs },
        Some(_) | None => error,
    })
}

/// Field 0 of a Hello or Welcome, in this and every other protocol.
fn protocol(mut d: Decoder<'_>) -> Option<u32> {
    for _ in 0..d.map().ok()?? {
        if d.u32().ok()? == 0 {
            return d.u32().ok();
        }
        limits::skip(&mut d).ok()?;
    }
    None
}

fn malformed(kind: u32, reason: String) -> FrameError {
    FrameError::Malformed {
        kind: Some(kind),
        reason,
    }
}
