//! A process that is started, heard and killed.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

/// After this something hangs. Much longer than anything takes, however busy the machine: nothing
/// else is judged by the clock.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
/// Lines of standard error that are kept.
const ERRORS_MAX: usize = 200;

/// A process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Arc<Mutex<VecDeque<String>>>,
    /// Bytes it said on standard error.
    error_bytes: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {:?}", command.get_program()))?;
        let stdout = child.stdout.take().context("its output")?;
        let stderr = child.stderr.take().context("its errors")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&errors);
        let error_bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&error_bytes);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                counted.fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == ERRORS_MAX {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            lines,
            errors,
            error_bytes,
            reader: Some(reader),
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it says next, or `None` after `patience`; an error once it has ended and said all.
    pub(crate) fn line(&mut self, patience: Duration) -> Result<Option<String>> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                let code = self.wait(PATIENCE)?;
                Err(anyhow!("it has ended with {code}{}", self.errors()))
            }
        }
    }

    /// What it has said and nobody heard yet.
    pub(crate) fn said(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Everything else it said, once it has ended.
    pub(crate) fn last_words(&mut self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// Waits for a line that `wanted` makes something of.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .line(left)
                .with_context(|| format!("waiting for {what}"))?;
            let Some(line) = line else {
                bail!(
                    "waiting for {what}: nothing came; it said {}",
                    self.errors()
                );
            };
            if let Some(found) = wanted(&line) {
                return Ok(found);
            }
        }
    }

    /// Writes a line to its standard input. One that has ended does not hear it.
    pub(crate) fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _deaf = writeln!(stdin, "{line}");
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }

    /// Sends a signal by its name: `STOP`, `CONT`, `TERM`.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let id = self.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status()?;
        anyhow::ensure!(status.success(), "kill -s {name} {id}");
        Ok(())
    }

    /// Its exit code if it has ended; -1 for one that was killed.
    pub(crate) fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self
            .child
            .try_wait()?
            .map(|status| status.code().unwrap_or(-1)))
    }

    /// How much it has said on standard error: its log.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.error_bytes.load(Ordering::Relaxed)
    }

    /// Waits for its end; the exit code.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(code) = self.ended()? {
                return Ok(code);
            }
            if Instant::now() > deadline {
                bail!("it does not end; it said {}", self.errors());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The end of what it said on standard error.
    pub(crate) fn errors(&mut self) -> String {
        if matches!(self.ended(), Ok(Some(_)))
            && let Some(reader) = self.reader.take()
        {
            let _panicked = reader.join();
        }
        let kept = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|line| format!("\n    {line}")).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
