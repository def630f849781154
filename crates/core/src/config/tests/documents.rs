//! The documents say what is so.

use super::*;
use crate::schema::{ColumnType, MergeStrategy};

const SPEC: &str = include_str!("../../../../../docs/spec/configuration.md");

/// The examples of the page, each a file of its own.
fn examples() -> Vec<&'static str> {
    let blocks = SPEC.split("```toml\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn cf1_every_example_of_the_page_is_right() {
    let examples = examples();
    assert!(examples.len() >= 6);
    for example in examples {
        let config = parse(example);
        if config
            .schema
            .tables
            .iter()
            .all(|table| !table.columns.is_empty())
        {
            let rules = crate::rules::Rules::compile(&config.schema, &[0; 32]);
            assert!(rules.is_ok(), "{rules:?} in {example}");
        }
    }
}

#[test]
fn cf2_the_page_has_every_key_type_and_strategy() {
    let unknown = mistakes("[server]\nx = 1\n[limits]\nx = 1\n[tables.t]\nx = 1");
    let expected = unknown.split("(expected ").skip(1);
    let keys: Vec<_> = expected
        .flat_map(|rest| {
            let names = rest.split(';').next().unwrap();
            names.split('`').skip(1).step_by(2)
        })
        .collect();
    assert!(keys.contains(&"listen") && keys.contains(&"renamed_from"));
    let types = ColumnType::ALL.iter().map(|ty| ty.as_str());
    let strategies = MergeStrategy::ALL.iter().map(|strategy| strategy.as_str());
    for name in keys.into_iter().chain(types).chain(strategies) {
        let shown = SPEC.lines().filter(|line| line.starts_with('|'));
        assert!(
            shown
                .clone()
                .any(|line| line.contains(&format!("`{name}`"))),
            "{name}"
        );
    }
}
