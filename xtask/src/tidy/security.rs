//! `docs/security.md`: a row for each threat, whose tests exist or which says what is open.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result};

use super::{
    requirements::{code, missing},
    spec,
};
use crate::repo;

const DOCUMENT: &str = "docs/security.md";
/// How many threats each section has.
const COUNTS: [(char, usize); 5] = [('A', 16), ('Z', 17), ('D', 18), ('I', 11), ('B', 4)];

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let sources = repo::sources(root, "docs", |path| path == DOCUMENT)?;
    let document = sources
        .first()
        .with_context(|| format!("{DOCUMENT} does not exist"))?;
    let known = spec::ids(root)?;
    Ok(problems(&document.text, &mut |name| {
        missing(root, &known, name)
    }))
}

fn problems(text: &str, missing: &mut dyn FnMut(&str) -> Option<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line
            .trim()
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let &[id, _, tests] = cells.as_slice() else {
            continue;
        };
        let Some(threat) = threat(id) else { continue };
        let mut problem = |what: String| {
            problems.push(format!("{DOCUMENT}:{}: {id}: {what}", number + 1));
        };
        if !seen.insert(threat) {
            problem("listed twice".to_owned());
        }
        if code(tests).next().is_none() && !tests.contains("open: ") {
            problem("names no test, and does not say why (`open: …`)".to_owned());
        }
        for why in code(tests).filter_map(&mut *missing) {
            problem(why);
        }
    }
    for (section, count) in COUNTS {
        let absent = (1..=count).filter(|number| !seen.contains(&(section, *number)));
        problems
            .extend(absent.map(|number| format!("{DOCUMENT}: {section}{number} is not listed")));
    }
    problems
}

/// `A7` as section and number.
fn threat(cell: &str) -> Option<(char, usize)> {
    let section = cell.chars().next().filter(char::is_ascii_uppercase)?;
    Some((section, cell[1..].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_name_tests_that_exist_or_say_what_is_open() {
        let text = "| A1 | forged | `crates/a.rs::fine` |\n| A2 | late | |\n\
                    | A3 | other | open: later |\n| A3 | again | `crates/b.rs::gone` |";
        let mut missing = |name: &str| {
            name.ends_with("gone")
                .then(|| format!("there is no {name}"))
        };
        let mut found = problems(text, &mut missing);
        found.retain(|problem| !problem.ends_with("is not listed"));
        let found: Vec<&str> = found
            .iter()
            .filter_map(|problem| problem.strip_prefix("docs/security.md:"))
            .collect();
        assert_eq!(
            found,
            [
                "2: A2: names no test, and does not say why (`open: …`)",
                "4: A3: listed twice",
                "4: A3: there is no crates/b.rs::gone",
            ]
        );
    }
}
