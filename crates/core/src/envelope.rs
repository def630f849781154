//! What a value of an encrypted column looks like to everybody without the key (spec EN2).
//!
//! Only the form is here, for the server to tell an envelope from a value that somebody sent
//! unsealed; sealing and opening is the replica's.

use std::fmt;

use crate::value::Value;

/// First byte of an envelope: its format.
pub const FORMAT: u8 = 0xE1;
/// Bytes of the authentication tag, which comes after format and key id.
pub const TAG_BYTES: usize = 16;
/// Bytes before what is sealed.
pub const HEAD_BYTES: usize = 1 + KeyId::BYTES + TAG_BYTES;

/// Which key an envelope was sealed with: a hash of it, which says nothing else about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; KeyId::BYTES]);

impl KeyId {
    pub const BYTES: usize = 8;
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// An envelope's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub key: KeyId,
    /// The tag and what is sealed.
    pub sealed: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// The parts of `bytes`; `None` for what nothing that seals makes.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[FORMAT])?;
        let (key, sealed) = rest.split_first_chunk()?;
        (sealed.len() > TAG_BYTES).then_some(Self {
            key: KeyId(*key),
            sealed,
        })
    }

    /// The envelope's bytes.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + KeyId::BYTES + self.sealed.len());
        bytes.push(FORMAT);
        bytes.extend(self.key.0);
        bytes.extend(self.sealed);
        bytes
    }
}

/// Whether an encrypted column may hold `value`: an envelope, or nothing.
#[must_use]
pub fn is_sealed(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Blob(bytes) => Envelope::parse(bytes).is_some(),
        Value::Integer(_) | Value::Real(_) | Value::Text(_) => false,
    }
}
