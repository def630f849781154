//! A server, the files of devices, and patience.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use syncline::{Config, Event, Events, SyncManager, Timestamp};
use syncline_server::net::{Auth, Backend, CONNECTIONS_MAX, Options, Server};
use syncline_store::{StorageError, accounts::AccountStore};
use syncline_store_sqlite::{SqliteReader, SqliteStorage};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Longer than anything takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: [u8; 32] = [0x42; 32];

pub(crate) const NOTES: &str =
    "CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT NOT NULL, status TEXT);";

/// A server without `--dev` that has them.
pub(crate) const NOTES_CONFIG: &str = r#"
[tables.notes]
columns = { id = "text primary key", title = "text not null", status = "text" }
read = "_owner = auth.uid()"
write = "_owner = auth.uid()"
"#;

struct SqliteBackend(PathBuf);

impl Backend for SqliteBackend {
    type Storage = SqliteStorage;
    type Reader = SqliteReader;

    fn open(&self) -> Result<SqliteStorage, StorageError> {
        SqliteStorage::open(&self.0, &[0x17; 32])
            .map_err(|error| StorageError::Failed(error.into()))
    }

    fn accounts(storage: &SqliteStorage) -> Result<Option<Arc<dyn AccountStore>>, StorageError> {
        Ok(Some(Arc::new(storage.accounts()?)))
    }

    fn reader(storage: &SqliteStorage) -> Result<SqliteReader, StorageError> {
        storage.reader()
    }
}

/// A server on a thread of its own, and a folder for everybody's files.
pub(crate) struct Bed {
    folder: TempDir,
    url: String,
    auth: Arc<Auth>,
    config: String,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Bed {
    /// With `--dev`: tables of devices are added, each row is its maker's.
    pub(crate) fn dev() -> Self {
        Self::with("")
    }

    /// With this `syncline.toml`; an empty one is `--dev`.
    pub(crate) fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bed = Self {
            folder,
            url: String::new(),
            auth: Arc::new(Auth::new(&SECRET).unwrap()),
            config: config.to_owned(),
            serving: None,
        };
        bed.start("127.0.0.1:0");
        bed
    }

    /// Where it listened before, after [`Bed::stop`].
    pub(crate) fn restart(&mut self) {
        let address = self.url.trim_start_matches("http://").to_owned();
        self.start(&address);
    }

    fn start(&mut self, address: &str) {
        let dev = self.config.is_empty();
        let config = syncline_core::config::Config::parse("syncline.toml", &self.config).unwrap();
        let options = Options {
            listen: address.parse().unwrap(),
            config,
            allow: Vec::new(),
            dev,
            remember: None,
            auth: Auth::new(&SECRET).unwrap(),
            connections_max: CONNECTIONS_MAX,
        };
        let backend = Arc::new(SqliteBackend(self.folder.path().join("server.db")));
        let (url_to, url) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let server = Server::start(backend, options).await.unwrap();
                url_to.send(format!("http://{}", server.address())).unwrap();
                let _dropped = stopped.await;
                server.stop().await.unwrap();
            });
        });
        self.url = url.recv_timeout(PATIENCE).unwrap();
        self.serving = Some((stop, thread));
    }

    pub(crate) fn stop(&mut self) {
        if let Some((stop, thread)) = self.serving.take() {
            drop(stop);
            thread.join().unwrap();
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn token(&self, user: &str) -> String {
        self.short_tokens(user, 3_600)()
    }

    /// Makes tokens that are good for so many seconds.
    pub(crate) fn short_tokens(
        &self,
        user: &str,
        seconds: u64,
    ) -> impl Fn() -> String + Send + Sync + use<> {
        let (auth, user) = (Arc::clone(&self.auth), user.to_owned());
        move || {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = Timestamp(u64::try_from(since.unwrap().as_micros()).unwrap());
            let end = now.plus_millis(seconds * 1_000);
            auth.issue(&user, BTreeMap::new(), now, end).unwrap()
        }
    }

    /// The server, as `user`.
    pub(crate) fn config(&self, user: &str) -> Config {
        Config::new().server(&self.url, &self.token(user)).unwrap()
    }

    /// A new file with these statements.
    pub(crate) fn file(&self, name: &str, statements: &str) -> PathBuf {
        let path = self.path(name);
        sql(&path, statements);
        path
    }

    pub(crate) async fn open(&self, name: &str, user: &str) -> SyncManager {
        let manager = SyncManager::open(self.path(name), self.config(user)).await;
        manager.unwrap()
    }

    /// A row of the server's database.
    pub(crate) fn at_server(&self, query: &str) -> String {
        rows(&self.path("server.db"), query)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// A connection as the app or any other program has it.
pub(crate) fn open(path: &Path) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.busy_timeout(PATIENCE).unwrap();
    conn
}

pub(crate) fn sql(path: &Path, statements: &str) {
    open(path)
        .execute_batch(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// All rows of a query as text, columns joined by `|`, rows by a line break.
pub(crate) fn rows(path: &Path, query: &str) -> String {
    let conn = open(path);
    let mut statement = conn.prepare(query).unwrap();
    let columns = statement.column_count();
    let mut found = statement.query([]).unwrap();
    let mut lines = Vec::new();
    while let Some(row) = found.next().unwrap() {
        let values: Vec<String> = (0..columns)
            .map(|i| match row.get_ref(i).unwrap() {
                rusqlite::types::ValueRef::Null => "NULL".to_owned(),
                rusqlite::types::ValueRef::Integer(n) => n.to_string(),
                rusqlite::types::ValueRef::Real(x) => x.to_string(),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                rusqlite::types::ValueRef::Blob(bytes) => format!("{bytes:?}"),
            })
            .collect();
        lines.push(values.join("|"));
    }
    lines.join("\n")
}

/// The next event that `wanted` takes; what it gives.
pub(crate) async fn wait_for<T>(
    events: &mut Events,
    mut wanted: impl FnMut(&Event) -> Option<T>,
) -> T {
    let mut seen = Vec::new();
    let waiting = async {
        loop {
            let event = events.next().await.expect("the manager is open");
            if let Some(found) = wanted(&event) {
                return found;
            }
            seen.push(event.name());
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(found) => found,
        Err(_) => panic!("it did not come; there were {seen:?}"),
    }
}

/// Waits until `is` holds.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "it never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
