//! Which changes of which changeset a piece has (spec WI8): places as first and count of each run.

use minicbor::Decoder;

use super::{
    IN_MEMORY, MemoryEncoder,
    changeset::{ChangesetError, definite, malformed},
    message::CHANGES_MAX,
};
use crate::change::Piece;

pub(super) fn encode(e: &mut MemoryEncoder<'_>, piece: &Piece) {
    let runs = piece.runs();
    e.array(2).expect(IN_MEMORY);
    e.bytes(&piece.whole.0).expect(IN_MEMORY);
    e.array(2 * runs.len() as u64).expect(IN_MEMORY);
    for (first, last) in runs {
        e.u32(first).expect(IN_MEMORY);
        e.u32(last - first + 1).expect(IN_MEMORY);
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
