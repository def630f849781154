//! Running the binary: to its end, or beside the test.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longer than anything takes, even on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What a finished process left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().expect("run the binary");
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts the exit code; an unexpected one shows everything that was said.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of {self:#?}");
        self
    }

    /// Asserts that the error says each of these.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {self:#?}");
        }
        self
    }

    /// The JSON lines on standard output.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| {
                let line =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
                super::documented::assert_documented(&line);
                line
            })
            .collect()
    }

    /// The lines of one type.
    pub(crate) fn all(&self, kind: &str) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["type"] == kind);
        lines
    }

    /// The only line of a type.
    #[track_caller]
    pub(crate) fn one(&self, kind: &str) -> Value {
        let mut lines = self.all(kind);
        assert_eq!(lines.len(), 1, "lines of type {kind} in {self:#?}");
        lines.remove(0)
    }
}

/// A process that runs beside the test; killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<Value>,
    stderr: Option<JoinHandle<String>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the binary");
        let stdout = child.stdout.take().expect("piped");
        let mut errors = child.stderr.take().expect("piped");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if send.send(value).is_err() {
                    return;
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _cut_off = errors.read_to_string(&mut text);
            text
        });
        Self {
            child,
            lines,
            stderr: Some(stderr),
        }
    }

    /// The next line of which `wanted` is true; lines before it are skipped.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if wanted(&line) => return line,
                Ok(line) => seen.push(line),
                Err(error) => {
                    let ended = error == RecvTimeoutError::Disconnected;
                    self.kill();
                    let stderr = self.stderr();
                    panic!("waiting for {what}; ended by itself: {ended}\n{seen:#?}\n{stderr}");
                }
            }
        }
    }

    /// Waits for the next line of a type.
    #[track_caller]
    pub(crate) fn wait_for_type(&mut self, kind: &str) -> Value {
        self.wait_for(kind, |line| line["type"] == kind)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`; nothing is cleaned up.
    pub(crate) fn kill(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }

    /// A polite end, as Ctrl-C or a service manager asks for it; the exit code.
    pub(crate) fn terminate(&mut self) -> i32 {
        self.ask_to_end();
        self.wait()
    }

    /// As [`Process::terminate`], without waiting for the end.
    pub(crate) fn ask_to_end(&self) {
        let asked = Command::new("kill").arg(self.id().to_string()).status();
        assert!(asked.expect("run kill").success());
    }

    /// The type of the next line; `None` when the process ended before it said anything.
    pub(crate) fn next_type(&mut self) -> Option<String> {
        let line = self.lines.recv_timeout(PATIENCE).ok()?;
        line["type"].as_str().map(str::to_owned)
    }

    /// Waits for the end; the exit code.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("ask for the status") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything on standard error, once the process has ended.
    pub(crate) fn stderr(&mut self) -> String {
        self.stderr
            .take()
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks again and again until `is` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}
