//! Routes, limits and headers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use syncline_store::Reader;
use tokio::{net::TcpListener, sync::watch};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
    sensitive_headers::SetSensitiveRequestHeadersLayer,
    set_header::SetResponseHeaderLayer,
    timeout::TimeoutLayer,
    trace::TraceLayer,
};

use super::{Backend, Limits, Shared, error::ApiError, exchange, hashes, listen, schema, ws};

/// The code of an error about an address, which the wire does not know.
const NOT_FOUND: &str = "not_found";

/// Largest body of a request: an exchange of frames in base64.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often exchanges that nobody asks for are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether the last session has gone.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Serves until the server stops, its requests have been answered and its sessions have gone.
pub(crate) async fn serve<B: Backend>(
    listener: TcpListener,
    shared: Arc<Shared<B>>,
    limits: Limits,
    stopped: watch::Receiver<bool>,
) {
    let sweeper = tokio::spawn(sweep(Arc::downgrade(&shared)));
    let router = router(Arc::clone(&shared), &limits);
    let has_admin = shared.config.read().server.admin_listen.is_some();
    let router = if has_admin {
        router
    } else {
        router.merge(operators(&shared))
    };
    let router = dressed(router, &shared);
    listen::serve(listener, router, limits, stopped).await;
    sweeper.abort();
    // Upgraded connections outlive the listener: their sessions have been told to go.
    while shared.connections() > 0 {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What operators ask, at an address of its own.
pub(crate) fn admin_router<B: Backend>(shared: Arc<Shared<B>>) -> Router {
    let router = probes(&shared).merge(operators(&shared));
    dressed(router, &shared)
}

async fn sweep<B: Backend>(shared: std::sync::Weak<Shared<B>>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.exchanges.sweep();
    }
}

fn router<B: Backend>(shared: Arc<Shared<B>>, limits: &Limits) -> Router {
    let timed = Router::new()
        .route("/", get(hello))
        .route("/v1/exchange", post(exchange::exchange::<B>))
        .route("/v1/schema", get(schema::get::<B>).put(schema::offer::<B>))
        .route("/v1/hashes", post(hashes::hashes::<B>))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            limits.request_max,
        ));
    Router::new()
        .route("/v1/sync", get(ws::sync::<B>))
        .merge(timed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::clone(&shared))
        .merge(probes(&shared))
}

/// For load balancers: where requests go.
fn probes<B: Backend>(shared: &Arc<Shared<B>>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready::<B>))
        .with_state(Arc::clone(shared))
}

fn operators<B: Backend>(shared: &Arc<Shared<B>>) -> Router {
    Router::new()
        .route("/metrics", get(metrics::<B>))
        .with_state(Arc::clone(shared))
}

/// What every answer has.
fn dressed<B: Backend>(router: Router, shared: &Shared<B>) -> Router {
    let header =
        |name, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    router
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(cors(shared))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::REFERRER_POLICY, "no-referrer"))
        .layer(header(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ))
        .layer(CatchPanicLayer::new())
        .layer(TraceLayer::new_for_http())
        .layer(SetSensitiveRequestHeadersLayer::new([
            header::AUTHORIZATION,
            header::COOKIE,
        ]))
}

/// Exactly the configured origins; any localhost one with `--dev`.
fn cors<B: Backend>(shared: &Shared<B>) -> CorsLayer {
    let dev = shared.dev;
    let allowed: Vec<String> = shared.config.read().server.origins.clone();
    CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .allow_origin(AllowOrigin::predicate(move |origin, _| {
            let Ok(origin) = origin.to_str() else {
                return false;
            };
            allowed.iter().any(|allowed| allowed == origin) || dev && is_localhost(origin)
        }))
}

fn is_localhost(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, port)| {
            if port.bytes().all(|b| b.is_ascii_digit()) {
                host
            } else {
                authority
            }
        });
    matches!(scheme, "http" | "https") && matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

async fn hello() -> &'static str {
    concat!(
        "Syncline ",
        env!("CARGO_PKG_VERSION"),
        "\n\n",
        "/v1/sync      WebSocket for replicas (syncline attach, sync, hydrate)\n",
        "/v1/exchange  the same over plain HTTP\n",
        "/v1/pull      rows as JSON          /v1/push  changes as JSON\n",
        "/v1/schema    tables                /v1/hashes  row hashes, for verify\n",
        "/healthz /readyz /metrics\n",
    )
}

async fn not_found() -> ApiError {
    let sentence = "there is nothing at this address; / lists what there is";
    ApiError::new(StatusCode::NOT_FOUND, NOT_FOUND, sentence)
}

async fn not_allowed() -> ApiError {
    let sentence = "this address takes another method; / lists what there is";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, NOT_FOUND, sentence)
}

/// Ready when the storage answers and the server is not stopping.
async fn ready<B: Backend>(State(shared): State<Arc<Shared<B>>>) -> Response {
    if shared.is_stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    if !shared.is_committing() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the storage has died\n").into_response();
    }
    match head(&shared).await {
        Ok(_) => "ready\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn metrics<B: Backend>(State(shared): State<Arc<Shared<B>>>) -> Response {
    let head = shared.context().recent.head().0;
    let text = shared.metrics.render(shared.connections(), head.0);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn head<B: Backend>(
    shared: &Arc<Shared<B>>,
) -> Result<syncline_store::Head, syncline_store::StorageError> {
    let runtime = tokio::runtime::Handle::current();
    shared
        .readers
        .run(move |reader| runtime.block_on(reader.head()))
        .await
}
