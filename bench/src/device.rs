//! A device as apps have it: the client library over an SQLite file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use syncline::engine::{self, Driver, Goal, Interrupt};

/// Runs `goal` on a new file: tables and rows arrive.
pub(crate) async fn hydrate(path: &Path, url: &str, token: &str) -> Result<()> {
    let connection = connection(url, token)?;
    let replica = engine::hydrate(path, &connection, Vec::new()).await?;
    let mut driver = Driver::new(replica, path.to_owned(), connection)?;
    driver
        .run(Goal::InStep, &Interrupt::default(), |_, _| {})
        .await?;
    Ok(())
}

/// Connects with a file that was hydrated, and brings it in step.
pub(crate) async fn sync(path: &Path, url: &str, token: &str) -> Result<()> {
    let replica = engine::open_replica(path)?;
    let mut driver = Driver::new(replica, path.to_owned(), connection(url, token)?)?;
    driver
        .run(Goal::InStep, &Interrupt::default(), |_, _| {})
        .await?;
    Ok(())
}

fn connection(url: &str, token: &str) -> Result<engine::Connection> {
    Ok(engine::Connection::new(url, engine::Token::new(token))?)
}

/// A file that is kept in step on a thread of its own, until dropped.
pub(crate) struct Live {
    pub path: PathBuf,
    interrupt: Interrupt,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Live {
    /// Takes a file that was hydrated.
    pub(crate) fn start(path: PathBuf, url: &str, token: &str) -> Result<Self> {
        let connection = connection(url, token)?;
        let interrupt = Interrupt::default();
        let (file, stop) = (path.clone(), interrupt.clone());
        let thread = std::thread::Builder::new()
            .name("device".into())
            .spawn(move || {
                let run = || -> Result<()> {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()?;
                    runtime.block_on(async {
                        let replica = engine::open_replica(&file)?;
                        let mut driver = Driver::new(replica, file, connection)?;
                        driver.run(Goal::Forever, &stop, |_, _| {}).await?;
                        Ok(())
                    })
                };
                if let Err(error) = run() {
                    // The workload notices: nothing arrives any more.
                    drop(error.context("a live device ended"));
                }
            });
        Ok(Self {
            path,
            interrupt,
            thread: Some(thread.context("start a thread")?),
        })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.interrupt.trigger();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
