//! The end of a group: absolute values of grants and digests, tags, and the ledger.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use syncline_core::planted;
use syncline_core::{
    BucketId, TableNumber, Version,
    digest::{Digest, next_tag},
    rules::Grant,
};

use super::{context::Context, entry::ClosedEntry, state::State};
use crate::{
    log::{AccessChange, AccessTo, GrantChange, LogEntry},
    storage::{Counted, Head, Ledger, StorageError},
    want::Want,
};

/// The counts and digests that [`finish`] builds on.
pub(crate) fn finish_wants(state: &State) -> Vec<Want> {
    let mut grants = BTreeSet::new();
    let mut digests = BTreeSet::new();
    for entry in &state.entries {
        grants.extend(
            entry
                .grants
                .iter()
                .filter(|(_, d)| **d != 0)
                .map(|(grant, _)| *grant),
        );
        digests.extend(entry.digests.keys().copied());
    }
    let grants = grants.into_iter().map(Want::GrantCount);
    grants
        .chain(
            digests
                .into_iter()
                .map(|(bucket, table)| Want::Digest(bucket, table)),
        )
        .collect()
}

/// Turns everything that the group did into what the storage writes, and the log's new end.
///
/// # Errors
/// [`StorageError::Corrupt`] if a count would fall below zero.
pub(crate) fn finish(
    context: &Context,
    mut state: State,
) -> Result<(Ledger, Head, Access), StorageError> {
    let mut totals = Totals::default();
    let mut head = state.head;
    let mut entries = Vec::with_capacity(state.entries.len());
    let (mut history, mut pieces) = (Vec::new(), Vec::new());
    let mut access = Access::new();
    for entry in std::mem::take(&mut state.entries) {
        let grants = totals.grant(&state, &entry)?;
        let digests = totals.digest(&state, &entry);
        note_access(context, &entry, &grants, &mut access);
        note_rights(&entry, &mut access);
        head.version = entry.version;
        head.tag = next_tag(head.tag, entry.author.changeset);
        history.extend(entry.history);
        if let (Some(user), Some(piece)) = (&entry.author.user, entry.author.piece) {
            pieces.push((entry.version, user.clone(), piece));
        }
        entries.push(Arc::new(LogEntry {
            version: entry.version,
            tag: head.tag,
            changeset: entry.author.changeset,
            user: entry.author.user,
            device: entry.author.device,
            number: entry.author.number,
            hlc: entry.author.hlc,
            grants,
            records: entry.records,
            digests,
        }));
    }
    let rows = state.rows.into_iter().flat_map(|(table, rows)| {
        rows.into_iter()
            .map(move |(key, touched)| (table, key, touched))
    });
    let changed = rows.filter(|(_, _, touched)| touched.changed);
    let metas = changed.map(|(table, key, t)| (table, key, t.meta, t.ledger_buckets));
    let mut metas: Vec<_> = metas.collect();
    // A database finds its places faster in the order of keys, and a run can be repeated.
    metas.sort_unstable_by(|(a_table, a, ..), (b_table, b, ..)| (a_table, a).cmp(&(b_table, b)));
    let ledger = Ledger {
        metas,
        entries,
        pieces,
        history,
        digests: totals
            .digests
            .into_iter()
            .map(|((b, t), digest)| (b, t, digest))
            .collect(),
        grants: totals
            .grants
            .into_iter()
            .map(|(g, total)| (g, total.count, total.since))
            .collect(),
        devices: state.devices.into_values().collect(),
        owned: state.owned.into_iter().collect(),
        counted: match state.owned_doubtful {
            true => Counted::Doubtful,
            false => Counted::Same,
        },
        rules: None,
    };
    Ok((ledger, head, access))
}

/// Access that was given and taken, and for how many buckets.
pub(crate) type Access = BTreeMap<AccessChange, u64>;

/// Tells what `changes` mean to people. Not told is what goes with the row that it is access to:
/// its author may see what is made, and nobody what is deleted.
fn note_access(
    context: &Context,
    entry: &ClosedEntry,
    changes: &[GrantChange],
    access: &mut Access,
) {
    for change in changes {
        let (grantee, bucket) = (change.grantee, change.bucket);
        let Some(named) = entry.named.get(&Grant { grantee, bucket }) else {
            continue;
        };
        let by = entry.author.user.clone();
        let is_own = by.is_some() && by == named.user;
        let goes_with_its_row = match change.granted {
            true => is_own && entry.begun.contains(&bucket),
            false => entry.ended.contains(&bucket),
        };
        if goes_with_its_row {
            continue;
        }
        let change = AccessChange {
            by,
            user: named.user.clone(),
            via: named.via,
            to: AccessTo::See(context.rules().tables_of(bucket).to_vec()),
            granted: change.granted,
        };
        *access.entry(change).or_insert(0) += 1;
    }
}

/// As [`note_access`], of rights to write.
fn note_rights(entry: &ClosedEntry, access: &mut Access) {
    for (right, times) in &entry.rights {
        let change = AccessChange {
            by: entry.author.user.clone(),
            user: right.user.clone(),
            via: right.via,
            to: AccessTo::Write(right.allowed.clone()),
            granted: right.given,
        };
        *access.entry(change).or_insert(0) += times;
    }
}

/// Absolute values after the entries so far.
#[derive(Debug, Default)]
struct Totals {
    grants: BTreeMap<Grant, Paths>,
    digests: BTreeMap<(BucketId, TableNumber), Digest>,
}

#[derive(Debug)]
struct Paths {
    count: u64,
    since: Option<Version>,
}

impl Totals {
    fn grant(
        &mut self,
        state: &State,
        entry: &ClosedEntry,
    ) -> Result<Vec<GrantChange>, StorageError> {
        let mut changes = Vec::new();
        for (&grant, &difference) in &entry.grants {
            if difference == 0 {
                continue;
            }
            let loaded = state.loaded.grants.get(&grant).copied().unwrap_or(0);
            let paths = self.grants.entry(grant).or_insert(Paths {
                count: loaded,
                since: None,
            });
            let before = paths.count;
            let Some(after) = before.checked_add_signed(difference) else {
                let what = format!("bucket {} is granted {before} times", grant.bucket);
                return Err(StorageError::Corrupt(format!(
                    "{what}, {} are taken",
                    -difference
                )));
            };
            let after = match planted!(SecondGrantNotCounted) {
                true => after.min(1),
                false => after,
            };
            paths.count = after;
            if before == 0 {
                paths.since = Some(entry.version);
            }
            if (before == 0) != (after == 0) {
                let (grantee, bucket) = (grant.grantee, grant.bucket);
                changes.push(GrantChange {
                    grantee,
                    bucket,
                    granted: after > 0,
                });
            }
        }
        Ok(changes)
    }

    fn digest(
        &mut self,
        state: &State,
        entry: &ClosedEntry,
    ) -> Vec<(BucketId, TableNumber, Digest)> {
        let touched = entry.digests.iter().map(|(&place, difference)| {
            let loaded = state
                .loaded
                .digests
                .get(&place)
                .copied()
                .unwrap_or_default();
            let digest = self.digests.entry(place).or_insert(loaded);
            digest.count = digest.count.wrapping_add(difference.count);
            digest.sum = digest.sum.wrapping_add(difference.sum);
            (place.0, place.1, *digest)
        });
        touched.collect()
    }
}
