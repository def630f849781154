//! Of two writes of a column whose authors did not know of each other, which one stays: computed
//! from readings of clocks and ids of changesets, beside the engine.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use syncline_core::{
    Change, ChangesetId, ColumnNumber, DeviceId, Edit, Op, RowKey, TableNumber, Timestamp, Version,
    schema::MergeStrategy,
};
use syncline_store::{LogEntry, Submission};

/// How far a clock may run ahead: a minute, whatever the engine's constant says.
const AHEAD_MS: u64 = 60_000;

/// The last writes of columns of which one value stays.
#[derive(Debug, Default)]
pub(crate) struct Winners {
    /// The strategies of such columns.
    pub(crate) strategies: BTreeMap<(TableNumber, ColumnNumber), MergeStrategy>,
    /// Rows that were there once: in another life of theirs clocks go on from the tombstone's,
    /// which is not followed here.
    seen: BTreeSet<(TableNumber, RowKey)>,
    /// Only what is known for sure.
    last: BTreeMap<(TableNumber, RowKey), BTreeMap<ColumnNumber, Write>>,
}

#[derive(Debug, Clone, Copy)]
struct Write {
    version: Version,
    device: DeviceId,
    /// Reading and id, which are compared.
    stamp: (u64, ChangesetId),
}

impl Winners {
    /// The server lost its end.
    pub(crate) fn forget_all(&mut self) {
        self.last.clear();
    }

    /// An entry of which nobody can say what was written over what.
    pub(crate) fn pass_over(&mut self, entry: &LogEntry) {
        for record in &entry.records {
            self.last.remove(&(record.table, record.key.clone()));
        }
        self.see(entry);
    }

    /// What `submission` came to alone in one entry. `is_lost`: whether its author was told that
    /// an edit of a column came to nothing. `was`, `is`: whether a row was there, and is.
    pub(crate) fn judge(
        &mut self,
        entry: &LogEntry,
        submission: &Submission,
        now: Timestamp,
        is_lost: impl Fn(&Change, ColumnNumber) -> bool,
        was_and_is: impl Fn(&Change) -> (bool, bool),
    ) -> anyhow::Result<()> {
        let changeset = &submission.changeset;
        // The upper bits are milliseconds.
        let latest = (now.0 / 1_000 + AHEAD_MS) << 16;
        let stamp = (changeset.hlc.0.min(latest), changeset.id);
        let versions: BTreeMap<_, _> = entry
            .records
            .iter()
            .map(|record| ((record.table, record.key.clone()), record.version))
            .collect();
        let named = |table, key: &RowKey| {
            let mut changes = changeset.changes.iter();
            changes.any(|change| change.table == table && change.key == *key)
        };
        // What the database did by itself.
        for (table, key) in versions.keys().filter(|(table, key)| !named(*table, key)) {
            self.last.remove(&(*table, key.clone()));
        }
        for change in &changeset.changes {
            let place = (change.table, change.key.clone());
            let version = versions.get(&place).copied();
            let write = |version| Write {
                version,
                device: submission.device,
                stamp,
            };
            match (&change.op, was_and_is(change), version) {
                (Op::Update(edits), (true, true), _) => {
                    let Some(known) = self.last.get_mut(&place) else {
                        continue;
                    };
                    for edit in edits {
                        let strategy = self.strategies.get(&(change.table, edit.column));
                        let (Some(strategy), Edit::Set(_)) = (strategy, &edit.edit) else {
                            known.remove(&edit.column);
                            continue;
                        };
                        let Some(rival) = known.get(&edit.column).copied() else {
                            continue;
                        };
                        let competes = rival.competes(change, submission.device);
                        let stays = !competes
                            || *strategy == MergeStrategy::ClientWins
                            || (*strategy != MergeStrategy::ServerWins && stamp > rival.stamp);
                        if stays == is_lost(change, edit.column) {
                            bail!(
                                "{} ({stamp:?}, based on {:?}) wrote column {} of {} over {rival:?} \
                                 and was told that this came to {}",
                                changeset.id,
                                change.base,
                                edit.column.0,
                                change.key,
                                if stays { "nothing" } else { "something" }
                            );
                        }
                        if !stays {
                            continue;
                        }
                        let Some(version) = version else {
                            bail!(
                                "{} wrote column {} of {} over {rival:?}, and nobody knows of it",
                                changeset.id,
                                edit.column.0,
                                change.key
                            );
                        };
                        let mut next = write(version);
                        if stamp <= rival.stamp {
                            next.stamp.0 = rival.stamp.0 + 1;
                        }
                        known.insert(edit.column, next);
                    }
                }
                (Op::Insert(_), (false, true), Some(version)) => {
                    let columns = self.strategies.keys();
                    let columns = columns.filter(|(table, _)| *table == change.table);
                    let all = columns.map(|(_, column)| (*column, write(version)));
                    if !self.seen.contains(&place) {
                        self.last.insert(place, all.collect());
                    }
                }
                _ => {
                    self.last.remove(&place);
                }
            }
        }
        self.see(entry);
        Ok(())
    }

    fn see(&mut self, entry: &LogEntry) {
        let places = entry.records.iter();
        self.seen.extend(places.map(|r| (r.table, r.key.clone())));
    }
}

impl Write {
    /// Whether the author of `change` could not know of this write.
    fn competes(&self, change: &Change, device: DeviceId) -> bool {
        self.version > change.base && self.device != device
    }
}
