//! Hearing of writes to the file as they happen.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// How often the file is looked at where the system tells of writes: only in case it did not.
const LOOK_TOLD: Duration = Duration::from_millis(100);
/// Where it does not: while the file is being written …
const LOOK_BUSY: Duration = Duration::from_millis(2);
/// … and when nothing has happened for [`BUSY_FOR`].
const LOOK_IDLE: Duration = Duration::from_millis(20);
const BUSY_FOR: Duration = Duration::from_secs(5);
/// A write is told before its transaction is committed: for this long it is looked for often.
const COMMIT_MAX: Duration = Duration::from_millis(60);

/// Tells when the file is worth a look.
#[derive(Debug)]
pub(crate) struct FileWatch {
    /// `None` where the system does not tell (a network drive, no more watches).
    told: Option<(Arc<Notify>, RecommendedWatcher)>,
    last_told: Option<Instant>,
    last_write: Instant,
}

impl FileWatch {
    /// Watches the database at `path` and the journals beside it.
    pub(crate) fn new(path: &Path) -> Self {
        let told = watch(path)
            .inspect_err(|error| tracing::debug!(%error, "looking at the file now and then"))
            .ok();
        Self {
            told,
            last_told: None,
            last_write: Instant::now(),
        }
    }

    /// Ends when the file should be looked at. Can be dropped and called again at any time.
    pub(crate) async fn wait(&mut self) {
        let pause = tokio::time::sleep(self.pause());
        let Some((told, _)) = &self.told else {
            return pause.await;
        };
        tokio::select! {
            () = told.notified() => self.last_told = Some(Instant::now()),
            () = pause => {}
        }
    }

    /// Another program committed, as a look found out.
    pub(crate) fn found_write(&mut self) {
        self.last_write = Instant::now();
        self.last_told = None;
    }

    fn pause(&self) -> Duration {
        let is_within = |since: Instant, max| since.elapsed() < max;
        if self.told.is_none() {
            return if is_within(self.last_write, BUSY_FOR) {
                LOOK_BUSY
            } else {
                LOOK_IDLE
            };
        }
        match self.last_told {
            // The runtime's timer knows no less.
            Some(last) if is_within(last, COMMIT_MAX) => Duration::from_millis(1),
            Some(_) | None => LOOK_TOLD,
        }
    }
}

fn watch(path: &Path) -> notify::Result<(Arc<Notify>, RecommendedWatcher)> {
    let path = path.canonicalize().map_err(notify::Error::io)?;
    let files = files(&path);
    let told = Arc::new(Notify::new());
    let tell = told.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let is_ours = event.is_ok_and(|event| {
            !matches!(event.kind, EventKind::Access(_))
                && (event.paths.iter()).any(|path| files.contains(path))
        });
        if is_ours {
            tell.notify_one();
        }
    })?;
    // The folder: journals come and go.
    let folder = path.parent().unwrap_or(Path::new("/"));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok((told, watcher))
}

/// The database and what a commit writes beside it.
fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-journal"].map(|suffix| {
        let mut name: OsString = path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// In both journal modes a commit is told, and reading is not.
    #[tokio::test]
    async fn a_commit_is_told_and_reading_is_not() {
        for mode in ["WAL", "DELETE"] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("app.db");
            let app = Connection::open(&path).expect("open");
            app.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(()))
                .expect("set the mode");
            app.execute_batch("CREATE TABLE t(a)").expect("a table");
            let mut watch = FileWatch::new(&path);
            let (told, _) = watch.told.as_ref().expect("this system tells");
            let told = told.clone();
            // What was under way before the watch began may still arrive.
            while tokio::time::timeout(LOOK_TOLD, told.notified())
                .await
                .is_ok()
            {}

            app.query_row("SELECT count(*) FROM t", [], |_| Ok(()))
                .expect("read");
            let heard = tokio::time::timeout(LOOK_TOLD, told.notified()).await;
            assert!(heard.is_err(), "{mode}: reading");
            app.execute_batch("INSERT INTO t VALUES (1)")
                .expect("write");
            let heard = tokio::time::timeout(Duration::from_secs(20), told.notified()).await;
            assert!(heard.is_ok(), "{mode}: writing");
            watch.found_write();
        }
    }
}
