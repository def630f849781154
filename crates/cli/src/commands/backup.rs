//! `syncline backup` and `restore`: a server's data as one file.

use std::{
    fs,
    path::{Path, PathBuf},
};
use syncline::engine;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use syncline_store_sqlite::{BackupError, OpenError, SideFiles};

use crate::{
    args::{Backup, DataArgs, Restore},
    dev_tables,
    exit::{Exit, Failure},
    output::Output,
    token,
};

/// What belongs to a server's data besides its database.
const SIDE_FILES: [&str; 2] = [token::FILE, dev_tables::FILE];

pub(crate) fn back_up(args: &Backup, output: &Output) -> anyhow::Result<Exit> {
    let (data, database) = place(&args.data)?;
    let mut files = SideFiles::new();
    for name in SIDE_FILES {
        match fs::read(data.join(name)) {
            Ok(content) => files.push((name.to_owned(), content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", data.join(name).display()));
            }
        }
    }
    let bar = Bar::new(output);
    let made = syncline_store_sqlite::back_up(&database, &args.to, &files, |done, total| {
        bar.draw("copying", done, total);
    });
    bar.finish();
    let bytes = made.map_err(|error| failure(error, &database, "name another file"))?;
    if std::env::var_os(token::SECRET_FILE).is_some() {
        output.note(&format!(
            "the token secret that {} names is not in it: keep that file, too",
            token::SECRET_FILE
        ));
    }
    output.result(
        &format!(
            "backed up {} to {} ({bytes} bytes); it holds the server's secrets: keep it safe",
            database.display(),
            args.to.display(),
        ),
        &json!({ "type": "backup", "database": database, "file": args.to, "bytes": bytes }),
    );
    Ok(Exit::Done)
}

pub(crate) fn restore(args: &Restore, output: &Output) -> anyhow::Result<Exit> {
    let (data, database) = place(&args.data)?;
    let before = args
        .force
        .then(|| format!("before-{}", engine::now().as_millis()));
    let is_replaced = database.exists();
    let bar = Bar::new(output);
    let restored =
        syncline_store_sqlite::restore(&args.from, &database, before.as_deref(), |done, total| {
            bar.draw("restoring", done, total);
        });
    bar.finish();
    let hint = "--force replaces it and keeps it under another name";
    let files = restored.map_err(|error| failure(error, &database, hint))?;
    for (name, content) in files {
        // The names come from a file that somebody else may have made.
        if SIDE_FILES.contains(&name.as_str()) {
            put(&data, &name, &content, before.as_deref())?;
        }
    }
    let kept = before.filter(|_| is_replaced).map(|before| {
        let mut name = database.clone().into_os_string();
        name.push(format!("-{before}"));
        PathBuf::from(name)
    });
    let aside = kept.as_ref().map_or_else(String::new, |kept| {
        format!("; what was there is now {}", kept.display())
    });
    output.result(
        &format!(
            "restored {} from {}{aside}\n\
             devices send again what they had sent since, when they next connect",
            database.display(),
            args.from.display(),
        ),
        &json!({ "type": "restored", "database": database, "file": args.from, "kept": kept }),
    );
    Ok(Exit::Done)
}

/// The folder of a server's data, and its database.
fn place(args: &DataArgs) -> anyhow::Result<(PathBuf, PathBuf)> {
    let config = args.settings().read_for_data()?;
    let data = PathBuf::from(&config.server.data);
    let database = super::serve::database(&config, &data);
    Ok((data, database))
}

/// Writes one of the small files; an older one stays under another name.
fn put(data: &Path, name: &str, content: &[u8], before: Option<&str>) -> anyhow::Result<()> {
    let path = data.join(name);
    if fs::read(&path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if path.exists() {
        let suffix = before.unwrap_or("before");
        fs::rename(&path, data.join(format!("{name}-{suffix}")))
            .with_context(|| format!("move {} aside", path.display()))?;
    }
    token::write_private(&path, content).with_context(|| format!("write {}", path.display()))
}

/// `hint`: what to do when a file is there already.
fn failure(error: BackupError, database: &Path, hint: &str) -> anyhow::Error {
    let (exit, message) = match &error {
        BackupError::NotFound(path) if path == database => (
            Exit::NotFound,
            format!("{error}: --data names the folder of the server's data"),
        ),
        BackupError::NotFound(_) => (Exit::NotFound, error.to_string()),
        BackupError::Exists(_) => (Exit::AlreadyThere, format!("{error}; {hint}")),
        BackupError::NotABackup(_) | BackupError::NotAServer(_) => {
            (Exit::NotADatabase, error.to_string())
        }
        BackupError::DiskFull(_) => (Exit::DiskFull, error.to_string()),
        BackupError::Open(open) => {
            let exit = match open {
                OpenError::InUse { .. } => Exit::ServerData,
                OpenError::NotADatabase { .. } => Exit::NotADatabase,
                OpenError::Newer { .. } => Exit::NewerFormat,
                OpenError::Damaged { .. } => Exit::Corrupt,
                OpenError::Io { source, .. }
                    if source.kind() == std::io::ErrorKind::PermissionDenied =>
                {
                    Exit::ReadOnly
                }
                OpenError::Replica { .. }
                | OpenError::Restoring { .. }
                | OpenError::Sqlite { .. }
                | OpenError::Io { .. }
                | OpenError::Database { .. } => Exit::Unexpected,
            };
            (exit, error.to_string())
        }
    };
    Failure::new(exit, message).into()
}

/// A bar for a terminal; nothing elsewhere.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(output: &Output) -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg} {bar:30} {percent:>3} % {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(
            output
                .is_interactive()
                .then(|| ProgressBar::no_length().with_style(style)),
        )
    }

    fn draw(&self, verb: &'static str, done: u32, total: u32) {
        if let Some(bar) = &self.0 {
            bar.set_message(verb);
            bar.set_length(total.into());
            bar.set_position(done.into());
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
