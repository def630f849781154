//! `docs/requirements.md`: a table row for each requirement, and what a row names exists.
//!
//! A row is `| 1.7 | what it asks | where it lives | its test | state |`. In the cells "where" and
//! "test", code in backticks is a path from the root (`crates/replica/src/outbox.rs`), a path and a
//! function (`crates/replica/tests/it/outbox.rs::ob5_refused_is_rolled_back`), or a rule of the
//! spec (`OB5`). State is done, part or open.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::spec::{self, RuleId};
use crate::repo::{self, Source};

const DOCUMENT: &str = "docs/requirements.md";
/// How many requirements each section has, from section 1.
const COUNTS: [usize; 6] = [19, 8, 9, 10, 11, 10];

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let sources = repo::sources(root, "docs", |path| path == DOCUMENT)?;
    let document = sources
        .first()
        .with_context(|| format!("{DOCUMENT} does not exist"))?;
    let known = spec::ids(root)?;
    Ok(problems(document, &mut |code| missing(root, &known, code)))
}

/// Why what `code` names does not exist; `None` if it does, or is no name of ours.
pub(super) fn missing(root: &Path, rules: &BTreeSet<RuleId>, code: &str) -> Option<String> {
    if let Some(id) = RuleId::parse(code) {
        return (!rules.contains(&id)).then(|| format!("docs/spec has no rule {id}"));
    }
    let (path, function) = match code.split_once("::") {
        Some((path, function)) => (path, Some(function)),
        None => (code, None),
    };
    if !path.contains('/') || path.contains(' ') {
        return None;
    }
    let Some(function) = function else {
        return (!root.join(path).exists()).then(|| format!("there is no {path}"));
    };
    match std::fs::read_to_string(root.join(path)) {
        Err(_) => Some(format!("there is no {path}")),
        Ok(text) if text.contains(&format!("fn {function}(")) => None,
        Ok(_) => Some(format!("{path} has no function {function}")),
    }
}

fn problems(document: &Source, missing: &mut dyn FnMut(&str) -> Option<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for (number, line) in document.text.lines().enumerate() {
        let cells: Vec<&str> = line
            .trim()
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let &[id, _, place, test, state] = cells.as_slice() else {
            continue;
        };
        let Some(id) = requirement(id) else { continue };
        let mut problem = |text: String| {
            problems.push(format!(
                "{}:{}: {}.{}: {text}",
                document.path,
                number + 1,
                id.0,
                id.1
            ));
        };
        if !seen.insert(id) {
            problem("listed twice".into());
        }
        match state {
            "done" if code(test).next().is_none() => problem("done, but names no test".into()),
            "done" | "part" if code(place).next().is_none() => {
                problem("says nothing of where it lives".into());
            }
            "done" | "part" | "open" => {}
            other => problem(format!("state is done, part or open, not '{other}'")),
        }
        for name in code(place).chain(code(test)) {
            if let Some(why) = missing(name) {
                problem(why);
            }
        }
    }
    for (section, count) in (1..).zip(COUNTS) {
        for number in 1..=count {
            if !seen.contains(&(section, number)) {
                problems.push(format!(
                    "{}: {section}.{number} is not listed",
                    document.path
                ));
            }
        }
    }
    problems
}

fn requirement(cell: &str) -> Option<(usize, usize)> {
    let (section, number) = cell.split_once('.')?;
    Some((section.parse().ok()?, number.parse().ok()?))
}

/// What stands between backticks.
pub(super) fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: &str) -> Vec<String> {
        let document = Source {
            path: "r.md".into(),
            text: rows.into(),
        };
        let mut missing =
            |name: &str| (name != "crates/a.rs").then(|| format!("there is no {name}"));
        let mut found = problems(&document, &mut missing);
        found.retain(|problem| !problem.ends_with("is not listed"));
        found
    }

    #[test]
    fn rows_that_name_what_exists_pass() {
        let found = check(
            "| 1.1 | local | `crates/a.rs` | `crates/a.rs` | done |\n\
             | 1.2 | remote | – | – | open |\n| no. | text | a | b | c |",
        );
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn what_is_wrong_in_a_row_is_named() {
        let found = check(
            "| 1.1 | a | `crates/b.rs` | – | done |\n\
             | 1.1 | b | – | – | part |\n| 1.2 | c | – | – | soon |",
        );
        assert_eq!(
            found,
            [
                "r.md:1: 1.1: done, but names no test",
                "r.md:1: 1.1: there is no crates/b.rs",
                "r.md:2: 1.1: listed twice",
                "r.md:2: 1.1: says nothing of where it lives",
                "r.md:3: 1.2: state is done, part or open, not 'soon'",
            ]
        );
    }

    #[test]
    fn every_requirement_must_be_listed() {
        let document = Source {
            path: "r.md".into(),
            text: "| 1.1 | a | – | – | open |".into(),
        };
        let found = problems(&document, &mut |_| None);
        assert_eq!(found.len(), COUNTS.iter().sum::<usize>() - 1);
        assert_eq!(found[0], "r.md: 1.2 is not listed");
    }

    #[test]
    fn functions_are_looked_for_in_their_file() {
        let root = repo::root();
        let known = BTreeSet::new();
        let here = "xtask/src/tidy/requirements.rs";
        assert_eq!(missing(&root, &known, &format!("{here}::check")), None);
        assert!(missing(&root, &known, &format!("{here}::absent")).is_some());
        assert!(missing(&root, &known, "xtask/absent.rs::check").is_some());
        assert!(missing(&root, &known, "OB1").is_some());
        assert_eq!(missing(&root, &known, "syncline sync"), None);
    }
}
