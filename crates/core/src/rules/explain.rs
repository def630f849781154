//! Why a rule holds for somebody or not, and for whom it holds, in words (spec RU27).
//!
//! What is allowed is decided by [`Judge`] alone; here is only said why.

mod alternative;
mod missing;
mod people;

use super::{
    Facts, Identity, Proposed, Rules, Stored,
    compile::Compiled,
    cond::Env,
    judge::{Judge, Plain, each},
};
use crate::{ids::UserId, key::RowKey, schema::Schema};
pub(super) use alternative::Alternative;
pub use people::PEOPLE_MAX;
#[cfg(test)]
pub(super) use people::Way;

/// What somebody does with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Read,
    Create,
    Update,
    Delete,
}

impl Action {
    /// Every action, in the order of the declaration.
    pub const ALL: [Self; 4] = [Self::Read, Self::Create, Self::Update, Self::Delete];

    /// The name as rules have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// The action of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

/// A row that a rule looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Through {
    pub table: String,
    pub key: RowKey,
}

/// One alternative of a rule (what stands between its ORs), as it is for one row and identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub holds: bool,
    /// The alternative in words, as [`Rules::describe`] has it.
    pub rule: String,
    /// Where it holds: through what. Where it does not: what it would take. A sentence each.
    pub because: Vec<String>,
    /// The rows that it holds through, from the row to people.
    pub through: Vec<Through>,
}

/// Whether something is allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    /// One for each alternative; none where nobody is allowed.
    pub reasons: Vec<Reason>,
}

/// Somebody who is allowed something with a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permitted {
    /// In words.
    pub who: String,
    /// Where it is one user, whatever the token says besides.
    pub user: Option<UserId>,
    /// The alternative of the rule, in words.
    pub rule: String,
    pub through: Vec<Through>,
}

impl Rules {
    /// Whether `identity` may do this with a row, and why, by every alternative of the rule.
    ///
    /// `change` is the row as it is for [`Action::Read`] and [`Action::Delete`] (`before`), as it
    /// would be for [`Action::Create`] (`after`), both for [`Action::Update`]. `schema` is the
    /// one that the rules were compiled from.
    ///
    /// # Errors
    /// What has to be loaded first.
    pub fn explain<F: Facts>(
        &self,
        schema: &Schema,
        identity: &Identity,
        action: Action,
        change: &Proposed,
        facts: &F,
    ) -> Result<Verdict, F::Missing> {
        let explainer = Explainer {
            schema,
            rules: &self.compiled,
            judge: Judge {
                rules: &self.compiled,
                lookup: &Plain(facts),
                identity,
            },
        };
        explainer.verdict(action, change)
    }

    /// Who may do this with the row, at most [`PEOPLE_MAX`]: of [`Action::Update`], who may write
    /// it as it is; of [`Action::Create`], who might have made it as it is. Sorted.
    ///
    /// # Errors
    /// What has to be loaded first.
    pub fn permitted<F: Facts>(
        &self,
        schema: &Schema,
        action: Action,
        row: &Stored,
        facts: &F,
    ) -> Result<Vec<Permitted>, F::Missing> {
        let nobody = Identity::default();
        let explainer = Explainer {
            schema,
            rules: &self.compiled,
            judge: Judge {
                rules: &self.compiled,
                lookup: &Plain(facts),
                identity: &nobody,
            },
        };
        explainer.people(action, row)
    }
}

/// Says why for one identity.
pub(super) struct Explainer<'a, F> {
    pub(super) schema: &'a Schema,
    pub(super) rules: &'a Compiled,
    pub(super) judge: Judge<'a, Plain<'a, F>>,
}

impl<F: Facts> Explainer<'_, F> {
    fn verdict(&self, action: Action, change: &Proposed) -> Result<Verdict, F::Missing> {
        let (old, new) = (change.before.as_ref(), change.after.as_ref());
        let Some(table) = old
            .or(new)
            .and_then(|row| self.rules.by_number.get(&row.table))
        else {
            return Ok(Verdict {
                allowed: false,
                reasons: Vec::new(),
            });
        };
        let allowed = match (action, old) {
            (Action::Read, Some(row)) => self.judge.may_read(*table, row)?,
            (Action::Read, None) => false,
            (Action::Create | Action::Update | Action::Delete, _) => {
                self.rules.allows(&self.judge, change)?
            }
        };
        let mut reasons = Vec::new();
        // An update is judged on the row before and on the row after: each has to be allowed.
        let images = match action {
            Action::Read | Action::Delete => vec![old],
            Action::Create => vec![new],
            Action::Update if old == new => vec![old],
            Action::Update => vec![old, new],
        };
        for (at, row) in images.iter().enumerate() {
            let env = Env {
                row: *row,
                old,
                new,
                identity: Some(self.judge.identity),
            };
            let image = match (images.len(), at) {
                (2, 0) => "the row before: ",
                (2, _) => "the row after: ",
                _ => "",
            };
            let alternatives = Alternative::all(self.schema, self.rules, *table, action);
            each(&alternatives, |alternative| {
                let mut reason = self.reason(alternative, env)?;
                for sentence in &mut reason.because {
                    sentence.insert_str(0, image);
                }
                reasons.push(reason);
                Ok(())
            })?;
        }
        Ok(Verdict { allowed, reasons })
    }
}
