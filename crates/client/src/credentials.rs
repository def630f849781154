//! Which server, and as whom. Kept beside the user's other data, never in the database file:
//! whoever copies the file gets rows, not a login.

use std::{
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use syncline_core::Timestamp;

use crate::{
    accounts::{Login, login_at},
    error::ClientError,
    private,
    tokens::Renewer,
};

/// A bearer token; never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Takes a token as it was given; surrounding white space is dropped.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// When it ends, if it is a JWT that says so. Only a guess: the server decides.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        #[derive(Deserialize)]
        struct Claims {
            exp: f64,
        }
        let claims = self.0.split('.').nth(1)?;
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates"
        )]
        Some(Timestamp((claims.exp * 1e6) as u64))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

/// A server, and what says as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// `http://` or `https://`, without a path.
    pub url: String,
    pub(crate) credentials: Credentials,
}

/// What says as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A token that was given, for as long as it lasts.
    Token(Token),
    /// Tokens that follow each other.
    Renewed(Renewer),
}

/// What is remembered for a database.
#[derive(Serialize, Deserialize)]
struct Remembered {
    url: String,
    /// `None`: whoever is signed in at the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Token>,
}

impl Connection {
    /// Checks and normalises the address.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`].
    pub fn new(url: &str, token: Token) -> Result<Self, ClientError> {
        let bad = |reason: &str| ClientError::BadUrl {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let trimmed = url.trim().trim_end_matches('/');
        let rest = trimmed
            .strip_prefix("http://")
            .or_else(|| trimmed.strip_prefix("https://"))
            .ok_or_else(|| bad("it starts with neither http:// nor https://"))?;
        if rest.is_empty()
            || rest.contains(char::is_whitespace)
            || rest.contains(['/', '\\', '?', '#', '@'])
        {
            return Err(bad("it names no host, or more than a host and a port"));
        }
        Ok(Self {
            url: trimmed.to_owned(),
            credentials: Credentials::Token(token),
        })
    }

    /// The server of a login, as who is signed in.
    #[must_use]
    pub fn of_login(login: &Login) -> Self {
        Self {
            url: login.url().to_owned(),
            credentials: Credentials::Renewed(login.renewer().clone()),
        }
    }

    /// Whether its token is one that was given, and has ended.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        match &self.credentials {
            Credentials::Token(token) => token
                .expires()
                .is_some_and(|end| end <= crate::system::now()),
            Credentials::Renewed(_) => false,
        }
    }

    /// A token that is good now, as far as is known here.
    pub(crate) async fn token(&self) -> Result<Token, ClientError> {
        match &self.credentials {
            Credentials::Token(token) => Ok(token.clone()),
            Credentials::Renewed(renewer) => renewer.token().await,
        }
    }

    /// Another token in place of one that the server refused; `None` if there is none.
    pub(crate) async fn instead_of(&self, refused: &Token) -> Result<Option<Token>, ClientError> {
        match &self.credentials {
            Credentials::Token(_) => Ok(None),
            Credentials::Renewed(renewer) => renewer.instead_of(refused).await.map(Some),
        }
    }

    /// The token that follows `current`, when it is time for it; waits for ever if none does.
    pub(crate) async fn next(&self, current: &Token) -> Result<Token, ClientError> {
        match &self.credentials {
            Credentials::Token(_) => std::future::pending().await,
            Credentials::Renewed(renewer) => renewer.next(current).await,
        }
    }

    /// Whether token and rows travel over a network in clear: `http://` to a host that is not this
    /// machine.
    #[must_use]
    pub fn is_in_clear(&self) -> bool {
        let Some(authority) = self.url.strip_prefix("http://") else {
            return false;
        };
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            Some(_) | None => authority,
        };
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_here = match address.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            // Names below localhost never leave the machine (RFC 6761).
            Err(_) => {
                let name = host.trim_end_matches('.').to_ascii_lowercase();
                name == "localhost" || name.ends_with(".localhost")
            }
        };
        !is_here
    }

    /// Remembers the connection for the database at `path`, readable by this user alone. Of a
    /// login, that it was the login: its tokens are kept once.
    ///
    /// # Errors
    /// [`ClientError::Credentials`].
    pub fn save(&self, database: &Path) -> Result<(), ClientError> {
        let path = store(database)?;
        let remembered = Remembered {
            url: self.url.clone(),
            token: match &self.credentials {
                Credentials::Token(token) => Some(token.clone()),
                Credentials::Renewed(_) => None,
            },
        };
        let text = serde_json::to_string(&remembered).map_err(|error| unusable(&path, &error))?;
        private::write(&path, &text).map_err(|error| unusable(&path, &error))
    }

    /// What was remembered for the database at `path`, if anything.
    ///
    /// # Errors
    /// [`ClientError::Credentials`] if it cannot be read; [`ClientError::SignedOut`] if it was a
    /// login, and nobody is signed in there any more.
    pub fn load(database: &Path) -> Result<Option<Self>, ClientError> {
        let Some(remembered) = remembered(database)? else {
            return Ok(None);
        };
        if let Some(token) = remembered.token {
            return Self::new(&remembered.url, token).map(Some);
        }
        match login_at(&remembered.url)? {
            Some(login) => Ok(Some(Self::of_login(&login))),
            None => Err(ClientError::signed_out(&remembered.url, None)),
        }
    }

    /// The server of what was remembered for the database at `path`.
    ///
    /// # Errors
    /// [`ClientError::Credentials`] if it cannot be read.
    pub fn known_url(database: &Path) -> Result<Option<String>, ClientError> {
        Ok(remembered(database)?.map(|remembered| remembered.url))
    }

    /// Whether it is who signed in on this machine, and no token that was given.
    #[must_use]
    pub fn is_login(&self) -> bool {
        matches!(self.credentials, Credentials::Renewed(_))
    }

    /// Forgets what was remembered for the database at `path`.
    ///
    /// # Errors
    /// [`ClientError::Credentials`] if it is there and cannot be removed.
    pub fn forget(database: &Path) -> Result<(), ClientError> {
        let path = store(database)?;
        private::remove(&path).map_err(|error| unusable(&path, &error))
    }
}

fn remembered(database: &Path) -> Result<Option<Remembered>, ClientError> {
    let path = store(database)?;
    let text = private::read(&path).map_err(|error| unusable(&path, &error))?;
    let Some(text) = text else { return Ok(None) };
    let read = serde_json::from_str(&text);
    read.map(Some).map_err(|error| unusable(&path, &error))
}

pub(crate) fn unusable(path: &Path, error: &dyn fmt::Display) -> ClientError {
    ClientError::Credentials {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// Where the connection of the database at `path` is kept: named by a hash of its full path.
fn store(database: &Path) -> Result<PathBuf, ClientError> {
    let full = fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
    let name = blake3::hash(full.as_os_str().as_encoded_bytes()).to_hex();
    let home = private::home().map_err(|error: io::Error| unusable(database, &error))?;
    Ok(home.join("credentials").join(format!("{name}.json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        let parse = |url: &str| Connection::new(url, Token::new("t")).map(|c| c.url);
        for (url, expected) in [
            ("http://127.0.0.1:7117", "http://127.0.0.1:7117"),
            (" https://sync.example.com/ ", "https://sync.example.com"),
            ("http://[::1]:7117", "http://[::1]:7117"),
        ] {
            assert_eq!(parse(url).expect(url), expected);
        }
        for url in [
            "",
            "sync.example.com",
            "ftp://sync.example.com",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "http://",
            "https:///",
            "http://user:secret@host",
            "http://host#part",
            "http://host?query",
            "http://host/path",
            "http://host/..//",
            "http://host\\path",
            "http://ho st",
            "http://host\r\nX-Header: 1",
        ] {
            assert!(parse(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn http_to_another_machine_is_in_clear() {
        let is_in_clear = |url: &str| {
            let connection = Connection::new(url, Token::new("t")).expect(url);
            connection.is_in_clear()
        };
        for url in [
            "http://127.0.0.1:7117",
            "http://127.8.9.10",
            "http://[::1]:7117",
            "http://[::ffff:127.0.0.1]",
            "http://localhost:7117",
            "http://LocalHost.",
            "http://app.localhost:80",
            "https://sync.example.com",
            "https://192.168.1.20:7117",
        ] {
            assert!(!is_in_clear(url), "{url}");
        }
        for url in [
            "http://192.168.1.20:7117",
            "http://sync.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com:7117",
            "http://notlocalhost",
            "http://[2001:db8::1]:7117",
            "http://0.0.0.0:7117",
        ] {
            assert!(is_in_clear(url), "{url}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let connection =
            Connection::new("http://host", Token::new("very-secret")).expect("an address");
        assert!(!format!("{connection:?}").contains("very-secret"));
    }

    #[test]
    fn the_end_of_a_token_is_read_if_it_tells_one() {
        let token = |claims: &str| {
            let claims = BASE64_URL_SAFE_NO_PAD.encode(claims);
            Token::new(&format!("e30.{claims}.c2ln"))
        };
        let end = token(r#"{"sub":"ana","exp":1800000000}"#).expires();
        assert_eq!(end, Some(Timestamp(1_800_000_000_000_000)));
        for other in [
            token(r#"{"exp":"soon"}"#),
            token("{}"),
            Token::new("open-sesame"),
        ] {
            assert_eq!(other.expires(), None);
        }
    }
}
