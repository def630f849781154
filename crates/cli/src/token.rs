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
    match parse_time(text) {
        Ok(0) | Err(_) => Err(format!(
            "`{text}` is no lifetime: write 90s, 30m, 12h or 30d"
        )),
        Ok(seconds) => Ok(seconds),
    }
}

/// A time in seconds, none included.
pub(crate) fn parse_time(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is no time: write 90s, 30m, 12h or 30d");
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
        .filter(|s| *s <= 10 * 365 * 86_400)
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
    if let Some(secret) = existing_secret(&path)? {
        return Ok(secret);
    }
    private_folder(data).with_context(|| format!("make the folder {}", data.display()))?;
    let hex = random_hex(SECRET_BYTES_MIN)?;
    // It gets its name once it is on the disk: a start that was cut short must not leave a secret
    // that is none, and what was signed with it must be good after a power cut.
    let unnamed = data.join(format!("{FILE}-{}", random_hex(8)?));
    write_private(&unnamed, hex.as_bytes())
        .with_context(|| format!("write {}", unnamed.display()))?;
    let named = name_once(&unnamed, &path).and_then(|()| sync_folder(data));
    let _renamed_already = fs::remove_file(&unnamed);
    named.with_context(|| format!("make {}", path.display()))?;
    existing_secret(&path)?.with_context(|| format!("{} is empty", path.display()))
}

/// The secret that was made before. An empty file is none: earlier versions could leave one.
fn existing_secret(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(secret) if secret.is_empty() => Ok(None),
        Ok(secret) => Ok(Some(secret)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Gives a file its name unless another has it: two processes may start at once, and the first
/// one's secret stays. Where files cannot have two names the later one's does.
fn name_once(unnamed: &Path, path: &Path) -> std::io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        return fs::rename(unnamed, path);
    }
    match fs::hard_link(unnamed, path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => fs::rename(unnamed, path),
        Ok(()) => Ok(()),
    }
}

fn random_hex(bytes: usize) -> anyhow::Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = private_file(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_a_start_that_was_cut_short_leaves_none_that_is_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("the data folder");
        fs::write(data.join(FILE), "").expect("what a power cut left");
        let secret = own_secret(&data).expect("a secret");
        assert_eq!(secret.len(), 2 * SECRET_BYTES_MIN);
        assert_eq!(own_secret(&data).expect("the same"), secret);
        let names: Vec<_> = fs::read_dir(&data).expect("the folder").collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }
}
