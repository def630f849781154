//! The alternatives of reading and writing in one form.

use super::Action;
use crate::{
    rules::{
        branch::{Chain, Link, ReadBranch, WriteBranch, WriteParent},
        compile::Compiled,
        cond::{Comparison, Cond},
        describe::Words,
        normal::Mode,
        term::{Field, Place, Term},
    },
    schema::Schema,
};

/// One alternative of a rule: all of it has to hold.
pub(in crate::rules) struct Alternative<'a> {
    pub(in crate::rules) words: Words<'a>,
    pub(in crate::rules) rule: String,
    pub(in crate::rules) conds: Vec<Cond>,
    pub(in crate::rules) chains: Vec<&'a Chain>,
    pub(in crate::rules) parents: Vec<WriteParent>,
    pub(in crate::rules) branch: Branch<'a>,
}

/// Where it comes from.
pub(in crate::rules) enum Branch<'a> {
    Read(&'a ReadBranch),
    Write(&'a WriteBranch),
}

impl<'a> Alternative<'a> {
    /// The alternatives of a table's rule for `action`.
    pub(in crate::rules) fn all(
        schema: &'a Schema,
        rules: &'a Compiled,
        table: usize,
        action: Action,
    ) -> Vec<Self> {
        let words = Words {
            schema,
            table: &schema.tables[table],
        };
        let rules = &rules.tables[table];
        let write = |branches: &'a [WriteBranch]| {
            let all = branches.iter().map(|branch| Self::of_write(words, branch));
            all.collect()
        };
        match action {
            Action::Read => {
                let all = rules.read.iter().map(|branch| Self::of_read(words, branch));
                all.collect()
            }
            Action::Create => write(&rules.create),
            Action::Update => write(&rules.update),
            Action::Delete => write(&rules.delete),
        }
    }

    fn of_read(words: Words<'a>, branch: &'a ReadBranch) -> Self {
        let mut conds = [branch.row.clone(), branch.user.clone()].concat();
        let (mut chains, mut parents) = (Vec::new(), Vec::new());
        match &branch.link {
            Link::Everybody => {}
            Link::User(field, term) => conds.push(Cond::Compare {
                op: Comparison::Equal,
                left: Term::Field(Place::ROW, *field),
                right: Term::User(term.clone()),
            }),
            Link::Chain(chain) => chains.push(chain),
            Link::Parent(column, parent) => parents.push(WriteParent {
                place: Place::ROW,
                field: Field::from(*column),
                parent: *parent,
                mode: Mode::Read,
            }),
        }
        Self {
            words,
            rule: words.read(branch),
            conds,
            chains,
            parents,
            branch: Branch::Read(branch),
        }
    }

    fn of_write(words: Words<'a>, branch: &'a WriteBranch) -> Self {
        Self {
            words,
            rule: words.write(branch),
            conds: branch.conds.clone(),
            chains: branch.chains.iter().collect(),
            parents: branch.parents.clone(),
            branch: Branch::Write(branch),
        }
    }
}

impl Mode {
    /// The action that inheriting asks about.
    pub(in crate::rules) fn action(self) -> Action {
        match self {
            Self::Read => Action::Read,
            Self::Write => Action::Update,
        }
    }
}
