//! A few read connections, shared by all sessions.

use std::sync::Arc;

use parking_lot::Mutex;
use syncline_store::{Reader, StorageError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Read connections at once: reads are short, and more would only fight for the disk.
pub(crate) const READERS_MAX: usize = 4;

/// Lends out read connections.
pub(crate) struct Readers<R> {
    idle: Mutex<Vec<R>>,
    permits: Arc<Semaphore>,
    left: Mutex<usize>,
}

impl<R: Reader + Send + 'static> Readers<R> {
    pub(crate) fn new(readers: Vec<R>) -> Self {
        let permits = Arc::new(Semaphore::new(readers.len()));
        Self {
            left: Mutex::new(readers.len()),
            idle: Mutex::new(readers),
            permits,
        }
    }

    /// Runs `work` with a reader on a blocking thread.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut R) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let failed = |why: &str| StorageError::Failed(why.into());
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| failed("no reader is left"))?;
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let reader = readers.idle.lock().pop();
            let reader = reader.ok_or_else(|| failed("no reader is left"))?;
            let mut lent = Lent {
                readers,
                reader: Some(reader),
                permit: Some(permit),
            };
            let result = work(lent.reader.as_mut().expect("it was just put in"));
            lent.give_back();
            result
        });
        task.await
            .map_err(|panic| StorageError::Failed(panic.into()))?
    }
}

/// A reader on loan. One whose work panicked is in an unknown state and not lent out again; when
/// the last has gone, reading fails and the server is not ready any more.
struct Lent<R> {
    readers: Arc<Readers<R>>,
    reader: Option<R>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<R> Lent<R> {
    fn give_back(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.readers.idle.lock().push(reader);
        }
        self.permit = None;
    }
}

impl<R> Drop for Lent<R> {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        permit.forget();
        let mut left = self.readers.left.lock();
        *left -= 1;
        tracing::error!(left = *left, "a reader was lost to a panic");
        if *left == 0 {
            self.readers.permits.close();
        }
    }
}
