//! Parts that several encodings have.

use std::sync::Arc;

use minicbor::{Decoder, data::Type, decode};
use syncline_core::{BucketId, ChangesetId, DeviceId, Hlc, Value, Version, merge::Clock};

use super::{Encoded, Out};

pub(super) fn encode_clock(e: &mut Out<'_>, clock: &Clock) -> Encoded {
    e.array(4)?.u64(clock.version.0)?.u64(clock.hlc.0)?;
    e.bytes(&clock.changeset.0)?.bytes(&clock.device.0)?.ok()
}

pub(super) fn decode_clock(d: &mut Decoder<'_>) -> Result<Clock, decode::Error> {
    array_of(d, 4, |d| {
        Ok(Clock {
            version: Version(d.u64()?),
            hlc: Hlc(d.u64()?),
            changeset: ChangesetId(fixed(d)?),
            device: DeviceId(fixed(d)?),
        })
    })
}

pub(super) fn encode_value(e: &mut Out<'_>, value: &Value) -> Encoded {
    match value {
        Value::Null => e.null()?,
        Value::Integer(n) => e.i64(*n)?,
        Value::Real(x) => e.f64(*x)?,
        Value::Text(text) => e.str(text)?,
        Value::Blob(bytes) => e.bytes(bytes)?,
    };
    Ok(())
}

pub(super) fn decode_value(d: &mut Decoder<'_>) -> Result<Value, decode::Error> {
    let ty = d.datatype()?;
    Ok(if ty == Type::Null {
        d.null()?;
        Value::Null
    } else if ty == Type::F64 {
        Value::Real(d.f64()?)
    } else if ty == Type::String {
        Value::Text(d.str()?.to_owned())
    } else if ty == Type::Bytes {
        Value::Blob(d.bytes()?.to_vec())
    } else {
        Value::Integer(d.i64()?)
    })
}

pub(super) fn encode_option(e: &mut Out<'_>, bytes: Option<&[u8]>) -> Encoded {
    match bytes {
        Some(bytes) => e.bytes(bytes)?.ok(),
        None => e.null()?.ok(),
    }
}

pub(super) fn decode_option(d: &mut Decoder<'_>) -> Result<Option<Arc<[u8]>>, decode::Error> {
    if d.datatype()? == Type::Null {
        d.null()?;
        return Ok(None);
    }
    Ok(Some(d.bytes()?.into()))
}

pub(super) fn join(buckets: &[BucketId]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(buckets.len() * 16);
    for bucket in buckets {
        bytes.extend_from_slice(&bucket.0);
    }
    bytes
}

pub(super) fn split(bytes: &[u8]) -> Result<Vec<BucketId>, decode::Error> {
    let (ids, rest) = bytes.as_chunks::<16>();
    if rest.is_empty() {
        Ok(ids.iter().map(|id| BucketId(*id)).collect())
    } else {
        Err(decode::Error::message("buckets have 16 bytes each"))
    }
}

pub(super) fn fixed<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], decode::Error> {
    let at = d.position();
    let bytes = d.bytes()?.try_into();
    bytes.map_err(|_| decode::Error::message("an id of another length").at(at))
}

/// Reads an array of at least `known` elements, of which `read` takes the first `known`.
pub(super) fn array_of<'b, T>(
    d: &mut Decoder<'b>,
    known: u64,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, decode::Error>,
) -> Result<T, decode::Error> {
    let at = d.position();
    let len = array(d)?;
    if len < known {
        return Err(decode::Error::message("an array is too short").at(at));
    }
    let value = read(d)?;
    for _ in known..len {
        d.skip()?;
    }
    Ok(value)
}

pub(super) fn list<'b, T>(
    d: &mut Decoder<'b>,
    known: u64,
    mut read: impl FnMut(&mut Decoder<'b>) -> Result<T, decode::Error>,
) -> Result<Vec<T>, decode::Error> {
    (0..array(d)?)
        .map(|_| array_of(d, known, &mut read))
        .collect()
}

pub(super) fn array(d: &mut Decoder<'_>) -> Result<u64, decode::Error> {
    d.array()?
        .ok_or_else(|| decode::Error::message("an array without length"))
}

pub(super) fn map(d: &mut Decoder<'_>) -> Result<u64, decode::Error> {
    d.map()?
        .ok_or_else(|| decode::Error::message("a map without length"))
}
