//! Asking for rows of tables that sync on demand.

use std::time::Duration;

use syncline_core::Value;
use syncline_replica::{Subscription, Topic, Wanted};

use crate::{manager::SyncManager, sync_error::Error, system};

/// How long rows stay that nobody subscribes to any more, where nothing else is said.
pub(crate) const KEEP_FOR: Duration = Duration::from_secs(300);

/// Tables with `sync = "on_demand"`: their rows, and those of tables that inherit from them, are on
/// this device only while it subscribes to what they hang below.
///
/// A subscription belongs to the file, not to a value in the program: it is there after a restart,
/// and offline. So nothing unsubscribes when it is dropped: a process that ends would take its rows
/// along, and of two screens the first one closed those of the other.
///
/// ```no_run
/// # async fn example(sync: syncline::SyncManager, project: syncline::Value) -> Result<(), syncline::Error> {
/// sync.subscribe("projects", vec![project.clone()]).await?;    // its tasks come
/// sync.unsubscribe("projects", vec![project]).await?;          // and go, five minutes later
/// # Ok(()) }
/// ```
impl SyncManager {
    /// Has what is on demand below the row of `table` with this key sent from now on. Kept in the
    /// file, across restarts, until [`SyncManager::unsubscribe`]. Whether it was not subscribed to.
    ///
    /// The rows come with the next sync, at once where a connection is open;
    /// [`crate::Event::Subscribed`] says when all are here. Nothing tells whether there is such a
    /// row or whether this user may see it: should it come, or the permission, its rows arrive.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Table`], [`crate::ErrorKind::Invalid`] for values that are no key of it
    /// or for more subscriptions than a device may have, [`crate::ErrorKind::File`].
    pub async fn subscribe(&self, table: &str, key: Vec<Value>) -> Result<bool, Error> {
        self.subscribe_to(row(table, key)).await
    }

    /// As [`SyncManager::subscribe`], for the rows of `table` with this value of a column by which
    /// its read rule finds people or a parent.
    ///
    /// # Errors
    /// The same.
    pub async fn subscribe_where(
        &self,
        table: &str,
        column: &str,
        value: Value,
    ) -> Result<bool, Error> {
        let column = column.to_owned();
        let table = table.to_owned();
        let what = Wanted::Value { column, value };
        self.subscribe_to(Topic { table, what }).await
    }

    /// As [`SyncManager::subscribe`], for anything that can be subscribed to.
    ///
    /// # Errors
    /// The same.
    pub async fn subscribe_to(&self, topic: Topic) -> Result<bool, Error> {
        self.ask(move |core| {
            let table = topic.table.clone();
            let done = core.with(|replica| replica.subscribe(&topic, system::now()))?;
            done.ok_or_else(|| unattached(&table))
        })
        .await
    }

    /// Ends a subscription: its rows are removed from this device five minutes later, and once
    /// nothing waits to be sent. Subscribing again before keeps them without loading anything.
    /// Whether there was one.
    ///
    /// # Errors
    /// As [`SyncManager::subscribe`].
    pub async fn unsubscribe(&self, table: &str, key: Vec<Value>) -> Result<bool, Error> {
        self.unsubscribe_from(row(table, key), KEEP_FOR).await
    }

    /// As [`SyncManager::unsubscribe`], for anything, with another time than five minutes.
    ///
    /// # Errors
    /// The same.
    pub async fn unsubscribe_from(&self, topic: Topic, keep_for: Duration) -> Result<bool, Error> {
        let keep_for = u64::try_from(keep_for.as_millis()).unwrap_or(u64::MAX);
        self.ask(move |core| {
            let table = topic.table.clone();
            let done = core.with(|replica| replica.unsubscribe(&topic, keep_for, system::now()))?;
            done.ok_or_else(|| unattached(&table))
        })
        .await
    }

    /// What this device subscribes to, and what it keeps for a while.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`], [`crate::ErrorKind::Closed`].
    pub async fn subscriptions(&self) -> Result<Vec<Subscription>, Error> {
        let found = self.ask(|core| core.with(|replica| replica.subscriptions()));
        Ok(found.await?.unwrap_or_default())
    }
}

fn row(table: &str, key: Vec<Value>) -> Topic {
    Topic {
        table: table.to_owned(),
        what: Wanted::Row(key),
    }
}

fn unattached(table: &str) -> Error {
    Error::table(
        table,
        "the file is not attached yet: sync once before subscribing",
    )
}
