//! What travels between a replica and a server: CBOR maps with integer keys in binary frames.
//!
//! Wire types are their own types: a field number, once released, keeps its meaning for ever.
//! Decoders skip keys and message kinds they do not know (spec WI2).

mod body;
mod changeset;
mod convert;
mod edit;
mod frame;
mod ids;
mod limits;
mod message;
mod piece;
mod schema;
mod value;

#[cfg(test)]
mod tests;

pub use body::{BodyError, LentBody, LentState, RowBody, RowState};
pub use changeset::{
    ChangesetEncoder, ChangesetError, decode_changeset, decode_op, encode_changeset, encode_op,
};
pub use edit::EDITS_MAX;
pub use frame::{
    CLIENT_INFLATED_BYTES_MAX, COMPRESS_ABOVE_BYTES, FrameError, INFLATED_BYTES_MAX, decode_client,
    decode_server, encode_client, encode_server,
};
pub use message::*;
pub use schema::{
    ColumnInfo, ComputedInfo, ForeignKeyInfo, FurtherIndexInfo, SchemaInfo, TableInfo,
};

/// Writes into a buffer that grows.
type MemoryEncoder<'a> = minicbor::Encoder<&'a mut Vec<u8>>;

const IN_MEMORY: &str = "writing to memory cannot fail";
