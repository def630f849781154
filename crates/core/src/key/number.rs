//! Numbers in keys: integers and reals in one order, equal ones with one encoding (spec CE11).

use crate::value::Value;

/// A number as the largest double that is not above it, and what is missing to it.
///
/// The rest is zero but for integers beyond 2^53, where doubles are up to 1024 apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    /// The double's bits, so changed that they sort as the doubles do.
    ordered: u64,
    rest: u16,
}

/// 2^63.
const INTEGER_LIMIT: f64 = 9_223_372_036_854_775_808.0;

impl Number {
    pub(super) fn from_integer(n: i64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "made good by the rest")]
        let nearest = n as f64;
        let floor = if whole(nearest) > i128::from(n) {
            nearest.next_down()
        } else {
            nearest
        };
        let rest = u16::try_from(i128::from(n) - whole(floor))
            .expect("neighbouring doubles below 2^63 are at most 1024 apart");
        Self {
            ordered: ordered(floor),
            rest,
        }
    }

    /// `x` is not NaN.
    pub(super) fn from_real(x: f64) -> Self {
        Self {
            ordered: ordered(x + 0.0),
            rest: 0,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.ordered.to_be_bytes());
        bytes[8..].copy_from_slice(&self.rest.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; 10]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j] = bytes;
        Self {
            ordered: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            rest: u16::from_be_bytes([i, j]),
        }
    }

    /// Whether encoding [`Number::value`] gives this again.
    pub(super) fn is_canonical(self) -> bool {
        match self.value() {
            Value::Integer(n) => Self::from_integer(n) == self,
            Value::Real(x) => !x.is_nan() && Self::from_real(x) == self,
            Value::Null | Value::Text(_) | Value::Blob(_) => false,
        }
    }

    /// An integer wherever it is one of 64 bits.
    pub(super) fn value(self) -> Value {
        let x = unordered(self.ordered);
        if x.fract() == 0.0
            && (-INTEGER_LIMIT..INTEGER_LIMIT).contains(&x)
            && let Ok(n) = i64::try_from(whole(x) + i128::from(self.rest))
        {
            return Value::Integer(n);
        }
        Value::Real(x)
    }
}

/// The integer that `x`, which is integral and at most 2^63 in size, is.
fn whole(x: f64) -> i128 {
    #[expect(clippy::cast_possible_truncation, reason = "integral and in range")]
    let n = x as i128;
    n
}

fn ordered(x: f64) -> u64 {
    let bits = x.to_bits();
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | (1 << 63)
    }
}

fn unordered(ordered: u64) -> f64 {
    f64::from_bits(if ordered >> 63 == 1 {
        ordered & !(1 << 63)
    } else {
        !ordered
    })
}
