//! What a record of history holds besides its place and author.

use minicbor::{Decoder, Encoder, data::Type, decode};
use syncline_core::{BucketId, ColumnNumber, Value};

use super::{
    Encoded, EncodingError, IN_MEMORY, Out,
    parts::{array_of, decode_value, encode_value, join, map, split},
};
use crate::history::{HistoryChange, HistoryRecord};

impl HistoryRecord {
    /// What no index looks at: `change`, `before`, `after` and `old`.
    #[must_use]
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.try_encode_body(&mut Encoder::new(&mut out))
            .expect(IN_MEMORY);
        out
    }

    fn try_encode_body(&self, e: &mut Out<'_>) -> Encoded {
        e.array(4)?.u8(match self.change {
            HistoryChange::Insert => 0,
            HistoryChange::Update => 1,
            HistoryChange::Delete => 2,
        })?;
        e.bytes(&join(&self.before))?;
        // Most changes leave a row where it is.
        if self.after == self.before {
            e.null()?;
        } else {
            e.bytes(&join(&self.after))?;
        }
        e.map(self.old.len() as u64)?;
        for (number, value) in &self.old {
            e.u32(number.0)?;
            match value {
                Some(value) => encode_value(e, value)?,
                None => e.undefined()?.ok()?,
            }
        }
        Ok(())
    }

    /// Takes over what [`HistoryRecord::encode_body`] gave; everything else stays.
    ///
    /// # Errors
    /// [`EncodingError`]; then `self` is unchanged.
    pub fn decode_body(&mut self, bytes: &[u8]) -> Result<(), EncodingError> {
        let body = decode_body(&mut Decoder::new(bytes)).map_err(|source| EncodingError {
            what: "a record of history",
            source,
        })?;
        (self.change, self.before, self.after, self.old) = body;
        Ok(())
    }
}

type Body = (
    HistoryChange,
    Vec<BucketId>,
    Vec<BucketId>,
    Vec<(ColumnNumber, Option<Value>)>,
);

fn decode_body(d: &mut Decoder<'_>) -> Result<Body, decode::Error> {
    array_of(d, 4, |d| {
        let at = d.position();
        let change = match d.u8()? {
            0 => HistoryChange::Insert,
            1 => HistoryChange::Update,
            2 => HistoryChange::Delete,
            _ => return Err(decode::Error::message("an unknown change").at(at)),
        };
        let before = split(d.bytes()?)?;
        let after = if d.datatype()? == Type::Null {
            d.null()?;
            before.clone()
        } else {
            split(d.bytes()?)?
        };
        let mut old = Vec::new();
        for _ in 0..map(d)? {
            let number = ColumnNumber(d.u32()?);
            let value = if d.datatype()? == Type::Undefined {
                d.undefined()?;
                None
            } else {
                Some(decode_value(d)?)
            };
            old.push((number, value));
        }
        Ok((change, before, after, old))
    })
}
