//! What is done with bytes that a fuzzer made up: every decoder, both session machines, the
//! parsers, the HTTP front and files of strangers.
//!
//! A target takes any bytes and returns; what must not be (a panic, a value that does not survive
//! a round trip, a row that somebody may not see) panics. libFuzzer explores them (`fuzz/`), and an
//! ordinary test replays what it found, on any compiler.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a target that finds something is to stop there"
)]

mod context;
mod conversations;
mod file;
mod http;
mod parsers;
mod replica_session;
mod server_session;
mod sim;
mod stored;
mod values;
mod wire;

pub use conversations::seeds;

/// One thing that bytes are thrown at.
#[derive(Clone, Copy)]
pub struct Target {
    /// Also the name of the libFuzzer binary and of the folder of its corpus.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// All of them, in the order of the documentation.
pub const TARGETS: &[Target] = &[
    target("client_frame", wire::client_frame),
    target("server_frame", wire::server_frame),
    target("inflate", wire::inflate),
    target("changeset", wire::changeset),
    target("stored", stored::stored),
    target("key", values::key),
    target("merge", values::merge),
    target("token", values::token),
    target("envelope", values::envelope),
    target("config", parsers::config),
    target("rule", parsers::rule),
    target("server_session", server_session::server_session),
    target("replica_session", replica_session::replica_session),
    target("http", http::http),
    target("file", file::file),
    target("sim", sim::sim),
];

/// Runs the target of this name; `false` when there is none.
pub fn run(name: &str, bytes: &[u8]) -> bool {
    let target = TARGETS.iter().find(|target| target.name == name);
    if let Some(target) = target {
        (target.run)(bytes);
    }
    target.is_some()
}
