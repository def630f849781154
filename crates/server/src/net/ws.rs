//! `/v1/sync`: one WebSocket, one session.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::rejection::WebSocketUpgradeRejection,
        ws::{CloseFrame, Message, WebSocket, close_code},
    },
    http::HeaderMap,
    response::Response,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use syncline_core::wire::{INFLATED_BYTES_MAX, code};
use tokio_tungstenite::tungstenite;

use super::{
    Backend, Shared,
    caller::SessionCaller,
    drive::{End, Incoming, Lost, Transport, drive},
    error::ApiError,
    http,
};
use crate::session::Proof;

/// Held by each open socket; larger frames take what they need while they arrive.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Largest frame a client may send: a part of a changeset with its envelope.
pub(crate) const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Small frames leave with one write until they are so long; the socket holds as much for ever,
/// or as its longest frame.
const BATCH_BYTES: usize = 16 * 1024;
/// The last that a session has said is sent within this.
const FLUSH_MAX: Duration = Duration::from_secs(3);
/// Pings and pongs that one connection sends at once, and then in a second.
const CONTROL_AT_ONCE: u64 = 100;
const CONTROL_PER_SECOND: u64 = 10;
const SUBPROTOCOL: &str = "syncline.v1";

/// Upgrades, after the token or ticket has been checked.
pub(crate) async fn sync<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    SessionCaller(proof): SessionCaller,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    http::check_origin(&shared, &headers)?;
    let upgrade = upgrade.map_err(|rejection| {
        ApiError::new(rejection.status(), code::MALFORMED, rejection.body_text())
    })?;
    let connection = shared.connection(&proof.identity)?;
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        // Most sessions are idle: what each holds decides how many there can be.
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(BATCH_BYTES)
        .max_write_buffer_size(INFLATED_BYTES_MAX + BATCH_BYTES);
    Ok(upgrade.on_upgrade(async move |socket| {
        let _connection = connection;
        serve(shared, proof, socket).await;
    }))
}

async fn serve<B: Backend>(shared: Arc<Shared<B>>, proof: Proof, socket: WebSocket) {
    let mut socket = Socket {
        socket,
        is_receiving: true,
        control: Control::new(),
    };
    let end = drive(shared, proof, &mut socket).await;
    let code = match end {
        End::Left => close_code::NORMAL,
        End::Refused => close_code::POLICY,
        End::GoneAway => close_code::RESTART,
        End::Lost => return,
    };
    drop(tokio::time::timeout(FLUSH_MAX, socket.close(code)).await);
}

/// A session's frames, each a message.
struct Socket {
    socket: WebSocket,
    is_receiving: bool,
    control: Control,
}

/// Pings and pongs that a connection may still send (spec WI19).
struct Control {
    left: u64,
    at: Instant,
}

impl Control {
    fn new() -> Self {
        Self {
            left: CONTROL_AT_ONCE,
            at: Instant::now(),
        }
    }

    /// Counts one.
    fn allows(&mut self) -> bool {
        let seconds = self.at.elapsed().as_secs();
        if seconds > 0 {
            let more = seconds.saturating_mul(CONTROL_PER_SECOND);
            self.left = self.left.saturating_add(more).min(CONTROL_AT_ONCE);
            self.at = Instant::now();
        }
        let allows = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allows
    }
}

impl Socket {
    /// Says why it ends. Whether that still arrives or not, this is the end.
    async fn close(&mut self, code: u16) {
        let close = CloseFrame {
            code,
            reason: "".into(),
        };
        drop(self.socket.send(Message::Close(Some(close))).await);
        // The answer, where the other side said it first.
        drop(self.socket.flush().await);
        // Until the other side has closed too: data that nobody has read would cut the farewell.
        while self.is_receiving
            && let Some(Incoming::Frame(_)) = poll_fn(|context| self.poll_receive(context)).await
        {
        }
    }
}

impl Transport for Socket {
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<Incoming>> {
        loop {
            let frame = match ready!(self.socket.poll_next_unpin(context)) {
                Some(Ok(Message::Binary(frame))) => Some(Incoming::Frame(frame)),
                // No frame at all: the session says so.
                Some(Ok(Message::Text(text))) => Some(Incoming::Frame(text.into())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => match self.control.allows() {
                    true => continue,
                    false => None,
                },
                Some(Err(error)) if is_too_long(&error) => Some(Incoming::TooLong),
                Some(Ok(Message::Close(_)) | Err(_)) | None => None,
            };
            self.is_receiving = frame.is_some();
            return Poll::Ready(frame);
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.socket.poll_ready_unpin(context).map_err(|_| Lost)
    }

    fn give(&mut self, frame: Bytes) -> Result<(), Lost> {
        let given = self.socket.start_send_unpin(Message::Binary(frame));
        given.map_err(|_| Lost)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.socket.poll_flush_unpin(context).map_err(|_| Lost)
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    let error = source.and_then(|source| source.downcast_ref::<tungstenite::Error>());
    matches!(
        error,
        Some(tungstenite::Error::Capacity(
            tungstenite::error::CapacityError::MessageTooLong { .. }
        ))
    )
}
