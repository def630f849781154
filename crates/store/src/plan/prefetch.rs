//! What a group will certainly ask for, so that the usual one is planned in one round.

use std::collections::{BTreeSet, HashSet};

use syncline_core::{ChangesetId, DeviceId, Op, RowKey, TableNumber, UserId};

use super::{context::Context, submission::Submission};
use crate::want::Want;

/// Everything that planning `submissions` will look at first, each once.
#[must_use]
pub fn prefetch(context: &Context, submissions: &[Submission]) -> Vec<Want> {
    let changes = submissions.iter().map(|one| one.changeset.changes.len());
    let changes: usize = changes.sum();
    let mut wants = Vec::with_capacity(changes + submissions.len());
    let mut changesets: BTreeSet<ChangesetId> = BTreeSet::new();
    let mut devices: BTreeSet<DeviceId> = BTreeSet::new();
    let mut rows: HashSet<(TableNumber, &RowKey)> = HashSet::with_capacity(changes);
    let mut users: BTreeSet<&UserId> = BTreeSet::new();
    for submission in submissions {
        let piece = submission.changeset.piece.as_ref();
        if let (Some(user), Some(piece)) = (&submission.identity.user, piece) {
            wants.push(Want::Pieces(user.clone(), piece.clone()));
        }
        let whole = piece.map(|piece| piece.whole);
        for id in [submission.changeset.id].into_iter().chain(whole) {
            if changesets.insert(id) {
                wants.push(Want::Changeset(id));
            }
        }
        if devices.insert(submission.device) {
            wants.push(Want::Device(submission.device));
        }
        let user = submission.identity.user.as_ref();
        let counted = user.filter(|_| context.limits().has_quota());
        wants.extend(
            counted
                .filter(|user| users.insert(user))
                .cloned()
                .map(Want::Owned),
        );
        for change in &submission.changeset.changes {
            let Some(table) = context.table(change.table) else {
                continue;
            };
            if !rows.insert((change.table, &change.key)) {
                continue;
            }
            wants.push(Want::Row(change.table, change.key.clone()));
            // A new row may be the parent of rows that wait for it.
            if let (Op::Insert(_), false) = (&change.op, table.inheriting.is_empty()) {
                let children = context.rules().child_lookups(change.table, &change.key);
                wants.extend(
                    children
                        .into_iter()
                        .map(|(t, c, value)| Want::Matching(t, c, value)),
                );
            }
        }
    }
    wants
}
