//! What one session asked for of the tables that sync on demand (spec SU1).
//!
//! It only ever narrows what the rules grant: a bucket that is asked for and not granted is as one
//! that does not exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use syncline_core::{
    BucketId, RowKey, Value, planted,
    rules::{RuleColumn, Wanted},
    wire::{SUBSCRIPTION_KEYS_BYTES_MAX, Subscription},
};
use syncline_store::Context;

/// The subscriptions of one session and the buckets they stand for.
#[derive(Debug, Clone)]
pub struct Demand(Option<Asked>);

#[derive(Debug, Clone)]
struct Asked {
    plan: Arc<Context>,
    subscriptions: BTreeSet<Subscription>,
    /// Of the keys of all of them.
    bytes: usize,
    /// How many subscriptions ask for a bucket.
    buckets: BTreeMap<BucketId, u32>,
}

impl Demand {
    /// Everything that is granted, for a replica that does not know subscriptions.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// What is subscribed to, and nothing else of the tables that sync on demand.
    #[must_use]
    pub fn none(plan: Arc<Context>) -> Self {
        Self(Some(Asked {
            plan,
            subscriptions: BTreeSet::new(),
            bytes: 0,
            buckets: BTreeMap::new(),
        }))
    }

    /// Whether rows of a bucket, if it is granted, are to be sent.
    #[must_use]
    pub fn includes(&self, bucket: &BucketId) -> bool {
        self.0.as_ref().is_none_or(|asked| {
            asked.buckets.contains_key(bucket)
                || planted!(DemandNotNarrowed)
                || !asked.plan.rules().is_on_demand(*bucket)
        })
    }

    /// Whether one more may be added to at most `most`.
    pub(crate) fn has_room(&self, subscription: &Subscription, most: usize) -> bool {
        self.0.as_ref().is_none_or(|asked| {
            asked.subscriptions.len() < most
                && asked.bytes + key_bytes(subscription) <= SUBSCRIPTION_KEYS_BYTES_MAX
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |asked| asked.subscriptions.len())
    }

    /// Whether nothing is subscribed to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a subscription, unless its key is none; the buckets that are included only now.
    pub(crate) fn add(&mut self, subscription: Subscription) -> Vec<BucketId> {
        let Some(asked) = &mut self.0 else {
            return Vec::new();
        };
        let key = subscription.key.as_deref();
        if key.is_some_and(|key| RowKey::from_bytes(key).is_err()) {
            return Vec::new();
        }
        let buckets = asked.buckets_of(&subscription);
        let bytes = key_bytes(&subscription);
        if !asked.subscriptions.insert(subscription) {
            return Vec::new();
        }
        asked.bytes += bytes;
        let mut anew = Vec::new();
        for bucket in buckets {
            let count = asked.buckets.entry(bucket).or_insert(0);
            *count += 1;
            if *count == 1 {
                anew.push(bucket);
            }
        }
        anew
    }

    /// The buckets of a subscription, whether it is one of these or not.
    pub(crate) fn buckets_of(&self, subscription: &Subscription) -> Vec<BucketId> {
        let asked = self.0.as_ref();
        asked.map_or_else(Vec::new, |asked| asked.buckets_of(subscription))
    }

    /// Takes a subscription away; the buckets that are not included any more.
    pub(crate) fn remove(&mut self, subscription: &Subscription) -> Vec<BucketId> {
        let Some(asked) = &mut self.0 else {
            return Vec::new();
        };
        let buckets = asked.buckets_of(subscription);
        if !asked.subscriptions.remove(subscription) {
            return Vec::new();
        }
        asked.bytes -= key_bytes(subscription);
        let mut gone = Vec::new();
        for bucket in buckets {
            if let Some(count) = asked.buckets.get_mut(&bucket) {
                *count -= 1;
                if *count == 0 {
                    asked.buckets.remove(&bucket);
                    gone.push(bucket);
                }
            }
        }
        gone
    }
}

impl Asked {
    /// The buckets of a subscription: a hash of what it says, so that it takes as long, and comes
    /// to as much, whether there is such a row or not.
    fn buckets_of(&self, subscription: &Subscription) -> Vec<BucketId> {
        match self.wanted_by(subscription) {
            Some(wanted) => self.plan.rules().demanded(subscription.table, &wanted),
            None => Vec::new(),
        }
    }

    fn wanted_by(&self, subscription: &Subscription) -> Option<Wanted> {
        let Subscription { table, column, key } = subscription;
        let mut tables = self.plan.schema().tables.iter();
        let table = tables.find(|known| known.number == *table)?;
        let Some(key) = key else {
            return column.is_none().then_some(Wanted::Table);
        };
        let key = RowKey::from_bytes(key).ok()?;
        let Some(column) = column else {
            return Some(Wanted::Row(key));
        };
        let [value] = <[Value; 1]>::try_from(key.decode().ok()?).ok()?;
        if column.0 == 0 {
            return Some(Wanted::Value(RuleColumn::Owner, value));
        }
        let position = table.position_of(*column)?;
        let value = value.canonical(table.columns[position].ty);
        Some(Wanted::Value(RuleColumn::Column(position), value))
    }
}

pub(crate) fn key_bytes(subscription: &Subscription) -> usize {
    subscription.key.as_ref().map_or(0, Vec::len)
}
