//! W7: what takes longer when there is a hundred times as much.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::block_on;
use crate::{
    Figure, Options, device, figure::percentile_ms, rows::Item, server::Server, wire::Device,
};

const GROWS_BY: usize = 100;
const CHANGES: usize = 300;
const RECONNECTS: usize = 20;
const TOGETHER: usize = 1_000;
/// Nothing here should depend on how much there is.
const TARGET: f64 = 1.3;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    block_on(measure(options))
}

async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let rows = options.count(1_000_000);
    let server = Server::start(&options.program)?;
    let (ana, ben) = (server.token("ana")?, server.token("ben")?);
    let mut writer = Device::connect(&server.url, &ana, 0).await?;
    let mut reader = Device::connect(&server.url, &ben, 1).await?;
    reader.load().await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ben.db");
    device::hydrate(&file, &server.url, &ben).await?;

    let mut written = 0;
    let mut looks = Vec::new();
    for size in [rows / GROWS_BY, rows] {
        while written < size {
            let next = size.min(written + 50 * TOGETHER);
            let items: Vec<Item> = (written..next).map(|n| Item::new(0, n)).collect();
            let frames = items.chunks(TOGETHER).map(|some| writer.insertion(some));
            let frames = frames.collect::<Result<Vec<_>>>()?;
            writer.push_all(frames, 4).await?;
            written = next;
        }
        let look = Look {
            acknowledged: acknowledged(&mut writer, &mut written).await?,
            heard: heard(&mut writer, &mut reader, looks.len()).await?,
            reconnected: reconnected(&file, &server.url, &ben).await?,
        };
        looks.push(look);
    }
    let [few, many] = &looks[..] else {
        unreachable!("two looks were taken");
    };
    let cost = |case: &str, of: fn(&Look) -> f64| {
        let case = format!("{case}, with {rows} rows, against {}", rows / GROWS_BY);
        Figure::cost("W7", case, "ms", of(many), of(few), TARGET)
    };
    Ok(vec![
        cost("a change until it is acknowledged", |look| {
            look.acknowledged
        }),
        cost("a change until another device has it", |look| look.heard),
        cost("a device that is up to date connects", |look| {
            look.reconnected
        }),
    ])
}

/// Half of them took at most so many milliseconds.
struct Look {
    acknowledged: f64,
    heard: f64,
    reconnected: f64,
}

fn median(mut samples: Vec<Duration>) -> f64 {
    percentile_ms(&mut samples, 0.5)
}

/// New rows of the table that grows.
async fn acknowledged(writer: &mut Device, written: &mut usize) -> Result<f64> {
    let mut samples = Vec::with_capacity(CHANGES);
    for _ in 0..CHANGES {
        let frame = writer.insertion(&[Item::new(0, *written)])?;
        *written += 1;
        let started = Instant::now();
        writer.push_all(vec![frame], 1).await?;
        samples.push(started.elapsed());
    }
    Ok(median(samples))
}

/// Rows of a small table beside it, which somebody else sees.
async fn heard(writer: &mut Device, reader: &mut Device, look: usize) -> Result<f64> {
    let mut samples = Vec::with_capacity(CHANGES);
    for n in 0..CHANGES {
        let id = format!("00000000-0000-7000-8{look:03x}-{n:012x}");
        let frame = writer.news(&id, "news")?;
        let started = Instant::now();
        writer.push_all(vec![frame], 1).await?;
        reader.hear(1).await?;
        samples.push(started.elapsed());
    }
    Ok(median(samples))
}

async fn reconnected(file: &Path, url: &str, token: &str) -> Result<f64> {
    // Once for what it has missed.
    device::sync(file, url, token).await?;
    let mut samples = Vec::with_capacity(RECONNECTS);
    for _ in 0..RECONNECTS {
        let started = Instant::now();
        device::sync(file, url, token).await?;
        samples.push(started.elapsed());
    }
    Ok(median(samples))
}
