//! The server's token secret, and lifetimes as people write them.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use syncline_server::net::{Auth, SECRET_BYTES_MIN};

use crate::exit::{Exit, Failure};

/// The variable that names a file with the secret.
pub(crate) const SECRET_FILE: &str = "SYNCLINE_TOKEN_SECRET_FILE";
pub(crate) const FILE: &str = "token-secret";

/// `90s`, `30m`, `12h`, `30d` in seconds.
pub(crate) fn parse_ttl(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is no lifetime: write 90s, 30m, 12h or 30d");
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let number: u64 = number.parse().map_err(|_| expected())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    number
        .checked_mul(seconds)
        .filter(|s| *s > 0 && *s <= 10 * 365 * 86_400)
        .ok_or_else(expected)
}

/// The secret that tokens are signed with: SYNCLINE_TOKEN_SECRET_FILE, or one made at random in
/// the data folder on first use.
pub(crate) fn auth(data: &Path) -> anyhow::Result<Auth> {
    let secret = match std::env::var_os(SECRET_FILE) {
        Some(path) => {
            let path = PathBuf::from(path);
            let text = fs::read_to_string(&path)
                .with_context(|| format!("SYNCLINE_TOKEN_SECRET_FILE {}", path.display()))?;
            text.trim().as_bytes().to_vec()
        }
        None => own_secret(data)?,
    };
    Auth::new(&secret).map_err(|error| {
        Failure::new(
            Exit::Config,
            format!("{error}; `openssl rand -hex 32` makes a good one"),
        )
        .into()
    })
}

/// Whether tokens can be signed without making a new secret.
pub(crate) fn has_secret(data: &Path) -> bool {
    std::env::var_os("SYNCLINE_TOKEN_SECRET_FILE").is_some() || data.join(FILE).exists()
}

fn own_secret(data: &Path) -> anyhow::Result<Vec<u8>> {
    let path = data.join(FILE);
    match fs::read(&path) {
        Ok(secret) => return Ok(secret),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    private_folder(data).with_context(|| format!("make the folder {}", data.display()))?;
    let mut random = [0; SECRET_BYTES_MIN];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    // Two processes may start at once: the first one's secret stays.
    match private_file(&path) {
        Ok(mut file) => {
            file.write_all(hex.as_bytes())
                .and_then(|()| file.sync_all())
                .with_context(|| format!("write {}", path.display()))?;
            Ok(hex.into_bytes())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(fs::read(&path)?),
        Err(error) => Err(error).with_context(|| format!("make {}", path.display())),
    }
}

/// Makes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = private_file(path)?;
    file.write_all(content)?;
    file.sync_all()
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
        .create_new(true)
        .mode(0o600)
        .open(path)
}

#[cfg(not(unix))]
fn private_folder(path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> std::io::Result<fs::File> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
}
