//! Rules in words, for people who check what they wrote.

use super::{
    RuleColumn,
    branch::{Chain, Link, ReadBranch, WriteBranch},
    compile::TableRules,
    cond::{Comparison, Cond},
    definition::{of_value, written},
    normal::Mode,
    scope::field_name,
    term::{Field, Place, Term, UserSource, UserTerm},
};
use crate::{
    schema::{Schema, Table},
    value::Value,
};

/// What each rule of `table` says, a line for each.
pub(super) fn table(schema: &Schema, table: &Table, rules: &TableRules) -> String {
    let words = Words { schema, table };
    let write = |branches: &[WriteBranch]| words.all(branches.iter().map(|b| words.write(b)));
    let mut lines = vec![format!(
        "read by {}",
        words.all(rules.read.iter().map(|b| words.read(b)))
    )];
    let [create, update, delete] = [&rules.create, &rules.update, &rules.delete].map(|b| write(b));
    if create == update && update == delete {
        lines.push(format!("written by {create}"));
    } else {
        lines.push(format!("created by {create}"));
        lines.push(format!("updated by {update}"));
        lines.push(format!("deleted by {delete}"));
    }
    for (position, value) in &rules.forced {
        let value = words.term(value);
        lines.push(format!(
            "`{}` is set to {value} by the server",
            table.columns[*position].name
        ));
    }
    if rules.on_demand {
        lines.push("on a device only while it subscribes".to_owned());
    }
    let lines: Vec<String> = lines
        .iter()
        .map(|line| format!("{}: {line}", table.name))
        .collect();
    lines.join("\n")
}

/// Words about one table's rules.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) schema: &'a Schema,
    pub(super) table: &'a Table,
}

impl Words<'_> {
    fn all(&self, branches: impl Iterator<Item = String>) -> String {
        let branches: Vec<String> = branches.collect();
        if branches.is_empty() {
            "nobody".to_owned()
        } else {
            branches.join("; by ")
        }
    }

    pub(super) fn read(&self, branch: &ReadBranch) -> String {
        let who = match &branch.link {
            Link::Everybody => "everybody".to_owned(),
            Link::User(field, term) => self.user(*field, term),
            Link::Chain(chain) => self.chain(chain),
            Link::Parent(column, parent) => {
                self.parent(Place::ROW, Field::from(*column), *parent, Mode::Read)
            }
        };
        who + &self.conds(" if ", &branch.user) + &self.conds(" while ", &branch.row)
    }

    pub(super) fn write(&self, branch: &WriteBranch) -> String {
        let mut who = Vec::new();
        let mut conds = Vec::new();
        for cond in &branch.conds {
            match as_user(cond) {
                Some((field, term)) => who.push(self.user(field, term)),
                None => conds.push(cond.clone()),
            }
        }
        for parent in &branch.parents {
            who.push(self.parent(parent.place, parent.field, parent.parent, parent.mode));
        }
        who.extend(branch.chains.iter().map(|chain| self.chain(chain)));
        if who.is_empty() {
            who.push("everybody".to_owned());
        }
        who.join(" who are also ") + &self.conds(" if ", &conds)
    }

    fn user(&self, field: Field, term: &UserTerm) -> String {
        let column = field_name(self.table, field);
        match (field, &term.source) {
            (Field::Owner, UserSource::Uid) => "its owner".to_owned(),
            (_, UserSource::Uid) => format!("the user in `{column}`"),
            (_, UserSource::Role | UserSource::Claim(_)) => {
                format!(
                    "users whose {} is `{column}`",
                    self.term(&Term::User(term.clone()))
                )
            }
        }
    }

    fn parent(&self, place: Place, field: Field, parent: usize, mode: Mode) -> String {
        let who = match mode {
            Mode::Read => "readers",
            Mode::Write => "writers",
        };
        let column = self.column(place, field);
        format!(
            "{who} of its row in {} ({column})",
            self.schema.tables[parent].name
        )
    }

    /// The table next to the user first: it is the one that lists people.
    pub(super) fn chain(&self, chain: &Chain) -> String {
        let mut hops = chain.hops.iter().rev().map(|hop| {
            let table = &self.schema.tables[hop.table];
            let column = |column: RuleColumn| Field::from(column);
            let columns: Vec<&str> = hop
                .left
                .map(column)
                .into_iter()
                .chain(hop.right)
                .map(|field| field_name(table, field))
                .collect();
            let of = Words {
                schema: self.schema,
                table,
            };
            let conds = of.conds(" with ", &hop.conds);
            format!("{} ({}){conds}", table.name, columns.join(", "))
        });
        let first = hops.next().unwrap_or_default();
        let through: String = hops.map(|hop| format!(" through {hop}")).collect();
        match &chain.end {
            None => format!("everybody while listed in {first}{through}"),
            Some(term) if term.source == UserSource::Uid => {
                format!("users listed in {first}{through}")
            }
            Some(term) => {
                let claim = self.term(&Term::User(term.clone()));
                format!("users whose {claim} is listed in {first}{through}")
            }
        }
    }

    fn conds(&self, before: &str, conds: &[Cond]) -> String {
        if conds.is_empty() {
            return String::new();
        }
        let conds: Vec<String> = conds
            .iter()
            .map(|cond| written(cond, &|term| self.term(term)))
            .collect();
        format!("{before}{}", conds.join(" AND "))
    }

    pub(super) fn term(&self, term: &Term) -> String {
        match term {
            Term::Field(place, field) => self.column(*place, *field),
            Term::Literal(value) => of_value(value),
            Term::User(UserTerm { source, .. }) => match source {
                UserSource::Uid => "auth.uid()".to_owned(),
                UserSource::Role => "auth.role()".to_owned(),
                UserSource::Claim(path) => {
                    let path: Vec<String> = path
                        .iter()
                        .map(|name| of_value(&Value::Text(name.clone())))
                        .collect();
                    format!("auth.claim({})", path.join(", "))
                }
            },
        }
    }

    fn column(&self, place: Place, field: Field) -> String {
        let name = field_name(self.table, field);
        match place {
            Place::OLD => format!("old.{name}"),
            Place::NEW => format!("new.{name}"),
            _ => name.to_owned(),
        }
    }
}

/// `column = auth.uid()` on the row itself.
fn as_user(cond: &Cond) -> Option<(Field, &UserTerm)> {
    let Cond::Compare {
        op: Comparison::Equal,
        left,
        right,
    } = cond
    else {
        return None;
    };
    match (left, right) {
        (Term::Field(Place::ROW, field), Term::User(term)) => Some((*field, term)),
        (Term::Field(..) | Term::User(_) | Term::Literal(_), _) => None,
    }
}
