//! The session state machine (docs/spec/session.md): frames and time in, frames and events out.

mod greet;
mod push;
pub(crate) mod receive;
mod timers;

use std::collections::{BTreeMap, VecDeque};

use syncline_core::{
    BucketId, ChangesetId, TableNumber, Timestamp, Version,
    wire::{
        ClientMessage, PUSH_PART_BYTES, Push, PushPart, Subscription, TokenRenewal, encode_client,
    },
};

use crate::{
    apply::Kept,
    event::Event,
    meta::{outbox::Seq, subscriptions::Stored},
};

pub(crate) use push::{Ready, number_next};
pub(crate) use timers::Reconnect;

/// Code of a session that ends because another set of tables syncs now: connect again at once.
pub const BEGIN_ANEW: &str = "begin_anew";
/// Code of a session that ends because the file turned out to be an old copy of itself: connect
/// again, as another device.
pub const OLD_COPY: &str = "old_copy";
/// Columns are encrypted, and this device was given no key.
pub const ENCRYPTION_KEY_MISSING: &str = "encryption_key_missing";
/// Columns are encrypted with another key than this device was given.
pub const ENCRYPTION_KEY_WRONG: &str = "encryption_key_wrong";
/// The server says that a column is not encrypted any more.
pub const ENCRYPTION_ENDED: &str = "encryption_ended";
/// Code of a session whose server went silent.
pub const TIMEOUT: &str = "timeout";

/// Bytes the server may have on the way.
pub(crate) const CREDIT_WINDOW: u64 = 4 * 1024 * 1024;
/// Credit is given back in steps of at least this.
const CREDIT_STEP: u64 = 512 * 1024;
/// How often the server is told which checkpoint was applied, beside giving credit back.
const TELL_CHECKPOINT_MS: u64 = 2_000;
/// What may wait for its checkpoint: the largest changeset and what is around it (spec LO8).
const CHANGES_BYTES_MAX: usize = 96 * 1024 * 1024;

/// Why the session ends: the driver closes the transport and calls
/// [`crate::Replica::disconnected`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// A [`syncline_core::wire::code`], [`BEGIN_ANEW`], [`OLD_COPY`] or [`TIMEOUT`].
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// `false`: connecting again without a change (token, server, file) is pointless.
    pub retry: bool,
}

/// What a connection keeps in memory, to be compared with its caps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Bytes that wait to be sent.
    pub queued_bytes: usize,
    /// Bytes that wait for their checkpoint.
    pub changes_bytes: usize,
    /// Changesets that were sent and not answered.
    pub in_flight: usize,
    /// Changesets that wait before they are sent again.
    pub again: usize,
    /// Events that nobody took yet, at most [`Event::PENDING_MAX`].
    pub events: usize,
}

/// What is remembered of one connection, and of the attempts to have one. All of it may be lost
/// at any moment.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) phase: Phase,
    out: VecDeque<Outgoing>,
    /// Nothing is pushed before, because the server wants it slower (spec LI4).
    held_until: Option<Timestamp>,
    /// Received and waiting for their checkpoint.
    changes: Vec<Kept>,
    changes_bytes: usize,
    /// A token that came before the server's answer to Hello.
    token: Option<String>,
    /// Sent and not answered. An answer for a changeset that was given other content meanwhile
    /// is void.
    in_flight: BTreeMap<ChangesetId, InFlight>,
    pushes_max: usize,
    /// Changesets that wait before they are sent again.
    again: BTreeMap<Seq, Timestamp>,
    /// Answers in a row that asked to try again.
    push_failures: u32,
    /// A changeset was passed over because something that it needs is not on its way yet.
    passed_over: bool,
    /// And something was pushed since.
    pushed_after: bool,
    /// The last changeset that was looked at for sending.
    pushed_to: Seq,
    /// What was sealed just now and is sent next: it need not be read and encoded again.
    pub(crate) ready: Option<Ready>,
    /// Bytes taken from the server and not given back yet.
    owed: u64,
    last_heard: Timestamp,
    pinged: Option<Timestamp>,
    /// The Welcome counts, and what is to follow it failed: its driver hands it over once more.
    is_welcome_unfinished: bool,
    /// Set while the stream of a Reload begins.
    reloads: bool,
    /// (Bucket, table)s that were loaded again because their digests differed, and how often.
    reloaded: BTreeMap<(BucketId, TableNumber), u32>,
    /// Tables named in Hello.
    tables: Option<Vec<TableNumber>>,
    hello_sent: Timestamp,
    /// The device's name in Hello.
    name_told: String,
    /// The last checkpoint that was applied in this session.
    checkpoint: Option<Version>,
    /// When the server was last told of one, and of which.
    checkpoint_told: Option<(Timestamp, Version)>,
    /// How many were applied.
    checkpoints: u32,
    pub(crate) is_live: bool,
    /// This session's last checkpoint said that the server had nothing more.
    pub(crate) caught_up: bool,
    pub(crate) closing: Option<Closing>,
    reconnect: Reconnect,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) subscriptions: Subscriptions,
}

/// What the server was told of the subscriptions on this connection.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    /// Whether it knows them.
    pub(crate) are_known_there: bool,
    /// Sorted, from the Welcome on.
    pub(crate) told: Vec<Subscription>,
    pub(crate) told_number: u64,
    /// The last change that was looked at.
    pub(crate) known: Option<u64>,
    /// When the next one ends.
    pub(crate) next_end: Option<Timestamp>,
    /// It is due, and waits for what has to be sent before.
    pub(crate) ends_later: bool,
    /// Those that the server was told to end, and by which change: they stay in the file until it
    /// has heard that, so that it is told again if this connection ends before.
    pub(crate) ended: BTreeMap<Stored, u64>,
}

impl Subscriptions {
    /// The server takes so many of what Hello asked for, and the first ones; `None`: it knows none.
    fn welcomed(&mut self, max: Option<u32>) {
        self.are_known_there = max.is_some();
        self.told.truncate(max.unwrap_or_default() as usize);
        self.told.sort_unstable();
    }

    /// What has ended up to the change `heard`.
    fn ended_by(&self, heard: u64) -> Vec<Stored> {
        let ended = self.ended.iter();
        let ended = ended.filter(|(_, number)| **number <= heard);
        ended.map(|(stored, _)| stored.clone()).collect()
    }

    fn forget_ended(&mut self, ended: &[Stored]) {
        for stored in ended {
            self.ended.remove(stored);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    #[default]
    Closed,
    /// Hello was sent.
    Greeting,
    Streaming,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InFlight {
    seq: Seq,
}

#[derive(Debug)]
enum Outgoing {
    Frame(Vec<u8>),
    /// One with a changeset, or with what announces its parts.
    Push(Vec<u8>),
    /// A large changeset, cut into frames as they are sent.
    Parts {
        id: ChangesetId,
        body: Vec<u8>,
        index: u32,
    },
}

impl Session {
    pub(crate) fn send(&mut self, message: &ClientMessage) {
        self.out.push_back(Outgoing::Frame(encode_client(message)));
    }

    fn send_push(&mut self, push: Push) {
        let frame = encode_client(&ClientMessage::Push(push));
        self.out.push_back(Outgoing::Push(frame));
    }

    /// The next frame. What pushes wait for keeps nothing else waiting.
    pub(crate) fn transmit(&mut self) -> Option<Vec<u8>> {
        let is_said = |outgoing: &Outgoing| matches!(outgoing, Outgoing::Frame(_));
        let next = match self.held_until {
            None => 0,
            Some(_) => self.out.iter().position(is_said)?,
        };
        match self.out.remove(next)? {
            Outgoing::Frame(frame) | Outgoing::Push(frame) => Some(frame),
            Outgoing::Parts { id, body, index } => {
                let start = index as usize * PUSH_PART_BYTES;
                let end = body.len().min(start + PUSH_PART_BYTES);
                let part = PushPart {
                    id,
                    index,
                    bytes: body[start..end].to_vec(),
                };
                if end < body.len() {
                    self.out.push_front(Outgoing::Parts {
                        id,
                        body,
                        index: index + 1,
                    });
                }
                Some(encode_client(&ClientMessage::PushPart(part)))
            }
        }
    }

    /// When the server is to be told which checkpoint was applied; `None` if it was.
    fn tell_checkpoint_at(&self) -> Option<Timestamp> {
        let applied = self.checkpoint?;
        match self.checkpoint_told {
            None => Some(Timestamp::default()),
            Some((_, told)) if told == applied => None,
            Some((at, _)) => Some(at.plus_millis(TELL_CHECKPOINT_MS)),
        }
    }

    pub(crate) fn renew_token(&mut self, token: String) {
        match self.phase {
            Phase::Streaming => self.send(&ClientMessage::Token(TokenRenewal { token })),
            Phase::Greeting => self.token = Some(token),
            // The next session begins with it.
            Phase::Closed => {}
        }
    }

    pub(crate) fn is_in_flight(&self, id: ChangesetId) -> bool {
        self.in_flight.contains_key(&id)
    }

    /// Bytes that wait to be sent.
    fn queued_bytes(&self) -> usize {
        let bytes = |outgoing: &Outgoing| match outgoing {
            Outgoing::Frame(frame) | Outgoing::Push(frame) => frame.len(),
            Outgoing::Parts { body, .. } => body.len(),
        };
        self.out.iter().map(bytes).sum()
    }

    /// Has the whole outbox looked at again for what can be sent.
    fn look_again(&mut self) {
        self.pushed_to = 0;
        self.passed_over = false;
        self.pushed_after = false;
    }

    /// Ends an open session, to say in the next one's Hello what has to be loaded.
    pub(crate) fn begin_anew(&mut self) {
        if self.phase != Phase::Closed {
            self.close(BEGIN_ANEW, "other tables are to be loaded now", true);
        }
    }

    /// Ends the session because of something that no sound server sends.
    pub(crate) fn fault(&mut self, code: &str, message: impl Into<String>) {
        if self.closing.is_none() {
            self.reconnect.fault(self.last_heard);
            self.close(code, message, true);
        }
    }

    /// Ends the session; the first reason counts.
    pub(crate) fn close(&mut self, code: &str, message: impl Into<String>, retry: bool) {
        if self.closing.is_none() {
            self.closing = Some(Closing {
                code: code.to_owned(),
                message: message.into(),
                retry,
            });
        }
    }

    /// Forgets the connection.
    fn reset(&mut self) {
        let reconnect = std::mem::take(&mut self.reconnect);
        let wake_at = self.wake_at;
        *self = Self {
            reconnect,
            wake_at,
            ..Self::default()
        };
    }
}

impl crate::Replica {
    /// What the connection keeps in memory at the moment.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            queued_bytes: self.session.queued_bytes(),
            changes_bytes: self.session.changes_bytes,
            in_flight: self.session.in_flight.len(),
            again: self.session.again.len(),
            events: self.events.iter().count(),
        }
    }
}

/// Events that wait for the app, bounded.
#[derive(Debug, Default)]
pub(crate) struct Events(VecDeque<Event>);

impl Events {
    pub(crate) fn extend(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            if self.0.len() >= Event::PENDING_MAX {
                self.make_room();
            }
            self.0.push_back(event);
        }
    }

    /// Those that nobody took yet.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Event> {
        self.0.iter()
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }

    /// Joins the oldest event about rows with another one of its table, or forgets the oldest
    /// progress; what happened to changesets is in the queue in any case.
    fn make_room(&mut self) {
        let oldest = self
            .0
            .iter()
            .position(|event| matches!(event, Event::RowsChanged(_)));
        let removed = self.0.remove(oldest.unwrap_or(0));
        if let Some(Event::RowsChanged(removed)) = removed {
            let later = self.0.iter_mut().find(
                |event| matches!(event, Event::RowsChanged(rows) if rows.table == removed.table),
            );
            if let Some(Event::RowsChanged(rows)) = later {
                rows.keys = None;
                rows.author = None;
            } else if let Some(last) = self.0.back_mut() {
                // No other event of this table: it takes the place of the least telling one.
                let rows = crate::event::RowsChanged {
                    keys: None,
                    ..removed
                };
                if let Event::Loading(_) = last {
                    *last = Event::RowsChanged(rows);
                } else {
                    self.0.push_back(Event::RowsChanged(rows));
                    self.0.pop_front();
                }
            }
        }
    }
}
