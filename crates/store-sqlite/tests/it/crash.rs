//! A server that dies at any moment.

#![expect(
    clippy::unwrap_used,
    reason = "a test that goes wrong stops where it does"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use syncline_core::{Version, wire::Verdict};
use syncline_store::{
    Reader as _, Submission,
    testkit::{Audit, World, block_on},
};
use syncline_store_sqlite::SqliteStorage;

use crate::support::ENTROPY;

/// Where the process that is killed finds its data.
const FOLDER: &str = "SYNCLINE_TEST_CRASH_FOLDER";
const CHANGESETS: u64 = 400;

fn open(folder: &Path) -> World<SqliteStorage> {
    World::new(SqliteStorage::open(folder.join("data.db"), &ENTROPY).unwrap())
}

/// The changesets that every run makes, with the same ids: rows that hang on each other, and now
/// and then a culprit that is found by halving.
fn submissions(world: &mut World<SqliteStorage>) -> Vec<Submission> {
    let one = |n: u64| {
        let (project, task) = (format!("p{n}"), format!("t{n}"));
        let label = if n % 7 == 3 {
            "taken".to_owned()
        } else {
            format!("label {n}")
        };
        let values = [
            ("project_id", project.as_str().into()),
            ("title", "dig".into()),
        ];
        let changes = world
            .draw()
            .insert("projects", project.as_str(), &[("name", "Garden".into())])
            .insert("tasks", task, &values)
            .insert("labels", format!("l{n}"), &[("name", label.into())])
            .done();
        world.submission("ada", changes)
    };
    (0..CHANGESETS).map(one).collect()
}

/// Commits in groups of three and says which are acknowledged, until it is killed.
#[test]
fn a_server_for_the_tests_below() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let mut world = open(Path::new(&folder));
    for group in submissions(&mut world).chunks(3) {
        let outcome = world.commit(group);
        for (submission, result) in group.iter().zip(&outcome.results) {
            if let Verdict::Accepted(version) = result.verdict {
                let mut out = std::io::stdout().lock();
                writeln!(
                    out,
                    "acknowledged {} {}",
                    submission.changeset.number, version.0
                )
                .unwrap();
                out.flush().unwrap();
            }
        }
    }
}

/// Runs the server until it has acknowledged `count` more, then kills it.
fn run_and_kill(folder: &Path, count: usize, acknowledged: &mut BTreeMap<u64, u64>) {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::a_server_for_the_tests_below",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut new = 0;
    for line in lines {
        let line = line.unwrap();
        let Some(at) = line.find("acknowledged ") else {
            continue;
        };
        let mut words = line[at..]
            .split(' ')
            .skip(1)
            .map(|word| word.parse().unwrap());
        let (number, version) = (words.next().unwrap(), words.next().unwrap());
        let before = acknowledged.insert(number, version);
        assert!(
            before.is_none_or(|before| before == version),
            "{number} was answered anew"
        );
        new += usize::from(before.is_none());
        if new == count {
            server.kill().unwrap();
        }
    }
    server.wait().unwrap();
    assert!(new >= count, "the server ended by itself after {new}");
}

#[test]
fn pl17_what_was_acknowledged_survives_kill_9_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for count in [1, 8, 5, 20] {
        run_and_kill(dir.path(), count, &mut acknowledged);
    }
    let mut world = open(dir.path());
    let mut reader = world.storage.reader().unwrap();
    let entries = block_on(reader.log_after(Version::ZERO, usize::MAX)).unwrap();
    let logged: BTreeMap<_, _> = entries.iter().map(|e| (e.number, e.version.0)).collect();
    assert_eq!(logged.len(), entries.len(), "none twice");
    for (number, version) in &acknowledged {
        assert_eq!(logged.get(number), Some(version), "changeset {number}");
    }
    assert!(
        entries.iter().all(|entry| entry.records.len() == 3),
        "none in part"
    );
    let audit = Audit::of(&mut world, &mut reader, &["ada"]);
    assert_eq!(audit.maintained, audit.anew);

    let submissions = submissions(&mut world);
    let outcome = world.commit(&submissions[..60]);
    for (submission, result) in submissions.iter().zip(&outcome.results) {
        let number = submission.changeset.number;
        match (&result.verdict, logged.get(&number)) {
            (Verdict::Accepted(version), Some(known)) => assert_eq!(version.0, *known),
            (Verdict::Accepted(_), None) => {}
            (Verdict::Refused(refusal), known) => {
                assert_eq!(
                    (refusal.code.as_str(), known),
                    ("constraint", None),
                    "{number}"
                );
            }
        }
    }
}
