//! Counting what users own, for the quotas of `[limits]` (spec LI6).

use std::collections::BTreeMap;

use syncline_core::{Timestamp, UserId, builtin::FIRST_OWN};

use super::drain_external;
use crate::{
    meta::Owned,
    plan::{Context, fingerprint, row_bytes},
    room::Room,
    storage::{Counted, Group, Ledger, Storage, StorageError},
    want::{Loaded, LoadedRow, Want},
};

/// Rows that are counted at once.
const BATCH: Room = Room {
    rows: 1_000,
    bytes: 16 * 1024 * 1024,
};
/// How often what other programs write meanwhile is taken in first.
const ATTEMPTS_MAX: u32 = 10;

/// Sees to it that what users own is counted where `context` has quotas, and nowhere else;
/// returns how many rows were looked at. From then on every group keeps the counts. To be called at start,
/// after what other programs wrote was taken in.
///
/// One transaction; memory does not grow with the number of rows or users.
///
/// # Errors
/// As every write; then nothing changed.
pub async fn count_owned<S: Storage>(
    storage: &mut S,
    context: &Context,
    now: Timestamp,
) -> Result<u64, StorageError> {
    let wanted = context
        .limits()
        .has_quota()
        .then(|| fingerprint(context.schema()));
    for _ in 0..ATTEMPTS_MAX {
        let mut group = storage.begin().await?;
        let counted = group.counted().await?;
        if counted == wanted {
            group.rollback().await;
            return Ok(0);
        }
        // The size that a marked row had before would be counted as well.
        if group.take_marks(Room::ONE).await?.marks.is_empty() {
            group.clear_owned().await?;
            let rows = match wanted {
                Some(fingerprint) => count(&mut group, context, fingerprint).await?,
                None => 0,
            };
            group.commit().await?;
            return Ok(rows);
        }
        group.rollback().await;
        if let Some(error) = drain_external(storage, context, now).await.failure {
            return Err(error);
        }
    }
    Err(StorageError::Busy)
}

async fn count<G: Group>(
    group: &mut G,
    context: &Context,
    fingerprint: [u8; 32],
) -> Result<u64, StorageError> {
    let mut rows = 0;
    let tables = context.schema().tables.iter();
    for table in tables.filter(|table| table.number >= FIRST_OWN) {
        let mut after = None;
        loop {
            let batch = group.scan(table.number, after.as_ref(), BATCH).await?;
            let Some((last, _)) = batch.last() else { break };
            after = Some(last.clone());
            rows += batch.len() as u64;
            let mut more = BTreeMap::<UserId, Owned>::new();
            for (key, LoadedRow { row, meta }) in batch {
                if let (Some(row), Some(owner)) = (row, meta.owner) {
                    let owned = more.entry(owner).or_default();
                    owned.rows += 1;
                    owned.bytes += row_bytes(&key, &row);
                }
            }
            let mut loaded = Loaded::default();
            let wants: Vec<_> = more.keys().cloned().map(Want::Owned).collect();
            group.load(&wants, &mut loaded).await?;
            let owned = more.into_iter().map(|(user, more)| {
                let before = loaded.owned.get(&user).copied().unwrap_or_default();
                let now = Owned {
                    rows: before.rows + more.rows,
                    bytes: before.bytes + more.bytes,
                };
                (user, now)
            });
            let ledger = Ledger {
                owned: owned.collect(),
                ..Ledger::default()
            };
            group.write_ledger(&ledger).await?;
        }
    }
    let ledger = Ledger {
        counted: Counted::All(fingerprint),
        ..Ledger::default()
    };
    group.write_ledger(&ledger).await?;
    Ok(rows)
}
