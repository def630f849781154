//! docs/events.md and docs/cli.md say what is true.

use std::collections::BTreeSet;

use crate::support::{Scratch, documented_lines, exit};

const CLI: &str = include_str!("../../../../docs/cli.md");

/// Types that the sources can print.
fn printed(folder: &std::path::Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder)
        .expect("the sources")
        .map_while(Result::ok)
    {
        let path = entry.path();
        if path.is_dir() {
            printed(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source file");
        for part in text.split("\"type\": \"").skip(1) {
            let (name, _) = part.split_once('"').expect("a string that ends");
            found.insert(name.to_owned());
        }
    }
}

#[test]
fn every_type_of_line_is_documented_and_exists() {
    let mut found = BTreeSet::new();
    printed(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    let documented: BTreeSet<String> = documented_lines()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(found, documented);
}

/// Numbers that begin a row of the table.
fn in_table(text: &str) -> BTreeSet<u8> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| row.split(' ').next()?.parse().ok())
        .collect()
}

#[test]
fn every_exit_code_is_documented_and_in_the_help() {
    let source = include_str!("../../src/exit.rs");
    let (_, values) = source.split_once("enum Exit {").expect("the enum");
    let (values, _) = values.split_once('}').expect("its end");
    let values: BTreeSet<u8> = values
        .lines()
        .filter_map(|line| line.split_once(" = ")?.1.trim_end_matches(',').parse().ok())
        .collect();
    assert_eq!(in_table(CLI), values);

    let help = Scratch::new().say(&["--help"]).expect(exit::DONE).stdout;
    let (_, codes) = help.split_once("Exit codes").expect("a list of exit codes");
    let listed: BTreeSet<u8> = codes
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    assert_eq!(listed, values);
}
