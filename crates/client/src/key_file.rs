//! Files with a key for encrypted columns: one line, readable by their owner alone.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use syncline_replica::EncryptionKey;
use zeroize::Zeroizing;

use crate::sync_error::Error;

/// Longer than any key: more is not read.
const BYTES_MAX: u64 = 4096;

/// The key in the file at `path`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] if it cannot be read, others may read it, or it has no key.
pub fn read(path: &Path) -> Result<EncryptionKey, Error> {
    let unusable = |why: &dyn std::fmt::Display| {
        Error::invalid(format!("the encryption key file {}: {why}", path.display()))
    };
    let file = fs::File::open(path).map_err(|error| unusable(&error))?;
    only_its_owner(&file, path).map_err(|why| unusable(&why))?;
    let mut text = Zeroizing::new(String::new());
    let read = io::Read::read_to_string(&mut io::Read::take(file, BYTES_MAX), &mut text);
    read.map_err(|error| unusable(&error))?;
    text.parse().map_err(|error| unusable(&error))
}

/// Makes a key and writes it to `path`, where no file may be.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] if there is one, or it cannot be written.
pub fn make(path: &Path) -> Result<EncryptionKey, Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    crate::system::entropy(&mut bytes[..]);
    let key = EncryptionKey::new(*bytes);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut text = key.to_text();
    text.push('\n');
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| {
        Error::invalid(format!(
            "the encryption key file {}: {error}",
            path.display()
        ))
    })?;
    Ok(key)
}

#[cfg(unix)]
fn only_its_owner(file: &fs::File, path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = file
        .metadata()
        .map_err(|error| error.to_string())?
        .permissions()
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(format!(
        "others may read it; run `chmod 600 {}`",
        path.display()
    ))
}

#[cfg(not(unix))]
fn only_its_owner(_file: &fs::File, _path: &Path) -> Result<(), String> {
    Ok(())
}
