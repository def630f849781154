//! What a device may hold of what it is granted (spec LI7).

use std::collections::BTreeSet;

use syncline_core::{BucketId, TableNumber};
use syncline_store::PageWant;

use super::{Part, Stream};

impl Stream {
    /// What begins to load and may be too much, bucket by bucket.
    pub(crate) fn unjudged(&self) -> Vec<PageWant> {
        self.unjudged.iter().map(from_start).collect()
    }

    /// What is loading may be loaded.
    pub(crate) fn judged(&mut self) {
        self.unjudged.clear();
    }

    /// Takes `rows` to come out of the room that is known of; whether there was so much.
    pub(crate) fn take_room(&mut self, rows: u64) -> bool {
        self.room = self.room.and_then(|room| room.checked_sub(rows));
        self.room.is_some()
    }

    /// Remembers how much room there is after what is loading now.
    pub(crate) fn has_room(&mut self, rows: u64) {
        self.room = Some(rows);
    }

    /// Everything that the device holds or is about to hold, from the beginning.
    pub(crate) fn held<'r>(
        &self,
        tables_of: impl Fn(BucketId) -> &'r [TableNumber],
    ) -> Vec<PageWant> {
        let buckets = self.sight.buckets();
        let parts = buckets.flat_map(|bucket| {
            let tables = tables_of(bucket).iter();
            tables.map(move |table| (bucket, *table))
        });
        let is_away = |part: &Part| self.withheld.contains(part) || self.unjudged.contains(part);
        let held = parts.filter(|part| self.wants(part.1) && !is_away(part));
        held.map(|part| from_start(&part)).collect()
    }

    /// Of what begins to load, does not load what lies in these buckets, until something else
    /// goes.
    pub(crate) fn withhold(&mut self, buckets: &BTreeSet<BucketId>) {
        for part in std::mem::take(&mut self.unjudged) {
            if buckets.contains(&part.0) {
                self.loading.remove(&part);
                self.withheld.insert(part);
            }
        }
        self.queue.retain(|part| self.loading.contains_key(part));
        self.remaining = None;
        self.anything_sent = true;
    }
}

fn from_start(part: &Part) -> PageWant {
    PageWant {
        bucket: part.0,
        table: part.1,
        after: None,
    }
}
