//! What a process has open and takes, as Linux tells it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// One look at a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Memory of its own, without the files it maps (`RssAnon`).
    pub kib: u64,
    /// Open file descriptors.
    pub files: u64,
    pub threads: u64,
}

impl Usage {
    pub(crate) fn of(id: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse::<u64>().ok())
                .with_context(|| format!("{name} in /proc/{id}/status"))
        };
        Ok(Self {
            kib: number("RssAnon:")?,
            files: std::fs::read_dir(format!("/proc/{id}/fd"))?.count() as u64,
            threads: number("Threads:")?,
        })
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.1} MiB, {} files, {} threads",
            mib(self.kib),
            self.files,
            self.threads
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Bytes of a file; zero for one that is not there.
pub(crate) fn bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// The file beside a database in which its write-ahead log is.
pub(crate) fn wal(database: &Path) -> std::path::PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Sessions that a server says are open, by its `/metrics`.
pub(crate) fn sessions(address: &str) -> Result<u64> {
    let text = get(address, "/metrics")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("syncline_connections "));
    let count = line.with_context(|| format!("syncline_connections in /metrics, not {text}"))?;
    count.trim().parse().context("a number of sessions")
}

fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
