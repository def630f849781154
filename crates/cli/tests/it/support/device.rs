//! A database file with a user, and the commands run on it.

use std::path::PathBuf;

use serde_json::Value;

use super::{Outcome, Process, Scratch, Server, exit, rows, sql};

/// One file of one user.
#[derive(Clone)]
pub(crate) struct Device<'a> {
    pub(crate) scratch: &'a Scratch,
    pub file: PathBuf,
    pub url: String,
    pub token: String,
}

impl<'a> Device<'a> {
    pub(crate) fn new(scratch: &'a Scratch, server: &Server<'_>, file: &str, user: &str) -> Self {
        Self {
            scratch,
            file: scratch.path(file),
            url: server.url.clone(),
            token: server.token(user),
        }
    }

    /// A file with these tables and rows, attached and seeded.
    pub(crate) fn seeded(
        scratch: &'a Scratch,
        server: &Server<'_>,
        file: &str,
        user: &str,
        statements: &str,
    ) -> Self {
        let device = Self::new(scratch, server, file, user);
        scratch.database(file, statements);
        device.run("attach", &["--yes"]).expect(exit::DONE);
        device.run("seed", &[]).expect(exit::DONE);
        device.run("sync", &[]).expect(exit::DONE);
        device
    }

    /// A new file with everything the server has for the user.
    pub(crate) fn hydrated(
        scratch: &'a Scratch,
        server: &Server<'_>,
        file: &str,
        user: &str,
    ) -> Self {
        let device = Self::new(scratch, server, file, user);
        device.run("hydrate", &[]).expect(exit::DONE);
        device
    }

    pub(crate) fn command(&self, command: &str, args: &[&str]) -> std::process::Command {
        let mut all = vec![command, self.file.to_str().expect("a plain path")];
        all.extend(args);
        let mut command = self.scratch.command(&all);
        command
            .env("SYNCLINE_URL", &self.url)
            .env("SYNCLINE_TOKEN", &self.token);
        command
    }

    /// `syncline COMMAND FILE ARGS --json` as this user.
    pub(crate) fn run(&self, command: &str, args: &[&str]) -> Outcome {
        Outcome::of(self.command(command, args).arg("--json"))
    }

    /// The same for a person's eyes.
    pub(crate) fn say(&self, command: &str, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(command, args))
    }

    /// The same, beside the test.
    pub(crate) fn start(&self, command: &str, args: &[&str]) -> Process {
        Process::start(self.command(command, args).arg("--json"))
    }

    /// `sync`, to its end.
    #[track_caller]
    pub(crate) fn sync(&self) -> Outcome {
        self.run("sync", &[]).expect(exit::DONE)
    }

    /// `sync --watch`, connected and in step.
    #[track_caller]
    pub(crate) fn watch(&self) -> Process {
        let mut process = self.start("sync", &["--watch"]);
        process.wait_for_type("live");
        process
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.run("status", &[]).expect(exit::DONE).one("status")
    }

    /// `verify`, and that it says equal; how many rows.
    #[track_caller]
    pub(crate) fn verify(&self) -> u64 {
        let outcome = self.run("verify", &[]).expect(exit::DONE);
        assert_eq!(outcome.one("verified")["equal"], true);
        let tables = outcome.all("table");
        tables.iter().filter_map(|t| t["equal"].as_u64()).sum()
    }

    #[track_caller]
    pub(crate) fn sql(&self, statements: &str) {
        sql(&self.file, statements);
    }

    #[track_caller]
    pub(crate) fn rows(&self, query: &str) -> String {
        rows(&self.file, query)
    }
}

/// Brings devices in step with each other: what the last one sends reaches the first.
#[track_caller]
pub(crate) fn sync_all(devices: &[&Device<'_>]) {
    for device in devices.iter().chain(devices) {
        device.sync();
    }
}
