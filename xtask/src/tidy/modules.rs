//! Files that no `mod` line names are not compiled: a test in one never runs, and nothing says so.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::repo::{self, Source};

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut files = repo::sources(root, "crates", |path| path.ends_with(".rs"))?;
    files.extend(repo::sources(root, "xtask", |path| path.ends_with(".rs"))?);
    Ok(problems(&files))
}

fn problems(files: &[Source]) -> Vec<String> {
    let by_path: BTreeMap<&str, &Source> = files.iter().map(|f| (f.path.as_str(), f)).collect();
    let mut problems = Vec::new();
    for file in files {
        let parts: Vec<&str> = file.path.split('/').collect();
        let Some(top) = parts
            .iter()
            .position(|part| ["src", "tests", "benches"].contains(part))
        else {
            continue;
        };
        match &parts[top..] {
            ["src", "lib.rs" | "main.rs"]
            | ["src", "bin", _]
            | ["src", "bin", _, "main.rs"]
            | ["tests", "it", "main.rs"]
            | ["benches", ..] => continue,
            ["tests", _] | ["tests", _, "main.rs"] => {
                problems.push(format!(
                    "{}: one test binary per crate: move it into tests/it and name it in main.rs",
                    file.path
                ));
                continue;
            }
            _ => {}
        }
        let (module, parents) = parents(&parts);
        let declared = parents
            .iter()
            .filter_map(|parent| by_path.get(parent.as_str()))
            .any(|parent| declares(&parent.text, module));
        if !declared {
            problems.push(format!(
                "{}: not compiled: add `mod {module};` to {}",
                file.path,
                parents
                    .iter()
                    .find(|parent| by_path.contains_key(parent.as_str()))
                    .map_or("its parent", String::as_str)
            ));
        }
    }
    problems
}

/// The name of the module in a file, and the files that may declare it.
fn parents<'a>(parts: &[&'a str]) -> (&'a str, Vec<String>) {
    let (mut folder, mut name) = (&parts[..parts.len() - 1], parts[parts.len() - 1]);
    if name == "mod.rs" {
        name = folder[folder.len() - 1];
        folder = &folder[..folder.len() - 1];
    }
    let folder = folder.join("/");
    let candidates = ["/lib.rs", "/main.rs", "/mod.rs", ".rs"];
    (
        name.trim_end_matches(".rs"),
        candidates
            .iter()
            .map(|end| format!("{folder}{end}"))
            .collect(),
    )
}

fn declares(text: &str, module: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start();
        let line = line.split_once("mod ").map_or("", |(before, rest)| {
            let visible = before.trim();
            if visible.is_empty() || visible.starts_with("pub") || visible.ends_with(']') {
                rest
            } else {
                ""
            }
        });
        line.strip_prefix(module)
            .is_some_and(|rest| rest.trim_start().starts_with(';'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<Source> = files
            .iter()
            .map(|(path, text)| Source {
                path: (*path).into(),
                text: (*text).into(),
            })
            .collect();
        problems(&files)
    }

    #[test]
    fn declared_files_pass() {
        let found = check(&[
            (
                "crates/a/src/lib.rs",
                "pub mod wire;\n#[cfg(test)] mod tests;",
            ),
            ("crates/a/src/wire.rs", "pub(crate) mod ids;"),
            ("crates/a/src/wire/ids.rs", ""),
            ("crates/a/src/tests.rs", ""),
            ("crates/a/src/bin/tool.rs", ""),
            ("crates/a/tests/it/main.rs", "mod traps;\nmod kit;"),
            ("crates/a/tests/it/traps.rs", ""),
            ("crates/a/tests/it/kit/mod.rs", ""),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn forgotten_files_and_second_binaries_are_named() {
        let found = check(&[
            (
                "crates/a/tests/it/main.rs",
                "// mod traps;\nmod traps_more;",
            ),
            ("crates/a/tests/it/traps.rs", ""),
            ("crates/a/tests/other.rs", ""),
        ]);
        assert_eq!(
            found,
            [
                "crates/a/tests/it/traps.rs: not compiled: add `mod traps;` to \
                 crates/a/tests/it/main.rs",
                "crates/a/tests/other.rs: one test binary per crate: move it into tests/it and \
                 name it in main.rs",
            ]
        );
    }
}
