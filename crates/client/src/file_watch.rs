//! Hearing of writes to the file as they happen.

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

#[cfg(not(target_os = "linux"))]
use elsewhere::Told;
use futures_util::FutureExt as _;
#[cfg(target_os = "linux")]
use linux::Told;

/// How often the file is looked at where the system tells of writes: only in case it did not.
const LOOK_TOLD: Duration = Duration::from_millis(100);
/// Where it does not: while the file is being written …
const LOOK_BUSY: Duration = Duration::from_millis(2);
/// … and when nothing has happened for [`BUSY_FOR`].
const LOOK_IDLE: Duration = Duration::from_millis(20);
const BUSY_FOR: Duration = Duration::from_secs(5);
/// A write is told before its transaction is committed: for this long it is looked for often.
const COMMIT_MAX: Duration = Duration::from_millis(60);
/// As long, after writes of our own with which another program's may have been told.
const COMMIT_AMONG: Duration = Duration::from_millis(5);
/// Most commits have ended after this time.
const COMMIT_MOSTLY: Duration = Duration::from_millis(1);
/// How often is looked for them until then.
pub(crate) const LOOK_NEAR: Duration = Duration::from_micros(50);

/// Tells when the file is worth a look.
#[derive(Debug)]
pub(crate) struct FileWatch {
    path: PathBuf,
    told: Telling,
    /// Until when a commit is looked for often …
    expected_until: Option<Instant>,
    /// … and until when oftener than the runtime's timer can.
    near_until: Option<Instant>,
    last_write: Instant,
}

#[derive(Debug)]
enum Telling {
    /// Nobody has waited yet.
    Unasked,
    By(Told),
    /// A network drive, or no more watches.
    Never,
}

impl FileWatch {
    /// For the database at `path` and the journals beside it; watched from the first wait.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            told: Telling::Unasked,
            expected_until: None,
            near_until: None,
            last_write: Instant::now(),
        }
    }

    /// Ends when the file should be looked at. Can be dropped and called again at any time.
    pub(crate) async fn wait(&mut self) {
        let pause = tokio::time::sleep(self.pause());
        match &mut self.told {
            Telling::Unasked => {
                let told = self.path.canonicalize();
                let told = told.and_then(|path| Told::new(&path, &files(&path)));
                self.told = match told {
                    Ok(told) => Telling::By(told),
                    Err(error) => {
                        tracing::debug!(%error, "looking at the file now and then");
                        Telling::Never
                    }
                };
                // What was written before, nobody tells: the file is looked at now.
            }
            Telling::Never => pause.await,
            Telling::By(told) => tokio::select! {
                () = told.wait() => {
                    let now = Instant::now();
                    self.expected_until = Some(now + COMMIT_MAX);
                    self.near_until = Some(now + COMMIT_MOSTLY);
                }
                () = pause => {}
            },
        }
    }

    /// Passes over what was told of our own writes, which came just now. Another program's may be
    /// among them, not committed yet.
    pub(crate) fn wrote(&mut self) {
        let Telling::By(told) = &mut self.told else {
            return;
        };
        while told.wait().now_or_never().is_some() {
            self.expected_until = self.expected_until.max(Some(Instant::now() + COMMIT_AMONG));
        }
    }

    /// Whether another program's commit is likely to end before the runtime's timer could tell.
    pub(crate) fn is_commit_near(&self) -> bool {
        self.near_until.is_some_and(|until| Instant::now() < until)
    }

    /// Another program committed, as a look found out.
    pub(crate) fn found_write(&mut self) {
        self.last_write = Instant::now();
        self.expected_until = None;
        self.near_until = None;
    }

    fn pause(&self) -> Duration {
        if matches!(self.told, Telling::Never) {
            return if self.last_write.elapsed() < BUSY_FOR {
                LOOK_BUSY
            } else {
                LOOK_IDLE
            };
        }
        match self.expected_until {
            // The runtime's timer knows no less.
            Some(until) if Instant::now() < until => Duration::from_millis(1),
            Some(_) | None => LOOK_TOLD,
        }
    }
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
            watch.wait().await;
            let Telling::By(told) = &mut watch.told else {
                panic!("this system tells");
            };
            // What was under way before the watch began may still arrive.
            while tokio::time::timeout(LOOK_TOLD, told.wait()).await.is_ok() {}

            app.query_row("SELECT count(*) FROM t", [], |_| Ok(()))
                .expect("read");
            let heard = tokio::time::timeout(LOOK_TOLD, told.wait()).await;
            assert!(heard.is_err(), "{mode}: reading");
            app.execute_batch("INSERT INTO t VALUES (1)")
                .expect("write");
            let heard = tokio::time::timeout(Duration::from_secs(20), told.wait()).await;
            assert!(heard.is_ok(), "{mode}: writing");
            // The many writes of one commit are told as few.
            let mut times = 0;
            while tokio::time::timeout(LOOK_TOLD, told.wait()).await.is_ok() {
                times += 1;
            }
            assert!(times < 20, "{mode}: {times} times");
            watch.found_write();
        }
    }
}
