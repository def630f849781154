//! Sockets that connect and then stall, by the thousand, while ordinary devices go on.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use syncline_core::{
    DeviceId, Lease, Timestamp,
    wire::{ClientMessage, Hello, PROTOCOL, encode_client},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::reconnects::as_before;
use crate::{
    check,
    device::{Device, fleet},
    dice::Dice,
    lab::Lab,
    ledger::Outcome,
    process::PATIENCE,
    samples::{between, latencies, micros, percentile, told},
    server::Server,
    usage::{Usage, mib, sessions},
};

/// Where a socket stalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Stall {
    /// Connected, and says nothing.
    Silent,
    /// In the middle of a request's head.
    HalfHead,
    /// In the middle of a request's body.
    HalfBody,
    /// A WebSocket that says no Hello.
    NoHello,
    /// A WebSocket in the middle of a frame.
    HalfFrame,
    /// A session that says Hello with all the credit there is, and never reads.
    NeverReads,
    /// A pull over HTTP whose answer nobody reads.
    PullUnread,
}

const STALLS: [Stall; 7] = [
    Stall::Silent,
    Stall::HalfHead,
    Stall::HalfBody,
    Stall::NoHello,
    Stall::HalfFrame,
    Stall::NeverReads,
    Stall::PullUnread,
];

/// Microseconds between two edits: few, since a server keeps the newest of its log in memory, and
/// that it grows with edits is not what is looked for here.
const PACE: &str = "500000";
/// People whose sockets they are: nobody may have all there are.
const PEOPLE: usize = 20;
/// What does not read cannot see that it was ended: it begins anew after this.
const ANEW: Duration = Duration::from_secs(90);
/// What a stalled socket may cost the server, at most; and one that does not read what it asked
/// for.
const SOCKET_KIB: u64 = 64;
const UNREAD_KIB: u64 = 1_536;
/// Latency is judged where there is enough to judge.
const JUDGED_SECONDS: u64 = 60;
/// Latency beside stalled sockets: at most three times what it is without them, and this.
const LATENCY_SLACK: u64 = 250_000;
/// Rows before anything stalls, so that there is something that is not read.
const LARGE_ROWS: u64 = 60;
const LARGE_BYTES: usize = 50_000;
/// Rows that each device keeps of its edits.
const KEEP: u64 = 400;

struct Crowd {
    address: SocketAddr,
    tokens: Vec<String>,
    only: Option<Stall>,
    stop: AtomicBool,
    /// Sockets that stall now, that were begun, and that the server ended.
    now: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
}

/// Nobody stalls any longer when this is dropped.
struct Stop(Arc<Crowd>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn run(
    lab: &mut Lab,
    dice: &mut Dice,
    outcome: &mut Outcome,
    sockets: u64,
    seconds: u64,
    only: Option<Stall>,
) -> Result<()> {
    let folder = lab.round()?;
    let mut server = Server::start(lab, &folder, None)?;
    let mut devices = fleet(lab, &folder, &server, 2, "wal")?;
    // Something large that is not read.
    devices[0].keep = Some(KEEP);
    for _ in 0..LARGE_ROWS {
        // Nothing that becomes small on its way.
        let letters = (0..LARGE_BYTES).map(|_| char::from(b'!' + (dice.below(90) & 0x7F) as u8));
        devices[0].edit(&letters.collect::<String>())?;
    }
    devices[0].run(lab, "sync", &[], 0)?;
    let tokens = (0..PEOPLE).map(|n| server.token(lab, &format!("stalled-{n}")));
    let crowd = Arc::new(Crowd {
        address: server.address().parse()?,
        tokens: tokens.collect::<Result<_>>()?,
        only,
        stop: AtomicBool::new(false),
        now: AtomicU64::new(0),
        begun: AtomicU64::new(0),
        ended: AtomicU64::new(0),
    });
    for device in &mut devices {
        device.keep = Some(KEEP);
        device.start(lab, None, &["--pace", PACE, "--timed"])?;
        device.until_acked()?;
    }
    let alone = Duration::from_secs((seconds / 10).clamp(5, 20));
    let began = micros();
    work(&mut devices, alone)?;
    let crowded = micros();
    let before = Usage::of(server.process.id())?;
    println!("  before: {before}");

    let _stop = Stop(Arc::clone(&crowd));
    // What came and went once is there for good in pools and allocators: only what a second crowd
    // leaves is left behind.
    let stalls = come(&crowd, sockets, &mut devices)?;
    work(&mut devices, alone)?;
    leave(&crowd, stalls)?;
    settle(&server)?;
    work(&mut devices, Duration::from_secs(2))?;
    let warm = Usage::of(server.process.id())?;
    println!("  after a first crowd: {warm}");
    let first = crowd.begun.swap(0, Ordering::SeqCst);
    crowd.ended.store(0, Ordering::SeqCst);

    let stalls = come(&crowd, sockets, &mut devices)?;
    let stalled = micros();
    let (mut most, until) = (before, Instant::now() + Duration::from_secs(seconds));
    while Instant::now() < until {
        work(&mut devices, Duration::from_secs(1))?;
        let now = Usage::of(server.process.id())?;
        most.kib = most.kib.max(now.kib);
        most.files = most.files.max(now.files);
        most.threads = most.threads.max(now.threads);
    }
    let ended = micros();
    leave(&crowd, stalls)?;
    outcome.faults += first + crowd.begun.load(Ordering::SeqCst);
    println!(
        "  {sockets} sockets at once, {} in all, {} ended by the server; it took {most} at most",
        crowd.begun.load(Ordering::SeqCst),
        crowd.ended.load(Ordering::SeqCst)
    );
    let judged = settle(&server)
        .and_then(|()| as_before("server", warm, || Usage::of(server.process.id())))
        .and_then(|()| bounded(&crowd, before, most, sockets))
        .and_then(|()| latency(&devices, [began, crowded, stalled, ended]));
    for device in &mut devices {
        device.drain()?;
    }
    ensure!(server.process.ended()?.is_none(), "the server ended");
    let said = server.process.errors();
    ensure!(!said.contains("panicked"), "the server panicked: {said}");
    check::acknowledged(&server, &devices)?;
    check::at_rest(lab, &server, &mut devices)?;
    judged
}

/// Lets so many sockets come and stall.
fn come(crowd: &Arc<Crowd>, sockets: u64, devices: &mut [Device]) -> Result<JoinHandle<()>> {
    crowd.stop.store(false, Ordering::SeqCst);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shared = Arc::clone(crowd);
    let stalls = std::thread::spawn(move || runtime.block_on(stall(shared, sockets)));
    let deadline = Instant::now() + PATIENCE;
    while crowd.now.load(Ordering::SeqCst) < sockets * 9 / 10 {
        ensure!(
            Instant::now() < deadline,
            "only {} of {sockets} sockets could connect; `ulimit -n` has to allow more",
            crowd.now.load(Ordering::SeqCst)
        );
        work(devices, Duration::from_millis(100))?;
    }
    Ok(stalls)
}

fn leave(crowd: &Crowd, stalls: JoinHandle<()>) -> Result<()> {
    crowd.stop.store(true, Ordering::SeqCst);
    stalls.join().ok().context("the crowd panicked")
}

/// Lets the devices go on for so long.
fn work(devices: &mut [Device], time: Duration) -> Result<()> {
    std::thread::sleep(time);
    for device in devices {
        device.hear();
        device.alive()?;
    }
    Ok(())
}

/// Until only the two devices have sessions.
fn settle(server: &Server) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = sessions(server.address())?;
        if open <= 2 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "LEFT BEHIND: the server has {open} sessions of two devices"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn bounded(crowd: &Crowd, before: Usage, most: Usage, sockets: u64) -> Result<()> {
    let of_sockets = (0..sockets).map(|number| match kind(crowd, number) {
        Stall::NeverReads | Stall::PullUnread => UNREAD_KIB,
        Stall::Silent | Stall::HalfHead | Stall::HalfBody | Stall::NoHello | Stall::HalfFrame => {
            SOCKET_KIB
        }
    });
    let allowed = before.kib + of_sockets.sum::<u64>() + 32 * 1024;
    ensure!(
        most.kib <= allowed,
        "GROWS: {sockets} stalled sockets took the server from {before} to {:.1} MiB",
        mib(most.kib)
    );
    Ok(())
}

fn latency(devices: &[Device], [began, crowded, stalled, ended]: [u64; 4]) -> Result<()> {
    for (writer, reader) in [(0, 1), (1, 0)] {
        let all = latencies(&devices[writer], &devices[reader]);
        let (alone, beside) = (between(&all, began, crowded), between(&all, stalled, ended));
        let names = (&devices[writer].name, &devices[reader].name);
        println!(
            "  latency {} to {}: {} alone, {} beside stalled sockets",
            names.0,
            names.1,
            told(&alone),
            told(&beside)
        );
        ensure!(!beside.is_empty(), "nothing arrived from {}", names.0);
        let (before, after) = (percentile(&alone, 50), percentile(&beside, 50));
        ensure!(
            (ended - stalled) / 1_000_000 < JUDGED_SECONDS || after <= 3 * before + LATENCY_SLACK,
            "SLOWER: the median latency was {before} and is {after} microseconds"
        );
    }
    Ok(())
}

async fn stall(crowd: Arc<Crowd>, sockets: u64) {
    let mut all = tokio::task::JoinSet::new();
    for number in 0..sockets {
        let crowd = Arc::clone(&crowd);
        all.spawn(async move {
            // Not all at the same moment: that is another test.
            tokio::time::sleep(Duration::from_millis(number * 5)).await;
            while !crowd.stop.load(Ordering::SeqCst) {
                let begun = begin(&crowd, number).await;
                if let Ok(socket) = begun {
                    crowd.now.fetch_add(1, Ordering::SeqCst);
                    let by_server = wait(&crowd, number, socket).await;
                    crowd
                        .ended
                        .fetch_add(u64::from(by_server), Ordering::SeqCst);
                    crowd.now.fetch_sub(1, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    while all.join_next().await.is_some() {}
}

/// Which way a socket of this number stalls.
fn kind(crowd: &Crowd, number: u64) -> Stall {
    let count = STALLS.len() as u64;
    let turn = STALLS[usize::try_from(number % count).unwrap_or(0)];
    crowd.only.unwrap_or(turn)
}

/// Connects, and says what this one says before it stalls.
async fn begin(crowd: &Crowd, number: u64) -> Result<TcpStream> {
    crowd.begun.fetch_add(1, Ordering::SeqCst);
    let socket = TcpSocket::new_v4()?;
    // What is not read stays with the server.
    socket.set_recv_buffer_size(4 * 1024)?;
    let mut stream = socket.connect(crowd.address).await?;
    let person = usize::try_from(number)? % crowd.tokens.len();
    let (host, token) = (crowd.address, &crowd.tokens[person]);
    let who = format!("host: {host}\r\nauthorization: Bearer {token}\r\n");
    match kind(crowd, number) {
        Stall::Silent => {}
        Stall::HalfHead => {
            let half = format!("GET /v1/pull HTTP/1.1\r\nhost: {host}\r\nauthoriz");
            stream.write_all(half.as_bytes()).await?;
        }
        Stall::HalfBody => {
            let head = format!(
                "POST /v1/push HTTP/1.1\r\n{who}content-type: application/json\r\ncontent-length: 100000\r\n\r\n{{\"changes\": ["
            );
            stream.write_all(head.as_bytes()).await?;
        }
        Stall::PullUnread => {
            let head = format!("GET /v1/pull?limit=5000 HTTP/1.1\r\n{who}\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
        Stall::NoHello => upgrade(&mut stream, &who).await?,
        Stall::HalfFrame => {
            upgrade(&mut stream, &who).await?;
            // RFC 6455, 5.2: binary, masked, 1,000 bytes long; the first few of them.
            let frame = [0x82, 0xFE, 0x03, 0xE8, 0, 0, 0, 0, 0, 0x82, 0x01];
            stream.write_all(&frame).await?;
        }
        Stall::NeverReads => {
            upgrade(&mut stream, &who).await?;
            stream.write_all(&frame(&hello(number))).await?;
        }
    }
    Ok(stream)
}

/// Becomes a WebSocket, and reads the answer to that.
async fn upgrade(stream: &mut TcpStream, who: &str) -> Result<()> {
    let head = format!(
        "GET /v1/sync HTTP/1.1\r\n{who}connection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    ensure!(
        answer.starts_with(b"HTTP/1.1 101"),
        "no WebSocket: {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

/// A new device's first message, with more credit than there are bytes.
fn hello(number: u64) -> Vec<u8> {
    let mut device = [7; 16];
    device[..8].copy_from_slice(&number.to_be_bytes());
    encode_client(&ClientMessage::Hello(Hello {
        protocol: PROTOCOL,
        device: DeviceId(device),
        lease: Lease::default(),
        next_lease: Lease([1; 16]),
        device_name: "stalled".to_owned(),
        platform: "reliability".to_owned(),
        server: DeviceId::default(),
        schema_hash: 0,
        cursors: Vec::new(),
        tables: None,
        buckets_count: 0,
        buckets_sum: 0,
        loading: Vec::new(),
        credit: 1 << 40,
        now: Timestamp(micros()),
        renamed: false,
        register_anew: false,
        subscriptions: None,
        subscribed: 0,
        loads_again: false,
    }))
}

/// A masked binary frame; the mask is zero.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut frame = vec![0x82, 0xFE];
    frame.extend(length.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Stalls until the server ends it, or everything ends; whether the server did.
async fn wait(crowd: &Crowd, number: u64, mut socket: TcpStream) -> bool {
    let begun = Instant::now();
    let mut byte = [0; 64];
    while !crowd.stop.load(Ordering::SeqCst) {
        match kind(crowd, number) {
            Stall::NeverReads | Stall::PullUnread => {
                tokio::time::sleep(Duration::from_millis(250)).await;
                if begun.elapsed() > ANEW {
                    return false;
                }
            }
            Stall::Silent
            | Stall::HalfHead
            | Stall::HalfBody
            | Stall::NoHello
            | Stall::HalfFrame => {
                let read = tokio::time::timeout(Duration::from_millis(250), socket.read(&mut byte));
                // Anything but the end is an answer: what follows it is.
                if let Ok(Ok(0) | Err(_)) = read.await {
                    return true;
                }
            }
        }
    }
    false
}
