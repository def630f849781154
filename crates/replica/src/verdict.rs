//! What the server's answers do to the outbox (docs/spec/outbox.md).

use std::collections::BTreeSet;

use syncline_core::planted;
use syncline_core::{
    Changeset, ChangesetId, ColumnEdit, Edit, Op, Timestamp, Value, Version,
    wire::{Refusal, code},
};

use crate::{
    codec,
    error::ReplicaError,
    event::Event,
    meta::{
        acknowledged::{self, Acknowledged},
        cursors, ledger,
        outbox::{self, Entry, Seq, State},
        settings::{self, Key},
        shadow::Shadow,
    },
    rekey,
    seal::{self, CutRefused},
    tally::RowChange,
    work::Work,
};

/// Code of changesets parked because their rows may not be seen any more (spec OB9).
pub(crate) const NO_ACCESS: &str = "no_access";

/// What the session does next about a refused changeset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It stays sealed: push it again after a pause.
    Again,
    /// It is parked, or its pieces or its new key are sealed again.
    Settled,
}

impl Work<'_> {
    /// The changeset is in the log, ending at `version`. It stays replayed until a checkpoint
    /// passes it (spec OB3).
    pub(crate) fn accept(
        &mut self,
        mut entry: Entry,
        version: Version,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let was_parked = entry.state == State::Parked;
        let may_have_come_otherwise = entry.may_have_come_otherwise();
        entry.state = State::Accepted;
        // One that is asked about again (spec OB4) was counted when it was first taken.
        let was_taken = entry.version.replace(version).is_some();
        (entry.code, entry.message, entry.parked_at) = (None, None, None);
        // If it may have come before it was in this log, then to another one, which may come back.
        if !may_have_come_otherwise {
            entry.after = outbox::before(version);
        }
        (entry.doubt, entry.first_number) = (false, None);
        outbox::put(self.conn, &entry)?;
        if !was_taken {
            self.count_accepted(&entry)?;
        }
        if was_parked {
            self.make_dirty(entry.seq)?;
            self.show_again(entry.seq)?;
        }
        if planted!(AcceptedDroppedEarly)
            || cursors::newest(self.conn)?.is_some_and(|checkpoint| checkpoint >= version)
                && self.has_arrived(version)?
        {
            self.finish(&entry, now)?;
        }
        Ok(())
    }

    /// Shows what an accepted changeset wrote, which parking had taken back (spec OB2); but not in
    /// rows that a page brought ahead of its checkpoint: they may have it already.
    fn show_again(&mut self, seq: Seq) -> Result<(), ReplicaError> {
        let checkpoint = cursors::newest(self.conn)?.unwrap_or(Version::ZERO);
        for (t, key) in outbox::keys(self.conn, seq)? {
            let known = ledger::version_of(self.conn, t, &key)?;
            if known.is_none_or(|version| version <= checkpoint) {
                self.refresh(t, key);
            }
        }
        Ok(())
    }

    /// Whether what the log has up to `version`, which a checkpoint has passed, is here: after a
    /// Reload it comes with pages, and only when all have come is that known (spec OB3).
    pub(crate) fn has_arrived(&self, version: Version) -> Result<bool, ReplicaError> {
        let reloaded_at: Option<i64> = settings::get(self.conn, Key::ReloadedAt)?;
        Ok(reloaded_at.is_none_or(|at| version.0 > at.cast_unsigned()))
    }

    /// Counts the changes of a changeset that the server took.
    pub(crate) fn count_accepted(&mut self, entry: &Entry) -> Result<(), ReplicaError> {
        outbox::each_change(self.conn, entry.seq, |stored| {
            let counts = self.accepted.entry(stored.change.table).or_default();
            counts.count(RowChange::of_op(&stored.change.op));
            Ok(())
        })
        .map(drop)
    }

    /// A checkpoint has passed an accepted changeset: the server's rows contain it.
    pub(crate) fn finish(&mut self, entry: &Entry, now: Timestamp) -> Result<(), ReplicaError> {
        let mut changes = codec::encoder(entry);
        let mut places = Vec::new();
        outbox::each_change(self.conn, entry.seq, |stored| {
            changes.push(&stored.change);
            places.push(stored.place());
            self.refresh(stored.change.table, stored.change.key);
            Ok(())
        })?;
        let head = Changeset {
            id: entry.id,
            number: entry.number.unwrap_or(0),
            depends: Vec::new(),
            hlc: entry.hlc,
            changes: Vec::new(),
            require_unchanged: entry.require_unchanged,
            may_be_applied_already: false,
            after: Some(entry.after),
            piece: outbox::piece_to_keep(entry, places),
        };
        outbox::remove(self.conn, entry.seq)?;
        acknowledged::put(
            self.conn,
            &Acknowledged {
                seq: entry.seq,
                version: entry.version.unwrap_or(Version::ZERO),
                at: now,
                marked: entry.marked,
                body: changes.finish(&head),
            },
        )
    }

    /// The changeset was refused: it is rolled back, with what depends on it (spec OB5), or
    /// gets another chance.
    pub(crate) fn refuse(
        &mut self,
        entry: &Entry,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<Refused, ReplicaError> {
        if refusal.retry {
            return Ok(Refused::Again);
        }
        if refusal.code == code::DEPENDS_ON {
            let waits = outbox::depends(self.conn, entry.seq)?
                .iter()
                .any(|(_, state, _)| *state == State::Sealed);
            if waits {
                return Ok(Refused::Again);
            }
        }
        let change = self.place_of(entry, refusal.change)?;
        let refusal = &Refusal {
            change,
            ..refusal.clone()
        };
        if refusal.code == code::ID_TAKEN && rekey::rekey(self, entry, refusal.change)? {
            return Ok(Refused::Settled);
        }
        let may_be_applied = refusal.code == code::MAYBE_APPLIED;
        // Under the ids of its pieces it could be applied once more.
        if !may_be_applied && let CutRefused::Pieces(_) = seal::cut_refused(self, entry, refusal)? {
            return Ok(Refused::Settled);
        }
        // Nor are those that came with it made anew.
        if !may_be_applied {
            seal::spare_others(self, entry.seq)?;
        }
        let mut answered = entry.clone();
        self.note_refusal(&mut answered, refusal)?;
        let parked = self.park([entry.seq], &refusal.code, &refusal.message, now)?;
        self.events.push(Event::ChangeRefused {
            changeset: entry.id,
            code: refusal.code.clone(),
            message: refusal.message.clone(),
            parked,
        });
        Ok(Refused::Settled)
    }

    /// The server counts the changes that travelled: which that is of those that are here, among
    /// which may be some of columns or tables that the server does not have.
    fn place_of(&self, entry: &Entry, change: Option<u32>) -> Result<Option<u32>, ReplicaError> {
        let Some(change) = change else {
            return Ok(None);
        };
        let (mut here, mut sent, mut found) = (0, 0, None);
        outbox::each_change(self.conn, entry.seq, |stored| {
            let table = self.table(stored.change.table);
            let travels =
                table.is_some_and(|t| !matches!(t.translate(&stored.change, &[]), Ok(None)));
            if travels {
                found = found.or((sent == change).then_some(here));
                sent += 1;
            }
            here += 1;
            Ok(())
        })?;
        Ok(found)
    }

    /// Writes down what a refusal that is not to be retried says of where the changeset is not.
    pub(crate) fn note_refusal(
        &self,
        entry: &mut Entry,
        refusal: &Refusal,
    ) -> Result<(), ReplicaError> {
        // Whoever is told of another user was told before anybody looked.
        let says_nothing = [code::MAYBE_APPLIED, code::PARTLY_APPLIED, code::WRONG_USER];
        if !says_nothing.contains(&&*refusal.code) {
            entry.first_number = None;
            let head = Version(settings::get_count(self.conn, Key::Head)?);
            entry.after = entry.after.max(head);
        }
        entry.number = None;
        outbox::put(self.conn, entry)
    }

    /// Parks changesets with the reason, and with `depends_on` those that depend on them;
    /// returns all ids in order.
    pub(crate) fn park(
        &mut self,
        roots: impl IntoIterator<Item = Seq>,
        code: &str,
        message: &str,
        now: Timestamp,
    ) -> Result<Vec<ChangesetId>, ReplicaError> {
        let roots: BTreeSet<Seq> = roots.into_iter().collect();
        let mut parked = Vec::new();
        for seq in outbox::dependants(self.conn, roots.iter().copied())? {
            let Some(mut entry) = outbox::entry(self.conn, seq)? else {
                continue;
            };
            if entry.state != State::Sealed || (planted!(DependantsSent) && !roots.contains(&seq)) {
                continue;
            }
            entry.state = State::Parked;
            entry.parked_at = Some(now);
            let (code, message) = if roots.contains(&seq) {
                (code, message)
            } else {
                (
                    code::DEPENDS_ON,
                    "a changeset that it builds on was refused",
                )
            };
            entry.code = Some(code.to_owned());
            entry.message = Some(message.to_owned());
            outbox::put(self.conn, &entry)?;
            for (t, key) in outbox::keys(self.conn, seq)? {
                if !planted!(RefusalNotRolledBack) {
                    self.refresh(t, key);
                }
            }
            parked.push(entry.id);
        }
        Ok(parked)
    }

    /// Parks what is pending for a row that may not be seen any more, keeping of it only what
    /// the author wrote (spec OB9).
    pub(crate) fn park_unseen(
        &mut self,
        t: syncline_core::TableNumber,
        key: &syncline_core::RowKey,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let touching = outbox::touching(self.conn, t, key)?;
        let pending = touching
            .iter()
            .filter(|p| p.state == State::Sealed)
            .map(|p| p.seq);
        let roots: Vec<Seq> = pending.collect();
        if !roots.is_empty() {
            let parked = self.park(
                roots,
                NO_ACCESS,
                "the row is not shared with you any more; what you wrote is kept here",
                now,
            )?;
            if let Some(&changeset) = parked.first() {
                self.events.push(Event::ChangeRefused {
                    changeset,
                    code: NO_ACCESS.to_owned(),
                    message: "the row is not shared with you any more".to_owned(),
                    parked,
                });
            }
        }
        for place in touching {
            match outbox::change_at(self.conn, place.seq, place.pos) {
                Ok(Some(mut stored)) => {
                    if forget_base(&mut stored.change.op) {
                        outbox::put_change(self.conn, place.seq, &stored)?;
                    }
                }
                Ok(None) => {}
                // Of what cannot be read nobody knows what is in it.
                Err(ReplicaError::DamagedChangeset { .. }) if place.state == State::Parked => {
                    outbox::delete_change(self.conn, place.seq, place.pos)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Seals a parked changeset again at the end of the outbox, under its id (spec OB6).
    pub(crate) fn unpark(&mut self, mut entry: Entry) -> Result<Seq, ReplicaError> {
        let to = outbox::next_seq(self.conn)?;
        outbox::move_to(self.conn, entry.seq, to)?;
        entry.seq = to;
        entry.state = State::Sealed;
        entry.number = None;
        entry.code = None;
        entry.message = None;
        entry.parked_at = None;
        outbox::put(self.conn, &entry)?;
        self.make_dirty(to)?;
        for (t, key) in outbox::keys(self.conn, to)? {
            self.refresh(t, key);
        }
        Ok(to)
    }

    /// Makes the rows of a changeset that is pending again dirty. What is visible stays: where
    /// it has the effect already, it must not be shown twice.
    pub(crate) fn make_dirty(&mut self, seq: Seq) -> Result<(), ReplicaError> {
        for (t, key) in outbox::keys(self.conn, seq)? {
            let Some(table) = self.table(t) else { continue };
            if self.shadow(table, &key)?.is_none() {
                let image = self.visible(table, &key)?;
                self.put_shadow(
                    table,
                    &key,
                    &Shadow {
                        image,
                        hidden: false,
                    },
                )?;
            }
        }
        Ok(())
    }
}

/// Takes the server's value out of what a person decided by; whether there was one.
fn forget_base(op: &mut Op) -> bool {
    let edits: &mut [ColumnEdit] = match op {
        Op::Insert(edits) | Op::Update(edits) => edits,
        Op::Delete => &mut [],
    };
    let mut found = false;
    for edit in edits {
        if let Edit::Decide { base, .. } = &mut edit.edit {
            *base = Value::Null;
            found = true;
        }
    }
    found
}
