//! Rows, and who may see them, changed by chance.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use syncline_core::{config::LimitsConfig, wire::ServerMessage};

use super::{Net, Wish, delete, history, insert, ops, push, row, update};

/// Numbers that look like chance and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Everything that a session was told, as bytes.
fn told(message: &ServerMessage, heard: &mut Vec<u8>) {
    heard.extend(format!("{message:?}").into_bytes());
    match message {
        ServerMessage::Page(page) => {
            heard.extend(page.parts.iter().flat_map(|part| part.rows.clone()));
        }
        ServerMessage::Changes(changes) => {
            let records = changes.records.iter();
            heard.extend(records.flat_map(|record| record.body.clone()));
        }
        _ => {}
    }
}

/// The values `«…»` in a text.
fn values_in(text: &str) -> Vec<String> {
    let after = text.split('«').skip(1);
    after
        .filter_map(|rest| Some(format!("«{}»", rest.split_once('»')?.0)))
        .collect()
}

const ROWS: [(&str, &str); 5] = [
    ("projects", "p"),
    ("projects", "q"),
    ("tasks", "t0"),
    ("tasks", "t1"),
    ("tasks", "t2"),
];

/// What Ada does by chance to rows, and to whether Ben may see them.
struct Doings {
    chance: Chance,
    values: u32,
    is_member: [bool; 2],
    lives: [bool; 3],
}

impl Doings {
    /// A value that was never there before.
    fn value(&mut self) -> String {
        self.values += 1;
        format!("«v{}»", self.values)
    }

    fn next(&mut self) -> Value {
        let project = usize::try_from(self.chance.below(2)).expect("small");
        let task = usize::try_from(self.chance.below(3)).expect("small");
        let (p, t) = (["p", "q"][project], format!("t{task}"));
        match self.chance.below(24) {
            0 if self.is_member[project] => {
                self.is_member[project] = false;
                delete("members", p)
            }
            0..4 if !self.is_member[project] => {
                self.is_member[project] = true;
                let row = json!({ "id": p, "project_id": p, "user_id": "ben", "role": "viewer" });
                insert("members", row)
            }
            0..6 => update("projects", p, json!({ "name": self.value() })),
            _ if !self.lives[task] => {
                self.lives[task] = true;
                let row = json!({ "id": t, "project_id": p, "title": self.value() });
                insert("tasks", row)
            }
            6 | 7 => {
                self.lives[task] = false;
                delete("tasks", &t)
            }
            8..14 => update("tasks", &t, json!({ "project_id": p })),
            _ => update("tasks", &t, json!({ "title": self.value() })),
        }
    }
}

/// Whatever happens to rows and to who may see them: every value in a person's history is one
/// that a device of theirs, connected all the time, was told.
#[tokio::test]
async fn ru26_history_tells_no_value_that_no_device_was_told() {
    // It asks thousands of times, as fast as it can.
    let net = Net::start_with(Wish {
        config_limits: LimitsConfig {
            user_requests_per_second: 10_000,
            ..LimitsConfig::default()
        },
        ..Wish::default()
    })
    .await;
    let mut key = 0;
    let mut write = async |change: Value| {
        key += 1;
        push(&net, "ada", key, json!([change])).await
    };
    let mut doings = Doings {
        chance: Chance(0x5EED),
        values: 0,
        is_member: [false; 2],
        lives: [false; 3],
    };
    for p in ["p", "q"] {
        write(insert(
            "projects",
            json!({ "id": p, "name": doings.value() }),
        ))
        .await;
    }
    let mut ben = net.socket("ben").await;
    ben.sync(2).await;
    let (mut heard, mut versions) = (Vec::new(), Vec::new());
    let (mut of_ben, mut of_ada, mut kinds) = (0, 0, BTreeSet::new());
    for round in 0..160 {
        versions.push(write(doings.next()).await);
        // Ben's session has handled it, pages included, before the next change.
        let label = format!("l{round}");
        let end = write(insert("labels", json!({ "id": label, "name": label }))).await;
        ben.hear_until(|message| {
            told(message, &mut heard);
            match message {
                ServerMessage::Checkpoint(checkpoint) => {
                    let is_there = checkpoint.cursor.version.0 >= end && checkpoint.loading == 0;
                    is_there.then_some(())
                }
                _ => None,
            }
        })
        .await;
        if round % 4 > 0 {
            continue;
        }
        let heard = String::from_utf8_lossy(&heard);
        for (table, id) in ROWS {
            let row_key = json!([id]).to_string();
            let changes = history(&net, "ben", table, &row_key).await;
            of_ben += changes.len();
            of_ada += history(&net, "ada", table, &row_key).await.len();
            kinds.extend(ops(&changes).into_iter().map(str::to_owned));
            for value in values_in(&json!(changes).to_string()) {
                assert!(
                    heard.contains(&value),
                    "{value} of {table} {id}: {changes:?}"
                );
            }
            for version in versions.iter().rev().take(8) {
                let (status, body) = row(&net, "ben", table, &row_key, *version).await;
                let is_told =
                    |change: &Value| change["version"] == *version && change["op"] != "removed";
                let listed = changes.iter().any(is_told);
                assert_eq!(status == 200, listed, "{table} {id} at {version}");
                for value in values_in(&String::from_utf8_lossy(&body)) {
                    assert!(
                        heard.contains(&value),
                        "{value} of {table} {id} at {version}"
                    );
                }
            }
        }
    }
    assert!(
        of_ben > 200 && of_ada > of_ben,
        "{of_ben} of {of_ada} changes"
    );
    let kinds: Vec<_> = kinds.iter().map(String::as_str).collect();
    assert_eq!(kinds, ["appeared", "delete", "insert", "removed", "update"]);
}
