//! `/v1/sync`: one WebSocket, one session.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket},
    },
    http::HeaderMap,
    response::Response,
};
use futures_util::{SinkExt, StreamExt};
use syncline_core::rules::Identity;
use tokio::sync::mpsc;

use super::{
    Backend, Shared,
    drive::{FRAMES_WAITING, Frames, drive},
    error::ApiError,
};

/// Largest frame a client may send: a part of a changeset with its envelope.
pub(crate) const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// A reader that takes nothing for this long is disconnected; it comes back with its cursor.
const SEND_MAX: Duration = Duration::from_secs(60);
const SUBPROTOCOL: &str = "syncline.v1";

/// Upgrades, after the token has been checked.
pub(crate) async fn sync<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let identity = shared.identify(&headers)?;
    let connection = shared.connection()?;
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * FRAME_BYTES_MAX);
    Ok(upgrade.on_upgrade(async move |socket| {
        let _connection = connection;
        serve(shared, identity, socket).await;
    }))
}

async fn serve<B: Backend>(shared: Arc<Shared<B>>, identity: Arc<Identity>, socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    let (to_session, incoming) = mpsc::channel(FRAMES_WAITING);
    let (outgoing, mut from_session) = mpsc::channel::<Vec<u8>>(FRAMES_WAITING);
    let receive = async {
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(frame) => {
                    if to_session.send(frame.to_vec()).await.is_err() {
                        break;
                    }
                }
                Message::Close(_) | Message::Text(_) => break,
                Message::Ping(_) | Message::Pong(_) => {}
            }
        }
        drop(to_session);
    };
    let send = async {
        while let Some(frame) = from_session.recv().await {
            let sent = tokio::time::timeout(SEND_MAX, sink.send(Message::Binary(frame.into())));
            if !matches!(sent.await, Ok(Ok(()))) {
                return;
            }
        }
        let close = CloseFrame {
            code: 1000,
            reason: "".into(),
        };
        let closed = sink.send(Message::Close(Some(close)));
        let _ = tokio::time::timeout(Duration::from_secs(1), closed).await;
    };
    let session = drive(shared, identity, Frames { incoming, outgoing });
    // The session ends when either direction does; what it still has to say is sent first.
    let session_and_send = async {
        tokio::join!(session, send);
    };
    tokio::pin!(receive, session_and_send);
    tokio::select! {
        () = &mut session_and_send => {}
        () = &mut receive => session_and_send.await,
    }
}
