//! Databases that several connections share, in memory or in files, their copies, and commits that fail.

use std::{
    io::ErrorKind,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use rusqlite::{Connection, backup::Backup, config::DbConfig, functions::FunctionFlags};
use syncline_store_sqlite::SqliteStorage;

/// Statements of the simulator that a connection keeps: what apps and checks ask again and again.
const STATEMENTS_MAX: usize = 300;

/// Where the databases of a run are.
#[derive(Debug, Clone)]
pub(crate) enum Disk {
    Memory,
    /// Real files, gone with the last who knows of them: the devices of the run.
    Folder(Rc<Folder>),
}

/// A folder of this process, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Named without chance: the simulator has none.
    fn new() -> std::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let base = std::env::temp_dir();
        loop {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("syncline-sim-{}-{next}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                // Of another process of that number, which was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// One database.
#[derive(Debug)]
pub(crate) enum Place {
    /// It lives as long as any connection to it.
    Memory(String),
    File(PathBuf),
}

impl Disk {
    pub(crate) fn new(has_files: bool) -> anyhow::Result<Self> {
        if !has_files {
            return Ok(Self::Memory);
        }
        let folder = Folder::new().context("a folder for the run's databases")?;
        Ok(Self::Folder(Rc::new(folder)))
    }

    /// A place that no other database has.
    pub(crate) fn place(&self, what: &str) -> Place {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("sim-{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        match self {
            Self::Memory => Place::Memory(name),
            Self::Folder(folder) => Place::File(folder.0.join(name)),
        }
    }
}

impl Place {
    /// The server's storage there.
    pub(crate) fn storage(&self, entropy: &[u8; 32]) -> anyhow::Result<SqliteStorage> {
        Ok(match self {
            Self::Memory(name) => SqliteStorage::open_in_memory(name, entropy)?,
            Self::File(path) => SqliteStorage::open(path, entropy)?,
        })
    }
}

pub(crate) fn open(place: &Place) -> anyhow::Result<Connection> {
    let conn = match place {
        Place::Memory(name) => Connection::open(format!("file:/{name}?vfs=memdb"))?,
        Place::File(path) => Connection::open(path)?,
    };
    conn.busy_timeout(Duration::from_secs(1))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Else SQLite prepares what it keeps anew for other values.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(conn)
}

/// What the database holds now, apart from it.
pub(crate) fn copy(conn: &Connection) -> anyhow::Result<Connection> {
    let mut to = Connection::open_in_memory()?;
    transfer(conn, &mut to)?;
    Ok(to)
}

/// Replaces everything in `to`.
pub(crate) fn transfer(from: &Connection, to: &mut Connection) -> anyhow::Result<()> {
    to.flush_prepared_statement_cache();
    Backup::new(from, to)?.run_to_completion(10_000, Duration::ZERO, None)?;
    Ok(())
}

/// A device's clock, as SQLite's own functions on its connections show it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn set(&self, micros: u64) {
        self.0.store(micros, Ordering::Relaxed);
    }

    /// Makes `julianday('now')` of this connection show this clock.
    pub(crate) fn install(&self, conn: &Connection) -> rusqlite::Result<()> {
        let clock = Arc::clone(&self.0);
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
        conn.create_scalar_function("julianday", 1, flags, move |_| {
            #[expect(
                clippy::cast_precision_loss,
                reason = "days have room for milliseconds"
            )]
            let days = clock.load(Ordering::Relaxed) as f64 / 86_400_000_000.0;
            Ok(2_440_587.5 + days)
        })
    }
}

/// Lets the commits of one connection fail from some point on: what is on disk is then what it
/// would be if the process had died just before that commit. Or lets a statement fail in the
/// middle, as one does whose disk gives an error.
#[derive(Debug, Clone)]
pub(crate) struct Fuse {
    commits: Arc<AtomicU64>,
    /// Counted in [`Fuse::OPERATIONS`] of SQLite's machine.
    statements: Arc<AtomicU64>,
    /// Statements fail only meanwhile: what the simulator looks at is no part of the run.
    is_armed: Arc<AtomicBool>,
}

impl Fuse {
    /// Far enough away never to be reached.
    const NEVER: u64 = u64::MAX;
    const OPERATIONS: i32 = 20;

    /// One that does not burn.
    pub(crate) fn new() -> Self {
        Self {
            commits: Arc::new(AtomicU64::new(Self::NEVER)),
            statements: Arc::new(AtomicU64::new(Self::NEVER)),
            is_armed: Arc::default(),
        }
    }

    /// Has a connection depend on it.
    pub(crate) fn add(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        let left = Arc::clone(&self.commits);
        conn.commit_hook(Some(move || burns(&left)))?;
        let left = Arc::clone(&self.statements);
        let is_armed = Arc::clone(&self.is_armed);
        conn.progress_handler(
            Self::OPERATIONS,
            Some(move || is_armed.load(Ordering::Relaxed) && burns(&left)),
        )
    }

    /// Whether statements may fail from now on.
    pub(crate) fn arm(&self, is_armed: bool) {
        self.is_armed.store(is_armed, Ordering::Relaxed);
    }

    /// After this many commits every other fails.
    pub(crate) fn light(&self, commits: u64) {
        self.commits.store(commits, Ordering::Relaxed);
    }

    /// After so much work of SQLite's every statement fails.
    pub(crate) fn break_soon(&self, after: u64) {
        self.statements.store(after, Ordering::Relaxed);
    }

    pub(crate) fn put_out(&self) {
        self.light(Self::NEVER);
        self.break_soon(Self::NEVER);
    }

    pub(crate) fn is_burnt(&self) -> bool {
        let is_zero = |left: &AtomicU64| left.load(Ordering::Relaxed) == 0;
        is_zero(&self.commits) || is_zero(&self.statements)
    }
}

/// Counts down to nothing, and stays there.
fn burns(left: &AtomicU64) -> bool {
    let now = left.load(Ordering::Relaxed);
    if now != Fuse::NEVER && now > 0 {
        left.store(now - 1, Ordering::Relaxed);
    }
    now == 0
}
