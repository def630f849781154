//! What may happen very often, for the audit log: the first time at once, repetitions once a
//! minute with their number.

use std::collections::BTreeMap;

use syncline_core::Timestamp;
use syncline_store::{
    StorageError,
    accounts::{AccountRecords, AccountStore, AuditEvent, transact},
};

use super::audit;

/// Between two records of the same.
pub(super) const PAUSE_MILLIS: u64 = 60_000;
/// Different ones that are told apart at once; and as many actors are told apart beyond that.
pub(super) const KINDS_MAX: usize = 200;
/// Of one actor: nobody takes the place of what others do.
pub(super) const ACTOR_KINDS_MAX: usize = 10;

/// Something that is told in words.
pub(super) trait Repeated: Ord + Clone {
    /// Who did it. What is told has a bounded length: it may be anybody's text.
    fn actor(&self) -> &str;
    /// What is told in its place, where too many of its actor's are to be told apart.
    fn others(&self) -> Self;
    /// What is told in its place, where too many actors are to be told apart: there are few of
    /// these.
    fn of_anybody(&self) -> Self;
    fn event(&self, times: u64, now: Timestamp) -> AuditEvent;
}

/// What is not written down yet, and what was a short time ago.
#[derive(Debug)]
pub(super) struct Repeats<K> {
    waiting: BTreeMap<K, u64>,
    noted: BTreeMap<K, Timestamp>,
    /// What somebody else's transaction tells, until it is committed.
    open: Open<K>,
}

#[derive(Debug)]
struct Open<K> {
    at: Timestamp,
    /// Written down in the transaction.
    due: BTreeMap<K, u64>,
    /// The same was written down a short time ago, or is about to be.
    later: BTreeMap<K, u64>,
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            noted: BTreeMap::new(),
            open: Open {
                at: Timestamp::default(),
                due: BTreeMap::new(),
                later: BTreeMap::new(),
            },
        }
    }
}

impl<K: Repeated> Repeats<K> {
    pub(super) fn add(&mut self, what: K, times: u64) {
        let key = self.told_as(what);
        *self.waiting.entry(key).or_insert(0) += times;
    }

    /// What is to be written down in somebody else's transaction that tells this. It counts once
    /// [`Repeats::committed`] says so; where it never does, the next transaction takes its place.
    fn begin(&mut self, told: impl Iterator<Item = (K, u64)>, now: Timestamp) -> &BTreeMap<K, u64> {
        self.forget(now);
        self.open.at = now;
        self.open.due.clear();
        self.open.later.clear();
        for (what, times) in told {
            let key = self.told_as(what);
            // What waits already is written down first, and with it this.
            let is_later = self.noted.contains_key(&key) || self.waiting.contains_key(&key);
            let place = match is_later {
                true => &mut self.open.later,
                false => &mut self.open.due,
            };
            *place.entry(key).or_insert(0) += times;
        }
        &self.open.due
    }

    pub(super) fn committed(&mut self) {
        let Open { at, due, later } = &mut self.open;
        for what in std::mem::take(due).into_keys() {
            self.noted.insert(what, *at);
        }
        for (what, times) in std::mem::take(later) {
            *self.waiting.entry(what).or_insert(0) += times;
        }
    }

    /// Itself, if there is room to tell it apart.
    fn told_as(&self, what: K) -> K {
        if self.is_known(&what) {
            return what;
        }
        let others = what.others();
        if self.is_known(&others) {
            return others;
        }
        let mut told = self.told();
        let actor = what.actor();
        if told.clone().count() < KINDS_MAX
            && told.clone().filter(|k| k.actor() == actor).count() < ACTOR_KINDS_MAX
        {
            what
        } else if told.nth(2 * KINDS_MAX - 1).is_none() {
            others
        } else {
            what.of_anybody()
        }
    }

    fn is_known(&self, what: &K) -> bool {
        self.waiting.contains_key(what)
            || self.noted.contains_key(what)
            || self.open.due.contains_key(what)
    }

    /// All that are told apart. What an open transaction tells later was noted.
    fn told(&self) -> impl Iterator<Item = &K> + Clone {
        let waiting = self.waiting.keys();
        let waiting = waiting.filter(|what| !self.noted.contains_key(*what));
        let open =
            self.open.due.keys().filter(|what| {
                !self.noted.contains_key(*what) && !self.waiting.contains_key(*what)
            });
        self.noted.keys().chain(waiting).chain(open)
    }

    fn forget(&mut self, now: Timestamp) {
        self.noted
            .retain(|_, at| at.plus_millis(PAUSE_MILLIS) > now);
    }

    /// Takes what is to be written now; at the end, all there is.
    pub(super) fn due(&mut self, now: Timestamp, is_end: bool) -> BTreeMap<K, u64> {
        self.forget(now);
        let waiting = std::mem::take(&mut self.waiting);
        let (later, due) = waiting
            .into_iter()
            .partition(|(what, _)| !is_end && self.noted.contains_key(what));
        self.waiting = later;
        for what in BTreeMap::keys(&due) {
            self.noted.insert(K::clone(what), now);
        }
        due
    }

    /// Puts back what could not be written.
    pub(super) fn put_back(&mut self, due: BTreeMap<K, u64>) {
        for (what, times) in due {
            self.noted.remove(&what);
            self.add(what, times);
        }
    }
}

/// Writes down what is due.
pub(super) fn write<K: Repeated>(
    repeats: &parking_lot::Mutex<Repeats<K>>,
    store: &dyn AccountStore,
    now: Timestamp,
    is_end: bool,
) -> Result<(), StorageError> {
    let due = repeats.lock().due(now, is_end);
    if due.is_empty() {
        return Ok(());
    }
    let written = transact(store, |records| {
        for (what, times) in &due {
            audit::note(records, what.event(*times, now))?;
        }
        Ok(())
    });
    if written.is_err() {
        repeats.lock().put_back(due);
    }
    written
}

/// Writes down what is due in a transaction of somebody else's; [`Repeats::committed`] where that
/// is durable.
pub(super) fn write_within<K: Repeated>(
    repeats: &parking_lot::Mutex<Repeats<K>>,
    records: &mut dyn AccountRecords,
    told: impl Iterator<Item = (K, u64)>,
    now: Timestamp,
) -> Result<(), StorageError> {
    let due = repeats.lock().begin(told, now).clone();
    for (what, times) in &due {
        audit::note(records, what.event(*times, now))?;
    }
    Ok(())
}

/// How often, where it is more than once.
pub(super) fn times(times: u64) -> String {
    match times {
        1 => String::new(),
        times => format!(", {times} times"),
    }
}

#[cfg(test)]
mod tests {
    use syncline_core::{Schema, TableNumber, UserId};
    use syncline_store::{AccessChange, AccessTo};

    use super::{
        super::{Refused, access::Access},
        *,
    };

    fn refused(user: usize) -> Refused {
        Refused {
            user: user.to_string(),
            table: "notes".into(),
            action: "update",
        }
    }

    #[test]
    fn ac15_repetitions_are_counted_and_a_flood_takes_no_room() {
        let mut repeats = Repeats::default();
        let at = |millis| Timestamp::from_millis(1_000_000 + millis);
        repeats.add(refused(1), 1);
        assert_eq!(repeats.due(at(0), false), [(refused(1), 1)].into());
        for _ in 0..1_000 {
            repeats.add(refused(1), 1);
        }
        assert_eq!(repeats.due(at(PAUSE_MILLIS - 1), false), BTreeMap::new());
        let due = repeats.due(at(PAUSE_MILLIS), false);
        assert_eq!(due, [(refused(1), 1_000)].into());
        repeats.add(refused(1), 1);
        let last = repeats.due(at(PAUSE_MILLIS + 1), true);
        assert_eq!(last, [(refused(1), 1)].into(), "the server stops");

        for user in 0..10_000 {
            repeats.add(refused(user), 1);
        }
        let due = repeats.due(at(3 * PAUSE_MILLIS), false);
        assert!(due.len() <= 2 * KINDS_MAX + 1, "{}", due.len());
        assert_eq!(due.values().sum::<u64>(), 10_000, "none is forgotten");
        repeats.put_back(due);
        let again = repeats.due(at(3 * PAUSE_MILLIS), false);
        assert_eq!(again.values().sum::<u64>(), 10_000);
    }

    #[test]
    fn ac16_what_was_not_committed_was_not_told() {
        let mut repeats = Repeats::default();
        let at = |millis| Timestamp::from_millis(1_000_000 + millis);
        let told = || [(refused(1), 2)].into_iter();
        let written = BTreeMap::from([(refused(1), 2)]);
        assert_eq!(*repeats.begin(told(), at(0)), written);
        // Nobody else sees it, and the next transaction writes it down at once.
        assert_eq!(repeats.due(at(1), true), BTreeMap::new());
        assert_eq!(*repeats.begin(told(), at(2)), written);
        repeats.committed();

        // A repetition waits, once it is committed.
        assert_eq!(*repeats.begin(told(), at(3)), BTreeMap::new());
        assert_eq!(repeats.due(at(4), true), BTreeMap::new());
        // Its minute is over before its commit is: it was not written down in it.
        assert_eq!(*repeats.begin(told(), at(5)), BTreeMap::new());
        assert_eq!(repeats.due(at(PAUSE_MILLIS + 2), false), BTreeMap::new());
        repeats.committed();
        // However often it goes on, what waits is written down as soon as it may be.
        assert_eq!(
            *repeats.begin(told(), at(PAUSE_MILLIS + 3)),
            BTreeMap::new()
        );
        repeats.committed();
        let both = BTreeMap::from([(refused(1), 4)]);
        assert_eq!(repeats.due(at(PAUSE_MILLIS + 4), false), both);

        // However much one transaction tells, it takes no more room than many.
        let flood = (0..10_000).map(|user| (refused(user), 1));
        let due = repeats.begin(flood, at(2 * PAUSE_MILLIS));
        assert!(due.len() <= 2 * KINDS_MAX + 1, "{}", due.len());
    }

    #[test]
    fn ac16_nobody_hides_what_others_do_and_nobody_fills_the_log() {
        let schema = Schema::default();
        let given = |by: &str, user: &str| {
            let change = AccessChange {
                by: Some(UserId(by.into())),
                user: Some(UserId(user.into())),
                via: TableNumber(1),
                to: AccessTo::See(vec![TableNumber(1)]),
                granted: true,
            };
            Access::of(&schema, change)
        };
        let mut repeats = Repeats::default();
        let at = |millis| Timestamp::from_millis(1_000_000 + millis);
        let mut written = 0;
        for second in 0..30 {
            for decoy in 0..1_000 {
                repeats.add(given("mallory", &format!("{second} {decoy}")), 1);
            }
            let due = repeats.due(at(second * 1_000), false);
            written += due.len();
        }
        assert_eq!(written, ACTOR_KINDS_MAX + 1, "in half a minute");
        // What another person does is told, and that mallory did more too.
        repeats.add(given("ana", "bob"), 1);
        let due = repeats.due(at(PAUSE_MILLIS), false);
        assert_eq!(due.get(&given("ana", "bob")), Some(&1));
        let rest: Vec<_> = due.keys().filter(|key| key.actor() == "mallory").collect();
        let [rest] = rest[..] else {
            panic!("one for all the rest: {rest:?}");
        };
        let event = rest.event(due[rest], at(PAUSE_MILLIS));
        assert_eq!(
            (event.actor.as_str(), event.subject.as_str()),
            ("mallory", "")
        );
        assert_eq!(event.detail, "access of several people, 29000 times");

        // A name is what somebody wrote into a row, of any length.
        let long = given("ana", &"x".repeat(1 << 20));
        let same = given("ana", &format!("{}y", "x".repeat(1 << 20)));
        assert_eq!(long, same, "cut before it is kept");
        assert!(long.bytes() < 2_000, "{}", long.bytes());
    }
}
