//! One branch of a rule: conditions, and the links from a row to people (spec RU10, RU11).

use super::{
    RuleColumn,
    cond::Cond,
    normal::{Atom, Mode},
    parts::{Parts, not_a_link},
    refusal::{Clause, Refusal},
    term::{Field, Place, UserTerm},
};
use crate::schema::Schema;

/// Most tables between a row and a person.
pub const HOPS_MAX: usize = 4;

/// A branch of a read rule.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReadBranch {
    /// Conditions on the row alone.
    pub(super) row: Vec<Cond>,
    /// Conditions on the user alone.
    pub(super) user: Vec<Cond>,
    pub(super) link: Link,
}

/// How a branch leads from a row to people.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Link {
    /// To everybody who fulfils the conditions on the user.
    Everybody,
    /// To the user whose id or claim equals a column.
    User(Field, UserTerm),
    Chain(Chain),
    /// To those who may read the parent.
    Parent(RuleColumn, usize),
}

/// Rows of other tables that lead to people, each joined to the next by one column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chain {
    /// The column that equals the first hop's `left`; `None` where any row of the first hop
    /// will do, which `left` then says too.
    pub(super) start: Option<(Place, RuleColumn)>,
    /// Never empty.
    pub(super) hops: Vec<Hop>,
    /// What equals the last hop's `right`; `None` for everybody, which `right` then says too.
    pub(super) end: Option<UserTerm>,
}

/// One row on the way from a row to people.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hop {
    /// Index into [`Schema::tables`].
    pub(super) table: usize,
    /// The column that leads towards the row.
    pub(super) left: Option<RuleColumn>,
    /// The column that leads towards people.
    pub(super) right: Option<Field>,
    /// Conditions on the hop's row alone.
    pub(super) conds: Vec<Cond>,
}

/// A branch of a write rule: evaluated directly, so any number of links will do.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WriteBranch {
    /// Conditions on `old`, `new`, the row and the user.
    pub(super) conds: Vec<Cond>,
    pub(super) chains: Vec<Chain>,
    pub(super) parents: Vec<WriteParent>,
}

/// A parent whose rule must hold too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriteParent {
    pub(super) place: Place,
    pub(super) field: Field,
    pub(super) parent: usize,
    pub(super) mode: Mode,
}

const TWO_LINKS: &str = "two links to people in one conjunction: a row can be in the buckets of \
                         only one of them";
const ONE_LINK: &str = "keep one of them here; put the other into the read rule of a parent table \
                        and write `column IN readable(parent)`, or join them by OR";

impl ReadBranch {
    pub(super) fn new(
        schema: &Schema,
        tables: &[usize],
        atoms: Vec<Atom>,
    ) -> Result<Self, Refusal> {
        let mut parts = Parts::sorted(schema, tables, atoms, false)?;
        let mut links: Vec<(Link, Clause)> = Vec::new();
        for edge in parts.take_direct_edges() {
            let link = edge.direct().ok_or_else(|| not_a_link(&edge.clause))?;
            links.push((link, edge.clause));
        }
        for (inherit, clause) in std::mem::take(&mut parts.parents) {
            links.push((parts.parent_link(inherit, &clause)?, clause));
        }
        for (chain, clause) in parts.chains()? {
            links.push((Link::Chain(chain), clause));
        }
        if let Some((_, clause)) = links.get(1) {
            return Err(Refusal::new(clause.clone(), TWO_LINKS, ONE_LINK));
        }
        let link = links.pop().map_or(Link::Everybody, |(link, _)| link);
        Ok(Self {
            row: parts.row,
            user: parts.user,
            link,
        })
    }
}

impl WriteBranch {
    pub(super) fn new(
        schema: &Schema,
        tables: &[usize],
        atoms: Vec<Atom>,
    ) -> Result<Self, Refusal> {
        let mut parts = Parts::sorted(schema, tables, atoms, true)?;
        let chains = parts
            .chains()?
            .into_iter()
            .map(|(chain, _)| chain)
            .collect();
        let parents = parts.parents.iter().map(|(inherit, _)| WriteParent {
            place: inherit.place,
            field: inherit.field,
            parent: inherit.parent,
            mode: inherit.mode,
        });
        let parents = parents.collect();
        Ok(Self {
            conds: [parts.row, parts.user].concat(),
            chains,
            parents,
        })
    }
}
