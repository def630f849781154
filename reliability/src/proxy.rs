//! A network between device and server that waits, cuts, repeats and garbles.
//!
//! It knows where WebSocket frames and HTTP messages begin and end, and numbers them in each
//! direction over all connections of a conversation, so that a fault can be placed at any of them.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;

/// The way that bytes take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up = 0,
    Down = 1,
}

/// What happens to one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection ends before it.
    CutBefore,
    /// Half of it arrives, then the connection ends.
    CutInside,
    /// It arrives, then the connection ends.
    CutAfter,
    /// One of its bits is another, counted from its last byte.
    Flip { byte: u64, bit: u8 },
    /// An earlier frame of the same connection and direction arrives once more after it.
    Repeat { back: u64 },
}

/// Where a fault is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub way: Way,
    pub frame: u64,
    pub fault: Fault,
}

#[derive(Debug, Default)]
struct Plan {
    faults: Mutex<Vec<Placed>>,
    frames: [AtomicU64; 2],
    hits: AtomicU64,
    delays: [AtomicU64; 2],
    /// Answers WebSocket handshakes with 400.
    is_plain: AtomicBool,
    connections: AtomicU64,
    /// Connections that began before this one are silent: nothing passes, nothing ends.
    silent_before: AtomicU64,
    /// Both ends of those that are open, by their number.
    open: Mutex<BTreeMap<u64, [TcpStream; 2]>>,
    target: Mutex<String>,
}

/// Listens until the process ends.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub url: String,
    plan: Arc<Plan>,
}

impl Proxy {
    /// In front of the server at `target`.
    pub(crate) fn to(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let plan = Arc::new(Plan::default());
        *lock(&plan.target) = target.to_owned();
        let shared = Arc::clone(&plan);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let plan = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, &plan));
            }
        });
        Ok(Self { url, plan })
    }

    /// Begins a conversation: frames are counted from zero, and these faults are placed.
    pub(crate) fn begin(&self, faults: &[Placed]) {
        for count in &self.plan.frames {
            count.store(0, Ordering::SeqCst);
        }
        self.plan.hits.store(0, Ordering::SeqCst);
        *lock(&self.plan.faults) = faults.to_vec();
    }

    /// Frames that went this way since the conversation began.
    pub(crate) fn frames(&self, way: Way) -> u64 {
        self.plan.frames[way as usize].load(Ordering::SeqCst)
    }

    /// How many of the placed faults have happened.
    pub(crate) fn hits(&self) -> u64 {
        self.plan.hits.load(Ordering::SeqCst)
    }

    /// Each piece waits so long on this way.
    pub(crate) fn delay(&self, way: Way, pause: Duration) {
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.plan.delays[way as usize].store(micros, Ordering::SeqCst);
    }

    /// Ends every connection at once, in the middle of whatever it says.
    pub(crate) fn cut(&self) {
        for stream in lock(&self.plan.open).values().flatten() {
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets every connection that is there fall silent: neither side hears from the other again,
    /// not even that it has ended. New ones work.
    pub(crate) fn hush(&self) {
        let next = self.plan.connections.load(Ordering::SeqCst);
        self.plan.silent_before.store(next, Ordering::SeqCst);
    }

    /// Connections whose ends are both still held.
    pub(crate) fn open(&self) -> usize {
        lock(&self.plan.open).len()
    }

    /// Whether WebSockets are refused, so that only plain HTTP is left.
    pub(crate) fn refuse_web_sockets(&self, refused: bool) {
        self.plan.is_plain.store(refused, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(client: &TcpStream, plan: &Arc<Plan>) {
    let target = lock(&plan.target).clone();
    let Ok(server) = TcpStream::connect(&target) else {
        return;
    };
    let _late = client
        .set_nodelay(true)
        .and_then(|()| server.set_nodelay(true));
    let is_socket = Arc::new(AtomicBool::new(false));
    let number = plan.connections.fetch_add(1, Ordering::SeqCst);
    let ends = (client.try_clone(), server.try_clone());
    if let (Ok(client), Ok(server)) = ends {
        lock(&plan.open).insert(number, [client, server]);
    }
    let copies = (client.try_clone(), server.try_clone());
    if let (Ok(to_client), Ok(from_server)) = copies {
        let (shared, socket) = (Arc::clone(plan), Arc::clone(&is_socket));
        let down = std::thread::spawn(move || {
            pass(from_server, to_client, Way::Down, number, &shared, &socket);
        });
        if let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) {
            pass(from_client, to_server, Way::Up, number, plan, &is_socket);
        }
        let _panicked = down.join();
    }
    lock(&plan.open).remove(&number);
}

/// Passes frames on in one direction until one side ends or a fault does.
fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    way: Way,
    connection: u64,
    plan: &Plan,
    is_socket: &AtomicBool,
) {
    let is_silent = || connection < plan.silent_before.load(Ordering::SeqCst);
    let (mut waiting, mut earlier) = (Vec::new(), Vec::<Vec<u8>>::new());
    let mut buffer = vec![0; 64 * 1024];
    'connection: loop {
        let length = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        if is_silent() {
            continue;
        }
        std::thread::sleep(Duration::from_micros(
            plan.delays[way as usize].load(Ordering::SeqCst),
        ));
        waiting.extend_from_slice(&buffer[..length]);
        while let Some(end) = frame_end(&waiting, is_socket.load(Ordering::SeqCst)) {
            let mut frame: Vec<u8> = waiting.drain(..end).collect();
            if !is_socket.load(Ordering::SeqCst) {
                let head =
                    String::from_utf8_lossy(&frame[..frame.len().min(4096)]).to_ascii_lowercase();
                if way == Way::Up
                    && head.contains("upgrade: websocket")
                    && plan.is_plain.load(Ordering::SeqCst)
                {
                    let answer = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    let _gone = from.write_all(answer.as_bytes());
                    break 'connection;
                }
                if way == Way::Down && head.starts_with("http/1.1 101") {
                    is_socket.store(true, Ordering::SeqCst);
                }
            }
            let number = plan.frames[way as usize].fetch_add(1, Ordering::SeqCst);
            let fault = taken(plan, way, number);
            let mut also = None;
            let mut ends = false;
            match fault {
                None => {}
                Some(Fault::CutBefore) => break 'connection,
                Some(Fault::CutInside) => {
                    frame.truncate(frame.len() / 2);
                    ends = true;
                }
                Some(Fault::CutAfter) => ends = true,
                Some(Fault::Flip { byte, bit }) => {
                    let length = frame.len();
                    let back = usize::try_from(byte).unwrap_or(0) % length;
                    frame[length - 1 - back] ^= 1 << (bit % 8);
                }
                Some(Fault::Repeat { back }) => {
                    let back = usize::try_from(back).unwrap_or(0).min(earlier.len());
                    also = earlier
                        .len()
                        .checked_sub(back + 1)
                        .map(|at| earlier[at].clone());
                }
            }
            if to.write_all(&frame).is_err() || ends {
                break 'connection;
            }
            if let Some(again) = also
                && to.write_all(&again).is_err()
            {
                break 'connection;
            }
            // The handshake is not said twice.
            if is_socket.load(Ordering::SeqCst) && number > 0 && frame.len() < 1 << 20 {
                earlier.push(frame);
            }
        }
    }
    // Of a silent one each side has to find out for itself.
    if !is_silent() {
        let _closed = to.shutdown(Shutdown::Both);
        let _closed = from.shutdown(Shutdown::Both);
    }
}

fn taken(plan: &Plan, way: Way, number: u64) -> Option<Fault> {
    let mut faults = lock(&plan.faults);
    let at = faults
        .iter()
        .position(|placed| placed.way == way && placed.frame == number)?;
    plan.hits.fetch_add(1, Ordering::SeqCst);
    Some(faults.swap_remove(at).fault)
}

/// Where the first message in `bytes` ends, if all of it is there.
fn frame_end(bytes: &[u8], is_socket: bool) -> Option<usize> {
    if is_socket {
        web_socket_end(bytes)
    } else {
        http_end(bytes)
    }
}

/// RFC 6455, 5.2.
fn web_socket_end(bytes: &[u8]) -> Option<usize> {
    let second = *bytes.get(1)?;
    let (length, at) = match second & 0x7F {
        126 => (
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let end = usize::try_from(length).ok()?.checked_add(at + mask)?;
    (bytes.len() >= end).then_some(end)
}

/// Head and body; a chunked body passes in the pieces in which it comes.
fn http_end(bytes: &[u8]) -> Option<usize> {
    let starts = [&b"GET "[..], b"POST", b"HTTP", b"PUT ", b"OPTI", b"DELE"];
    if !starts.iter().any(|start| bytes.starts_with(start)) {
        return (!bytes.is_empty()).then_some(bytes.len());
    }
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse::<usize>().ok())
        .unwrap_or(0);
    (bytes.len() >= head + length).then_some(head + length)
}
