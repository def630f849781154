//! What one reader may see: the buckets granted to any of its grantees, counted.

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::planted;
use syncline_core::{
    BucketId, Version,
    rules::{Grant, GranteeId, Reader},
};
use syncline_store::{LogEntry, LogRecord};

/// The granted buckets of one reader at one place of the log.
#[derive(Debug, Clone, Default)]
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
}

/// What an entry changed in a reader's sight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SightChange {
    pub gained: Vec<BucketId>,
    pub lost: Vec<BucketId>,
}

impl Sight {
    /// The sight of `reader` as the storage told its grants at `as_of`.
    #[must_use]
    pub fn new(reader: Reader, grants: &[(Grant, Version)], as_of: Version) -> Self {
        let mut since: BTreeMap<BucketId, Version> = BTreeMap::new();
        for (grant, version) in grants {
            let first = since.entry(grant.bucket).or_insert(*version);
            *first = (*first).min(*version);
        }
        for bucket in &reader.fixed {
            since.remove(bucket);
        }
        let mut buckets = BTreeMap::new();
        for bucket in reader
            .fixed
            .iter()
            .chain(grants.iter().map(|(grant, _)| &grant.bucket))
        {
            *buckets.entry(*bucket).or_insert(0) += 1;
        }
        Self {
            grantees: reader.grantees.into_iter().collect(),
            buckets,
            since,
            as_of,
            generation: 0,
        }
    }

    /// Every granted bucket.
    pub fn buckets(&self) -> impl Iterator<Item = BucketId> + '_ {
        self.buckets.keys().copied()
    }

    /// The grantees whose grants make this sight.
    pub fn grantees(&self) -> impl Iterator<Item = GranteeId> + '_ {
        self.grantees.iter().copied()
    }

    /// Whether rows of `bucket` may be seen.
    #[must_use]
    pub fn sees(&self, bucket: &BucketId) -> bool {
        self.buckets.contains_key(bucket)
    }

    /// Whether what happened to rows of `bucket` in the entry that ends at `version` may be seen:
    /// the bucket is granted now and was granted then.
    #[must_use]
    pub fn saw(&self, bucket: &BucketId, version: Version) -> bool {
        self.sees(bucket) && self.since.get(bucket).is_none_or(|since| *since <= version)
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

    /// Count and sum (of the ids' first eight bytes) of all granted buckets, as Hello has them.
    #[must_use]
    pub fn summary(&self) -> (u64, u64) {
        self.buckets.keys().fold((0, 0), |(count, sum), bucket| {
            let (head, _) = bucket
                .0
                .split_first_chunk::<8>()
                .expect("an id has 16 bytes");
            (count + 1, sum.wrapping_add(u64::from_le_bytes(*head)))
        })
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
            match (before, self.sees(&bucket)) {
                (false, true) => {
                    self.since.insert(bucket, entry.version);
                    change.gained.push(bucket);
                }
                (true, false) => {
                    self.since.remove(&bucket);
                    change.lost.push(bucket);
                }
                (false, false) | (true, true) => {}
            }
        }
        if !change.gained.is_empty() || !change.lost.is_empty() {
            self.generation += 1;
        }
        change
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
