//! What one reader may see: the buckets granted to any of its grantees, counted.

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::planted;
use syncline_core::{
    BucketId, Version,
    rules::{Grant, GranteeId, Reader},
    wire::{Subscribe, Subscription},
};
use syncline_store::{LogEntry, LogRecord};

use crate::demand::Demand;

/// The granted buckets of one reader at one place of the log, as far as its session is to be sent
/// them.
#[derive(Debug, Clone)]
pub struct Sight {
    grantees: BTreeSet<GranteeId>,
    /// Bucket → number of grantees that have it (a fixed bucket counts one).
    buckets: BTreeMap<BucketId, u32>,
    /// Since when buckets are granted that were not always: what happened to their rows before
    /// is not for this reader.
    since: BTreeMap<BucketId, Version>,
    /// Grant changes up to here are in `buckets`.
    as_of: Version,
    generation: u64,
    /// Which of them this session is to be sent.
    demand: Demand,
}

/// What an entry changed in a reader's sight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SightChange {
    pub gained: Vec<BucketId>,
    pub lost: Vec<BucketId>,
    /// Of the lost ones those that are granted still, but not asked for.
    pub released: Vec<BucketId>,
}

impl Sight {
    /// The sight of `reader` as the storage told its grants at `as_of`.
    #[must_use]
    pub fn new(reader: Reader, grants: &[(Grant, Version)], as_of: Version) -> Self {
        // Sorted, a map is made of them at once. The first grant of a bucket counts.
        let mut first: Vec<_> = grants.iter().map(|(grant, v)| (grant.bucket, *v)).collect();
        first.sort_unstable();
        first.dedup_by_key(|(bucket, _)| *bucket);
        let mut since: BTreeMap<BucketId, Version> = first.into_iter().collect();
        for bucket in &reader.fixed {
            since.remove(bucket);
        }
        let granted = grants.iter().map(|(grant, _)| grant.bucket);
        let mut all: Vec<BucketId> = reader.fixed.iter().copied().chain(granted).collect();
        all.sort_unstable();
        let counted = all.chunk_by(|a, b| a == b);
        let count = |same: &[BucketId]| (same[0], u32::try_from(same.len()).unwrap_or(u32::MAX));
        let buckets = counted.map(count).collect();
        Self {
            grantees: reader.grantees.into_iter().collect(),
            buckets,
            since,
            as_of,
            generation: 0,
            demand: Demand::all(),
        }
    }

    /// The sight of a session that is to be sent what it asked for.
    #[must_use]
    pub fn narrowed(mut self, demand: Demand) -> Self {
        self.demand = demand;
        self
    }

    /// Every granted bucket that is asked for, where that is needed.
    pub fn buckets(&self) -> impl Iterator<Item = BucketId> + '_ {
        let granted = self.buckets.keys().copied();
        granted.filter(|bucket| self.demand.includes(bucket))
    }

    /// Whether the bucket is the reader's for what they are, whatever rows say.
    pub(crate) fn has_always(&self, bucket: &BucketId) -> bool {
        self.buckets.contains_key(bucket) && !self.since.contains_key(bucket)
    }

    /// How many subscriptions the session has.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.demand.len()
    }

    /// Follows a change of what is asked for, as far as there are at most `most` subscriptions,
    /// and says what became visible or invisible by it, and whether all of it was followed.
    pub(crate) fn subscribe(&mut self, subscribe: Subscribe, most: usize) -> (SightChange, bool) {
        let (mut dropped, mut added) = (BTreeSet::new(), BTreeSet::new());
        for drop in &subscribe.drop {
            dropped.extend(self.demand.remove(drop));
        }
        let mut all = true;
        for add in subscribe.add {
            if !self.demand.has_room(&add, most) {
                all = false;
                break;
            }
            added.extend(self.demand.add(add));
        }
        // What one subscription loses and another has in the same breath stays.
        let is_granted = |bucket: &&BucketId| self.buckets.contains_key(*bucket);
        let lost = dropped.difference(&added).filter(is_granted);
        let gained = added.difference(&dropped).filter(is_granted);
        let mut change = SightChange {
            gained: gained.copied().collect(),
            lost: lost.copied().collect(),
            released: Vec::new(),
        };
        change.released.clone_from(&change.lost);
        (self.changed(change), all)
    }

    /// Of the buckets that these subscriptions ask for those that are granted, and not asked for
    /// by the ones that count.
    pub(crate) fn beyond(&self, subscriptions: &[Subscription]) -> Vec<BucketId> {
        let buckets = subscriptions
            .iter()
            .flat_map(|one| self.demand.buckets_of(one));
        let mut found: Vec<BucketId> = buckets
            .filter(|bucket| self.buckets.contains_key(bucket) && !self.demand.includes(bucket))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The granted buckets that are not asked for.
    pub(crate) fn not_asked_for(&self) -> Vec<BucketId> {
        let granted = self.buckets.keys().copied();
        granted
            .filter(|bucket| !self.demand.includes(bucket))
            .collect()
    }

    fn changed(&mut self, change: SightChange) -> SightChange {
        if !change.gained.is_empty() || !change.lost.is_empty() {
            self.generation += 1;
        }
        change
    }

    /// The grantees whose grants make this sight.
    pub fn grantees(&self) -> impl Iterator<Item = GranteeId> + '_ {
        self.grantees.iter().copied()
    }

    /// Whether what happened to rows of `bucket` in the entry that ends at `version` is the
    /// reader's, be it asked for or not.
    #[must_use]
    pub fn may_see(&self, bucket: &BucketId, version: Version) -> bool {
        let is_later = |since: &Version| *since > version;
        self.buckets.contains_key(bucket) && !self.since.get(bucket).is_some_and(is_later)
    }

    /// Whether rows of `bucket` may be seen.
    #[must_use]
    pub fn sees(&self, bucket: &BucketId) -> bool {
        self.buckets.contains_key(bucket) && self.demand.includes(bucket)
    }

    /// Whether what happened to rows of `bucket` in the entry that ends at `version` may be seen:
    /// the bucket is granted now and was granted then.
    #[must_use]
    pub fn saw(&self, bucket: &BucketId, version: Version) -> bool {
        self.may_see(bucket, version) && self.demand.includes(bucket)
    }

    /// Whether the reader could see rows of `bucket` before the entry that ends at `version`.
    #[must_use]
    pub fn saw_before(&self, bucket: &BucketId, version: Version) -> bool {
        self.sees(bucket) && self.since.get(bucket).is_none_or(|since| *since < version)
    }

    /// Whether an entry that is still to be followed may take a bucket away.
    #[must_use]
    pub fn may_lose_by(&self, entry: &LogEntry) -> bool {
        let mut lost = entry.grants.iter().filter(|grant| !grant.granted);
        entry.version > self.as_of && lost.any(|grant| self.grantees.contains(&grant.grantee))
    }

    /// Changes exactly when [`Sight::follow`] gained or lost a bucket.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Count and sum ([`BucketId::summand`]) of [`Sight::buckets`], as Hello has them.
    #[must_use]
    pub fn summary(&self) -> (u64, u64) {
        summary(self.buckets())
    }

    /// As [`Sight::summary`], be they asked for or not.
    #[must_use]
    pub(crate) fn summary_of_all(&self) -> (u64, u64) {
        summary(self.buckets.keys().copied())
    }

    /// Takes in an entry's grant changes and says what became visible or invisible by them.
    pub fn follow(&mut self, entry: &LogEntry) -> SightChange {
        let mut change = SightChange::default();
        if entry.version <= self.as_of {
            return change;
        }
        self.as_of = entry.version;
        let mut touched = BTreeMap::new();
        for grant in entry
            .grants
            .iter()
            .filter(|g| self.grantees.contains(&g.grantee))
        {
            touched
                .entry(grant.bucket)
                .or_insert_with(|| self.buckets.contains_key(&grant.bucket));
            let count = self.buckets.entry(grant.bucket).or_insert(0);
            *count = if grant.granted {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
            if *count == 0 && !planted!(GrantCachedTooLong) {
                self.buckets.remove(&grant.bucket);
            }
        }
        for (bucket, before) in touched {
            let list = match (before, self.buckets.contains_key(&bucket)) {
                (false, true) => {
                    self.since.insert(bucket, entry.version);
                    &mut change.gained
                }
                (true, false) => {
                    self.since.remove(&bucket);
                    &mut change.lost
                }
                (false, false) | (true, true) => continue,
            };
            if self.demand.includes(&bucket) {
                list.push(bucket);
            }
        }
        self.changed(change)
    }

    /// Whether any of the record's buckets, before or after, may be seen.
    #[must_use]
    pub fn touches(&self, record: &LogRecord) -> bool {
        record
            .before
            .iter()
            .chain(&record.after)
            .any(|bucket| self.sees(bucket))
    }
}

fn summary(buckets: impl Iterator<Item = BucketId>) -> (u64, u64) {
    buckets.fold((0, 0), |(count, sum), bucket| {
        (count + 1, sum.wrapping_add(bucket.summand()))
    })
}
