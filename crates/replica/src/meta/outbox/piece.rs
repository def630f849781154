//! Changesets that were cut from others (spec SL8, OB12).

use rusqlite::Connection;
use syncline_core::{ChangesetId, Piece};

use super::{Entry, positions};
use crate::error::ReplicaError;

const CONTEXT: &str = "syncline 2026 pieces of a changeset, id";

/// The same for the same changes of the same changeset, whichever file they are in; so an id also
/// tells whether the positions are those that it was made of.
pub(crate) fn id_of_piece(
    whole: ChangesetId,
    positions: impl IntoIterator<Item = i64>,
) -> ChangesetId {
    let mut hash = blake3::Hasher::new_derive_key(CONTEXT);
    hash.update(&whole.0);
    for position in positions {
        hash.update(&position.to_le_bytes());
    }
    let mut id = ChangesetId::default();
    hash.finalize_xof().fill(&mut id.0);
    id
}

/// Gives a piece the id of what it has now; another changeset keeps its own.
pub(crate) fn name_piece(conn: &Connection, entry: &mut Entry) -> Result<(), ReplicaError> {
    if let Some(whole) = entry.whole {
        entry.id = id_of_piece(whole, positions(conn, entry.seq)?);
    }
    Ok(())
}

/// What a server is told of a changeset with changes at these positions.
pub(crate) fn piece_of(entry: &Entry, places: Vec<u32>) -> Option<Piece> {
    let whole = entry.whole?;
    Some(Piece { whole, places })
}

/// What is kept of them for a server that loses its log: another changeset is a piece of itself, if
/// its changes are not simply numbered.
pub(crate) fn piece_to_keep(entry: &Entry, places: Vec<u32>) -> Option<Piece> {
    let are_counted = (0..).zip(&places).all(|(count, place)| count == *place);
    let whole = match entry.whole {
        None if are_counted => return None,
        whole => whole.unwrap_or(entry.id),
    };
    Some(Piece { whole, places })
}
