//! The `syncline` program as a server, and what the operating system says of it.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::rows::CONFIG;

/// How a server ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// It was told to, and tells its sessions.
    Stopped,
    Killed,
}

/// A running server with a new database. Stopped when dropped.
pub(crate) struct Server {
    process: Child,
    program: std::path::PathBuf,
    folder: TempDir,
    pub url: String,
}

impl Server {
    pub(crate) fn start(program: &Path) -> Result<Self> {
        Self::start_with(program, CONFIG)
    }

    /// With another configuration.
    pub(crate) fn start_with(program: &Path, config: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("syncline.toml"), config)?;
        let (process, url) = serve(program, folder.path(), "127.0.0.1:0")?;
        Ok(Self {
            process,
            program: program.to_owned(),
            folder,
            url,
        })
    }

    /// Ends the server, in order or at once, and starts another one of its data where it listened.
    pub(crate) fn restart(&mut self, end: End) -> Result<()> {
        match end {
            End::Stopped => {
                let id = self.process.id().to_string();
                let told = Command::new("kill").args(["-TERM", &id]).status()?;
                if !told.success() {
                    bail!("the server could not be told to stop");
                }
            }
            End::Killed => self.process.kill()?,
        }
        self.process.wait()?;
        let listen = self.url.trim_start_matches("http://").to_owned();
        (self.process, _) = serve(&self.program, self.folder.path(), &listen)?;
        Ok(())
    }

    /// A token for `user`.
    pub(crate) fn token(&self, user: &str) -> Result<String> {
        let made = command(&self.program, self.folder.path())
            .args(["token", "--user", user, "--data", "data"])
            .output()?;
        if !made.status.success() {
            bail!("no token: {}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(String::from_utf8(made.stdout)?.trim().to_owned())
    }

    /// Processor time so far, of all threads that are still there.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            // A thread may end while they are counted.
            if let Ok(stat) = std::fs::read_to_string(task?.path().join("schedstat")) {
                let first = stat.split_whitespace().next().context("a thread's time")?;
                nanos += first.parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Resident memory in KiB: now, and at most since [`Server::forget_peak`].
    pub(crate) fn memory_kib(&self) -> Result<(u64, u64)> {
        memory_kib(self.process.id())
    }

    /// Lets the peak of memory begin anew.
    pub(crate) fn forget_peak(&self) -> Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5")
            .context("forget the peak of the server's memory")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

/// Resident memory of a process in KiB: now, and at most so far.
pub(crate) fn memory_kib(process: u32) -> Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number
            .with_context(|| format!("no {name} of a process"))?
            .parse()?)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Starts it, and waits until it listens; its address.
fn serve(program: &Path, folder: &Path, listen: &str) -> Result<(Child, String)> {
    let mut process = command(program, folder)
        .args(["serve", "--data", "data", "--listen", listen, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let stdout = process.stdout.take().context("its output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let said: serde_json::Value = serde_json::from_str(&line)
        .with_context(|| format!("the server did not start; it said {line:?}"))?;
    let url = said["url"].as_str().context("its address")?.to_owned();
    Ok((process, url))
}

/// The program, with nothing set but what the caller sets.
pub(crate) fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SYNCLINE_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).env("SYNCLINE_LOG", "error");
    command
}
