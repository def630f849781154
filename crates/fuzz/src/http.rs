//! The HTTP front of a real server: raw requests, and bodies for each of its paths.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use syncline_core::{Timestamp, config::Config};
use syncline_server::net::{Auth, Backend, Limits, Options, Server};
use syncline_store::{
    StorageError,
    memory::{MemoryReader, MemoryStorage},
    testkit::demo_schema,
};

/// Requests to one server, so that what they wrote does not grow for ever.
const REQUESTS_MAX: u32 = 5_000;
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Nothing takes longer, on a busy machine neither.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

struct InMemory;

impl Backend for InMemory {
    type Storage = MemoryStorage;
    type Reader = MemoryReader;

    fn open(&self) -> Result<MemoryStorage, StorageError> {
        Ok(MemoryStorage::new())
    }

    fn reader(storage: &MemoryStorage) -> Result<MemoryReader, StorageError> {
        Ok(storage.reader())
    }
}

struct Front {
    runtime: tokio::runtime::Runtime,
    server: Option<Server>,
    address: SocketAddr,
    token: String,
    requests: u32,
}

impl Front {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let auth = || Auth::new(&[0x42; 32]).expect("a secret");
        let options = Options {
            listen: ([127, 0, 0, 1], 0).into(),
            config: Config {
                schema: demo_schema(),
                ..Config::default()
            },
            allow: Vec::new(),
            dev: false,
            remember: None,
            auth: auth(),
            connections_max: 100,
        };
        let server = Server::start_with(Arc::new(InMemory), options, Limits::default());
        let server = runtime.block_on(server).expect("the server starts");
        let (now, end) = (
            Timestamp::default(),
            Timestamp::from_millis(4_000_000_000_000),
        );
        let token = auth().issue("ada", std::collections::BTreeMap::new(), now, end);
        Self {
            address: server.address(),
            runtime,
            server: Some(server),
            token: token.expect("a token"),
            requests: 0,
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime
                .block_on(server.stop())
                .expect("the server stops");
        }
    }
}

/// What is asked for by the first byte; the rest of the input is the query or the body.
const PATHS: [&str; 14] = [
    "",
    "POST /v1/push",
    "GET /v1/pull?",
    "GET /v1/history?",
    "GET /v1/history/row?",
    "POST /v1/exchange",
    "POST /v1/hashes",
    "PUT /v1/schema",
    "GET /v1/devices",
    "PATCH /v1/devices/",
    "DELETE /v1/devices/",
    "GET /v1/pull?cursor=",
    "GET /v1/sync",
    "GET /",
];

/// One request. The server answers with no error of its own, or closes a connection that made no
/// sense; and it goes on.
pub(crate) fn http(bytes: &[u8]) {
    static FRONT: Mutex<Option<Front>> = Mutex::new(None);
    let Some((&which, rest)) = bytes.split_first() else {
        return;
    };
    if rest.len() > BODY_BYTES_MAX {
        return;
    }
    let mut front = FRONT.lock().unwrap_or_else(PoisonError::into_inner);
    if front
        .as_ref()
        .is_some_and(|front| front.requests >= REQUESTS_MAX)
    {
        *front = None;
    }
    let front = front.get_or_insert_with(Front::start);
    front.requests += 1;
    let request = request(usize::from(which) % PATHS.len(), rest, &front.token);
    let answer = ask(front.address, &request);
    if let Some(status) = status(&answer) {
        let text = || String::from_utf8_lossy(&answer).into_owned();
        assert!(
            status < 500,
            "{}\nwas answered by\n{}",
            String::from_utf8_lossy(&request),
            text()
        );
        let is_json = answer.windows(16).any(|part| part == b"application/json");
        if is_json && status >= 400 {
            let body = answer.windows(4).position(|part| part == b"\r\n\r\n");
            let body = body.map_or(&answer[..0], |at| &answer[at + 4..]);
            assert!(text().contains("\"code\""), "an error has a code: {body:?}");
        }
    }
}

fn request(which: usize, rest: &[u8], token: &str) -> Vec<u8> {
    if which == 0 {
        return rest.to_vec();
    }
    let path = PATHS[which];
    let mut out = path.as_bytes().to_vec();
    let mut body = rest;
    if path.ends_with(['?', '/', '=']) {
        // Up to the line's end: what follows is a body.
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(rest.len());
        for byte in &rest[..end] {
            if byte.is_ascii_graphic() {
                out.push(*byte);
            } else {
                out.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
        }
        body = rest.get(end + 1..).unwrap_or_default();
    }
    let head = format!(
        " HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\nidempotency-key: {:032x}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.iter().fold(0_u128, |sum, byte| sum
            .wrapping_mul(31)
            .wrapping_add(u128::from(*byte))),
        body.len(),
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
    out
}

fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).expect("the server goes on");
    socket
        .set_read_timeout(Some(ANSWER_WITHIN))
        .expect("a timeout");
    socket
        .set_write_timeout(Some(ANSWER_WITHIN))
        .expect("a timeout");
    // It may hang up in the middle of nonsense.
    if socket.write_all(request).is_ok() {
        drop(socket.shutdown(std::net::Shutdown::Write));
    }
    let mut answer = Vec::new();
    let mut part = [0; 8192];
    loop {
        match socket.read(&mut part) {
            Ok(0) => return answer,
            Ok(length) => answer.extend_from_slice(&part[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer to {}", String::from_utf8_lossy(request));
            }
            Err(_) => return answer,
        }
        assert!(answer.len() < 32 * 1024 * 1024, "an answer has an end");
    }
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| answer.strip_prefix(b"HTTP/1.0 "))?;
    std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
}
