//! Checks of the repository that the compiler and clippy cannot make.
//!
//! Each module is one check: it takes the repository's root and returns problems as sentences that
//! name the place and what to do. Every check is also a test of this crate, so `cargo test` fails
//! where `cargo run -p xtask -- tidy` does.

mod arrows;
mod documents;
mod modules;
mod planted;
mod requirements;
mod security;
mod sources;
mod spec;

use std::fmt;
use std::path::Path;

use anyhow::Result;

/// The name of a check, what it looks for, and the check.
type Check = (&'static str, &'static str, fn(&Path) -> Result<Vec<String>>);

const CHECKS: [Check; 8] = [
    (
        "arrows",
        "crates depend only as ARCHITECTURE.md allows",
        arrows::check,
    ),
    (
        "planted",
        "planted bugs are compiled for the simulator's tests alone",
        planted::check,
    ),
    (
        "modules",
        "no source or test file is forgotten by its parent",
        modules::check,
    ),
    (
        "sources",
        "nothing left undone, no unbounded queue, no file past its size",
        sources::check,
    ),
    ("spec", "every rule has a test or says why not", spec::check),
    (
        "requirements",
        "every requirement is listed, what it names exists",
        requirements::check,
    ),
    (
        "security",
        "every threat has a test that exists or says what is open",
        security::check,
    ),
    (
        "documents",
        "links lead somewhere, decisions have a number each",
        documents::check,
    ),
];

/// What all checks found. Prints as the problems followed by a summary.
#[derive(Debug)]
pub(crate) struct Report {
    coverage: String,
    problems: Vec<(&'static str, &'static str, Vec<String>)>,
}

impl Report {
    pub(crate) fn is_tidy(&self) -> bool {
        self.problems
            .iter()
            .all(|(_, _, problems)| problems.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, _, problems) in &self.problems {
            for problem in problems {
                writeln!(f, "{problem}")?;
            }
        }
        writeln!(f, "{}", self.coverage)?;
        for (name, about, problems) in &self.problems {
            match problems.len() {
                0 => writeln!(f, "ok    {name}: {about}")?,
                count => writeln!(f, "FAIL  {name}: {count} found (wanted: {about})")?,
            }
        }
        Ok(())
    }
}

/// Runs every check on the repository at `root`. A check that cannot run is a problem.
pub(crate) fn run(root: &Path) -> Result<Report> {
    let mut problems = Vec::new();
    for (name, about, check) in CHECKS {
        let found = check(root).unwrap_or_else(|error| vec![format!("{name}: {error:#}")]);
        problems.push((name, about, found));
    }
    Ok(Report {
        coverage: spec::table(root)?,
        problems,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo;

    fn assert_none(problems: Result<Vec<String>>) {
        let problems = problems.unwrap();
        assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
    }

    #[test]
    fn arrows_are_as_allowed() {
        assert_none(arrows::check(&repo::root()));
    }

    #[test]
    fn nobody_ships_planted_bugs() {
        assert_none(planted::check(&repo::root()));
    }

    #[test]
    fn no_module_is_forgotten() {
        assert_none(modules::check(&repo::root()));
    }

    #[test]
    fn sources_are_finished() {
        assert_none(sources::check(&repo::root()));
    }

    #[test]
    fn every_rule_of_the_spec_has_a_test() {
        assert_none(spec::check(&repo::root()));
    }

    #[test]
    fn requirements_name_what_exists() {
        assert_none(requirements::check(&repo::root()));
    }

    #[test]
    fn threats_name_tests_that_exist() {
        assert_none(security::check(&repo::root()));
    }

    #[test]
    fn documents_are_consistent() {
        assert_none(documents::check(&repo::root()));
    }
}
