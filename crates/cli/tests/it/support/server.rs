//! A `syncline serve` of the test's own.

use super::{Process, Scratch, exit, wait_until};

/// A running server with its data in a folder of the scratch folder.
pub(crate) struct Server<'a> {
    scratch: &'a Scratch,
    process: Process,
    args: Vec<String>,
    data: String,
    pub url: String,
}

impl<'a> Server<'a> {
    /// `serve --dev` with its data in `data`.
    pub(crate) fn dev(scratch: &'a Scratch, data: &str) -> Self {
        Self::start(scratch, data, &["--dev"])
    }

    /// `serve` with this configuration.
    pub(crate) fn with_config(scratch: &'a Scratch, data: &str, config: &str) -> Self {
        let file = format!("{data}.toml");
        scratch.write(&file, config);
        Self::start(scratch, data, &["--config", &file])
    }

    pub(crate) fn start(scratch: &'a Scratch, data: &str, args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let (process, url) = listen(scratch, data, &args, "127.0.0.1:0");
        Self {
            scratch,
            process,
            args,
            data: data.to_owned(),
            url,
        }
    }

    /// `kill -9`, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// A polite end; the exit code.
    pub(crate) fn terminate(&mut self) -> i32 {
        self.process.terminate()
    }

    /// Starts again at the same address with the same data.
    pub(crate) fn restart(&mut self) {
        let address = self.url.trim_start_matches("http://").to_owned();
        (self.process, self.url) = listen(self.scratch, &self.data, &self.args, &address);
    }

    /// Asks the process to end and starts the next one at once, which is refused the address and
    /// the data until the old one has let go of them.
    pub(crate) fn replace(&mut self) {
        self.process.ask_to_end();
        let address = self.url.trim_start_matches("http://").to_owned();
        let mut all: Vec<&str> = vec!["serve", "--data", &self.data, "--listen", &address];
        all.extend(self.args.iter().map(String::as_str));
        wait_until("the next server has taken over", || {
            let mut next = self.scratch.start(&all);
            let is_up = next.next_type().as_deref() == Some("listening");
            if is_up {
                self.process = next;
            }
            is_up
        });
    }

    /// Allows a destructive change from the next start on.
    pub(crate) fn allow(&mut self, what: &str) {
        self.args.extend(["--allow".to_owned(), what.to_owned()]);
    }

    pub(crate) fn port(&self) -> u16 {
        let (_, port) = self.url.rsplit_once(':').expect("a port");
        port.parse().expect("a number")
    }

    /// The database file of the server.
    pub(crate) fn database(&self) -> std::path::PathBuf {
        self.scratch.path(&self.data).join("syncline.db")
    }

    /// A token for `user`.
    pub(crate) fn token(&self, user: &str) -> String {
        self.token_with(&["--user", user])
    }

    pub(crate) fn token_with(&self, args: &[&str]) -> String {
        let all: Vec<&str> = ["token", "--data", &self.data]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let outcome = self.scratch.say(&all).expect(exit::DONE);
        outcome.stdout.trim().to_owned()
    }
}

fn listen(scratch: &Scratch, data: &str, args: &[String], address: &str) -> (Process, String) {
    let mut all: Vec<&str> = vec!["serve", "--data", data, "--listen", address];
    all.extend(args.iter().map(String::as_str));
    let mut process = scratch.start(&all);
    let line = process.wait_for_type("listening");
    let url = line["url"].as_str().expect("an address").to_owned();
    (process, url)
}
