//! W2: ten devices push, acknowledged durable.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::block_on;
use crate::{
    Figure, Options,
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
    // What group commit makes of ten that wait at once, without a server around it.
    let tens = plain_inserts(&items[..rows], DEVICES, true)?;
    let batches = plain_inserts(&items, 100, true)?;
    Ok(vec![
        Figure::rate(
            "W2",
            "single rows, each waits for its answer, against plain commits of ten",
            "rows/s",
            per_second(rows, singly),
            per_second(rows, tens),
            CLOSED_TARGET,
        ),
        Figure::rate(
            "W2",
            "single rows, pipelined, against plain commits of a hundred",
            "rows/s",
            per_second(rows, pipelined),
            per_second(rows * 10, batches),
            HUNDREDS_TARGET,
        ),
        Figure::rate(
            "W2",
            "by the hundred, pipelined, against plain commits of a hundred",
            "rows/s",
            per_second(rows * 10, hundreds),
            per_second(rows * 10, batches),
            HUNDREDS_TARGET,
        ),
    ])
}

/// How long ten devices take for `rows` rows, `together` in a changeset, `at_once` unanswered.
async fn push(options: &Options, rows: usize, together: usize, at_once: usize) -> Result<Duration> {
    let server = Server::start(&options.program)?;
    let mut ready = Vec::new();
    for n in 0..DEVICES {
        let token = server.token(&format!("user{n}"))?;
        let mut device = Device::connect(&server.url, &token, n).await?;
        let items: Vec<Item> = (0..rows / DEVICES).map(|i| Item::new(n, i)).collect();
        let frames = items.chunks(together).map(|some| device.insertion(some));
        let frames = frames.collect::<Result<Vec<_>>>()?;
        ready.push((device, frames));
    }
    let started = Instant::now();
    let mut pushing = tokio::task::JoinSet::new();
    for (mut device, frames) in ready {
        pushing.spawn(async move { device.push_all(frames, at_once).await });
    }
    while let Some(pushed) = pushing.join_next().await {
        pushed??;
    }
    Ok(started.elapsed())
}
