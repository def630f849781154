//! Databases in memory that several connections share, their copies, and commits that fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, backup::Backup, functions::FunctionFlags};

/// A name that no other database of this process has.
pub(crate) fn fresh_name(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("sim-{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The database of this name; it lives as long as any connection to it.
pub(crate) fn open_memory(name: &str) -> anyhow::Result<Connection> {
    let conn = Connection::open(format!("file:/{name}?vfs=memdb"))?;
    conn.busy_timeout(Duration::from_secs(1))?;
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
/// would be if the process had died just before that commit.
#[derive(Debug, Clone)]
pub(crate) struct Fuse(Arc<AtomicU64>);

impl Fuse {
    /// Far enough away never to be reached.
    const NEVER: u64 = u64::MAX;

    /// Installs a fuse that does not burn.
    pub(crate) fn install(conn: &mut Connection) -> rusqlite::Result<Self> {
        let left = Arc::new(AtomicU64::new(Self::NEVER));
        let fuse = Self(Arc::clone(&left));
        conn.commit_hook(Some(move || {
            let now = left.load(Ordering::Relaxed);
            if now != Self::NEVER && now > 0 {
                left.store(now - 1, Ordering::Relaxed);
            }
            now == 0
        }))?;
        Ok(fuse)
    }

    /// After this many commits every other fails.
    pub(crate) fn light(&self, commits: u64) {
        self.0.store(commits, Ordering::Relaxed);
    }

    pub(crate) fn put_out(&self) {
        self.light(Self::NEVER);
    }

    pub(crate) fn is_burnt(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}
