//! The vocabulary and the pure logic of Syncline: values, keys, schema, rules, changes, clocks,
//! merge and the wire.
//!
//! Nothing here opens a file or a socket, reads a clock or draws a random number: whatever is
//! timed or random is an argument. The server, every device and the simulator run this same code.

#![forbid(unsafe_code)]

pub mod builtin;
pub mod change;
pub mod config;
pub mod device;
pub mod digest;
pub mod envelope;
pub mod hlc;
pub mod ids;
pub mod key;
pub mod merge;
#[doc(hidden)]
pub mod planted;
pub mod row;
pub mod rules;
pub mod schema;
pub mod sql;
pub mod value;
pub mod wire;

#[cfg(test)]
mod vectors;

pub use change::{Change, Changeset, ColumnEdit, Edit, Op, Piece};
pub use device::{DeviceName, DeviceNameError};
pub use hlc::Hlc;
pub use ids::{
    BucketId, ChangesetId, ColumnNumber, Cursor, DeviceId, FamilyId, Lease, TableNumber, Tag,
    Timestamp, UserId, Version,
};
pub use key::RowKey;
pub use row::Row;
pub use schema::{Column, ColumnType, MergeStrategy, Schema, Table};
pub use value::Value;
