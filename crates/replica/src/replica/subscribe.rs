//! Asking for rows of tables that sync on demand (docs/spec/demand.md).

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::{
    ColumnNumber, RowKey, Timestamp, Value, planted,
    wire::{
        ClientMessage, SUBSCRIPTION_KEYS_BYTES_MAX, SUBSCRIPTIONS_MAX, Subscribe,
        Subscription as Asked,
    },
};

use super::{Replica, inspect::row_key, keys};
use crate::{
    db,
    error::ReplicaError,
    meta::{
        outbox::{self, State},
        settings::{self, Key},
        subscriptions::{self, Stored},
    },
    session::Phase,
    tables::{SyncedTable, Tables},
    work::Work,
};

/// How many subscriptions a device may have before a server said so.
const MAX_BEFORE_CONTACT: u64 = 1_000;
/// Most subscriptions in a file, those that end included: longer than they are kept nobody counts
/// on them.
const STORED_MAX: u64 = 2 * SUBSCRIPTIONS_MAX as u64;
const KEYS_BYTES_MAX: u64 = SUBSCRIPTION_KEYS_BYTES_MAX as u64;
/// The column of whoever inserted a row, which no table has.
pub(super) const OWNER: &str = "_owner";

/// What is asked for of tables that sync on demand.
#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    pub table: String,
    pub what: Wanted,
}

/// Rows on demand that hang below …
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// … the row with this key, or are it.
    Row(Vec<Value>),
    /// … this value of a column by which a read rule finds people or a parent.
    Value { column: String, value: Value },
    /// … nothing: those that are the same for all who see them.
    Table,
}

/// A subscription of this device.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    pub topic: Topic,
    pub state: SubscriptionState,
}

/// How far a subscription is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionState {
    /// The rows are still to come.
    Waiting,
    /// What there is for this user is here.
    Live,
    /// Nobody wants it any more: its rows stay until then, and until nothing waits to be sent.
    Ending(Timestamp),
}

impl Replica {
    /// Has the server send what hangs below `topic`, from now on, as far as the user may see it.
    /// Kept in the file until [`Replica::unsubscribe`]. Whether it was not subscribed to.
    ///
    /// Nothing tells whether there is such a row, or one that the user may see: should it come, or
    /// a permission, its rows arrive.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownTable`], [`ReplicaError::UnknownColumn`], [`ReplicaError::BadKey`],
    /// [`ReplicaError::BadTopic`], [`ReplicaError::TooManySubscriptions`], or the database's.
    pub fn subscribe(&mut self, topic: &Topic, now: Timestamp) -> Result<bool, ReplicaError> {
        let stored = stored(&self.conn, &self.tables, topic)?;
        let is_new = db::immediate(&self.conn, || {
            let conn = &self.conn;
            let max = settings::get_count(conn, Key::SubscriptionsMax)?;
            let max = max.checked_sub(1).unwrap_or(MAX_BEFORE_CONTACT);
            let is_one_more = subscriptions::is_wanted(conn, &stored)? != Some(true);
            if is_one_more && subscriptions::count(conn)? >= max {
                return Err(ReplicaError::TooManySubscriptions { max });
            }
            begin(conn, &stored, &mut Held::count(conn)?)
        })?;
        self.pump(now)?;
        Ok(is_new)
    }

    /// As [`Replica::subscribe`], to all of `topics` or, on an error, to none. `max`: how many a
    /// server allows that this file has not met.
    ///
    /// # Errors
    /// As [`Replica::subscribe`].
    pub fn subscribe_all(
        &mut self,
        topics: &[Topic],
        max: u64,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        db::immediate(&self.conn, || {
            subscribe_all(&self.conn, &self.tables, topics, Some(max))
        })?;
        self.pump(now)
    }

    /// Ends a subscription after `keep_for_ms`, and once nothing waits to be sent: then its rows go
    /// from this file, unless another subscription has them too. Whether there was one.
    ///
    /// # Errors
    /// As [`Replica::subscribe`].
    pub fn unsubscribe(
        &mut self,
        topic: &Topic,
        keep_for_ms: u64,
        now: Timestamp,
    ) -> Result<bool, ReplicaError> {
        let stored = stored(&self.conn, &self.tables, topic)?;
        let was_wanted = db::immediate(&self.conn, || {
            if subscriptions::is_wanted(&self.conn, &stored)? != Some(true) {
                return Ok::<_, ReplicaError>(false);
            }
            subscriptions::set_end(&self.conn, &stored, now.plus_millis(keep_for_ms))?;
            next_number(&self.conn)?;
            Ok(true)
        })?;
        self.pump(now)?;
        Ok(was_wanted)
    }

    /// What this device asks for: those that are wanted, oldest first, then those that end.
    ///
    /// # Errors
    /// The database's.
    pub fn subscriptions(&self) -> Result<Vec<Subscription>, ReplicaError> {
        let stored = subscriptions::list(&self.conn)?;
        Ok(stored.iter().filter_map(subscription_of).collect())
    }

    /// What the server was, or is to be, asked for with numbers of its own; `None` where it does
    /// not know subscriptions, and everything is here.
    ///
    /// # Errors
    /// The database's.
    pub fn asked_for(&self) -> Result<Option<Vec<Asked>>, ReplicaError> {
        match subscriptions_max(&self.conn)? {
            Some(max) => self.asked(max).map(Some),
            None => Ok(None),
        }
    }

    /// What the server is to send of the tables that sync on demand, at most this much: what is
    /// wanted first, then what is only kept for a while.
    pub(crate) fn asked(&self, max: usize) -> Result<Vec<Asked>, ReplicaError> {
        let sealed = keys::told_encrypted(&self.conn)?;
        let (mut asked, mut known) = (Vec::new(), BTreeSet::new());
        for stored in subscriptions::list(&self.conn)? {
            if let Some(one) = on_the_wire(&self.tables, &stored, &sealed)
                && asked.len() < max
                && known.insert(one.clone())
            {
                asked.push(one);
            }
        }
        Ok(asked)
    }

    /// Tells the server what changed about the subscriptions, if it knows them.
    pub(crate) fn tell_subscriptions(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        if self.session.phase != Phase::Streaming || self.session.closing.is_some() {
            return Ok(());
        }
        let number = settings::get_count(&self.conn, Key::Subscribed)?;
        let session = &mut self.session.subscriptions;
        if session.known == Some(number) {
            let is_due = session.next_end.is_some_and(|ends| ends <= now);
            session.ends_later = is_due && outbox::count(&self.conn, State::Sealed)? > 0;
            if !is_due || session.ends_later {
                return Ok(());
            }
        }
        let next = db::immediate(&self.conn, || self.next_asked(now))?;
        let session = &mut self.session.subscriptions;
        session.known = Some(next.number);
        session.next_end = next.next_end;
        session.ended = next.ended;
        let (number, asked) = (next.number, next.asked);
        if !session.are_known_there || (session.told == asked && session.told_number == number) {
            return Ok(());
        }
        let is_in = |list: &[Asked], one: &Asked| list.binary_search(one).is_ok();
        let is_new = |one: &&Asked| !is_in(&session.told, one) && !planted!(SubscribeNotTold);
        let is_over = |one: &&Asked| !is_in(&asked, one) && !planted!(UnsubscribeNotTold);
        let add = asked.iter().filter(is_new);
        let drop = session.told.iter().filter(is_over);
        let subscribe = Subscribe {
            number,
            add: add.cloned().collect(),
            drop: drop.cloned().collect(),
        };
        session.told = asked;
        session.told_number = number;
        self.session.caught_up = false;
        self.session.is_live = false;
        self.session.send(&ClientMessage::Subscribe(subscribe));
        Ok(())
    }
}

/// What is asked for now.
struct Next {
    number: u64,
    /// Sorted.
    asked: Vec<Asked>,
    next_end: Option<Timestamp>,
    ended: BTreeMap<Stored, u64>,
}

impl Replica {
    /// What the server is to be asked for from now on. What is due has ended, unless an edit still
    /// waits to be sent: it may be of a row that would go. Inside the caller's transaction.
    fn next_asked(&self, now: Timestamp) -> Result<Next, ReplicaError> {
        let (conn, session) = (&self.conn, &self.session.subscriptions);
        let max = subscriptions_max(conn)?.unwrap_or(SUBSCRIPTIONS_MAX);
        let sealed = keys::told_encrypted(conn)?;
        let may_end = outbox::count(conn, State::Sealed)? == 0;
        let mut asked = BTreeSet::new();
        let (mut over, mut untold, mut next_end) = (Vec::new(), Vec::new(), None);
        for stored in subscriptions::list(conn)? {
            let one = on_the_wire(&self.tables, &stored, &sealed);
            let is_due = stored.ends.is_some_and(|ends| ends <= now);
            let has_room = |one: &Asked| asked.len() < max || asked.contains(one);
            let is_asked = one.as_ref().is_none_or(has_room) && !(is_due && may_end);
            if is_asked {
                let was_told = |one: &Asked| session.told.binary_search(one).is_ok();
                if !stored.live && one.as_ref().is_some_and(|one| !was_told(one)) {
                    untold.push(stored.clone());
                }
                asked.extend(one);
                next_end = next_end.into_iter().chain(stored.ends).min();
            } else if stored.ends.is_some() {
                over.push((stored, one));
            }
        }
        let (mut ended, mut anew) = (BTreeMap::new(), Vec::new());
        for (stored, one) in over {
            let is_there = |one: &Asked| session.told.binary_search(one).is_ok();
            if let Some(number) = session.ended.get(&stored) {
                ended.insert(stored, *number);
            } else if session.are_known_there
                && one.is_some_and(|one| is_there(&one) && !asked.contains(&one))
            {
                anew.push(stored);
            } else {
                subscriptions::forget(conn, &stored)?;
            }
        }
        let mut number = settings::get_count(conn, Key::Subscribed)?;
        // An answer to what was told before is not one to this: Hello could not name what the
        // schema was missing for.
        let is_new = !untold.is_empty() && session.told_number == number;
        if !anew.is_empty() || (session.are_known_there && is_new) {
            number = next_number(conn)?;
        }
        for stored in anew {
            subscriptions::set_ending(conn, &stored)?;
            let live = false;
            ended.insert(Stored { live, ..stored }, number);
        }
        for stored in untold {
            subscriptions::tell_later(conn, &stored, number, session.told_number)?;
        }
        let asked = asked.into_iter().collect();
        Ok(Next {
            number,
            asked,
            next_end,
            ended,
        })
    }
}

/// How many subscriptions the server takes; `None` where it knows none, or was not met.
fn subscriptions_max(conn: &rusqlite::Connection) -> Result<Option<usize>, ReplicaError> {
    let max = settings::get_count(conn, Key::SubscriptionsMax)?.checked_sub(1);
    Ok(max.map(|max| usize::try_from(max).unwrap_or(SUBSCRIPTIONS_MAX)))
}

/// As [`Replica::subscribe_all`], inside the caller's transaction.
pub(crate) fn subscribe_all(
    conn: &rusqlite::Connection,
    tables: &Tables,
    topics: &[Topic],
    max: Option<u64>,
) -> Result<(), ReplicaError> {
    let mut held = Held::count(conn)?;
    let mut any = false;
    for topic in topics {
        any |= begin(conn, &stored(conn, tables, topic)?, &mut held)?;
    }
    let known = subscriptions_max(conn)?.map(|max| max as u64);
    match known.or(max) {
        Some(max) if any && subscriptions::count(conn)? > max => {
            Err(ReplicaError::TooManySubscriptions { max })
        }
        _ => Ok(()),
    }
}

/// What the file holds of subscriptions, to end or not.
struct Held {
    count: u64,
    bytes: u64,
}

impl Held {
    fn count(conn: &rusqlite::Connection) -> Result<Self, ReplicaError> {
        let (count, bytes) = subscriptions::size(conn)?;
        Ok(Self { count, bytes })
    }
}

/// What the server was asked for with `told` (sorted) up to the change `number` is here; those of
/// which it was not known. `None`: it knows no subscriptions, and sends everything.
pub(crate) fn set_live(
    work: &Work<'_>,
    told: Option<&[Asked]>,
    number: u64,
) -> Result<Vec<Stored>, ReplicaError> {
    let Some(told) = told else {
        return subscriptions::set_live(work.conn, u64::MAX >> 1, |_| true);
    };
    let sealed = keys::told_encrypted(work.conn)?;
    subscriptions::set_live(work.conn, number, |stored| {
        on_the_wire(work.tables, stored, &sealed).is_none_or(|one| told.binary_search(&one).is_ok())
    })
}

/// Begins a subscription, or keeps one that was to end. Whether it was not wanted.
fn begin(
    conn: &rusqlite::Connection,
    stored: &Stored,
    held: &mut Held,
) -> Result<bool, ReplicaError> {
    match subscriptions::is_wanted(conn, stored)? {
        Some(true) => return Ok(false),
        Some(false) => subscriptions::keep(conn, stored, next_number(conn)?)?,
        None => {
            held.count += 1;
            if held.count > STORED_MAX {
                return Err(ReplicaError::TooManySubscriptions { max: STORED_MAX });
            }
            held.bytes += stored.key.as_ref().map_or(0, Vec::len) as u64;
            if held.bytes > KEYS_BYTES_MAX {
                return Err(ReplicaError::BadTopic {
                    table: stored.table.clone(),
                    reason: format!(
                        "what a device subscribes to has keys of at most {KEYS_BYTES_MAX} bytes \
                         together; unsubscribe from what is not needed"
                    ),
                });
            }
            subscriptions::put(conn, stored, next_number(conn)?)?;
        }
    }
    Ok(true)
}

/// Finds the file's names and encodes the key.
fn stored(
    conn: &rusqlite::Connection,
    tables: &Tables,
    topic: &Topic,
) -> Result<Stored, ReplicaError> {
    let name = &topic.table;
    let table = tables.named(name);
    let table = table.ok_or_else(|| ReplicaError::UnknownTable { name: name.clone() })?;
    let (column, key) = match &topic.what {
        Wanted::Table => (None, None),
        Wanted::Row(values) => (None, Some(row_key(table, values)?)),
        Wanted::Value { column, value } => {
            let sealed = keys::told_encrypted(conn)?;
            let (column, value) = value_of(table, column, value, &sealed)?;
            let key = RowKey::encode([&value]).map_err(|error| ReplicaError::BadTopic {
                table: table.name().to_owned(),
                reason: error.to_string(),
            })?;
            (Some(column), Some(key))
        }
    };
    Ok(Stored {
        table: table.name().to_owned(),
        column,
        key: key.map(|key| key.as_bytes().to_vec()),
        live: false,
        ends: None,
    })
}

/// Counts a change of the subscriptions; its number.
fn next_number(conn: &rusqlite::Connection) -> Result<u64, ReplicaError> {
    let number = settings::get_count(conn, Key::Subscribed)? + 1;
    settings::put(conn, Key::Subscribed, number.cast_signed())?;
    Ok(number)
}

/// The column as the file spells it, and the value as it holds it.
fn value_of(
    table: &SyncedTable,
    column: &str,
    value: &Value,
    sealed: &BTreeSet<String>,
) -> Result<(String, Value), ReplicaError> {
    if column.eq_ignore_ascii_case(OWNER) {
        return Ok((OWNER.to_owned(), value.clone()));
    }
    let mut columns = table.table.columns.iter();
    let position = columns.position(|known| known.name.eq_ignore_ascii_case(column));
    let position = position.ok_or_else(|| ReplicaError::UnknownColumn {
        table: table.name().to_owned(),
        column: column.to_owned(),
    })?;
    let found = &table.table.columns[position];
    if sealed.contains(&keys::place(table, position)) {
        return Err(ReplicaError::BadTopic {
            table: table.name().to_owned(),
            reason: format!(
                "{} is encrypted, and a server would have to read it",
                found.name
            ),
        });
    }
    Ok((found.name.clone(), value.clone().canonical(found.ty)))
}

/// With the server's numbers; `None` while it does not have the table or column, and where it must
/// not know the value.
fn on_the_wire(tables: &Tables, stored: &Stored, sealed: &BTreeSet<String>) -> Option<Asked> {
    let table = tables.named(&stored.table)?;
    let number = table.remote.as_ref()?.table.number;
    let column = match stored.column.as_deref() {
        None => None,
        Some(OWNER) => Some(ColumnNumber(0)),
        Some(name) => {
            let mut columns = table.table.columns.iter();
            let position = columns.position(|known| known.name.eq_ignore_ascii_case(name))?;
            if sealed.contains(&keys::place(table, position)) {
                return None;
            }
            Some(table.server_number(position)?)
        }
    };
    Some(Asked {
        table: number,
        column,
        key: stored.key.clone(),
    })
}

/// `None` for one that cannot be read: nothing is asked for by it.
pub(crate) fn subscription_of(stored: &Stored) -> Option<Subscription> {
    let values = match &stored.key {
        Some(key) => Some(RowKey::from_bytes(key).ok()?.decode().ok()?),
        None => None,
    };
    let what = match (stored.column.clone(), values) {
        (_, None) => Wanted::Table,
        (None, Some(values)) => Wanted::Row(values),
        (Some(column), Some(mut values)) => Wanted::Value {
            column,
            value: values.pop()?,
        },
    };
    Some(Subscription {
        topic: Topic {
            table: stored.table.clone(),
            what,
        },
        state: match stored.ends {
            Some(ends) => SubscriptionState::Ending(ends),
            None if stored.live => SubscriptionState::Live,
            None => SubscriptionState::Waiting,
        },
    })
}
