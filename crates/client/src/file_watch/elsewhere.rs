//! Writes told by the system, whichever it is.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Told {
    told: Arc<Notify>,
    _watcher: RecommendedWatcher,
}

impl Told {
    /// `path`: of the database; `files`: it and what is written beside it.
    pub(crate) fn new(path: &Path, files: &[PathBuf]) -> io::Result<Self> {
        let told = Arc::new(Notify::new());
        let (tell, files) = (told.clone(), files.to_vec());
        let on_event = move |event: notify::Result<notify::Event>| {
            let is_ours = event.is_ok_and(|event| {
                !matches!(event.kind, EventKind::Access(_))
                    && (event.paths.iter()).any(|path| files.contains(path))
            });
            if is_ours {
                tell.notify_one();
            }
        };
        let mut watcher = notify::recommended_watcher(on_event).map_err(io::Error::other)?;
        // The folder: journals come and go.
        let folder = path.parent().unwrap_or(Path::new("/"));
        let watched = watcher.watch(folder, RecursiveMode::NonRecursive);
        watched.map_err(io::Error::other)?;
        Ok(Self {
            told,
            _watcher: watcher,
        })
    }

    /// Ends when one of the files was written. Can be dropped and called again.
    pub(crate) async fn wait(&mut self) {
        self.told.notified().await;
    }
}
