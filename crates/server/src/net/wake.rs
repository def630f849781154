//! How a session is told that there is something for it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

/// Wakes one session's task. It says only that there is something: what it is the session finds by
/// looking. So any number of reasons is one wake-up, and an idle session waits in one place.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    is_due: AtomicBool,
    task: AtomicWaker,
}

impl Wake {
    /// To be called after what there is to be found can be found.
    pub(crate) fn wake(&self) {
        if !self.is_due.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }

    /// Whether it was woken since it was ready last. Only one task may ask.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_due.load(Ordering::Acquire) {
            self.task.register(context.waker());
        }
        // Again: it may have been woken before the task was known.
        match self.is_due.swap(false, Ordering::AcqRel) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use super::*;

    #[tokio::test]
    async fn many_reasons_are_one_wake_up_and_none_is_missed() {
        let wake = Arc::new(Wake::default());
        wake.wake();
        wake.wake();
        poll_fn(|context| wake.poll(context)).await;
        let again = poll_fn(|context| Poll::Ready(wake.poll(context))).await;
        assert!(again.is_pending());
        for _ in 0..1_000 {
            let waker = Arc::clone(&wake);
            let woken = std::thread::spawn(move || waker.wake());
            poll_fn(|context| wake.poll(context)).await;
            woken.join().expect("it only wakes");
        }
    }
}
