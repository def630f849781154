//! Going on although something of the metadata cannot be read: a flipped bit, or somebody who
//! wrote to `syncline_*` (spec OB13).

use std::collections::BTreeMap;

use syncline_core::{ChangesetId, Hlc, RowKey, TableNumber, Timestamp, Version, merge};

use crate::{
    capture, db,
    entropy::Entropy,
    error::ReplicaError,
    event::Event,
    meta::{
        acknowledged::Acknowledged,
        outbox::{self, Entry, Seq, State},
        shadow,
    },
    replica::Replica,
    seal,
    tables::load,
    work::Work,
};

/// Code of changesets parked because what is stored of them cannot be read.
pub(crate) const DAMAGED: &str = "damaged";

/// What was found damaged so far, with what is wrong.
#[derive(Debug, Default)]
struct Found {
    changesets: BTreeMap<Seq, String>,
    images: BTreeMap<(TableNumber, RowKey), String>,
}

impl Found {
    /// `false` for another kind of error, and for what is known already.
    fn add(&mut self, error: &ReplicaError) -> bool {
        match error {
            ReplicaError::DamagedChangeset { seq, what } => {
                self.changesets.insert(*seq, what.clone()).is_none()
            }
            ReplicaError::DamagedImage { table, key, what } => {
                let place = (*table, key.clone());
                self.images.insert(place, what.clone()).is_none()
            }
            ReplicaError::Database { .. }
            | ReplicaError::Rows { .. }
            | ReplicaError::Row { .. }
            | ReplicaError::Schema { .. }
            | ReplicaError::NotAttached
            | ReplicaError::AlreadyAttached
            | ReplicaError::NewerFormat { .. }
            | ReplicaError::Damaged { .. }
            | ReplicaError::UnknownTable { .. }
            | ReplicaError::TableUnfit { .. }
            | ReplicaError::UnknownChangeset { .. }
            | ReplicaError::StillLoading
            | ReplicaError::UnknownConflict { .. }
            | ReplicaError::BadResolution { .. }
            | ReplicaError::BadKey { .. }
            | ReplicaError::BadTopic { .. }
            | ReplicaError::BadRestore { .. }
            | ReplicaError::NoKey { .. }
            | ReplicaError::UnknownColumn { .. }
            | ReplicaError::TooManySubscriptions { .. }
            | ReplicaError::InTransaction => false,
        }
    }
}

impl Replica {
    /// Calls again after what turned out to be damaged was put aside. To be used around calls
    /// that change nothing when they fail.
    pub(crate) fn mending<T>(
        &mut self,
        now: Timestamp,
        mut call: impl FnMut(&mut Self) -> Result<T, ReplicaError>,
    ) -> Result<T, ReplicaError> {
        let mut found = Found::default();
        loop {
            match call(self) {
                Err(error) if found.add(&error) => self.put_aside(&mut found, now)?,
                done => return done,
            }
        }
    }

    /// Goes on without what was found, and without what is found while doing so.
    fn put_aside(&mut self, found: &mut Found, now: Timestamp) -> Result<(), ReplicaError> {
        loop {
            match self.try_put_aside(found, now) {
                Err(error) if found.add(&error) => {}
                done => return done,
            }
        }
    }

    fn try_put_aside(&mut self, found: &Found, now: Timestamp) -> Result<(), ReplicaError> {
        let Self {
            conn,
            entropy,
            tables,
            schema_version,
            ..
        } = self;
        let (events, has_to_load) = conn.untriggered(|| {
            db::immediate(conn, || {
                // At opening nobody has looked at the tables yet.
                let built = schema_version.is_none().then(|| load::build(conn));
                let built = built.transpose()?;
                let mut work = Work::new(conn, built.as_ref().unwrap_or(tables));
                for (t, key) in found.images.keys() {
                    shadow::forget_image(conn, *t, key)?;
                    work.distrusted.insert(*t);
                    work.refresh(*t, key.clone());
                }
                for (seq, what) in &found.changesets {
                    work.put_aside(*seq, what, now)?;
                }
                // What was written since is on top of what is parked now.
                seal::seal(&mut work, &mut **entropy, now)?;
                work.settle(&mut **entropy, now)?;
                work.reload_distrusted()?;
                let has_to_load = !work.distrusted.is_empty();
                Ok::<_, ReplicaError>((work.into_events(), has_to_load))
            })
        })?;
        self.events.extend(events);
        if has_to_load {
            self.session.begin_anew();
        }
        Ok(())
    }
}

impl Work<'_> {
    fn put_aside(&mut self, seq: Seq, what: &str, now: Timestamp) -> Result<(), ReplicaError> {
        let Some(entry) = outbox::entry(self.conn, seq)? else {
            return Ok(());
        };
        match entry.state {
            State::Parked => Ok(()),
            // The server has it, and what it made of it comes with the next checkpoint.
            State::Accepted => {
                for (t, key) in outbox::keys(self.conn, seq)? {
                    self.refresh(t, key);
                }
                outbox::remove(self.conn, seq)?;
                self.refresh_unchanged()
            }
            State::Sealed if outbox::is_complete(self.conn, &entry)? && self.mend(seq)? => Ok(()),
            State::Sealed => {
                let message = format!(
                    "what is stored of it cannot be read any more ({what}); what can is listed: \
                     do it again, then discard this"
                );
                let parked = self.park([seq], DAMAGED, &message, now)?;
                self.tell(entry.id, message, parked);
                self.refresh_unchanged()
            }
        }
    }

    /// Rows that show an edit of which nothing is stored any more: of a change whose row is not
    /// known nobody can tell which one it was of.
    fn refresh_unchanged(&mut self) -> Result<(), ReplicaError> {
        for (t, key) in shadow::without_changes(self.conn)? {
            self.refresh(t, key);
        }
        Ok(())
    }

    fn tell(&mut self, changeset: ChangesetId, message: String, parked: Vec<ChangesetId>) {
        self.events.push(Event::ChangeRefused {
            changeset,
            code: DAMAGED.to_owned(),
            message,
            parked,
        });
    }

    /// Computes the changes that cannot be read anew, from the rows as they are and as the server
    /// has them; `false` where these are not all that is between the two.
    fn mend(&mut self, seq: Seq) -> Result<bool, ReplicaError> {
        let mut mended = Vec::new();
        for pos in outbox::positions(self.conn, seq)? {
            match outbox::change_at(self.conn, seq, pos) {
                Ok(_) => continue,
                Err(ReplicaError::DamagedChangeset { .. }) if capture::has_marks(self.conn)? => {
                    return Ok(false);
                }
                Err(ReplicaError::DamagedChangeset { .. }) => {}
                Err(error) => return Err(error),
            }
            let Some(mut stored) = outbox::without_op(self.conn, seq, pos)? else {
                return Ok(false);
            };
            let key = stored.change.key.clone();
            let Some(table) = self.table(stored.change.table) else {
                return Ok(false);
            };
            let touching = outbox::touching(self.conn, table.number(), &key)?;
            let pending = touching.iter().filter(|t| t.state != State::Parked);
            let Some(shadow) = self.shadow(table, &key)?.filter(|s| !s.hidden) else {
                return Ok(false);
            };
            let visible = self.visible(table, &key)?;
            let is_all =
                pending.count() == 1 && visible.is_some() == table.sql.exists(self.conn, &key)?;
            let op = merge::diff_row(&table.table, shadow.image.as_ref(), visible.as_ref());
            let Some(op) = op.filter(|_| is_all) else {
                return Ok(false);
            };
            stored.change.op = op;
            mended.push(stored);
        }
        for stored in mended {
            outbox::put_change(self.conn, seq, &stored)?;
        }
        Ok(true)
    }

    /// A changeset that the server had and lost cannot be sent again, because what was kept of it
    /// cannot be read.
    pub(crate) fn lose(
        &mut self,
        kept: &Acknowledged,
        what: &str,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let mut id = ChangesetId::default();
        entropy.fill(&mut id.0);
        let message = format!(
            "the server was restored to a state without it, and what was kept of it here cannot \
             be read any more ({what})"
        );
        outbox::put(
            self.conn,
            &Entry {
                seq: kept.seq,
                id,
                state: State::Parked,
                number: None,
                version: None,
                hlc: Hlc::default(),
                marked: kept.marked,
                sent: true,
                require_unchanged: false,
                doubt: false,
                after: Version::ZERO,
                first_number: None,
                whole: None,
                changes: 0,
                bytes: 0,
                first_at: kept.at,
                last_at: kept.at,
                code: Some(DAMAGED.to_owned()),
                message: Some(message.clone()),
                parked_at: Some(now),
                is_sound: true,
            },
        )?;
        self.tell(id, message, vec![id]);
        Ok(())
    }
}
