//! A real server on a real socket with a real SQLite file.

mod accounts;
mod acme;
mod admin;
mod crawl;
mod devices;
mod exchange;
mod explain;
mod history;
mod http;
mod json;
mod limits;
mod poison;
mod provider;
mod reads;
mod stopping;
mod tls;
mod websocket;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use syncline_core::{
    Change, Changeset, ChangesetId, DeviceId, Hlc, Lease, Schema, Timestamp, Value,
    config::{Config, LimitsConfig, ServerConfig},
    wire::{ClientMessage, Hello, PROTOCOL, ServerMessage, decode_server, encode_client},
};
use syncline_server::net::{Auth, Backend, Limits, Options, Server};
use syncline_store::{
    StorageError,
    accounts::AccountStore,
    testkit::{Draw, demo_schema},
};
use syncline_store_sqlite::{SqliteReader, SqliteStorage};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::CloseFrame},
};

use crate::client::{PLENTY, push_of};

/// Long enough for a busy machine; what does not come by then does not come.
pub const SOON: Duration = Duration::from_secs(20);
const SECRET: [u8; 32] = [0x42; 32];

struct SqliteBackend {
    path: PathBuf,
}

impl Backend for SqliteBackend {
    type Storage = SqliteStorage;
    type Reader = SqliteReader;

    fn open(&self) -> Result<SqliteStorage, StorageError> {
        SqliteStorage::open(&self.path, &[0x17; 32])
            .map_err(|error| StorageError::Failed(error.into()))
    }

    fn reader(storage: &SqliteStorage) -> Result<SqliteReader, StorageError> {
        storage.reader()
    }

    fn accounts(storage: &SqliteStorage) -> Result<Option<Arc<dyn AccountStore>>, StorageError> {
        Ok(Some(Arc::new(storage.accounts()?)))
    }
}

/// A server, and the folder that its data is in.
pub struct Net {
    pub server: Server,
    pub auth: Auth,
    pub folder: tempfile::TempDir,
    pub http: reqwest::Client,
}

/// What a test wants different.
pub struct Wish {
    pub dev: bool,
    pub listen: &'static str,
    pub connections_max: usize,
    pub limits: Limits,
    pub schema: Schema,
    pub admin: Option<&'static str>,
    pub history_days: Option<u32>,
    pub trusted_proxies: &'static [&'static str],
    pub folder: Option<tempfile::TempDir>,
    /// What else `[server]` says.
    pub server: Box<dyn FnOnce(&mut ServerConfig)>,
    /// What `[limits]` says.
    pub config_limits: LimitsConfig,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            dev: false,
            listen: "127.0.0.1:0",
            connections_max: 100,
            limits: Limits::default(),
            schema: demo_schema(),
            admin: None,
            history_days: None,
            trusted_proxies: &[],
            folder: None,
            server: Box::new(|_| {}),
            config_limits: LimitsConfig::default(),
        }
    }
}

impl Net {
    pub async fn start() -> Self {
        Self::start_with(Wish::default()).await
    }

    pub async fn start_with(wish: Wish) -> Self {
        Self::try_start(wish).await.expect("the server starts")
    }

    pub async fn try_start(wish: Wish) -> Result<Self, syncline_server::net::ServeError> {
        Self::try_start_on(wish, |path| SqliteBackend { path }).await
    }

    /// Starts on another storage.
    pub async fn try_start_on<B: Backend>(
        wish: Wish,
        backend: impl FnOnce(PathBuf) -> B,
    ) -> Result<Self, syncline_server::net::ServeError> {
        let folder = match wish.folder {
            Some(folder) => folder,
            None => tempfile::tempdir().expect("a folder"),
        };
        let mut config = Config {
            schema: wish.schema,
            ..Config::default()
        };
        config.server.admin_listen = wish.admin.map(str::to_owned);
        let proxies = wish.trusted_proxies.iter();
        config.server.trusted_proxies = proxies.map(ToString::to_string).collect();
        if let Some(days) = wish.history_days {
            config.server.history_days = days;
        }
        (wish.server)(&mut config.server);
        config.limits = wish.config_limits;
        let options = Options {
            listen: wish.listen.parse().expect("an address"),
            config,
            allow: Vec::new(),
            dev: wish.dev,
            remember: None,
            auth: Auth::new(&SECRET).expect("the secret is long enough"),
            connections_max: wish.connections_max,
        };
        let backend = Arc::new(backend(folder.path().join("server.db")));
        Ok(Self {
            server: Server::start_with(backend, options, wish.limits).await?,
            auth: Auth::new(&SECRET).expect("the secret is long enough"),
            folder,
            http: reqwest::Client::new(),
        })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    pub fn token(&self, user: &str) -> String {
        self.token_for(user, 3_600)
    }

    pub fn token_for(&self, user: &str, seconds: u64) -> String {
        let end = Timestamp(now().0 + seconds * 1_000_000);
        let issued = self.auth.issue(user, BTreeMap::new(), now(), end);
        issued.expect("a token")
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(self.url(path)).timeout(SOON)
    }

    pub fn post(&self, path: &str, user: &str) -> reqwest::RequestBuilder {
        let token = self.token(user);
        self.http
            .post(self.url(path))
            .bearer_auth(token)
            .timeout(SOON)
    }

    /// What another program does with the database.
    pub fn elsewhere(&self, sql: &str) {
        let path = self.folder.path().join("server.db");
        let database = rusqlite::Connection::open(path).expect("the file is there");
        database.busy_timeout(SOON).expect("a timeout");
        database.execute_batch(sql).expect("the statement runs");
    }

    /// Opens a WebSocket.
    pub async fn socket(&self, user: &str) -> Socket {
        self.try_socket(&self.token(user))
            .await
            .expect("the server takes the connection")
    }

    pub async fn try_socket(
        &self,
        token: &str,
    ) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
        let url = format!("ws://{}/v1/sync", self.server.address());
        let mut request = url.into_client_request()?;
        let header = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", header);
        self.try_request(request).await
    }

    /// Opens a WebSocket by exactly this request.
    pub async fn try_request(
        &self,
        request: tokio_tungstenite::tungstenite::handshake::client::Request,
    ) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
        let (socket, _) = connect_async(request).await?;
        Ok(Socket {
            socket,
            closed: None,
        })
    }

    /// The changes, made with the numbers that this server gave.
    pub async fn draw(
        &self,
        user: &str,
        changes: impl FnOnce(Draw<'_>) -> Draw<'_>,
    ) -> Vec<Change> {
        let token = self.token(user);
        let answer = self.get("/v1/schema").bearer_auth(token).send().await;
        let bytes = answer.expect("an answer").bytes().await.expect("a body");
        let info: syncline_core::wire::SchemaInfo = minicbor::decode(&bytes).expect("a schema");
        changes(Draw::new(&info.to_schema())).done()
    }
}

pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    Timestamp(u64::try_from(since.as_micros()).expect("before 586,000"))
}

pub fn hello(device: u8) -> Hello {
    Hello {
        protocol: PROTOCOL,
        device: DeviceId([device; 16]),
        lease: Lease::default(),
        next_lease: Lease([1; 16]),
        device_name: "a device".into(),
        platform: "test".into(),
        server: DeviceId::default(),
        schema_hash: 0,
        cursors: Vec::new(),
        tables: None,
        buckets_count: 0,
        buckets_sum: 0,
        loading: Vec::new(),
        credit: PLENTY,
        now: now(),
        renamed: false,
        register_anew: false,
        subscriptions: None,
        subscribed: 0,
        loads_again: false,
    }
}

pub fn changeset(id: u8, number: u64, changes: Vec<Change>) -> Changeset {
    Changeset {
        id: ChangesetId([id; 16]),
        number,
        depends: Vec::new(),
        hlc: Hlc::at(now()),
        changes,
        require_unchanged: false,
        may_be_applied_already: false,
        after: None,
        piece: None,
    }
}

pub fn note(draw: Draw<'_>, id: i64) -> Draw<'_> {
    draw.insert("notes", Value::Integer(id), &[("body", "text".into())])
}

/// A replica's end of a WebSocket.
pub struct Socket {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub closed: Option<CloseFrame>,
}

impl Socket {
    pub async fn say(&mut self, message: &ClientMessage) {
        self.say_bytes(encode_client(message)).await;
    }

    pub async fn say_bytes(&mut self, frame: Vec<u8>) {
        let sent = self.socket.send(Message::Binary(frame.into())).await;
        sent.expect("the socket takes it");
    }

    pub async fn push(&mut self, changeset: &Changeset) {
        self.say(&push_of(changeset)).await;
    }

    /// The next message; `None` when the server has closed.
    pub async fn hear(&mut self) -> Option<ServerMessage> {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Binary(frame))) => {
                        return Some(decode_server(&frame).expect("a message"));
                    }
                    Some(Ok(Message::Close(frame))) => {
                        self.closed = frame;
                        return None;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        tokio::time::timeout(SOON, next)
            .await
            .expect("the server says something in time")
    }

    /// Hears until `found` has found what it looks for.
    pub async fn hear_until<T>(&mut self, mut found: impl FnMut(&ServerMessage) -> Option<T>) -> T {
        while let Some(message) = self.hear().await {
            if let Some(found) = found(&message) {
                return found;
            }
        }
        panic!("the server closed: {:?}", self.closed);
    }

    /// Says Hello and hears until everything is there.
    pub async fn sync(&mut self, device: u8) {
        self.say(&ClientMessage::Hello(hello(device))).await;
        self.hear_until(|message| match message {
            ServerMessage::Checkpoint(c) if c.loading == 0 && c.caught_up => Some(()),
            _ => None,
        })
        .await;
    }

    /// The code of the refusal that comes next, and how the server closed.
    pub async fn refused(&mut self) -> (String, Option<u16>) {
        let code = self
            .hear_until(|message| match message {
                ServerMessage::Refusal(refusal) if refusal.fatal => Some(refusal.code.clone()),
                _ => None,
            })
            .await;
        assert!(self.hear().await.is_none(), "nothing follows");
        (code, self.closed.as_ref().map(|close| close.code.into()))
    }
}
