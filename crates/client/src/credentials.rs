//! Which server, and as whom. Kept beside the user's other data, never in the database file:
//! whoever copies the file gets rows, not a login.

use std::{
    fmt, fs,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::error::ClientError;

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
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

/// A server and a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// `http://` or `https://`, without a path.
    pub url: String,
    pub token: Token,
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
            token,
        })
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

    /// Remembers the connection for the database at `path`, readable by this user alone.
    ///
    /// # Errors
    /// [`ClientError::Credentials`].
    pub fn save(&self, database: &Path) -> Result<(), ClientError> {
        self.write(&store(database)?)
    }

    fn write(&self, path: &Path) -> Result<(), ClientError> {
        let failed = |error: &dyn fmt::Display| ClientError::Credentials {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let folder = path.parent().expect("a file in a folder");
        private_folder(folder).map_err(|error| failed(&error))?;
        let text = serde_json::to_string(self).map_err(|error| failed(&error))?;
        // Written beside and renamed: a cut leaves the old one or the new one.
        let new = path.with_extension("new");
        let mut file = private_file(&new).map_err(|error| failed(&error))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|error| failed(&error))?;
        fs::rename(&new, path).map_err(|error| failed(&error))
    }

    /// What was remembered for the database at `path`, if anything.
    ///
    /// # Errors
    /// [`ClientError::Credentials`] if it cannot be read.
    pub fn load(database: &Path) -> Result<Option<Self>, ClientError> {
        let path = store(database)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(ClientError::Credentials {
                    path,
                    reason: error.to_string(),
                });
            }
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| ClientError::Credentials {
                path,
                reason: error.to_string(),
            })
    }

    /// Forgets what was remembered for the database at `path`.
    ///
    /// # Errors
    /// [`ClientError::Credentials`] if it is there and cannot be removed.
    pub fn forget(database: &Path) -> Result<(), ClientError> {
        let path = store(database)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ClientError::Credentials {
                    path,
                    reason: error.to_string(),
                })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// `$SYNCLINE_HOME`, or `syncline` in the user's data folder.
fn home() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("SYNCLINE_HOME")
        .or_else(|| Some(set("XDG_DATA_HOME")?.join("syncline")))
        .or_else(|| Some(set("HOME")?.join(".local/share/syncline")))
        .or_else(|| Some(set("LOCALAPPDATA")?.join("syncline")))
}

/// Where the connection of the database at `path` is kept: named by a hash of its full path.
fn store(database: &Path) -> Result<PathBuf, ClientError> {
    let full = fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
    let name = blake3::hash(full.as_os_str().as_encoded_bytes()).to_hex();
    let home = home().ok_or_else(|| ClientError::Credentials {
        path: database.to_owned(),
        reason: "neither SYNCLINE_HOME nor HOME says where to keep them".to_owned(),
    })?;
    Ok(home.join("credentials").join(format!("{name}.json")))
}

#[cfg(unix)]
fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    // It may have been there before, as somebody else made it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(unix)]
fn private_file(path: &Path) -> std::io::Result<fs::File> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    // One that a cut left there keeps the mode it had.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(not(unix))]
fn private_folder(path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> std::io::Result<fs::File> {
    fs::File::create(path)
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

    #[cfg(unix)]
    #[test]
    fn credentials_are_readable_by_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let credentials = folder.path().join("credentials");
        fs::create_dir(&credentials).expect("a folder");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&credentials, open).expect("a folder of one's own");
        let path = credentials.join("x.json");
        // What a cut left, with a mode that lets others read.
        let left = path.with_extension("new");
        fs::write(&left, "old").expect("a file");
        fs::set_permissions(&left, fs::Permissions::from_mode(0o644)).expect("a file of one's own");
        let connection = Connection::new("http://host", Token::new("secret")).expect("an address");
        connection.write(&path).expect("written");
        let mode = |path: &Path| {
            let data = fs::metadata(path).expect("it is there");
            data.permissions().mode() & 0o777
        };
        assert_eq!((mode(&credentials), mode(&path)), (0o700, 0o600));
    }
}
