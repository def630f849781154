//! One connection's state machine on the server (docs/spec/session.md).
//!
//! A driver owns the socket, the storage and the clock. While [`Session::is_listening`], it hands
//! over frames with [`Session::receive`], does what [`Session::poll_action`] asks and answers it,
//! sends what [`Session::poll_frame`] gives, and calls [`Session::pump`] when the session was
//! woken, when credit arrived or when [`Session::poll_timeout`] has passed, as long as it returns
//! `true`.

mod opening;
mod outgoing;
mod pushing;
mod streaming;
mod subscribing;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use syncline_core::{
    Changeset, DeviceId, Lease, Timestamp, UserId, Version,
    rules::Identity,
    wire::{
        ClientMessage, Credit, Hello, Ping, Refusal, SchemaInfo, ServerMessage, code,
        decode_client, encode_server,
    },
};
use syncline_store::{Context, DeviceOpened, Refusals};

#[cfg(feature = "net")]
pub(crate) use self::pushing::weight;
use self::{outgoing::Outgoing, pushing::Unanswered};
use crate::{
    pace::{Pace, Rates},
    recent::Recent,
    sight::Sight,
    stream::Stream,
    upload::Upload,
};

/// Most changesets a session may have unanswered.
pub const PUSHES_MAX: u32 = 256;
/// Things a driver may be asked to do and has not taken up; then the session hears nothing more.
const ACTIONS_MAX: usize = 2 * PUSHES_MAX as usize;
/// A connection that is silent for this long is dropped.
pub const SILENCE_MAX_MILLIS: u64 = 60_000;

/// What all sessions of a server share; replaced as a whole when the configuration changes.
#[derive(Debug)]
pub struct SessionContext {
    pub server: DeviceId,
    pub secret: [u8; 32],
    /// Schema and rules, as commits are planned with.
    pub plan: Arc<Context>,
    pub info: SchemaInfo,
    pub info_hash: u64,
    pub recent: Arc<Recent>,
    /// Most subscriptions of one device (spec SU5).
    pub subscriptions_max: u32,
}

/// What the driver has to do; each is answered by the method named.
#[derive(Debug)]
pub enum Action {
    /// Open the device (spec SE2), then [`Session::opened`].
    Open(Box<Hello>),
    /// Commit the changeset, then [`Session::committed`], in order.
    Commit(Box<CommitRequest>),
    /// Verify this token, then [`Session::renewed`].
    Renew(String),
    /// The sight changed: register the session in the hub anew ([`Session::sight`]).
    Watch,
    /// Send what is left and close.
    Close,
}

/// A changeset with what the planner has to know of the session.
#[derive(Debug)]
pub struct CommitRequest {
    /// The lease that the session took.
    pub lease: Lease,
    pub changeset: Changeset,
    /// Bytes that it takes in memory, about.
    pub weight: usize,
    /// The last version this device can have been sent.
    pub sent: Version,
    /// Numbers refused on this connection.
    pub refused: Arc<Refusals>,
}

/// Who somebody is, as a token proved it.
#[derive(Debug, Clone)]
pub struct Proof {
    pub identity: Arc<Identity>,
    /// When the token ends; `None` when that does not end the session.
    pub expires: Option<Timestamp>,
}

/// A device as the storage opened it.
#[derive(Debug, Clone)]
pub struct Opened {
    pub device: DeviceId,
    /// What its user's list calls it.
    pub name: String,
    /// The device whose file this was before it was copied or restored.
    pub forked_from: Option<DeviceId>,
    pub next_number: u64,
}

impl From<DeviceOpened> for Opened {
    fn from(opened: DeviceOpened) -> Self {
        Self {
            device: opened.state.id,
            name: opened.state.name,
            forked_from: opened.forked_from,
            next_number: opened.state.last_number + 1,
        }
    }
}

#[derive(Debug)]
enum Phase {
    AwaitHello,
    /// The driver opens the device.
    Opening(Box<Hello>),
    /// The next pump reads the grants and welcomes.
    Welcoming(Box<Hello>, Opened),
    /// A full Grants was sent; the replica says what it has to load.
    AwaitLoad(Box<Stream>),
    Streaming(Box<Stream>),
    Closed,
}

/// What a session keeps in memory, to be compared with its caps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Frames for the socket.
    pub ready_bytes: usize,
    /// Frames of the stream that wait for credit.
    pub held_back_bytes: usize,
    /// Changesets that were pushed and not answered, at most [`PUSHES_MAX`].
    pub unanswered: usize,
    /// Their bytes, and those of one that is arriving in parts.
    pub unanswered_bytes: usize,
    /// What the driver has not taken up.
    pub actions: usize,
}

/// A session of one replica.
#[derive(Debug)]
pub struct Session {
    context: Arc<SessionContext>,
    identity: Arc<Identity>,
    user: UserId,
    phase: Phase,
    device: DeviceId,
    lease: Lease,
    out: Outgoing,
    actions: VecDeque<Action>,
    upload: Upload,
    /// Changesets given to the driver and not answered, oldest first.
    unanswered: VecDeque<Unanswered>,
    unanswered_bytes: usize,
    /// [`Head::rules_since`] when the device was welcomed.
    rules_since: Version,
    refused: Arc<Refusals>,
    /// The last version this device can have been sent.
    sent: Version,
    /// The newest checkpoint that the replica is known to have applied.
    acknowledged: Option<Version>,
    /// The last checkpoint that was sent, and whether nothing was left to be sent then.
    checkpoint_sent: Option<(Version, bool)>,
    last_heard: Timestamp,
    /// When the token ends, unless a fresh one arrives before.
    expires: Option<Timestamp>,
    /// `None`: as fast as it likes.
    pace: Option<Pace>,
    /// Changes of subscriptions that the stream has not come to.
    asked: subscribing::Waiting,
}

impl Session {
    /// A session for a verified identity; anonymous readers have an empty user name.
    #[must_use]
    pub fn new(context: Arc<SessionContext>, identity: Arc<Identity>, now: Timestamp) -> Self {
        let user = identity
            .user
            .clone()
            .unwrap_or_else(|| UserId(String::new()));
        Self {
            context,
            identity,
            user,
            phase: Phase::AwaitHello,
            device: DeviceId::default(),
            lease: Lease::default(),
            out: Outgoing::default(),
            actions: VecDeque::new(),
            upload: Upload::default(),
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            rules_since: Version::ZERO,
            refused: Arc::default(),
            sent: Version::ZERO,
            acknowledged: None,
            checkpoint_sent: None,
            last_heard: now,
            expires: None,
            pace: None,
            asked: subscribing::Waiting::default(),
        }
    }

    /// The replica may talk no faster than this (spec SE25).
    #[must_use]
    pub fn paced(mut self, rates: Rates) -> Self {
        self.pace = Some(Pace::new(rates, self.last_heard));
        self
    }

    /// The session ends at `expires`, unless [`Session::renewed`] says otherwise before.
    #[must_use]
    pub fn until(mut self, expires: Option<Timestamp>) -> Self {
        self.expires = expires;
        self
    }

    /// Whether the next frame may be handed over: a replica that does not take its answers, or
    /// pushes faster than commits go, is not heard until it does.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        !self.is_closed()
            && !self.out.is_full()
            && self.unanswered_bytes < pushing::PUSH_BYTES_MAX
            && self.actions.len() < ACTIONS_MAX
    }

    /// Takes one frame from the replica.
    pub fn receive(&mut self, frame: &[u8], now: Timestamp) {
        if self.is_closed() {
            return;
        }
        self.last_heard = now;
        if let Some(pace) = &mut self.pace
            && !pace.take(frame.len(), now)
        {
            let pause = pace.pause_millis();
            return self.too_fast(pause, true);
        }
        let is_welcomed = matches!(self.phase, Phase::AwaitLoad(_) | Phase::Streaming(_));
        let pace = self.pace.as_mut().filter(|_| is_welcomed);
        if let Some(pause) = pace.and_then(|pace| pace.warning(now)) {
            self.too_fast(pause, false);
        }
        match decode_client(frame) {
            Ok(message) => self.message(message, now),
            Err(error) => self.fail(error.code(), error.to_string(), false),
        }
    }

    /// A frame arrived that is longer than the transport takes.
    pub fn too_long(&mut self) {
        self.fail(code::TOO_LARGE, "the frame is too long", false);
    }

    /// The replica is to push nothing for so long; or, where it did not keep to that, to come back
    /// after it.
    fn too_fast(&mut self, pause: u64, fatal: bool) {
        let refusal = Refusal {
            code: code::TOO_FAST.into(),
            message: "this connection sends more than it may: slow down".into(),
            retry: true,
            retry_after_ms: Some(pause),
            change: None,
            fatal,
        };
        match fatal {
            true => self.refuse(refusal),
            false => self.send(&ServerMessage::Refusal(refusal)),
        }
    }

    fn message(&mut self, message: ClientMessage, now: Timestamp) {
        if matches!(self.phase, Phase::AwaitHello)
            && !matches!(message, ClientMessage::Hello(_) | ClientMessage::Unknown(_))
        {
            return self.fail(code::MALFORMED, "the first message is Hello", false);
        }
        match message {
            ClientMessage::Hello(hello) => self.hello(hello),
            ClientMessage::Push(push) => self.push(push),
            ClientMessage::PushPart(part) => self.push_part(&part),
            ClientMessage::Credit(credit) => self.credit(credit),
            ClientMessage::Load(load) => self.load(&load.positions),
            ClientMessage::Subscribe(subscribe) => self.subscribe(subscribe),
            ClientMessage::Token(renewal) => self.actions.push_back(Action::Renew(renewal.token)),
            ClientMessage::Ping(ping) => {
                self.send(&ServerMessage::Pong(Ping {
                    sent: ping.sent,
                    now,
                }));
            }
            ClientMessage::Unknown(_) => {}
        }
    }

    fn credit(&mut self, credit: Credit) {
        self.out.add_credit(credit.bytes);
        if let (Some(applied), Some((sent, _))) = (credit.checkpoint, self.checkpoint_sent) {
            self.acknowledged = self.acknowledged.max(Some(applied.min(sent)));
        }
    }

    /// Answers [`Action::Renew`]: the identity the new token proves.
    pub fn renewed(&mut self, result: Result<Proof, Refusal>) {
        match result {
            Ok(proof)
                if proof.identity.user == self.identity.user
                    && proof.identity.claims == self.identity.claims =>
            {
                self.expires = proof.expires;
            }
            // Another user, or other claims that rules may look at: start over.
            Ok(_) => self.fail(
                code::UNAUTHORIZED,
                "the token is another identity's: reconnect",
                true,
            ),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// The next frame to send; fewer waiting frames make room for more.
    pub fn poll_frame(&mut self) -> Option<Bytes> {
        self.out.pop()
    }

    /// The next thing the driver has to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Session::timeout`] and [`Session::pump`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Timestamp {
        let silence = self.last_heard.plus_millis(SILENCE_MAX_MILLIS);
        let end = self.expires.map_or(silence, |expires| silence.min(expires));
        match &self.phase {
            // Otherwise it is sent when there is credit, or room, or with what is read.
            Phase::Streaming(stream)
                if self.out.has_credit() && !self.out.is_full() && !self.needs_storage() =>
            {
                end.min(stream.next_checkpoint())
            }
            Phase::Streaming(_)
            | Phase::AwaitHello
            | Phase::Opening(_)
            | Phase::Welcoming(..)
            | Phase::AwaitLoad(_)
            | Phase::Closed => end,
        }
    }

    /// Ends the session if the replica has been silent for too long, or its token has ended.
    pub fn timeout(&mut self, now: Timestamp) {
        if now >= self.last_heard.plus_millis(SILENCE_MAX_MILLIS) {
            self.close();
        } else if self.expires.is_some_and(|expires| now >= expires) && !self.is_closed() {
            let sentence = "the token has expired: connect again with a fresh one";
            self.fail(code::UNAUTHORIZED, sentence, true);
        }
    }

    /// Tells the replica why it has to come back later, and closes (SE20).
    pub fn go_away(&mut self, why: &str, retry_after_ms: u64) {
        self.refuse(Refusal {
            code: code::UNAVAILABLE.into(),
            message: why.into(),
            retry: true,
            retry_after_ms: Some(retry_after_ms),
            change: None,
            fatal: true,
        });
    }

    /// Tells the replica that its user took the device off the list, and closes (spec DE4).
    pub fn deregistered(&mut self) {
        self.refuse(syncline_store::device::deregistered());
    }

    /// The newest checkpoint that the replica is known to have applied; zero where everything
    /// loads again, `None` before the welcome.
    #[must_use]
    pub fn acknowledged(&self) -> Option<Version> {
        self.acknowledged
    }

    /// Whether the replica is known to have everything that there was to be sent.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        let applied = |(sent, caught_up): (Version, bool)| {
            caught_up && self.sent <= sent && self.acknowledged >= Some(sent)
        };
        matches!(self.phase, Phase::Streaming(_)) && self.checkpoint_sent.is_some_and(applied)
    }

    /// Whether a frame waits to be sent.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.out.has_frames()
    }

    /// What it keeps in memory at the moment.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            ready_bytes: self.out.ready_bytes(),
            held_back_bytes: self.out.held_back_bytes(),
            unanswered: self.unanswered.len(),
            unanswered_bytes: self.unanswered_bytes + self.arriving_bytes(),
            actions: self.actions.len(),
        }
    }

    /// The session itself, leaving a closed one: to move it to another thread and back.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let mut closed = Self::new(
            Arc::clone(&self.context),
            Arc::clone(&self.identity),
            self.last_heard,
        );
        closed.phase = Phase::Closed;
        std::mem::replace(self, closed)
    }

    /// The user as tokens name them; empty for somebody who has not signed in.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// The device, once it is open.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// Who the session belongs to.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// What the session sees, for the hub.
    #[must_use]
    pub fn sight(&self) -> Option<&Sight> {
        match &self.phase {
            Phase::AwaitLoad(stream) | Phase::Streaming(stream) => Some(&stream.sight),
            Phase::AwaitHello | Phase::Opening(_) | Phase::Welcoming(..) | Phase::Closed => None,
        }
    }

    fn stream_mut(&mut self) -> Option<&mut Stream> {
        match &mut self.phase {
            Phase::AwaitLoad(stream) | Phase::Streaming(stream) => Some(stream),
            Phase::AwaitHello | Phase::Opening(_) | Phase::Welcoming(..) | Phase::Closed => None,
        }
    }

    fn fail(&mut self, code: &str, message: impl Into<String>, retry: bool) {
        self.refuse(Refusal {
            code: code.into(),
            message: message.into(),
            retry,
            retry_after_ms: None,
            change: None,
            fatal: true,
        });
    }

    fn refuse(&mut self, mut refusal: Refusal) {
        if self.is_closed() {
            return;
        }
        refusal.fatal = true;
        self.send(&ServerMessage::Refusal(refusal));
        self.close();
    }

    fn close(&mut self) {
        if !self.is_closed() {
            self.phase = Phase::Closed;
            self.out.drop_held_back();
            self.actions.push_back(Action::Close);
        }
    }

    /// Sends a message that costs no credit.
    fn send(&mut self, message: &ServerMessage) {
        self.out.answer(encode_server(message).into());
    }
}
