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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn en2_an_envelope_is_read_as_it_was_written() {
        let sealed = [7; TAG_BYTES + 1];
        let key = KeyId([0, 1, 2, 3, 4, 5, 0xab, 0xff]);
        let envelope = Envelope {
            key,
            sealed: &sealed,
        };
        let bytes = envelope.to_bytes();
        assert_eq!(bytes.len(), HEAD_BYTES + 1);
        assert_eq!(bytes[..9], [0xE1, 0, 1, 2, 3, 4, 5, 0xab, 0xff]);
        assert_eq!(Envelope::parse(&bytes), Some(envelope));
        assert_eq!(key.to_string(), "000102030405abff");
        assert_eq!(format!("{key:?}"), "KeyId(000102030405abff)");
    }

    #[test]
    fn en2_what_nothing_seals_is_no_envelope() {
        let whole = Envelope {
            key: KeyId([1; KeyId::BYTES]),
            sealed: &[7; TAG_BYTES + 1],
        }
        .to_bytes();
        // A storage class is sealed with every value: a tag alone is of nothing.
        for len in 0..whole.len() {
            assert_eq!(Envelope::parse(&whole[..len]), None, "{len} bytes");
        }
        let mut of_another_format = whole.clone();
        of_another_format[0] = FORMAT + 1;
        assert_eq!(Envelope::parse(&of_another_format), None);

        let text = |text: &str| Value::Text(text.into());
        assert!(is_sealed(&Value::Null));
        assert!(is_sealed(&Value::Blob(whole)));
        for open in [
            Value::Blob(of_another_format),
            Value::Integer(1),
            Value::Real(1.5),
            text("plain"),
        ] {
            assert!(!is_sealed(&open), "{open:?}");
        }
    }
}
