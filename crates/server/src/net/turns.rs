//! Whose turn it is to read the database (spec LI10): of each user a few read at once, the others
//! wait in the order in which they came.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use syncline_core::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Those who are not signed in are one.
type Who = Option<UserId>;

/// The lines of all users of whom somebody reads or waits.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<Who, Line>>);

#[derive(Debug)]
struct Line {
    places: Arc<Semaphore>,
    /// How many read or wait: the last takes the line along.
    count: usize,
}

impl Turns {
    /// How many of `who` read or wait.
    pub(crate) fn count(&self, who: &Who) -> usize {
        self.0.lock().get(who).map_or(0, |line| line.count)
    }

    /// Waits until one of `who` fewer than `most` reads. The turn ends when it is dropped.
    pub(crate) async fn take(self: &Arc<Self>, who: Who, most: u32) -> Turn {
        let waiting = self.stand_in_line(who, most);
        let permit = Arc::clone(&waiting.places).acquire_owned().await;
        Turn {
            _permit: permit.ok(),
            _waiting: waiting,
        }
    }

    fn stand_in_line(self: &Arc<Self>, who: Who, most: u32) -> InLine {
        let mut lines = self.0.lock();
        let line = lines.entry(who.clone()).or_insert_with(|| Line {
            places: Arc::new(Semaphore::new((most as usize).min(Semaphore::MAX_PERMITS))),
            count: 0,
        });
        line.count += 1;
        InLine {
            places: Arc::clone(&line.places),
            turns: Arc::clone(self),
            who,
        }
    }
}

/// Somebody may read for as long as this lives. The place is free before the line is left.
#[derive(Debug)]
pub(crate) struct Turn {
    /// `None` never: nobody closes a line.
    _permit: Option<OwnedSemaphorePermit>,
    _waiting: InLine,
}

/// Somebody who reads or waits; also one who gave up waiting leaves the line.
#[derive(Debug)]
struct InLine {
    places: Arc<Semaphore>,
    turns: Arc<Turns>,
    who: Who,
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut lines = self.turns.0.lock();
        if let Entry::Occupied(mut line) = lines.entry(self.who.take()) {
            line.get_mut().count -= 1;
            if line.get().count == 0 {
                line.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn who(name: &str) -> Who {
        Some(UserId(name.into()))
    }

    #[tokio::test]
    async fn li10_those_of_one_user_read_in_the_order_in_which_they_came() {
        let turns = Arc::new(Turns::default());
        let first = turns.take(who("eve"), 2).await;
        let _second = turns.take(who("eve"), 2).await;
        let mut third = Box::pin(turns.take(who("eve"), 2));
        let mut fourth = Box::pin(turns.take(who("eve"), 2));
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut fourth).now_or_never().is_none());
        assert_eq!(turns.count(&who("eve")), 4);
        assert_eq!(turns.count(&who("ada")), 0);
        // Others do not wait for her, and neither do those who are not signed in.
        let _ada = turns.take(who("ada"), 2).await;
        let _nobody = turns.take(None, 2).await;
        drop(first);
        assert!((&mut fourth).now_or_never().is_none(), "it came later");
        let third = (&mut third).now_or_never().expect("it is its turn");
        drop(third);
        fourth.now_or_never().expect("it is its turn");
    }

    #[tokio::test]
    async fn li10_who_gives_up_waiting_keeps_nobody() {
        let turns = Arc::new(Turns::default());
        let first = turns.take(who("eve"), 1).await;
        let mut gone = Box::pin(turns.take(who("eve"), 1));
        let mut next = Box::pin(turns.take(who("eve"), 1));
        assert!((&mut gone).now_or_never().is_none());
        assert!((&mut next).now_or_never().is_none());
        drop((gone, first));
        drop(next.now_or_never().expect("it is its turn"));
        assert!(turns.0.lock().is_empty(), "nothing is kept of a line");
    }
}
