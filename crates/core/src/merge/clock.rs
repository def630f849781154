//! Who wrote what last: the memory that decides whether an edit competes (spec ME2–ME5, ME13).

use std::{collections::BTreeMap, ops::Bound};

use super::path::{ROOT, parent};
use crate::planted;
use crate::{
    hlc::Hlc,
    ids::{ChangesetId, DeviceId, Version},
};

/// Who wrote a column, or a path inside it, last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock {
    pub version: Version,
    pub hlc: Hlc,
    pub changeset: ChangesetId,
    pub device: DeviceId,
}

/// What last-write-wins compares.
pub(crate) type Stamp = (Hlc, ChangesetId);

/// The circumstances of an edit that arrives.
#[derive(Debug, Clone, Copy)]
pub struct Incoming {
    /// Already clamped.
    pub hlc: Hlc,
    pub changeset: ChangesetId,
    pub device: DeviceId,
    /// The row's version that the author had.
    pub base: Version,
    /// The author knew of no row, not even of what its own device wrote (spec ME19): true for
    /// inserts, whatever [`super::merge_row`] is told.
    pub is_insert: bool,
}

/// What the server remembers of a column besides its value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnState {
    /// The last edit of any part.
    pub clock: Clock,
    /// For set, merge-fields and path strategies: who wrote each path or added each item last
    /// (spec ME13). Empty while the whole value was written at `clock`.
    pub members: BTreeMap<String, Clock>,
}

impl Clock {
    pub(crate) fn stamp(&self) -> Stamp {
        if planted!(HlcTieNotBroken) {
            return (self.hlc, ChangesetId::default());
        }
        (self.hlc, self.changeset)
    }

    /// Whether the author of `incoming` could not know of this write (spec ME2).
    pub(crate) fn competes(&self, incoming: &Incoming) -> bool {
        self.version > incoming.base && (incoming.is_insert || self.device != incoming.device)
    }

    /// The clock of `incoming` once it took the place of `self`: later than `self` (spec ME5).
    /// Idempotent, since one edit can touch a place several times.
    pub(crate) fn followed_by(&self, incoming: &Incoming) -> Self {
        if self.changeset == incoming.changeset {
            return *self;
        }
        let &Incoming {
            hlc,
            changeset,
            device,
            base: _,
            is_insert: _,
        } = incoming;
        let hlc = if incoming.stamp() > self.stamp() {
            hlc
        } else {
            self.hlc.successor()
        };
        Self {
            version: self.version,
            hlc,
            changeset,
            device,
        }
    }
}

impl Incoming {
    pub(crate) fn stamp(&self) -> Stamp {
        if planted!(HlcTieNotBroken) {
            return (self.hlc, ChangesetId::default());
        }
        (self.hlc, self.changeset)
    }
}

impl ColumnState {
    /// Most entries of `members`; beyond it the older half is folded into the root's.
    pub const MEMBERS_MAX: usize = 4096;

    /// `self` once the edit has its place in the log: fills in the version of every clock that
    /// belongs to the changeset of `self.clock`.
    #[must_use]
    pub fn at(mut self, version: Version) -> Self {
        let changeset = self.clock.changeset;
        for clock in self
            .members
            .values_mut()
            .filter(|c| c.changeset == changeset)
        {
            clock.version = version;
        }
        self.clock.version = version;
        self
    }

    /// Forgets the clocks of members that no push can compete with any more: those not after
    /// `horizon`, below which every base is refused.
    pub fn prune(&mut self, horizon: Version) {
        self.members
            .retain(|path, clock| path == ROOT || clock.version > horizon);
        if self.members.len() == 1 && self.clock.version <= horizon {
            self.members.clear();
        }
    }

    /// The stamp an edit of `path` has to beat: the latest among the writes of this place that
    /// compete with `incoming`, those of everything inside it too.
    ///
    /// Only what was noted at `outermost` or inside it says something about `path`
    /// ([`Tree::told_from`](super::tree::Tree::told_from)).
    pub(crate) fn rival(&self, path: &str, outermost: &str, incoming: &Incoming) -> Option<Stamp> {
        let around = self
            .noted(path)
            .filter(|(from, _)| from.len() >= outermost.len());
        let inside = self.inside(path).map(|(_, clock)| clock);
        let rivals = around.map(|(_, clock)| clock).into_iter().chain(inside);
        rivals
            .filter(|clock| clock.competes(incoming))
            .map(Clock::stamp)
            .max()
    }

    /// Whether somebody added `item` (its canonical text) to the set at `path` and the author of
    /// `incoming` could not know of it.
    pub(crate) fn item_competes(&self, path: &str, item: &str, incoming: &Incoming) -> bool {
        let mut additions = self
            .additions(path, item)
            .map(|(_, clock)| clock)
            .peekable();
        if additions.peek().is_none() {
            return self.nearest(path).competes(incoming);
        }
        additions.any(|clock| clock.competes(incoming))
    }

    /// Notes that `incoming` wrote the whole value.
    pub(crate) fn record_whole(&mut self, incoming: &Incoming) {
        let latest = self.members.values().fold(self.clock, later);
        self.members.clear();
        self.clock = Clock {
            version: self.clock.version,
            ..latest
        }
        .followed_by(incoming);
    }

    /// Notes that `incoming` wrote `path`, where `outermost` is as for [`Self::rival`].
    pub(crate) fn record(&mut self, path: &str, outermost: &str, incoming: &Incoming) {
        if path == ROOT {
            return self.record_whole(incoming);
        }
        let told = self
            .noted(path)
            .filter(|(from, _)| from.len() >= outermost.len());
        let mut prior = told.map_or(Clock::default(), |(_, clock)| *clock);
        self.touch(incoming);
        let gone: Vec<String> = self.inside(path).map(|(path, _)| path.clone()).collect();
        for path in gone {
            prior = self
                .members
                .remove(&path)
                .map_or(prior, |clock| later(prior, &clock));
        }
        self.members
            .insert(path.to_owned(), prior.followed_by(incoming));
        self.fold();
    }

    /// Notes that `incoming` added `item` to the set at `path`, `present` if it was there already.
    pub(crate) fn record_added(
        &mut self,
        path: &str,
        item: &str,
        present: bool,
        incoming: &Incoming,
    ) {
        let prefix = item_entry(path, item);
        let entry = |clock: &Clock| format!("{prefix}{}", clock.device);
        let whole = *self.nearest(path);
        let came_with_whole = present && self.additions(path, item).next().is_none();
        self.touch(incoming);
        if came_with_whole {
            self.members.insert(entry(&whole), whole);
        }
        let clock = Clock::default().followed_by(incoming);
        self.members.insert(entry(&clock), clock);
        self.fold();
    }

    /// Forgets the additions of `item` that the author of `incoming` knew and took back.
    pub(crate) fn record_removed(&mut self, path: &str, item: &str, incoming: &Incoming) {
        self.touch(incoming);
        let known = self
            .additions(path, item)
            .filter(|(_, clock)| !clock.competes(incoming));
        let known: Vec<String> = known.map(|(entry, _)| entry.clone()).collect();
        for entry in known {
            self.members.remove(&entry);
        }
    }

    /// Moves the column's clock on, and keeps the present one for everything without an entry.
    pub(crate) fn touch(&mut self, incoming: &Incoming) {
        if self.members.is_empty() {
            self.members.insert(ROOT.to_owned(), self.clock);
        }
        self.clock = self.clock.followed_by(incoming);
    }

    /// The clock of `path`: its own entry or that of the closest object around it.
    ///
    /// An entry inside another is always the later one, since writing a whole removes what
    /// was noted inside.
    fn nearest(&self, path: &str) -> &Clock {
        self.noted(path).map_or(&self.clock, |(_, clock)| clock)
    }

    /// [`Self::nearest`] with the path it was noted at.
    fn noted<'a, 'p>(&'a self, path: &'p str) -> Option<(&'p str, &'a Clock)> {
        let mut around = std::iter::successors(Some(path), |path| parent(path));
        around.find_map(|path| match self.members.get(path) {
            Some(clock) => Some((path, clock)),
            None if path == ROOT => Some((path, &self.clock)),
            None => None,
        })
    }

    /// The last addition of `item` by each device.
    fn additions(&self, path: &str, item: &str) -> impl Iterator<Item = (&String, &Clock)> {
        let prefix = item_entry(path, item);
        let from = self.members.range(prefix.clone()..);
        from.take_while(move |(entry, _)| entry.starts_with(&prefix))
    }

    /// The entries of everything strictly inside `path`: its members and the items of its sets.
    fn inside(&self, path: &str) -> impl Iterator<Item = (&String, &Clock)> {
        // `/` follows `.` and `>` follows `=`: these ranges hold what begins with the first bound.
        let bounds = |from: &str, to: &str| {
            (
                Bound::Included(format!("{path}{from}")),
                Bound::Excluded(format!("{path}{to}")),
            )
        };
        let all = (Bound::Excluded(ROOT.to_owned()), Bound::Unbounded);
        let ranges = match path {
            ROOT => vec![all],
            _ => vec![bounds(".", "/"), bounds(ITEM, "\\>")],
        };
        ranges
            .into_iter()
            .flat_map(|range| self.members.range(range))
    }

    /// Keeps `members` bounded: the older half goes, and what has no entry counts as written when
    /// the latest of them was. At worst a concurrent edit then competes that need not have.
    fn fold(&mut self) {
        if self.members.len() <= Self::MEMBERS_MAX {
            return;
        }
        let mut versions: Vec<Version> = self.members.values().map(|clock| clock.version).collect();
        let (_, &mut middle, _) = versions.select_nth_unstable(Self::MEMBERS_MAX / 2);
        let mut root = *self.nearest(ROOT);
        self.members.retain(|path, clock| {
            let stays = path == ROOT || clock.version > middle;
            if !stays {
                root = Clock {
                    version: root.version.max(clock.version),
                    ..later(root, clock)
                };
            }
            stays
        });
        // Several devices' writes now: none of them may take it for its own.
        self.members.insert(
            ROOT.to_owned(),
            Clock {
                device: NOBODY,
                ..root
            },
        );
    }
}

/// The device of a clock that stands for several devices' writes.
const NOBODY: DeviceId = DeviceId([0; 16]);

/// The one of two clocks that last-write-wins keeps.
fn later(a: Clock, b: &Clock) -> Clock {
    if b.stamp() > a.stamp() { *b } else { a }
}

/// What follows the path in the entries of an item: no path contains it.
const ITEM: &str = "\\=";

/// What follows the item: outside its quotes no JSON contains it. Then comes the device.
const DEVICE: &str = "\\@";

/// Longest item text that stands in an entry as it is.
const ITEM_BYTES_MAX: usize = 64;

/// What the entries for additions of `item` begin with.
fn item_entry(path: &str, item: &str) -> String {
    if item.len() <= ITEM_BYTES_MAX {
        return format!("{path}{ITEM}{item}{DEVICE}");
    }
    let hash = blake3::hash(item.as_bytes()).to_hex();
    format!("{path}{ITEM}#{}{DEVICE}", &hash[..32])
}
