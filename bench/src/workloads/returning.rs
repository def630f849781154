//! W8: ten thousand devices that come back at once, each as the library does (spec SE22).

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::task::JoinSet;

use super::block_on;
use crate::{
    Better, Figure, Options,
    figure::percentile_ms,
    server::{End, Server},
    wire::{Device, Refused},
};

const DEVICES: usize = 10_000;
const EACH_HAS: usize = 1_000;
/// Connecting for the first time, when nothing is measured.
const AT_ONCE: usize = 50;
/// A device's pauses: at most so long, doubling with each try.
const PAUSE_MS: u64 = 250;
const PAUSE_MAX_MS: u64 = 30_000;
/// A connection on which nothing comes is given up.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// Whoever is not back by then will never be.
const PATIENCE: Duration = Duration::from_secs(300);

const LAST_MS: f64 = 30_000.0;
const TRIES: f64 = 10.0;
const PEAK_MIB: f64 = 512.0;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    block_on(measure(options))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let mut server = Server::start(&options.program)?;
    let count = options.count(DEVICES);
    let users = count.div_ceil(EACH_HAS);
    let tokens = (0..users).map(|n| server.token(&format!("user{n}")).map(Arc::from));
    let tokens: Vec<Arc<str>> = tokens.collect::<Result<_>>()?;
    let url: Arc<str> = server.url.as_str().into();
    let first = futures_util::stream::iter(0..count).map(|n| {
        let (url, token) = (Arc::clone(&url), Arc::clone(&tokens[n / EACH_HAS]));
        async move {
            let mut device = Device::connect(&url, &token, n).await?;
            device.load().await?;
            anyhow::Ok((device, token))
        }
    });
    let connected: Result<Vec<_>> = first.buffer_unordered(AT_ONCE).try_collect().await;
    let mut devices = connected
        .context("connect all of them; both sides need more open files than that (`ulimit -n`)")?;
    let mut figures = Vec::new();
    for (end, case) in [
        (End::Stopped, "was told to stop"),
        (End::Killed, "was killed"),
    ] {
        let (idle, _) = server.memory_kib()?;
        let mut coming = JoinSet::new();
        for (device, token) in devices.drain(..) {
            coming.spawn(come_back(device, token, Arc::clone(&url)));
        }
        server.restart(end)?;
        let began = Instant::now();
        let (mut times, mut most_tries) = (Vec::with_capacity(count), 0);
        while let Some(back) = coming.join_next().await {
            let (device, token, at, tries) = back??;
            times.push(at.saturating_duration_since(began));
            most_tries = most_tries.max(tries);
            devices.push((device, token));
        }
        if devices.len() != count {
            bail!("{} of {count} came back", devices.len());
        }
        let (_, peak) = server.memory_kib()?;
        let of = format!("{count} devices after a server {case}");
        let plain = |what: &str, unit, figure, target| {
            Figure::plain(
                "W8",
                format!("{what} {of}"),
                unit,
                figure,
                target,
                Better::Lower,
            )
        };
        figures.extend([
            plain(
                "half are live of",
                "ms",
                percentile_ms(&mut times, 0.5),
                LAST_MS / 2.0,
            ),
            plain(
                "all are live of",
                "ms",
                percentile_ms(&mut times, 1.0),
                LAST_MS,
            ),
            plain(
                "most connections that one tried of",
                "tries",
                f64::from(most_tries),
                TRIES,
            ),
            plain(
                "server memory at most with",
                "MiB",
                peak as f64 / 1024.0,
                PEAK_MIB,
            ),
            plain(
                "and idle before, with",
                "MiB",
                idle as f64 / 1024.0,
                PEAK_MIB,
            ),
        ]);
    }
    Ok(figures)
}

/// Waits for the end of the connection, and for another one; when it was live again, and how many
/// it tried.
async fn come_back(
    mut device: Device,
    token: Arc<str>,
    url: Arc<str>,
) -> Result<(Device, Arc<str>, Instant, u32)> {
    let Refused { mut not_before, .. } = device.ended().await;
    let known = device.known();
    drop(device);
    let gave_up = Instant::now() + PATIENCE;
    let mut tries = 0;
    loop {
        let most = PAUSE_MS
            .saturating_mul(1 << tries.min(16))
            .min(PAUSE_MAX_MS);
        let jitter = RandomState::new().build_hasher().finish() % (most + 1);
        let pause = not_before.take().unwrap_or(0) + jitter;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        tries += 1;
        let back = Device::come_back(&url, &token, known.clone());
        let back = tokio::time::timeout(SILENCE_MAX, back).await;
        let back = back.unwrap_or_else(|_| {
            Err(Refused {
                not_before: None,
                why: "nothing was heard".to_owned(),
            })
        });
        match back {
            Ok(device) => return Ok((device, token, Instant::now(), tries)),
            Err(refused) if Instant::now() < gave_up => not_before = refused.not_before,
            Err(refused) => bail!("refused for ever: {}", refused.why),
        }
    }
}
