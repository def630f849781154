//! A folder for one run, and the programs that run in it.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// Where a scenario's files are. Each round has a folder of its own.
pub(crate) struct Lab {
    folder: TempDir,
    syncline: PathBuf,
    harness: PathBuf,
    rounds: u32,
    keep: bool,
}

impl Lab {
    /// Looks for the `syncline` program beside this one.
    pub(crate) fn new(keep: bool) -> Result<Self> {
        let harness = std::env::current_exe().context("find this program")?;
        let syncline = harness.with_file_name("syncline");
        ensure!(
            syncline.exists(),
            "there is no {}: build it beside this program (`make reliability` does)",
            syncline.display()
        );
        let folder = tempfile::Builder::new()
            .prefix("syncline-reliability-")
            .tempdir_in(place())?;
        Ok(Self {
            folder,
            syncline,
            harness,
            rounds: 0,
            keep,
        })
    }

    /// A new, empty folder; the one of the round before is removed.
    pub(crate) fn round(&mut self) -> Result<PathBuf> {
        let name = |round: u32| format!("round-{round}");
        let _none_yet = std::fs::remove_dir_all(self.folder.path().join(name(self.rounds)));
        self.rounds += 1;
        let path = self.folder.path().join(name(self.rounds));
        std::fs::create_dir_all(&path)?;
        // What the disk is told is without links in it.
        path.canonicalize().context("its real path")
    }

    pub(crate) fn keep_if_wanted(&mut self) {
        if self.keep {
            self.folder.disable_cleanup(true);
            eprintln!("files: {}", self.folder.path().display());
        }
    }

    /// What all rounds use.
    pub(crate) fn shared(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The `syncline` program, in `folder`, with nothing of the developer's environment.
    pub(crate) fn syncline<S: AsRef<OsStr>>(&self, folder: &Path, args: &[S]) -> Command {
        clean(&self.syncline, folder, args)
    }

    /// This program again, in another role.
    pub(crate) fn harness<S: AsRef<OsStr>>(&self, folder: &Path, args: &[S]) -> Command {
        clean(&self.harness, folder, args)
    }
}

/// `TMPDIR`, or memory where the system has a folder in it: what a disk does to files is modelled
/// here, and a real one would only take its time.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if std::env::var_os("TMPDIR").is_none() && memory.is_dir() {
        return memory.to_owned();
    }
    std::env::temp_dir()
}

fn clean<S: AsRef<OsStr>>(program: &Path, folder: &Path, args: &[S]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SYNC") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .current_dir(folder)
        .env("SYNCLINE_HOME", folder.join("home"))
        .env("RUST_BACKTRACE", "1");
    command
}

/// How a command ended.
pub(crate) struct Ended {
    command: String,
    pub code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// The JSON lines it printed, if its exit code is `code`.
    pub(crate) fn lines(&self, code: i32) -> Result<Vec<Value>> {
        if self.code != Some(code) {
            bail!(
                "{} ended with {:?}, not {code}\n{}{}",
                self.command,
                self.code,
                self.stdout,
                self.stderr
            );
        }
        let lines = self.stdout.lines().map(|line| {
            serde_json::from_str(line).with_context(|| format!("a line of JSON, not {line:?}"))
        });
        lines.collect()
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<Ended> {
    let output = command.stdin(std::process::Stdio::null()).output()?;
    Ok(Ended {
        command: format!("{:?}", command.get_args().collect::<Vec<_>>()),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a command to its end; the JSON lines it printed, if its exit code is `code`.
pub(crate) fn finish(command: &mut Command, code: i32) -> Result<Vec<Value>> {
    run(command)?.lines(code)
}
