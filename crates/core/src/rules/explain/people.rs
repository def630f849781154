//! Who is allowed something, found by walking from the row to people.

use super::{Action, Explainer, Permitted, Through, alternative::Alternative};
use crate::{
    ids::UserId,
    rules::{
        Facts, Stored,
        branch::{Chain, Hop},
        cond::{Comparison, Cond, Env, all_hold},
        definition::{of_value, written},
        describe::Words,
        judge::{Lookup as _, each},
        term::{Field, Seen, Term, UserSource, UserTerm},
    },
    value::Value,
};

/// Most people that are told of one row.
pub const PEOPLE_MAX: usize = 1_000;

/// What a user has to be for one alternative, and the rows that say so.
#[derive(Debug, Clone, Default)]
pub(in crate::rules) struct Way {
    /// Values of the user.
    pub(in crate::rules) is: Vec<(UserTerm, Value)>,
    /// Further conditions on the user alone.
    pub(in crate::rules) conds: Vec<Cond>,
    /// Chains that begin at no row: whom they list is not looked up.
    pub(in crate::rules) listed: Vec<Chain>,
    through: Vec<Through>,
}

impl<F: Facts> Explainer<'_, F> {
    pub(super) fn people(
        &self,
        action: Action,
        row: &Stored,
    ) -> Result<Vec<Permitted>, F::Missing> {
        let Some(&table) = self.rules.by_number.get(&row.table) else {
            return Ok(Vec::new());
        };
        let mut people = Vec::new();
        let alternatives = Alternative::all(self.schema, self.rules, table, action);
        each(&alternatives, |alternative| {
            for way in self.ways(alternative, action, row)? {
                people.push(Permitted {
                    who: self.who(alternative.words, &way),
                    user: way.user(),
                    rule: alternative.rule.clone(),
                    through: way.through,
                });
            }
            Ok(())
        })?;
        people.sort_unstable();
        people.dedup();
        people.truncate(PEOPLE_MAX);
        Ok(people)
    }

    /// Every way through `alternative` for the row as it is.
    pub(in crate::rules) fn ways(
        &self,
        alternative: &Alternative<'_>,
        action: Action,
        row: &Stored,
    ) -> Result<Vec<Way>, F::Missing> {
        let env = Env {
            row: Some(row),
            old: (action != Action::Create).then_some(row),
            new: (action != Action::Delete).then_some(row),
            identity: None,
        };
        let mut way = Way::default();
        for cond in &alternative.conds {
            match on_user(cond, env) {
                Some(cond) => way.needs(cond),
                None if cond.holds(env) => {}
                None => return Ok(Vec::new()),
            }
        }
        let mut ways = vec![way];
        for &chain in &alternative.chains {
            let Some((place, column)) = chain.start else {
                for way in &mut ways {
                    way.listed.push(chain.clone());
                }
                continue;
            };
            let mut ends = Vec::new();
            let start = env.field(place, Field::from(column));
            self.ends(&chain.hops, &start, &mut Vec::new(), &mut ends)?;
            if chain.end.is_none() {
                ends.truncate(1);
            }
            let found = ends.into_iter().map(|(value, through)| Way {
                is: chain.end.iter().cloned().zip([value]).collect(),
                through,
                ..Way::default()
            });
            ways = both(ways, found.collect());
        }
        for parent in &alternative.parents {
            let rules = &self.rules.tables[parent.parent];
            let Some(key) = rules.key_of(env.field(parent.place, parent.field)) else {
                return Ok(Vec::new());
            };
            let mut found = Vec::new();
            for row in self.judge.lookup.images(rules.number, &key)? {
                let action = parent.mode.action();
                let of =
                    Alternative::all(alternative.words.schema, self.rules, parent.parent, action);
                for alternative in &of {
                    for mut way in self.ways(alternative, action, &row)? {
                        way.through.insert(0, self.through(&row));
                        found.push(way);
                    }
                }
            }
            ways = both(ways, found);
        }
        ways.retain(Way::is_possible);
        Ok(ways)
    }

    /// What the last hop has for people, of each path from the value `from`, with its rows.
    fn ends(
        &self,
        hops: &[Hop],
        from: &Seen<'_>,
        path: &mut Vec<Through>,
        out: &mut Vec<(Value, Vec<Through>)>,
    ) -> Result<(), F::Missing> {
        let [hop, rest @ ..] = hops else {
            return Ok(());
        };
        let Some(left) = hop.left else { return Ok(()) };
        let rows = self
            .rules
            .matching(self.judge.lookup, hop.table, left, from)?;
        each(&rows, |row| {
            if out.len() >= PEOPLE_MAX || !all_hold(&hop.conds, Env::row(row)) {
                return Ok(());
            }
            path.push(self.through(row));
            let done = match (hop.right, rest) {
                (None, _) => {
                    out.push((Value::Null, path.clone()));
                    Ok(())
                }
                (Some(right), []) => {
                    let value = right.of(row).into_value();
                    if value != Value::Null {
                        out.push((value, path.clone()));
                    }
                    Ok(())
                }
                (Some(right), _) => self.ends(rest, &right.of(row), path, out),
            };
            path.pop();
            done
        })
    }

    fn who(&self, words: Words<'_>, way: &Way) -> String {
        let mut who: Vec<String> = Vec::new();
        for (term, value) in &way.is {
            let value = of_value(value);
            let said = match &term.source {
                UserSource::Uid => format!("user {value}"),
                UserSource::Role | UserSource::Claim(_) => {
                    let term = words.term(&Term::User(term.clone()));
                    format!("users whose {term} is {value}")
                }
            };
            if !who.contains(&said) {
                who.push(said);
            }
        }
        who.extend(way.listed.iter().map(|chain| words.chain(chain)));
        if who.is_empty() {
            who.push("everybody".to_owned());
        }
        let conds: Vec<String> = way
            .conds
            .iter()
            .map(|cond| written(cond, &|term| words.term(term)))
            .collect();
        let conds = if conds.is_empty() {
            String::new()
        } else {
            format!(" if {}", conds.join(" AND "))
        };
        who.join(", being also ") + &conds
    }
}

impl Way {
    /// Takes in a condition on the user alone.
    fn needs(&mut self, cond: Cond) {
        match cond {
            Cond::Compare {
                op: Comparison::Equal,
                left: Term::Literal(value),
                right: Term::User(term),
            }
            | Cond::Compare {
                op: Comparison::Equal,
                left: Term::User(term),
                right: Term::Literal(value),
            } => self.is.push((term, value)),
            Cond::And(all) => all.into_iter().for_each(|cond| self.needs(cond)),
            Cond::Const(_)
            | Cond::Compare { .. }
            | Cond::IsNull { .. }
            | Cond::In { .. }
            | Cond::Or(_) => self.conds.push(cond),
        }
    }

    /// Whether somebody can be all of it.
    fn is_possible(&self) -> bool {
        self.is.iter().enumerate().all(|(at, (term, value))| {
            let value = Seen::from(value);
            let mut before = self.is[..at].iter().filter(|(other, _)| other == term);
            !value.is_null() && before.all(|(_, other)| value.equals(&Seen::from(other)))
        })
    }

    /// The one user, where nothing else is asked.
    fn user(&self) -> Option<UserId> {
        let uid = |(term, value): &(UserTerm, Value)| match (&term.source, value) {
            (UserSource::Uid, Value::Text(id)) => Some(UserId(id.clone())),
            (UserSource::Uid | UserSource::Role | UserSource::Claim(_), _) => None,
        };
        let all: Option<Vec<UserId>> = self.is.iter().map(uid).collect();
        let is_all = self.conds.is_empty() && self.listed.is_empty();
        all.filter(|_| is_all)?.into_iter().next()
    }
}

/// Every pair of ways that somebody can go at once.
fn both(one: Vec<Way>, other: Vec<Way>) -> Vec<Way> {
    let pairs = one
        .iter()
        .flat_map(|one| other.iter().map(move |other| (one, other)));
    let joined = pairs.map(|(one, other)| Way {
        is: [one.is.clone(), other.is.clone()].concat(),
        conds: [one.conds.clone(), other.conds.clone()].concat(),
        listed: [one.listed.clone(), other.listed.clone()].concat(),
        through: [one.through.clone(), other.through.clone()].concat(),
    });
    joined.filter(Way::is_possible).take(PEOPLE_MAX).collect()
}

/// A condition that names the user, with the row's values put in; `None` if it names no user.
fn on_user(cond: &Cond, env: Env<'_>) -> Option<Cond> {
    let mut names_user = false;
    cond.terms(&mut |term| names_user |= matches!(term, Term::User(_)));
    names_user.then(|| put_in(cond, env))
}

fn put_in(cond: &Cond, env: Env<'_>) -> Cond {
    let value = |term: &Term| match term {
        Term::Field(..) => Term::Literal(env.term(term).into_value()),
        Term::User(_) | Term::Literal(_) => term.clone(),
    };
    match cond {
        Cond::Const(value) => Cond::Const(*value),
        Cond::Compare { op, left, right } => Cond::Compare {
            op: *op,
            left: value(left),
            right: value(right),
        },
        Cond::IsNull { term, negated } => Cond::IsNull {
            term: value(term),
            negated: *negated,
        },
        Cond::In {
            term,
            list,
            negated,
        } => Cond::In {
            term: value(term),
            list: list.clone(),
            negated: *negated,
        },
        Cond::And(all) => Cond::And(all.iter().map(|cond| put_in(cond, env)).collect()),
        Cond::Or(any) => Cond::Or(any.iter().map(|cond| put_in(cond, env)).collect()),
    }
}
