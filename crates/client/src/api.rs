//! The server's plain HTTP requests.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Method, Response, StatusCode, header::HeaderMap};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use syncline_core::{
    DeviceId, Lease, RowKey, Version,
    wire::{Refusal, RowBody, SchemaInfo, Subscription, code},
};

use crate::{
    accounts::User,
    credentials::{Connection, Token},
    devices::DevicesAnswer,
    error::ClientError,
    held::TopicsAnswer,
    system::now,
    trust::Trust,
};

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longer than the longest wait of an exchange.
const REQUEST_MAX: Duration = Duration::from_secs(40);

/// Longest answer that is read: an exchange with one largest frame, in base64.
const ANSWER_BYTES_MAX: usize = 112 * 1024 * 1024;
const SCHEMA_BYTES_MAX: usize = 16 * 1024 * 1024;
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// The code of a server that does not know what it is asked.
const NOT_FOUND: &str = "not_found";

/// A request that came too soon is made so often, with pauses of at most this in between.
const ASKED_MAX: u32 = 5;
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// By how much pauses of different devices differ.
const APART_MILLIS: u64 = 250;

/// One server's HTTP side, as one user.
#[derive(Debug, Clone)]
pub struct Api {
    connection: Connection,
    http: reqwest::Client,
}

/// A row's key, version and content hash on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteHash {
    pub key: RowKey,
    pub version: Version,
    pub hash: u64,
}

/// How a server answered a plain question, for finding out what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Whether it takes sessions now.
    pub is_ready: bool,
    /// What it said of itself, a line.
    pub says: String,
    /// How long it took to answer.
    pub took: Duration,
    /// How far its clock is ahead of this machine's, in seconds: negative when behind.
    pub clock_ahead_s: Option<i64>,
}

#[derive(Deserialize)]
struct HashesAnswer {
    rows: Vec<(String, u64, String)>,
    next: Option<String>,
}

/// A refusal as HTTP tells it.
#[derive(Deserialize)]
pub(crate) struct ErrorAnswer {
    pub(crate) code: String,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) retry: bool,
    #[serde(default)]
    pub(crate) retry_after_ms: Option<u64>,
}

/// An answer, whatever it says.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// As the headers say it.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// What a Syncline server said with an error.
    pub(crate) fn refusal(&self) -> Option<ErrorAnswer> {
        serde_json::from_slice(&self.body).ok()
    }
}

impl Api {
    /// Talks to the server of `connection`.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`] if no HTTP client can be made for it.
    pub fn new(connection: &Connection) -> Result<Self, ClientError> {
        let bad = |error: reqwest::Error| ClientError::BadUrl {
            url: connection.url.clone(),
            reason: error.to_string(),
        };
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            .timeout(REQUEST_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true);
        if let Some(trust) = Trust::from_env()? {
            http = http.tls_certs_only(trust.certificates().map_err(bad)?);
        }
        let http = http.build().map_err(bad)?;
        Ok(Self {
            connection: connection.clone(),
            http,
        })
    }

    /// The tables that sync.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn schema(&self) -> Result<SchemaInfo, ClientError> {
        let response = self.send(Method::GET, "/v1/schema", None).await?;
        self.cbor(response).await
    }

    /// Offers tables that the server may not have; a server with `--dev` adds them. With `dry`
    /// it only answers what it would have then.
    ///
    /// # Errors
    /// The server cannot be reached, or has no use for the tables.
    pub async fn offer(&self, schema: &SchemaInfo, dry: bool) -> Result<SchemaInfo, ClientError> {
        let body = minicbor::to_vec(schema).expect("a schema encodes into memory");
        let path = if dry {
            "/v1/schema?dry_run=true"
        } else {
            "/v1/schema"
        };
        let response = self.send(Method::PUT, path, Some(body)).await?;
        self.cbor(response).await
    }

    /// Hashes of the rows of `table` this user may see, in key order after `after`, and whether
    /// more follow.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn hashes(
        &self,
        table: &str,
        after: Option<&RowKey>,
        asked: Option<&[Subscription]>,
    ) -> Result<(Vec<RemoteHash>, bool), ClientError> {
        let after = after.map(|key| BASE64_STANDARD.encode(key.as_bytes()));
        let mut body = json!({ "table": table, "after": after });
        if let Some(asked) = asked {
            let key = |key: &Vec<u8>| BASE64_STANDARD.encode(key);
            let one = |one: &Subscription| {
                json!({
                    "table": one.table.0,
                    "column": one.column.map(|column| column.0),
                    "key": one.key.as_ref().map(key),
                })
            };
            body["subscriptions"] = asked.iter().map(one).collect();
        }
        let answer: HashesAnswer = self.post("/v1/hashes", &body).await?;
        let rows = answer.rows.into_iter().map(|(key, version, hash)| {
            let key = BASE64_STANDARD.decode(key).ok();
            let key = key.and_then(|bytes| RowKey::from_bytes(&bytes).ok());
            let hash = u64::from_str_radix(&hash, 16).ok();
            let (key, hash) = key
                .zip(hash)
                .ok_or_else(|| self.strange("a malformed row hash"))?;
            Ok(RemoteHash {
                key,
                version: Version(version),
                hash,
            })
        });
        Ok((
            rows.collect::<Result<_, ClientError>>()?,
            answer.next.is_some(),
        ))
    }

    /// How rows of tables on demand are asked for; `None` from a server that does not say.
    pub(crate) async fn topics(&self) -> Result<Option<TopicsAnswer>, ClientError> {
        match self.get("/v1/topics", &[]).await {
            Ok(answer) => Ok(Some(answer)),
            Err(ClientError::Refused { code, .. }) if code == NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Who the token is.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn user(&self) -> Result<User, ClientError> {
        self.get("/v1/auth/user", &[]).await
    }

    /// The user's devices.
    pub(crate) async fn devices(&self) -> Result<DevicesAnswer, ClientError> {
        self.get("/v1/devices", &[]).await
    }

    /// Gives one of the user's devices a name.
    pub(crate) async fn rename_device(
        &self,
        device: DeviceId,
        name: &str,
    ) -> Result<(), ClientError> {
        let body = json!({ "name": name }).to_string();
        let path = format!("/v1/devices/{device}");
        let renamed = self.send(Method::PATCH, &path, Some(body.into_bytes()));
        renamed.await.map(drop)
    }

    /// Takes one of the user's devices off the list; with `wipe`, what it synced is removed there.
    pub(crate) async fn deregister_device(
        &self,
        device: DeviceId,
        wipe: bool,
    ) -> Result<(), ClientError> {
        let query = if wipe { "?wipe=true" } else { "" };
        let path = format!("/v1/devices/{device}{query}");
        self.send(Method::DELETE, &path, None).await.map(drop)
    }

    /// Whether this device is to be wiped. Asked with its leases, because its tokens may have
    /// died with its registration. A server that does not know the question has no such wish.
    pub(crate) async fn is_to_be_wiped(
        &self,
        (device, lease, next_lease): (DeviceId, Lease, Lease),
    ) -> Result<bool, ClientError> {
        #[derive(Deserialize)]
        struct Wish {
            wipe: bool,
        }
        let (lease, next_lease) = (hex(lease), hex(next_lease));
        let body = json!({ "lease": lease, "next_lease": next_lease });
        let path = format!("/v1/devices/{device}/wish");
        let answer = self.answer(Method::POST, &path, None, Some(body.to_string()));
        let answer = answer.await?;
        let wish: Option<Wish> = serde_json::from_slice(&answer.body).ok();
        Ok(answer.status.is_success() && wish.is_some_and(|wish| wish.wipe))
    }

    /// Asks the server whether it is ready. Needs no token that is good.
    ///
    /// # Errors
    /// The server cannot be reached, or is no Syncline server.
    pub async fn probe(&self) -> Result<Probe, ClientError> {
        let started = std::time::Instant::now();
        let response = self
            .http
            .get(format!("{}/readyz", self.connection.url))
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let took = started.elapsed();
        let status = response.status();
        if !status.is_success() && status != StatusCode::SERVICE_UNAVAILABLE {
            return Err(self.strange(&format!("it says {status}")));
        }
        let date = response.headers().get(reqwest::header::DATE);
        let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let clock_ahead_s = date.and_then(|there| {
            let there = there.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
            let here = now().as_millis() / 1_000;
            Some(i64::try_from(there).ok()? - i64::try_from(here).ok()?)
        });
        let body = self.body(response, ERROR_BYTES_MAX).await?;
        let says = String::from_utf8_lossy(&body);
        Ok(Probe {
            is_ready: status.is_success(),
            says: says.lines().next().unwrap_or_default().to_owned(),
            took,
            clock_ahead_s,
        })
    }

    /// Whether what answers plain requests is a Syncline server, be it with a refusal.
    pub(crate) async fn is_alive(&self) -> bool {
        matches!(
            self.schema().await,
            Ok(_) | Err(ClientError::Refused { .. })
        )
    }

    /// Asks with a query, answers JSON.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        let response = self.send(Method::GET, &asking(path, query), None).await?;
        let bytes = self.body(response, ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.strange(&error.to_string()))
    }

    /// Asks with a query, answers one encoded row body.
    pub(crate) async fn get_row(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<RowBody, ClientError> {
        let response = self.send(Method::GET, &asking(path, query), None).await?;
        let bytes = self.body(response, ANSWER_BYTES_MAX).await?;
        let body = RowBody::decode(&bytes).map_err(|error| self.strange(&error.to_string()))?;
        Ok(body.0)
    }

    /// Posts JSON, answers JSON.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let response = self
            .send(Method::POST, path, Some(body.to_string().into_bytes()))
            .await?;
        let bytes = self.body(response, ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.strange(&error.to_string()))
    }

    /// The body, which is not believed to be short.
    async fn body(&self, mut response: Response, max: usize) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(&error))?
        {
            if bytes.len() + chunk.len() > max {
                return Err(self.strange(&format!("an answer of more than {max} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn cbor(&self, response: Response) -> Result<SchemaInfo, ClientError> {
        let bytes = self.body(response, SCHEMA_BYTES_MAX).await?;
        minicbor::decode(&bytes).map_err(|error| self.strange(&error.to_string()))
    }

    /// Asks as whom the connection is. A token that is not taken is followed by another, if there
    /// is one. Where the server is asked more often than it likes, the same is asked again after
    /// the time that it says: it has read nothing of it (spec LI3).
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response, ClientError> {
        let mut asked = 0;
        loop {
            asked += 1;
            let response = self.sent(&method, path, body.clone()).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let (status, retry_after) = (response.status(), retry_after(response.headers()));
            let said = self.body(response, ERROR_BYTES_MAX).await;
            let failure = self.failure(status, retry_after, &said.unwrap_or_default());
            match failure.retry_after() {
                Some(wait)
                    if failure.code() == code::TOO_FAST
                        && wait <= PAUSE_MAX
                        && asked < ASKED_MAX =>
                {
                    tokio::time::sleep(wait + apart()).await;
                }
                Some(_) | None => return Err(failure),
            }
        }
    }

    async fn sent(
        &self,
        method: &Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response, ClientError> {
        let token = self.connection.token().await?;
        let response = self
            .request(method, path, Some(&token), body.clone())
            .await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(token) = self.connection.instead_of(&token).await?
        {
            return self.request(method, path, Some(&token), body).await;
        }
        Ok(response)
    }

    /// Asks with this token, or none; what is answered, be it a refusal.
    pub(crate) async fn answer(
        &self,
        method: Method,
        path: &str,
        token: Option<&Token>,
        body: Option<String>,
    ) -> Result<Answer, ClientError> {
        let body = body.map(String::into_bytes);
        let response = self.request(&method, path, token, body).await?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let body = self.body(response, ERROR_BYTES_MAX).await?;
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }

    async fn request(
        &self,
        method: &Method,
        path: &str,
        token: Option<&Token>,
        body: Option<Vec<u8>>,
    ) -> Result<Response, ClientError> {
        let url = format!("{}{path}", self.connection.url);
        let mut request = self.http.request(method.clone(), url);
        if let Some(token) = token {
            request = request.bearer_auth(token.as_str());
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))
    }

    /// The error that a status and body stand for.
    pub(crate) fn failure(
        &self,
        status: StatusCode,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> ClientError {
        match serde_json::from_slice::<ErrorAnswer>(body) {
            Ok(answer) => ClientError::refused(&Refusal {
                code: answer.code,
                message: answer.message,
                retry: answer.retry,
                retry_after_ms: answer.retry_after_ms,
                change: None,
                fatal: true,
            }),
            // A proxy whose server is away or busy: that passes.
            Err(_)
                if matches!(
                    status,
                    StatusCode::BAD_GATEWAY
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::GATEWAY_TIMEOUT
                        | StatusCode::TOO_MANY_REQUESTS
                ) =>
            {
                ClientError::Unreachable {
                    url: self.connection.url.clone(),
                    reason: format!("it says {status}"),
                    retry_after,
                }
            }
            Err(_) => self.strange(&format!("it says {status}")),
        }
    }

    pub(crate) fn strange(&self, reason: &str) -> ClientError {
        ClientError::NotASyncline {
            url: self.connection.url.clone(),
            reason: reason.to_owned(),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        // The innermost cause says what happened ("Connection refused").
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        ClientError::Unreachable {
            url: self.connection.url.clone(),
            reason: cause.to_string(),
            retry_after: None,
        }
    }
}

/// How long not to ask again: `Retry-After`, which is seconds or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?;
    let text = text.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| {
        let then = httpdate::parse_http_date(text).ok()?;
        then.duration_since(std::time::SystemTime::now()).ok()
    })
}

/// A little longer, so that not all who were told the same come back at the same moment: the end
/// of the clock is as good as drawn.
fn apart() -> Duration {
    Duration::from_millis(now().0 % APART_MILLIS)
}

fn hex(lease: Lease) -> String {
    lease.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The path with its query, percent-encoded.
fn asking(path: &str, query: &[(&str, &str)]) -> String {
    let mut text = path.to_owned();
    for (i, (name, value)) in query.iter().enumerate() {
        text.push(if i == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    text
}
