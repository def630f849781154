//! An app's process as the harness sees it: what it said it made, and what it was told is safe.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rusqlite::Connection;
use serde_json::Value;

use crate::{
    disk::Disk,
    lab::{Lab, run},
    process::{PATIENCE, Process},
    server::{Server, TABLES},
};

/// The exit code for a server that cannot be reached.
const UNREACHABLE: i32 = 13;
/// Names of the devices of a round.
pub(crate) const NAMES: [&str; 4] = ["d1", "d2", "d3", "d4"];
const NOTES_MAX: usize = 400;

pub(crate) struct Device {
    pub name: String,
    /// The folder of its file, its disk.
    pub folder: PathBuf,
    pub file: PathBuf,
    pub journal: &'static str,
    /// Where it finds the server, perhaps through a proxy.
    pub url: String,
    token: String,
    /// How many of its own edits it keeps; all when `None`.
    pub keep: Option<u64>,
    pub process: Option<Process>,
    /// The last edit whose COMMIT returned.
    pub made: u64,
    /// The last edit that the engine said is at the server.
    pub acked: u64,
    /// How often it said that it is connected and in step.
    pub lives: u64,
    /// How often it said that it has disconnected as it was told.
    pub offs: u64,
    /// When each edit was made, if it tells times: number, microseconds.
    pub wrote: Vec<(u64, u64)>,
    /// When it saw others' edits: device, number, microseconds.
    pub saw: Vec<(String, u64, u64)>,
    pub notes: Vec<String>,
    resting: Option<u64>,
}

/// `count` devices of one user, in step with the server and attached. None runs yet.
pub(crate) fn fleet(
    lab: &Lab,
    folder: &Path,
    server: &Server,
    count: usize,
    journal: &'static str,
) -> Result<Vec<Device>> {
    let token = server.token(lab, "ana")?;
    let mut devices = Vec::new();
    for name in &NAMES[..count] {
        let own = folder.join(name);
        std::fs::create_dir_all(&own)?;
        let device = Device {
            name: (*name).to_owned(),
            file: own.join("app.db"),
            folder: own,
            journal,
            url: server.url.clone(),
            token: token.clone(),
            keep: None,
            process: None,
            made: 0,
            acked: 0,
            lives: 0,
            offs: 0,
            wrote: Vec::new(),
            saw: Vec::new(),
            notes: Vec::new(),
            resting: None,
        };
        if devices.is_empty() {
            seed(lab, &device)?;
        } else {
            device.run(lab, "hydrate", &[], 0)?;
        }
        devices.push(device);
    }
    Ok(devices)
}

fn seed(lab: &Lab, device: &Device) -> Result<()> {
    let conn = Connection::open(&device.file)?;
    conn.execute_batch(TABLES)?;
    conn.execute("INSERT INTO counters VALUES ('all', 0)", [])?;
    for name in NAMES {
        for side in ["a", "b"] {
            conn.execute(
                "INSERT INTO pairs VALUES (?1, 0)",
                [format!("{name}-{side}")],
            )?;
        }
    }
    drop(conn);
    device.run(lab, "attach", &["--yes"], 0)?;
    device.run(lab, "seed", &[], 0)?;
    Ok(())
}

impl Device {
    /// `syncline COMMAND FILE ARGS --json` as its user, which must end with `code`. A server that
    /// cannot be reached, because it starts or the machine is busy, is tried again, as people do.
    pub(crate) fn run(
        &self,
        lab: &Lab,
        command: &str,
        args: &[&str],
        code: i32,
    ) -> Result<Vec<Value>> {
        let deadline = Instant::now() + PATIENCE;
        let mut command = command;
        loop {
            let ended = run(&mut self.command(lab, command, args)?)?;
            if ended.code == Some(UNREACHABLE) && code != UNREACHABLE && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(200));
                // A file that was begun goes on with `sync`.
                if command == "hydrate" && self.file.exists() {
                    command = "sync";
                }
                continue;
            }
            return ended.lines(code);
        }
    }

    fn command(&self, lab: &Lab, command: &str, args: &[&str]) -> Result<std::process::Command> {
        let file = self.file.to_str().context("a plain path")?;
        let all: Vec<&str> = [command, file, "--json"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let mut command = lab.syncline(&self.folder, &all);
        command
            .env("SYNCLINE_URL", &self.url)
            .env("SYNCLINE_TOKEN", &self.token)
            .stdin(std::process::Stdio::null());
        Ok(command)
    }

    /// The same with whatever exit code comes of it.
    pub(crate) fn attempt(&self, lab: &Lab, command: &str, args: &[&str]) -> Result<i32> {
        let output = self.command(lab, command, args)?.output()?;
        let code = output.status.code().context("it was killed")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            code != 101 && code != 1,
            "{command} ended with {code}: {said}"
        );
        Ok(code)
    }

    /// Another file of the same user, not made yet.
    pub(crate) fn copy(&self, file: &Path) -> Self {
        Self {
            name: self.name.clone(),
            folder: self.folder.clone(),
            file: file.to_owned(),
            journal: self.journal,
            url: self.url.clone(),
            token: self.token.clone(),
            keep: self.keep,
            process: None,
            made: 0,
            acked: 0,
            lives: 0,
            offs: 0,
            wrote: Vec::new(),
            saw: Vec::new(),
            notes: Vec::new(),
            resting: None,
        }
    }

    /// From now on the user of this token.
    pub(crate) fn be(&mut self, token: &str) {
        token.clone_into(&mut self.token);
    }

    /// The id that the server knows it by.
    pub(crate) fn identity(&self, lab: &Lab) -> Result<Value> {
        let said = self.run(lab, "status", &[], 0)?;
        Ok(said.last().context("a status")?["device"].clone())
    }

    /// Starts the app. What it made before must be in its file.
    pub(crate) fn start(&mut self, lab: &Lab, disk: Option<&Disk>, extra: &[&str]) -> Result<()> {
        self.try_start(lab, disk, extra)?;
        let found = self.wait("the app to open its file", |line| {
            let mut words = line.strip_prefix("open ")?.split(' ');
            Some((
                words.next()?.parse::<u64>().ok()?,
                words.next()?.parse::<u64>().ok()?,
            ))
        })?;
        self.opened(found)
    }

    /// Starts it without waiting for it.
    pub(crate) fn try_start(
        &mut self,
        lab: &Lab,
        disk: Option<&Disk>,
        extra: &[&str],
    ) -> Result<()> {
        let file = self.file.to_str().context("a plain path")?;
        let args = [
            "app",
            "--file",
            file,
            "--name",
            &self.name,
            "--journal",
            self.journal,
        ];
        let keep = self.keep.map(|keep| keep.to_string());
        let keep = keep.iter().flat_map(|keep| ["--rows", keep]);
        let all: Vec<&str> = args
            .into_iter()
            .chain(keep)
            .chain(extra.iter().copied())
            .collect();
        let mut command = lab.harness(&self.folder, &all);
        command
            .env("SYNCLINE_URL", &self.url)
            .env("SYNCLINE_TOKEN", &self.token);
        if let Some(disk) = disk {
            disk.put_under(&mut command);
        }
        self.resting = None;
        self.process = Some(Process::start(&mut command)?);
        Ok(())
    }

    /// The app told what its file holds.
    pub(crate) fn opened(&mut self, (have, last): (u64, u64)) -> Result<()> {
        let kept = self.keep.map_or(last, |keep| keep.min(last));
        ensure!(
            have == kept && last >= self.made,
            "LOST: {} had made {} edits, its file holds {have} up to {last}",
            self.name,
            self.made
        );
        self.made = last;
        Ok(())
    }

    fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the app does not run")
    }

    pub(crate) fn tell(&mut self, line: &str) {
        if let Some(process) = &mut self.process {
            process.tell(line);
        }
    }

    /// An error once it has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        if let Some(code) = self.process()?.ended()? {
            bail!("the app ended with {code}; {}", self.story());
        }
        Ok(())
    }

    /// Takes in everything it has said.
    pub(crate) fn hear(&mut self) {
        let said = self.process.as_mut().map(Process::said).unwrap_or_default();
        for line in said {
            self.heard(&line);
        }
    }

    fn heard(&mut self, line: &str) {
        let number = |text: &str| text.parse::<u64>().ok();
        match line.split_once(' ') {
            Some(("made", n)) => self.made = number(n).unwrap_or(self.made),
            Some(("wrote", text)) => {
                let mut words = text.split(' ').filter_map(number);
                self.wrote.extend(words.next().zip(words.next()));
            }
            Some(("saw", text)) => {
                if let [name, n, at] = text.split(' ').collect::<Vec<_>>()[..] {
                    let times = number(n).zip(number(at));
                    self.saw
                        .extend(times.map(|(n, at)| (name.to_owned(), n, at)));
                }
            }
            Some(("acked", n)) => self.acked = number(n).unwrap_or(self.acked).max(self.acked),
            Some(("rest", n)) => self.resting = number(n),
            None if line == "live" => self.lives += 1,
            None if line == "off" => self.offs += 1,
            _ if self.notes.len() < NOTES_MAX => self.notes.push(line.to_owned()),
            _ => {}
        }
    }

    fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(line) = self.process()?.line(Duration::from_millis(100))? {
                if let Some(found) = wanted(&line) {
                    return Ok(found);
                }
                self.heard(&line);
            }
        }
        bail!("waiting for {what}; {}", self.story())
    }

    /// Waits until a condition on what it has said holds.
    pub(crate) fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.hear();
            if is(self) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("waiting for {what}; {}", self.story());
            }
            if let Some(line) = self.process()?.line(Duration::from_millis(20))? {
                self.heard(&line);
            }
        }
    }

    /// Waits for a further acknowledgement.
    pub(crate) fn until_acked(&mut self) -> Result<()> {
        let before = self.acked;
        self.until("an acknowledgement", |device| device.acked > before)
    }

    /// Lets it disconnect, and waits until it has.
    pub(crate) fn disconnect(&mut self) -> Result<()> {
        let before = self.offs;
        self.tell("off");
        self.until("the end of its connection", |device| device.offs > before)
    }

    /// Asks the engine what waits, and waits for its answer.
    pub(crate) fn look(&mut self) -> Result<u64> {
        self.resting = None;
        self.tell("look");
        self.until("what waits", |device| device.resting.is_some())?;
        self.resting.context("what waits")
    }

    /// Stops its edits and waits until the server has them all.
    pub(crate) fn drain(&mut self) -> Result<()> {
        self.tell("stop");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = self.made;
            let waits = self.look()?;
            if waits == 0 && self.acked == self.made && self.made == before {
                return Ok(());
            }
            if Instant::now() > deadline {
                let story = self.story();
                bail!("the outbox does not empty: {waits} wait; {story}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `kill -9`; what it had said before counts.
    pub(crate) fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
        self.ended();
    }

    /// Takes in the last words of a process that has ended.
    pub(crate) fn ended(&mut self) {
        if let Some(mut process) = self.process.take() {
            for line in process.last_words() {
                self.heard(&line);
            }
        }
    }

    /// What it noted last, for people.
    pub(crate) fn story(&mut self) -> String {
        let errors = self
            .process
            .as_mut()
            .map(Process::errors)
            .unwrap_or_default();
        let head = format!(
            "{} made {}, {} are acknowledged{errors}",
            self.name, self.made, self.acked
        );
        let notes = self.notes.iter().rev().take(12).rev();
        notes.fold(head, |all, line| all + "\n    " + line)
    }
}
