//! The network front: HTTP and WebSocket around sessions, one committer, a few readers.

pub mod accounts;
mod acme;
mod audit;
mod auth;
mod body;
mod caller;
mod clock;
mod committer;
mod devices;
mod drive;
mod error;
mod exchange;
pub mod explain;
mod hashes;
mod held;
mod http;
mod json;
mod listen;
mod metrics;
mod no_reader;
mod peer;
mod presence;
mod provider;
mod readers;
mod requests;
mod schema;
mod server;
mod shared;
mod start;
mod taken;
mod tickets;
mod tls;
mod topics;
mod turns;
mod wake;
mod ws;

use std::{net::SocketAddr, sync::Arc};

use syncline_core::config::Config;
use syncline_store::{Reader, SchemaError, Storage, StorageError, accounts::AccountStore};

pub(crate) use self::shared::Shared;
pub use self::{
    auth::{Auth, AuthError, SECRET_BYTES_MIN},
    listen::Limits,
    server::Server,
};

/// A kind of storage, as the binary chooses it.
pub trait Backend: Send + Sync + 'static {
    /// The writer; lives on a thread of its own, where it is opened.
    type Storage: Storage;
    type Reader: Reader + Send + 'static;

    /// Opens the writer.
    ///
    /// # Errors
    /// Why the data cannot be opened, for the operator.
    fn open(&self) -> Result<Self::Storage, StorageError>;
    /// Opens one more reader of the same data.
    ///
    /// # Errors
    /// As [`Backend::open`].
    fn reader(storage: &Self::Storage) -> Result<Self::Reader, StorageError>;
    /// Opens the accounts of the same data; `None` where it has no place for them.
    ///
    /// # Errors
    /// As [`Backend::open`].
    fn accounts(storage: &Self::Storage) -> Result<Option<Arc<dyn AccountStore>>, StorageError> {
        let _ = storage;
        Ok(None)
    }
}

/// Keeps the tables that devices added where the next start finds them.
pub type Remember = Box<dyn Fn(&Config) -> std::io::Result<()> + Send + Sync>;

/// How a server behaves.
pub struct Options {
    pub listen: SocketAddr,
    pub config: Config,
    /// Destructive changes of the schema that are allowed (`drop:table.column`).
    pub allow: Vec<String>,
    /// Loopback only, tables of devices are added, localhost origins.
    pub dev: bool,
    /// Called with all tables before devices' tables are added (`--dev`).
    pub remember: Option<Remember>,
    pub auth: Auth,
    /// Sessions at once; more are told to come back.
    pub connections_max: usize,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("config", &self.config)
            .field("allow", &self.allow)
            .field("dev", &self.dev)
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}

/// Sessions at once unless configured.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Why a server did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("`serve --dev` listens on this machine only; {0} is not a loopback address")]
    DevNotLoopback(SocketAddr),
    #[error("server.admin_listen: `{0}` is no address; write 127.0.0.1:7118")]
    AdminAddress(String),
    /// The certificate or its key.
    #[error("{0}")]
    Tls(String),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the rules cannot be used:\n{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Rules(Vec<syncline_core::rules::RuleError>),
    /// What `[server]` says of accounts and mails cannot be done.
    #[error("{0}")]
    Accounts(String),
    #[error("the server stopped unexpectedly: {0}")]
    Stopped(String),
}
