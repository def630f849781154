//! Ending a run from outside.

use std::sync::Arc;

use tokio::sync::watch;

/// Ends a run from outside (Ctrl-C, a button).
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<watch::Sender<bool>>);

impl Default for Interrupt {
    fn default() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }
}

impl Interrupt {
    /// Ends every run that has this interrupt, now and later.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is triggered; works in any executor.
    pub async fn triggered(&self) {
        let mut watch = self.watch();
        // The sender lives as long as `self`.
        let _triggered = watch.wait_for(|stop| *stop).await;
    }

    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}
