//! Forgetting what is older than the horizon.

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use syncline_core::Version;
use syncline_core::planted;

use crate::{
    fault::Result,
    ledger,
    value::{signed, version},
};

/// Rows deleted in one transaction: short enough that other programs can write in between.
const BATCH: i64 = 1_000;

/// Moves the horizon to the newest entry that ends at or before `wanted`, then forgets what is
/// not after it.
pub(crate) fn trim(conn: &mut Connection, wanted: Version) -> Result<()> {
    let Some(horizon) = move_horizon(conn, wanted)? else {
        return Ok(());
    };
    let horizon = signed(horizon.0);
    // Entries before the horizon's, which stays as the tag that cursors there are checked with.
    let log = "DELETE FROM syncline_log WHERE version IN
               (SELECT version FROM syncline_log WHERE version < ?1 ORDER BY version LIMIT ?2)";
    let tombstones = "DELETE FROM syncline_rows WHERE (table_no, key) IN
                      (SELECT table_no, key FROM syncline_rows
                       WHERE deleted = 1 AND version <= ?1 ORDER BY version LIMIT ?2)";
    let tombstones = match planted!(TombstoneDropped) {
        true => "DELETE FROM syncline_rows WHERE deleted = 1 AND ?1 AND ?2",
        false => tombstones,
    };
    let pieces = "DELETE FROM syncline_pieces WHERE (whole, user, first) IN
                  (SELECT whole, user, first FROM syncline_pieces
                   WHERE version <= ?1 ORDER BY version LIMIT ?2)";
    for sql in [log, pieces, tombstones] {
        while conn.prepare_cached(sql)?.execute((horizon, BATCH))? > 0 {}
    }
    Ok(())
}

/// `None`: there is no such entry.
fn move_horizon(conn: &mut Connection, wanted: Version) -> Result<Option<Version>> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sql = "SELECT version FROM syncline_log WHERE version <= ?1 ORDER BY version DESC LIMIT 1";
    let found = transaction
        .prepare_cached(sql)?
        .query_row([signed(wanted.0)], |row| version(row, 0))
        .optional()?;
    let Some(horizon) = found else {
        return Ok(None);
    };
    let head = ledger::head(&transaction)?;
    if horizon > head.horizon {
        ledger::set(&transaction, "horizon", horizon)?;
        if horizon < head.version {
            let sql = "UPDATE syncline_log SET changeset = NULL, body = x'' WHERE version = ?1";
            transaction
                .prepare_cached(sql)?
                .execute([signed(horizon.0)])?;
        }
    }
    transaction.commit()?;
    Ok(Some(horizon))
}
