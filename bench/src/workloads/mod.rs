//! One file for each workload.

pub(crate) mod capture;
pub(crate) mod download;
pub(crate) mod fan_out;
pub(crate) mod growth;
pub(crate) mod idle;
pub(crate) mod latency;
pub(crate) mod push;
pub(crate) mod returning;

use anyhow::Result;

use crate::{Options, rows::Item, server::Server, wire::Device};

/// Everything of a workload that waits.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(future)
}

/// A server with this many rows of one user, whose token is with it.
async fn filled(options: &Options, rows: usize) -> Result<(Server, String, Vec<Item>)> {
    const TOGETHER: usize = 1_000;
    let server = Server::start(&options.program)?;
    let token = server.token("ana")?;
    let items: Vec<Item> = (0..rows).map(|n| Item::new(0, n)).collect();
    let mut device = Device::connect(&server.url, &token, 0).await?;
    let frames = items.chunks(TOGETHER).map(|some| device.insertion(some));
    let frames = frames.collect::<Result<Vec<_>>>()?;
    device.push_all(frames, 4).await?;
    Ok((server, token, items))
}
