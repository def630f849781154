//! How a session is told that there is something for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task,
};

use futures_util::task::AtomicWaker;

/// Wakes one session's task. It says only that there is something: what it is the session finds by
/// looking. So any number of reasons is one wake-up, and an idle session waits in one place.
///
/// It is the waker of the session's hearing, too: whoever is woken by a commit need not look
/// whether something arrived.
#[derive(Debug)]
pub(crate) struct Wake {
    is_due: AtomicBool,
    has_arrived: AtomicBool,
    task: AtomicWaker,
}

impl Default for Wake {
    fn default() -> Self {
        Self {
            is_due: AtomicBool::new(false),
            // Only who has listened once is told.
            has_arrived: AtomicBool::new(true),
            task: AtomicWaker::new(),
        }
    }
}

impl Wake {
    /// To be called after what there is to be found can be found.
    pub(crate) fn wake(&self) {
        self.set(&self.is_due);
    }

    fn set(&self, flag: &AtomicBool) {
        if !flag.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }

    /// Which task to wake; before it asks what for. Only one task may.
    pub(crate) fn register(&self, context: &task::Context<'_>) {
        self.task.register(context.waker());
    }

    /// Whether there is something to look at since this was asked last.
    pub(crate) fn take_due(&self) -> bool {
        take(&self.is_due)
    }

    /// Whether something may have arrived since this was asked last: whoever leaves some of it
    /// says so with [`Wake::leave_arrived`].
    pub(crate) fn take_arrived(&self) -> bool {
        take(&self.has_arrived)
    }

    pub(crate) fn leave_arrived(&self) {
        self.has_arrived.store(true, Ordering::Release);
    }
}

fn take(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Acquire) && flag.swap(false, Ordering::AcqRel)
}

impl task::Wake for Wake {
    fn wake(self: Arc<Self>) {
        self.set(&self.has_arrived);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set(&self.has_arrived);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        task::{Poll, Waker},
    };

    use super::*;

    async fn woken(wake: &Wake, take: fn(&Wake) -> bool) {
        poll_fn(|context| {
            wake.register(context);
            match take(wake) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    #[tokio::test]
    async fn many_reasons_are_one_wake_up_and_none_is_missed() {
        let wake = Arc::new(Wake::default());
        wake.wake();
        wake.wake();
        woken(&wake, Wake::take_due).await;
        assert!(!wake.take_due());
        assert!(wake.take_arrived(), "nobody has listened yet");
        assert!(!wake.take_arrived());
        for _ in 0..1_000 {
            let (due, arrived) = (Arc::clone(&wake), Waker::from(Arc::clone(&wake)));
            let waking = std::thread::spawn(move || {
                due.wake();
                arrived.wake();
            });
            woken(&wake, Wake::take_arrived).await;
            woken(&wake, Wake::take_due).await;
            waking.join().expect("it only wakes");
        }
    }
}
