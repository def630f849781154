//! A device that writes a million times without a server.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rusqlite::Connection;

use crate::{
    check,
    device::{Device, fleet},
    dice::Dice,
    lab::Lab,
    ledger::Outcome,
    server::Server,
    usage::{bytes, wal},
};

/// How long anything may take to begin, at best of three tries; judged where all was written.
const BEGINS_WITHIN: Duration = Duration::from_secs(2);
const JUDGED_EDITS: u64 = 1_000_000;
/// What the file may grow by between the first edits and the last, beside a quarter.
const FILE_SLACK: u64 = 2 * 1024 * 1024;

pub(crate) fn run(
    lab: &mut Lab,
    dice: &mut Dice,
    outcome: &mut Outcome,
    edits: u64,
    rows: u64,
) -> Result<()> {
    let folder = lab.round()?;
    let mut server = Server::start(lab, &folder, None)?;
    let mut devices = fleet(lab, &folder, &server, 2, "wal")?;
    for _ in 0..rows {
        devices[0].edit("as it was")?;
    }
    devices[0].run(lab, "sync", &[], 0)?;
    server.process.kill();

    // Each row is edited a few times by programs that do not know us: this is what a row costs.
    let conn = open(&devices[0])?;
    let some = (rows * 10).min(edits / 10);
    write(&conn, dice, &devices[0], rows, some)?;
    drop(conn);
    let is_judged = edits >= JUDGED_EDITS;
    begins(lab, &mut devices[0], is_judged)?;
    let before = Size::of(&devices[0])?;
    println!("  after {some} edits: {before}");

    // Half of the others while nothing of the engine runs, half beside it.
    let (conn, began) = (open(&devices[0])?, Instant::now());
    let half = (edits - some) / 2;
    write(&conn, dice, &devices[0], rows, half)?;
    devices[0].start(lab, None, &["--quiet"])?;
    write(&conn, dice, &devices[0], rows, edits - some - half)?;
    drop(conn);
    let took = began.elapsed();
    devices[0].kill();
    begins(lab, &mut devices[0], is_judged)?;
    let after = Size::of(&devices[0])?;
    println!(
        "  after {edits} edits of {rows} rows, without a server, in {} s: {after}",
        took.as_secs()
    );
    outcome.faults += edits;
    let judged = bounded(before, after, rows);

    server.restart(lab, None)?;
    let began = Instant::now();
    devices[0].run(lab, "sync", &[], 0)?;
    println!("  sent in {:.1} s", began.elapsed().as_secs_f64());
    check::at_rest(lab, &server, &mut devices)?;
    judged
}

/// As an app does that has no idea of us, in the journal mode it was given.
fn open(device: &Device) -> Result<Connection> {
    let conn = Connection::open(&device.file)?;
    conn.busy_timeout(Duration::from_secs(60))?;
    conn.pragma_update_and_check(None, "journal_mode", device.journal, |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(conn)
}

/// So many edits, one transaction each, of random rows.
fn write(conn: &Connection, dice: &mut Dice, device: &Device, rows: u64, edits: u64) -> Result<()> {
    let mut update = conn.prepare("UPDATE log SET body = ?2 WHERE id = ?1")?;
    for edit in 0..edits {
        let row = format!("{}-{:09}", device.name, dice.below(rows) + 1);
        let body = format!("edit {edit} of {}", dice.below(1_000_000));
        let done = update.execute((row, body)).context("edit a row")?;
        ensure!(done == 1, "there is no such row");
    }
    Ok(())
}

/// The command line and the library begin fast enough, and say how much waits.
fn begins(lab: &Lab, device: &mut Device, is_judged: bool) -> Result<()> {
    // What was captured is sealed by the first one that looks.
    let (mut status, mut open) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        let began = Instant::now();
        device.run(lab, "status", &[], 0)?;
        status = status.min(began.elapsed());
        let began = Instant::now();
        device.start(lab, None, &["--quiet"])?;
        device.look()?;
        open = open.min(began.elapsed());
        device.kill();
    }
    println!("  `status` ends within {status:.2?}, an app has its engine within {open:.2?}");
    ensure!(
        !is_judged || status <= BEGINS_WITHIN && open <= BEGINS_WITHIN,
        "SLOW: `status` took {status:.2?}, opening {open:.2?}"
    );
    Ok(())
}

/// What a device has to keep.
#[derive(Debug, Clone, Copy)]
struct Size {
    file: u64,
    wal: u64,
    changesets: u64,
    changes: u64,
}

impl Size {
    fn of(device: &Device) -> Result<Self> {
        let conn = check::read(&device.file)?;
        Ok(Self {
            file: bytes(&device.file),
            wal: bytes(&wal(&device.file)),
            changesets: check::count(&conn, "SELECT count(*) FROM syncline_outbox", [])?,
            changes: check::count(&conn, "SELECT count(*) FROM syncline_changes", [])?,
        })
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "file {} KiB, WAL {} KiB, {} changesets with {} changes wait",
            self.file / 1024,
            self.wal / 1024,
            self.changesets,
            self.changes
        )
    }
}

/// Each time a file is opened, what waits in it stays as it is (spec SL9); after that a row has one
/// change more at most, however often it is edited.
fn bounded(before: Size, after: Size, rows: u64) -> Result<()> {
    const OPENED: u64 = 16;
    ensure!(
        after.changes <= rows * OPENED,
        "GROWS: {} changes of {rows} rows wait",
        after.changes
    );
    ensure!(
        after.file
            <= before.file
                + before.file / 4
                + FILE_SLACK
                + (after.changes - before.changes.min(after.changes)) * 512,
        "GROWS: the file had {} bytes and has {}",
        before.file,
        after.file
    );
    Ok(())
}
