//! W5: what an idle live device costs the server.

use anyhow::Result;

use super::block_on;
use crate::{Better, Figure, Options, server::Server, wire::Device};

const KIB_TARGET: f64 = 16.0;
const EACH_HAS: usize = 1_000;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    block_on(measure(options))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let server = Server::start(&options.program)?;
    // One person may not have that many.
    let tokens = (0..=5_000 / EACH_HAS).map(|n| server.token(&format!("user{n}")));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let mut devices = Vec::new();
    let mut figures = Vec::new();
    // What the first ones make the server allocate once is not theirs.
    let first = options.count(100);
    for n in 0..first {
        let mut device = Device::connect(&server.url, &tokens[n / EACH_HAS], n).await?;
        device.load().await?;
        devices.push(device);
    }
    let (before, _) = server.memory_kib()?;
    for (count, case) in [(1_000, "1,000"), (5_000, "5,000")] {
        let count = options.count(count);
        while devices.len() < first + count {
            let n = devices.len();
            let mut device = Device::connect(&server.url, &tokens[n / EACH_HAS], n).await?;
            device.load().await?;
            devices.push(device);
        }
        let (now, _) = server.memory_kib()?;
        let each = now.saturating_sub(before) as f64 / count as f64;
        figures.push(Figure::plain(
            "W5",
            format!("server memory of each of {case} idle devices"),
            "KiB",
            each,
            KIB_TARGET,
            Better::Lower,
        ));
    }
    Ok(figures)
}
