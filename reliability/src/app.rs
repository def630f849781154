//! An app in a process of its own: plain SQL in its file, the client library beside it. It tells
//! what it did as lines on standard output, and hears commands on standard input.
//!
//! | It says | When |
//! |---|---|
//! | `open HAVE MAX` | at start: how many edits of its own the file holds, and the number of the last |
//! | `made N` | the COMMIT of edit N returned |
//! | `acked N` | the engine told that the server has all edits up to N |
//! | `wrote N MICROS`, `saw NAME N MICROS` | with `--timed`: when edit N was committed, and when the newest edit of another device was in the file |
//! | `live` | connected, and in step with the server |
//! | `off` | told `off`: not connected any more |
//! | `rest WAITING` | asked by `look`: changesets that wait |
//! | `note TEXT` | anything else that the engine or SQLite told |
//!
//! It hears `stop`, `go`, `pace MICROSECONDS`, `hurry` (connect now), `off` (disconnect), `on`,
//! `look` and `end`.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use rusqlite::Connection;
use syncline::{Config, Event, QueueState, QueuedChangeset, Value, blocking::SyncManager};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The app's database, attached.
    #[arg(long)]
    file: PathBuf,
    /// What its edits are signed with.
    #[arg(long)]
    name: String,
    /// `wal` or `delete`.
    #[arg(long, default_value = "wal")]
    journal: String,
    /// Microseconds between two edits.
    #[arg(long, default_value_t = 5_000)]
    pace: u64,
    /// Begin without edits, until told `go`.
    #[arg(long)]
    quiet: bool,
    /// Delete own edits older than so many.
    #[arg(long)]
    rows: Option<u64>,
    /// Tell when edits are made and seen.
    #[arg(long)]
    timed: bool,
}

struct State {
    made: AtomicU64,
    pace: AtomicU64,
    acked: AtomicU64,
    writes: AtomicBool,
}

/// How many edits may wait to be acknowledged: listing what waits takes longer the more it is.
const AHEAD_MAX: u64 = 80;
/// How often the file is looked at for others' edits.
const LOOK_EVERY: Duration = Duration::from_millis(5);

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listens to an app whose harness is gone.
    let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn note(what: &str, text: impl std::fmt::Display) {
    say(&format!(
        "note {what}: {}",
        text.to_string().replace('\n', " ")
    ));
}

/// Runs until its standard input ends or says `end`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let conn = Connection::open(&args.file)?;
    conn.busy_timeout(Duration::from_secs(20))?;
    conn.pragma_update_and_check(None, "journal_mode", &args.journal, |_| Ok(()))?;
    // In a rollback journal a commit is durable once the folder is synced, too.
    conn.pragma_update(None, "synchronous", "EXTRA")?;
    let own = "SELECT count(*), coalesce(max(n), 0) FROM log WHERE device = ?1";
    let (have, last): (u64, i64) = conn.query_row(own, [&args.name], |row| {
        Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?))
    })?;
    let last = last.unsigned_abs();
    say(&format!("open {have} {last}"));

    let config = Config::from_env()?.auto_sync(true);
    let sync = SyncManager::open(&args.file, config).context("open the replica")?;
    let state = Arc::new(State {
        made: AtomicU64::new(last),
        acked: AtomicU64::new(last),
        pace: AtomicU64::new(args.pace),
        writes: AtomicBool::new(!args.quiet),
    });
    let events = sync.events();
    std::thread::spawn(move || {
        for event in events {
            tell(&event);
        }
    });
    let (watched, seen) = (sync.clone(), Arc::clone(&state));
    std::thread::spawn(move || acknowledge(&watched, &seen));
    if args.timed {
        let (file, name) = (args.file.clone(), args.name.clone());
        std::thread::spawn(move || {
            if let Err(error) = watch(&file, &name) {
                note("watch", error);
            }
        });
    }
    let (own, edits) = (args.clone(), Arc::clone(&state));
    std::thread::spawn(move || write(&conn, &own, &edits));

    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["stop"] => state.writes.store(false, Ordering::SeqCst),
            ["go"] => state.writes.store(true, Ordering::SeqCst),
            ["pace", micros] => state.pace.store(micros.parse()?, Ordering::SeqCst),
            ["hurry"] => sync.handle().foreground(),
            ["off"] => {
                sync.handle().stop_auto_sync();
                while sync.handle().is_connected() {
                    std::thread::sleep(LOOK_EVERY);
                }
                say("off");
            }
            ["on"] => {
                sync.handle().start_auto_sync();
                sync.handle().foreground();
            }
            ["look"] => match sync.status() {
                Ok(Some(status)) => say(&format!("rest {}", status.waiting + status.accepted)),
                Ok(None) => note("status", "not attached"),
                Err(error) => note("status", error),
            },
            _ => break,
        }
    }
    sync.close();
    Ok(())
}

/// Makes edits, one transaction each, numbered without gaps.
fn write(conn: &Connection, args: &Args, state: &State) {
    let name = &args.name;
    let mut n = state.made.load(Ordering::SeqCst) + 1;
    loop {
        std::thread::sleep(Duration::from_micros(state.pace.load(Ordering::SeqCst)));
        let waits = n.saturating_sub(state.acked.load(Ordering::SeqCst)) > AHEAD_MAX;
        if waits || !state.writes.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        if let Err(error) = edit(conn, args, n) {
            note("edit", error);
            std::thread::sleep(Duration::from_millis(20));
            // A commit that failed may have been done all the same.
            if !matches!(has(conn, name, n), Ok(true)) {
                continue;
            }
        }
        state.made.store(n, Ordering::SeqCst);
        if args.timed {
            say(&format!("wrote {n} {}", micros()));
        }
        say(&format!("made {n}"));
        n += 1;
    }
}

/// Tells when the newest edit of each other device is in the file.
fn watch(file: &Path, name: &str) -> rusqlite::Result<()> {
    let conn = Connection::open(file)?;
    conn.busy_timeout(Duration::from_secs(20))?;
    let mut version = conn.prepare("PRAGMA data_version")?;
    let mut pairs = conn.prepare(
        "SELECT replace(id, '-a', ''), n FROM pairs WHERE id LIKE '%-a' AND id <> ?1 || '-a'",
    )?;
    let mut last = (0_i64, BTreeMap::<String, i64>::new());
    loop {
        std::thread::sleep(LOOK_EVERY);
        let now = version.query_row([], |row| row.get(0))?;
        if now == last.0 {
            continue;
        }
        last.0 = now;
        let mut rows = pairs.query([name])?;
        while let Some(row) = rows.next()? {
            let (other, n): (String, i64) = (row.get(0)?, row.get(1)?);
            if last
                .1
                .insert(other.clone(), n)
                .is_some_and(|before| before < n)
            {
                say(&format!("saw {other} {n} {}", micros()));
            }
        }
    }
}

fn micros() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros())
}

fn has(conn: &Connection, name: &str, n: u64) -> rusqlite::Result<bool> {
    let is_there = "SELECT EXISTS (SELECT 1 FROM log WHERE device = ?1 AND n = ?2)";
    conn.query_row(
        is_there,
        (name, i64::try_from(n).unwrap_or(i64::MAX)),
        |row| row.get(0),
    )
}

/// Every third transaction is not marked as one, as those of programs that do not know us.
fn edit(conn: &Connection, args: &Args, n: u64) -> rusqlite::Result<()> {
    let name = &args.name;
    let signed = i64::try_from(n).unwrap_or(i64::MAX);
    let body = "a line of text ".repeat(usize::try_from(n % 5).unwrap_or(0) + 1);
    let tx = rusqlite::Transaction::new_unchecked(conn, rusqlite::TransactionBehavior::Immediate)?;
    let mut insert = tx.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute((format!("{name}-{n:09}"), name, signed, body))?;
    drop(insert);
    if let Some(old) = args.rows.and_then(|rows| n.checked_sub(rows)) {
        let old = format!("{name}-{old:09}");
        tx.execute("DELETE FROM log WHERE id = ?1", [old])?;
    }
    tx.execute("UPDATE counters SET n = n + 1 WHERE id = 'all'", [])?;
    tx.execute(
        "UPDATE pairs SET n = ?2 WHERE id = ?1",
        (format!("{name}-a"), signed),
    )?;
    tx.execute(
        "UPDATE pairs SET n = ?2 WHERE id = ?1",
        (format!("{name}-b"), -signed),
    )?;
    if !n.is_multiple_of(3) {
        tx.execute("UPDATE syncline_tx SET n = n + 1", [])?;
    }
    tx.commit()
}

/// Asks the engine again and again what is still on its way.
fn acknowledge(sync: &SyncManager, state: &State) {
    let (mut acked, mut took) = (0, Duration::ZERO);
    loop {
        // A long list takes the engine a while: most of its time is for other things.
        std::thread::sleep(Duration::from_millis(8) + took * 5);
        let asked = std::time::Instant::now();
        // Everything made until now is in the list, or at the server.
        let made = state.made.load(Ordering::SeqCst);
        let queue = sync.wait(sync.handle().queue().changesets());
        took = asked.elapsed();
        match queue {
            Ok(queue) => {
                let waiting = queue.iter().filter_map(first_waiting).min();
                let now = waiting.map_or(made, |first| made.min(first.saturating_sub(1)));
                if now > acked {
                    acked = now;
                    state.acked.store(acked, Ordering::SeqCst);
                    say(&format!("acked {acked}"));
                }
            }
            Err(error) if error.kind() == syncline::ErrorKind::Closed => return,
            Err(error) => note("queue", error),
        }
    }
}

/// The number of the first edit in a changeset that the server is not known to have.
fn first_waiting(queued: &QueuedChangeset) -> Option<u64> {
    if matches!(queued.state, QueueState::Accepted { .. }) {
        return None;
    }
    // Old edits that are deleted are not waited for.
    let own = queued.changes.iter().filter(|change| {
        change.table == "log" && !matches!(change.change.op, syncline_core::Op::Delete)
    });
    let numbers = own.filter_map(|change| match change.change.key.decode().ok()?.first()? {
        Value::Text(id) => id.rsplit('-').next()?.parse().ok(),
        Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_) => None,
    });
    // One whose rows cannot be read counts as waiting from the first.
    Some(numbers.min().unwrap_or(0))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the rest is the engine's daily work"
)]
fn tell(event: &Event) {
    match event {
        Event::ChangeRefused(refused) => {
            note("refused", format!("{} {}", refused.code, refused.reason));
        }
        Event::EditLost(lost) => note("lost", &lost.reason),
        Event::SyncError(error) => note("sync", error),
        Event::Disconnected { error, .. } => note("disconnected", error),
        Event::Reloading { reason } => note("reloading", reason),
        Event::Rescanned { rows } => note("rescanned", rows),
        Event::RowUnfit { reason, .. } => note("unfit", reason),
        Event::Live => say("live"),
        _ => {}
    }
}
