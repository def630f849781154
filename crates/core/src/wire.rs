//! What travels between a replica and a server: CBOR maps with integer keys in binary frames.
//!
//! Wire types are their own types: a field number, once released, keeps its meaning for ever.
//! Decoders skip keys and message kinds they do not know (spec WI2).

mod body;
mod ids;
mod message;
mod schema;

pub use body::{RowBody, RowState};
pub use message::*;
pub use schema::{ColumnInfo, ForeignKeyInfo, SchemaInfo, TableInfo};
