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

/// Names at any depth that are no sources.
const SKIPPED: [&str; 5] = [".git", ".tools", "target", "node_modules", "syncline-data"];

/// All text files below `folder` that pass `wanted` (a path relative to `root`), in path order.
///
/// A folder that does not exist has none. Files that are not UTF-8 are skipped.
pub(crate) fn sources(
    root: &Path,
    folder: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut pending = vec![root.join(folder)];
    while let Some(dir) = pending.pop() {
        if !dir.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            let path = entry.path();
            if SKIPPED.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                pending.push(path);
                continue;
            }
            let relative = relative(root, &path);
            if wanted(&relative)
                && let Ok(text) = fs::read_to_string(&path)
            {
                found.push(Source {
                    path: relative,
                    text,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn relative(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    relative
        .components()
        .map(|c| c.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
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
