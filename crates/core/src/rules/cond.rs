//! Conditions without lookups, and their three-valued evaluation.

use std::cmp::Ordering;

use super::{
    Identity, Stored,
    term::{Field, Place, Seen, Term},
};
use crate::value::Value;

/// A condition on row images and the user. Negations have been pushed into the comparisons,
/// which changes nothing under three-valued logic.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cond {
    Const(bool),
    Compare {
        op: Comparison,
        left: Term,
        right: Term,
    },
    IsNull {
        term: Term,
        negated: bool,
    },
    /// The list holds no NULL.
    In {
        term: Term,
        list: Vec<Value>,
        negated: bool,
    },
    And(Vec<Cond>),
    Or(Vec<Cond>),
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(super) fn negated(self) -> Self {
        match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
        }
    }

    /// The operator that says the same with the sides exchanged.
    pub(super) fn mirrored(self) -> Self {
        match self {
            Self::Equal | Self::NotEqual => self,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }

    pub(super) fn allows(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }

    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// What a condition is evaluated on. Columns of an image that is absent are NULL.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Env<'a> {
    pub(super) row: Option<&'a Stored>,
    pub(super) old: Option<&'a Stored>,
    pub(super) new: Option<&'a Stored>,
    pub(super) identity: Option<&'a Identity>,
}

impl<'a> Env<'a> {
    /// Only a row, for conditions on the row alone.
    pub(super) fn row(row: &'a Stored) -> Self {
        Self {
            row: Some(row),
            ..Self::default()
        }
    }

    /// Only a user, for conditions on the user alone.
    pub(super) fn user(identity: &'a Identity) -> Self {
        Self {
            identity: Some(identity),
            ..Self::default()
        }
    }

    /// The value of a column of an image.
    pub(super) fn field(&self, place: Place, field: Field) -> Seen<'a> {
        let image = match place {
            Place::ROW => self.row,
            Place::OLD => self.old,
            Place::NEW => self.new,
            _ => None,
        };
        image.map_or(Seen::Null, |stored| field.of(stored))
    }

    /// The value of a term.
    pub(super) fn term(&self, term: &'a Term) -> Seen<'a> {
        match term {
            Term::Field(place, field) => self.field(*place, *field),
            Term::User(term) => self
                .identity
                .map_or(Seen::Null, |identity| term.of(identity)),
            Term::Literal(value) => Seen::from(value),
        }
    }
}

impl Cond {
    /// Whether the condition is true, not false and not unknown.
    pub(super) fn holds<'a>(&'a self, env: Env<'a>) -> bool {
        self.eval(env) == Some(true)
    }

    /// True, false or (`None`) unknown.
    fn eval<'a>(&'a self, env: Env<'a>) -> Option<bool> {
        match self {
            Self::Const(value) => Some(*value),
            Self::Compare { op, left, right } => env
                .term(left)
                .compare(&env.term(right))
                .map(|ordering| op.allows(ordering)),
            Self::IsNull { term, negated } => Some(env.term(term).is_null() != *negated),
            Self::In {
                term,
                list,
                negated,
            } => {
                let seen = env.term(term);
                if seen.is_null() {
                    return None;
                }
                Some(list.iter().any(|item| seen.equals(&Seen::from(item))) != *negated)
            }
            Self::And(all) => three_valued(all, env, false),
            Self::Or(any) => three_valued(any, env, true),
        }
    }

    /// Every term of the condition.
    pub(super) fn terms(&self, visit: &mut dyn FnMut(&Term)) {
        match self {
            Self::Const(_) => {}
            Self::Compare { left, right, .. } => {
                visit(left);
                visit(right);
            }
            Self::IsNull { term, .. } | Self::In { term, .. } => visit(term),
            Self::And(list) | Self::Or(list) => list.iter().for_each(|cond| cond.terms(visit)),
        }
    }

    /// The same condition with `from` called [`Place::ROW`].
    pub(super) fn on_row(mut self, from: Place) -> Self {
        self.replace(from);
        self
    }

    fn replace(&mut self, from: Place) {
        let row = |term: &mut Term| {
            if let Term::Field(place, _) = term
                && *place == from
            {
                *place = Place::ROW;
            }
        };
        match self {
            Self::Const(_) => {}
            Self::Compare { left, right, .. } => {
                row(left);
                row(right);
            }
            Self::IsNull { term, .. } | Self::In { term, .. } => row(term),
            Self::And(list) | Self::Or(list) => list.iter_mut().for_each(|c| c.replace(from)),
        }
    }
}

/// Whether all of `conds` hold.
pub(super) fn all_hold<'a>(conds: &'a [Cond], env: Env<'a>) -> bool {
    conds.iter().all(|cond| cond.holds(env))
}

/// `decisive` as soon as one is, else unknown if one is, else the opposite.
fn three_valued<'a>(conds: &'a [Cond], env: Env<'a>, decisive: bool) -> Option<bool> {
    let mut result = Some(!decisive);
    for cond in conds {
        match cond.eval(env) {
            Some(value) if value == decisive => return Some(decisive),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}
