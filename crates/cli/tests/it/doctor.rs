//! `syncline doctor`: the four words, and what stands behind each.

use crate::support::{Device, Outcome, Scratch, Server, exit};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, body TEXT);
    INSERT INTO notes VALUES ('a', 'a very secret sentence');";

fn health(outcome: &Outcome) -> String {
    let line = outcome.one("health");
    line["health"].as_str().expect("a word").to_owned()
}

#[track_caller]
fn wrong(outcome: &Outcome) -> Vec<String> {
    let checks = outcome.all("check");
    let wrong = checks.iter().filter(|check| check["state"] == "wrong");
    wrong
        .filter_map(|check| check["check"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn each_of_the_four_words_has_its_reason() {
    let scratch = Scratch::new();
    scratch.database("alone.db", NOTES);
    let alone = scratch.run(&["doctor", "alone.db"]).expect(exit::DONE);
    assert_eq!(health(&alone), "no-provider");

    let mut server = Server::dev(&scratch, "data");
    let device = Device::seeded(&scratch, &server, "app.db", "ana", NOTES);
    let healthy = device.run("doctor", &[]).expect(exit::DONE);
    assert_eq!(health(&healthy), "healthy");
    assert_eq!(wrong(&healthy), [""; 0]);

    let mut stranger = device.clone();
    stranger.token = "eyJhbGciOiJIUzI1NiJ9.e30.wrong".to_owned();
    let invalid = stranger.run("doctor", &[]).expect(exit::UNAUTHORIZED);
    assert_eq!(health(&invalid), "invalid");
    assert_eq!(wrong(&invalid), ["token"]);

    server.terminate();
    let away = device.run("doctor", &[]).expect(exit::UNREACHABLE);
    assert_eq!(health(&away), "disconnected");
    assert_eq!(wrong(&away), ["server"]);

    scratch.write(
        "text.db",
        "no database at all, whatever its name is: only some words, and more",
    );
    let text = scratch
        .run(&["doctor", "text.db"])
        .expect(exit::NOT_A_DATABASE);
    assert_eq!(wrong(&text), ["file"]);
    let absent = scratch
        .run(&["doctor", "absent.db"])
        .expect(exit::NOT_FOUND);
    assert_eq!(wrong(&absent), ["file"]);
}

#[test]
fn a_report_can_be_sent_to_anybody() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let device = Device::seeded(&scratch, &server, "app.db", "ana", NOTES);
    device.sql("UPDATE notes SET body = 'another secret'");
    device
        .run("doctor", &["--report", "report.json"])
        .expect(exit::DONE);
    // Two words in the wrong order must not cost a database.
    device
        .run("doctor", &["--report", "app.db"])
        .expect(exit::ALREADY_THERE);
    let report = std::fs::read_to_string(scratch.path("report.json")).expect("the report");
    for word in ["healthy", "notes", "\"waiting\"", "SQLite"] {
        assert!(report.contains(word), "{word} is not in {report}");
    }
    for word in ["secret", &device.token] {
        assert!(!report.contains(word), "{word} is in {report}");
    }
}
