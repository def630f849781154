//! Tables that have fewer columns than they had: what is known of their rows is made to fit.

use syncline_core::{Row, RowKey, Value};

use super::newcomers::aside;
use crate::{
    apply::record_extra,
    error::ReplicaError,
    meta::ledger::{self, Known},
    tables::SyncedTable,
    work::Work,
};

/// Known rows that are looked at together.
const TAKEN: usize = 1_000;

/// Computes the content hash of every known row anew, without the columns that went. To be called
/// while every write was marked and all marks are sealed: then what lies in the table, or in the
/// shadow, is what the server has.
///
/// `newcomers` are the positions of columns that came at the same time: of those the server's
/// values are still kept aside.
pub(super) fn rehash(
    work: &mut Work<'_>,
    table: &SyncedTable,
    newcomers: &[usize],
) -> Result<(), ReplicaError> {
    let mut after: Option<RowKey> = None;
    loop {
        let keys = ledger::keys_after(work.conn, table.number(), after.as_ref(), TAKEN)?;
        let Some(last) = keys.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for key in keys {
            let Some(known) = ledger::get(work.conn, table.number(), &key)? else {
                continue;
            };
            if let Some(mut image) = work.server_image(table, &key)? {
                let extra = record_extra(&known)?;
                take_back(table, &key, newcomers, &mut image, &extra);
                let next = Known {
                    hash: table.hash(&image, &extra),
                    ..known.clone()
                };
                work.set_known(table, &key, Some(&known), Some(&next))?;
            }
        }
    }
}

/// The columns at `positions` as the server has them.
fn take_back(
    table: &SyncedTable,
    key: &RowKey,
    positions: &[usize],
    image: &mut Row,
    extra: &[(syncline_core::ColumnNumber, Value)],
) {
    for &position in positions {
        image.0[position] = aside(table, key, position, extra);
    }
}
