//! The program that README.md shows, word by word, run as its reader would.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::support::{Bed, rows, sql};

const FILE: &str = include_str!("../../examples/quickstart.rs");

/// The example, which Cargo builds with the tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().unwrap().parent().unwrap();
    let program = folder.join("examples/quickstart");
    assert!(
        program.exists(),
        "run `cargo build -p syncline --examples` first"
    );
    program
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It runs until somebody ends it.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Starts it and reads what it prints until a line contains `wanted`.
fn until_it_says(bed: &Bed, environment: &[(&str, &str)], wanted: &str) -> (Running, Vec<String>) {
    let mut child = Command::new(program())
        .current_dir(bed.path(""))
        .env_remove("SYNCLINE_URL")
        .env_remove("SYNCLINE_TOKEN")
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let running = Running(child);
    let mut seen = Vec::new();
    for line in output.lines() {
        seen.push(line.unwrap());
        if seen.last().is_some_and(|line| line.contains(wanted)) {
            return (running, seen);
        }
    }
    panic!("it ended after saying {seen:?}");
}

#[test]
fn lb17_the_quickstart_is_short_and_readme_shows_it_as_it_is() {
    let (_, program) = FILE.split_once(")]\n\n").unwrap();
    assert!(program.lines().count() < 40);
    let readme = include_str!("../../../../README.md");
    assert!(
        readme.contains(program),
        "README.md shows another quickstart"
    );
}

#[test]
fn lb17_the_quickstart_runs_without_a_server() {
    let bed = Bed::dev();
    let (_running, seen) = until_it_says(&bed, &[], "records");
    assert_eq!(seen.last().unwrap(), "0 records, 0 conflicts");
    assert_eq!(
        rows(&bed.path("notes.db"), "SELECT title FROM notes"),
        "Milk"
    );
}

#[tokio::test]
async fn lb17_the_quickstart_syncs_and_hears_of_others() {
    let bed = Bed::dev();
    let token = bed.token("ana");
    let url = bed.config("ana").url().unwrap().to_owned();
    let environment = [
        ("SYNCLINE_URL", url.as_str()),
        ("SYNCLINE_TOKEN", token.as_str()),
    ];
    let (running, _) = until_it_says(&bed, &environment, " records, 0 conflicts");
    assert_eq!(bed.at_server("SELECT title FROM notes"), "Milk");
    drop(running);

    let phone = bed.open("phone.db", "ana").await;
    phone.hydrate(syncline::Tables::All, |_| {}).await.unwrap();
    sql(&bed.path("phone.db"), "UPDATE notes SET title = 'Oat milk'");
    phone.sync(syncline::Tables::All, |_| {}).await.unwrap();
    let (_running, _) = until_it_says(&bed, &environment, "ana changed 1 of notes");
    assert_eq!(
        rows(
            &bed.path("notes.db"),
            "SELECT count(*) FROM notes WHERE title = 'Oat milk'"
        ),
        "1"
    );
}
