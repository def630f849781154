//! The facade: one device's database and its session.

mod anew;
mod device;
mod inspect;
mod keys;
mod parked;
mod quota;
mod resolve;
mod restore;
mod sides;
mod subscribe;
mod transact;
mod wipe;

use std::{collections::BTreeMap, fmt};

pub use anew::{AnewPlace, SealedAnew};
pub use restore::{ColumnThere, RowRestored, RowThere};
pub use sides::ConflictSides;
pub use subscribe::{Subscription, SubscriptionState, Topic, Wanted};
pub(crate) use subscribe::{set_live, subscription_of};
pub use wipe::Wiped;

use rusqlite::Connection;
use syncline_core::Timestamp;

use crate::{
    attach::{AttachOptions, Seeding, TableChoice},
    capture,
    cipher::Keyring,
    db::{self, Doing as _},
    entropy::Entropy,
    error::ReplicaError,
    event::Event,
    introspect,
    meta::{
        self, outbox,
        settings::{self, Key},
    },
    repeat,
    session::{Closing, Events, Session, number_next},
    shared::Shared,
    tables::{Tables, load},
    tally::{Counted, RowCounts, TableTally},
};

/// One device's database: the app's file with Syncline's metadata in it, and the session that
/// keeps it in step with a server.
///
/// All calls are synchronous and do what they do in bounded transactions on one connection.
/// Other connections and programs may read and write the file at any time.
///
/// A driver's loop: [`connect`](Self::connect) when the transport is open; after every call that
/// takes `now`, send everything [`poll_transmit`](Self::poll_transmit) gives, drain
/// [`poll_event`](Self::poll_event), look at [`closing`](Self::closing), and arrange to call
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout).
pub struct Replica {
    pub(crate) conn: Shared,
    pub(crate) entropy: Box<dyn Entropy>,
    pub(crate) tables: Tables,
    pub(crate) keys: Keyring,
    /// The schema's version that `tables` and capture were made for.
    pub(crate) schema_version: Option<i64>,
    pub(crate) session: Session,
    pub(crate) events: Events,
    tally: BTreeMap<String, TableTally>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("conn", &self.conn)
            .field("phase", &self.session.phase)
            .finish_non_exhaustive()
    }
}

/// Life of a file.
impl Replica {
    /// Makes the database behind `conn` a replica: metadata tables and capture, in one
    /// transaction. Rows that exist are sealed once everything the server has is loaded, a
    /// bounded number at a time, so it can be interrupted anywhere.
    ///
    /// Takes the connection over: sets nothing in the file, but a busy timeout if there is none.
    ///
    /// # Errors
    /// [`ReplicaError::AlreadyAttached`], [`ReplicaError::TableUnfit`], or the database's.
    pub fn attach(
        conn: Connection,
        options: AttachOptions,
        mut entropy: Box<dyn Entropy>,
    ) -> Result<Self, ReplicaError> {
        db::prepare_connection(&conn)?;
        let mut device = [0; 16];
        entropy.fill(&mut device);
        let (tables, objects, schema_version) = db::immediate(&conn, || {
            if meta::exists(&conn)? {
                return Err(ReplicaError::AlreadyAttached);
            }
            if let Some((table, advice)) = introspect::reserved_name(&conn)? {
                let reason = advice.to_owned();
                return Err(ReplicaError::TableUnfit { table, reason });
            }
            meta::create(&conn)?;
            settings::put(&conn, Key::Device, device)?;
            options.store(&conn)?;
            load::create_inbox(&conn)?;
            let tables = load::build(&conn)?;
            options.check(&tables)?;
            subscribe::subscribe_all(&conn, &tables, &options.subscriptions, None)?;
            capture::install(&conn, &tables.structures())?;
            let objects = load::read_objects(&conn)?;
            Ok((tables, objects, Some(capture::schema_version(&conn)?)))
        })?;
        let (session, events) = (Session::default(), Events::default());
        let conn = Shared::new(conn);
        conn.untriggered(|| repeat::install(&conn, &objects, &tables))?;
        let mut replica = Self {
            conn,
            entropy,
            tables,
            keys: Keyring::default(),
            schema_version,
            session,
            events,
            tally: BTreeMap::new(),
        };
        replica.tell_left_out();
        Ok(replica)
    }

    /// Opens a file that was attached before, and repairs what changed meanwhile (spec CA8).
    ///
    /// # Errors
    /// [`ReplicaError::NotAttached`], [`ReplicaError::NewerFormat`], [`ReplicaError::Damaged`],
    /// or the database's.
    pub fn open(
        conn: Connection,
        entropy: Box<dyn Entropy>,
        now: Timestamp,
    ) -> Result<Self, ReplicaError> {
        Self::open_with_keys(conn, entropy, now, Keyring::default())
    }

    /// As [`Replica::open`], with the keys of encrypted columns.
    ///
    /// # Errors
    /// As [`Replica::open`].
    pub fn open_with_keys(
        conn: Connection,
        entropy: Box<dyn Entropy>,
        now: Timestamp,
        keys: Keyring,
    ) -> Result<Self, ReplicaError> {
        db::prepare_connection(&conn)?;
        meta::verify(&conn)?;
        let mut replica = Self {
            conn: Shared::new(conn),
            entropy,
            tables: Tables::default(),
            keys,
            schema_version: None,
            session: Session::default(),
            events: Events::default(),
            tally: BTreeMap::new(),
        };
        replica.mending(now, |replica| {
            db::immediate(&replica.conn, || outbox::close_all(&replica.conn))?;
            replica.heed_schema(now)
        })?;
        replica.heed_keys()?;
        replica.tell_left_out();
        Ok(replica)
    }

    /// Whether the database carries Syncline's metadata.
    ///
    /// # Errors
    /// The database's.
    pub fn is_attached(conn: &Connection) -> Result<bool, ReplicaError> {
        meta::exists(conn)
    }

    /// Removes everything of Syncline from the file; the app's rows stay as they are, and so
    /// does its schema, byte for byte.
    ///
    /// # Errors
    /// The database's.
    pub fn detach(self) -> Result<Connection, ReplicaError> {
        repeat::remove(&self.conn)?;
        db::immediate(&self.conn, || {
            capture::remove_everything(&self.conn).map_err(ReplicaError::from)
        })?;
        self.conn.into_inner()
    }

    /// Removes what is left in a file whose metadata is gone: triggers that mark writes where
    /// nobody looks any more, or nowhere, so that the app cannot write. Whether there was anything.
    /// What had not been sent is in the app's rows only.
    ///
    /// # Errors
    /// The database's.
    pub fn remove_leftovers(conn: &Connection) -> Result<bool, ReplicaError> {
        db::immediate(conn, || {
            let is_left = !meta::exists(conn)?
                && introspect::has_our_triggers(conn).doing("looking for triggers")?;
            if is_left {
                capture::remove_everything(conn)?;
            }
            Ok(is_left)
        })
    }

    /// The connection, for reading and for the app's own writes, which are captured like any
    /// other program's.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        self.conn.app().expect("SQLite knows the two switches")
    }

    /// Runs `write` in one immediate transaction whose changes become one changeset: never
    /// joined with others, never cut, visible elsewhere all at once. Rolled back on an error.
    ///
    /// # Errors
    /// What `write` returns, or the database's.
    pub fn write<T, E: From<ReplicaError>>(
        &mut self,
        write: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let conn = self.conn.app()?;
        db::immediate(conn, || {
            capture::begin_marked(conn).map_err(ReplicaError::from)?;
            let done = write(conn)?;
            capture::end_marked(conn).map_err(ReplicaError::from)?;
            Ok(done)
        })
    }

    /// Seals what was captured; returns how many changesets that made or made larger.
    ///
    /// # Errors
    /// The database's.
    pub fn seal(&mut self, now: Timestamp) -> Result<usize, ReplicaError> {
        self.mending(now, |replica| replica.try_seal(false, now))
    }

    /// As [`Replica::seal`], where what is sealed is sent next.
    pub(crate) fn seal_to_send(&mut self, now: Timestamp) -> Result<usize, ReplicaError> {
        self.mending(now, |replica| replica.try_seal(true, now))
    }

    fn try_seal(&mut self, to_send: bool, now: Timestamp) -> Result<usize, ReplicaError> {
        self.heed_schema(now)?;
        if !capture::has_marks(&self.conn)? {
            return Ok(0);
        }
        let after = match to_send {
            true => self.sends_after()?,
            false => None,
        };
        let sealed = self.transact_sealing(now, |work, entropy, sealed| {
            let mut ready = None;
            if let (Some(after), [only]) = (after, sealed) {
                work.settle(entropy, now)?;
                ready = number_next(work, after, *only)?;
            }
            Ok((sealed.len(), ready))
        })?;
        let (sealed, ready) = sealed.unwrap_or_default();
        self.session.ready = ready;
        Ok(sealed)
    }
}

/// Tables.
impl Replica {
    /// Lets further tables sync than were chosen when the file was attached: these, or all if
    /// `names` is `None`. The rows that are in them are sent. Whether that changed anything.
    ///
    /// Whether their rows may be sent is the caller's to find out: nothing is compared here.
    /// `subscriptions` begin with it, as [`AttachOptions::subscriptions`].
    ///
    /// # Errors
    /// Of [`Replica::subscribe`], or the database's.
    pub fn choose_more(
        &mut self,
        names: Option<&[String]>,
        subscriptions: &[Topic],
        now: Timestamp,
    ) -> Result<bool, ReplicaError> {
        let Some(chosen) = load::chosen(&self.conn)? else {
            return Ok(false);
        };
        let more: Option<Vec<String>> = names.map(|names| {
            let mut names: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
            names.retain(|name| !chosen.contains(name));
            names
        });
        if more.as_ref().is_some_and(Vec::is_empty) {
            return Ok(false);
        }
        self.adopt_schema(now, |conn| {
            settings::put(conn, Key::Seeding, true)?;
            match more {
                None => settings::remove(conn, Key::Tables)?,
                Some(more) => {
                    let all: Vec<String> = chosen.into_iter().chain(more).collect();
                    settings::put(conn, Key::Tables, all.join("\n"))?;
                }
            }
            if subscriptions.is_empty() {
                return Ok(());
            }
            subscribe::subscribe_all(conn, &load::build(conn)?, subscriptions, None)
        })?;
        Ok(true)
    }

    /// Whether only some tables were chosen, and which.
    ///
    /// # Errors
    /// The database's.
    pub fn chosen(&self) -> Result<Option<Vec<String>>, ReplicaError> {
        Ok(load::chosen(&self.conn)?.map(|names| names.into_iter().collect()))
    }

    fn tell_left_out(&mut self) {
        let tables = self.tables.left_out.clone();
        if !tables.is_empty() {
            self.events.extend([Event::TablesLeftOut { tables }]);
        }
    }
}

/// Counting.
impl Replica {
    /// What was exchanged since the replica was opened, by table.
    #[must_use]
    pub fn tally(&self) -> &BTreeMap<String, TableTally> {
        &self.tally
    }

    fn count(&mut self, counted: Counted, of: impl Fn(&mut TableTally) -> &mut RowCounts) {
        for (t, counts) in counted {
            let Some(table) = self.tables.local(t) else {
                continue;
            };
            match self.tally.get_mut(table.name()) {
                Some(tally) => of(tally).add(counts),
                None => of(self.tally.entry(table.name().to_owned()).or_default()).add(counts),
            }
        }
    }
}

/// The session's ends.
impl Replica {
    /// A fresh token of the same user, to be sent on the live session.
    pub fn renew_token(&mut self, token: String) {
        self.session.renew_token(token);
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.session.transmit()
    }

    /// The next event for the app.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// `Some` once the session must end.
    #[must_use]
    pub fn closing(&self) -> Option<&Closing> {
        self.session.closing.as_ref()
    }
}

impl AttachOptions {
    fn store(&self, conn: &Connection) -> Result<(), ReplicaError> {
        if let TableChoice::Only(names) = &self.tables {
            settings::put(conn, Key::Tables, names.join("\n"))?;
        }
        settings::put(conn, Key::CreateMissing, self.create_missing)?;
        settings::put(conn, Key::Seeding, self.seeding == Seeding::Send)?;
        settings::put(conn, Key::DeviceName, &self.device_name)?;
        settings::put(conn, Key::Platform, &self.platform)?;
        if let Some(url) = &self.url {
            settings::put(conn, Key::Url, url)?;
        }
        Ok(())
    }

    /// Every table that was named must be able to sync.
    fn check(&self, tables: &Tables) -> Result<(), ReplicaError> {
        let TableChoice::Only(names) = &self.tables else {
            return Ok(());
        };
        for name in names {
            let left_out = tables
                .left_out
                .iter()
                .find(|(out, _)| out.eq_ignore_ascii_case(name));
            if let Some((table, reason)) = left_out {
                let (table, reason) = (table.clone(), reason.clone());
                return Err(ReplicaError::TableUnfit { table, reason });
            }
            if tables.named(name).is_none() && !self.create_missing {
                return Err(ReplicaError::UnknownTable { name: name.clone() });
            }
        }
        Ok(())
    }
}

/// Where the driver connects to.
impl Replica {
    /// The address that was given at attach or last set.
    ///
    /// # Errors
    /// The database's.
    pub fn url(&self) -> Result<Option<String>, ReplicaError> {
        settings::get(&self.conn, Key::Url)
    }

    /// Remembers where the driver connects to.
    ///
    /// # Errors
    /// The database's.
    pub fn set_url(&mut self, url: &str) -> Result<(), ReplicaError> {
        settings::put(&self.conn, Key::Url, url)
    }
}
