//! W1: a new device downloads 100,000 rows.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{block_on, filled};
use crate::{
    Better, Figure, Options, device, figure::per_second, rows::plain_inserts, wire::Device,
};

const SERVED_TARGET: f64 = 300_000.0;
const CPU_US_TARGET: f64 = 2.0;
const MEMORY_MIB_TARGET: f64 = 8.0;
const APPLIED_TARGET: f64 = 0.7;
const BYTES_TARGET: f64 = 0.6;

fn all(served: usize, rows: usize) -> Result<()> {
    ensure!(served == rows, "{served} rows were served of {rows}");
    Ok(())
}

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    block_on(measure(options))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let rows = options.count(100_000);
    let (server, token, items) = filled(options, rows).await?;

    // Once unmeasured: the first reader warms the caches for all.
    let mut reader = Device::connect(&server.url, &token, 1).await?;
    all(reader.load().await?, rows)?;
    let (memory, _) = server.memory_kib()?;
    server.forget_peak()?;
    let mut reader = Device::connect(&server.url, &token, 2).await?;
    let (cpu, before) = (server.cpu()?, reader.received);
    let started = Instant::now();
    all(reader.load().await?, rows)?;
    let served = started.elapsed();
    let cpu = server.cpu()? - cpu;
    let bytes = reader.received - before;
    let (_, peak) = server.memory_kib()?;

    let folder = tempfile::tempdir()?;
    let started = Instant::now();
    device::hydrate(&folder.path().join("new.db"), &server.url, &token).await?;
    let applied = started.elapsed();
    let plain = plain_inserts(&items, rows, false)?;
    let json: usize = items.iter().map(crate::rows::Item::json_bytes).sum();

    Ok(vec![
        Figure::plain(
            "W1",
            "served to a bare reader",
            "rows/s",
            per_second(rows, served),
            SERVED_TARGET,
            Better::Higher,
        ),
        Figure::plain(
            "W1",
            "server processor time a row",
            "us",
            cpu.as_secs_f64() * 1e6 / rows as f64,
            CPU_US_TARGET,
            Better::Lower,
        ),
        Figure::plain(
            "W1",
            "server memory of one more reader",
            "MiB",
            peak.saturating_sub(memory) as f64 / 1024.0,
            MEMORY_MIB_TARGET,
            Better::Lower,
        ),
        Figure::rate(
            "W1",
            "applied into SQLite, against plain inserts",
            "rows/s",
            per_second(rows, applied),
            per_second(rows, plain),
            APPLIED_TARGET,
        ),
        Figure::cost(
            "W1",
            "bytes a row, against JSON",
            "bytes",
            bytes as f64 / rows as f64,
            json as f64 / rows as f64,
            BYTES_TARGET,
        ),
    ])
}
