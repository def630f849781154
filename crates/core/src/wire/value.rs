//! Values on the wire: null, integer, 64-bit float, text or bytes (spec WI7).

use minicbor::{Decoder, data::Type, decode::Error};

use super::MemoryEncoder;
use crate::value::Value;

/// Writes `value`; NaN, which is no value, as null.
pub(super) fn encode_value(e: &mut MemoryEncoder<'_>, value: &Value) {
    match value {
        Value::Null => e.null(),
        Value::Integer(n) => e.i64(*n),
        Value::Real(x) if x.is_nan() => e.null(),
        Value::Real(x) => e.f64(*x),
        Value::Text(text) => e.str(text),
        Value::Blob(bytes) => e.bytes(bytes),
    }
    .map(drop)
    .expect(super::IN_MEMORY);
}

/// Reads a value. NaN and −0.0, which no canonical value is, become null and 0.0.
pub(super) fn decode_value(d: &mut Decoder<'_>) -> Result<Value, Error> {
    Ok(match d.datatype()? {
        Type::Null => {
            d.null()?;
            Value::Null
        }
        Type::F64 => match d.f64()? {
            x if x.is_nan() => Value::Null,
            // Adding +0.0 turns −0.0 into 0.0 and leaves everything else.
            x => Value::Real(x + 0.0),
        },
        Type::String => Value::Text(d.str()?.to_owned()),
        Type::Bytes => Value::Blob(d.bytes()?.to_vec()),
        Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::Int => Value::Integer(d.i64()?),
        other @ (Type::Bool
        | Type::Undefined
        | Type::F16
        | Type::F32
        | Type::Simple
        | Type::BytesIndef
        | Type::StringIndef
        | Type::Array
        | Type::ArrayIndef
        | Type::Map
        | Type::MapIndef
        | Type::Tag
        | Type::Break
        | Type::Unknown(_)) => {
            return Err(Error::type_mismatch(other)
                .at(d.position())
                .with_message("no value"));
        }
    })
}
