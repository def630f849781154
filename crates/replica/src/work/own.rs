//! What a file keeps in columns of its own, while rows are taken out of their tables and come back.

use syncline_core::RowKey;

use super::Work;
use crate::{error::ReplicaError, repeat, tables::SyncedTable};

impl Work<'_> {
    /// Keeps what the row has in columns of the file's own for when it is written again, as the
    /// row `to`.
    pub(crate) fn keep_own(
        &mut self,
        table: &SyncedTable,
        key: &RowKey,
        to: &RowKey,
    ) -> Result<(), ReplicaError> {
        let own = table.sql.read_own(self.conn, key)?;
        if !own.is_empty() {
            self.own.insert((table.number(), to.clone()), own);
        }
        Ok(())
    }

    /// Writes what was kept of the row. Where it does not fit any more, the row is there without.
    pub(super) fn put_own(
        &mut self,
        table: &SyncedTable,
        key: &RowKey,
    ) -> Result<(), ReplicaError> {
        if self.own.is_empty() {
            return Ok(());
        }
        let Some(own) = self.own.remove(&(table.number(), key.clone())) else {
            return Ok(());
        };
        let conn = self.conn;
        match repeat::write(conn, || table.sql.write_own(conn, key, &own))? {
            Err(error) if conn.is_autocommit() => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
