//! Where things are in this repository, and reading them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The folder that holds the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies directly below the root")
        .to_path_buf()
}

/// Where scripts put what they download: `$SYNCLINE_TOOLS` or `.tools`.
pub(crate) fn tools() -> PathBuf {
    std::env::var_os("SYNCLINE_TOOLS").map_or_else(|| root().join(".tools"), PathBuf::from)
}

/// A text file of the repository.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// All text files below `folder` (`""` is the root) that pass `wanted`, in path order.
///
/// What git ignores is no source. Files that are not UTF-8 are skipped; a folder that does not
/// exist has none.
pub(crate) fn sources(
    root: &Path,
    folder: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Source>> {
    let below = |path: &str| Path::new(path).starts_with(folder);
    let mut found = Vec::new();
    for path in paths(root)? {
        if below(&path)
            && wanted(&path)
            && let Ok(text) = fs::read_to_string(root.join(&path))
        {
            found.push(Source { path, text });
        }
    }
    Ok(found)
}

/// The files of the repository, relative to its root, in order: those of git, or everything below
/// it where there is no git, as in an unpacked archive.
fn paths(root: &Path) -> Result<Vec<String>> {
    let git = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output();
    let mut paths = match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split_terminator('\0')
            .map(str::to_owned)
            .collect(),
        Ok(_) | Err(_) => walk(root)?,
    };
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

/// Names at any depth that are no sources.
const SKIPPED: [&str; 5] = [".git", ".tools", "target", "node_modules", "syncline-data"];

fn walk(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            if SKIPPED.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                pending.push(path);
            } else {
                let relative = path
                    .strip_prefix(root)
                    .context("a file lies below the root")?;
                let parts = relative
                    .components()
                    .map(|c| c.as_os_str().to_string_lossy());
                found.push(parts.collect::<Vec<_>>().join("/"));
            }
        }
    }
    Ok(found)
}

/// The output of one cargo command run at `root`, without network.
pub(crate) fn cargo(root: &Path, args: &[&str]) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(args)
        .arg("--offline")
        .current_dir(root)
        .output()
        .with_context(|| format!("start cargo {}", args.join(" ")))?;
    ensure!(
        output.status.success(),
        "cargo {} failed:\n{}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("read cargo's output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_and_walking_agree_on_the_sources() {
        let root = root();
        let here = "xtask/src/repo.rs".to_owned();
        assert!(paths(&root).unwrap().contains(&here));
        let walked = walk(&root).unwrap();
        assert!(walked.contains(&here));
        assert!(!walked.iter().any(|path| path.starts_with(".git/")));
    }

    #[test]
    fn a_folder_is_matched_by_whole_names() {
        let found = sources(&root(), "xtask/sr", |_| true).unwrap();
        assert!(found.is_empty());
        assert!(!sources(&root(), "xtask/src", |_| true).unwrap().is_empty());
    }
}
