//! W4: one writer, many live devices.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::block_on;
use crate::{
    Better, Figure, Options,
    bare::{BareDevice, BareServer},
    figure::{per_second, percentile_ms},
    server::Server,
    wire::Device,
};

const CHANGES: usize = 200;
/// Of what a bare server does that synchronises each change and sends the same bytes.
const CLOSED_TARGET: f64 = 0.6;
/// Of what a bare server does that only sends.
const PIPELINED_TARGET: f64 = 0.4;
const CPU_US_TARGET: f64 = 8.0;
const P99_MS_TARGET: f64 = 24.0;
/// Between two changes of a writer that does not hurry.
const PACE: Duration = Duration::from_millis(100);

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (readers, is_paced) in [(100, false), (1_000, true)] {
        let readers = options.count(readers);
        let ours = block_on(ours(options, readers, is_paced))?;
        let bare = block_on(bare(options, readers, ours.bytes))?;
        figures.extend(compared(readers, &ours, &bare));
    }
    Ok(figures)
}

/// What one server did.
struct Measured {
    closed: Duration,
    pipelined: Duration,
    /// Of the server, while each change was acknowledged before the next.
    cpu: Duration,
    /// From a change until each device had it, ten changes a second.
    paced: Vec<Duration>,
    /// That a device received for a change.
    bytes: usize,
}

/// What a bare server did in the same time.
struct Bare {
    closed: Duration,
    pipelined: Duration,
}

fn compared(readers: usize, ours: &Measured, bare: &Bare) -> Vec<Figure> {
    let deliveries = CHANGES * readers;
    let rate = |case: &str, took, limit, target| {
        Figure::rate(
            "W4",
            format!("deliveries to {readers} devices, {case}"),
            "deliveries/s",
            per_second(deliveries, took),
            per_second(deliveries, limit),
            target,
        )
    };
    let mut figures = vec![
        rate(
            "each change acknowledged before the next, against a bare server that synchronises each",
            ours.closed,
            bare.closed,
            CLOSED_TARGET,
        ),
        rate(
            "pipelined, against a bare server that only sends",
            ours.pipelined,
            bare.pipelined,
            PIPELINED_TARGET,
        ),
        Figure::plain(
            "W4",
            format!("server processor time a delivery, {readers} devices"),
            "us",
            1e6 / per_second(deliveries, ours.cpu),
            CPU_US_TARGET,
            Better::Lower,
        ),
    ];
    if !ours.paced.is_empty() {
        figures.push(Figure::plain(
            "W4",
            format!("until a device has a change, 99 of 100, ten changes a second to {readers}"),
            "ms",
            percentile_ms(&mut ours.paced.clone(), 0.99),
            P99_MS_TARGET,
            Better::Lower,
        ));
    }
    figures
}

async fn ours(options: &Options, readers: usize, is_paced: bool) -> Result<Measured> {
    let server = Server::start(&options.program)?;
    let token = server.token("ana")?;
    let mut devices = Vec::with_capacity(readers);
    for n in 0..readers {
        let mut device = Device::connect(&server.url, &token, n + 1).await?;
        device.load().await?;
        devices.push(device);
    }
    let mut writer = Device::connect(&server.url, &token, 0).await?;
    let received = |devices: &[Device]| devices.iter().map(|device| device.received).sum::<usize>();

    let frames = news(&mut writer, 0)?;
    let (before, cpu) = (received(&devices), server.cpu()?);
    let started = Instant::now();
    let hearing = hear(devices, CHANGES);
    writer.push_all(frames, 1).await?;
    let (devices, _) = heard(hearing).await?;
    let (closed, cpu) = (started.elapsed(), server.cpu()? - cpu);
    let bytes = (received(&devices) - before) / (CHANGES * readers);

    let frames = news(&mut writer, 1)?;
    let started = Instant::now();
    let hearing = hear(devices, CHANGES);
    writer.push_all(frames, usize::MAX).await?;
    let (devices, _) = heard(hearing).await?;
    let pipelined = started.elapsed();

    let mut paced = Vec::new();
    if is_paced {
        let changes = options.count(CHANGES);
        let mut written = Vec::with_capacity(changes);
        let mut frames = news(&mut writer, 2)?;
        frames.truncate(changes);
        let hearing = hear(devices, changes);
        let mut pace = tokio::time::interval(PACE);
        for frame in frames {
            pace.tick().await;
            written.push(Instant::now());
            writer.push_all(vec![frame], 1).await?;
        }
        let (_, arrived) = heard(hearing).await?;
        paced = arrived
            .iter()
            .flat_map(|arrived| arrived.iter().zip(&written))
            .map(|(arrived, written)| arrived.duration_since(*written))
            .collect();
    }
    Ok(Measured {
        closed,
        pipelined,
        cpu,
        paced,
        bytes,
    })
}

/// Changes that no round before had.
fn news(writer: &mut Device, round: usize) -> Result<Vec<Vec<u8>>> {
    let frames = (0..CHANGES).map(|n| {
        let id = format!("00000000-0000-7000-8000-{:012x}", round * CHANGES + n);
        writer.news(&id, &format!("{n:0200}"))
    });
    frames.collect()
}

type Hearing<D> = JoinSet<Result<(D, Vec<Instant>)>>;

fn hear(devices: Vec<Device>, changes: usize) -> Hearing<Device> {
    let mut hearing = JoinSet::new();
    for mut device in devices {
        hearing.spawn(async move {
            let arrived = device.hear(changes).await?;
            Ok((device, arrived))
        });
    }
    hearing
}

async fn heard<D: 'static>(mut hearing: Hearing<D>) -> Result<(Vec<D>, Vec<Vec<Instant>>)> {
    let (mut devices, mut arrived) = (Vec::new(), Vec::new());
    while let Some(heard) = hearing.join_next().await {
        let (device, when) = heard??;
        devices.push(device);
        arrived.push(when);
    }
    Ok((devices, arrived))
}

async fn bare(options: &Options, readers: usize, bytes: usize) -> Result<Bare> {
    let server = BareServer::start(&options.own)?;
    let mut devices = Vec::with_capacity(readers);
    for _ in 0..readers {
        devices.push(server.reader().await?);
    }
    let mut writer = server.writer().await?;
    let mut took = Vec::new();
    for is_durable in [true, false] {
        let started = Instant::now();
        let hearing = hear_bare(devices);
        writer.push(CHANGES, bytes, is_durable).await?;
        (devices, _) = heard(hearing).await?;
        took.push(started.elapsed());
    }
    Ok(Bare {
        closed: took[0],
        pipelined: took[1],
    })
}

fn hear_bare(devices: Vec<BareDevice>) -> Hearing<BareDevice> {
    let mut hearing = JoinSet::new();
    for mut device in devices {
        hearing.spawn(async move {
            device.hear(CHANGES).await?;
            Ok((device, Vec::new()))
        });
    }
    hearing
}
