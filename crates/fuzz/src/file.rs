//! Files of strangers: what `attach` may be pointed at.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use rusqlite::{Connection, limits::Limit};
use syncline_core::Timestamp;
use syncline_replica::{AttachOptions, Replica, introspect::introspect};

/// What every SQLite file begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Larger files say nothing new.
const BYTES_MAX: usize = 128 * 1024;
/// Virtual machine steps, in thousands: what the file's own views and triggers may take.
const STEPS_MAX: u32 = 400;

/// A database file, or a script of statements that makes one; then it is looked at, attached,
/// sealed, checked and detached. Any of it may fail, nothing may panic, and what was attached can
/// be detached.
pub(crate) fn file(bytes: &[u8]) {
    if bytes.len() > BYTES_MAX {
        return;
    }
    drop(try_file(bytes));
}

fn try_file(bytes: &[u8]) -> anyhow::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    if bytes.starts_with(MAGIC) {
        let name = format!(
            "syncline-fuzz-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes)?;
        let attached = Connection::open(&path).map_err(Into::into).and_then(attach);
        for end in ["", "-wal", "-shm", "-journal"] {
            let mut name = path.clone().into_os_string();
            name.push(end);
            // Most of these do not exist.
            drop(fs::remove_file(name));
        }
        return attached;
    }
    let mut conn = Connection::open_in_memory()?;
    bounded(&mut conn)?;
    let script = std::str::from_utf8(bytes)?;
    for statement in script.split(";\n") {
        // Where one is refused the others still make tables.
        drop(conn.execute_batch(statement));
    }
    if !conn.is_autocommit() {
        conn.execute_batch("COMMIT")?;
    }
    attach(conn)
}

/// A script opens no other files, and has an end.
fn bounded(conn: &mut Connection) -> rusqlite::Result<()> {
    conn.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, 1_000_000)?;
    let mut left = STEPS_MAX;
    conn.progress_handler(
        1_000,
        Some(move || {
            left = left.saturating_sub(1);
            left == 0
        }),
    )
}

fn attach(mut conn: Connection) -> anyhow::Result<()> {
    let mut seed = 1_u8;
    let entropy = move |bytes: &mut [u8]| {
        for byte in bytes {
            seed = seed.wrapping_mul(5).wrapping_add(3);
            *byte = seed;
        }
    };
    bounded(&mut conn)?;
    conn.busy_timeout(std::time::Duration::ZERO)?;
    drop(introspect(&conn));
    let now = Timestamp::from_millis(1_800_000_000_000);
    let mut replica = if Replica::is_attached(&conn)? {
        Replica::open(conn, Box::new(entropy), now)?
    } else {
        Replica::attach(conn, AttachOptions::default(), Box::new(entropy))?
    };
    drop(replica.connect(now));
    while replica.poll_transmit().is_some() {}
    drop(replica.seal(now));
    drop(replica.check_local(10, now));
    drop(replica.status());
    drop(replica.queue(None, 10));
    let conn = replica.detach()?;
    assert!(!Replica::is_attached(&conn)?, "detached is detached");
    Ok(())
}
