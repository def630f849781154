//! Rows that cannot stand beside each other: the server's come first, pending changes on top of
//! them as far as they fit (spec AP6).

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::{Row, RowKey, Timestamp};

use super::{Place, Work};
use crate::{
    capture::Before,
    entropy::Entropy,
    error::ReplicaError,
    meta::{ledger, outbox::StoredChange},
    rows::{Rivals, RowError},
    seal::{self, Sealed},
    tables::SyncedTable,
};

/// A row that is not as it should be in the app's table.
#[derive(Debug)]
pub(super) struct Hidden {
    /// Nothing of it is there; else it is what the server has, without the pending changes.
    pub(super) lacks_server: bool,
    /// What the server has.
    pub(super) server: Option<Row>,
    pub(super) reason: String,
}

/// A row whose place somebody else may have to get.
#[derive(Debug)]
struct Claim {
    /// What the server has.
    server: Option<Row>,
    /// The same with the pending changes on top.
    wanted: Row,
}

impl Claim {
    fn is_the_servers(&self) -> bool {
        self.server.as_ref() == Some(&self.wanted)
    }
}

/// What was decided so far.
#[derive(Debug, Default)]
struct Room {
    claims: BTreeMap<Place, Claim>,
    /// Those that are in the table with pending changes on top.
    on_top: BTreeSet<Place>,
    hidden: BTreeMap<Place, Hidden>,
}

impl Work<'_> {
    /// Decides between the stuck rows and those in their way; says which are hidden.
    pub(super) fn make_room(
        &mut self,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<BTreeMap<Place, Hidden>, ReplicaError> {
        let mut room = Room {
            claims: self.claims(entropy, now)?,
            ..Room::default()
        };
        let (servers, mixed): (Vec<_>, Vec<_>) = room
            .claims
            .keys()
            .cloned()
            .partition(|place| room.claims[place].is_the_servers());
        for place in servers {
            self.seat_servers(&mut room, place, None)?;
        }
        for place in mixed {
            let Some(table) = self.table(place.0) else {
                continue;
            };
            match self.place(table, &place.1, &room.claims[&place].wanted)? {
                None => drop(room.on_top.insert(place)),
                reason => self.seat_servers(&mut room, place, reason)?,
            }
        }
        Ok(room.hidden)
    }

    /// The stuck rows, those in the way of what the server has of them, those in the way of what
    /// it has of these, and so on; none of them is in its table any more.
    ///
    /// A row that was here before attaching and is not sent yet gives way like any other pending
    /// change, so it becomes one now.
    fn claims(
        &mut self,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<BTreeMap<Place, Claim>, ReplicaError> {
        let mut claims = BTreeMap::new();
        let mut open: Vec<(Place, Row)> = std::mem::take(&mut self.stuck).into_iter().collect();
        while let Some((place, wanted)) = open.pop() {
            let Some(table) = self.table(place.0) else {
                continue;
            };
            let server = match self.shadow(table, &place.1)? {
                Some(shadow) => shadow.image,
                None => Some(wanted.clone()),
            };
            if let Some(server) = &server {
                for key in self.in_the_way(table, server)? {
                    let rival = (place.0, key);
                    if let Some(row) = self.give_way(table, &rival, entropy, now)? {
                        open.push((rival, row));
                    }
                }
            }
            claims.insert(place, Claim { server, wanted });
        }
        Ok(claims)
    }

    /// The keys of the rows that are in the place of this one.
    fn in_the_way(&mut self, table: &SyncedTable, row: &Row) -> Result<Vec<RowKey>, ReplicaError> {
        if !self.rivals.contains_key(&table.number()) {
            let rivals = Rivals::of(self.conn, &table.table)?;
            self.rivals.insert(table.number(), rivals);
        }
        match &self.rivals[&table.number()] {
            Some(rivals) => Ok(rivals.find(self.conn, &table.sql, row)?),
            None => Ok(Vec::new()),
        }
    }

    /// Writes a row into its table; why it does not fit there, if it does not.
    pub(super) fn place(
        &mut self,
        table: &SyncedTable,
        key: &RowKey,
        row: &Row,
    ) -> Result<Option<String>, ReplicaError> {
        match self.put_in(table, row)? {
            Ok(()) => self.put_own(table, key).map(|()| None),
            Err(error) => Ok(Some(chain(&error))),
        }
    }

    /// Takes a row out of its table if it may be another one than the server's; returns it.
    fn give_way(
        &mut self,
        table: &SyncedTable,
        place: &Place,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<Option<Row>, ReplicaError> {
        let key = &place.1;
        let Some(row) = self.visible(table, key)? else {
            return Ok(None);
        };
        if self.shadow(table, key)?.is_none() {
            if ledger::version_of(self.conn, place.0, key)?.is_some() {
                return Ok(None);
            }
            let change = seal::difference(self, table, key, Before::Absent, Some(&row))?;
            let sealed = Sealed {
                changes: change
                    .map(|change| StoredChange {
                        pos: 0,
                        change,
                        at: now,
                    })
                    .into_iter()
                    .collect(),
                // Alone: nothing else is to be refused with it.
                marked: true,
                ..Sealed::default()
            };
            seal::store(self, sealed, entropy, now)?;
        }
        self.keep_own(table, key, key)?;
        self.take_out(table, key)?;
        Ok(Some(row))
    }

    /// Puts what the server has of a row into its table; whoever stands there with a pending
    /// change on top has to go, and so on. `reason`: why the row is hidden, if it is.
    fn seat_servers(
        &mut self,
        room: &mut Room,
        place: Place,
        reason: Option<String>,
    ) -> Result<(), ReplicaError> {
        let mut open = vec![(place, reason)];
        while let Some((place, reason)) = open.pop() {
            let Some(table) = self.table(place.0) else {
                continue;
            };
            let server = room.claims[&place].server.clone();
            let mut reason = reason;
            let mut lacks_server = false;
            if let Some(server) = &server
                && let Some(error) = self.place(table, &place.1, server)?
            {
                for key in self.in_the_way(table, server)? {
                    let rival = (place.0, key);
                    if room.on_top.remove(&rival) {
                        self.keep_own(table, &rival.1, &rival.1)?;
                        self.take_out(table, &rival.1)?;
                        open.push((rival, Some(error.clone())));
                    }
                }
                if let Some(error) = self.place(table, &place.1, server)? {
                    lacks_server = true;
                    reason = Some(error);
                }
            }
            if let Some(reason) = reason {
                let hidden = Hidden {
                    lacks_server,
                    server,
                    reason,
                };
                room.hidden.insert(place, hidden);
            }
        }
        Ok(())
    }
}

/// The error with its causes.
fn chain(error: &RowError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
