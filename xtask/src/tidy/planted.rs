//! Planted bugs stay where they belong: only the simulator's tests compile them.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::repo;

const FEATURE: &str = "planted";
/// The package whose feature of that name may turn on the one of `syncline-core`.
const TESTER: &str = "syncline-sim";

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let metadata = repo::cargo(root, &["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("read cargo's metadata")?;
    let packages = metadata["packages"]
        .as_array()
        .context("metadata lists packages")?;
    let mut problems = Vec::new();
    for package in packages {
        problems.extend(strays(package)?);
    }
    Ok(problems)
}

/// What of a package turns planted bugs on, besides what may.
fn strays(package: &Value) -> Result<Vec<String>> {
    let name = package["name"].as_str().context("a package has a name")?;
    let features = package["features"]
        .as_object()
        .context("a package has features")?;
    let mut problems = Vec::new();
    for (feature, turns_on) in features {
        let turns_on = turns_on.as_array().context("a feature is a list")?;
        let bad = turns_on
            .iter()
            .filter_map(Value::as_str)
            .any(|on| on == FEATURE || on.ends_with("/planted"));
        if bad && (name != TESTER || feature != FEATURE) {
            problems.push(format!(
                "the feature {feature} of {name} turns on planted bugs: only {TESTER}/{FEATURE} may"
            ));
        }
    }
    let dependencies = package["dependencies"]
        .as_array()
        .context("a package has dependencies")?;
    for dependency in dependencies {
        let features = dependency["features"]
            .as_array()
            .context("a dependency has features")?;
        if features.iter().any(|feature| feature == FEATURE) {
            let used = &dependency["name"];
            problems.push(format!(
                "{name} uses {used} with planted bugs: take the feature away"
            ));
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whoever_turns_planted_bugs_on_is_named() {
        let package = |name: &str| {
            json!({
                "name": name,
                "features": { "default": ["net"], "planted": ["syncline-core/planted"] },
                "dependencies": [{ "name": "syncline-core", "features": [] }],
            })
        };
        assert!(strays(&package(TESTER)).unwrap().is_empty());
        assert_eq!(strays(&package("syncline-cli")).unwrap().len(), 1);
        let mut by_default = package(TESTER);
        by_default["features"]["default"] = json!(["planted"]);
        assert_eq!(strays(&by_default).unwrap().len(), 1);
        let mut always = package(TESTER);
        always["dependencies"][0]["features"] = json!(["planted"]);
        assert_eq!(strays(&always).unwrap().len(), 1);
    }
}
