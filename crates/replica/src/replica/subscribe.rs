//! Asking for rows of tables that sync on demand (docs/spec/demand.md).

use std::collections::BTreeSet;

use syncline_core::{
    ColumnNumber, RowKey, Timestamp, Value,
    wire::{ClientMessage, SUBSCRIPTIONS_MAX, Subscribe, Subscription as Asked},
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
};

/// How many subscriptions a device may have before a server said so.
const MAX_BEFORE_CONTACT: u64 = 1_000;
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
    /// [`ReplicaError::TooManySubscriptions`], or the database's.
    pub fn subscribe(&mut self, topic: &Topic, now: Timestamp) -> Result<bool, ReplicaError> {
        let stored = self.stored(topic)?;
        let is_new = db::immediate(&self.conn, || {
            match subscriptions::is_wanted(&self.conn, &stored)? {
                Some(true) => return Ok::<_, ReplicaError>(false),
                Some(false) => subscriptions::set_end(&self.conn, &stored, None)?,
                None => {
                    let max = settings::get_count(&self.conn, Key::SubscriptionsMax)?;
                    let max = max.checked_sub(1).unwrap_or(MAX_BEFORE_CONTACT);
                    if subscriptions::count(&self.conn)? >= max {
                        return Err(ReplicaError::TooManySubscriptions { max });
                    }
                    let number = next_number(&self.conn)?;
                    subscriptions::put(&self.conn, &stored, number)?;
                    return Ok(true);
                }
            }
            next_number(&self.conn)?;
            Ok(true)
        })?;
        self.pump(now)?;
        Ok(is_new)
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
        let stored = self.stored(topic)?;
        let was_wanted = db::immediate(&self.conn, || {
            if subscriptions::is_wanted(&self.conn, &stored)? != Some(true) {
                return Ok::<_, ReplicaError>(false);
            }
            subscriptions::set_end(&self.conn, &stored, Some(now.plus_millis(keep_for_ms)))?;
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
        let max: Option<i64> = settings::get(&self.conn, Key::SubscriptionsMax)?;
        match max {
            Some(_) => Ok(Some(db::immediate(&self.conn, || self.asked())?.1)),
            None => Ok(None),
        }
    }

    /// Finds the file's names and encodes the key.
    fn stored(&self, topic: &Topic) -> Result<Stored, ReplicaError> {
        let name = &topic.table;
        let table = self.tables.named(name);
        let table = table.ok_or_else(|| ReplicaError::UnknownTable { name: name.clone() })?;
        let (column, key) = match &topic.what {
            Wanted::Table => (None, None),
            Wanted::Row(values) => (None, Some(row_key(table, values)?)),
            Wanted::Value { column, value } => {
                let sealed = keys::told_encrypted(&self.conn)?;
                let (column, value) = value_of(table, column, value, &sealed)?;
                let key = RowKey::encode([&value]).map_err(|error| ReplicaError::BadKey {
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

    /// Forgets what has ended, unless an edit still waits to be sent: it may be of a row that would
    /// go. Inside the caller's transaction.
    pub(crate) fn end_subscriptions(&self, now: Timestamp) -> Result<(), ReplicaError> {
        let conn = &self.conn;
        let is_due = subscriptions::next_end(conn)?.is_some_and(|ends| ends <= now);
        if !is_due || outbox::count(conn, State::Sealed)? > 0 {
            return Ok(());
        }
        subscriptions::end(conn, now)?;
        let number = next_number(conn)?;
        settings::put(conn, Key::Releasing, number.cast_signed())
    }

    /// What the server is to send of the tables that sync on demand, and the number of the last
    /// change of it. Inside the caller's transaction.
    pub(crate) fn asked(&self) -> Result<(u64, Vec<Asked>), ReplicaError> {
        let conn = &self.conn;
        let max = settings::get_count(conn, Key::SubscriptionsMax)?.checked_sub(1);
        let max = max.and_then(|max| usize::try_from(max).ok());
        let max = max.unwrap_or(SUBSCRIPTIONS_MAX);
        let stored = subscriptions::list(conn)?;
        let sealed = keys::told_encrypted(conn)?;
        let mut asked: Vec<Asked> = stored
            .iter()
            .filter_map(|stored| on_the_wire(&self.tables, stored, &sealed))
            .collect();
        if asked.len() > max {
            // What is only kept for a while gives way to what is wanted.
            asked.truncate(max);
            let number = settings::get_count(conn, Key::Subscribed)?;
            settings::put(conn, Key::Releasing, number.cast_signed())?;
        }
        asked.sort_unstable();
        asked.dedup();
        Ok((settings::get_count(conn, Key::Subscribed)?, asked))
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
        let (number, asked, next_end) = db::immediate(&self.conn, || {
            self.end_subscriptions(now)?;
            let (number, asked) = self.asked()?;
            Ok::<_, ReplicaError>((number, asked, subscriptions::next_end(&self.conn)?))
        })?;
        let session = &mut self.session.subscriptions;
        session.known = Some(number);
        session.next_end = next_end;
        if !session.are_known_there || session.told == asked {
            return Ok(());
        }
        let is_in = |list: &[Asked], one: &Asked| list.binary_search(one).is_ok();
        let add = asked.iter().filter(|one| !is_in(&session.told, one));
        let drop = session.told.iter().filter(|one| !is_in(&asked, one));
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
        return Err(ReplicaError::BadKey {
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
