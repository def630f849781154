//! A scratch folder, and the processes that run in it.

mod device;
mod documented;
mod process;
mod proxy;
mod server;
mod stranger;

pub(crate) use device::{Device, sync_all};
pub(crate) use documented::documented_lines;
pub(crate) use process::{Outcome, Process, wait_until};
pub(crate) use proxy::Proxy;
pub(crate) use server::Server;
pub(crate) use stranger::{server_of_protocol, server_that_refuses, web_site};

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rusqlite::Connection;
use tempfile::TempDir;

/// The exit codes that scripts rely on, written out again: the test must notice when one changes.
pub(crate) mod exit {
    pub(crate) const DONE: i32 = 0;
    pub(crate) const UNEXPECTED: i32 = 1;
    pub(crate) const USAGE: i32 = 2;
    pub(crate) const CONFIG: i32 = 3;
    pub(crate) const NOT_FOUND: i32 = 4;
    pub(crate) const NOT_A_DATABASE: i32 = 5;
    pub(crate) const CORRUPT: i32 = 6;
    pub(crate) const READ_ONLY: i32 = 7;
    pub(crate) const LOCKED: i32 = 8;
    pub(crate) const DISK_FULL: i32 = 9;
    pub(crate) const NOT_ATTACHED: i32 = 10;
    pub(crate) const ALREADY_THERE: i32 = 11;
    pub(crate) const NO_SERVER: i32 = 12;
    pub(crate) const UNREACHABLE: i32 = 13;
    pub(crate) const NOT_A_SYNCLINE: i32 = 14;
    pub(crate) const UNAUTHORIZED: i32 = 15;
    pub(crate) const WRONG_SERVER: i32 = 16;
    pub(crate) const WRONG_USER: i32 = 17;
    pub(crate) const PROTOCOL: i32 = 18;
    pub(crate) const NEWER_FORMAT: i32 = 19;
    pub(crate) const DOUBT: i32 = 20;
    pub(crate) const DIFFERS: i32 = 21;
    pub(crate) const TABLE_UNFIT: i32 = 22;
    pub(crate) const REFUSED: i32 = 23;
    pub(crate) const CANNOT_LISTEN: i32 = 24;
    pub(crate) const SERVER_DATA: i32 = 25;
    pub(crate) const COMMAND_FAILED: i32 = 26;
    pub(crate) const DEREGISTERED: i32 = 27;
    pub(crate) const ENCRYPTION_KEY: i32 = 28;
}

/// A scratch folder: the working directory of every process, and the home of their credentials.
pub(crate) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        Self { folder }
    }

    /// Where files are in memory, if the machine has such a place: nothing waits for a disk. What
    /// a killed process wrote stays, as it does with a disk.
    pub(crate) fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        Self {
            folder: folder.expect("a scratch folder"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("write a file into the scratch folder");
        path
    }

    /// The binary with these arguments, nothing of the developer's environment in it.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SYNCLINE_") {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("SYNCLINE_HOME", self.path("home"))
            .stdin(std::process::Stdio::null());
        command
    }

    /// Runs it to its end, with `--json`.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Outcome {
        Outcome::of(self.command(args).arg("--json"))
    }

    /// Runs it to its end as a person would.
    pub(crate) fn say<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Outcome {
        Outcome::of(&mut self.command(args))
    }

    /// Starts it and goes on.
    pub(crate) fn start<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Process {
        Process::start(self.command(args).arg("--json"))
    }

    /// A new database with these statements.
    pub(crate) fn database(&self, name: &str, sql: &str) -> PathBuf {
        let path = self.path(name);
        let conn = open(&path);
        conn.execute_batch(sql).expect("make a database");
        path
    }
}

/// A plain connection, as any other program has it.
pub(crate) fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).expect("open a database");
    conn.busy_timeout(std::time::Duration::from_secs(20))
        .expect("set a timeout");
    conn
}

/// Runs statements in a file as another program would.
pub(crate) fn sql(path: &Path, statements: &str) {
    open(path)
        .execute_batch(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// All rows of a query as text, columns joined by `|`, rows by a line break.
pub(crate) fn rows(path: &Path, query: &str) -> String {
    let conn = open(path);
    let mut statement = conn.prepare(query).expect("a query");
    let columns = statement.column_count();
    let mut found = statement.query([]).expect("run a query");
    let mut lines = Vec::new();
    while let Some(row) = found.next().expect("read a row") {
        let values: Vec<String> = (0..columns)
            .map(|i| match row.get_ref(i).expect("a column") {
                rusqlite::types::ValueRef::Null => "NULL".to_owned(),
                rusqlite::types::ValueRef::Integer(n) => n.to_string(),
                rusqlite::types::ValueRef::Real(x) => x.to_string(),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                rusqlite::types::ValueRef::Blob(bytes) => format!("{bytes:?}"),
            })
            .collect();
        lines.push(values.join("|"));
    }
    lines.join("\n")
}
