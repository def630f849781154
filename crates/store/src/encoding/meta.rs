//! Clocks, remains and buckets of a row.

use std::collections::BTreeMap;

use minicbor::{Decoder, Encoder, decode};
use syncline_core::{
    BucketId, ColumnNumber, Value,
    merge::{Clock, ColumnState},
};

use super::{
    Encoded, EncodingError, IN_MEMORY, Out,
    parts::{array_of, decode_clock, decode_value, encode_clock, encode_value, join, map, split},
};
use crate::meta::{ColumnStates, RowMeta};

impl RowMeta {
    /// What no index looks at: `clock`, `columns`, `remains` and `grave`.
    #[must_use]
    pub fn encode_state(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.try_encode_state(&mut Encoder::new(&mut out))
            .expect(IN_MEMORY);
        out
    }

    fn try_encode_state(&self, e: &mut Out<'_>) -> Encoded {
        e.array(if self.grave.is_empty() { 3 } else { 4 })?;
        encode_clock(e, &self.clock)?;
        e.map(self.columns.len() as u64)?;
        for (number, state) in self.columns.iter() {
            e.u32(number.0)?.array(2)?;
            encode_clock(e, &state.clock)?;
            e.map(state.members.len() as u64)?;
            for (path, clock) in &state.members {
                e.str(path)?;
                encode_clock(e, clock)?;
            }
        }
        e.map(self.remains.len() as u64)?;
        for (number, value) in &self.remains {
            e.u32(number.0)?;
            encode_value(e, value)?;
        }
        if !self.grave.is_empty() {
            e.bytes(&join(&self.grave))?;
        }
        Ok(())
    }

    /// Takes over what [`RowMeta::encode_state`] gave; everything else stays.
    ///
    /// # Errors
    /// [`EncodingError`]; then `self` is unchanged.
    pub fn decode_state(&mut self, bytes: &[u8]) -> Result<(), EncodingError> {
        let (clock, columns, remains, grave) =
            decode_state(&mut Decoder::new(bytes)).map_err(|source| EncodingError {
                what: "a row's clocks",
                source,
            })?;
        self.clock = clock;
        self.columns = columns;
        self.remains = remains;
        self.grave = grave;
        Ok(())
    }

    /// [`RowMeta::buckets`], one after the other.
    #[must_use]
    pub fn encode_buckets(&self) -> Vec<u8> {
        join(&self.buckets)
    }

    /// Takes over what [`RowMeta::encode_buckets`] gave.
    ///
    /// # Errors
    /// [`EncodingError`]; then `self` is unchanged.
    pub fn decode_buckets(&mut self, bytes: &[u8]) -> Result<(), EncodingError> {
        self.buckets = split(bytes).map_err(|source| EncodingError {
            what: "a row's buckets",
            source,
        })?;
        Ok(())
    }
}

type State = (
    Clock,
    ColumnStates,
    Vec<(ColumnNumber, Value)>,
    Vec<BucketId>,
);

fn decode_state(d: &mut Decoder<'_>) -> Result<State, decode::Error> {
    let has_grave = d.probe().array()?.is_some_and(|len| len > 3);
    array_of(d, if has_grave { 4 } else { 3 }, |d| {
        let clock = decode_clock(d)?;
        let mut columns = ColumnStates::default();
        for _ in 0..map(d)? {
            let number = ColumnNumber(d.u32()?);
            columns.insert(number, array_of(d, 2, decode_column)?);
        }
        let mut remains = Vec::new();
        for _ in 0..map(d)? {
            remains.push((ColumnNumber(d.u32()?), decode_value(d)?));
        }
        let grave = if has_grave {
            split(d.bytes()?)?
        } else {
            Vec::new()
        };
        Ok((clock, columns, remains, grave))
    })
}

fn decode_column(d: &mut Decoder<'_>) -> Result<ColumnState, decode::Error> {
    let clock = decode_clock(d)?;
    let mut members = BTreeMap::new();
    for _ in 0..map(d)? {
        members.insert(d.str()?.to_owned(), decode_clock(d)?);
    }
    Ok(ColumnState { clock, members })
}
