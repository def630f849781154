//! Planning one changeset: all of it or nothing (spec PL4, PL5).

use syncline_core::planted;
use syncline_core::{Op, Timestamp, Version, wire::Refusal};

use super::{
    admit::admit,
    change::Incident,
    check::{Checked, check, require_unchanged},
    conflict::open_conflicts,
    context::Context,
    draft::Draft,
    effect::Effects,
    entry::Author,
    grave::could_see,
    owned::quota,
    settle::settle,
    state::State,
    submission::{Refused, Submission},
};
use crate::want::Missing;

/// What is to be done with a changeset.
#[derive(Debug)]
pub(crate) enum Planned {
    /// The log has it, ending at this version.
    Known(Version),
    Refused(Refused),
    Accepted(Author, Box<Draft>),
}

/// Judges `submission` on `state`, which stays as it is.
///
/// `verdict`: what an earlier attempt to store it came to.
pub(crate) fn plan_changeset(
    context: &Context,
    state: &State,
    submission: &Submission,
    verdict: Option<&Refusal>,
    now: Timestamp,
) -> Result<Planned, Missing> {
    match check(context, state, submission)? {
        Checked::Known(version) => return Ok(Planned::Known(version)),
        Checked::Refused(refused) => return Ok(Planned::Refused(refused)),
        Checked::Fine => {}
    }
    if let Some(refusal) = verdict {
        let refusal = Box::new(refusal.clone());
        return Ok(Planned::Refused(Refused {
            refusal,
            counts: true,
        }));
    }
    if submission.changeset.require_unchanged
        && let Some(refused) = require_unchanged(context, state, submission)?
    {
        return Ok(Planned::Refused(refused));
    }
    let author = Author {
        changeset: submission.changeset.id,
        user: submission.identity.user.clone(),
        device: submission.device,
        number: submission.changeset.number,
        hlc: match planted!(ClockNotClamped) {
            true => submission.changeset.hlc,
            false => submission.changeset.hlc.clamped(now),
        },
        piece: submission.changeset.piece.clone(),
    };
    let mut effects = match changes(context, state, submission, &author, now)? {
        Ok(effects) => effects,
        Err(refused) => return Ok(Planned::Refused(refused)),
    };
    if let Some(refused) = admit(context, state, submission, &author, &mut effects)? {
        return Ok(Planned::Refused(refused));
    }
    if let Some(refused) = effects.take_refused() {
        return Ok(Planned::Refused(refused));
    }
    if !planted!(ConflictNotOpened) {
        open_conflicts(context, state, submission, &author, &mut effects)?;
    }
    let draft = settle(context, state, effects)?;
    match quota(context.limits(), state, &author, &draft.owned)? {
        Some(refused) => Ok(Planned::Refused(refused)),
        None => Ok(Planned::Accepted(author, Box::new(draft))),
    }
}

/// What each change does, merged with the rows as they are.
fn changes(
    context: &Context,
    state: &State,
    submission: &Submission,
    author: &Author,
    now: Timestamp,
) -> Result<Result<Effects, Refused>, Missing> {
    let mut effects = Effects::new(state.last, now);
    let mut wants = Vec::new();
    for (position, change) in submission.changeset.changes.iter().enumerate() {
        let Some(table) = context.table(change.table) else {
            continue;
        };
        let present = match state.row(change.table, &change.key) {
            Ok(present) => present,
            Err(missing) => {
                wants.extend(missing.0);
                continue;
            }
        };
        let tombstone = present.filter(|present| present.row.is_none());
        let saw_it_die = match (tombstone, &change.op) {
            (Some(tombstone), Op::Update(_)) => {
                could_see(context, state, &submission.identity, tombstone.meta)
            }
            (Some(_) | None, _) => Ok(false),
        };
        match saw_it_die {
            Err(missing) => wants.extend(missing.0),
            Ok(_) if !wants.is_empty() => {}
            Ok(saw_it_die) => {
                let incident = Incident {
                    context,
                    submission,
                    author,
                    table,
                    position,
                    change,
                    saw_it_die,
                };
                if let Err(refused) = incident.plan(present, &mut effects) {
                    return Ok(Err(refused));
                }
            }
        }
    }
    if wants.is_empty() {
        Ok(Ok(effects))
    } else {
        Err(Missing(wants))
    }
}
