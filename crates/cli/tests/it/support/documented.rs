//! The types and fields of docs/events.md: no line may be printed that is not there.

use std::{collections::BTreeSet, sync::LazyLock};

use serde_json::Value;

const EVENTS: &str = include_str!("../../../../../docs/events.md");

static LINES: LazyLock<Vec<(String, BTreeSet<String>)>> = LazyLock::new(documented_lines);

/// Each row of the tables: type and fields.
pub(crate) fn documented_lines() -> Vec<(String, BTreeSet<String>)> {
    let rows = EVENTS.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.split('|').skip(1);
        let mut names = || -> Vec<String> {
            let cell = cells.next().unwrap_or_default();
            cell.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        };
        let kind = names().remove(0);
        (kind, names().into_iter().collect())
    })
    .collect()
}

/// Asserts that a line is as documented.
#[track_caller]
pub(crate) fn assert_documented(line: &Value) {
    let object = line.as_object().expect("an object");
    let kind = line["type"].as_str().expect("a type");
    let fields: BTreeSet<String> = object
        .keys()
        .filter(|name| *name != "type")
        .cloned()
        .collect();
    assert!(
        LINES
            .iter()
            .any(|(name, documented)| name == kind && *documented == fields),
        "docs/events.md does not have this: {line}"
    );
}
