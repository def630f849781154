//! W2: ten devices push, acknowledged durable.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::block_on;
use crate::{
    Figure, Options,
    bare::BareServer,
    figure::per_second,
    rows::{Item, plain_inserts},
    server::Server,
    wire::Device,
};

const DEVICES: usize = 10;
const HUNDREDS_TARGET: f64 = 0.5;
const CLOSED_TARGET: f64 = 0.7;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    block_on(measure(options))
}

async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let rows = options.count(10_000);
    let singly = push(options, rows, 1, 1).await?;
    let pipelined = push(options, rows, 1, usize::MAX).await?;
    let hundreds = push(options, rows * 10, 100, usize::MAX).await?;
    let items: Vec<Item> = (0..rows * 10).map(|n| Item::new(0, n)).collect();
    let bare = push_bare(options, rows, singly.bytes).await?;
    let batches = plain_inserts(&items, 100, true)?;
    Ok(vec![
        Figure::rate(
            "W2",
            "single rows, each waits for its answer, against a bare server with group commit",
            "rows/s",
            per_second(rows, singly.took),
            per_second(rows, bare),
            CLOSED_TARGET,
        ),
        Figure::rate(
            "W2",
            "single rows, pipelined, against plain commits of a hundred",
            "rows/s",
            per_second(rows, pipelined.took),
            per_second(rows * 10, batches),
            HUNDREDS_TARGET,
        ),
        Figure::rate(
            "W2",
            "by the hundred, pipelined, against plain commits of a hundred",
            "rows/s",
            per_second(rows * 10, hundreds.took),
            per_second(rows * 10, batches),
            HUNDREDS_TARGET,
        ),
    ])
}

/// What ten devices did.
struct Pushed {
    took: Duration,
    /// Of a changeset on its way.
    bytes: usize,
}

/// Ten devices push `rows` rows, `together` in a changeset, `at_once` unanswered.
async fn push(options: &Options, rows: usize, together: usize, at_once: usize) -> Result<Pushed> {
    let server = Server::start(&options.program)?;
    let mut ready = Vec::new();
    let mut bytes = 0;
    for n in 0..DEVICES {
        let token = server.token(&format!("user{n}"))?;
        let mut device = Device::connect(&server.url, &token, n).await?;
        let items: Vec<Item> = (0..rows / DEVICES).map(|i| Item::new(n, i)).collect();
        let frames = items.chunks(together).map(|some| device.insertion(some));
        let frames = frames.collect::<Result<Vec<_>>>()?;
        bytes = frames.first().map_or(0, Vec::len);
        ready.push((device, frames));
    }
    let started = Instant::now();
    let mut pushing = JoinSet::new();
    for (mut device, frames) in ready {
        pushing.spawn(async move { device.push_all(frames, at_once).await });
    }
    while let Some(pushed) = pushing.join_next().await {
        pushed??;
    }
    let took = started.elapsed();
    Ok(Pushed { took, bytes })
}

/// The same of a bare server, which writes what waits to a file and synchronises it once.
async fn push_bare(options: &Options, rows: usize, bytes: usize) -> Result<Duration> {
    let server = BareServer::start(&options.own)?;
    let mut writers = Vec::new();
    for _ in 0..DEVICES {
        writers.push(server.writer().await?);
    }
    let started = Instant::now();
    let mut pushing = JoinSet::new();
    for mut writer in writers {
        pushing.spawn(async move { writer.push(rows / DEVICES, bytes, true).await });
    }
    while let Some(pushed) = pushing.join_next().await {
        pushed??;
    }
    Ok(started.elapsed())
}
