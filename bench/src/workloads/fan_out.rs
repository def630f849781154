//! W4: one writer, many live devices.

use std::time::Instant;

use anyhow::Result;

use super::block_on;
use crate::{Better, Figure, Options, figure::per_second, server::Server, wire::Device};

const CHANGES: usize = 200;
const CPU_US_TARGET: f64 = 8.0;
/// Of changes that are each acknowledged before the next, on two cores.
const DELIVERIES_TARGET: f64 = 100_000.0;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for readers in [options.count(100), options.count(1_000)] {
        figures.extend(block_on(measure(options, readers))?);
    }
    Ok(figures)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
async fn measure(options: &Options, readers: usize) -> Result<Vec<Figure>> {
    let server = Server::start(&options.program)?;
    let token = server.token("ana")?;
    let mut devices = Vec::with_capacity(readers);
    for n in 0..readers {
        let mut device = Device::connect(&server.url, &token, n + 1).await?;
        device.load().await?;
        devices.push(device);
    }
    let mut writer = Device::connect(&server.url, &token, 0).await?;
    let frames = (0..CHANGES).map(|n| {
        let body = format!("{n:0200}");
        writer.news(&format!("00000000-0000-7000-8000-{n:012x}"), &body)
    });
    let frames = frames.collect::<Result<Vec<_>>>()?;
    let cpu = server.cpu()?;
    let started = Instant::now();
    let mut hearing = tokio::task::JoinSet::new();
    for mut device in devices {
        hearing.spawn(async move { device.hear(CHANGES).await });
    }
    // Each is acknowledged before the next is written.
    writer.push_all(frames, 1).await?;
    while let Some(heard) = hearing.join_next().await {
        heard??;
    }
    let took = started.elapsed();
    let deliveries = CHANGES * readers;
    let cpu = (server.cpu()? - cpu).as_secs_f64() * 1e6 / deliveries as f64;
    Ok(vec![
        Figure::plain(
            "W4",
            format!("deliveries to {readers} devices, each change acknowledged before the next"),
            "deliveries/s",
            per_second(deliveries, took),
            DELIVERIES_TARGET,
            Better::Higher,
        ),
        Figure::plain(
            "W4",
            format!("server processor time a delivery, {readers} devices"),
            "us",
            cpu,
            CPU_US_TARGET,
            Better::Lower,
        ),
    ])
}
