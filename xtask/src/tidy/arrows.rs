//! The direction of dependencies (ARCHITECTURE.md): who may use whom, and what must stay absent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::repo;

struct Allowed {
    package: &'static str,
    /// Packages of this workspace that it may use.
    uses: &'static [&'static str],
    /// What only its tests may use besides.
    tests_use: &'static [&'static str],
    /// What must not be anywhere in its dependency tree, tests aside.
    must_not_contain: &'static [&'static [&'static str]],
}

/// Runtimes and everything with a socket in it.
const OUTSIDE: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "mio",
    "axum",
    "hyper",
    "tower",
    "reqwest",
    "tungstenite",
    "rustls",
];
/// Databases and their drivers.
const DATABASES: &[&str] = &[
    "rusqlite",
    "libsqlite3-sys",
    "sqlx",
    "tokio-postgres",
    "postgres",
];
/// Randomness and clocks: what makes two runs of one seed differ.
const CHANCE: &[&str] = &["rand", "getrandom", "fastrand", "chrono", "time"];

const ALLOWED: &[Allowed] = &[
    Allowed {
        package: "syncline-core",
        uses: &[],
        tests_use: &[],
        must_not_contain: &[OUTSIDE, DATABASES, CHANCE],
    },
    Allowed {
        package: "syncline-replica",
        uses: &["syncline-core"],
        tests_use: &[],
        must_not_contain: &[OUTSIDE, CHANCE],
    },
    Allowed {
        package: "syncline",
        uses: &["syncline-core", "syncline-replica"],
        // A real server at the other end.
        tests_use: &["syncline-server", "syncline-store", "syncline-store-sqlite"],
        must_not_contain: &[],
    },
    Allowed {
        package: "syncline-store",
        uses: &["syncline-core"],
        tests_use: &[],
        must_not_contain: &[OUTSIDE, DATABASES, CHANCE],
    },
    Allowed {
        package: "syncline-store-sqlite",
        uses: &["syncline-core", "syncline-store"],
        tests_use: &[],
        must_not_contain: &[OUTSIDE, CHANCE],
    },
    Allowed {
        package: "syncline-server",
        uses: &["syncline-core", "syncline-store"],
        tests_use: &["syncline-store-sqlite"],
        must_not_contain: &[DATABASES],
    },
    Allowed {
        // With the server's parts that need no socket: without its feature `net`.
        package: "syncline-sim",
        uses: &[
            "syncline-core",
            "syncline-replica",
            "syncline-store",
            "syncline-store-sqlite",
            "syncline-server",
        ],
        tests_use: &[],
        must_not_contain: &[OUTSIDE, CHANCE],
    },
    Allowed {
        package: "syncline-cli",
        uses: &[
            "syncline-core",
            "syncline-replica",
            "syncline",
            "syncline-store",
            "syncline-store-sqlite",
            "syncline-server",
            "syncline-sim",
            "syncline-bench",
        ],
        tests_use: &[],
        must_not_contain: &[],
    },
    Allowed {
        // The server is a process of its own there.
        package: "syncline-bench",
        uses: &["syncline-core", "syncline"],
        // Its hot paths without processes, to count their instructions.
        tests_use: &[
            "syncline-replica",
            "syncline-server",
            "syncline-store",
            "syncline-store-sqlite",
        ],
        must_not_contain: &[],
    },
    Allowed {
        // Server and `sync` are processes of their own there, too.
        package: "syncline-reliability",
        uses: &["syncline-core", "syncline"],
        tests_use: &[],
        must_not_contain: &[],
    },
    Allowed {
        // Everything that reads bytes of strangers.
        package: "syncline-fuzz",
        uses: &[
            "syncline-core",
            "syncline-replica",
            "syncline-store",
            "syncline-server",
            "syncline-sim",
        ],
        tests_use: &[],
        must_not_contain: &[],
    },
    Allowed {
        package: "xtask",
        uses: &[],
        tests_use: &[],
        must_not_contain: &[],
    },
];

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let metadata = repo::cargo(root, &["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("read cargo's metadata")?;
    let mut problems = directions(&edges(&metadata)?, ALLOWED);
    for allowed in ALLOWED {
        let forbidden: Vec<&str> = allowed.must_not_contain.concat();
        if !forbidden.is_empty() {
            let args = [
                "tree",
                "--package",
                allowed.package,
                "--edges",
                "normal,build",
            ];
            let tree = repo::cargo(root, &[&args[..], &["--prefix", "none"]].concat())?;
            problems.extend(contained(allowed.package, &tree, &forbidden));
        }
    }
    Ok(problems)
}

/// For each package of the workspace, the others it uses, with whether only its tests do.
type Edges = BTreeMap<String, BTreeSet<(String, bool)>>;

fn edges(metadata: &Value) -> Result<Edges> {
    let packages = metadata["packages"]
        .as_array()
        .context("metadata lists packages")?;
    let mut edges = Edges::new();
    for package in packages {
        let name = package["name"].as_str().context("a package has a name")?;
        let uses = edges.entry(name.into()).or_default();
        for dependency in package["dependencies"]
            .as_array()
            .context("it has dependencies")?
        {
            if dependency["path"].is_string() {
                let used = dependency["name"]
                    .as_str()
                    .context("a dependency has a name")?;
                uses.insert((used.into(), dependency["kind"] == "dev"));
            }
        }
    }
    Ok(edges)
}

fn directions(edges: &Edges, allowed: &[Allowed]) -> Vec<String> {
    let mut problems = Vec::new();
    for (package, uses) in edges {
        let Some(allowed) = allowed.iter().find(|a| a.package == package) else {
            problems.push(format!(
                "{package} is not in the list of xtask/src/tidy/arrows.rs: say what it may use, \
                 there and in ARCHITECTURE.md"
            ));
            continue;
        };
        for (used, in_tests) in uses {
            let listed = |list: &[&str]| list.contains(&used.as_str());
            let ok = listed(allowed.uses) || (*in_tests && listed(allowed.tests_use));
            if !ok {
                let tests = if *in_tests { " (tests)" } else { "" };
                problems.push(format!(
                    "{package}{tests} → {used} is not allowed: move the code to a side of the \
                     arrow where it fits, or change ARCHITECTURE.md and xtask/src/tidy/arrows.rs"
                ));
            }
        }
    }
    for allowed in allowed.iter().filter(|a| !edges.contains_key(a.package)) {
        problems.push(format!(
            "{} is listed in arrows.rs and does not exist",
            allowed.package
        ));
    }
    problems
}

/// `tree` is what `cargo tree --prefix none` prints: a package and its version per line.
fn contained(package: &str, tree: &str, forbidden: &[&str]) -> Vec<String> {
    let names: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    forbidden
        .iter()
        .filter(|name| names.contains(*name))
        .map(|name| {
            format!(
                "{package} must not contain {name}: see `cargo tree -p {package} -e normal -i {name}`"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[Allowed] = &[
        Allowed {
            package: "core",
            uses: &[],
            tests_use: &[],
            must_not_contain: &[],
        },
        Allowed {
            package: "server",
            uses: &["core"],
            tests_use: &["store"],
            must_not_contain: &[],
        },
    ];

    fn problems(metadata: &str) -> Vec<String> {
        directions(
            &edges(&serde_json::from_str(metadata).unwrap()).unwrap(),
            LIST,
        )
    }

    #[test]
    fn an_allowed_edge_and_a_test_edge_pass() {
        let found = problems(
            r#"{"packages": [
                {"name": "core", "dependencies": [{"name": "serde", "kind": null}]},
                {"name": "server", "dependencies": [
                    {"name": "core", "path": "c", "kind": null},
                    {"name": "store", "path": "s", "kind": "dev"}]}]}"#,
        );
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_wrong_edge_a_test_edge_in_code_and_an_unknown_package_are_named() {
        let found = problems(
            r#"{"packages": [
                {"name": "core", "dependencies": [{"name": "server", "path": "s", "kind": null}]},
                {"name": "server", "dependencies": [{"name": "store", "path": "s", "kind": null}]},
                {"name": "new", "dependencies": []}]}"#,
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("core → server"), "{found:?}");
        assert!(found[1].starts_with("new is not in the list"), "{found:?}");
        assert!(found[2].starts_with("server → store"), "{found:?}");
    }

    #[test]
    fn a_forbidden_package_is_found_by_its_whole_name() {
        let tree = "core v0.1.0 (/x)\ntokio-macros v2.0.0\nserde v1.0.0 (*)\n";
        assert!(contained("core", tree, &["tokio"]).is_empty());
        assert_eq!(contained("core", tree, &["serde"]).len(), 1);
    }
}
