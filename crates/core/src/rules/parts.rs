//! Sorting what a branch says by what it speaks about, and finding the chains in it.

use super::{
    RuleColumn,
    branch::{Chain, HOPS_MAX, Hop, Link},
    cond::{Comparison, Cond},
    normal::{Atom, Inherit, Mode, Parties, USER, parties},
    refusal::{Clause, Refusal},
    scope::field_name,
    term::{Field, Place, Term},
};
use crate::schema::Schema;

/// Everything a branch says, sorted by what it speaks about.
pub(super) struct Parts<'a> {
    pub(super) schema: &'a Schema,
    /// Index of the table of each place.
    pub(super) tables: &'a [usize],
    pub(super) joined: Vec<Place>,
    /// Conditions on the row images alone (and in write rules on the user too).
    pub(super) row: Vec<Cond>,
    pub(super) user: Vec<Cond>,
    pub(super) hops: Vec<(Place, Cond)>,
    pub(super) edges: Vec<Edge>,
    pub(super) parents: Vec<(Inherit, Clause)>,
    /// The first clause, for messages about the branch as a whole.
    pub(super) first: Clause,
}

/// Two things of different parties that a branch says are equal.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    pub(super) ends: [Term; 2],
    pub(super) clause: Clause,
}

const BRANCHING: &str = "the lookup branches: each table on the way from the row to the user is \
                         linked by one column to the one before and by one to the one after";
const NO_BRANCHING: &str = "leave out all but one link, or give a table on the way a read rule of \
                            its own and write `column IN readable(parent)`";

/// The parties that a condition may speak about without a lookup.
pub(super) const IMAGES: Parties = 0b111; // Place::ROW, OLD and NEW

impl<'a> Parts<'a> {
    pub(super) fn sorted(
        schema: &'a Schema,
        tables: &'a [usize],
        atoms: Vec<Atom>,
        write: bool,
    ) -> Result<Self, Refusal> {
        let mut parts = Self {
            schema,
            tables,
            joined: Vec::new(),
            row: Vec::new(),
            user: Vec::new(),
            hops: Vec::new(),
            edges: Vec::new(),
            parents: Vec::new(),
            first: Clause::new(""),
        };
        for atom in atoms {
            if let (Atom::Cond(_, clause) | Atom::Inherit(_, clause), true) =
                (&atom, parts.first.text.is_empty())
            {
                parts.first = clause.clone();
            }
            match atom {
                Atom::Joined(place) => parts.joined.push(place),
                Atom::Inherit(inherit, clause) => parts.parents.push((inherit, clause)),
                Atom::Cond(cond, clause) => parts.sort(cond, clause, write)?,
            }
        }
        Ok(parts)
    }

    fn sort(&mut self, cond: Cond, clause: Clause, write: bool) -> Result<(), Refusal> {
        if let Cond::And(all) = cond {
            return all
                .into_iter()
                .try_for_each(|cond| self.sort(cond, clause.clone(), write));
        }
        let of = parties(&cond);
        let images = of & (IMAGES | USER) == of;
        if of == USER {
            self.user.push(cond);
        } else if images && (write || of & USER == 0) {
            self.row.push(cond);
        } else if of.count_ones() == 1 {
            let place = Place(u8::try_from(of.trailing_zeros()).expect("a bit of 64"));
            self.hops.push((place, cond.on_row(place)));
        } else {
            match cond {
                Cond::Compare {
                    op: Comparison::Equal,
                    left,
                    right,
                } => {
                    self.edges.push(Edge {
                        ends: [left, right],
                        clause,
                    });
                }
                Cond::Const(_)
                | Cond::Compare { .. }
                | Cond::IsNull { .. }
                | Cond::In { .. }
                | Cond::And(_)
                | Cond::Or(_) => return Err(not_a_link(&clause)),
            }
        }
        Ok(())
    }

    /// Edges between the row and the user, without joined tables.
    pub(super) fn take_direct_edges(&mut self) -> Vec<Edge> {
        let direct = |edge: &Edge| edge.ends.iter().all(|end| joined_place(end).is_none());
        let (direct, others) = std::mem::take(&mut self.edges)
            .into_iter()
            .partition(direct);
        self.edges = others;
        direct
    }

    pub(super) fn parent_link(&self, inherit: Inherit, clause: &Clause) -> Result<Link, Refusal> {
        if inherit.mode == Mode::Write {
            return Err(Refusal::new(
                clause.clone(),
                "a read rule cannot inherit a write rule",
                "write `column IN readable(parent)`",
            ));
        }
        if !self.user.is_empty() {
            let parent = &self.schema.tables[inherit.parent].name;
            return Err(Refusal::new(
                clause.clone(),
                "the row lies in its parent's buckets, so it is seen by all who see the parent: a \
                 condition on the user cannot be added",
                format!("put the condition on the user into the read rule of `{parent}`"),
            ));
        }
        let column = self.lookup(inherit.place, inherit.field, clause)?;
        Ok(Link::Parent(column, inherit.parent))
    }

    /// The column of a place to look rows up by.
    fn lookup(&self, place: Place, field: Field, clause: &Clause) -> Result<RuleColumn, Refusal> {
        field.lookup().ok_or_else(|| {
            let table = &self.schema.tables[self.tables[usize::from(place.0)]];
            Refusal::new(
                clause.clone(),
                format!("rows cannot be looked up by `{}`", field_name(table, field)),
                "link by a column of the table or by `_owner`",
            )
        })
    }

    /// The chains that the joined places and the edges form.
    pub(super) fn chains(&mut self) -> Result<Vec<(Chain, Clause)>, Refusal> {
        let mut chains = Vec::new();
        while let Some(start) = self.next_start() {
            chains.push(self.walk(start)?);
        }
        if let Some(edge) = self.edges.first() {
            return Err(Refusal::new(edge.clause.clone(), BRANCHING, NO_BRANCHING));
        }
        Ok(chains)
    }

    /// A joined place where a chain starts: linked to the row, or else at an end of its tables.
    fn next_start(&self) -> Option<Place> {
        let degree = |place: Place, other: fn(&Term) -> bool| {
            self.edges_of(place).filter(|(_, far)| other(far)).count()
        };
        let on_row = |far: &Term| matches!(far, Term::Field(p, _) if !p.is_joined());
        let on_joined = |far: &Term| joined_place(far).is_some();
        let on_user = |far: &Term| matches!(far, Term::User(_));
        let linked = self.joined.iter().find(|place| degree(**place, on_row) > 0);
        let loose = || {
            self.joined
                .iter()
                .find(|p| degree(**p, on_joined) <= 1 && degree(**p, on_user) == 0)
                .or_else(|| self.joined.iter().find(|p| degree(**p, on_joined) == 0))
                .or(self.joined.first())
        };
        linked.or_else(loose).copied()
    }

    /// The edges at a place, each with its far end.
    fn edges_of(&self, place: Place) -> impl Iterator<Item = (usize, &Term)> {
        self.edges.iter().enumerate().filter_map(move |(i, edge)| {
            let near = edge
                .ends
                .iter()
                .position(|end| joined_place(end) == Some(place))?;
            Some((i, &edge.ends[1 - near]))
        })
    }

    /// Takes out the chain that starts at `place`.
    fn walk(&mut self, place: Place) -> Result<(Chain, Clause), Refusal> {
        let mut chain = Chain {
            start: None,
            hops: Vec::new(),
            end: None,
        };
        let mut first = None;
        let mut at = place;
        let mut left = None;
        let to_row = |far: &Term| matches!(far, Term::Field(p, _) if !p.is_joined());
        let linked = self
            .edges_of(at)
            .find(|(_, far)| to_row(far))
            .map(|(index, _)| index);
        if let Some(index) = linked {
            let edge = self.edges.remove(index);
            let (near, far) = edge.from(at);
            if let Term::Field(place, field) = far {
                chain.start = Some((place, self.lookup(place, field, &edge.clause)?));
                left = Some(self.lookup(at, near, &edge.clause)?);
            }
            first = Some(edge.clause);
        }
        loop {
            self.joined.retain(|place| *place != at);
            let conds = self.take_conds(at);
            let table = self.tables[usize::from(at.0)];
            let mut hop = Hop {
                table,
                left: left.take(),
                right: None,
                conds,
            };
            let next = self.edges_of(at).map(|(index, _)| index).next();
            let Some(index) = next else {
                chain.hops.push(hop);
                break;
            };
            let edge = self.edges.remove(index);
            let (near, far) = edge.from(at);
            self.lookup(at, near, &edge.clause)?;
            hop.right = Some(near);
            chain.hops.push(hop);
            first.get_or_insert_with(|| edge.clause.clone());
            match far {
                Term::User(term) => {
                    chain.end = Some(term);
                    break;
                }
                Term::Field(place, field) if place.is_joined() && self.joined.contains(&place) => {
                    left = Some(self.lookup(place, field, &edge.clause)?);
                    at = place;
                }
                Term::Field(..) | Term::Literal(_) => {
                    return Err(Refusal::new(edge.clause, BRANCHING, NO_BRANCHING));
                }
            }
        }
        let clause = first.unwrap_or_else(|| self.first.clone());
        self.check(&chain, &clause)?;
        Ok((chain, clause))
    }

    fn take_conds(&mut self, at: Place) -> Vec<Cond> {
        let all = std::mem::take(&mut self.hops);
        let (here, others) = all.into_iter().partition(|(place, _)| *place == at);
        self.hops = others;
        let here: Vec<(Place, Cond)> = here;
        here.into_iter().map(|(_, cond)| cond).collect()
    }

    fn check(&self, chain: &Chain, clause: &Clause) -> Result<(), Refusal> {
        let name = |hop: &Hop| &self.schema.tables[hop.table].name;
        if chain.start.is_none() && chain.end.is_none() {
            let table = name(&chain.hops[0]);
            return Err(Refusal::new(
                clause.clone(),
                format!("the lookup in `{table}` is linked neither to the row nor to the user"),
                format!("compare a column of `{table}` with a column of the row or `auth.uid()`"),
            ));
        }
        if chain.hops.len() > HOPS_MAX {
            return Err(Refusal::new(
                clause.clone(),
                format!("more than {HOPS_MAX} tables between the row and the user"),
                "give a table on the way a read rule of its own and write `column IN \
                 readable(parent)`",
            ));
        }
        for (i, hop) in chain.hops.iter().enumerate() {
            if chain.hops[..i]
                .iter()
                .any(|earlier| earlier.table == hop.table)
            {
                return Err(Refusal::new(
                    clause.clone(),
                    format!("`{}` is looked up twice in one chain", name(hop)),
                    "give the table in between a read rule of its own and write `column IN \
                     readable(parent)`",
                ));
            }
        }
        Ok(())
    }
}

impl Edge {
    /// The link of an edge between a column of the row and the user.
    pub(super) fn direct(&self) -> Option<Link> {
        match &self.ends {
            [Term::Field(_, field), Term::User(term)]
            | [Term::User(term), Term::Field(_, field)] => Some(Link::User(*field, term.clone())),
            _ => None,
        }
    }

    /// The column at `place` and the other end.
    fn from(&self, place: Place) -> (Field, Term) {
        let [a, b] = &self.ends;
        match (a, b) {
            (Term::Field(p, field), far) if *p == place => (*field, far.clone()),
            (far, Term::Field(_, field)) => (*field, far.clone()),
            _ => unreachable!("an edge has a column at each of its places"),
        }
    }
}

fn joined_place(term: &Term) -> Option<Place> {
    match term {
        Term::Field(place, _) if place.is_joined() => Some(*place),
        Term::Field(..) | Term::User(_) | Term::Literal(_) => None,
    }
}

pub(super) fn not_a_link(clause: &Clause) -> Refusal {
    Refusal::new(
        clause.clone(),
        "a row and a user, or rows of two tables, can be linked only by one `=`",
        "link them by `column = auth.uid()`, `column IN (SELECT …)` or `column IN \
         readable(parent)`, and compare each alone with values",
    )
}
