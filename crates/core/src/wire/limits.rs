//! What bytes may look like before anything is allocated for them (spec WI5).

use minicbor::{Decode, Decoder, data::Type, decode::Error};

use super::message::{
    CURSORS_MAX, LOAD_POSITIONS_MAX, LoadPosition, SUBSCRIPTIONS_MAX, Subscription, TABLES_MAX,
};
use crate::{
    ids::{Cursor, TableNumber},
    key::KEY_BYTES_MAX,
};

/// How deep arrays, maps and tags may lie in one another.
pub(super) const NESTING_MAX: usize = 32;

/// Walks over one item, of whatever kind, without keeping anything of it.
///
/// The decoder's own `skip` notes every open array of unknown length: sixteen bytes of memory for
/// each byte of a frame.
pub(super) fn skip(d: &mut Decoder<'_>) -> Result<(), Error> {
    skip_within(d, NESTING_MAX)
}

/// The same with this many levels left.
pub(super) fn skip_within(d: &mut Decoder<'_>, levels: usize) -> Result<(), Error> {
    let at = d.position();
    let inner = |levels: usize| {
        levels
            .checked_sub(1)
            .ok_or_else(|| Error::message(format!("nested deeper than {NESTING_MAX}")).at(at))
    };
    match d.datatype()? {
        Type::Array | Type::ArrayIndef => {
            let levels = inner(levels)?;
            match d.array()? {
                Some(count) => items(d, count, levels),
                None => until_break(d, levels),
            }
        }
        Type::Map | Type::MapIndef => {
            let levels = inner(levels)?;
            match d.map()? {
                Some(count) => items(d, count.saturating_mul(2), levels),
                None => until_break(d, levels),
            }
        }
        Type::Tag => {
            d.tag()?;
            skip_within(d, inner(levels)?)
        }
        Type::Break | Type::Unknown(_) => Err(Error::message("no CBOR").at(at)),
        Type::Bool
        | Type::Null
        | Type::Undefined
        | Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::Int
        | Type::F16
        | Type::F32
        | Type::F64
        | Type::Simple
        | Type::Bytes
        | Type::BytesIndef
        | Type::String
        | Type::StringIndef => d.skip(),
    }
}

/// A false count ends with the bytes: every item takes at least one.
fn items(d: &mut Decoder<'_>, count: u64, levels: usize) -> Result<(), Error> {
    for _ in 0..count {
        skip_within(d, levels)?;
    }
    Ok(())
}

fn until_break(d: &mut Decoder<'_>, levels: usize) -> Result<(), Error> {
    while d.datatype()? != Type::Break {
        skip_within(d, levels)?;
    }
    d.set_position(d.position() + 1);
    Ok(())
}

/// A list of at most `MAX` items. A few bytes of a frame become many in memory.
fn at_most<'b, C, T: Decode<'b, C>>(
    d: &mut Decoder<'b>,
    ctx: &mut C,
    max: usize,
    what: &str,
) -> Result<Vec<T>, Error> {
    let at = d.position();
    let mut all = Vec::new();
    for item in d.array_iter_with(ctx)? {
        if all.len() == max {
            return Err(Error::message(format!("more than {max} {what}")).at(at));
        }
        all.push(item?);
    }
    Ok(all)
}

pub(super) fn cursors<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Vec<Cursor>, Error> {
    at_most(d, ctx, CURSORS_MAX, "cursors")
}

pub(super) fn positions<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Vec<LoadPosition>, Error> {
    at_most(d, ctx, LOAD_POSITIONS_MAX, "positions")
}

pub(super) fn tables<C>(
    d: &mut Decoder<'_>,
    ctx: &mut C,
) -> Result<Option<Vec<TableNumber>>, Error> {
    if d.datatype()? == Type::Null {
        d.null()?;
        return Ok(None);
    }
    at_most(d, ctx, TABLES_MAX, "tables").map(Some)
}

pub(super) fn some_subscriptions<C>(
    d: &mut Decoder<'_>,
    ctx: &mut C,
) -> Result<Vec<Subscription>, Error> {
    let at = d.position();
    let all: Vec<Subscription> = at_most(d, ctx, SUBSCRIPTIONS_MAX, "subscriptions")?;
    let mut keys = all.iter().filter_map(|one| one.key.as_ref());
    if keys.any(|key| key.len() > KEY_BYTES_MAX) {
        let sentence = format!("a subscription to a key of more than {KEY_BYTES_MAX} bytes");
        return Err(Error::message(sentence).at(at));
    }
    Ok(all)
}

pub(super) fn subscriptions<C>(
    d: &mut Decoder<'_>,
    ctx: &mut C,
) -> Result<Option<Vec<Subscription>>, Error> {
    if d.datatype()? == Type::Null {
        d.null()?;
        return Ok(None);
    }
    some_subscriptions(d, ctx).map(Some)
}
