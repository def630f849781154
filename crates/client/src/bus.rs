//! Events to any number of listeners, none of which can hold up the others.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use futures_util::{Stream, StreamExt};

use crate::event::Event;

/// Events that wait for a listener before the oldest are forgotten.
pub(crate) const WAITING_MAX: usize = 1_024;

/// Where events are told.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    inboxes: Vec<Weak<Mutex<Inbox>>>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Inbox {
    waiting: VecDeque<Event>,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A listener that panicked while it held the lock left a queue that is still one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    pub(crate) fn subscribe(&self) -> Events {
        let mut listeners = locked(&self.listeners);
        let inbox = Arc::new(Mutex::new(Inbox {
            closed: listeners.closed,
            ..Inbox::default()
        }));
        listeners.inboxes.push(Arc::downgrade(&inbox));
        Events { inbox }
    }

    pub(crate) fn publish(&self, event: &Event) {
        self.each(|inbox| {
            if inbox.waiting.len() >= WAITING_MAX {
                inbox.waiting.pop_front();
                inbox.missed += 1;
            }
            inbox.waiting.push_back(event.clone());
        });
    }

    /// Ends every stream after what waits in it.
    pub(crate) fn close(&self) {
        locked(&self.listeners).closed = true;
        self.each(|inbox| inbox.closed = true);
    }

    fn each(&self, mut tell: impl FnMut(&mut Inbox)) {
        let mut wakers = Vec::new();
        locked(&self.listeners).inboxes.retain(|listener| {
            let Some(inbox) = listener.upgrade() else {
                return false;
            };
            let mut inbox = locked(&inbox);
            tell(&mut inbox);
            wakers.extend(inbox.waker.take());
            true
        });
        // Outside of the lock: waking may run code of the app's executor.
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The events of a [`crate::SyncManager`] from when it was asked for: a stream for any executor.
///
/// At most 1,024 events wait; of a listener that is slower the oldest are forgotten, and it is
/// told how many ([`Event::Lagged`]). Ends when the manager is closed.
#[derive(Debug)]
pub struct Events {
    inbox: Arc<Mutex<Inbox>>,
}

impl Events {
    /// The next event; `None` once the manager is closed. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        StreamExt::next(self).await
    }

    /// An event that is here already.
    pub fn try_next(&mut self) -> Option<Event> {
        locked(&self.inbox).take()
    }
}

impl Inbox {
    fn take(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.missed) {
            0 => self.waiting.pop_front(),
            missed => Some(Event::Lagged(missed)),
        }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut inbox = locked(&self.inbox);
        if let Some(event) = inbox.take() {
            return Poll::Ready(Some(event));
        }
        if inbox.closed {
            return Poll::Ready(None);
        }
        inbox.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::block_on;

    #[test]
    fn lb5_a_slow_listener_is_told_how_many_events_it_missed() {
        let bus = Bus::default();
        let mut slow = bus.subscribe();
        let mut quick = bus.subscribe();
        for rows in 0..WAITING_MAX as u64 + 7 {
            bus.publish(&Event::Rescanned { rows });
            assert_eq!(quick.try_next(), Some(Event::Rescanned { rows }));
        }
        assert_eq!(block_on(slow.next()), Some(Event::Lagged(7)));
        assert_eq!(block_on(slow.next()), Some(Event::Rescanned { rows: 7 }));
    }

    #[test]
    fn lb5_a_stream_ends_after_what_waited_when_its_manager_was_closed() {
        let bus = Bus::default();
        let mut events = bus.subscribe();
        drop(bus.subscribe());
        bus.publish(&Event::Live);
        bus.close();
        assert_eq!(block_on(events.next()), Some(Event::Live));
        assert_eq!(block_on(events.next()), None);
        assert_eq!(block_on(bus.subscribe().next()), None);
    }
}
