//! W6: what capture costs a program that writes.

use std::time::{Duration, Instant};

use anyhow::Result;
use rusqlite::Connection;

use super::block_on;
use crate::{
    Figure, Options, device,
    figure::per_second,
    rows::{INSERT, Item, TABLE},
    server::Server,
};

const COST_TARGET: f64 = 2.5;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let rows = options.count(10_000);
    let server = Server::start(&options.program)?;
    let token = server.token("ana")?;
    let folder = tempfile::tempdir()?;
    let captured = folder.path().join("captured.db");
    block_on(device::hydrate(&captured, &server.url, &token))?;
    let captured = Connection::open(&captured)?;
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
    Ok(figures)
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
