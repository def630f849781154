//! Changesets from the replica, and the verdicts on them (spec SE16–SE19).

use std::sync::Arc;

use syncline_core::{
    Change, Changeset, ChangesetId, ColumnEdit, Op,
    wire::{Push, PushPart, PushResult, ServerMessage, Verdict, code, decode_changeset},
};

use syncline_store::Submission;

use super::{Action, CommitRequest, PUSHES_MAX, Phase, Session};
use crate::upload::UploadError;

/// A session hears nothing more while changesets of so many encoded bytes wait for an answer.
pub(super) const PUSH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A changeset given to the driver and not answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unanswered {
    id: ChangesetId,
    bytes: usize,
    weight: usize,
}

impl Session {
    pub(super) fn push(&mut self, push: Push) {
        if self.may_push() {
            let whole = self.upload.push(push);
            self.uploaded(whole);
        }
    }

    pub(super) fn push_part(&mut self, part: &PushPart) {
        if self.may_push() {
            let whole = self.upload.part(part);
            self.uploaded(whole);
        }
    }

    /// Nothing is taken, not even to be kept, before the welcome.
    fn may_push(&mut self) -> bool {
        let welcomed = matches!(self.phase, Phase::AwaitLoad(_) | Phase::Streaming(_));
        if !welcomed {
            self.fail(code::MALFORMED, "a push before the welcome", false);
        }
        welcomed
    }

    fn uploaded(&mut self, whole: Result<Option<(ChangesetId, Vec<u8>)>, UploadError>) {
        match whole {
            Ok(Some((id, body))) => self.submit(id, &body),
            Ok(None) => {}
            Err(error) => self.fail(code::MALFORMED, error.to_string(), false),
        }
    }

    fn submit(&mut self, id: ChangesetId, body: &[u8]) {
        if self.unanswered.len() >= PUSHES_MAX as usize {
            let sentence = format!("more than {PUSHES_MAX} pushes without an answer");
            return self.fail(code::MALFORMED, sentence, false);
        }
        let changeset = match decode_changeset(body) {
            Ok(changeset) if changeset.id == id => changeset,
            Ok(_) => return self.fail(code::MALFORMED, "a push names another changeset", false),
            Err(error) => return self.fail(error.code(), error.to_string(), false),
        };
        let weight = body.len() + weight(&changeset);
        self.unanswered.push_back(Unanswered {
            id,
            bytes: body.len(),
            weight,
        });
        self.unanswered_bytes += body.len();
        let request = CommitRequest {
            lease: self.lease,
            weight,
            changeset,
            sent: self.sent,
            refused: Arc::clone(&self.refused),
        };
        self.actions.push_back(Action::Commit(Box::new(request)));
    }

    /// What the pipeline is given for [`Action::Commit`].
    #[must_use]
    pub fn submission(&self, request: CommitRequest) -> Submission {
        Submission {
            identity: Arc::clone(&self.identity),
            device: self.device(),
            lease: Some(request.lease),
            changeset: request.changeset,
            sent: request.sent,
            refused: request.refused,
        }
    }

    /// Answers [`Action::Commit`]; answers come in the order of the actions.
    pub fn committed(&mut self, result: &PushResult) {
        let Some(pushed) = self.unanswered.pop_front() else {
            return;
        };
        self.unanswered_bytes -= pushed.bytes;
        debug_assert_eq!(pushed.id, result.id, "answers come in order");
        match &result.verdict {
            Verdict::Accepted(version) => {
                if let Some(stream) = self.stream_mut() {
                    stream.owe(*version);
                }
            }
            Verdict::Refused(_) => {}
        }
        if !self.is_closed() {
            self.send(&ServerMessage::PushResult(result.clone()));
        }
    }

    /// Whether a changeset waits for its verdict.
    #[must_use]
    pub fn has_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Bytes that changesets take in memory which wait for their answers.
    #[must_use]
    pub fn unanswered_weight(&self) -> usize {
        self.unanswered.iter().map(|one| one.weight).sum()
    }

    /// Bytes of changesets that arrive.
    #[must_use]
    pub fn arriving_bytes(&self) -> usize {
        self.upload.bytes()
    }
}

/// What a changeset takes in memory beside the bytes it came in: many edits are a byte or two there.
pub(crate) fn weight(changeset: &Changeset) -> usize {
    let edits = |op: &Op| match op {
        Op::Insert(edits) | Op::Update(edits) => edits.capacity(),
        Op::Delete => 0,
    };
    let changes = &changeset.changes;
    let edits: usize = changes.iter().map(|change| edits(&change.op)).sum();
    changes.capacity() * size_of::<Change>() + edits * size_of::<ColumnEdit>()
}
