//! The graph of tables that inherit rules: no cycles, bounded depth.

use std::collections::BTreeSet;

use super::{
    RuleError,
    branch::{Link, WriteBranch},
    compile::TableRules,
    normal::Mode,
};
use crate::schema::Schema;

/// Most tables above one another whose rules are inherited.
pub const INHERITANCE_MAX: usize = 4;

/// A table's rule that others can inherit.
type Node = (usize, Mode);

/// Refuses rules that inherit from themselves or through too many tables.
pub(super) fn check(schema: &Schema, tables: &[TableRules], errors: &mut Vec<RuleError>) {
    for (at, table) in schema.tables.iter().enumerate() {
        let of_write = |rule: &'static str, text: &Option<String>| match text {
            Some(_) => rule,
            None => "write",
        };
        let (texts, rules) = (&table.rules, &tables[at]);
        let (read, update) = ((at, Mode::Read), (at, Mode::Write));
        let entries = [
            ("read", Some(read), parents(tables, read)),
            (
                of_write("update", &texts.update),
                Some(update),
                parents(tables, update),
            ),
            (
                of_write("create", &texts.create),
                None,
                write_parents(&rules.create),
            ),
            (
                of_write("delete", &texts.delete),
                None,
                write_parents(&rules.delete),
            ),
        ];
        let mut told = BTreeSet::new();
        for (rule, own, parents) in entries {
            for parent in parents {
                let mut path = Vec::from_iter(own);
                let Some(problem) = climb(tables, parent, own, &mut path) else {
                    continue;
                };
                // A `write` rule stands for three: one message is enough.
                if told.insert((rule, parent)) {
                    let (parent, mode) = parent;
                    errors.push(RuleError {
                        table: table.name.clone(),
                        rule,
                        clause: format!("{}({})", mode.function(), tables[parent].name),
                        message: problem,
                        suggestion: SUGGESTION.to_owned(),
                        offset: None,
                    });
                }
            }
        }
    }
}

const SUGGESTION: &str = "write the rule of one of them out, with `column IN (SELECT …)`";

/// Follows `node` to its ancestors; says what is wrong with the way for the rule `own`.
fn climb(
    tables: &[TableRules],
    node: Node,
    own: Option<Node>,
    path: &mut Vec<Node>,
) -> Option<String> {
    let names = |path: &[Node]| -> String {
        let names: Vec<&str> = path
            .iter()
            .map(|(at, _)| tables[*at].name.as_str())
            .collect();
        names.join(" → ")
    };
    let cycle = path.contains(&node);
    path.push(node);
    let problem = if cycle {
        // A cycle further up is told by the rules in it.
        let names = names(path);
        (own == Some(node)).then(|| format!("the rule inherits from itself ({names})"))
    } else if path.len() > INHERITANCE_MAX + usize::from(own.is_some()) {
        let names = names(path);
        Some(format!(
            "rules are inherited through more than {INHERITANCE_MAX} tables ({names})"
        ))
    } else {
        let mut parents = parents(tables, node).into_iter();
        parents.find_map(|parent| climb(tables, parent, own, path))
    };
    path.pop();
    problem
}

fn parents(tables: &[TableRules], (at, mode): Node) -> BTreeSet<Node> {
    match mode {
        Mode::Read => tables[at]
            .read
            .iter()
            .filter_map(|branch| match branch.link {
                Link::Parent(_, parent) => Some((parent, Mode::Read)),
                Link::Everybody | Link::User(..) | Link::Chain(_) => None,
            })
            .collect(),
        Mode::Write => write_parents(&tables[at].update),
    }
}

fn write_parents(branches: &[WriteBranch]) -> BTreeSet<Node> {
    let parents = branches.iter().flat_map(|branch| &branch.parents);
    parents.map(|parent| (parent.parent, parent.mode)).collect()
}

/// Tells every parent its children.
pub(super) fn index(tables: &mut [TableRules]) {
    for at in 0..tables.len() {
        let number = tables[at].number;
        let links: Vec<_> = tables[at]
            .read
            .iter()
            .map(|branch| branch.link.clone())
            .collect();
        for link in links {
            if let Link::Parent(column, parent) = link
                && !tables[parent].children.contains(&(number, column))
            {
                tables[parent].children.push((number, column));
            }
        }
    }
}
