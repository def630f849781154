//! Transactions of the engine, each with sealing first, and looking at a schema that changed.

use rusqlite::Connection;
use syncline_core::Timestamp;

use super::Replica;
use crate::{
    adopt, apply::Fault, capture, db, entropy::Entropy, error::ReplicaError, meta::outbox::Seq,
    repeat, seal, session::Phase, tables::load, work::Work,
};

impl Replica {
    /// Runs `work` in one transaction after sealing, triggers off; `None` if what the server
    /// sent was refused: the session closes with the reason, and nothing is changed.
    pub(crate) fn transact<T>(
        &mut self,
        now: Timestamp,
        work: impl FnOnce(&mut Work<'_>, &mut dyn Entropy) -> Result<T, Fault>,
    ) -> Result<Option<T>, ReplicaError> {
        self.transact_sealing(now, |transaction, entropy, _| work(transaction, entropy))
    }

    pub(super) fn transact_sealing<T>(
        &mut self,
        now: Timestamp,
        work: impl FnOnce(&mut Work<'_>, &mut dyn Entropy, &[Seq]) -> Result<T, Fault>,
    ) -> Result<Option<T>, ReplicaError> {
        let mut work = Some(work);
        loop {
            if let Some(outcome) = self.transact_once(now, &mut work) {
                return outcome;
            }
            self.heed_schema(now)?;
        }
    }

    /// `None`, with nothing done and `work` still there, if the schema changed since it was
    /// looked at: writes may have gone unmarked, and must be found before rows are written over.
    fn transact_once<T>(
        &mut self,
        now: Timestamp,
        work: &mut Option<impl FnOnce(&mut Work<'_>, &mut dyn Entropy, &[Seq]) -> Result<T, Fault>>,
    ) -> Option<Result<Option<T>, ReplicaError>> {
        let Self {
            conn,
            entropy,
            tables,
            schema_version,
            ..
        } = self;
        let mut transaction = Work::new(conn, tables);
        let outcome = conn.untriggered(|| {
            db::immediate(conn, || {
                let seen = capture::schema_version(conn).map_err(ReplicaError::from)?;
                let Some(work) = work.take_if(|_| *schema_version == Some(seen)) else {
                    return Ok(None);
                };
                let sealed = seal::seal(&mut transaction, &mut **entropy, now)?;
                let done = work(&mut transaction, &mut **entropy, &sealed)?;
                transaction.settle(&mut **entropy, now)?;
                transaction.reload_distrusted()?;
                Ok(Some(done))
            })
        });
        if transaction.erases
            && outcome.is_ok()
            && let Err(error) = db::empty_log(conn)
        {
            return Some(Err(error));
        }
        match outcome {
            Ok(None) => None,
            Ok(Some(done)) => {
                let has_to_load = !transaction.distrusted.is_empty();
                let counted = std::mem::take(&mut transaction.counted);
                let accepted = std::mem::take(&mut transaction.accepted);
                self.events.extend(transaction.into_events());
                self.count(counted, |tally| &mut tally.received);
                self.count(accepted, |tally| &mut tally.sent);
                if has_to_load {
                    self.session.begin_anew();
                }
                Some(Ok(Some(done)))
            }
            Err(Fault::Replica(error)) => Some(Err(error)),
            Err(Fault::Peer(reason)) => {
                self.session
                    .fault(syncline_core::wire::code::MALFORMED, reason);
                Some(Ok(None))
            }
            Err(Fault::Key(code, reason)) => {
                self.session.close(code, reason, false);
                Some(Ok(None))
            }
        }
    }

    /// Follows a schema that changed since it was last looked at (spec CA8).
    pub(crate) fn heed_schema(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        let version = capture::schema_version(&self.conn)?;
        if self.schema_version == Some(version) {
            return Ok(());
        }
        self.adopt_schema(now, |_| Ok(()))
    }

    /// Looks at the file's tables anew, after `first` was done in the same transaction.
    pub(crate) fn adopt_schema(
        &mut self,
        now: Timestamp,
        first: impl FnOnce(&Connection) -> Result<(), ReplicaError>,
    ) -> Result<(), ReplicaError> {
        let Self {
            conn,
            entropy,
            tables: old,
            keys,
            ..
        } = self;
        let (tables, events, seen, has_to_load) = conn.untriggered(|| {
            db::immediate(conn, || {
                first(conn)?;
                let mut objects = load::read_objects(conn)?;
                let tables = load::build_from(conn, &mut objects)?.with_keys(keys);
                let mut work = Work::new(conn, &tables);
                adopt::adopt(&mut work, &objects, old, &mut **entropy, now)?;
                work.settle(&mut **entropy, now)?;
                work.reload_distrusted()?;
                let has_to_load = !work.distrusted.is_empty();
                repeat::install(conn, &objects, &tables)?;
                let events = work.into_events();
                // After the commit it could be another one already, of which nothing is known.
                let seen = capture::schema_version(conn)?;
                Ok::<_, ReplicaError>((tables, events, seen, has_to_load))
            })
        })?;
        let old = std::mem::replace(&mut self.tables, tables);
        // A table that comes or goes, even if only for a moment, is loaded from the beginning.
        if has_to_load
            || !self.tables.anew.is_empty()
            || (self.session.phase == Phase::Streaming && old.numbers() != self.tables.numbers())
        {
            self.session.begin_anew();
        }
        let told = old.left_out;
        self.schema_version = Some(seen);
        self.events.extend(events);
        if told != self.tables.left_out {
            self.tell_left_out();
        }
        Ok(())
    }
}
