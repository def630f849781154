//! Nobody's reads contradict each other: causal consistency, judged from what devices wrote and
//! read alone, also between checkpoints.
//!
//! A write is known by its id and stays visible for ever; a read is the set of writes that a
//! device shows at some moment. Four things have to hold: a device sees its own writes, what it
//! has seen it goes on seeing, and whoever sees a write sees what its author had written before,
//! and what its author had seen before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What devices wrote and read so far.
#[derive(Debug, Default)]
pub(crate) struct History {
    writes: BTreeMap<String, Write>,
    /// What each device has shown.
    seen: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug)]
struct Write {
    author: String,
    /// What the author had seen, its own writes included.
    after: BTreeSet<String>,
}

/// What a read contradicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Anomaly {
    /// A device does not show what it wrote.
    ReadYourWrites { missing: String },
    /// A device does not show any more what it showed.
    MonotonicReads { missing: String },
    /// A device shows a write without an earlier one of the same author.
    MonotonicWrites { shown: String, missing: String },
    /// A device shows a write without one that its author had seen.
    WritesFollowReads { shown: String, missing: String },
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadYourWrites { missing } => {
                write!(f, "does not show {missing}, which was written here")
            }
            Self::MonotonicReads { missing } => {
                write!(
                    f,
                    "does not show {missing} any more, which it showed before"
                )
            }
            Self::MonotonicWrites { shown, missing } => {
                write!(
                    f,
                    "shows {shown} without {missing}, which its author wrote before"
                )
            }
            Self::WritesFollowReads { shown, missing } => {
                write!(
                    f,
                    "shows {shown} without {missing}, which its author had seen"
                )
            }
        }
    }
}

impl History {
    /// `author` wrote `id`, a moment after it read.
    pub(crate) fn wrote(&mut self, author: &str, id: &str) {
        let seen = self.seen.entry(author.to_owned()).or_default();
        let write = Write {
            author: author.to_owned(),
            after: seen.clone(),
        };
        seen.insert(id.to_owned());
        self.writes.insert(id.to_owned(), write);
    }

    /// `reader` shows these writes and no others. `is_excused`: writes that may be missing,
    /// because they were refused or given up.
    ///
    /// # Errors
    /// What it contradicts.
    pub(crate) fn read(
        &mut self,
        reader: &str,
        shown: &BTreeSet<String>,
        is_excused: impl Fn(&str) -> bool,
    ) -> Result<(), Anomaly> {
        let is_missing = |id: &&String| !shown.contains(*id) && !is_excused(id);
        let seen = self.seen.entry(reader.to_owned()).or_default();
        if let Some(missing) = seen.iter().find(is_missing) {
            let missing = missing.clone();
            let is_own = self
                .writes
                .get(&missing)
                .is_some_and(|write| write.author == reader);
            return Err(match is_own {
                true => Anomaly::ReadYourWrites { missing },
                false => Anomaly::MonotonicReads { missing },
            });
        }
        for id in shown.iter().filter(|id| !seen.contains(*id)) {
            let Some(write) = self.writes.get(id) else {
                continue;
            };
            if let Some(missing) = write.after.iter().find(is_missing) {
                let (shown, missing) = (id.clone(), missing.clone());
                let of_author = self
                    .writes
                    .get(&missing)
                    .is_some_and(|other| other.author == write.author);
                return Err(match of_author {
                    true => Anomaly::MonotonicWrites { shown, missing },
                    false => Anomaly::WritesFollowReads { shown, missing },
                });
            }
        }
        // Of what was written before the server lost its end, a device may still show what it is
        // about to lose.
        let known = shown.iter().filter(|id| self.writes.contains_key(*id));
        *seen = known.cloned().collect();
        Ok(())
    }

    /// A device's file is another one from now on: what it showed says nothing about it.
    pub(crate) fn forget_reader(&mut self, reader: &str) {
        self.seen.remove(reader);
    }

    /// The server lost some of its end, and nobody can say what comes back in which order.
    pub(crate) fn forget_all(&mut self) {
        self.seen.clear();
        self.writes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    /// `a` writes 1 and 2; `b` reads 1 and 2, then writes 3.
    fn history() -> History {
        let mut history = History::default();
        history.wrote("a", "1");
        history.wrote("a", "2");
        history
            .read("b", &set(&["1", "2"]), |_| false)
            .expect("it is whole");
        history.wrote("b", "3");
        history
    }

    fn anomaly(reader: &str, shown: &[&str]) -> Option<Anomaly> {
        history().read(reader, &set(shown), |_| false).err()
    }

    #[test]
    fn what_is_whole_is_fine() {
        for (reader, shown) in [
            ("a", &["1", "2"][..]),
            ("a", &["1", "2", "3"]),
            ("b", &["1", "2", "3"]),
            ("c", &[]),
            ("c", &["1"]),
            ("c", &["1", "2"]),
            ("c", &["1", "2", "3", "by another program"]),
        ] {
            assert_eq!(anomaly(reader, shown), None, "{reader} {shown:?}");
        }
    }

    #[test]
    fn a_device_that_does_not_see_its_own_write_is_caught() {
        let missing = |id: &str| Some(Anomaly::ReadYourWrites { missing: id.into() });
        assert_eq!(anomaly("a", &[]), missing("1"));
        assert_eq!(anomaly("a", &["1"]), missing("2"));
        assert_eq!(anomaly("b", &["1", "2"]), missing("3"));
    }

    #[test]
    fn a_device_that_goes_back_is_caught() {
        let missing = |id: &str| Some(Anomaly::MonotonicReads { missing: id.into() });
        assert_eq!(anomaly("b", &["2", "3"]), missing("1"));
        assert_eq!(anomaly("b", &["1", "3"]), missing("2"));
        let mut history = history();
        let everything = set(&["1", "2", "3"]);
        history
            .read("c", &everything, |_| false)
            .expect("it is whole");
        let back = history.read("c", &set(&["1", "2"]), |_| false);
        assert_eq!(back.err(), missing("3"));
    }

    #[test]
    fn a_write_without_the_earlier_one_of_its_author_is_caught() {
        let (shown, missing) = ("2".to_owned(), "1".to_owned());
        let expected = Anomaly::MonotonicWrites { shown, missing };
        assert_eq!(anomaly("c", &["2"]), Some(expected));
    }

    #[test]
    fn a_write_without_what_its_author_had_seen_is_caught() {
        for (seen, missing) in [(&["3"][..], "1"), (&["1", "3"], "2"), (&["2", "3"], "1")] {
            let found = anomaly("c", seen).expect("an anomaly");
            let is_it = match &found {
                Anomaly::WritesFollowReads { shown, missing: id } => shown == "3" && id == missing,
                // Without 1, 2 is an anomaly of its own.
                Anomaly::MonotonicWrites { shown, missing: id } => shown == "2" && id == "1",
                Anomaly::ReadYourWrites { .. } | Anomaly::MonotonicReads { .. } => false,
            };
            assert!(is_it, "{seen:?}: {found:?}");
        }
    }

    #[test]
    fn what_was_refused_or_lost_is_excused() {
        let mut history = history();
        history
            .read("a", &set(&["2"]), |id| id == "1")
            .expect("1 was refused");
        history.forget_reader("b");
        history
            .read("b", &set(&[]), |_| false)
            .expect("its file is an old one");
        history.forget_all();
        history
            .read("a", &set(&[]), |_| false)
            .expect("the server lost everything");
        let (before, after) = (set(&["1", "2"]), set(&[]));
        history
            .read("c", &before, |_| false)
            .expect("not connected yet");
        history
            .read("c", &after, |_| false)
            .expect("the server has lost them");
    }
}
