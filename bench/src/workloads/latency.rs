//! W3: a write on one device until another device's SQLite has it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rusqlite::Connection;

use super::block_on;
use crate::{
    Better, Figure, Options,
    device::{self, Live},
    figure::percentile_ms,
    rows::{INSERT, Item},
    server::Server,
};

const P50_MS_TARGET: f64 = 1.5;
const P99_MS_TARGET: f64 = 8.0;
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let writes = options.count(500);
    let server = Server::start(&options.program)?;
    let token = server.token("ana")?;
    // Each in a folder of its own, as on a device of its own: whoever watches a folder hears of
    // every write in it.
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let paths = folders
        .each_ref()
        .map(|folder| folder.path().join("app.db"));
    for path in &paths {
        block_on(device::hydrate(path, &server.url, &token))?;
        // As an app that syncs would have it.
        let conn = Connection::open(path)?;
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    }
    let [one, two] = paths;
    let (one, two) = (
        Live::start(one, &server.url, &token)?,
        Live::start(two, &server.url, &token)?,
    );
    let here = Connection::open(&one.path)?;
    here.busy_timeout(ARRIVES_WITHIN)?;
    let there = Connection::open(&two.path)?;
    let mut insert = here.prepare(INSERT)?;
    let mut find = there.prepare("SELECT 1 FROM items WHERE id = ?1")?;
    let mut samples = Vec::with_capacity(writes);
    // Twenty are for warming up: connecting, preparing statements.
    for n in 0..writes + 20 {
        let item = Item::new(0, n);
        let started = Instant::now();
        insert.execute(item.params())?;
        while !find.exists([&item.id])? {
            ensure!(
                started.elapsed() < ARRIVES_WITHIN,
                "row {n} did not arrive in ten seconds"
            );
            std::thread::sleep(Duration::from_micros(50));
        }
        if n >= 20 {
            samples.push(started.elapsed());
        }
    }
    drop((one, two));
    let (p50, p99) = (
        percentile_ms(&mut samples, 0.5),
        percentile_ms(&mut samples, 0.99),
    );
    Ok(vec![
        Figure::plain(
            "W3",
            "from file to file, half of the writes",
            "ms",
            p50,
            P50_MS_TARGET,
            Better::Lower,
        ),
        Figure::plain(
            "W3",
            "from file to file, 99 of 100 writes",
            "ms",
            p99,
            P99_MS_TARGET,
            Better::Lower,
        ),
    ])
}
