//! Identities: newtypes, so that a version and a clock reading cannot be swapped.

use std::fmt;

/// The place of a change in a server's log: microseconds since 1970, made strictly growing.
///
/// Below 2^53, so it survives JavaScript. `ZERO` means "never seen by a server" (spec ID1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl Version {
    /// Before every change of every log.
    pub const ZERO: Self = Self(0);
    /// One past the largest version that may be given out (2^53).
    pub const LIMIT: u64 = 1 << 53;

    /// The version that follows `self` at the time `now`: `max(now, self + 1)`.
    ///
    /// # Panics
    /// If the result would reach [`Version::LIMIT`] (the year 2255).
    #[must_use]
    pub fn next(self, now: Timestamp) -> Self {
        let next = now.0.max(self.0 + 1);
        assert!(next < Self::LIMIT, "versions end at 2^53");
        Self(next)
    }
}

/// Microseconds since 1970-01-01T00:00:00Z, as a clock showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Milliseconds since 1970, rounded down.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0 / 1000
    }
    /// From milliseconds since 1970.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1000))
    }
    /// `self` moved on by `millis` milliseconds.
    #[must_use]
    pub fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1000)))
    }
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The id with exactly these bytes, or `None` when the length differs.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Some(Self(bytes.try_into().ok()?))
            }
            /// Parses the lower-case hexadecimal form that `Display` prints.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $len];
                let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
                if text.len() != 2 * $len || !text.bytes().all(is_digit) {
                    return None;
                }
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
                }
                Some(Self(bytes))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

bytes_id! {
    /// Names one changeset for ever: 128 random bits, minted at sealing, unique in the log.
    ChangesetId, 16
}
bytes_id! {
    /// Names one replica: 128 random bits, replaced when the file turns out to be a copy.
    DeviceId, 16
}
bytes_id! {
    /// Proves that a device file is the one the server spoke to last (spec ID6).
    Lease, 16
}
bytes_id! {
    /// A bucket's name outside the server: a keyed hash, so it tells nothing (spec RU7).
    BucketId, 16
}

impl BucketId {
    /// What Hello adds up of the buckets that a replica holds: both halves of the id, so that a bit
    /// anywhere in it shows.
    #[must_use]
    pub fn summand(self) -> u64 {
        let (head, tail) = self.0.split_at(8);
        let half = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |n, byte| n << 8 | u64::from(*byte))
        };
        half(head).wrapping_add(half(tail))
    }
}

bytes_id! {
    /// Chains the log: hash of the previous tag and the changeset's id (spec ID3).
    Tag, 8
}

/// Names a bucket family: the first 8 bytes of the hash of its definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilyId(pub u64);

/// A user as tokens name them (`sub`): 1 to 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub String);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A table's number, given by the server and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableNumber(pub u32);

/// A column's number within its table, given by the server and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColumnNumber(pub u32);

/// A place in one server's log, proved by the tag of the changeset that ends there.
///
/// `mac` binds it to the user and the device that received it; only the server can check it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Cursor {
    pub version: Version,
    pub tag: Tag,
    pub mac: Tag,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A device whose disk or network changed one would never be told of its rows.
    #[test]
    fn se5_a_bit_anywhere_in_a_buckets_name_shows() {
        let bucket = BucketId(*b"sixteen bytes it");
        for bit in 0..128 {
            let mut other = bucket;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(other.summand(), bucket.summand(), "bit {bit}");
        }
    }

    #[test]
    fn a_user_is_shown_as_tokens_name_them() {
        assert_eq!(
            UserId("ann@example.org".to_owned()).to_string(),
            "ann@example.org"
        );
    }

    proptest! {
        #[test]
        fn id1_versions_grow_strictly_and_are_the_time_where_it_moves_on(
            start in 0..Version::LIMIT - 2000,
            clock in prop::collection::vec(0..Version::LIMIT - 2000, 1..1000),
        ) {
            let mut last = Version(start);
            for now in clock {
                let next = last.next(Timestamp(now));
                prop_assert!(next > last);
                prop_assert!(next.0 < Version::LIMIT);
                prop_assert_eq!(next.0, if now > last.0 { now } else { last.0 + 1 });
                last = next;
            }
        }

        #[test]
        fn id1_a_version_survives_a_double(version in 0..Version::LIMIT) {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "that none happens is what is shown"
            )]
            let again = version as f64 as u64;
            prop_assert_eq!(again, version);
        }

        #[test]
        fn an_id_is_read_as_it_is_shown_and_in_no_other_spelling(bytes: [u8; 16]) {
            let id = ChangesetId(bytes);
            let shown = id.to_string();
            prop_assert_eq!(ChangesetId::from_hex(&shown), Some(id));
            prop_assert_eq!(ChangesetId::from_slice(&bytes), Some(id));
            let upper = shown.to_uppercase();
            prop_assert_eq!(ChangesetId::from_hex(&upper), (upper == shown).then_some(id));
            for other in [&shown[1..], &format!("{shown}0"), &format!("+{}", &shown[1..]), ""] {
                prop_assert_eq!(ChangesetId::from_hex(other), None, "{}", other);
            }
        }
    }

    #[test]
    fn id1_zero_comes_before_every_version() {
        assert_eq!(Version::default(), Version::ZERO);
        assert_eq!(Version::ZERO.next(Timestamp(0)), Version(1));
    }

    #[test]
    #[should_panic(expected = "versions end at 2^53")]
    fn id1_there_is_no_version_2_to_the_53() {
        let _ = Version(Version::LIMIT - 1).next(Timestamp(0));
    }
}
