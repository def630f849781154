//! The typed condition, brought to a disjunction of conjunctions (spec RU9).

use super::{
    cond::Cond,
    refusal::Clause,
    term::{Field, Place, Term},
};

/// Most branches that one rule may have.
pub const BRANCHES_MAX: usize = 32;

/// A condition with lookups. Nothing is negated but inside [`Cond`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    Cond(Cond, Clause),
    /// There are rows of the joined `places` for which `body` holds.
    Exists {
        places: Vec<Place>,
        body: Box<Expr>,
    },
    Inherit(Inherit, Clause),
    And(Vec<Expr>),
    Or(Vec<Expr>),
}

/// `column IN readable(parent)` or `column IN writable(parent)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inherit {
    pub(super) place: Place,
    pub(super) field: Field,
    /// Index into [`crate::Schema::tables`].
    pub(super) parent: usize,
    pub(super) mode: Mode,
}

/// Which rule of the parent is inherited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Mode {
    /// `readable(parent)`: its read rule.
    Read,
    /// `writable(parent)`: its update rule.
    Write,
}

impl Mode {
    pub(super) fn function(self) -> &'static str {
        match self {
            Self::Read => "readable",
            Self::Write => "writable",
        }
    }
}

/// One condition of a conjunction.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Atom {
    Cond(Cond, Clause),
    /// The conjunction speaks about a row of this joined place.
    Joined(Place),
    Inherit(Inherit, Clause),
}

/// What a condition speaks about, as a set of bits: one for each place, and [`USER`].
pub(super) type Parties = u64;
/// The bit of what is known of the user.
pub(super) const USER: Parties = 1 << 63;

/// The bit of a place.
pub(super) fn party(place: Place) -> Parties {
    1 << place.0
}

/// What `cond` speaks about.
pub(super) fn parties(cond: &Cond) -> Parties {
    let mut parties = 0;
    cond.terms(&mut |term| match term {
        Term::Field(place, _) => parties |= party(*place),
        Term::User(_) => parties |= USER,
        Term::Literal(_) => {}
    });
    parties
}

/// More branches than [`BRANCHES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyBranches;

impl Expr {
    /// Joins conditions about one party into one [`Cond`], so that `role = 'a' OR role = 'b'`
    /// makes no branches. `together` are parties that need not be told apart.
    pub(super) fn packed(self, together: Parties) -> Self {
        match self {
            Self::Cond(..) | Self::Inherit(..) => self,
            Self::Exists { places, body } => Self::Exists {
                places,
                body: Box::new(body.packed(together)),
            },
            Self::And(list) => pack(list, together, Self::And, Cond::And),
            Self::Or(list) => pack(list, together, Self::Or, Cond::Or),
        }
    }

    /// The branches of which one must hold: each a list of atoms that must all hold.
    pub(super) fn branches(self) -> Result<Vec<Vec<Atom>>, TooManyBranches> {
        let branches = match self {
            Self::Cond(Cond::Const(true), _) => vec![Vec::new()],
            Self::Cond(Cond::Const(false), _) => Vec::new(),
            Self::Cond(cond, clause) => vec![vec![Atom::Cond(cond, clause)]],
            Self::Inherit(inherit, clause) => vec![vec![Atom::Inherit(inherit, clause)]],
            Self::Exists { places, body } => {
                let mut branches = body.branches()?;
                for branch in &mut branches {
                    branch.extend(places.iter().copied().map(Atom::Joined));
                }
                branches
            }
            Self::Or(list) => {
                let mut branches = Vec::new();
                for expr in list {
                    branches.extend(expr.branches()?);
                    check(branches.len())?;
                }
                branches
            }
            Self::And(list) => {
                let mut branches = vec![Vec::new()];
                for expr in list {
                    let factors = expr.branches()?;
                    check(branches.len().saturating_mul(factors.len()))?;
                    branches = branches
                        .iter()
                        .flat_map(|left| factors.iter().map(|right| [&left[..], right].concat()))
                        .collect();
                }
                branches
            }
        };
        check(branches.len())?;
        Ok(branches)
    }
}

fn check(branches: usize) -> Result<(), TooManyBranches> {
    if branches > BRANCHES_MAX {
        Err(TooManyBranches)
    } else {
        Ok(())
    }
}

fn pack(
    list: Vec<Expr>,
    together: Parties,
    rest: fn(Vec<Expr>) -> Expr,
    joined: fn(Vec<Cond>) -> Cond,
) -> Expr {
    // In place of the first of each pack, so that messages keep the order of the text.
    let mut out: Vec<(Option<Parties>, Vec<Cond>, Expr)> = Vec::new();
    for expr in list {
        let expr = expr.packed(together);
        let Expr::Cond(cond, _) = &expr else {
            out.push((None, Vec::new(), expr));
            continue;
        };
        let of = parties(cond);
        let of = if of & !together == 0 { together } else { of };
        let alone = of == together || of.count_ones() == 1;
        let pack = alone.then_some(of);
        match out
            .iter_mut()
            .find(|(found, ..)| pack.is_some() && *found == pack)
        {
            Some((_, conds, _)) => conds.push(cond.clone()),
            None => out.push((pack, vec![cond.clone()], expr)),
        }
    }
    let mut list: Vec<Expr> = out
        .into_iter()
        .map(|(_, conds, expr)| match expr {
            Expr::Cond(_, clause) if conds.len() > 1 => Expr::Cond(joined(conds), clause),
            Expr::Cond(..)
            | Expr::Exists { .. }
            | Expr::Inherit(..)
            | Expr::And(_)
            | Expr::Or(_) => expr,
        })
        .collect();
    if list.len() == 1 {
        list.swap_remove(0)
    } else {
        rest(list)
    }
}
