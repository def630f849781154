//! Accepting connections: how many, how slow, and how they end.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{Router, response::Response};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tower::ServiceExt as _;

use super::{
    peer::Peer,
    taken::Taken,
    tls::{self, Tls},
};

/// After a failure to accept (no more file descriptors, usually) the next try waits.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What strangers may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sockets at once, sessions and everything else; more wait in the system's queue.
    pub sockets_max: usize,
    /// A request's head has to arrive within this; a connection without requests ends after it.
    pub head_max: Duration,
    /// A request has to be read and answered within this; longer than any exchange waits.
    pub request_max: Duration,
    /// A connection that takes nothing of what it is sent for this long ends.
    pub unread_max: Duration,
    /// Bytes of changesets that all sessions and requests together may keep in memory. Beyond it
    /// those that keep more than their share are told to come back.
    pub held_bytes_max: usize,
    /// After the server was told to stop, everything ends within this.
    pub goodbye_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sockets_max: 25_000,
            head_max: Duration::from_secs(15),
            request_max: Duration::from_secs(60),
            unread_max: Duration::from_secs(60),
            held_bytes_max: 512 * 1024 * 1024,
            goodbye_max: Duration::from_secs(5),
        }
    }
}

/// Serves `router` until `stopped`, then until the requests under way are answered, at most
/// [`Limits::goodbye_max`] longer. WebSockets are not waited for.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    stopped: watch::Receiver<bool>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head_max);
    let mut connections = JoinSet::new();
    let mut stop = pin!(wait_for_stop(stopped.clone()));
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < limits.sockets_max => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = &mut stop => break,
        };
        let (socket, peer) = match accepted {
            Ok((socket, peer)) => (socket, Peer(peer.ip())),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // Without it a small answer waits 40 ms for the next packet.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let named = router
            .clone()
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer);
                request
            });
        let service = TowerToHyperService::new(named);
        let stop = wait_for_stop(stopped.clone());
        let (http, tls, limits) = (http.clone(), tls.clone(), limits.clone());
        connections.spawn(async move {
            let ended = match tls {
                None => {
                    let socket = Taken::new(socket, limits.unread_max);
                    connection(&http, socket, service, stop).await
                }
                Some(tls) => encrypted(&http, socket, &tls, &limits, service, stop).await,
            };
            if let Err(reason) = ended {
                tracing::debug!(%reason, "a connection ended early");
            }
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.goodbye_max, all).await.is_err() {
        tracing::warn!("some requests did not end in time and were cut");
    }
}

/// What answers requests: the router, whichever layers are around it.
trait Answers:
    hyper::service::Service<
        Request<Incoming>,
        Response = Response,
        Error = Infallible,
        Future: Send,
    > + Send
    + 'static
{
}
impl<S> Answers for S where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response,
            Error = Infallible,
            Future: Send,
        > + Send
        + 'static
{
}

/// Requests and answers of one connection.
async fn connection(
    http: &http1::Builder,
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: impl Answers,
    stop: impl Future<Output = ()>,
) -> Result<(), String> {
    let connection = http
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let (mut connection, stop) = (pin!(connection), pin!(stop));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(|error| error.to_string())
}

/// The same where everything is encrypted, from within the time that a head has to arrive in.
async fn encrypted(
    http: &http1::Builder,
    socket: TcpStream,
    tls: &Tls,
    limits: &Limits,
    service: impl Answers,
    stop: impl Future<Output = ()>,
) -> Result<(), String> {
    let greeting = async {
        let told = |error: std::io::Error| error.to_string();
        if !tls::is_tls(&socket).await.map_err(told)? {
            return tls::refuse(socket).await.map_err(told).map(|()| None);
        }
        let socket = Taken::new(socket, limits.unread_max);
        tls.accept(socket).await.map_err(told)
    };
    let greeted = tokio::time::timeout(limits.head_max, greeting).await;
    match greeted.map_err(|_| "no handshake within its time".to_owned())?? {
        Some(socket) => connection(http, socket, service, stop).await,
        None => Ok(()),
    }
}

async fn wait_for_stop(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone has stopped, too.
    drop(stopped.wait_for(|stop| *stop).await);
}
