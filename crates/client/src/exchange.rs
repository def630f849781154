//! The exchange over plain HTTP: frames in base64, by long polling.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    api::Api,
    error::ClientError,
    sync_error::{ErrorKind, kind_of},
    transport::Broken,
};

/// How long a request waits for something to happen.
const WAIT_MILLIS: u64 = 20_000;
/// Frames that wait in either direction.
const FRAMES_WAITING: usize = 64;
/// Bytes of frames put into one request.
const REQUEST_BYTES: usize = 1024 * 1024;

#[derive(Deserialize)]
struct Answer {
    session: String,
    frames: Vec<String>,
    closed: bool,
}

/// A pipe of frames over requests, made by a task of its own.
pub(crate) struct Exchange {
    to_task: mpsc::Sender<Vec<u8>>,
    from_task: mpsc::Receiver<Result<Vec<u8>, Broken>>,
    task: JoinHandle<()>,
}

impl Exchange {
    pub(crate) fn open(api: Api) -> Self {
        let (to_task, outgoing) = mpsc::channel(FRAMES_WAITING);
        let (incoming, from_task) = mpsc::channel(FRAMES_WAITING);
        let task = tokio::spawn(run(api, outgoing, incoming));
        Self {
            to_task,
            from_task,
            task,
        }
    }

    pub(crate) async fn send(&self, frame: Vec<u8>) -> Result<(), String> {
        self.to_task
            .send(frame)
            .await
            .map_err(|_| "the exchange has ended".to_owned())
    }

    pub(crate) async fn receive(&mut self) -> Result<Vec<u8>, Broken> {
        self.from_task.recv().await.unwrap_or(Err(Broken::Closed))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Posts what waits; while nothing does, a request waits at the server. A new frame does not
/// interrupt a waiting request: the server answers it as soon as it has something to say, and at
/// the latest after the wait, which is short while frames are being exchanged.
async fn run(
    api: Api,
    mut outgoing: mpsc::Receiver<Vec<u8>>,
    incoming: mpsc::Sender<Result<Vec<u8>, Broken>>,
) {
    let mut session: Option<String> = None;
    let mut wait = 0;
    loop {
        let mut frames = Vec::new();
        let mut bytes = 0;
        if session.is_none() {
            // The first request carries Hello.
            let Some(frame) = outgoing.recv().await else {
                return;
            };
            bytes += frame.len();
            frames.push(frame);
        }
        while bytes < REQUEST_BYTES
            && let Ok(frame) = outgoing.try_recv()
        {
            bytes += frame.len();
            frames.push(frame);
        }
        if !frames.is_empty() {
            wait = 0;
        }
        let encoded: Vec<String> = frames.iter().map(|f| BASE64_STANDARD.encode(f)).collect();
        let body = json!({ "session": session, "frames": encoded, "wait_ms": wait });
        let answer: Answer = match api.post("/v1/exchange", &body).await {
            Ok(answer) => answer,
            Err(error) => {
                let is_refused = kind_of(&error) == ErrorKind::Authentication;
                let has_to_wait = error.is_retryable() && error.retry_after().is_some();
                let broken = if is_refused || has_to_wait {
                    Broken::Refused(error)
                } else if let ClientError::Unreachable { reason, .. } = error {
                    Broken::Lost(reason)
                } else {
                    Broken::Lost(error.to_string())
                };
                let _gone = incoming.send(Err(broken)).await;
                return;
            }
        };
        session = Some(answer.session);
        // Nothing said, nothing heard: wait a little longer each time, so that frames written
        // meanwhile never wait for a long poll while there is traffic.
        wait = if answer.frames.is_empty() {
            (wait * 2).clamp(20, WAIT_MILLIS / 20)
        } else {
            0
        };
        for frame in answer.frames {
            let frame = BASE64_STANDARD
                .decode(frame)
                .map_err(|error| Broken::Lost(error.to_string()));
            let ended = frame.is_err();
            if incoming.send(frame).await.is_err() || ended {
                return;
            }
        }
        if answer.closed {
            let _gone = incoming.send(Err(Broken::Closed)).await;
            return;
        }
    }
}
