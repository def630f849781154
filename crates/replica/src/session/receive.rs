//! What arrives: one message at a time, in order.

use syncline_core::{
    BucketId, TableNumber, Timestamp,
    wire::{
        Changes, Checkpoint, ClientMessage, Credit, FrameError, Grants, Load, LoadPosition, Page,
        PushResult, Refusal, ServerMessage, Subscription, Verdict, code, decode_server,
    },
};

use super::{CHANGES_BYTES_MAX, CREDIT_STEP, InFlight, Phase};
use crate::{
    apply::{
        CheckpointInput, Fault, Kept, Stream, add_grants, apply_checkpoint, apply_page,
        drop_grants, erase_gone, full_grants, load_positions,
    },
    db,
    entropy::Entropy,
    error::ReplicaError,
    event::{Event, LoadProgress},
    meta::{
        acknowledged, buckets,
        outbox::{self, Seq, State},
        settings::{self, Key},
        subscriptions,
    },
    replica::{Replica, set_live, subscription_of},
    tables::Tables,
    verdict::Refused,
    work::Work,
};

/// What an answer to a push came to.
enum Answered {
    /// The changeset was moved or settled meanwhile.
    Void,
    Settled,
    /// To be sent again.
    Again(Seq, Refusal),
}

/// Checkpoints after which acknowledged changesets that need not be kept any more go: a session
/// may last for weeks.
const EXPIRE_EVERY: u32 = 64;

/// No server keeps a device away for longer than an hour, whatever it says.
const PAUSE_MAX_MS: u64 = 3_600_000;

/// An answer to a push that is not written down yet.
struct Answer {
    result: PushResult,
    /// The changeset that was sent.
    seq: Seq,
}

impl Replica {
    /// Takes one frame of the server.
    ///
    /// # Errors
    /// The database's only. The frame counts as not received: call again with it, or disconnect.
    /// A frame that no server should send closes the session instead.
    pub fn handle(&mut self, frame: &[u8], now: Timestamp) -> Result<(), ReplicaError> {
        self.handle_all([frame], now)
    }

    /// Takes frames of the server that arrived together, in order. Answers to pushes are written
    /// down with one another and with the checkpoint that follows them, so that they wait for the
    /// disk once.
    ///
    /// # Errors
    /// As [`Replica::handle`], but that nobody knows which frames count as received: disconnect.
    pub fn handle_all<'f>(
        &mut self,
        frames: impl IntoIterator<Item = &'f [u8]>,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let mut answers = Vec::new();
        for frame in frames {
            self.mending(now, |replica| replica.try_handle(frame, &mut answers, now))?;
        }
        self.mending(now, |replica| replica.answered(&mut answers, now))
    }

    fn try_handle(
        &mut self,
        frame: &[u8],
        answers: &mut Vec<Answer>,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        if self.session.phase == Phase::Closed || self.session.closing.is_some() {
            return Ok(());
        }
        let message = match decode_server(frame) {
            Ok(message) => message,
            Err(error) => {
                self.malformed(&error);
                return Ok(());
            }
        };
        let bytes = frame.len() as u64;
        self.session.last_heard = now;
        self.session.pinged = None;
        let is_joined = matches!(
            message,
            ServerMessage::PushResult(_) | ServerMessage::Changes(_) | ServerMessage::Checkpoint(_)
        );
        if !is_joined {
            self.answered(answers, now)?;
        }
        match (self.session.phase, message) {
            (Phase::Greeting, ServerMessage::Welcome(welcome)) => self.welcome(*welcome, now),
            (Phase::Streaming, ServerMessage::Welcome(welcome))
                if self.session.is_welcome_unfinished =>
            {
                self.finish_welcome(welcome.quota, now)
            }
            (_, ServerMessage::Refusal(refusal)) => self.refusal(&refusal, now),
            (_, ServerMessage::Pong(_) | ServerMessage::Unknown(_)) => Ok(()),
            (Phase::Streaming, ServerMessage::PushResult(result)) => {
                let is_new = answers.iter().all(|other| other.result.id != result.id);
                match self.session.in_flight.get(&result.id).filter(|_| is_new) {
                    Some(&InFlight { seq }) => answers.push(Answer { result, seq }),
                    None => {
                        let message = "an answer to nothing that was sent";
                        self.session.fault(code::MALFORMED, message);
                    }
                }
                Ok(())
            }
            (Phase::Streaming, ServerMessage::Grants(grants)) => {
                self.grants(&grants, now)?;
                self.give_back(bytes);
                Ok(())
            }
            (Phase::Streaming, ServerMessage::Page(page)) => {
                self.page(&page, now)?;
                self.give_back(bytes);
                Ok(())
            }
            (Phase::Streaming, ServerMessage::Changes(changes)) => {
                self.keep(changes)?;
                self.give_back(bytes);
                Ok(())
            }
            (Phase::Streaming, ServerMessage::Checkpoint(checkpoint)) => {
                self.checkpoint_reached(&checkpoint, answers, now)?;
                self.give_back(bytes);
                self.pump(now)
            }
            (
                Phase::Closed | Phase::Greeting | Phase::Streaming,
                ServerMessage::Welcome(_)
                | ServerMessage::PushResult(_)
                | ServerMessage::Grants(_)
                | ServerMessage::Page(_)
                | ServerMessage::Changes(_)
                | ServerMessage::Checkpoint(_),
            ) => {
                self.session.fault(code::MALFORMED, "a message out of turn");
                Ok(())
            }
        }
    }

    fn malformed(&mut self, error: &FrameError) {
        let message = format!("a message of the server cannot be read: {error}");
        self.session.fault(error.code(), message);
    }

    fn refusal(&mut self, refusal: &Refusal, now: Timestamp) -> Result<(), ReplicaError> {
        let pause = refusal.retry_after_ms.map(|pause| pause.min(PAUSE_MAX_MS));
        if refusal.fatal || self.session.phase == Phase::Greeting {
            if refusal.code == code::DEREGISTERED {
                self.deregistered()?;
            }
            if let Some(pause) = pause {
                self.session.reconnect.not_before(now.plus_millis(pause));
            }
            self.session
                .close(&refusal.code, refusal.message.clone(), refusal.retry);
        } else if refusal.code == code::TOO_FAST
            && let Some(pause) = pause
        {
            self.session.held_until = Some(now.plus_millis(pause));
        } else if refusal.code == code::TOO_MANY_ROWS {
            self.events.extend([Event::LoadingRefused {
                code: refusal.code.clone(),
                message: refusal.message.clone(),
            }]);
        } else if refusal.code == code::TOO_MANY_SUBSCRIPTIONS {
            self.events.extend([Event::SubscriptionsRefused {
                code: refusal.code.clone(),
                message: refusal.message.clone(),
            }]);
        }
        Ok(())
    }

    /// Gives credit back for a frame that was taken (spec SE15).
    fn give_back(&mut self, bytes: u64) {
        self.session.owed += bytes;
        if self.session.owed >= CREDIT_STEP {
            self.send_credit();
        }
    }

    fn send_credit(&mut self) {
        let credit = Credit {
            bytes: std::mem::take(&mut self.session.owed),
            checkpoint: self.session.checkpoint,
        };
        self.session.send(&ClientMessage::Credit(credit));
    }

    /// Tells the server now and then which checkpoint was applied, for the device list (spec DE3).
    pub(super) fn tell_checkpoint(&mut self, now: Timestamp) {
        if self
            .session
            .tell_checkpoint_at()
            .is_some_and(|at| at <= now)
        {
            self.send_credit();
            self.session.checkpoint_told = self.session.checkpoint.map(|told| (now, told));
        }
    }

    /// Keeps log records until their checkpoint (spec AP1).
    fn keep(&mut self, changes: Changes) -> Result<(), ReplicaError> {
        let bytes: usize = changes
            .records
            .iter()
            .map(|record| record.body.len() + 64)
            .sum();
        let kept = Kept::new(&self.conn, changes)?;
        self.session.changes_bytes += bytes;
        if self.session.changes_bytes > CHANGES_BYTES_MAX {
            let message = "too many changes without a checkpoint";
            self.session.fault(code::TOO_LARGE, message);
            return Ok(());
        }
        self.session.changes.push(kept);
        Ok(())
    }

    fn grants(&mut self, grants: &Grants, now: Timestamp) -> Result<(), ReplicaError> {
        let is_full = grants.full;
        let reloads = self.session.reloads;
        self.transact(now, |work, entropy| {
            if is_full {
                let renamed = settings::get(work.conn, Key::Renamed)?.unwrap_or(false);
                full_grants(work.conn, grants, renamed, reloads)?;
                let stream = Stream {
                    now,
                    entropy,
                    any_ahead: false,
                    mismatched: Vec::new(),
                };
                erase_gone(work, &stream)?;
            } else {
                drop_grants(work.conn, &grants.drop, &grants.released)?;
                add_grants(work.conn, &grants.add)?;
            }
            Ok(())
        })?;
        if is_full && !self.session.reloads {
            let positions = db::immediate(&self.conn, || load_positions(&self.conn, &self.tables))?;
            self.session.send(&ClientMessage::Load(Load { positions }));
        }
        Ok(())
    }

    fn page(&mut self, page: &Page, now: Timestamp) -> Result<(), ReplicaError> {
        let applied = self.transact(now, |work, entropy| apply_page(work, page, entropy, now))?;
        if applied.is_some() {
            let progress = progress(&self.conn)?;
            self.events.extend([Event::Loading(progress)]);
        }
        Ok(())
    }

    fn checkpoint_reached(
        &mut self,
        checkpoint: &Checkpoint,
        answers: &mut Vec<Answer>,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        // Taken only once the transaction is through: an error leaves them for another try.
        let changes = std::mem::take(&mut self.session.changes);
        let reloaded = std::mem::take(&mut self.session.reloaded);
        let input = CheckpointInput {
            changes: &changes,
            checkpoint,
            begins_reload: self.session.reloads,
            reloaded: &reloaded,
        };
        let are_known_there = self.session.subscriptions.are_known_there;
        let ended = self.session.subscriptions.ended_by(checkpoint.subscribed);
        let told = std::mem::take(&mut self.session.subscriptions.told);
        let applied = self.transact(now, |work, entropy| {
            let answered = settle_answers(work, answers, entropy, now)?;
            let applied = apply_checkpoint(work, &input, entropy, now)?;
            for stored in &ended {
                subscriptions::forget(work.conn, stored)?;
            }
            if applied.is_live {
                let told = are_known_there.then_some(told.as_slice());
                note_subscribed(work, told, checkpoint.subscribed)?;
            }
            Ok((answered, applied))
        });
        self.session.reloaded = reloaded;
        self.session.subscriptions.told = told;
        let applied = match applied {
            Ok(applied) => applied,
            Err(error) => {
                self.session.changes = changes;
                return Err(error);
            }
        };
        self.session.changes_bytes = 0;
        let Some((answered, applied)) = applied else {
            // The session ends: what was answered is asked again.
            answers.clear();
            return Ok(());
        };
        self.session.subscriptions.forget_ended(&ended);
        self.follow_answers(answers, answered, now);
        self.session.reloads = false;
        self.session.checkpoints = self.session.checkpoints.wrapping_add(1);
        if self.session.checkpoints.is_multiple_of(EXPIRE_EVERY) {
            db::immediate(&self.conn, || {
                acknowledged::expire(&self.conn, checkpoint.now)
            })?;
        }
        if !applied.reload.is_empty() {
            for LoadPosition { bucket, table, .. } in &applied.reload {
                let bucket = bucket.unwrap_or_default();
                *self.session.reloaded.entry((bucket, *table)).or_default() += 1;
            }
            self.ask_again(applied.reload);
        }
        if applied.is_live && !self.session.is_live {
            self.events.extend([Event::Live {
                version: checkpoint.cursor.version,
            }]);
        }
        if applied.is_live {
            self.session.reconnect.live(now);
        }
        let subscriptions = &self.session.subscriptions;
        let is_heard =
            !subscriptions.are_known_there || checkpoint.subscribed >= subscriptions.told_number;
        self.session.is_live = applied.is_live;
        self.session.caught_up = checkpoint.caught_up && is_heard;
        self.session.checkpoint = Some(checkpoint.cursor.version);
        self.tell_checkpoint(now);
        Ok(())
    }

    /// Remembers (bucket, table)s that were live when this device itself had them loaded again, so
    /// that a reload under new rules, which may end before the server hears of it, does not take
    /// them for tables that it was sent nothing of. What was not live is for that reload to judge.
    pub(crate) fn note_asked_again(&mut self, live: Vec<(BucketId, TableNumber)>) {
        if self.session.phase == Phase::Streaming {
            for part in live {
                self.session.reloaded.entry(part).or_default();
            }
        }
    }

    /// Has (bucket, table)s loaded again on the open session (spec SE5a).
    pub(crate) fn ask_again(&mut self, positions: Vec<LoadPosition>) {
        if self.session.phase == Phase::Streaming {
            self.session.send(&ClientMessage::Load(Load { positions }));
        }
    }

    /// Writes answers down that no checkpoint followed.
    fn answered(&mut self, answers: &mut Vec<Answer>, now: Timestamp) -> Result<(), ReplicaError> {
        if answers.is_empty() {
            return Ok(());
        }
        let answered = self.transact(now, |work, entropy| {
            settle_answers(work, answers, entropy, now)
        })?;
        self.follow_answers(answers, answered.unwrap_or_default(), now);
        self.pump(now)
    }

    /// Does what answers, which are written down now, mean to the session.
    fn follow_answers(
        &mut self,
        answers: &mut Vec<Answer>,
        outcomes: Vec<Answered>,
        now: Timestamp,
    ) {
        for outcome in outcomes {
            match outcome {
                Answered::Again(seq, refusal) => self.push_again(seq, &refusal, now),
                Answered::Settled => self.session.push_failures = 0,
                // It may have been passed over while this answer was awaited.
                Answered::Void => self.session.look_again(),
            }
        }
        for Answer { result, .. } in answers.drain(..) {
            self.session.in_flight.remove(&result.id);
            self.events.extend(lost(&self.tables, &result));
        }
    }
}

/// Says of each answer what it came to.
fn settle_answers(
    work: &mut Work<'_>,
    answers: &[Answer],
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<Vec<Answered>, Fault> {
    let mut outcomes = Vec::with_capacity(answers.len());
    for Answer { result, seq } in answers {
        let entry = outbox::by_id(work.conn, result.id)?.filter(|entry| {
            // What was parked meanwhile because its rows went away is in the log all
            // the same: it must not be offered for sending again (spec OB11).
            let was_parked =
                entry.state == State::Parked && matches!(result.verdict, Verdict::Accepted(_));
            entry.seq == *seq && (entry.state == State::Sealed || was_parked)
        });
        let Some(entry) = entry else {
            note_answer(work, result, now)?;
            work.settle(entropy, now)?;
            outcomes.push(Answered::Void);
            continue;
        };
        outcomes.push(match &result.verdict {
            Verdict::Accepted(version) => {
                work.accept(entry, *version, now)?;
                Answered::Settled
            }
            Verdict::Refused(refusal) => match work.refuse(&entry, refusal, now)? {
                Refused::Again => Answered::Again(entry.seq, refusal.clone()),
                Refused::Settled => Answered::Settled,
            },
        });
        work.settle(entropy, now)?;
    }
    Ok(outcomes)
}

/// What was parked while its refusal was on the way is known not to be in the log; what was cut while
/// it was accepted is there in each of its pieces.
fn note_answer(
    work: &mut Work<'_>,
    result: &PushResult,
    now: Timestamp,
) -> Result<(), ReplicaError> {
    match &result.verdict {
        Verdict::Accepted(version) => {
            for piece in outbox::by_whole(work.conn, result.id)? {
                if piece.state != State::Accepted {
                    work.accept(piece, *version, now)?;
                }
            }
        }
        Verdict::Refused(refusal) => {
            if !refusal.retry
                && let Some(mut entry) = outbox::by_id(work.conn, result.id)?
                && entry.state == State::Parked
            {
                work.note_refusal(&mut entry, refusal)?;
            }
        }
    }
    Ok(())
}

/// What was asked for with `told` up to this change of the subscriptions is here.
fn note_subscribed(
    work: &mut Work<'_>,
    told: Option<&[Subscription]>,
    heard: u64,
) -> Result<(), ReplicaError> {
    let new = set_live(work, told, heard)?;
    let topics = new.iter().filter_map(subscription_of);
    let events = topics.map(|subscription| Event::Subscribed(subscription.topic));
    work.events.extend(events);
    Ok(())
}

/// How far loading has come.
pub(crate) fn progress(conn: &rusqlite::Connection) -> Result<LoadProgress, ReplicaError> {
    let remaining: Option<i64> = settings::get(conn, Key::RemainingRows)?;
    Ok(LoadProgress {
        done: settings::get_count(conn, Key::LoadedRows)?,
        remaining: remaining.map(i64::cast_unsigned),
    })
}

/// Whether everything granted is live: only then are rows that were here before compared with
/// nothing any more, and sent.
pub(super) fn is_loaded(conn: &rusqlite::Connection) -> Result<bool, ReplicaError> {
    Ok(!buckets::is_loading(conn)?)
}

/// Accepted edits that lost, by name.
fn lost(tables: &Tables, result: &PushResult) -> Vec<Event> {
    let event = |lost: &syncline_core::wire::LostEdit| {
        let table = tables.remote(lost.table)?;
        let key = syncline_core::RowKey::from_bytes(&lost.key).ok()?;
        let column = lost.column.and_then(|number| {
            let remote = &table.remote.as_ref()?.table;
            let position = remote.position_of(syncline_core::ColumnNumber(number))?;
            Some(remote.columns[position].name.clone())
        });
        let reason = lost.reason.clone();
        Some(Event::EditLost {
            table: table.name().to_owned(),
            key,
            column,
            reason,
        })
    };
    result.lost.iter().filter_map(event).collect()
}
