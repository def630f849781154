//! Writing down who gives and takes access, in the transaction that does it (spec AC16, AC17).

use std::{collections::BTreeMap, fmt::Debug};

use syncline_core::{Schema, Timestamp};

use crate::{accounts::AccountRecords, log::AccessChange, storage::StorageError};

/// Keeps the audit log of commits.
pub trait Auditor: Debug + Send + Sync {
    /// Writes down with `records`, which belong to the commit's own transaction, what `access`
    /// tells. The transaction ends with it: what cannot be written down does not happen. One
    /// transaction is open at a time, and it may come to nothing without a word.
    ///
    /// # Errors
    /// Those of `records`.
    fn note(
        &self,
        records: &mut dyn AccountRecords,
        schema: &Schema,
        access: &BTreeMap<AccessChange, u64>,
        now: Timestamp,
    ) -> Result<(), StorageError>;

    /// The transaction of the last [`Auditor::note`] is durable.
    fn committed(&self);
}
