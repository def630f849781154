//! The commit pipeline: one group of changesets in one transaction (spec PL1).

mod attempt;
mod count;
mod rebuild;
#[cfg(test)]
mod tests;

pub use count::count_owned;
pub use rebuild::{Rebuilt, rebuild_rules};

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
};

use syncline_core::{
    Timestamp,
    wire::{PushResult, Refusal, Verdict, code},
};

use crate::{
    log::{AccessChange, LogEntry},
    plan::{Context, Refused, RefusedNumbers, Submission},
    storage::{Head, Storage, StorageError},
};
use attempt::{Abort, Attempt, Done};

/// How often a group is begun anew because somebody else holds a lock.
const BUSY_ATTEMPTS_MAX: u32 = 3;
/// Different changes of access that are told apart.
const ACCESS_MAX: usize = 10_000;

/// What came of a group. Everything in it is durable.
#[derive(Debug)]
pub struct GroupOutcome {
    /// One for each submission, in their order.
    pub results: Vec<PushResult>,
    /// What was added to the log, oldest first: for the hub. Where other programs' writes filled
    /// several transactions, only what the last of these and those after it added: what came before
    /// is in the log alone, so that memory does not grow with it.
    pub entries: Vec<Arc<LogEntry>>,
    /// Access of users that was given and taken by them, and how often: for the audit log.
    pub access: BTreeMap<AccessChange, u64>,
    /// The log's end; `None` when the storage failed before it could be read. If its
    /// `rules_since` grew, another program changed so much that everything was computed anew:
    /// every session has to begin again.
    pub head: Option<Head>,
    /// Other programs wrote more than one transaction takes, and there was no submission to wait
    /// for the rest: to be called again.
    pub more: bool,
    /// Why the storage could not take (all of) the group: the operator's concern. What is
    /// concerned is refused with `unavailable` or `storage`, to be tried again.
    pub failure: Option<StorageError>,
}

/// Judges and commits `submissions` in their order, after everything that other programs wrote
/// meanwhile.
///
/// A device's submissions are in order of number. Each is committed whole or refused whole; one
/// that the database refuses is found by halving and refused alone (spec PL14). When the storage
/// fails, what was committed before stays acknowledged and the rest is refused for now.
pub async fn commit_group<S: Storage>(
    storage: &mut S,
    context: &Context,
    submissions: &[Submission],
    now: Timestamp,
) -> GroupOutcome {
    let mut run = Run {
        submissions,
        verdicts: BTreeMap::new(),
        results: vec![None; submissions.len()],
        refused: RefusedNumbers::new(),
        entries: Vec::new(),
        access: BTreeMap::new(),
        head: None,
        more: false,
        failure: None,
    };
    run.all(storage, context, now).await;
    run.outcome()
}

/// Commits everything that other programs wrote, as [`commit_group`] does before its submissions.
///
/// The outcome is that of the last transaction, but for the access that all of them gave and took:
/// entries of the ones before are in the log alone, so that memory does not grow with the number
/// of rows. For a start, when nobody listens yet.
pub async fn drain_external<S: Storage>(
    storage: &mut S,
    context: &Context,
    now: Timestamp,
) -> GroupOutcome {
    let mut access = BTreeMap::new();
    loop {
        let mut outcome = commit_group(storage, context, &[], now).await;
        for (change, times) in std::mem::take(&mut outcome.access) {
            add_access(&mut access, change, times);
        }
        if !outcome.more || outcome.failure.is_some() {
            return GroupOutcome { access, ..outcome };
        }
    }
}

/// Counts a change of access; of very many different ones, not for whom.
fn add_access(access: &mut BTreeMap<AccessChange, u64>, mut change: AccessChange, times: u64) {
    if access.len() >= ACCESS_MAX && !access.contains_key(&change) {
        change.user = None;
    }
    *access.entry(change).or_insert(0) += times;
}

/// A group on its way, possibly in several transactions.
struct Run<'a> {
    submissions: &'a [Submission],
    /// Refusals that only an attempt to store showed, by position.
    verdicts: BTreeMap<usize, Refusal>,
    results: Vec<Option<PushResult>>,
    refused: RefusedNumbers,
    entries: Vec<Arc<LogEntry>>,
    access: BTreeMap<AccessChange, u64>,
    head: Option<Head>,
    more: bool,
    failure: Option<StorageError>,
}

/// Part of a group that is committed in one transaction.
struct Part {
    range: Range<usize>,
    /// Each changeset is stored alone, to know what of the effects is whose.
    alone: bool,
    busy: u32,
}

impl Run<'_> {
    async fn all<S: Storage>(&mut self, storage: &mut S, context: &Context, now: Timestamp) {
        let whole = Part {
            range: 0..self.submissions.len(),
            alone: false,
            busy: 0,
        };
        let mut parts = VecDeque::from([whole]);
        while let Some(mut part) = parts.pop_front() {
            let attempt = Attempt {
                context,
                submissions: self.submissions,
                range: part.range.clone(),
                verdicts: &self.verdicts,
                refused: &self.refused,
                alone: part.alone,
                now,
            };
            match attempt.run(storage).await {
                Ok(done) => {
                    let more = self.take(done);
                    if more && self.submissions.is_empty() {
                        self.more = true;
                        return;
                    }
                    if more {
                        parts.push_front(part);
                    }
                }
                Err(Abort::Refuse(position, refusal)) => {
                    self.verdicts.insert(position, refusal);
                    parts.push_front(part);
                }
                Err(Abort::Constraint(message)) => {
                    if let Err(error) = self.split(part, message, &mut parts) {
                        self.failure = Some(error);
                        return;
                    }
                }
                Err(Abort::Unattributed) => {
                    part.alone = true;
                    parts.push_front(part);
                }
                Err(Abort::Rebuild) => match rebuild_rules(storage, context, now).await {
                    Ok(rebuilt) => {
                        self.head = Some(rebuilt.head);
                        parts.push_front(part);
                    }
                    Err(error) => {
                        self.failure = Some(error);
                        return;
                    }
                },
                Err(Abort::Storage(StorageError::Busy)) if part.busy + 1 < BUSY_ATTEMPTS_MAX => {
                    part.busy += 1;
                    parts.push_front(part);
                }
                Err(Abort::Storage(error)) => {
                    self.failure = Some(error);
                    return;
                }
            }
        }
    }

    /// Takes in what is durable now; whether the same part has to be run again, because other
    /// programs' writes filled the transaction.
    fn take(&mut self, done: Done) -> bool {
        if done.more {
            self.entries.clear();
        }
        self.entries.extend(done.entries);
        for (change, times) in done.access {
            add_access(&mut self.access, change, times);
        }
        self.head = Some(done.head);
        self.refused = done.refused;
        for (position, result) in done.results {
            let submission = &self.submissions[position];
            let number = submission.changeset.number;
            submission.refused.note(number, &result.verdict);
            self.results[position] = Some(result);
        }
        done.more
    }

    /// A constraint refused something of the part, nobody knows what.
    ///
    /// # Errors
    /// [`StorageError::Failed`] when nothing of the part was to be stored: trying again would not
    /// end.
    fn split(
        &mut self,
        part: Part,
        message: String,
        parts: &mut VecDeque<Part>,
    ) -> Result<(), StorageError> {
        let Range { start, end } = part.range;
        if start == end || (end - start == 1 && self.verdicts.contains_key(&start)) {
            let what = format!("a constraint refused what no changeset wrote: {message}");
            return Err(StorageError::Failed(what.into()));
        }
        if end - start == 1 {
            self.verdicts.insert(start, Refused::constraint(&message));
            parts.push_front(Part {
                range: start..end,
                ..part
            });
            return Ok(());
        }
        let middle = start + (end - start) / 2;
        parts.push_front(Part {
            range: middle..end,
            ..part
        });
        parts.push_front(Part {
            range: start..middle,
            ..part
        });
        Ok(())
    }

    fn outcome(self) -> GroupOutcome {
        let busy = matches!(self.failure, Some(StorageError::Busy));
        let refusal = if busy {
            Refused::later(code::UNAVAILABLE, "the server's database is busy")
        } else {
            Refused::later(code::STORAGE, "the server could not store this")
        };
        let results = self
            .results
            .into_iter()
            .zip(self.submissions)
            .map(|(result, submission)| {
                result.unwrap_or_else(|| PushResult {
                    id: submission.changeset.id,
                    verdict: Verdict::Refused(refusal.clone()),
                    lost: Vec::new(),
                })
            });
        GroupOutcome {
            results: results.collect(),
            entries: self.entries,
            access: self.access,
            head: self.head,
            more: self.more,
            failure: self.failure,
        }
    }
}
