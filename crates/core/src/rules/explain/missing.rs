//! What makes an alternative hold, or what is missing for that.

use super::{
    Action, Explainer, Reason, Through,
    alternative::{Alternative, Branch},
};
use crate::rules::{
    Facts, Proposed, Stored,
    branch::{Chain, Hop, WriteParent},
    cond::{Cond, Env, all_hold},
    definition::{of_value, written},
    describe::Words,
    judge::Lookup as _,
    scope::field_name,
    term::{Field, Seen, Term},
};

impl<F: Facts> Explainer<'_, F> {
    pub(super) fn reason(
        &self,
        alternative: &Alternative<'_>,
        env: Env<'_>,
    ) -> Result<Reason, F::Missing> {
        let holds = match (&alternative.branch, env.row) {
            (Branch::Read(branch), Some(row)) => self.judge.read_branch(branch, row)?,
            (Branch::Read(_), None) => false,
            (Branch::Write(branch), _) => self.judge.write_branch(branch, env)?,
        };
        let mut said = Said::default();
        for cond in &alternative.conds {
            if !cond.holds(env) {
                said.lacks.push(unfulfilled(alternative.words, cond, env));
            } else if cond_names_user(cond) {
                said.has.push(fulfilled(alternative.words, cond));
            }
        }
        for chain in &alternative.chains {
            self.of_chain(alternative.words, chain, env, &mut said)?;
        }
        for parent in &alternative.parents {
            self.of_parent(alternative.words, parent, env, &mut said)?;
        }
        Ok(Reason {
            holds,
            rule: alternative.rule.clone(),
            because: if holds { said.has } else { said.lacks },
            through: if holds { said.through } else { Vec::new() },
        })
    }

    fn of_chain(
        &self,
        words: Words<'_>,
        chain: &Chain,
        env: Env<'_>,
        said: &mut Said,
    ) -> Result<(), F::Missing> {
        let end = chain.end.as_ref().map(|term| term.of(self.judge.identity));
        let start = chain
            .start
            .map(|(place, column)| env.field(place, Field::from(column)));
        if let (Some(Seen::Null), Some(term)) = (&end, &chain.end) {
            let term = words.term(&Term::User(term.clone()));
            said.lacks
                .push(format!("{term} is NULL, which no row lists"));
            return Ok(());
        }
        if let (Some(Seen::Null), Some((place, column))) = (&start, chain.start) {
            let column = words.term(&Term::Field(place, Field::from(column)));
            said.lacks
                .push(format!("{column} is NULL, which no row has"));
            return Ok(());
        }
        if let Some(path) = self.path(&chain.hops, start.as_ref(), end.as_ref(), true)? {
            let names: Vec<String> = path.iter().map(|row| self.named(row)).collect();
            said.has.push(format!("through {}", names.join(", ")));
            said.through
                .extend(path.iter().map(|row| self.through(row)));
            return Ok(());
        }
        if let Some(path) = self.path(&chain.hops, start.as_ref(), end.as_ref(), false)? {
            for (hop, row) in chain.hops.iter().zip(&path) {
                let of = self.words(hop.table);
                for cond in hop.conds.iter().filter(|cond| !cond.holds(Env::row(row))) {
                    let what = unfulfilled(of, cond, Env::row(row));
                    said.lacks
                        .push(format!("{} is there, but {what}", self.named(row)));
                }
            }
            return Ok(());
        }
        said.lacks
            .push(self.wanted(chain, start.as_ref(), end.as_ref()));
        Ok(())
    }

    fn of_parent(
        &self,
        words: Words<'_>,
        parent: &WriteParent,
        env: Env<'_>,
        said: &mut Said,
    ) -> Result<(), F::Missing> {
        let value = env.field(parent.place, parent.field);
        let column = words.term(&Term::Field(parent.place, parent.field));
        let rules = &self.rules.tables[parent.parent];
        let Some(key) = rules.key_of(value.clone()) else {
            let sentence = format!("{column} is NULL, which leads to no row of {}", rules.name);
            said.lacks.push(sentence);
            return Ok(());
        };
        let images = self.judge.lookup.images(rules.number, &key)?;
        let Some(row) = images.first() else {
            said.lacks.push(format!(
                "there is no row {} in {}, which {column} names",
                of_value(&value.into_value()),
                rules.name
            ));
            return Ok(());
        };
        let change = Proposed {
            before: Some(row.clone()),
            after: Some(row.clone()),
        };
        let action = parent.mode.action();
        let verdict = self.verdict(action, &change)?;
        let name = self.named(row);
        if verdict.allowed {
            said.through.push(self.through(row));
            let reason = verdict.reasons.into_iter().find(|reason| reason.holds);
            let Some(reason) = reason else { return Ok(()) };
            said.has
                .push(format!("{name} is {} by {}", past(action), reason.rule));
            said.has.extend(reason.because);
            said.through.extend(reason.through);
            return Ok(());
        }
        let why: Vec<String> = verdict
            .reasons
            .into_iter()
            .map(|reason| reason.because.join(" and "))
            .collect();
        let why = if why.is_empty() {
            "nobody may".to_owned()
        } else {
            why.join("; or ")
        };
        said.lacks.push(format!(
            "{name} is not {} by this user: {why}",
            past(action)
        ));
        Ok(())
    }

    /// Rows, one for each of `hops`, that lead from `start` to `end`; not `strict`: whatever the
    /// conditions on them.
    fn path(
        &self,
        hops: &[Hop],
        start: Option<&Seen<'_>>,
        end: Option<&Seen<'_>>,
        strict: bool,
    ) -> Result<Option<Vec<Stored>>, F::Missing> {
        match (start, end) {
            (Some(start), _) => self.path_from(hops, start, end, strict),
            (None, Some(end)) => self.path_to(hops, end, strict),
            (None, None) => Ok(None),
        }
    }

    fn path_from(
        &self,
        hops: &[Hop],
        from: &Seen<'_>,
        end: Option<&Seen<'_>>,
        strict: bool,
    ) -> Result<Option<Vec<Stored>>, F::Missing> {
        let [hop, rest @ ..] = hops else {
            return Ok(Some(Vec::new()));
        };
        let Some(left) = hop.left else {
            return Ok(None);
        };
        for row in self
            .rules
            .matching(self.judge.lookup, hop.table, left, from)?
        {
            if strict && !all_hold(&hop.conds, Env::row(&row)) {
                continue;
            }
            let path = match (hop.right, rest, end) {
                (None, ..) => Some(Vec::new()),
                (Some(right), [], Some(end)) => right.of(&row).equals(end).then(Vec::new),
                (Some(right), ..) => self.path_from(rest, &right.of(&row), end, strict)?,
            };
            if let Some(path) = path {
                return Ok(Some([vec![row], path].concat()));
            }
        }
        Ok(None)
    }

    fn path_to(
        &self,
        hops: &[Hop],
        end: &Seen<'_>,
        strict: bool,
    ) -> Result<Option<Vec<Stored>>, F::Missing> {
        let [rest @ .., hop] = hops else {
            return Ok(Some(Vec::new()));
        };
        let Some(right) = hop.right.and_then(Field::lookup) else {
            return Ok(None);
        };
        for row in self
            .rules
            .matching(self.judge.lookup, hop.table, right, end)?
        {
            if strict && !all_hold(&hop.conds, Env::row(&row)) {
                continue;
            }
            let path = match hop.left {
                None => Some(Vec::new()),
                Some(left) => self.path_to(rest, &Field::from(left).of(&row), strict)?,
            };
            if let Some(path) = path {
                return Ok(Some([path, vec![row]].concat()));
            }
        }
        Ok(None)
    }

    /// The rows that a chain would need.
    fn wanted(&self, chain: &Chain, start: Option<&Seen<'_>>, end: Option<&Seen<'_>>) -> String {
        let mut parts = Vec::new();
        for (at, hop) in chain.hops.iter().enumerate() {
            let words = self.words(hop.table);
            let mut has = Vec::new();
            if let (0, Some(left), Some(start)) = (at, hop.left, start) {
                has.push(equal(words, Field::from(left), start));
            } else if let Some(left) = hop.left.filter(|_| at > 0) {
                let name = field_name(words.table, Field::from(left));
                let before = &chain.hops[at - 1];
                let other = self.words(before.table);
                if let Some(right) = before.right {
                    let right = field_name(other.table, right);
                    has.push(format!("{name} = {}.{right}", other.table.name));
                }
            }
            if let (Some(right), Some(end)) =
                (hop.right, end.filter(|_| at + 1 == chain.hops.len()))
            {
                has.push(equal(words, right, end));
            }
            has.extend(hop.conds.iter().map(|cond| fulfilled(words, cond)));
            let has = if has.is_empty() {
                String::new()
            } else {
                format!(" with {}", has.join(" and "))
            };
            parts.push(format!("row in {}{has}", words.table.name));
        }
        format!("there is no {}", parts.join(" that leads to a "))
    }

    fn words(&self, table: usize) -> Words<'_> {
        Words {
            schema: self.schema,
            table: &self.schema.tables[table],
        }
    }

    pub(super) fn through(&self, row: &Stored) -> Through {
        let table = self.rules.by_number.get(&row.table);
        Through {
            table: table.map_or_else(String::new, |&at| self.rules.tables[at].name.clone()),
            key: row.key.clone(),
        }
    }

    fn named(&self, row: &Stored) -> String {
        self.through(row).to_string()
    }
}

impl std::fmt::Display for Through {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.key.decode().unwrap_or_default();
        let key: Vec<String> = key.iter().map(of_value).collect();
        write!(f, "row {} of {}", key.join(", "), self.table)
    }
}

#[derive(Default)]
struct Said {
    has: Vec<String>,
    lacks: Vec<String>,
    through: Vec<Through>,
}

fn past(action: Action) -> &'static str {
    match action {
        Action::Read => "readable",
        Action::Create | Action::Update | Action::Delete => "writable",
    }
}

fn equal(words: Words<'_>, field: Field, value: &Seen<'_>) -> String {
    let value = of_value(&value.clone().into_value());
    format!("{} = {value}", field_name(words.table, field))
}

fn fulfilled(words: Words<'_>, cond: &Cond) -> String {
    written(cond, &|term| words.term(term))
}

/// A condition that does not hold, with what its terms are.
fn unfulfilled(words: Words<'_>, cond: &Cond, env: Env<'_>) -> String {
    let mut values: Vec<String> = Vec::new();
    cond.terms(&mut |term| {
        let value = match term {
            Term::Literal(_) => return,
            Term::Field(..) | Term::User(_) => env.term(term).into_value(),
        };
        let value = format!("{} is {}", words.term(term), of_value(&value));
        if !values.contains(&value) {
            values.push(value);
        }
    });
    let values = if values.is_empty() {
        String::new()
    } else {
        format!(": {}", values.join(", "))
    };
    format!("{} does not hold{values}", fulfilled(words, cond))
}

fn cond_names_user(cond: &Cond) -> bool {
    let mut names = false;
    cond.terms(&mut |term| names |= matches!(term, Term::User(_)));
    names
}
