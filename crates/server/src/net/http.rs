//! Routes, limits and headers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use syncline_core::wire::code;
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

use super::{
    Backend, Limits, Shared, accounts, audit, clock, devices, error::ApiError, exchange, explain,
    hashes, json, listen, peer::From, presence, schema, tickets, tls::Tls, topics, ws,
};

/// The code of an error about an address, which the wire does not know.
pub(crate) const NOT_FOUND: &str = "not_found";

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
    tls: Option<Arc<Tls>>,
    limits: Limits,
    stopped: watch::Receiver<bool>,
) {
    let sweeper = tokio::spawn(sweep(Arc::downgrade(&shared)));
    let watcher = tokio::spawn(accounts::watch(Arc::downgrade(&shared)));
    let noter = tokio::spawn(presence::note(Arc::downgrade(&shared)));
    let router = router(Arc::clone(&shared), &limits);
    let has_admin = shared.config.read().server.admin_listen.is_some();
    let router = if has_admin {
        router
    } else {
        router.merge(operators(&shared))
    };
    let mut router = dressed(router, &shared);
    let hsts = u64::from(shared.config.read().server.hsts_days) * 86_400;
    if tls.is_some() && hsts > 0 {
        // A browser that was here once asks no more in clear, at other ports of this host either.
        let value = HeaderValue::try_from(format!("max-age={hsts}"));
        let value = value.expect("digits are a header's value");
        let name = header::STRICT_TRANSPORT_SECURITY;
        router = router.layer(SetResponseHeaderLayer::if_not_present(name, value));
    }
    listen::serve(listener, router, tls, limits, stopped).await;
    sweeper.abort();
    watcher.abort();
    noter.abort();
    // Upgraded connections outlive the listener: their sessions have been told to go.
    while shared.connections() > 0 {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    presence::note_now(&shared, true).await;
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
        shared.tickets.forget(clock::now());
        shared.user_requests.forget(clock::now());
        shared.address_requests.forget(clock::now());
    }
}

fn router<B: Backend>(shared: Arc<Shared<B>>, limits: &Limits) -> Router {
    let timed = Router::new()
        .route("/", get(hello))
        .route("/v1/exchange", post(exchange::exchange::<B>))
        .route("/v1/pull", get(json::pull::<B>))
        .route("/v1/history", get(json::history::history::<B>))
        .route("/v1/history/row", get(json::history::row::<B>))
        .route("/v1/push", post(json::push::<B>))
        .route("/v1/schema", get(schema::get::<B>).put(schema::offer::<B>))
        .route("/v1/tickets", post(tickets::issue::<B>))
        .route("/v1/topics", get(topics::topics::<B>))
        .route("/v1/hashes", post(hashes::hashes::<B>))
        .route("/v1/devices", get(devices::list::<B>))
        .route(
            "/v1/devices/{id}",
            patch(devices::rename::<B>).delete(devices::deregister::<B>),
        )
        .route("/v1/devices/{id}/wish", post(devices::wish::<B>))
        .merge(accounts::http::router::<B>())
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            limits.request_max,
        ));
    Router::new()
        .route("/v1/sync", get(ws::sync::<B>))
        .merge(timed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&shared),
            count::<B>,
        ))
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
        .route("/v1/audit", get(audit::list::<B>))
        .route("/v1/admin/explain", get(explain::explain::<B>))
        .with_state(Arc::clone(shared))
}

/// What every answer has.
fn dressed<B: Backend>(router: Router, shared: &Shared<B>) -> Router {
    let header =
        |name, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    let router = router
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed);
    let router = if shared.dev {
        router.layer(middleware::from_fn(check_host))
    } else {
        router
    };
    router
        .layer(cors(shared))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::REFERRER_POLICY, "no-referrer"))
        .layer(header(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ))
        .layer(CatchPanicLayer::new())
        .layer(
            TraceLayer::new_for_http().make_span_with(|request: &Request| {
                // What stands behind the path can be a ticket, or somebody's key of a row.
                let (method, path) = (request.method(), request.uri().path());
                tracing::debug_span!("request", %method, path)
            }),
        )
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
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .allow_origin(AllowOrigin::predicate(move |origin, _| {
            is_allowed(origin, &allowed, dev)
        }))
}

fn is_allowed(origin: &HeaderValue, allowed: &[String], dev: bool) -> bool {
    origin.to_str().is_ok_and(|origin| {
        allowed.iter().any(|allowed| allowed == origin) || dev && is_localhost(origin)
    })
}

/// A page in a browser opens a session only from an origin that may also make requests, which the
/// browser does not check for WebSockets. Programs that are no browsers name none.
pub(crate) fn check_origin<B: Backend>(
    shared: &Shared<B>,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    if is_allowed(origin, &shared.config.read().server.origins, shared.dev) {
        return Ok(());
    }
    let sentence = "pages of this origin may not connect: name it in `server.origins`";
    let status = StatusCode::FORBIDDEN;
    Err(ApiError::new(status, code::FORBIDDEN, sentence))
}

/// Requests from one address are counted before anything of them is read.
async fn count<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    From(address): From,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    shared.requests_by_address(address, clock::now())?;
    Ok(next.run(request).await)
}

/// With `--dev`: another name that leads to this machine is a trick of somebody's DNS.
async fn check_host(request: Request, next: Next) -> Response {
    let header = request.headers().get(header::HOST);
    let host = header.map(|host| host.to_str().unwrap_or_default());
    let host = host.or_else(|| request.uri().authority().map(Authority::as_str));
    if host.is_some_and(is_localhost_authority) {
        return next.run(request).await;
    }
    let sentence = "a server with --dev answers to localhost, 127.0.0.1 and [::1] only";
    let status = StatusCode::FORBIDDEN;
    ApiError::new(status, code::FORBIDDEN, sentence).into_response()
}

fn is_localhost(origin: &str) -> bool {
    origin.split_once("://").is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https") && is_localhost_authority(authority)
    })
}

fn is_localhost_authority(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        Some(_) | None => authority,
    };
    host.eq_ignore_ascii_case("localhost") || matches!(host, "127.0.0.1" | "[::1]")
}

async fn hello() -> &'static str {
    concat!(
        "Syncline ",
        env!("CARGO_PKG_VERSION"),
        "\n\n",
        "/v1/sync      WebSocket for replicas (syncline attach, sync, hydrate)\n",
        "/v1/exchange  the same over plain HTTP\n",
        "/v1/pull      rows as JSON          /v1/push  changes as JSON\n",
        "/v1/history   changes of one row, newest first\n",
        "/v1/schema    tables                /v1/hashes  row hashes, for verify\n",
        "/v1/topics    what to subscribe to, for attach\n",
        "/v1/devices   your devices          /v1/auth/…  accounts\n",
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
        Err(error) => {
            tracing::warn!(%error, "the storage does not answer");
            let sentence = "the storage does not answer; the server's log says why\n";
            (StatusCode::SERVICE_UNAVAILABLE, sentence).into_response()
        }
    }
}

async fn metrics<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if shared.metrics_for.needs_token(&headers) {
        shared.check_admin(&headers).await?;
    }
    let head = shared.context().recent.head().0;
    let text = shared.metrics.render(shared.connections(), head.0);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_origins_and_with_dev_this_machine_may_connect() {
        let named = ["https://app.example.com".to_owned()];
        let is_allowed = |origin: &str, dev| {
            let origin = HeaderValue::from_str(origin).expect("a header's value");
            is_allowed(&origin, &named, dev)
        };
        assert!(is_allowed("https://app.example.com", false));
        let strange = [
            "null",
            "",
            "http://app.example.com",
            "https://app.example.com:444",
            "https://app.example.com.evil.test",
            "https://evil-app.example.com",
            "https://app.example.com@evil.test",
            "HTTPS://APP.EXAMPLE.COM",
            "https://xn--pp-pma.example.com",
            "http://localhost.evil.test",
            "http://localhost:80@evil.test",
            "http://127.0.0.1.evil.test:80",
            "http://evil.test/localhost",
            "http://0.0.0.0:7117",
            "http://[::2]",
            "file://localhost",
            "chrome-extension://localhost",
        ];
        for origin in strange {
            assert!(!is_allowed(origin, false), "{origin}");
            assert!(!is_allowed(origin, true), "{origin} with --dev");
        }
        for origin in [
            "http://localhost:5173",
            "http://127.0.0.1:3000",
            "https://localhost",
            "http://[::1]:80",
        ] {
            assert!(is_allowed(origin, true), "{origin}");
            assert!(!is_allowed(origin, false), "{origin} without --dev");
        }
    }
}
