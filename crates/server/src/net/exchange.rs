//! `/v1/exchange`: the same session over plain HTTP, for networks that break WebSockets.
//!
//! `POST {"session": "…" | null, "frames": ["base64", …], "wait_ms": 0..25000}` hands over frames
//! and answers `{"session", "frames", "closed"}`: what the session has to say by then. One request
//! at a time per session. What was not heard when the answer is full waits for the next request.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Json, extract::State, http::StatusCode};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use syncline_core::{rules::Identity, wire::code};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio_util::sync::PollSender;

use super::{
    Backend, Shared,
    body::Body,
    caller::Caller,
    drive::{Incoming, Lost, Transport, drive},
    error::ApiError,
    held::Held,
    shared::too_much,
    ws::FRAME_BYTES_MAX,
};
use crate::session::Proof;

/// A session nobody asks for is dropped after this.
const IDLE_MAX: Duration = Duration::from_secs(60);
const WAIT_MAX_MILLIS: u64 = 25_000;
/// An answer is sent when it has grown to this many bytes of frames.
const ANSWER_BYTES: usize = 1024 * 1024;
/// Batches of frames that may wait for a request, and when one is full.
const BATCHES_OUT_MAX: usize = 2;
const BATCH_BYTES: usize = 64 * 1024;
/// Frames that the session may be given before it hears them, and how many bytes may wait for that.
const FRAMES_IN_MAX: usize = 1;
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a frame takes beside its bytes.
const FRAME_HEAD_BYTES: usize = 64;
/// After the first frame, more are waited for this long.
const LINGER: Duration = Duration::from_millis(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExchangeRequest {
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    frames: Vec<String>,
    #[serde(default)]
    wait_ms: u64,
}

#[derive(Serialize)]
pub(crate) struct ExchangeResponse {
    session: String,
    frames: Vec<String>,
    closed: bool,
}

/// The sessions that live over HTTP, by an unguessable name.
#[derive(Default)]
pub(crate) struct Exchanges {
    sessions: Mutex<BTreeMap<String, Arc<Exchange>>>,
}

struct Exchange {
    identity: Arc<Identity>,
    ends: AsyncMutex<Ends>,
    last_used: Mutex<std::time::Instant>,
}

/// The end that requests have.
struct Ends {
    to_session: mpsc::Sender<Incoming>,
    from_session: mpsc::Receiver<Vec<Bytes>>,
    /// What the session was not given yet.
    waiting: VecDeque<Bytes>,
    held: Held,
}

/// The end that the session has.
struct Line {
    incoming: mpsc::Receiver<Incoming>,
    outgoing: PollSender<Vec<Bytes>>,
    batch: Vec<Bytes>,
    batch_bytes: usize,
}

impl Transport for Line {
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.incoming.poll_recv(context)
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        match self.batch_bytes < BATCH_BYTES {
            true => Poll::Ready(Ok(())),
            false => self.poll_flush(context),
        }
    }

    fn give(&mut self, frame: Bytes) -> Result<(), Lost> {
        self.batch_bytes += frame.len();
        self.batch.push(frame);
        Ok(())
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        if self.batch.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.outgoing.poll_reserve(context)).map_err(|_| Lost)?;
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        Poll::Ready(self.outgoing.send_item(batch).map_err(|_| Lost))
    }
}

pub(crate) async fn exchange<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
    Body(request): Body<ExchangeRequest>,
) -> Result<Json<ExchangeResponse>, ApiError> {
    let identity = proof.identity;
    let given = decoded(&request.frames)?;
    let (name, session) = match request.session {
        None => open(&shared, identity)?,
        Some(name) => {
            let found = shared.exchanges.sessions.lock().get(&name).cloned();
            // Rules may look at any claim: the session goes on for exactly the same identity.
            let known = found.filter(|session| session.identity == identity);
            let gone = || {
                let sentence = "this exchange has ended: start a new one";
                ApiError::new(StatusCode::GONE, code::UNAVAILABLE, sentence)
            };
            (name, known.ok_or_else(gone)?)
        }
    };
    let Ok(mut ends) = session.ends.try_lock() else {
        let sentence = "another request of this exchange is under way";
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            code::MALFORMED,
            sentence,
        ));
    };
    *session.last_used.lock() = std::time::Instant::now();
    ends.waiting.extend(given);
    if let Err(error) = ends.keep() {
        // Some of what was said would be missing.
        shared.exchanges.sessions.lock().remove(&name);
        return Err(error);
    }
    let mut frames = ends.hand_over().await;
    // Less than before, whatever others keep by now.
    let _less = ends.keep();
    let wait = Duration::from_millis(request.wait_ms.min(WAIT_MAX_MILLIS));
    let closed = collect(&mut ends.from_session, &mut frames, wait).await;
    *session.last_used.lock() = std::time::Instant::now();
    if closed {
        shared.exchanges.sessions.lock().remove(&name);
    }
    let frames = frames
        .iter()
        .map(|frame| BASE64_STANDARD.encode(frame))
        .collect();
    Ok(Json(ExchangeResponse {
        session: name,
        frames,
        closed,
    }))
}

impl Ends {
    /// Counts what waits; an error where it is too much.
    fn keep(&mut self) -> Result<(), ApiError> {
        let frames = self.waiting.iter();
        let bytes = frames.map(|frame| FRAME_HEAD_BYTES + frame.len()).sum();
        match self.held.is_too_much(bytes, 0) || bytes > WAITING_BYTES_MAX {
            true => Err(too_much()),
            false => Ok(()),
        }
    }

    /// Gives the session what waits, and takes what it says meanwhile: never wait for a session
    /// that itself waits for room in the answer. Once that is full, the rest goes on waiting.
    async fn hand_over(&mut self) -> Vec<Bytes> {
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while !self.waiting.is_empty() && bytes < ANSWER_BYTES {
            tokio::select! {
                place = self.to_session.reserve() => match (place, self.waiting.pop_front()) {
                    (Ok(place), Some(frame)) => place.send(Incoming::Frame(frame)),
                    // A session that has ended says why to who takes the rest.
                    (Err(_) | Ok(_), _) => self.waiting.clear(),
                },
                Some(batch) = self.from_session.recv() => {
                    bytes += batch.iter().map(Bytes::len).sum::<usize>();
                    frames.extend(batch);
                }
            }
        }
        frames
    }
}

fn decoded(frames: &[String]) -> Result<Vec<Bytes>, ApiError> {
    let decode = |frame: &String| {
        let frame = BASE64_STANDARD.decode(frame).map_err(|error| {
            let sentence = format!("a frame is not base64: {error}");
            ApiError::new(StatusCode::BAD_REQUEST, code::MALFORMED, sentence)
        })?;
        if frame.len() > FRAME_BYTES_MAX {
            let sentence = format!("a frame has at most {FRAME_BYTES_MAX} bytes");
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                code::TOO_LARGE,
                sentence,
            ));
        }
        Ok(frame.into())
    };
    frames.iter().map(decode).collect()
}

/// Takes frames until `wait` is over or there is enough; `true` when the session has ended.
async fn collect(
    from_session: &mut mpsc::Receiver<Vec<Bytes>>,
    frames: &mut Vec<Bytes>,
    wait: Duration,
) -> bool {
    let mut bytes: usize = frames.iter().map(Bytes::len).sum();
    let mut deadline = tokio::time::Instant::now()
        + if frames.is_empty() {
            wait.max(LINGER)
        } else {
            LINGER
        };
    while bytes < ANSWER_BYTES {
        match tokio::time::timeout_at(deadline, from_session.recv()).await {
            Ok(Some(batch)) => {
                bytes += batch.iter().map(Bytes::len).sum::<usize>();
                frames.extend(batch);
                deadline = deadline.min(tokio::time::Instant::now() + LINGER);
            }
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
    false
}

fn open<B: Backend>(
    shared: &Arc<Shared<B>>,
    identity: Arc<Identity>,
) -> Result<(String, Arc<Exchange>), ApiError> {
    let connection = shared.connection(&identity)?;
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            code::UNAVAILABLE,
            error.to_string(),
        )
    })?;
    let name = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(random);
    let (to_session, incoming) = mpsc::channel(FRAMES_IN_MAX);
    let (outgoing, from_session) = mpsc::channel(BATCHES_OUT_MAX);
    let session = Arc::new(Exchange {
        identity: Arc::clone(&identity),
        ends: AsyncMutex::new(Ends {
            to_session,
            from_session,
            waiting: VecDeque::new(),
            held: Held::new(&shared.held),
        }),
        last_used: Mutex::new(std::time::Instant::now()),
    });
    shared
        .exchanges
        .sessions
        .lock()
        .insert(name.clone(), Arc::clone(&session));
    // Each request proves its identity anew: the first token's end ends nothing.
    let proof = Proof {
        identity,
        expires: None,
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let _connection = connection;
        let mut line = Line {
            incoming,
            outgoing: PollSender::new(outgoing),
            batch: Vec::new(),
            batch_bytes: 0,
        };
        drive(shared, proof, &mut line).await;
    });
    Ok((name, session))
}

impl Exchanges {
    /// Drops sessions that nobody has asked for lately; their tasks end with their channels.
    pub(crate) fn sweep(&self) {
        self.sessions
            .lock()
            .retain(|_, session| session.last_used.lock().elapsed() < IDLE_MAX);
    }
}
