//! Documents of this repository: links between them, and the numbers of decision records. Links
//! out of it are not followed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::repo::{self, Source};

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let documents = repo::sources(root, "", |path| path.ends_with(".md"))?;
    let mut problems = shared_numbers(documents.iter().map(|document| document.path.as_str()));
    for document in documents {
        let folder = root.join(&document.path);
        let folder = folder.parent().unwrap_or(root);
        for (line, target) in links(&document) {
            if !folder.join(target).exists() {
                problems.push(format!("{}:{line}: {target} does not exist", document.path));
            }
        }
    }
    Ok(problems)
}

/// Decision records (`docs/decisions/0001-title.md`) that have the number of another.
fn shared_numbers<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut first = BTreeMap::new();
    let mut problems = Vec::new();
    for path in paths {
        let Some(name) = path.strip_prefix("docs/decisions/") else {
            continue;
        };
        let number = name.split('-').next().unwrap_or_default();
        if let Some(other) = first.insert(number, path) {
            problems.push(format!(
                "{path} has the number of {other}: take the next free one"
            ));
        }
    }
    problems
}

/// The line and the path of each link to a file: `[text](path#part)`, outside of code.
fn links(document: &Source) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in document.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let Some((target, _)) = rest.split_once(')') else {
                continue;
            };
            let path = target.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") && !path.starts_with("mailto:") {
                found.push((number + 1, path));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_found_and_others_are_not() {
        let text = "[a](docs/a.md#part), [b](https://example.com) [c](#here)\n\
                    ```\nx[0](no.md)\n```\n[d](../d.md)";
        let document = Source {
            path: "README.md".into(),
            text: text.into(),
        };
        assert_eq!(links(&document), [(1, "docs/a.md"), (5, "../d.md")]);
    }

    #[test]
    fn two_decisions_with_one_number_are_found() {
        let paths = [
            "README.md",
            "docs/decisions/0001-a.md",
            "docs/decisions/0001-b.md",
        ];
        let found = shared_numbers(paths.into_iter());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("docs/decisions/0001-b.md"),
            "{found:?}"
        );
    }
}
