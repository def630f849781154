//! `/v1/sync`: one WebSocket, one session.

use std::{pin::pin, sync::Arc, time::Duration};

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
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite;

use super::{
    Backend, Shared,
    caller::Caller,
    drive::{BATCH_BYTES, BATCHES_OUT_MAX, End, FRAMES_IN_MAX, Frames, Incoming, drive},
    error::ApiError,
    http,
};
use crate::session::Proof;

/// Held by each open socket; larger frames take what they need while they arrive.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Largest frame a client may send: a part of a changeset with its envelope.
pub(crate) const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// A reader that takes nothing for this long is disconnected; it comes back with its cursor.
const SEND_MAX: Duration = Duration::from_secs(60);
/// What a session has said last is sent within this.
const FLUSH_MAX: Duration = Duration::from_secs(3);
const SUBPROTOCOL: &str = "syncline.v1";

/// Upgrades, after the token has been checked.
pub(crate) async fn sync<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
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
        // A batch leaves with one write.
        .write_buffer_size(2 * BATCH_BYTES)
        .max_write_buffer_size(INFLATED_BYTES_MAX + 2 * BATCH_BYTES);
    Ok(upgrade.on_upgrade(async move |socket| {
        let _connection = connection;
        serve(shared, proof, socket).await;
    }))
}

async fn serve<B: Backend>(shared: Arc<Shared<B>>, proof: Proof, socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    let (to_session, incoming) = mpsc::channel(FRAMES_IN_MAX);
    let (outgoing, mut from_session) = mpsc::channel::<Vec<Bytes>>(BATCHES_OUT_MAX);
    let receive = async move {
        while let Some(message) = stream.next().await {
            let frame = match message {
                Ok(Message::Binary(frame)) => Incoming::Frame(frame.into()),
                // No frame at all: the session says so.
                Ok(Message::Text(text)) => Incoming::Frame(text.as_bytes().to_vec()),
                Ok(Message::Ping(_) | Message::Pong(_)) => continue,
                Ok(Message::Close(_)) => return,
                Err(error) if is_too_long(&error) => Incoming::TooLong,
                Err(_) => return,
            };
            if to_session.send(frame).await.is_err() {
                return;
            }
        }
    };
    let send = async move {
        while let Some(batch) = from_session.recv().await {
            let send = async {
                for frame in batch {
                    sink.feed(Message::Binary(frame)).await?;
                }
                sink.flush().await
            };
            let sent = tokio::time::timeout(SEND_MAX, send);
            if !matches!(sent.await, Ok(Ok(()))) {
                return None;
            }
        }
        Some(sink)
    };
    let driven = drive(shared, proof, Frames { incoming, outgoing });
    let (mut receive, mut send, mut driven) = (pin!(receive), pin!(send), pin!(driven));
    let mut is_receiving = true;
    let end = loop {
        // In the order in which one has something for the next.
        tokio::select! {
            biased;
            () = &mut receive, if is_receiving => is_receiving = false,
            end = &mut driven => break end,
            // The socket takes nothing any more.
            _ = &mut send => return,
        }
    };
    let farewell = async {
        let Some(mut sink) = send.await else { return };
        let close = CloseFrame {
            code: match end {
                End::Left => close_code::NORMAL,
                End::Refused => close_code::POLICY,
                End::GoneAway => close_code::RESTART,
            },
            reason: "".into(),
        };
        // Whether it still arrives or not, this is the end.
        drop(sink.send(Message::Close(Some(close))).await);
        // Until the other side has closed too: data that nobody has read would cut the farewell.
        if is_receiving {
            receive.await;
        }
    };
    drop(tokio::time::timeout(FLUSH_MAX, farewell).await);
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
