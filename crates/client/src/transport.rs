//! A pipe of frames to a server: a WebSocket, or the exchange over HTTP where that fails.

use std::time::Duration;

use futures_util::{
    FutureExt, SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        Error as WsError, Message, client::IntoClientRequest, http::HeaderValue,
        protocol::WebSocketConfig,
    },
};

use crate::{
    api::{Api, retry_after},
    credentials::{Connection, Token},
    error::ClientError,
    exchange::Exchange,
    trust::Trust,
};

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// It is cleared before each read, and held for as long as the connection.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Largest frame taken from the server: a row may be large.
const FRAME_BYTES_MAX: usize = 80 * 1024 * 1024;

/// What is taken at once of what has arrived: pages one by one.
const FRAMES_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 64 * 1024;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Where the app has chosen no TLS provider, ours is taken.
pub(crate) fn install_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let ours = rustls::crypto::aws_lc_rs::default_provider();
        // Another thread may have been quicker: then there is one.
        let _another = ours.install_default();
    }
}

/// An open pipe.
pub(crate) enum Transport {
    WebSocket {
        sink: SplitSink<Socket, Message>,
        stream: SplitStream<Socket>,
    },
    Exchange(Exchange),
}

/// Why a pipe has ended.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other side closed it.
    Closed,
    /// What went wrong on the way.
    Lost(String),
    /// The server said no.
    Refused(ClientError),
}

/// Why no WebSocket came about.
pub(crate) enum WebSocketError {
    /// The server answered and said no: HTTP would hear the same.
    Refused(ClientError),
    /// No connection at all.
    Unreachable(ClientError),
    /// Something between us and the server does not let WebSockets through, or so it looks.
    Broken(ClientError),
}

impl Transport {
    /// Opens a WebSocket.
    pub(crate) async fn web_socket(
        connection: &Connection,
        token: &Token,
        api: &Api,
    ) -> Result<Self, WebSocketError> {
        let url = format!("ws{}/v1/sync", connection.url.trim_start_matches("http"));
        let bad = |reason: String| {
            let url = connection.url.clone();
            WebSocketError::Refused(ClientError::BadUrl { url, reason })
        };
        let mut request = url
            .into_client_request()
            .map_err(|error| bad(error.to_string()))?;
        let token = format!("Bearer {}", token.as_str());
        let token = HeaderValue::from_str(&token)
            .map_err(|_| bad("the token has characters that no token has".into()))?;
        request.headers_mut().insert("authorization", token);
        request.headers_mut().insert(
            "sec-websocket-protocol",
            HeaderValue::from_static("syncline.v1"),
        );
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX))
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0);
        let trust = Trust::from_env().map_err(WebSocketError::Refused)?;
        let connector = trust.map(Trust::connector).transpose();
        let connector = connector.map_err(|error| bad(error.to_string()))?;
        let opening = connect_async_tls_with_config(request, Some(config), true, connector);
        let broken = |reason: String| {
            let url = connection.url.clone();
            WebSocketError::Broken(ClientError::Unreachable {
                url,
                reason,
                retry_after: None,
            })
        };
        match tokio::time::timeout(CONNECT_MAX, opening).await {
            Ok(Ok((socket, _))) => {
                let (sink, stream) = socket.split();
                Ok(Self::WebSocket { sink, stream })
            }
            Ok(Err(WsError::Http(response))) => {
                let status = response.status();
                let body = response.body().clone().unwrap_or_default();
                let error = api.failure(status, retry_after(response.headers()), &body);
                Err(if matches!(error, ClientError::NotASyncline { .. }) {
                    WebSocketError::Broken(error)
                } else {
                    WebSocketError::Refused(error)
                })
            }
            Ok(Err(WsError::Io(error))) => {
                let url = connection.url.clone();
                let reason = error.to_string();
                Err(WebSocketError::Unreachable(ClientError::Unreachable {
                    url,
                    reason,
                    retry_after: None,
                }))
            }
            Ok(Err(error)) => Err(broken(error.to_string())),
            Err(_) => Err(broken("no answer within ten seconds".to_owned())),
        }
    }

    /// Sends one frame; an error means that the pipe is broken.
    pub(crate) async fn send(&mut self, frame: Vec<u8>) -> Result<(), String> {
        match self {
            Self::WebSocket { sink, .. } => sink
                .send(Message::Binary(frame.into()))
                .await
                .map_err(|error| error.to_string()),
            Self::Exchange(exchange) => exchange.send(frame).await,
        }
    }

    /// The next frame, or why there are no more.
    ///
    /// Safe to cancel.
    pub(crate) async fn receive(&mut self) -> Result<Vec<u8>, Broken> {
        match self {
            Self::WebSocket { stream, .. } => loop {
                match stream.next().await {
                    Some(Ok(Message::Binary(frame))) => return Ok(frame.into()),
                    Some(Ok(Message::Close(_))) | None => return Err(Broken::Closed),
                    Some(Ok(
                        Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
                    )) => {}
                    Some(Err(error)) => return Err(Broken::Lost(error.to_string())),
                }
            },
            Self::Exchange(exchange) => exchange.receive().await,
        }
    }

    /// `frame` and those after it that are here already: what left together, as an answer and its
    /// checkpoint, is taken together. Also why there are no more, if that is known by then.
    pub(crate) fn with_others(&mut self, frame: Vec<u8>) -> (Vec<Vec<u8>>, Option<Broken>) {
        let mut frames = vec![frame];
        while frames.len() < FRAMES_AT_ONCE && bytes_of(&frames) < BYTES_AT_ONCE {
            match self.receive().now_or_never() {
                Some(Ok(frame)) => frames.push(frame),
                Some(Err(broken)) => return (frames, Some(broken)),
                None => break,
            }
        }
        (frames, None)
    }

    /// Whether an open session has to be told of another token: requests have one each.
    pub(crate) fn has_one_token(&self) -> bool {
        matches!(self, Self::WebSocket { .. })
    }

    /// Says goodbye, as far as that is possible.
    pub(crate) async fn close(self) {
        if let Self::WebSocket { mut sink, .. } = self {
            let closing = sink.send(Message::Close(None));
            let _said = tokio::time::timeout(Duration::from_secs(1), closing).await;
        }
    }
}

pub(crate) fn bytes_of(frames: &[Vec<u8>]) -> usize {
    frames.iter().map(Vec::len).sum()
}
