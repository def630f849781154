//! A fan-out server as bare as can be: what it receives is synchronised to a file and sent to
//! everybody. No rules, no log per device, no sessions.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{broadcast, mpsc},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, accept_async_with_config, connect_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

/// More than a workload sends: who lags behind so far misses something, and the workload fails.
const CHANGES_MAX: usize = 1_024;
/// What a connection says first.
const READER: &str = "reader";
const WRITER: &str = "writer";
/// The first byte of a change says whether it has to be on the disk before anybody hears of it.
const DURABLE: u8 = 1;
const IN_MEMORY: u8 = 0;

type Socket<S> = WebSocketStream<S>;

/// Serves until its input ends; says where, first.
///
/// # Errors
/// No port, or no file.
pub fn serve_bare_fan_out() -> Result<()> {
    std::thread::spawn(|| {
        // Whoever started it has gone.
        let _ended = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "ws://{}", listener.local_addr()?)?;
        stdout.flush()?;
        let (changes, waiting) = mpsc::channel(CHANGES_MAX);
        let news = broadcast::channel(CHANGES_MAX).0;
        let committing = news.clone();
        let file = tempfile::tempfile()?;
        std::thread::spawn(move || commit(file, waiting, &committing));
        loop {
            let (socket, _) = listener.accept().await?;
            let (changes, news) = (changes.clone(), news.subscribe());
            // What ends early is missed by the workload.
            tokio::spawn(async move { drop(connection(socket, changes, news).await) });
        }
    })
}

type Change = (Bytes, mpsc::Sender<()>);

/// Everything that waits is one write, synchronised once.
fn commit(mut file: File, mut waiting: mpsc::Receiver<Change>, news: &broadcast::Sender<Bytes>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut group = vec![first];
        while let Ok(change) = waiting.try_recv() {
            group.push(change);
        }
        let bytes: Vec<u8> = group
            .iter()
            .flat_map(|(change, _)| change)
            .copied()
            .collect();
        let is_durable = group
            .iter()
            .any(|(change, _)| change.first() == Some(&DURABLE));
        let mut written = file.write_all(&bytes);
        if is_durable {
            written = written.and_then(|()| file.sync_data());
        }
        if written.is_err() {
            return;
        }
        for (_, answer) in &group {
            // There is room for all that wait. Who has gone does not miss it.
            let _gone = answer.try_send(());
        }
        for (change, _) in group {
            let _nobody = news.send(change);
        }
    }
}

async fn connection(
    socket: TcpStream,
    changes: mpsc::Sender<Change>,
    mut news: broadcast::Receiver<Bytes>,
) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut socket = accept_async_with_config(socket, Some(config())).await?;
    let role = socket.next().await.context("it left")??;
    socket.send(Message::text("ready")).await?;
    if role.to_text()? == READER {
        loop {
            socket.feed(Message::Binary(news.recv().await?)).await?;
            while let Ok(change) = news.try_recv() {
                socket.feed(Message::Binary(change)).await?;
            }
            socket.flush().await?;
        }
    }
    drop(news);
    let (answer, mut answers) = mpsc::channel(CHANGES_MAX);
    loop {
        tokio::select! {
            change = socket.next() => {
                let Some(change) = change else { return Ok(()) };
                changes.send((change?.into_data(), answer.clone())).await?;
            }
            Some(()) = answers.recv() => socket.send(Message::text("done")).await?,
        }
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4 * 1024)
}

/// The same in a process of its own. Stopped when dropped.
pub(crate) struct BareServer {
    process: Child,
    url: String,
}

impl BareServer {
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let mut process = Command::new(program)
            .args(["bench", "--bare-fan-out"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let stdout = process.stdout.take().context("its output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.trim().to_owned();
        if url.is_empty() {
            bail!("the bare server did not start");
        }
        Ok(Self { process, url })
    }

    /// A connection that hears of changes.
    pub(crate) async fn reader(&self) -> Result<BareDevice> {
        BareDevice::connect(&self.url, READER).await
    }

    /// A connection that makes some.
    pub(crate) async fn writer(&self) -> Result<BareDevice> {
        BareDevice::connect(&self.url, WRITER).await
    }
}

impl Drop for BareServer {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

/// A client of the bare server.
pub(crate) struct BareDevice(Socket<MaybeTlsStream<TcpStream>>);

impl BareDevice {
    async fn connect(url: &str, role: &'static str) -> Result<Self> {
        let (mut socket, _) = connect_async_with_config(url, Some(config()), true).await?;
        socket.send(Message::text(role)).await?;
        let mut device = Self(socket);
        device.receive().await?;
        Ok(device)
    }

    /// Waits for so many changes, or answers.
    pub(crate) async fn hear(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.receive().await?;
        }
        Ok(())
    }

    /// Sends `count` changes of so many bytes: each on the disk before the next, or all at once
    /// and none on the disk.
    pub(crate) async fn push(&mut self, count: usize, bytes: usize, durably: bool) -> Result<()> {
        let first = if durably { DURABLE } else { IN_MEMORY };
        let mut change = vec![0; bytes.max(1)];
        change[0] = first;
        let change = Bytes::from(change);
        for _ in 0..count {
            self.0.feed(Message::Binary(change.clone())).await?;
            if durably {
                self.0.flush().await?;
                self.receive().await?;
            }
        }
        if !durably {
            self.0.flush().await?;
            self.hear(count).await?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Message> {
        let message = self.0.next().await;
        Ok(message.context("the bare server hung up")??)
    }
}
