//! A few read connections, shared by all sessions.

use std::sync::Arc;

use parking_lot::Mutex;
use syncline_store::StorageError;
use tokio::sync::Semaphore;

use super::Backend;

/// Read connections at once: reads are short, and more would only fight for the disk.
const READERS_MAX: usize = 4;

/// Lends out read connections; opens them when first needed.
pub(crate) struct Readers<B: Backend> {
    backend: Arc<B>,
    idle: Mutex<Vec<B::Reader>>,
    permits: Arc<Semaphore>,
}

impl<B: Backend> Readers<B> {
    pub(crate) fn new(backend: Arc<B>) -> Self {
        let permits = Arc::new(Semaphore::new(READERS_MAX));
        Self {
            backend,
            idle: Mutex::new(Vec::new()),
            permits,
        }
    }

    /// Runs `work` with a reader on a blocking thread. A reader that failed is not used again.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut B::Reader) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let closed = || StorageError::Failed("the server is stopping".into());
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| closed())?;
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = readers.idle.lock().pop();
            let mut reader = match idle {
                Some(reader) => reader,
                None => readers.backend.reader()?,
            };
            let result = work(&mut reader);
            if result.is_ok() {
                readers.idle.lock().push(reader);
            }
            result
        });
        task.await
            .map_err(|panic| StorageError::Failed(panic.into()))?
    }
}
