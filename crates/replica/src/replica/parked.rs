//! What the server refused, and what a person makes of it: sent again, or forgotten.

use syncline_core::{ChangesetId, Timestamp};

use super::Replica;
use crate::{
    db,
    error::ReplicaError,
    meta::outbox::{self, Seq, State},
};

impl Replica {
    /// Puts a parked changeset, and those parked because they depend on it, at the end of the
    /// outbox again with the same ids. Returns how many: none where a table is missing, or where
    /// nothing is left to be sent.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownChangeset`] if it is not parked.
    pub fn retry(&mut self, id: ChangesetId, now: Timestamp) -> Result<u64, ReplicaError> {
        self.parked(id)?;
        let retried = self.unpark(id, now)?;
        self.pump(now)?;
        Ok(retried.len() as u64)
    }

    /// Has it and what waits for it sent again; which these are.
    pub(super) fn unpark(
        &mut self,
        id: ChangesetId,
        now: Timestamp,
    ) -> Result<Vec<ChangesetId>, ReplicaError> {
        let retried = self.transact(now, |work, entropy| {
            let mut retried = Vec::new();
            let Some(root) = outbox::by_id(work.conn, id)? else {
                return Ok(retried);
            };
            for seq in outbox::dependants(work.conn, [root.seq])? {
                let entry = outbox::entry(work.conn, seq)?;
                if let Some(entry) = entry.filter(|entry| entry.state == State::Parked)
                    && work.can_be_sent(&entry)?
                {
                    retried.push(entry.id);
                    work.unpark(entry)?;
                }
            }
            work.settle(entropy, now)?;
            Ok(retried)
        })?;
        Ok(retried.unwrap_or_default())
    }

    /// Forgets a parked changeset. Those that depend on it stay parked.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownChangeset`] if it is not parked.
    pub fn discard(&mut self, id: ChangesetId) -> Result<(), ReplicaError> {
        let seq = self.parked(id)?;
        db::immediate(&self.conn, || outbox::remove(&self.conn, seq))
    }

    fn parked(&self, id: ChangesetId) -> Result<Seq, ReplicaError> {
        let entry = outbox::by_id(&self.conn, id)?;
        entry
            .filter(|entry| entry.state == State::Parked)
            .map(|entry| entry.seq)
            .ok_or_else(|| ReplicaError::UnknownChangeset { id: id.to_string() })
    }
}
