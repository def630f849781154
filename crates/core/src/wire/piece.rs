//! Which changes of which changeset a piece has (spec WI8): places as ranges.

use minicbor::{Decoder, Encoder};

use super::{
    IN_MEMORY, MemoryEncoder,
    changeset::{ChangesetError, definite, malformed},
    message::CHANGES_MAX,
};
use crate::change::Piece;

/// Encodes a piece alone, for a device's own books.
#[must_use]
pub fn encode_piece(piece: &Piece) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut Encoder::new(&mut out), piece);
    out
}

/// Reads what [`encode_piece`] wrote.
///
/// # Errors
/// [`ChangesetError`].
pub fn decode_piece(bytes: &[u8]) -> Result<Piece, ChangesetError> {
    let mut d = Decoder::new(bytes);
    let piece = decode(&mut d)?;
    match d.position() == bytes.len() {
        true => Ok(piece),
        false => Err(malformed("bytes follow the piece")),
    }
}

pub(super) fn encode(e: &mut MemoryEncoder<'_>, piece: &Piece) {
    let ranges = ranges(&piece.places);
    e.array(2).expect(IN_MEMORY);
    e.bytes(&piece.whole.0).expect(IN_MEMORY);
    e.array(2 * ranges.len() as u64).expect(IN_MEMORY);
    for (first, count) in ranges {
        e.u32(first).expect(IN_MEMORY);
        e.u32(count).expect(IN_MEMORY);
    }
}

pub(super) fn decode(d: &mut Decoder<'_>) -> Result<Piece, ChangesetError> {
    if definite(d.array()?)? != 2 {
        return Err(malformed("a piece is a changeset's id and places in it"));
    }
    let whole = d.decode()?;
    let numbers = definite(d.array()?)?;
    if numbers % 2 != 0 {
        return Err(malformed("places come as first and count"));
    }
    let mut places: Vec<u32> = Vec::new();
    for _ in 0..numbers / 2 {
        let (first, count) = (d.u32()?, d.u32()?);
        if places.last().is_some_and(|last| first <= *last) || count == 0 {
            return Err(malformed("places ascend, each once"));
        }
        if count as usize > CHANGES_MAX - places.len() {
            return Err(ChangesetError::TooLarge {
                what: "places",
                limit: CHANGES_MAX,
            });
        }
        let end = first.checked_add(count);
        places.extend(first..end.ok_or_else(|| malformed("a place is no 32 bits"))?);
    }
    Ok(Piece { whole, places })
}

/// First place and length of each run.
fn ranges(places: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &place in places {
        match ranges.last_mut() {
            Some((first, count)) if *first + *count == place => *count += 1,
            _ => ranges.push((place, 1)),
        }
    }
    ranges
}
