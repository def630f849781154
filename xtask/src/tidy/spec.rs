//! Rules of `docs/spec` and the tests that show them.
//!
//! A rule is a list item that starts with its id: `- **OB2** Pending = …`. A test shows rules by
//! starting its name with their ids: `fn ob2_ob3_nothing_flickers`, in JavaScript
//! `test('nd2 nd3 …')`. A rule without a test says why
//! in its text: `(open: needs a second storage)`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::repo::{self, Source};

/// `OB2`: two letters and a number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RuleId {
    prefix: String,
    number: u32,
}

impl RuleId {
    /// Reads an id that is the whole of `text`, in capitals.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (prefix, number) = text.split_at_checked(2)?;
        let is_id = prefix.bytes().all(|b| b.is_ascii_uppercase())
            && number.bytes().all(|b| b.is_ascii_digit())
            && !number.starts_with('0');
        Some(Self {
            prefix: prefix.into(),
            number: number.parse().ok()?,
        })
        .filter(|_| is_id)
    }
}

impl std::fmt::Display for RuleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.prefix, self.number)
    }
}

#[derive(Debug)]
struct Rule {
    id: RuleId,
    path: String,
    line: usize,
    /// Why there is no test.
    open: Option<String>,
}

/// A test function and the place of its name.
#[derive(Debug)]
struct Test {
    name: String,
    path: String,
    line: usize,
}

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let documents = documents(root)?;
    let (rules, mut problems) = rules(&documents);
    let tests = tests(&test_sources(root)?);
    problems.extend(uncovered(&rules, &tests));
    problems.extend(unknown_ids(&rules, &documents));
    Ok(problems)
}

/// The ids of all rules.
pub(super) fn ids(root: &Path) -> Result<BTreeSet<RuleId>> {
    let (rules, _) = rules(&documents(root)?);
    Ok(rules.into_iter().map(|rule| rule.id).collect())
}

/// Per prefix: how many rules there are, have a test, are open, have neither.
pub(super) fn table(root: &Path) -> Result<String> {
    let (rules, _) = rules(&documents(root)?);
    let shown = shown(&tests(&test_sources(root)?));
    let mut rows: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for rule in &rules {
        let row = rows.entry(&rule.id.prefix).or_default();
        row[0] += 1;
        match (shown.contains(&rule.id), &rule.open) {
            (true, _) => row[1] += 1,
            (false, Some(_)) => row[2] += 1,
            (false, None) => row[3] += 1,
        }
    }
    let mut text = String::from("spec    rules  tested    open  missing\n");
    for (prefix, [all, tested, open, missing]) in rows {
        writeln!(
            text,
            "{prefix:<6} {all:>6} {tested:>7} {open:>7} {missing:>8}"
        )?;
    }
    Ok(text)
}

fn documents(root: &Path) -> Result<Vec<Source>> {
    repo::sources(root, "docs/spec", |path| path.ends_with(".md"))
}

/// What has tests in it.
fn test_sources(root: &Path) -> Result<Vec<Source>> {
    let mut sources = repo::sources(root, "crates", |path| path.ends_with(".rs"))?;
    sources.extend(repo::sources(root, "packages", |path| {
        path.ends_with(".test.mjs")
    })?);
    Ok(sources)
}

/// All rules in the order of the documents, and what is wrong with how they are written.
fn rules(documents: &[Source]) -> (Vec<Rule>, Vec<String>) {
    let mut rules: Vec<Rule> = Vec::new();
    let mut places = BTreeMap::new();
    let mut problems = Vec::new();
    for document in documents {
        let mut inside = false;
        for (number, line) in document.text.lines().enumerate() {
            if let Some(id) = rule_start(line) {
                let place = format!("{}:{}", document.path, number + 1);
                if let Some(first) = places.insert(id.clone(), place.clone()) {
                    problems.push(format!("{place}: {id} is the id of another rule: {first}"));
                }
                let (path, line) = (document.path.clone(), number + 1);
                rules.push(Rule {
                    id,
                    path,
                    line,
                    open: None,
                });
                inside = true;
            } else if line.trim().is_empty() || line.starts_with('#') || line.starts_with("- ") {
                inside = false;
            }
            if inside
                && let Some(rule) = rules.last_mut()
                && let Some((_, why)) = line.split_once("(open:")
            {
                rule.open = Some(why.split(')').next().unwrap_or_default().trim().to_owned());
            }
        }
    }
    for rule in &rules {
        if rule.open.as_ref().is_some_and(String::is_empty) {
            problems.push(format!(
                "{}:{}: {}: say why it is open",
                rule.path, rule.line, rule.id
            ));
        }
    }
    (rules, problems)
}

fn rule_start(line: &str) -> Option<RuleId> {
    let rest = line
        .trim_start_matches(['-', '|', ' '])
        .strip_prefix("**")?;
    RuleId::parse(rest.split_once("**")?.0.trim_end_matches('.'))
}

/// Test functions: marked as a test, or of the suite that every storage passes.
fn tests(sources: &[Source]) -> Vec<Test> {
    let mut tests = Vec::new();
    for source in sources {
        let in_suite = source.path.contains("/contract");
        let mut marked = false;
        for (number, line) in source.text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with("#[test]") || (line.starts_with("#[") && line.contains("::test")) {
                marked = true;
            }
            if let Some(name) = script_test(line).filter(|_| source.path.ends_with(".mjs")) {
                tests.push(Test {
                    name: name.replace(' ', "_"),
                    path: source.path.clone(),
                    line: number + 1,
                });
                continue;
            }
            let Some((before, rest)) = line.split_once("fn ") else {
                continue;
            };
            if !before
                .split_whitespace()
                .all(|word| word.starts_with("pub") || word == "async")
            {
                continue;
            }
            if marked || in_suite {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                let name = rest[..end.unwrap_or(rest.len())].to_owned();
                tests.push(Test {
                    name,
                    path: source.path.clone(),
                    line: number + 1,
                });
            }
            marked = false;
        }
    }
    tests
}

/// The name of a test in JavaScript, up to what is put into it.
fn script_test(line: &str) -> Option<&str> {
    let quoted = line.strip_prefix("test(")?;
    let rest = quoted.strip_prefix(['\'', '`'])?;
    rest.split(['\'', '`', '$']).next()
}

/// The ids at the start of a test's name.
fn ids_of(name: &str) -> Vec<RuleId> {
    name.split('_')
        .map_while(|part| {
            let lower = part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            lower
                .then(|| RuleId::parse(&part.to_ascii_uppercase()))
                .flatten()
        })
        .collect()
}

fn shown(tests: &[Test]) -> BTreeSet<RuleId> {
    tests.iter().flat_map(|test| ids_of(&test.name)).collect()
}

fn uncovered(rules: &[Rule], tests: &[Test]) -> Vec<String> {
    let shown = shown(tests);
    let known: BTreeSet<&RuleId> = rules.iter().map(|rule| &rule.id).collect();
    let prefixes: BTreeSet<&str> = rules.iter().map(|rule| rule.id.prefix.as_str()).collect();
    let mut problems = Vec::new();
    for rule in rules {
        let place = format!("{}:{}: {}", rule.path, rule.line, rule.id);
        match (shown.contains(&rule.id), &rule.open) {
            (false, None) => problems.push(format!(
                "{place} has no test: name one `fn {}_…`, or write why not: `(open: …)`",
                rule.id.to_string().to_lowercase()
            )),
            (true, Some(_)) => problems.push(format!("{place} has a test: it is not open")),
            (true, None) | (false, Some(_)) => {}
        }
    }
    for test in tests {
        for id in ids_of(&test.name) {
            if prefixes.contains(id.prefix.as_str()) && !known.contains(&id) {
                problems.push(format!(
                    "{}:{}: `{}` shows {id}, which docs/spec does not have",
                    test.path, test.line, test.name
                ));
            }
        }
    }
    problems
}

/// References in the documents to rules that do not exist.
fn unknown_ids(rules: &[Rule], documents: &[Source]) -> Vec<String> {
    let known: BTreeSet<&RuleId> = rules.iter().map(|rule| &rule.id).collect();
    let prefixes: BTreeSet<&str> = rules.iter().map(|rule| rule.id.prefix.as_str()).collect();
    let mut problems = Vec::new();
    for document in documents {
        for (number, line) in document.text.lines().enumerate() {
            for word in line.split(|c: char| !c.is_alphanumeric()) {
                if let Some(id) = RuleId::parse(word)
                    && prefixes.contains(id.prefix.as_str())
                    && !known.contains(&id)
                {
                    problems.push(format!(
                        "{}:{}: there is no rule {id}",
                        document.path,
                        number + 1
                    ));
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "\
# Outbox
- **OB1** One state each.
- **OB2** Nothing flickers,
  ever (open: needs a screen).

- **OB3** Kept until a checkpoint (CA1, OB9).
";

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            text: text.into(),
        }
    }

    fn problems(spec: &str, code: &str) -> Vec<String> {
        let documents = [source("docs/spec/outbox.md", spec)];
        let (rules, mut problems) = rules(&documents);
        problems.extend(uncovered(
            &rules,
            &tests(&[source("crates/a/tests/it/x.rs", code)]),
        ));
        problems.extend(unknown_ids(&rules, &documents));
        problems
    }

    #[test]
    fn ids_are_two_letters_and_a_number() {
        assert!(RuleId::parse("OB12").is_some());
        for other in ["OB", "OB0", "OB01", "ob1", "OB1x", "O1", "É1", "HS256-"] {
            assert!(RuleId::parse(other).is_none(), "{other}");
        }
        let ids = ids_of("ob2_ob13_nothing_flickers_ob4");
        assert_eq!(
            ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["OB2", "OB13"]
        );
    }

    #[test]
    fn rules_without_a_test_and_references_to_none_are_named() {
        let found = problems(
            SPEC,
            "#[test]\nfn ob1_is_in_one_state() {}\nfn ob3_helper() {}",
        );
        assert_eq!(
            found,
            [
                "docs/spec/outbox.md:6: OB3 has no test: name one `fn ob3_…`, or write why not: \
                 `(open: …)`",
                "docs/spec/outbox.md:6: there is no rule OB9",
            ]
        );
    }

    #[test]
    fn a_test_may_show_many_rules_and_be_async() {
        let spec = SPEC.replace(", OB9", "");
        let code = "#[tokio::test(flavor = \"current_thread\")]\nasync fn ob1_ob3_all_of_it() {}";
        assert!(problems(&spec, code).is_empty());
    }

    #[test]
    fn a_test_in_javascript_shows_rules_by_its_first_words() {
        let code =
            "test('ob1 ob3 all of it', () => {});\ntest(`nd2 in ${mode}`, fn);\n// test('x')";
        let found = tests(&[source("packages/a/test/x.test.mjs", code)]);
        let names: Vec<&str> = found.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["ob1_ob3_all_of_it", "nd2_in_"]);
    }

    #[test]
    fn tests_of_unknown_rules_tested_open_rules_and_repeated_ids_are_named() {
        let spec = "- **OB1** A (open: later).\n- **OB1** B.\n- **OB2** C (open:).\n";
        let code = "#[test]\nfn ob1_a() {}\n#[test]\nfn ob7_b() {}";
        let found = problems(spec, code);
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found[0].ends_with("OB1 is the id of another rule: docs/spec/outbox.md:1"));
        assert!(found[1].ends_with("OB2: say why it is open"));
        assert!(found[2].ends_with("OB1 has a test: it is not open"));
        assert!(found[3].contains("`ob7_b` shows OB7"));
    }
}
