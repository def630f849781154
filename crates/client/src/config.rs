//! What a sync manager is told: where the server is, and when to sync.

use std::{env, path::Path, time::Duration};

use syncline_replica::{EncryptionKey, Keyring};

use crate::{
    accounts::Login,
    credentials::{Connection, Credentials, Token},
    key_file,
    run::Tables,
    sync_error::Error,
    tokens::{Renewer, TokenProvider},
};

/// How a [`crate::SyncManager`] behaves. Every value has a default; without a server the manager
/// works offline.
///
/// ```
/// use syncline::Config;
/// let config = Config::new()
///     .server("https://sync.example.com", "a token")?
///     .auto_sync_interval(std::time::Duration::from_secs(15 * 60));
/// # Ok::<(), syncline::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub(crate) url: Option<String>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) auto_sync_enabled: bool,
    pub(crate) auto_sync_interval: Duration,
    pub(crate) debounce: Duration,
    pub(crate) live: bool,
    pub(crate) batch_size: usize,
    pub(crate) max_retries: u32,
    pub(crate) tables: Tables,
    pub(crate) device_name: Option<String>,
    /// The one that seals comes first.
    pub(crate) encryption_keys: Vec<EncryptionKey>,
    pub(crate) subscribe_at_attach: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            credentials: None,
            auto_sync_enabled: false,
            auto_sync_interval: Duration::from_secs(30 * 60),
            debounce: Duration::from_millis(500),
            live: true,
            batch_size: 50,
            max_retries: 3,
            tables: Tables::All,
            device_name: None,
            encryption_keys: Vec::new(),
            subscribe_at_attach: true,
        }
    }
}

impl Config {
    /// No server, no auto-sync.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From the environment; what is not set keeps its default.
    ///
    /// | Variable | Sets |
    /// |---|---|
    /// | `SYNCLINE_URL`, `SYNCLINE_TOKEN` | [`Config::server`]; without both the manager is offline |
    /// | `SYNCLINE_TOKEN_FILE` | the token, read from a file |
    /// | `SYNCLINE_DEVICE_NAME` | [`Config::device_name`] |
    /// | `SYNCLINE_ENCRYPTION_KEY_FILE` | [`Config::encryption_key`]; after a comma, files of older keys |
    /// | `SYNC_AUTO_ENABLED` | [`Config::auto_sync`]: `true` or `false` |
    /// | `SYNC_INTERVAL_MINUTES` | [`Config::auto_sync_interval`] |
    /// | `SYNC_BATCH_SIZE` | [`Config::batch_size`] |
    /// | `SYNC_MAX_RETRIES` | [`Config::max_retries`] |
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a value that cannot be read, naming the variable.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_lookup(|name| env::var(name).ok())
    }

    pub(crate) fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let mut config = Self::default();
        let token = match (get("SYNCLINE_TOKEN"), get("SYNCLINE_TOKEN_FILE")) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => Some(std::fs::read_to_string(&path).map_err(|error| {
                Error::invalid(format!(
                    "SYNCLINE_TOKEN_FILE: {path} cannot be read: {error}"
                ))
            })?),
            (None, None) => None,
        };
        if let (Some(url), Some(token)) = (get("SYNCLINE_URL"), token) {
            config = config
                .server(&url, &token)
                .map_err(|error| Error::invalid(format!("SYNCLINE_URL: {error}")))?;
        }
        if let Some(text) = get("SYNC_AUTO_ENABLED") {
            config.auto_sync_enabled = flag("SYNC_AUTO_ENABLED", &text)?;
        }
        if let Some(text) = get("SYNC_INTERVAL_MINUTES") {
            let minutes: u64 = number("SYNC_INTERVAL_MINUTES", &text)?;
            config.auto_sync_interval = Duration::from_secs(minutes.saturating_mul(60));
        }
        if let Some(text) = get("SYNC_BATCH_SIZE") {
            config.batch_size = number("SYNC_BATCH_SIZE", &text)?;
        }
        if let Some(text) = get("SYNC_MAX_RETRIES") {
            config.max_retries = number("SYNC_MAX_RETRIES", &text)?;
        }
        config.device_name = get("SYNCLINE_DEVICE_NAME");
        for path in get("SYNCLINE_ENCRYPTION_KEY_FILE")
            .iter()
            .flat_map(|p| p.split(','))
        {
            let key = key_file::read(Path::new(path.trim()))?;
            config.encryption_keys.push(key);
        }
        config.checked()
    }

    /// Which server (`https://sync.example.com`, no path), and the token that says as whom.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for something that is no address.
    pub fn server(mut self, url: &str, token: &str) -> Result<Self, Error> {
        self.set(Connection::new(url, Token::new(token))?);
        Ok(self)
    }

    /// The server of a login, as who is signed in; its tokens renew themselves.
    #[must_use]
    pub fn login(mut self, login: &Login) -> Self {
        self.set(Connection::of_login(login));
        self
    }

    /// Which server, and where tokens for it come from: for an app with an identity provider of
    /// its own, whose tokens end. `provider` is asked for another before they do, and an open
    /// connection goes on with it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for something that is no address.
    pub fn token_provider(
        mut self,
        url: &str,
        provider: impl TokenProvider,
    ) -> Result<Self, Error> {
        let url = Connection::new(url, Token::new(""))?.url;
        let credentials = Credentials::Renewed(Renewer::new(url.clone(), provider));
        self.set(Connection { url, credentials });
        Ok(self)
    }

    fn set(&mut self, connection: Connection) {
        self.url = Some(connection.url);
        self.credentials = Some(connection.credentials);
    }

    /// No server: everything stays on this device until there is one again.
    #[must_use]
    pub fn offline(mut self) -> Self {
        (self.url, self.credentials) = (None, None);
        self
    }

    /// Whether auto-sync runs as soon as the manager is open. Off by default.
    #[must_use]
    pub fn auto_sync(mut self, enabled: bool) -> Self {
        self.auto_sync_enabled = enabled;
        self
    }

    /// How often auto-sync makes a round even when nothing seems to have happened. 30 minutes by
    /// default; zero: never.
    #[must_use]
    pub fn auto_sync_interval(mut self, interval: Duration) -> Self {
        self.auto_sync_interval = interval;
        self
    }

    /// How long after the last of several changes a round of auto-sync begins; only without
    /// [`Config::live`]. Half a second by default.
    #[must_use]
    pub fn debounce(mut self, pause: Duration) -> Self {
        self.debounce = pause;
        self
    }

    /// Whether auto-sync keeps its connection, so that what others write arrives when they write
    /// it. On by default; off makes rounds that end, which costs less battery.
    #[must_use]
    pub fn live(mut self, live: bool) -> Self {
        self.live = live;
        self
    }

    /// How many of the app's own operations are taken from the retry queue at once: at least one.
    /// 50 by default. Rows need no number: they travel in pieces of about a megabyte.
    #[must_use]
    pub fn batch_size(mut self, operations: usize) -> Self {
        self.batch_size = operations;
        self
    }

    /// How often one of the app's own operations is tried again before it counts as failed, and
    /// how many further attempts to connect a single sync makes. 3 by default.
    #[must_use]
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = retries;
        self
    }

    /// Which tables of the file may sync at all. All by default.
    #[must_use]
    pub fn tables(mut self, tables: Tables) -> Self {
        self.tables = tables;
        self
    }

    /// What the user's device list calls this device. The machine's name by default. Told to the
    /// server when the file is attached.
    #[must_use]
    pub fn device_name(mut self, name: impl Into<String>) -> Self {
        self.device_name = Some(name.into());
        self
    }

    /// The key of encrypted columns: what this device writes into them is sealed with it before it
    /// is sent, and no server ever has it. The app's file keeps plain values.
    ///
    /// Whoever loses every copy of the key loses what was sealed, as far as it is not in a file that
    /// still has it in the clear.
    #[must_use]
    pub fn encryption_key(mut self, key: EncryptionKey) -> Self {
        self.encryption_keys.insert(0, key);
        self
    }

    /// A key that encrypted columns were sealed with earlier: it opens, and seals nothing.
    #[must_use]
    pub fn older_encryption_key(mut self, key: EncryptionKey) -> Self {
        self.encryption_keys.push(key);
        self
    }

    /// Whether a file that is attached, or meets its first server, subscribes to what its rows of
    /// tables on demand hang below, so that they stay: it does unless this says otherwise. Else
    /// they leave the file once the server has them.
    #[must_use]
    pub fn subscribe_at_attach(mut self, subscribes: bool) -> Self {
        self.subscribe_at_attach = subscribes;
        self
    }

    pub(crate) fn keyring(&self) -> Keyring {
        match self.encryption_keys.split_first() {
            Some((current, older)) => Keyring::new(current, older),
            None => Keyring::default(),
        }
    }

    /// The server's address, if there is one.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Whether a server is known, and as whom to sync.
    #[must_use]
    pub fn is_sync_available(&self) -> bool {
        self.url.is_some() && self.credentials.is_some()
    }

    pub(crate) fn connection(&self) -> Option<Connection> {
        Some(Connection {
            url: self.url.clone()?,
            credentials: self.credentials.clone()?,
        })
    }

    pub(crate) fn checked(self) -> Result<Self, Error> {
        if self.batch_size == 0 {
            return Err(Error::invalid("the batch size is 0; it is at least 1"));
        }
        Ok(self)
    }
}

fn flag(name: &str, text: &str) -> Result<bool, Error> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Error::invalid(format!(
            "{name} is `{text}`; write true or false"
        ))),
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Error> {
    text.trim()
        .parse()
        .map_err(|_| Error::invalid(format!("{name} is `{text}`; write a whole number")))
}

/// A configuration for errands with the server of a connection, or none.
#[must_use]
pub fn connected(connection: Option<&Connection>) -> Config {
    Config {
        url: connection.map(|known| known.url.clone()),
        credentials: connection.map(|known| known.credentials.clone()),
        ..Config::new().offline().auto_sync(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        Config::from_lookup(|name| {
            let found = pairs.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn lb1_the_environment_sets_what_it_names_and_nothing_else() {
        let config = from(&[
            ("SYNCLINE_URL", "http://127.0.0.1:7117/"),
            ("SYNCLINE_TOKEN", "open-sesame"),
            ("SYNC_AUTO_ENABLED", "true"),
            ("SYNC_INTERVAL_MINUTES", "15"),
            ("SYNC_BATCH_SIZE", "100"),
            ("SYNC_MAX_RETRIES", "5"),
        ])
        .expect("a configuration");
        assert_eq!(config.url(), Some("http://127.0.0.1:7117"));
        assert!(config.is_sync_available() && config.auto_sync_enabled);
        assert_eq!(config.auto_sync_interval, Duration::from_secs(900));
        assert_eq!((config.batch_size, config.max_retries), (100, 5));
        assert!(!format!("{config:?}").contains("sesame"));
        assert_eq!(from(&[]).expect("defaults"), Config::default());
        let half = from(&[("SYNCLINE_URL", "http://127.0.0.1:7117")]).expect("offline");
        assert!(!half.is_sync_available());
    }

    #[test]
    fn lb1_a_value_that_makes_no_sense_is_named_with_its_variable() {
        for (name, value) in [
            ("SYNC_AUTO_ENABLED", "perhaps"),
            ("SYNC_INTERVAL_MINUTES", "-1"),
            ("SYNC_BATCH_SIZE", "many"),
            ("SYNC_MAX_RETRIES", "3.5"),
        ] {
            let error = from(&[(name, value)]).expect_err(value);
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            assert!(error.to_string().contains(name), "{error}");
        }
        let bad = [
            ("SYNCLINE_URL", "sync.example.com"),
            ("SYNCLINE_TOKEN", "t"),
        ];
        assert!(
            from(&bad)
                .expect_err("no scheme")
                .to_string()
                .contains("SYNCLINE_URL")
        );
        assert!(from(&[("SYNC_BATCH_SIZE", "0")]).is_err());
    }
}
