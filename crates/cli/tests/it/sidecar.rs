//! The examples of programs in other languages, run as they are.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use crate::support::{Device, Outcome, Scratch, Server, wait_until};

/// A language and its example.
#[derive(Clone, Copy)]
struct Example {
    program: &'static str,
    script: &'static str,
}

/// `python3 notes.py FILE ARGS` as a user of this device would run it.
fn notes(example: Example, device: &Device<'_>, args: &[&str]) -> Command {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sidecar");
    let script = std::path::Path::new(folder).join(example.script);
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_syncline"));
    let folder = binary.parent().expect("a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([folder].into_iter().chain(std::env::split_paths(&path)));
    let mut command = Command::new(example.program);
    command
        .arg(script)
        .arg(&device.file)
        .args(args)
        .env("PATH", path.expect("a path"))
        .env("SYNCLINE_HOME", device.scratch.path("home"))
        .env("SYNCLINE_URL", &device.url)
        .env("SYNCLINE_TOKEN", &device.token);
    command
}

#[test]
fn a_python_program_hears_of_every_change_and_sends_its_own() {
    hears_of_every_change_and_sends_its_own(Example {
        program: "python3",
        script: "notes.py",
    });
}

#[test]
fn a_node_program_hears_of_every_change_and_sends_its_own() {
    hears_of_every_change_and_sends_its_own(Example {
        program: "node",
        script: "notes.mjs",
    });
}

fn hears_of_every_change_and_sends_its_own(example: Example) {
    let scratch = Scratch::new();
    let mut server = Server::dev(&scratch, "data");
    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    let phone = Device::new(&scratch, &server, "phone.db", "ana");
    let added = Outcome::of(&mut notes(example, &laptop, &["add", "Milk"])).expect(0);
    assert_eq!(added.stdout, "sent\n");

    let mut watching = notes(example, &phone, &["watch"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the language is installed");
    let mut said = BufReader::new(watching.stdout.take().expect("its output")).lines();
    let mut hear = |wanted: &str| {
        for line in said.by_ref() {
            if line.expect("text") == wanted {
                return;
            }
        }
        panic!("it ended without saying {wanted:?}");
    };
    hear("in step");
    assert_eq!(phone.rows("SELECT title FROM notes"), "Milk");
    laptop.sql("INSERT INTO notes VALUES ('n2', 'Bread')");
    laptop.sync();
    hear("ana: Bread");
    laptop.sql("DELETE FROM notes WHERE id = 'n2'");
    laptop.sync();
    hear("ana: deleted a note");

    server.terminate();
    hear("offline; going on without");
    let offline = Outcome::of(&mut notes(example, &laptop, &["add", "Salt"])).expect(0);
    assert!(offline.stdout.starts_with("not sent yet: "), "{offline:?}");
    server.restart();
    laptop.sync();
    hear("ana: Salt");
    wait_until("the note on the phone", || {
        phone.rows("SELECT count(*) FROM notes") == "2"
    });
    // Killed, it cannot stop its sidecar, which sees by itself that nobody listens.
    let sidecar = child_of(watching.id());
    watching.kill().expect("stop it");
    watching.wait().expect("stopped");
    drop(said);
    wait_until("the end of the sidecar", || {
        // Nobody may be there to bury it: dead is enough.
        std::fs::read_to_string(format!("/proc/{sidecar}/stat"))
            .map_or(true, |s| s.contains(") Z "))
    });
}

/// The one process that this one started.
fn child_of(parent: u32) -> u32 {
    let children = format!("/proc/{parent}/task/{parent}/children");
    let children = std::fs::read_to_string(children).expect("Linux tells");
    children.trim().parse().expect("one child")
}
