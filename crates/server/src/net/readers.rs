//! A few read connections, shared by all sessions.

use std::sync::Arc;

use parking_lot::Mutex;
use syncline_store::{Reader, StorageError};
use tokio::sync::Semaphore;

/// Read connections at once: reads are short, and more would only fight for the disk.
pub(crate) const READERS_MAX: usize = 4;

/// Lends out read connections.
pub(crate) struct Readers<R> {
    idle: Mutex<Vec<R>>,
    permits: Arc<Semaphore>,
}

impl<R: Reader + Send + 'static> Readers<R> {
    pub(crate) fn new(readers: Vec<R>) -> Self {
        let permits = Arc::new(Semaphore::new(readers.len()));
        Self {
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
        let permit = permit.map_err(|_| failed("the server is stopping"))?;
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let reader = readers.idle.lock().pop();
            let mut reader = reader.ok_or_else(|| failed("a reader was lost to a panic"))?;
            let result = work(&mut reader);
            readers.idle.lock().push(reader);
            result
        });
        task.await
            .map_err(|panic| StorageError::Failed(panic.into()))?
    }
}
