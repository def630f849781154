//! The guides in docs/ say what happens: each is run as a reader would type it.

use std::process::Command;

use crate::support::{Outcome, Scratch};

/// Runs the shell blocks of a guide in one shell, and looks for what `# →` promises, in order.
fn follow(guide: &str) {
    let scratch = Scratch::new();
    let port = free_port();
    let mut script = String::from("set -eum\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    let mut promises = Vec::new();
    for block in guide.split("```sh\n").skip(1) {
        let (block, _) = block.split_once("```").expect("a block that ends");
        for line in block.lines() {
            let (command, promise) = line.split_once("# → ").unwrap_or((line, ""));
            if !promise.is_empty() {
                promises.push((command.trim(), promise.trim()));
            }
            script += command;
            script.push('\n');
            // A reader types slower than processes start and end.
            if command.starts_with("kill %") {
                script += "sleep 2\n";
            }
            if command.contains("syncline serve") {
                script += "for _ in $(seq 600); do (exec 3<>/dev/tcp/127.0.0.1/7117) 2>/dev/null && break; sleep 0.05; done\n";
            }
        }
    }
    assert!(!promises.is_empty(), "the guide promises something");
    let script = script.replace("7117", &port.to_string());
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_syncline"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = [binary.parent().expect("a folder").to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&path));
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &script])
        .current_dir(scratch.path(""))
        .stdin(std::process::Stdio::null())
        .env("PATH", std::env::join_paths(path).expect("a path"))
        .env("SYNCLINE_HOME", scratch.path("home"))
        .env("SYNCLINE_LISTEN", format!("127.0.0.1:{port}"));
    let outcome = Outcome::of(&mut shell).expect(0);
    let mut said = outcome.stdout.as_str();
    for (command, promise) in promises {
        let at = said.find(promise);
        let at = at.unwrap_or_else(|| panic!("`{command}` does not say {promise:?}: {outcome:#?}"));
        said = &said[at + promise.len()..];
    }
}

/// Nobody listens there now; the guides name one, and two tests at once must not share it.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

#[test]
fn start() {
    follow(include_str!("../../../../docs/start.md"));
}

#[test]
fn existing() {
    follow(include_str!("../../../../docs/existing.md"));
}
