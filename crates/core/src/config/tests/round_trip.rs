//! Writing and reading again, and texts from anybody.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::subsequence,
};

use super::{keys::quoted, *};
use crate::schema::ColumnType;

/// Names with everything that may be in one, some of it awkward in TOML and SQL.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z]{1,6}",
        1 => "[A-Za-z_]{1,3}[\"' .\\\\\\]é#-]{1,2}[a-z]{0,2}",
        1 => prop::sample::select(vec!["order", "select", "my table", "a\nb", "*", "0a", "tab\tle"])
            .prop_map(str::to_owned),
    ]
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z ()=']{1,20}",
        "[a-z\"'\\\\\n\r\t\\x7f\\x00é{}#]{1,12}",
        Just("a\n'''\nb".to_owned()),
        Just("true".to_owned()),
    ]
    .prop_filter("a rule says something", |text| !text.trim().is_empty())
}

/// A column's text.
fn column() -> impl Strategy<Value = String> {
    let parts = vec![
        "not null".to_owned(),
        "unique".to_owned(),
        "default 'it''s'".to_owned(),
        "check (a in ('(', 1))".to_owned(),
        "collate \"odd name\"".to_owned(),
        "references t0 on delete cascade".to_owned(),
        "generated always as (upper(k1) || ')') stored".to_owned(),
        "declared 'NATIVE TYPE(8)'".to_owned(),
    ];
    let default = prop::sample::select(vec![
        "default 1",
        "default -1.5",
        "default x'00'",
        "default (1 + (2))",
        "default null",
        "default CURRENT_TIMESTAMP",
        "default ('a')",
        "default ((1))",
    ]);
    let ty = prop::sample::select(ColumnType::ALL);
    (ty, subsequence(parts, 0..=4), option::of(default)).prop_map(|(ty, mut parts, default)| {
        if let Some(default) = default {
            parts.retain(|part| !part.starts_with("default"));
            parts.push(default.to_owned());
        }
        format!("{} {}", ty.as_str(), parts.join(" "))
    })
}

/// A file: tables with columns, keys, rules and strategies.
fn file() -> impl Strategy<Value = String> {
    let columns = btree_map(name(), column(), 0..5).prop_map(|columns| {
        let mut seen = BTreeSet::from(["k0".to_owned(), "k1".to_owned(), "k2".to_owned()]);
        let mut columns: Vec<_> = columns.into_iter().collect();
        columns.retain(|(name, _)| !name.trim().is_empty() && seen.insert(name.to_lowercase()));
        columns
    });
    let rules = btree_map(
        prop::sample::select(vec!["read", "write", "create", "update", "delete"]),
        string(),
        0..3,
    );
    let more = (
        any::<[bool; 6]>(),
        option::of("[a-z\"' ]{1,5}"),
        prop::sample::select(vec![
            "set",
            "append",
            "merge-fields",
            "manual",
            "server-wins",
        ]),
        name(),
    );
    vec((columns, rules, more), 0..3).prop_map(|tables| {
        let tables = tables.into_iter().enumerate();
        tables
            .map(|(i, (columns, rules, more))| table(i, &columns, &rules, more))
            .collect()
    })
}

type More = ([bool; 6], Option<String>, &'static str, String);

fn table(
    i: usize,
    columns: &[(String, String)],
    rules: &BTreeMap<&str, String>,
    more: More,
) -> String {
    let ([composite, on_demand, update_wins, force, renamed, adopted], origin, strategy, member) =
        more;
    let mut lines = vec![format!("[tables.t{i}]")];
    let mut line = |is_there: bool, text: &str| {
        if is_there {
            lines.push(text.to_owned());
        }
    };
    for (rule, text) in rules {
        line(true, &format!("{rule} = {}", quoted(text)));
    }
    line(on_demand, "sync = \"on_demand\"");
    line(update_wins, "on_delete = \"update-wins\"");
    line(force, "force = { k1 = \"auth.uid()\" }");
    line(renamed, "renamed = { k2 = \"an \\\"old\\\" name\" }");
    if let Some(origin) = origin.filter(|origin| !origin.trim().is_empty()) {
        line(
            true,
            &format!("renamed_from = {}", quoted(&format!("old {origin}"))),
        );
    }
    let own = !(adopted && i > 0);
    line(own && composite, "primary_key = [\"k0\", \"k1\"]");
    line(
        own && composite,
        "unique = [[\"k2\", \"k0\"], \"(lower(k1)) where k2 <> 'a)'\", [\"k2\"]]",
    );
    line(
        own && composite,
        "indexes = [[\"k1\"], \"(k1 desc, abs(k2))\", [\"k2\", \"k0\"]]\nwithout_rowid = true\nstrict = true\nchecks = [\"k1 <> k2\"]",
    );
    line(
        own && composite,
        "foreign_keys = [\"(k2, k0) references t0\"]",
    );
    line(
        own,
        &format!("[tables.t{i}.columns]\nk1 = \"text\"\nk2 = \"json\""),
    );
    line(
        own,
        if composite {
            "k0 = \"uuid\""
        } else {
            "k0 = \"uuid primary key\""
        },
    );
    for (name, text) in columns {
        line(own, &format!("{} = {}", quoted(name), quoted(text)));
    }
    line(
        true,
        &format!(
            "[tables.t{i}.merge]\n\"*\" = \"client-wins\"\nk2.a.{} = \"{strategy}\"",
            quoted(&member)
        ),
    );
    line(true, &format!("\"k2.x\" = \"{strategy}\""));
    lines.join("\n") + "\n"
}

proptest! {
    #[test]
    fn cf14_writing_and_reading_again_changes_nothing(text in file()) {
        let config = match Config::parse("a.toml", &text) {
            Ok(config) => config,
            // What the table of several columns refers to need not be unique; rules are any text,
            // and told beside that.
            Err(errors) => {
                let refers = |error: &ConfigError| error.message.contains("refer");
                let rule = |error: &ConfigError| error.expected.starts_with("a rule in");
                prop_assert!(errors.iter().any(refers), "{errors:#?} in {text}");
                let is_known = |error: &ConfigError| refers(error) || rule(error);
                prop_assert!(errors.iter().all(is_known), "{errors:#?} in {text}");
                return Err(TestCaseError::reject("a reference that does not fit"));
            }
        };
        let written = config.to_toml();
        let again = Config::parse("b.toml", &written);
        prop_assert_eq!(again.as_ref(), Ok(&config), "{}", written);
        prop_assert_eq!(config.to_toml(), written);
    }

    #[test]
    fn cf1_no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        drop(Config::parse("a.toml", &text));
        drop(Config::parse("a.toml", &format!("[tables.t]\n{text}")));
        let quoted = serde_json::to_string(&text).unwrap();
        let file = format!("[tables.t]\nread = {quoted}\nmerge = {{ {quoted} = \"set\" }}\n[tables.t.columns]\nid = \"uuid primary key\"\na = {quoted}");
        drop(Config::parse("a.toml", &file));
    }

    #[test]
    fn cf1_no_damaged_file_makes_the_reader_panic(
        text in file(),
        at in any::<prop::sample::Index>(),
        put in "[\\[\\]{}=\"'\\\\.\n(),a ]{0,3}",
        take in 0..5usize,
    ) {
        prop_assume!(!text.is_empty());
        let start = text.floor_char_boundary(at.index(text.len()));
        let end = text.floor_char_boundary((start + take).min(text.len())).max(start);
        let damaged = format!("{}{put}{}", &text[..start], &text[end..]);
        if let Err(errors) = Config::parse("a.toml", &damaged) {
            for error in errors {
                let line = damaged.lines().nth(error.line - 1).unwrap_or_default();
                prop_assert!(error.column <= line.chars().count() + 1, "{error} in {damaged}");
            }
        }
    }
}
