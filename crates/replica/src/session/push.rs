//! Pushing the outbox in order, within a window (spec SE16–SE19).

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_core::{
    Changeset, ChangesetId, Timestamp,
    wire::{
        CHANGES_MAX, CHANGESET_BYTES_MAX, ChangesetEncoder, PUSH_PART_BYTES, Push, Refusal, code,
    },
};

use super::{InFlight, Outgoing, Phase, receive::is_loaded, timers::jittered};
use crate::{
    apply::record_extra,
    capture, codec, db,
    error::ReplicaError,
    meta::{
        buckets, former, ledger,
        outbox::{self, Entry, Seq, State},
        settings::{self, Key},
    },
    replica::Replica,
    seal, seed,
    tables::{Tables, Unsealable},
    work::Work,
};
use syncline_core::planted;

/// Bytes that wait to be sent before more is read from the outbox.
const QUEUED_BYTES: usize = 4 * 1024 * 1024;
/// Unanswered changesets that leave room for sealing rows that were here before.
const SEEDS_IN_FLIGHT: usize = 4;
/// Tables whose seeding is ended in one transaction.
const SEEDED_AT_ONCE: usize = 64;
/// Entries looked at together.
const LOOKED_AT: usize = 64;

/// A changeset in the server's words.
enum Translated {
    /// Encoded.
    Fits(Vec<u8>),
    /// It cannot travel: code and sentence.
    Unfit(&'static str, String),
    /// Nothing of it is the server's business.
    Nothing,
}

/// A changeset that has its number since a moment ago, as it is sent.
#[derive(Debug)]
pub(crate) struct Ready {
    id: ChangesetId,
    body: Vec<u8>,
}

impl Translated {
    fn of(head: &Changeset, changes: ChangesetEncoder) -> Self {
        let rows = changes.count();
        let body = changes.finish(head);
        if body.len() <= CHANGESET_BYTES_MAX && rows <= CHANGES_MAX {
            return Self::Fits(body);
        }
        let message = format!(
            "one transaction changed {rows} rows in {} bytes; at most {CHANGES_MAX} rows and \
             {CHANGESET_BYTES_MAX} bytes travel together: split it",
            body.len()
        );
        Self::Unfit(code::TOO_LARGE, message)
    }
}

impl Replica {
    /// Sends what may be sent; where nothing is left, seals rows that were here before attaching.
    pub(crate) fn pump(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        self.mending(now, |replica| replica.try_pump(now))
    }

    fn try_pump(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        self.tell_subscriptions(now)?;
        loop {
            if self.session.phase != Phase::Streaming || self.session.closing.is_some() {
                return Ok(());
            }
            if self.holds_sealed()? {
                return Ok(());
            }
            if self.push_ready(now)? || self.session.in_flight.len() >= SEEDS_IN_FLIGHT {
                return Ok(());
            }
            if !is_loaded(&self.conn)? || !(self.seed(now)? || self.push_stuck(now)?) {
                return Ok(());
            }
            if self.session.passed_over {
                self.session.look_again();
            }
        }
    }

    /// Seals the next rows that were here before attaching; whether there were any. A changeset
    /// is of one table, a transaction of many: small tables would cost a flush of the disk each.
    fn seed(&mut self, now: Timestamp) -> Result<bool, ReplicaError> {
        if !self.tables.iter().any(|table| table.seeding) {
            return Ok(false);
        }
        let seeded = self.transact(now, |work, entropy| {
            // The schema may have been looked at since that was asked: a table is back.
            if buckets::is_loading(work.conn)? {
                return Ok(None);
            }
            former::release(work)?;
            let mut done = BTreeSet::new();
            let mut rows = 0;
            while rows < seed::ROWS && done.len() < SEEDED_AT_ONCE {
                match seed::seal_next(work, entropy, now)? {
                    seed::Seeded::Rows(looked_at) => rows += looked_at.max(1),
                    seed::Seeded::Done(t) if done.insert(t) => {}
                    seed::Seeded::Done(_) => break,
                }
            }
            work.settle(entropy, now)?;
            Ok(Some(done))
        })?;
        let Some(done) = seeded.flatten() else {
            return Ok(false);
        };
        for t in done {
            self.tables.set_seeded(t);
        }
        Ok(true)
    }

    /// Pushes from the outbox as far as the window allows; whether the window is full.
    fn push_ready(&mut self, now: Timestamp) -> Result<bool, ReplicaError> {
        if self.session.again.values().any(|at| *at <= now) {
            self.session.again.retain(|_, at| *at > now);
            self.session.look_again();
        }
        loop {
            let from = self.session.pushed_to;
            let entries = outbox::in_state(&self.conn, State::Sealed, from, LOOKED_AT)?;
            if entries.is_empty() {
                if !self.session.pushed_after {
                    return Ok(false);
                }
                // What was passed over may have waited for what was pushed after it.
                self.session.look_again();
            }
            for entry in entries {
                if self.session.in_flight.len() >= self.session.pushes_max
                    || self.session.queued_bytes() >= QUEUED_BYTES
                {
                    return Ok(true);
                }
                if self.may_push(&entry)? {
                    let is_sent = self.push(&entry, now)?;
                    self.session.pushed_after = self.session.passed_over;
                    if self.session.closing.is_some() {
                        return Ok(true);
                    }
                    if !is_sent {
                        // Others of these were parked with it, or more was joined with it.
                        break;
                    }
                }
                self.session.pushed_to = entry.seq;
            }
        }
    }

    /// Whether the changeset can be sent now: not on its way, not told to wait, and nothing that
    /// it needs waits.
    fn may_push(&mut self, entry: &Entry) -> Result<bool, ReplicaError> {
        if self.session.again.contains_key(&entry.seq)
            || self.session.in_flight.contains_key(&entry.id)
        {
            return Ok(false);
        }
        for (on, state, _) in outbox::depends(&self.conn, entry.seq)? {
            if state == State::Sealed
                && let Some(at) = self.session.again.get(&on).copied()
            {
                self.session.again.insert(entry.seq, at);
                return Ok(false);
            }
        }
        let is_early = self.is_early(entry)?;
        self.session.passed_over |= is_early;
        Ok(!is_early)
    }

    /// Whether it was never sent and something that it needs is not on its way: a row from before
    /// attaching comes later in the outbox than what references it.
    fn is_early(&self, entry: &Entry) -> Result<bool, ReplicaError> {
        if entry.number.is_some() {
            return Ok(false);
        }
        if former::holds(&self.conn, entry.seq)? {
            return Ok(true);
        }
        // In a circle of references somebody has to go first.
        let circle = outbox::dependants(&self.conn, [entry.seq])?;
        let is_in_flight =
            |seq| circle.contains(&seq) || self.session.in_flight.values().any(|f| f.seq == seq);
        for (on, state, _) in outbox::depends(&self.conn, entry.seq)? {
            if state == State::Sealed && !is_in_flight(on) {
                return Ok(true);
            }
        }
        let work = Work::new(&self.conn, &self.tables);
        let Some((_, changes)) = outbox::whole(&self.conn, entry.seq)? else {
            return Ok(false);
        };
        for stored in changes {
            if seed::is_early(&work, &stored.change, is_in_flight)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where everything that is left waits for one another, the first goes all the same, and the
    /// server judges it: of rows from before attaching that were edited since, one changeset may
    /// reference what the next inserts, and so on until the first. Whether there was any.
    fn push_stuck(&mut self, now: Timestamp) -> Result<bool, ReplicaError> {
        let session = &self.session;
        if !session.passed_over || !session.in_flight.is_empty() || !session.again.is_empty() {
            return Ok(false);
        }
        let mut after = 0;
        loop {
            let entries = outbox::in_state(&self.conn, State::Sealed, after, LOOKED_AT)?;
            let Some(last) = entries.last() else {
                return Ok(false);
            };
            after = last.seq;
            for entry in entries {
                let depends = outbox::depends(&self.conn, entry.seq)?;
                if depends.iter().all(|(_, state, _)| *state != State::Sealed) {
                    self.push(&entry, now)?;
                    return Ok(true);
                }
            }
        }
    }

    /// `false` if it was not for the server, does not wait any more, or is of other tables than are
    /// known: what is listed has to be looked at anew.
    fn push(&mut self, entry: &Entry, now: Timestamp) -> Result<bool, ReplicaError> {
        let Some((entry, translated)) = self.translated(entry)? else {
            // Where another program gave the file a table, it is known now.
            self.heed_schema(now)?;
            return Ok(false);
        };
        let body = match translated {
            Translated::Fits(body) => body,
            Translated::Unfit(code, message) => {
                self.settle_locally(&entry, Some((code, message)), now)?;
                return Ok(false);
            }
            Translated::Nothing => {
                self.settle_locally(&entry, None, now)?;
                return Ok(false);
            }
        };
        self.session
            .in_flight
            .insert(entry.id, InFlight { seq: entry.seq });
        if planted!(RemovedWhenSent) {
            outbox::remove(&self.conn, entry.seq)?;
        }
        if body.len() <= PUSH_PART_BYTES {
            let push = Push {
                id: entry.id,
                body,
                parts: 0,
            };
            self.session.send_push(push);
        } else {
            let parts = u32::try_from(body.len().div_ceil(PUSH_PART_BYTES))
                .expect("a changeset's size is limited above");
            let push = Push {
                id: entry.id,
                body: Vec::new(),
                parts,
            };
            self.session.send_push(push);
            self.session.out.push_back(Outgoing::Parts {
                id: entry.id,
                body,
                index: 0,
            });
        }
        Ok(true)
    }

    /// The changeset as it is now, with the server's numbers; `None` if it does not wait any
    /// more, because another program parked it, or if the file has other tables than are known:
    /// of a table that nobody here knows nothing could be sent. Only one that can travel takes a
    /// number, on disk: the server would wait for the number of any other (spec SE16).
    fn translated(&mut self, listed: &Entry) -> Result<Option<(Entry, Translated)>, ReplicaError> {
        if listed.number.is_some() {
            let ready = self.session.ready.take();
            if let Some(ready) = ready.filter(|ready| ready.id == listed.id) {
                return Ok(Some((listed.clone(), Translated::Fits(ready.body))));
            }
            let known = db::snapshot(&self.conn, || {
                if self.has_other_schema()? {
                    return Ok(None);
                }
                let Some(entry) = sealed(&self.conn, listed.seq)? else {
                    return Ok(None);
                };
                let numbered = entry.number;
                let translated = numbered.map(|n| with_number(&self.conn, &self.tables, &entry, n));
                Ok(Some((entry, translated.transpose()?)))
            })?;
            match known {
                None => return Ok(None),
                Some((entry, Some(translated))) => return Ok(Some((entry, translated))),
                Some((_, None)) => {}
            }
        }
        let in_flight = self.session.in_flight.values().map(|push| push.seq);
        let overtakers: BTreeSet<Seq> = in_flight.filter(|seq| *seq > listed.seq).collect();
        db::immediate(&self.conn, || match self.has_other_schema()? {
            true => Ok(None),
            false => numbered(&self.conn, &self.tables, listed.seq, &overtakers),
        })
    }

    fn has_other_schema(&self) -> Result<bool, ReplicaError> {
        Ok(self.schema_version != Some(capture::schema_version(&self.conn)?))
    }

    /// After which changeset of the outbox one that is sealed now can be sent at once; `None` where
    /// it would have to wait for anything.
    pub(crate) fn sends_after(&mut self) -> Result<Option<Seq>, ReplicaError> {
        let session = &self.session;
        let is_open = session.phase == Phase::Streaming && session.closing.is_none();
        let has_room = session.held_until.is_none()
            && session.in_flight.len() < session.pushes_max
            && session.queued_bytes() < QUEUED_BYTES;
        let nothing_waits = session.again.is_empty() && !session.passed_over;
        let after = session.pushed_to;
        let goes = is_open && has_room && nothing_waits && !self.holds_sealed()?;
        Ok(goes.then_some(after))
    }

    /// A changeset that cannot travel, as it was read: forgotten if it says nothing, else parked.
    fn settle_locally(
        &mut self,
        entry: &Entry,
        unfit: Option<(&'static str, String)>,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let seq = entry.seq;
        self.transact(now, |work, entropy| {
            // What was written since may have been joined with it just now.
            if outbox::entry(work.conn, seq)?.as_ref() != Some(entry) {
                return Ok(());
            }
            match unfit {
                Some((code, message)) => {
                    work.park([seq], code, &message, now)?;
                }
                None => {
                    for (t, key) in outbox::keys(work.conn, seq)? {
                        work.refresh(t, key);
                    }
                    outbox::remove(work.conn, seq)?;
                }
            }
            work.settle(entropy, now)?;
            Ok(())
        })?;
        Ok(())
    }

    /// Waits before a changeset is sent again: as long as the server asks, or longer and longer.
    pub(super) fn push_again(&mut self, seq: Seq, refusal: &Refusal, now: Timestamp) {
        if refusal.code == code::GAP {
            // Numbers are agreed on at Welcome.
            self.session.close(
                code::GAP,
                "the server counts our changesets differently",
                true,
            );
            return;
        }
        let pause = match refusal.retry_after_ms {
            Some(pause) => pause,
            None => jittered(self.session.push_failures, &mut *self.entropy),
        };
        self.session.push_failures = self.session.push_failures.saturating_add(1);
        self.session.again.insert(seq, now.plus_millis(pause));
    }
}

/// Gives the changeset that was sealed in this transaction its number, if it is the next one to be
/// sent: on its way there it then waits for the disk once and not twice.
/// Returns what is to be sent then.
pub(crate) fn number_next(
    work: &Work<'_>,
    after: Seq,
    sealed: Seq,
) -> Result<Option<Ready>, ReplicaError> {
    // What references rows from before attaching may have to wait for them.
    if work.tables.iter().any(|table| table.seeding) {
        return Ok(None);
    }
    let waiting = outbox::in_state(work.conn, State::Sealed, after, 2)?;
    if let [next] = &waiting[..]
        && next.seq == sealed
        && next.number.is_none()
        && let Some((entry, Translated::Fits(body))) =
            numbered(work.conn, work.tables, sealed, &BTreeSet::new())?
    {
        let id = entry.id;
        return Ok(Some(Ready { id, body }));
    }
    Ok(None)
}

/// The changeset, which gets its number if it has none and can travel. Read and numbered in one
/// transaction, the caller's: another program on the same file may join more with what was never
/// sent, until it has a number. `overtakers`: younger ones that are on their way already.
fn numbered(
    conn: &Connection,
    tables: &Tables,
    seq: Seq,
    overtakers: &BTreeSet<Seq>,
) -> Result<Option<(Entry, Translated)>, ReplicaError> {
    let Some(entry) = sealed(conn, seq)? else {
        return Ok(None);
    };
    if entry.number.is_none() {
        seed::depend_on_overtakers(&Work::new(conn, tables), seq, overtakers)?;
    }
    let next = settings::get_count(conn, Key::NextNumber)?;
    let number = entry.number.unwrap_or(next);
    let translated = with_number(conn, tables, &entry, number)?;
    if entry.number.is_none() && matches!(translated, Translated::Fits(_)) {
        outbox::set_number(conn, entry.seq, next)?;
        settings::put(conn, Key::NextNumber, (next + 1).cast_signed())?;
    }
    Ok(Some((entry, translated)))
}

/// A changeset, if it waits to be sent.
fn sealed(conn: &Connection, seq: Seq) -> Result<Option<Entry>, ReplicaError> {
    let found = outbox::entry(conn, seq)?;
    Ok(found.filter(|entry| entry.state == State::Sealed))
}

/// In the caller's transaction: what was read of the changeset is what it has.
fn with_number(
    conn: &Connection,
    tables: &Tables,
    entry: &Entry,
    number: u64,
) -> Result<Translated, ReplicaError> {
    let mut changes = codec::encoder(entry);
    let mut places = Vec::new();
    let mut unsealable = None;
    outbox::each_of_whole(conn, entry, |stored| {
        let Some(table) = tables.local(stored.change.table) else {
            return Ok(());
        };
        let mut extra = Vec::new();
        if seal::is_insert(&stored.change.op) {
            let known = ledger::get(conn, table.number(), &stored.change.key)?;
            if let Some(known) = known {
                extra = record_extra(&known)?;
            }
        }
        match table.translate(&stored.change, &extra) {
            Ok(change) => change.iter().for_each(|change| {
                places.push(stored.place());
                changes.push(change);
            }),
            Err(error) => unsealable = unsealable.take().or(Some(error)),
        }
        Ok(())
    })?;
    if let Some(Unsealable { table, column }) = unsealable {
        let message = format!(
            "{table}.{column} is encrypted, and this edit of it cannot be: it was made while the \
             column merged in another way; write the value anew"
        );
        return Ok(Translated::Unfit(code::SCHEMA, message));
    }
    if changes.count() == 0 {
        return Ok(Translated::Nothing);
    }
    let depends = outbox::depends(conn, entry.seq)?;
    let head = Changeset {
        id: entry.id,
        number,
        depends: depends
            .into_iter()
            .filter(|(_, state, _)| *state == State::Sealed)
            .filter_map(|(_, _, on)| on.filter(|on| *on < number))
            .collect(),
        hlc: entry.hlc,
        changes: Vec::new(),
        require_unchanged: entry.require_unchanged,
        may_be_applied_already: entry.may_have_come_otherwise(),
        after: Some(entry.after),
        piece: outbox::piece_of(entry, places),
    };
    Ok(Translated::of(&head, changes))
}
