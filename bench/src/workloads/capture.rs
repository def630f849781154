//! W6: what capture costs a program that writes, and what a device's process takes.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rusqlite::Connection;

use super::block_on;
use crate::{
    Better, Figure, Options, device,
    figure::per_second,
    rows::{INSERT, Item, TABLE},
    server::{Server, command, memory_kib},
};

const COST_TARGET: f64 = 2.5;
/// MiB.
const SIZE_TARGET: f64 = 30.0;
const SENT_MAX: Duration = Duration::from_secs(60);

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let rows = options.count(10_000);
    let server = Server::start(&options.program)?;
    let token = server.token("ana")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("captured.db");
    block_on(device::hydrate(&file, &server.url, &token))?;
    let captured = Connection::open(&file)?;
    let plain = Connection::open(folder.path().join("plain.db"))?;
    plain.execute_batch(TABLE)?;
    let mut figures = Vec::new();
    for (together, case) in [
        (1, "one in a transaction"),
        (100, "a hundred in a transaction"),
    ] {
        let from = figures.len() * rows;
        let items: Vec<Item> = (from..from + rows).map(|n| Item::new(0, n)).collect();
        let bare = inserts(&plain, &items, together)?;
        let marked = inserts(&captured, &items, together)?;
        let each = |took| 1e6 / per_second(rows, took);
        figures.push(Figure::cost(
            "W6",
            format!("a captured insert, {case}"),
            "us",
            each(marked),
            each(bare),
            COST_TARGET,
        ));
        let bare = updates(&plain, &items, together)?;
        let marked = updates(&captured, &items, together)?;
        figures.push(Figure::cost(
            "W6",
            format!("a captured update, {case}"),
            "us",
            each(marked),
            each(bare),
            COST_TARGET,
        ));
    }
    let mut process = command(&options.program, folder.path())
        .env("SYNCLINE_URL", &server.url)
        .env("SYNCLINE_TOKEN", &token)
        .args(["sync", "--watch", "--json"])
        .arg(&file)
        .stdout(Stdio::null())
        .spawn()?;
    let sent = wait_until_sent(&captured);
    let memory = memory_kib(process.id());
    process.kill()?;
    process.wait()?;
    sent?;
    let (_, peak) = memory?;
    let program = std::fs::metadata(&options.program)?.len();
    let size = |case: String, kib| {
        Figure::plain("W6", case, "MiB", kib / 1024.0, SIZE_TARGET, Better::Lower)
    };
    figures.push(size(
        format!(
            "memory of the device's process, at most while it sends {} rows",
            2 * rows
        ),
        peak as f64,
    ));
    figures.push(size(
        "size of the program".to_owned(),
        program as f64 / 1024.0,
    ));
    Ok(figures)
}

/// Until the server has answered everything that was written.
fn wait_until_sent(conn: &Connection) -> Result<()> {
    let started = Instant::now();
    loop {
        let (marked, waiting): (i64, i64) = conn.query_row(
            "SELECT (SELECT touched FROM syncline_tx), (SELECT count(*) FROM syncline_outbox)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if (marked, waiting) == (0, 0) {
            return Ok(());
        }
        if started.elapsed() > SENT_MAX {
            bail!(
                "after {} s {waiting} changesets are not answered",
                SENT_MAX.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn inserts(conn: &Connection, items: &[Item], together: usize) -> Result<Duration> {
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let started = Instant::now();
    for some in items.chunks(together) {
        let transaction = conn.unchecked_transaction()?;
        for item in some {
            transaction.prepare_cached(INSERT)?.execute(item.params())?;
        }
        transaction.commit()?;
    }
    Ok(started.elapsed())
}

fn updates(conn: &Connection, items: &[Item], together: usize) -> Result<Duration> {
    let started = Instant::now();
    for some in items.chunks(together) {
        let transaction = conn.unchecked_transaction()?;
        for item in some {
            let sql = "UPDATE items SET n = n + 1 WHERE id = ?1";
            transaction.prepare_cached(sql)?.execute([&item.id])?;
        }
        transaction.commit()?;
    }
    Ok(started.elapsed())
}
