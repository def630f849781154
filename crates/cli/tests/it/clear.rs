//! A token does not go over a network in clear without a word.

use crate::support::{Device, Outcome, Scratch, Server, exit};

/// An address of another machine that leads nowhere (RFC 5737).
const ELSEWHERE: &str = "http://192.0.2.1:7117";

#[test]
fn http_to_another_machine_is_warned_of_unless_it_is_meant() {
    let scratch = Scratch::new();
    // The warning comes before anything else, so that this test needs no network.
    let attach = |more: &[&str]| {
        let file = scratch.path("missing.db");
        let file = file.to_str().expect("a plain path");
        let mut command = scratch.command(&["attach", file, "--server", ELSEWHERE]);
        command.args(["--token", "t", "--quiet"]).args(more);
        command
    };
    let warned = Outcome::of(attach(&[]).arg("--json"))
        .expect(exit::NOT_FOUND)
        .says(&["warning", ELSEWHERE, "not encrypted", "--allow-http"]);
    assert_eq!(warned.one("warning")["code"], "in_clear");
    for meant in [
        Outcome::of(&mut attach(&["--allow-http"])),
        Outcome::of(attach(&[]).env("SYNCLINE_ALLOW_HTTP", "1")),
    ] {
        let meant = meant.expect(exit::NOT_FOUND);
        assert!(!meant.stderr.contains("warning"), "{meant:#?}");
    }
    Outcome::of(attach(&[]).env("SYNCLINE_ALLOW_HTTP", "0"))
        .expect(exit::NOT_FOUND)
        .says(&["warning"]);
}

#[test]
fn http_to_this_machine_is_not_warned_of() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    scratch.database(
        "laptop.db",
        "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL)",
    );
    for command in ["attach", "sync", "verify"] {
        let args: &[&str] = if command == "attach" { &["--yes"] } else { &[] };
        let said = laptop.run(command, args).expect(exit::DONE);
        assert!(!said.stderr.contains("warning"), "{said:#?}");
    }
}
