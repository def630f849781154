//! Who has to be woken when something was committed.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    hash::Hash,
};

use syncline_core::{BucketId, DeviceId, rules::GranteeId};
use syncline_store::LogEntry;

use crate::sight::Sight;

/// Names a session within one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// An index from buckets, grantees and devices to the sessions that care: an entry wakes those
/// that may see something of it and nobody else. A session that is not woken is only behind, and
/// catches up at its next checkpoint.
#[derive(Debug, Default)]
pub struct Hub {
    buckets: HashMap<BucketId, Watchers>,
    grantees: HashMap<GranteeId, Watchers>,
    devices: HashMap<DeviceId, Watchers>,
    sessions: HashMap<SessionId, Interest>,
}

/// The sessions that care for one thing. A user has thousands of buckets that nobody else sees:
/// one session takes no memory of its own.
#[derive(Debug)]
enum Watchers {
    One(SessionId),
    Many(BTreeSet<SessionId>),
}

impl Watchers {
    fn iter(&self) -> impl Iterator<Item = SessionId> + '_ {
        let (one, many) = match self {
            Self::One(session) => (Some(*session), None),
            Self::Many(sessions) => (None, Some(sessions)),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }
}

/// What a session is registered under, to take it out again.
#[derive(Debug, Default)]
struct Interest {
    device: DeviceId,
    buckets: Vec<BucketId>,
    grantees: Vec<GranteeId>,
}

impl Hub {
    /// Registers a session, or registers it anew after its sight changed.
    pub fn watch(&mut self, session: SessionId, device: DeviceId, sight: &Sight) {
        self.forget(session);
        let interest = Interest {
            device,
            buckets: sight.buckets().collect(),
            grantees: sight.grantees().collect(),
        };
        add(&mut self.devices, device, session);
        self.buckets.reserve(interest.buckets.len());
        for bucket in &interest.buckets {
            add(&mut self.buckets, *bucket, session);
        }
        for grantee in &interest.grantees {
            add(&mut self.grantees, *grantee, session);
        }
        self.sessions.insert(session, interest);
    }

    /// Takes a session out.
    pub fn forget(&mut self, session: SessionId) {
        let Some(interest) = self.sessions.remove(&session) else {
            return;
        };
        remove(&mut self.devices, interest.device, session);
        for bucket in interest.buckets {
            remove(&mut self.buckets, bucket, session);
        }
        for grantee in interest.grantees {
            remove(&mut self.grantees, grantee, session);
        }
    }

    /// The sessions an entry concerns: those that see a row of it, gain or lose a bucket by it,
    /// and the author's device, which waits for its checkpoint.
    #[must_use]
    pub fn concerned(&self, entry: &LogEntry) -> BTreeSet<SessionId> {
        let mut concerned = BTreeSet::new();
        self.each_concerned([entry], |session| {
            concerned.insert(session);
        });
        concerned
    }

    /// Tells of each session that is concerned by any of these entries, of some more than once.
    pub fn each_concerned<'e>(
        &self,
        entries: impl IntoIterator<Item = &'e LogEntry>,
        mut tell: impl FnMut(SessionId),
    ) {
        let (mut devices, mut grantees, mut buckets) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            devices.push(entry.device);
            grantees.extend(entry.grants.iter().map(|grant| grant.grantee));
            let records = entry.records.iter();
            buckets.extend(records.flat_map(|record| record.before.iter().chain(&record.after)));
        }
        // Most rows of a changeset lie in the same few buckets.
        devices.sort_unstable();
        devices.dedup();
        grantees.sort_unstable();
        grantees.dedup();
        buckets.sort_unstable();
        buckets.dedup();
        let devices = devices.iter().filter_map(|device| self.devices.get(device));
        let grantees = grantees
            .iter()
            .filter_map(|grantee| self.grantees.get(grantee));
        let buckets = buckets
            .iter()
            .filter_map(|bucket| self.buckets.get(*bucket));
        let sessions = devices.chain(grantees).chain(buckets);
        sessions.flat_map(Watchers::iter).for_each(&mut tell);
    }

    /// The devices that are sent rows of any of these buckets.
    #[must_use]
    pub fn devices_with(&self, buckets: &[BucketId]) -> BTreeSet<DeviceId> {
        let sessions = buckets.iter().filter_map(|bucket| self.buckets.get(bucket));
        let sessions = sessions.flat_map(Watchers::iter);
        let interests = sessions.filter_map(|id| self.sessions.get(&id));
        interests.map(|interest| interest.device).collect()
    }

    /// Number of registered sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether nobody is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

fn add<K: Eq + Hash>(index: &mut HashMap<K, Watchers>, key: K, session: SessionId) {
    match index.entry(key) {
        Entry::Vacant(place) => drop(place.insert(Watchers::One(session))),
        Entry::Occupied(mut place) => match place.get_mut() {
            Watchers::One(other) if *other == session => {}
            Watchers::One(other) => {
                let both = BTreeSet::from([*other, session]);
                place.insert(Watchers::Many(both));
            }
            Watchers::Many(sessions) => drop(sessions.insert(session)),
        },
    }
}

fn remove<K: Eq + Hash>(index: &mut HashMap<K, Watchers>, key: K, session: SessionId) {
    let Entry::Occupied(mut place) = index.entry(key) else {
        return;
    };
    let is_over = match place.get_mut() {
        Watchers::One(other) => *other == session,
        Watchers::Many(sessions) => {
            sessions.remove(&session);
            sessions.is_empty()
        }
    };
    if is_over {
        place.remove();
    }
}
