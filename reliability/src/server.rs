//! The `syncline` program as a server.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    disk::{self, Disk},
    lab::{Lab, finish},
    process::Process,
};

/// Each edit of an app is one transaction over all three tables.
pub(crate) const CONFIG: &str = r#"
[tables.log]
columns = { id = "text primary key", device = "text not null", n = "integer not null", body = "text not null" }
read  = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"
[tables.counters]
columns = { id = "text primary key", n = "integer not null default 0" }
read  = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"
merge = { n = "counter" }
[tables.pairs]
columns = { id = "text primary key", n = "integer not null" }
read  = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"
"#;

/// The same tables in an app's file.
pub(crate) const TABLES: &str = "
    CREATE TABLE log (id TEXT PRIMARY KEY NOT NULL, device TEXT NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE TABLE counters (id TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE pairs (id TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL);";

/// A server with its data below the folder of a round.
pub(crate) struct Server {
    pub process: Process,
    folder: PathBuf,
    pub url: String,
}

impl Server {
    /// Starts one with a new database at any free port.
    pub(crate) fn start(lab: &Lab, folder: &Path, disk: Option<&Disk>) -> Result<Self> {
        Self::start_with(lab, folder, disk, CONFIG)
    }

    /// The same with other tables.
    pub(crate) fn start_with(
        lab: &Lab,
        folder: &Path,
        disk: Option<&Disk>,
        config: &str,
    ) -> Result<Self> {
        std::fs::write(folder.join("syncline.toml"), config)?;
        let (process, url) = listen(lab, folder, "127.0.0.1:0", disk)?;
        Ok(Self {
            process,
            folder: folder.to_owned(),
            url,
        })
    }

    /// Starts it again with the same data at the same address.
    pub(crate) fn restart(&mut self, lab: &Lab, disk: Option<&Disk>) -> Result<()> {
        let address = self.address().to_owned();
        (self.process, _) = listen(lab, &self.folder, &address, disk)?;
        Ok(())
    }

    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join("data").join("syncline.db")
    }

    pub(crate) fn token(&self, lab: &Lab, user: &str) -> Result<String> {
        token(lab, &self.folder, user)
    }
}

/// A token of the server whose data is below `folder`.
pub(crate) fn token(lab: &Lab, folder: &Path, user: &str) -> Result<String> {
    let args = ["token", "--user", user, "--data", "data", "--json"];
    let said = finish(&mut lab.syncline(folder, &args), 0)?;
    let token = said.first().and_then(|line| line["token"].as_str());
    Ok(token
        .with_context(|| format!("a token, not {said:?}"))?
        .to_owned())
}

fn listen(
    lab: &Lab,
    folder: &Path,
    address: &str,
    disk: Option<&Disk>,
) -> Result<(Process, String)> {
    let args = ["serve", "--data", "data", "--listen", address, "--json"];
    let mut command = lab.syncline(folder, &args);
    command
        .env("MALLOC_MMAP_THRESHOLD_", "65536")
        .env("MALLOC_TRIM_THRESHOLD_", "65536");
    match disk {
        Some(disk) => disk.put_under(&mut command),
        // What was freed goes back to the system: what is left is what the server holds.
        None => disk::trim(lab, &mut command)?,
    }
    let mut process = Process::start(&mut command)?;
    let url = process.wait_for("the server to listen", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["url"].as_str().map(str::to_owned)
    })?;
    Ok((process, url))
}
