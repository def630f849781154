//! Rules (spec PL5): everything that the changeset does is allowed, or nothing happens.

use std::collections::BTreeSet;

use syncline_core::{Op, rules::Identity};

use super::{
    change::Incident,
    context::Context,
    effect::Effects,
    entry::Author,
    state::State,
    submission::{Refused, Submission},
};
use crate::want::Missing;

/// Asks the rules about every effect of `submission`, on the state before it.
///
/// A taken key comes before what the rules say of later changes: rows that refer to the one that
/// gets another key seem to refer to somebody else's until then.
///
/// Deletions of rows that the user may not see are dropped: a row that is not there is deleted
/// with the same answer. What is only to be asked about is gone afterwards.
pub(crate) fn admit(
    context: &Context,
    state: &State,
    submission: &Submission,
    author: &Author,
    effects: &mut Effects,
) -> Result<Option<Refused>, Missing> {
    let identity = &submission.identity;
    if let Some(i) = refused(context, state, identity, effects)? {
        if let Some(refused) = effects.take_taken_before(i) {
            return Ok(Some(refused));
        }
        match judge(context, state, submission, author, effects, i)? {
            Some(refused) => return Ok(Some(refused)),
            None => drop_unseen_deletions(context, state, submission, effects)?,
        }
        if let Some(i) = refused(context, state, identity, effects)? {
            let verdict = judge(context, state, submission, author, effects, i)?;
            return Ok(verdict.or_else(|| {
                incident(context, submission, author, effects, i).map(Incident::forbidden)
            }));
        }
    }
    for i in 0..effects.effects.len() {
        if effects.effects[i].must_see && !is_seen(context, state, identity, effects, i)? {
            if let Some(refused) = effects.take_taken_before(i) {
                return Ok(Some(refused));
            }
            let incident = incident(context, submission, author, effects, i);
            return Ok(incident.map(|incident| match incident.change.op {
                Op::Insert(_) => incident.forbidden(),
                Op::Update(_) | Op::Delete => incident.row_gone(),
            }));
        }
    }
    effects.settle_idle();
    Ok(None)
}

/// The first effect that the rules do not admit.
fn refused(
    context: &Context,
    state: &State,
    identity: &Identity,
    effects: &Effects,
) -> Result<Option<usize>, Missing> {
    let proposed = &effects.proposed[..];
    match context.rules().admit(identity, proposed, state) {
        Ok(verdict) => Ok(verdict.err()),
        Err(missing) => {
            // Each by itself, to learn in one round what all of them need.
            let each = proposed.chunks(1);
            let more = each.filter_map(|one| context.rules().admit(identity, one, state).err());
            let wants = more.flat_map(|missing| missing.0);
            Err(Missing(missing.0.into_iter().chain(wants).collect()))
        }
    }
}

/// What to answer when effect `i` is not admitted; `None`: as if there were nothing to delete.
fn judge(
    context: &Context,
    state: &State,
    submission: &Submission,
    author: &Author,
    effects: &Effects,
    i: usize,
) -> Result<Option<Refused>, Missing> {
    let Some(incident) = incident(context, submission, author, effects, i) else {
        return Ok(None);
    };
    if matches!(incident.change.op, Op::Insert(_)) {
        return Ok(Some(incident.forbidden()));
    }
    if is_seen(context, state, &submission.identity, effects, i)? {
        return Ok(Some(incident.forbidden()));
    }
    Ok(match incident.change.op {
        Op::Delete => None,
        Op::Insert(_) | Op::Update(_) => Some(incident.row_gone()),
    })
}

fn drop_unseen_deletions(
    context: &Context,
    state: &State,
    submission: &Submission,
    effects: &mut Effects,
) -> Result<(), Missing> {
    let mut wants = Vec::new();
    let mut unseen = BTreeSet::new();
    for i in 0..effects.effects.len() {
        if effects.proposed[i].after.is_none() {
            match is_seen(context, state, &submission.identity, effects, i) {
                Ok(true) => {}
                Ok(false) => drop(unseen.insert(i)),
                Err(missing) => wants.extend(missing.0),
            }
        }
    }
    if !wants.is_empty() {
        return Err(Missing(wants));
    }
    effects.remove(&unseen);
    Ok(())
}

/// Whether the user may read the row as it was before.
fn is_seen(
    context: &Context,
    state: &State,
    identity: &Identity,
    effects: &Effects,
    i: usize,
) -> Result<bool, Missing> {
    match &effects.proposed[i].before {
        Some(before) => context.rules().may_read(identity, before, state),
        None => Ok(false),
    }
}

fn incident<'a>(
    context: &'a Context,
    submission: &'a Submission,
    author: &'a Author,
    effects: &Effects,
    i: usize,
) -> Option<Incident<'a>> {
    let position = effects.effects[i].change?;
    let change = submission.changeset.changes.get(position)?;
    let table = context.table(change.table)?;
    Some(Incident {
        context,
        submission,
        author,
        table,
        position,
        change,
        saw_it_die: false,
    })
}
