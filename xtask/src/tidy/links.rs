//! Links between the documents of this repository. Links out of it are not followed.

use std::path::Path;

use anyhow::Result;

use crate::repo::{self, Source};

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for document in repo::sources(root, ".", |path| path.ends_with(".md"))? {
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
}
