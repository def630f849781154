//! Taking what the server sends into the file (docs/spec/apply.md).

use crate::error::ReplicaError;

mod checkpoint;
mod grants;
mod page;
mod record;
mod unsent;

/// Why something received was not applied. The transaction is rolled back.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The disk.
    Replica(ReplicaError),
    /// No sound server sends this: the session closes with the reason.
    Peer(String),
    /// This device's encryption key is another one: the session closes with code and reason.
    Key(&'static str, String),
}

impl From<ReplicaError> for Fault {
    fn from(error: ReplicaError) -> Self {
        Self::Replica(error)
    }
}

pub(crate) use checkpoint::{CheckpointInput, Kept, apply_checkpoint};
pub(crate) use grants::{add_grants, drop_grants, erase_gone, full_grants, load_positions};
pub(crate) use page::apply_page;
pub(crate) use record::{Stream, extra as record_extra, pack_extra};
