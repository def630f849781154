//! Which server, and as whom. Kept beside the user's other data, never in the database file:
//! whoever copies the file gets rows, not a login.

use std::{
    fmt, fs,
    io::Write,
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
        if rest.is_empty() || rest.contains(char::is_whitespace) || rest.contains(['?', '#', '@']) {
            return Err(bad("it names no host, or more than a host and a port"));
        }
        Ok(Self {
            url: trimmed.to_owned(),
            token,
        })
    }

    /// Remembers the connection for the database at `path`, readable by this user alone.
    ///
    /// # Errors
    /// [`ClientError::Credentials`].
    pub fn save(&self, database: &Path) -> Result<(), ClientError> {
        let path = store(database)?;
        let failed = |error: &dyn fmt::Display| ClientError::Credentials {
            path: path.clone(),
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
        fs::rename(&new, &path).map_err(|error| failed(&error))
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
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

#[cfg(unix)]
fn private_file(path: &Path) -> std::io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

#[cfg(not(unix))]
fn private_folder(path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> std::io::Result<fs::File> {
    fs::File::create(path)
}
