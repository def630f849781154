//! Who may be told that a row was deleted: somebody who could see it then (spec PL18). For all
//! others it is a row like one that never was.

use syncline_core::rules::{Grant, Identity};

use super::{context::Context, state::State};
use crate::{meta::RowMeta, want::Missing};

/// Whether one of the deleted row's buckets was the user's when it was deleted: always, granted
/// before and still, or taken away by what deleted the row.
pub(crate) fn could_see(
    context: &Context,
    state: &State,
    identity: &Identity,
    tombstone: &RowMeta,
) -> Result<bool, Missing> {
    let reader = context.rules().reader(identity);
    let mut wants = Vec::new();
    for &bucket in &tombstone.grave {
        if reader.fixed.contains(&bucket) {
            return Ok(true);
        }
        for &grantee in &reader.grantees {
            match state.was_granted(Grant { grantee, bucket }, tombstone.version) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(missing) => wants.extend(missing.0),
            }
        }
    }
    if wants.is_empty() {
        Ok(false)
    } else {
        Err(Missing(wants))
    }
}
