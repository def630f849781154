//! Which rows give people rights to write other rows, for the audit log (spec AC17).
//!
//! Nothing is looked up here: a row says by itself what it adds to the rules it is asked by.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, Rules, Stored,
    branch::{Chain, Link, ReadBranch, WriteBranch},
    compile::{Compiled, TableRules},
    cond::{Comparison, Cond, Env, all_hold},
    normal::Mode,
    term::{Field, Seen, Term, UserSource, UserTerm},
};
use crate::{
    ids::{TableNumber, UserId},
    key::RowKey,
};

/// What somebody may do with rows of which tables.
pub type Allowed = BTreeSet<(TableNumber, Action)>;

/// Rights to write that one row gives or takes when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// `None`: several people, whoever fulfils the rule.
    pub user: Option<UserId>,
    /// The row by whose key the row leads towards those that may be written, in most rules.
    pub link: Option<(TableNumber, RowKey)>,
    pub given: bool,
    pub allowed: Allowed,
}

/// What a row is asked by a rule for writing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    /// Conditions on the row alone.
    conds: Vec<Cond>,
    left: Option<Field>,
    /// The table that has the value of `left` as its key.
    leads_to: Option<TableNumber>,
    /// What leads to people, and whether it names one.
    right: Option<(Field, bool)>,
    /// It is the row that others inherit from: it gives nothing by coming to be, and takes nothing
    /// by going.
    is_parent: bool,
    allowed: Allowed,
}

/// Whom a row leads to, and from where: the value, and the table that has it as its key.
type Ends = (Option<UserId>, Option<Vec<u8>>, Option<TableNumber>);
/// The row that another one leads to.
type Linked = Option<(TableNumber, RowKey)>;

impl Rules {
    /// What a change of one row gives and takes of rights to write other rows: whether another row
    /// or another way gives the same is not looked at.
    #[must_use]
    pub fn rights(&self, before: Option<&Stored>, after: Option<&Stored>) -> Vec<Right> {
        let Some(table) = before.or(after).and_then(|stored| self.table(stored.table)) else {
            return Vec::new();
        };
        let steps = &self.compiled.tables[table].steps;
        if steps.is_empty() {
            return Vec::new();
        }
        let lives_on = before.is_some() && after.is_some();
        let allowed = |stored: Option<&Stored>| {
            let mut all: BTreeMap<Ends, (Linked, Allowed)> = BTreeMap::new();
            for step in steps.iter().filter(|step| lives_on || !step.is_parent) {
                if let Some((ends, link)) = stored.and_then(|stored| step.ends(stored)) {
                    let (_, allowed) = all.entry(ends).or_insert((link, Allowed::new()));
                    allowed.extend(&step.allowed);
                }
            }
            all
        };
        let (before, after) = (allowed(before), allowed(after));
        let mut rights = Vec::new();
        for (given, old, new) in [(false, &after, &before), (true, &before, &after)] {
            for (ends, (link, allowed)) in new {
                let kept = old.get(ends).map(|(_, allowed)| allowed);
                let mut allowed = allowed.clone();
                allowed.retain(|one| kept.is_none_or(|kept| !kept.contains(one)));
                if !allowed.is_empty() {
                    rights.push(Right {
                        user: ends.0.clone(),
                        link: link.clone(),
                        given,
                        allowed,
                    });
                }
            }
        }
        rights
    }
}

impl Step {
    /// Where the row leads, if it fulfils the conditions.
    fn ends(&self, row: &Stored) -> Option<(Ends, Linked)> {
        let env = Env {
            row: Some(row),
            old: Some(row),
            new: Some(row),
            identity: None,
        };
        if !all_hold(&self.conds, env) {
            return None;
        }
        let user = match self.right.map(|(field, is_user)| (field.of(row), is_user)) {
            Some((Seen::Null, _)) => return None,
            Some((Seen::Text(user), true)) => Some(UserId(user.into_owned())),
            Some(_) | None => None,
        };
        let Some(left) = self.left.map(|left| left.of(row)) else {
            return Some(((user, None, None), None));
        };
        let mut bytes = Vec::new();
        left.encode(&mut bytes).then_some(())?;
        let key = RowKey::encode([&left.into_value()]).ok();
        let link = self.leads_to.zip(key);
        Some(((user, Some(bytes), self.leads_to), link))
    }
}

impl Compiled {
    /// Finds for each table what its rows are asked by rules for writing.
    pub(super) fn index_rights(&mut self) {
        let mut found = Found {
            steps: vec![Vec::new(); self.tables.len()],
            asked: BTreeMap::new(),
            keys: self.tables.iter().map(|t| (t.number, t.key)).collect(),
        };
        for (at, table) in self.tables.iter().enumerate() {
            for (action, branches) in [
                (Action::Create, &table.create),
                (Action::Update, &table.update),
                (Action::Delete, &table.delete),
            ] {
                let allowed = Allowed::from([(table.number, action)]);
                for branch in branches {
                    found.write(at, branch, &allowed);
                }
            }
        }
        // A rule that is inherited is asked for all that inherit it, directly or not: as long as
        // there are more of these, again. No rule inherits from itself.
        let mut done: BTreeMap<(usize, Mode), Allowed> = BTreeMap::new();
        loop {
            let known = found.asked.clone();
            for (&(parent, mode), allowed) in &known {
                if done.get(&(parent, mode)) == Some(allowed) {
                    continue;
                }
                found.inherited(parent, &self.tables[parent], mode, allowed);
                done.insert((parent, mode), allowed.clone());
            }
            if found.asked == known {
                break;
            }
        }
        for (table, steps) in self.tables.iter_mut().zip(found.steps) {
            table.steps = steps;
        }
    }
}

struct Found {
    steps: Vec<Vec<Step>>,
    /// What inherited rules are asked for.
    asked: BTreeMap<(usize, Mode), Allowed>,
    /// Each table's number and key column.
    keys: Vec<(TableNumber, Option<usize>)>,
}

impl Found {
    /// The table at `at`, if `field` is its key.
    fn keyed_by(&self, at: usize, field: Option<Field>) -> Option<TableNumber> {
        let (number, key) = self.keys[at];
        (key.is_some() && field == key.map(Field::Column)).then_some(number)
    }

    fn write(&mut self, at: usize, branch: &WriteBranch, allowed: &Allowed) {
        for chain in &branch.chains {
            self.chain(at, chain, allowed);
        }
        for parent in &branch.parents {
            let asked = self.asked.entry((parent.parent, parent.mode)).or_default();
            asked.extend(allowed);
        }
    }

    /// The rule of a parent, as it is for the parent itself and all that asks it.
    fn inherited(&mut self, at: usize, table: &TableRules, mode: Mode, allowed: &Allowed) {
        match mode {
            Mode::Read => {
                for branch in &table.read {
                    self.inherited_read(at, branch, allowed);
                }
            }
            Mode::Write => {
                for branch in &table.update {
                    self.parent(at, &branch.conds, None, allowed);
                    self.write(at, branch, allowed);
                }
            }
        }
    }

    fn inherited_read(&mut self, at: usize, branch: &ReadBranch, allowed: &Allowed) {
        let link = match &branch.link {
            Link::User(field, term) => Some((*field, is_uid(term))),
            Link::Everybody | Link::Chain(_) | Link::Parent(..) => None,
        };
        self.parent(at, &branch.row, link, allowed);
        match &branch.link {
            Link::Chain(chain) => self.chain(at, chain, allowed),
            Link::Parent(_, parent) => {
                let asked = self.asked.entry((*parent, Mode::Read)).or_default();
                asked.extend(allowed);
            }
            Link::Everybody | Link::User(..) => {}
        }
    }

    /// Rows that lead from those of the table at `at` to people.
    fn chain(&mut self, at: usize, chain: &Chain, allowed: &Allowed) {
        let start = chain.start.as_ref().map(|(_, column)| Field::from(*column));
        let mut leads_to = self.keyed_by(at, start);
        for (i, hop) in chain.hops.iter().enumerate() {
            let is_last = i + 1 == chain.hops.len();
            let is_user = is_last && chain.end.as_ref().is_some_and(is_uid);
            let step = Step {
                conds: hop.conds.clone(),
                left: hop.left.map(Field::from),
                leads_to,
                right: hop.right.map(|right| (right, is_user)),
                is_parent: false,
                allowed: allowed.clone(),
            };
            self.add(hop.table, step);
            leads_to = self.keyed_by(hop.table, hop.right);
        }
    }

    /// A row that others inherit from, with conditions some of which may be on the user.
    fn parent(
        &mut self,
        at: usize,
        conds: &[Cond],
        link: Option<(Field, bool)>,
        allowed: &Allowed,
    ) {
        let is_of_user = |cond: &&Cond| {
            let mut found = false;
            cond.terms(&mut |term| found |= matches!(term, Term::User(_)));
            found
        };
        let (user, row): (Vec<&Cond>, Vec<&Cond>) = conds.iter().partition(is_of_user);
        let step = Step {
            conds: row.into_iter().cloned().collect(),
            left: None,
            leads_to: None,
            right: link.or_else(|| user.into_iter().find_map(user_link)),
            is_parent: true,
            allowed: allowed.clone(),
        };
        if !step.conds.is_empty() || step.right.is_some() {
            self.add(at, step);
        }
    }

    fn add(&mut self, table: usize, step: Step) {
        let steps = &mut self.steps[table];
        let is_same = |known: &&mut Step| {
            known.conds == step.conds
                && known.left == step.left
                && known.leads_to == step.leads_to
                && known.right == step.right
                && known.is_parent == step.is_parent
        };
        match steps.iter_mut().find(is_same) {
            Some(known) => known.allowed.extend(&step.allowed),
            None => steps.push(step),
        }
    }
}

/// The column that is somebody's id, where a condition says so.
fn user_link(cond: &Cond) -> Option<(Field, bool)> {
    let Cond::Compare {
        op: Comparison::Equal,
        left,
        right,
    } = cond
    else {
        return None;
    };
    if let (Term::Field(_, field), Term::User(term)) | (Term::User(term), Term::Field(_, field)) =
        (left, right)
    {
        return Some((*field, is_uid(term)));
    }
    None
}

fn is_uid(term: &UserTerm) -> bool {
    term.source == UserSource::Uid
}
