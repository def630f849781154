//! Files that only this user reads.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// `$SYNCLINE_HOME`, or `syncline` in the user's data folder.
pub(crate) fn home() -> io::Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("SYNCLINE_HOME")
        .or_else(|| Some(set("XDG_DATA_HOME")?.join("syncline")))
        .or_else(|| Some(set("HOME")?.join(".local/share/syncline")))
        .or_else(|| Some(set("LOCALAPPDATA")?.join("syncline")))
        .ok_or_else(|| io::Error::other("neither SYNCLINE_HOME nor HOME says where to keep them"))
}

/// Writes a file whole: beside it first, then renamed, so that a cut leaves the old one or the
/// new one. Its folder is made, and is this user's alone.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().expect("a file in a folder");
    make_folder(folder)?;
    let new = path.with_extension("new");
    let mut file = make(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(folder)
}

/// What a file says; `None` if there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits until no other program, nor another thread, has the lock at `path`; it is let go when
/// the file is dropped.
pub(crate) fn lock(path: &Path) -> io::Result<fs::File> {
    make_folder(path.parent().expect("a file in a folder"))?;
    let file = make(path)?;
    file.lock()?;
    Ok(file)
}

#[cfg(unix)]
fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    // It may have been there before, as somebody else made it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(unix)]
fn make(path: &Path) -> io::Result<fs::File> {
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

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(not(unix))]
fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(not(unix))]
fn make(path: &Path) -> io::Result<fs::File> {
    fs::File::create(path)
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

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
        write(&path, "secret").expect("written");
        let mode = |path: &Path| {
            let data = fs::metadata(path).expect("it is there");
            data.permissions().mode() & 0o777
        };
        assert_eq!((mode(&credentials), mode(&path)), (0o700, 0o600));
    }
}
