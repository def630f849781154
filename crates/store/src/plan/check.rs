//! What can be refused without looking at rows (spec PL5, first half).

use std::collections::{BTreeSet, HashSet};

use syncline_core::planted;
use syncline_core::{
    Change, Edit, Op, Version,
    config::LimitsConfig,
    envelope,
    rules::Facts as _,
    wire::{CHANGES_MAX, code, encode_op},
};

use super::{
    context::{Context, TableContext},
    state::State,
    submission::{Refused, Submission},
};
use crate::want::{KnownChangeset, Missing};

/// What the checks before any row say.
#[derive(Debug)]
pub(crate) enum Checked {
    /// The log has it, ending at this version.
    Known(Version),
    Refused(Refused),
    Fine,
}

/// Known id, or known in pieces, device and lease, size, number, what may be applied, limits,
/// dependencies, schema, base, in this order.
pub(crate) fn check(
    context: &Context,
    state: &State,
    submission: &Submission,
) -> Result<Checked, Missing> {
    let piece = submission.changeset.piece.as_ref();
    let (known, whole, applied, device) = (
        state.changeset(submission.changeset.id),
        piece.map_or(Ok(None), |piece| state.changeset(piece.whole)),
        applied(state, submission),
        state.device(submission.device),
    );
    let (known, whole, applied, device) = match (known, whole, applied, device) {
        (Ok(known), Ok(whole), Ok(applied), Ok(device)) => (known, whole, applied, device),
        (known, whole, applied, device) => {
            let wants = [known.err(), whole.err(), applied.err(), device.err()];
            let wants = wants.into_iter().flatten();
            return Err(Missing(wants.flat_map(|missing| missing.0).collect()));
        }
    };
    let is_theirs =
        |known: &KnownChangeset| known.user.is_some() && known.user == submission.identity.user;
    if let Some(known) = known {
        if is_theirs(known) {
            return Ok(Checked::Known(known.version));
        }
        let message = "the changeset's id is in use by somebody else".into();
        return Ok(Checked::Refused(Refused::whole(code::ID_REUSED, message)));
    }
    if let Some(whole) = whole.filter(|whole| is_theirs(whole)) {
        return Ok(Checked::Known(whole.version));
    }
    if let Applied::Whole(version) = applied {
        return Ok(Checked::Known(version));
    }
    let Some(device) =
        device.filter(|device| Some(&device.user) == submission.identity.user.as_ref())
    else {
        let message = "the device does not belong to this user; open a session first".into();
        return Ok(Checked::Refused(Refused::out_of_turn(
            code::WRONG_USER,
            message,
            false,
        )));
    };
    if submission.is_spent(device) {
        let message = "another session has this device now: connect again".into();
        return Ok(Checked::Refused(Refused::out_of_turn(
            code::GAP,
            message,
            true,
        )));
    }
    let refused = size(submission)
        .or_else(|| number(submission, device.last_number))
        // Any other refusal says that nothing of it is applied.
        .or_else(|| (applied == Applied::Part).then(partly_applied))
        .or_else(|| may_be_applied(state, submission, device.last_number))
        .or_else(|| limits(context.limits(), submission))
        .or_else(|| depends(state, submission))
        .or_else(|| schema(context, submission))
        .or_else(|| base(submission));
    Ok(refused.map_or(Checked::Fine, Checked::Refused))
}

fn size(submission: &Submission) -> Option<Refused> {
    let changes = submission.changeset.changes.len();
    (changes > CHANGES_MAX).then(|| {
        let message =
            format!("the changeset has {changes} changes; at most {CHANGES_MAX} are taken");
        Refused::whole(code::TOO_LARGE, message)
    })
}

/// What is configured (spec LI5). What was accepted may be larger than what is allowed since.
fn limits(limits: &LimitsConfig, submission: &Submission) -> Option<Refused> {
    let LimitsConfig {
        changeset_rows,
        changeset_bytes,
        row_bytes,
        ..
    } = limits;
    let changes = &submission.changeset.changes;
    if changes.len() > *changeset_rows as usize {
        let message = format!(
            "it changes {} rows in one transaction; this server takes {changeset_rows}: split it",
            changes.len()
        );
        return Some(Refused::whole(code::TOO_LARGE, message));
    }
    let usual = LimitsConfig::default();
    if (changeset_bytes, row_bytes) == (&usual.changeset_bytes, &usual.row_bytes) {
        // The wire has seen to it.
        return None;
    }
    let mut all = 0;
    for (i, change) in changes.iter().enumerate() {
        let bytes = change.key.as_bytes().len() + encode_op(&change.op).len();
        if bytes > *row_bytes as usize {
            let message = format!(
                "the row has {bytes} bytes; this server takes {row_bytes}: make it smaller"
            );
            return Some(Refused::change(code::TOO_LARGE, i, message));
        }
        all += bytes;
    }
    (all > *changeset_bytes as usize).then(|| {
        let message = format!(
            "one transaction has {all} bytes; this server takes {changeset_bytes}: split it"
        );
        Refused::whole(code::TOO_LARGE, message)
    })
}

fn number(submission: &Submission, last: u64) -> Option<Refused> {
    let number = submission.changeset.number;
    (number == 0 || number > last.saturating_add(1)).then(|| {
        let message = format!(
            "the changeset has number {number}; the next one is {}",
            last.saturating_add(1)
        );
        Refused::out_of_turn(code::GAP, message, true)
    })
}

fn depends(state: &State, submission: &Submission) -> Option<Refused> {
    // A number may have been judged again since the session looked.
    let here = state.refused.get(&submission.device);
    let is_refused = |n: &&u64| match here.and_then(|here| here.get(*n)) {
        Some(refused) => *refused,
        None => submission.refused.contains(**n),
    };
    submission
        .changeset
        .depends
        .iter()
        .filter(|_| !planted!(DependantAccepted))
        .find(is_refused)
        .map(|number| {
            let message = format!("it depends on changeset number {number}, which was refused");
            Refused::whole(code::DEPENDS_ON, message)
        })
}

/// What of a changeset the log has in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Applied {
    Nothing,
    Part,
    /// All of it, ending at this version.
    Whole(Version),
}

/// A file and a copy of it may have cut the same changeset in different places, or only one of them
/// (spec PL3).
fn applied(state: &State, submission: &Submission) -> Result<Applied, Missing> {
    let Submission {
        changeset,
        identity,
        ..
    } = submission;
    let Some(user) = &identity.user else {
        return Ok(Applied::Nothing);
    };
    let Some(piece) = &changeset.piece else {
        return Ok(match state.is_cut(changeset.id, user) {
            true => Applied::Part,
            false => Applied::Nothing,
        });
    };
    let known = state.pieces(user, piece)?;
    let mut missing: BTreeSet<u32> = piece.places.iter().copied().collect();
    for run in &known {
        let there: Vec<u32> = missing.range(run.first..=run.last).copied().collect();
        there.iter().for_each(|place| {
            missing.remove(place);
        });
    }
    Ok(match known.iter().map(|run| run.version).max() {
        None => Applied::Nothing,
        Some(version) if missing.is_empty() => Applied::Whole(version),
        Some(_) => Applied::Part,
    })
}

fn partly_applied() -> Refused {
    let message = "parts of it are applied already, which another copy of the file sent by \
                   themselves";
    Refused::whole(code::PARTLY_APPLIED, message.into())
}

/// Its id is unknown, and that may be because it is forgotten: then applying it could be applying
/// it twice.
fn may_be_applied(state: &State, submission: &Submission, last: u64) -> Option<Refused> {
    let Submission { changeset, .. } = submission;
    let horizon = state.head.horizon;
    if planted!(ForgottenIdApplied) {
        return None;
    }
    let may_have_come = changeset.may_be_applied_already || changeset.number <= last;
    let may_be_forgotten = match changeset.after {
        Some(after) => after < horizon,
        None => changeset.may_be_applied_already || horizon > Version::ZERO,
    };
    (may_have_come && may_be_forgotten).then(|| {
        let message = "it was made before the oldest changeset this server remembers: it may be \
                       applied already";
        Refused::whole(code::MAYBE_APPLIED, message.into())
    })
}

fn schema(context: &Context, submission: &Submission) -> Option<Refused> {
    let changes = submission.changeset.changes.iter().enumerate();
    let is_many = submission.changeset.changes.len() > 1;
    let mut rows = HashSet::with_capacity(submission.changeset.changes.len());
    changes.into_iter().find_map(|(i, change)| {
        if is_many && !rows.insert((change.table, &change.key)) {
            let message = format!("row {} is named twice", change.key);
            return Some(Refused::change(code::MALFORMED, i, message));
        }
        let Some(table) = context.table(change.table) else {
            let message = format!("table number {} does not sync", change.table.0);
            return Some(Refused::change(code::SCHEMA, i, message));
        };
        let problem = columns(table, change)?;
        Some(Refused::change(code::SCHEMA, i, problem))
    })
}

/// What is wrong with the columns that a change names.
fn columns(table: &TableContext, change: &Change) -> Option<String> {
    let (edits, update) = match &change.op {
        Op::Insert(edits) => (edits, false),
        Op::Update(edits) => (edits, true),
        Op::Delete => return None,
    };
    let name = &table.table.name;
    edits.iter().find_map(|edit| {
        let Some(position) = table.position(edit.column) else {
            return Some(format!(
                "table {name} has no column with number {}",
                edit.column.0
            ));
        };
        let column = &table.table.columns[position];
        if column.generated {
            return Some(format!(
                "column {} of {name} is computed by the database",
                column.name
            ));
        }
        if column.encrypted.is_some() && !is_sealed(&edit.edit) {
            return Some(format!(
                "column {} of {name} is encrypted, and this is no envelope: send what a device \
                 sealed, or update the program that wrote it",
                column.name
            ));
        }
        (update && table.table.is_key(position)).then(|| {
            format!(
                "column {} belongs to the key of {name}, which never changes",
                column.name
            )
        })
    })
}

/// Whether an edit of an encrypted column puts an envelope there, or nothing (spec EN3).
fn is_sealed(edit: &Edit) -> bool {
    match edit {
        Edit::Set(value) => envelope::is_sealed(value),
        Edit::Add(_)
        | Edit::Items { .. }
        | Edit::Append(_)
        | Edit::Decide { .. }
        | Edit::Members(_) => false,
    }
}

fn base(submission: &Submission) -> Option<Refused> {
    let changes = submission.changeset.changes.iter();
    changes
        .enumerate()
        .find(|(_, change)| change.base > submission.sent)
        .map(|(i, change)| {
            let (base, sent) = (change.base.0, submission.sent.0);
            let message =
                format!("the change is based on version {base}; this device was sent only {sent}");
            Refused::change(code::BASE, i, message)
        })
}

/// Whether every row that the changeset names is as its author saw it (spec PL7). A row that the
/// author may not see is not there.
pub(crate) fn require_unchanged(
    context: &Context,
    state: &State,
    submission: &Submission,
) -> Result<Option<Refused>, Missing> {
    let mut wants = Vec::new();
    let mut changed = None;
    for (i, change) in submission.changeset.changes.iter().enumerate() {
        match version_seen(context, state, submission, change) {
            Err(missing) => wants.extend(missing.0),
            Ok(version) if version != change.base && changed.is_none() => {
                let message = "the row is not what it was when this was written".into();
                changed = Some(Refused::change(code::CHANGED, i, message));
            }
            Ok(_) => {}
        }
    }
    if wants.is_empty() {
        Ok(changed)
    } else {
        Err(Missing(wants))
    }
}

fn version_seen(
    context: &Context,
    state: &State,
    submission: &Submission,
    change: &Change,
) -> Result<Version, Missing> {
    let live = state.stored(change.table, &change.key)?;
    let Some(live) = live else {
        return Ok(Version::ZERO);
    };
    let sees = context
        .rules()
        .may_read(&submission.identity, &live, state)?;
    Ok(if sees { live.version } else { Version::ZERO })
}
