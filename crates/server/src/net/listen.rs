//! Accepting connections: how many, how slow, and how they end.

use std::{pin::pin, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tower::ServiceExt as _;

use super::peer::Peer;

use super::taken::Taken;

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
            goodbye_max: Duration::from_secs(5),
        }
    }
}

/// Serves `router` until `stopped`, then until the requests under way are answered, at most
/// [`Limits::goodbye_max`] longer. WebSockets are not waited for.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
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
        let connection = http
            .serve_connection(TokioIo::new(Taken::new(socket, limits.unread_max)), service)
            .with_upgrades();
        let stop = wait_for_stop(stopped.clone());
        connections.spawn(async move {
            let (mut connection, stop) = (pin!(connection), pin!(stop));
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.goodbye_max, all).await.is_err() {
        tracing::warn!("some requests did not end in time and were cut");
    }
}

async fn wait_for_stop(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone has stopped, too.
    drop(stopped.wait_for(|stop| *stop).await);
}
