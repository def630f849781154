//! What must not be in the sources: things left undone, tests that do not run, queues without an
//! end, places that exist on one machine, and files that have grown past one concept.

use std::path::Path;

use anyhow::Result;

use crate::repo::{self, Source};

/// A file of a crate's `src` past this many lines holds a second concept.
const LINES_MAX: usize = 700;

/// What no Rust source may contain, and why. Written in pieces so that this file passes.
const FORBIDDEN: [(&str, &str); 8] = [
    (concat!("todo", "!("), "left undone"),
    (concat!("unimpl", "emented!("), "left undone"),
    (concat!("FIX", "ME"), "left undone"),
    (
        concat!("TODO", ":"),
        "left undone: TODO(#123) names the issue, or do it",
    ),
    (concat!("XX", "X:"), "left undone"),
    (
        concat!("#[ign", "ore"),
        "a test that does not run: assert today's result and mark it",
    ),
    (concat!("assert!(", "true)"), "a test that cannot fail"),
    (
        concat!("unbounded", "_channel"),
        "a queue without an end: give it a capacity",
    ),
];

/// Folders of one machine. A path counts where it starts, not inside another.
const MACHINE_FOLDERS: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for folder in ["crates", "xtask"] {
        for file in repo::sources(root, folder, |path| path.ends_with(".rs"))? {
            problems.extend(forbidden(&file));
            problems.extend(too_long(&file));
        }
    }
    for file in repo::sources(root, "", |path| !path.ends_with(".lock"))? {
        problems.extend(machine_paths(&file));
    }
    Ok(problems)
}

fn forbidden(file: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for (pattern, why) in FORBIDDEN {
            if line.contains(pattern) {
                problems.push(format!("{}:{}: `{pattern}`: {why}", file.path, number + 1));
            }
        }
        if makes_endless_channel(line) {
            problems.push(format!(
                "{}:{}: a queue without an end: use sync_channel",
                file.path,
                number + 1
            ));
        }
    }
    problems
}

/// The standard library's channel has no capacity; tokio's of the same path takes one.
fn makes_endless_channel(line: &str) -> bool {
    line.split("mpsc::channel").skip(1).any(|rest| {
        let arguments = match rest.strip_prefix("::<") {
            Some(types) => types
                .split_once(">(")
                .map_or("", |(_, arguments)| arguments),
            None => rest.strip_prefix('(').unwrap_or(""),
        };
        arguments.starts_with(')')
    })
}

fn too_long(file: &Source) -> Option<String> {
    let lines = file.text.lines().count();
    let in_src = file.path.split('/').any(|part| part == "src");
    (in_src && lines > LINES_MAX).then(|| {
        format!(
            "{}: {lines} lines, more than {LINES_MAX}: find its second concept",
            file.path
        )
    })
}

fn machine_paths(file: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for folder in MACHINE_FOLDERS {
            let starts = line.match_indices(folder).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| c.is_whitespace() || "\"'`(=:,<[".contains(c))
            });
            if starts {
                problems.push(format!(
                    "{}:{}: `{folder}` is a folder of one machine: use a relative path or a \
                     temporary folder",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            text: text.into(),
        }
    }

    #[test]
    fn what_is_left_undone_is_found_with_its_line() {
        let text = format!("fn a() {{\n    {}) }}", FORBIDDEN[0].0);
        let found = forbidden(&file("crates/a/src/lib.rs", &text));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("crates/a/src/lib.rs:2: "), "{found:?}");
    }

    #[test]
    fn only_queues_without_an_end_are_found() {
        for types in ["", "::<u8>", "::<Result<u8>>"] {
            assert!(makes_endless_channel(&format!(
                "std::sync::mpsc::channel{types}{}",
                "()"
            )));
            assert!(!makes_endless_channel(&format!(
                "let (tx, rx) = mpsc::channel{types}(8);"
            )));
        }
        assert!(!makes_endless_channel("mpsc::sync_channel(0)"));
    }

    #[test]
    fn long_sources_are_found_and_long_tests_are_not() {
        let text = "\n".repeat(LINES_MAX + 1);
        assert!(too_long(&file("crates/a/src/lib.rs", &text)).is_some());
        assert!(too_long(&file("crates/a/src/lib.rs", &text[1..])).is_none());
        assert!(too_long(&file("crates/a/tests/it/main.rs", &text)).is_none());
    }

    #[test]
    fn paths_of_a_machine_are_found_where_they_start() {
        let path = format!("cd {}x", MACHINE_FOLDERS[0]);
        assert_eq!(machine_paths(&file("Makefile", &path)).len(), 1);
        let inside = format!(
            "https://example.com{}x and a{}b",
            MACHINE_FOLDERS[0], MACHINE_FOLDERS[2]
        );
        assert!(machine_paths(&file("README.md", &inside)).is_empty());
    }
}
