//! The graph of tables that inherit rules: no cycles, bounded depth.

use std::collections::BTreeSet;

use super::{
    RuleError,
    branch::{Link, WriteBranch},
    compile::TableRules,
    normal::Mode,
};

/// Most tables above one another whose rules are inherited.
pub const INHERITANCE_MAX: usize = 4;

/// A table's rule that others can inherit.
type Node = (usize, Mode);

/// Refuses rules that inherit from themselves or through too many tables.
pub(super) fn check(tables: &[TableRules], errors: &mut Vec<RuleError>) {
    for at in 0..tables.len() {
        let entries = [
            ("read", parents(tables, (at, Mode::Read))),
            ("create", write_parents(&tables[at].create)),
            ("update", parents(tables, (at, Mode::Write))),
            ("delete", write_parents(&tables[at].delete)),
        ];
        let mut told = BTreeSet::new();
        for (rule, parents) in entries {
            let own = match rule {
                "read" => Some((at, Mode::Read)),
                "update" => Some((at, Mode::Write)),
                _ => None,
            };
            for parent in parents {
                let mut path = Vec::from_iter(own);
                // A `write` rule stands for three: one message is enough.
                if let Some(problem) = climb(tables, parent, &mut path)
                    && told.insert((parent, problem.clone()))
                {
                    let (table, mode) = parent;
                    errors.push(RuleError {
                        table: tables[at].name.clone(),
                        rule,
                        clause: format!("{}({})", mode.function(), tables[table].name),
                        message: problem,
                        suggestion:
                            "write the rule of one of them out, with `column IN (SELECT …)`"
                                .to_owned(),
                        offset: None,
                    });
                }
            }
        }
    }
}

/// Follows `node` to its ancestors; says what is wrong with the way.
fn climb(tables: &[TableRules], node: Node, path: &mut Vec<Node>) -> Option<String> {
    let cycle = path.contains(&node);
    path.push(node);
    if cycle || path.len() > INHERITANCE_MAX + 1 {
        let names: Vec<&str> = path
            .iter()
            .map(|(at, _)| tables[*at].name.as_str())
            .collect();
        let names = names.join(" → ");
        return Some(if cycle {
            format!("the rule inherits from itself ({names})")
        } else {
            format!("rules are inherited through more than {INHERITANCE_MAX} tables ({names})")
        });
    }
    let problem = parents(tables, node)
        .into_iter()
        .find_map(|parent| climb(tables, parent, path));
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
