//! One connection's state machine on the server (docs/spec/session.md).
//!
//! A driver owns the socket, the storage and the clock. It hands over frames with
//! [`Session::receive`], does what [`Session::poll_action`] asks and answers it, sends what
//! [`Session::poll_frame`] gives, and calls [`Session::pump`] when the session was woken, when
//! credit arrived or when [`Session::poll_timeout`] has passed, as long as it returns `true`.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use syncline_core::{
    Changeset, ChangesetId, Cursor, DeviceId, RowKey, TableNumber, Tag, Timestamp, UserId, Version,
    rules::Identity,
    wire::{
        ClientMessage, Grants, Hello, LoadPosition, PROTOCOL, Ping, PushResult, Refusal,
        ReloadReason, Resume, SchemaInfo, ServerMessage, Verdict, Welcome, code, decode_changeset,
        decode_client, encode_server,
    },
};
use syncline_store::{Context, Head, PageWant, Reader, StorageError, check_cursor, sign_cursor};

use crate::{
    recent::{After, Recent},
    sight::Sight,
    stream::Stream,
    upload::Upload,
};

/// Most changesets a session may have unanswered.
pub const PUSHES_MAX: u32 = 256;
/// A connection that is silent for this long is dropped.
pub const SILENCE_MAX_MILLIS: u64 = 60_000;
/// Entries taken from the window, or bytes read from the log, in one go.
const ENTRIES_AT_ONCE: usize = 64;
const LOG_BYTES_AT_ONCE: usize = 512 * 1024;
/// A pump stops when this much waits to be sent, so that memory is bounded and pushes are heard.
const OUT_BYTES_MAX: usize = 512 * 1024;

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
    pub changeset: Changeset,
    /// The last version this device can have been sent.
    pub sent: Version,
    /// Numbers refused on this connection.
    pub refused: Arc<BTreeSet<u64>>,
}

/// A device as the storage opened it.
#[derive(Debug, Clone)]
pub struct Opened {
    pub device: DeviceId,
    /// The device whose file this was before it was copied or restored.
    pub forked_from: Option<DeviceId>,
    pub next_number: u64,
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

/// A session of one replica.
#[derive(Debug)]
pub struct Session {
    context: Arc<SessionContext>,
    identity: Arc<Identity>,
    user: UserId,
    phase: Phase,
    device: DeviceId,
    out: VecDeque<Vec<u8>>,
    out_bytes: usize,
    actions: VecDeque<Action>,
    credit: i64,
    upload: Upload,
    /// Ids of changesets given to the driver and not answered, oldest first.
    unanswered: VecDeque<(ChangesetId, u64)>,
    refused: Arc<BTreeSet<u64>>,
    /// The last version this device can have been sent.
    sent: Version,
    last_heard: Timestamp,
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
            out: VecDeque::new(),
            out_bytes: 0,
            actions: VecDeque::new(),
            credit: 0,
            upload: Upload::default(),
            unanswered: VecDeque::new(),
            refused: Arc::default(),
            sent: Version::ZERO,
            last_heard: now,
        }
    }

    /// Takes one frame from the replica.
    pub fn receive(&mut self, frame: &[u8], now: Timestamp) {
        self.last_heard = now;
        match decode_client(frame) {
            Ok(message) => self.message(message, now),
            Err(error) => self.fail(code::MALFORMED, error.to_string(), false),
        }
    }

    fn message(&mut self, message: ClientMessage, now: Timestamp) {
        match message {
            ClientMessage::Hello(hello) => self.hello(hello),
            ClientMessage::Push(push) => match self.upload.push(push) {
                Ok(Some((id, body))) => self.push(id, &body),
                Ok(None) => {}
                Err(error) => self.fail(code::MALFORMED, error.to_string(), false),
            },
            ClientMessage::PushPart(part) => match self.upload.part(&part) {
                Ok(Some((id, body))) => self.push(id, &body),
                Ok(None) => {}
                Err(error) => self.fail(code::MALFORMED, error.to_string(), false),
            },
            ClientMessage::Credit(credit) => {
                let more = i64::try_from(credit.bytes).unwrap_or(i64::MAX);
                self.credit = self.credit.saturating_add(more);
            }
            ClientMessage::Load(load) => self.load(load.positions),
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

    fn hello(&mut self, hello: Hello) {
        if !matches!(self.phase, Phase::AwaitHello) {
            return self.fail(code::MALFORMED, "a second Hello on one connection", false);
        }
        if hello.protocol != PROTOCOL {
            let sentence = format!(
                "this server speaks protocol {PROTOCOL}, the client {}: upgrade the older of the two",
                hello.protocol
            );
            return self.fail(code::PROTOCOL, sentence, false);
        }
        if hello.server != DeviceId::default() && hello.server != self.context.server {
            let sentence = "this file belongs to another server; detach it first, or connect to the \
                            server it was attached to";
            return self.fail(code::WRONG_SERVER, sentence, false);
        }
        self.credit = i64::try_from(hello.credit).unwrap_or(i64::MAX);
        self.actions
            .push_back(Action::Open(Box::new(hello.clone())));
        self.phase = Phase::Opening(Box::new(hello));
    }

    /// Answers [`Action::Open`].
    pub fn opened(&mut self, result: Result<Opened, Refusal>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let Phase::Opening(hello) = phase else {
            self.phase = phase;
            return;
        };
        match result {
            Ok(opened) => {
                self.device = opened.device;
                self.phase = Phase::Welcoming(hello, opened);
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn push(&mut self, id: ChangesetId, body: &[u8]) {
        if !matches!(self.phase, Phase::AwaitLoad(_) | Phase::Streaming(_)) {
            return self.fail(code::MALFORMED, "a push before the welcome", false);
        }
        if self.unanswered.len() >= PUSHES_MAX as usize {
            let sentence = format!("more than {PUSHES_MAX} pushes without an answer");
            return self.fail(code::MALFORMED, sentence, false);
        }
        let changeset = match decode_changeset(body) {
            Ok(changeset) if changeset.id == id => changeset,
            Ok(_) => return self.fail(code::MALFORMED, "a push names another changeset", false),
            Err(error) => return self.fail(code::MALFORMED, error.to_string(), false),
        };
        self.unanswered.push_back((id, changeset.number));
        let request = CommitRequest {
            changeset,
            sent: self.sent,
            refused: Arc::clone(&self.refused),
        };
        self.actions.push_back(Action::Commit(Box::new(request)));
    }

    /// Answers [`Action::Commit`]; answers come in the order of the actions.
    pub fn committed(&mut self, result: &PushResult) {
        let Some((id, number)) = self.unanswered.pop_front() else {
            return;
        };
        debug_assert_eq!(id, result.id, "answers come in order");
        match &result.verdict {
            Verdict::Accepted(version) => {
                if self.refused.contains(&number) {
                    Arc::make_mut(&mut self.refused).remove(&number);
                }
                if let Some(stream) = self.stream_mut() {
                    stream.owe(*version);
                }
            }
            Verdict::Refused(refusal) if refusal.retry => {}
            Verdict::Refused(_) => {
                Arc::make_mut(&mut self.refused).insert(number);
            }
        }
        self.send(&ServerMessage::PushResult(result.clone()));
    }

    /// Answers [`Action::Renew`]: the identity the new token proves.
    pub fn renewed(&mut self, result: Result<Arc<Identity>, Refusal>) {
        match result {
            Ok(identity)
                if identity.user == self.identity.user
                    && identity.claims == self.identity.claims => {}
            // Another user, or other claims that rules may look at: start over.
            Ok(_) => self.fail(
                code::UNAUTHORIZED,
                "the token is another identity's: reconnect",
                true,
            ),
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn load(&mut self, positions: Vec<LoadPosition>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let mut stream = match phase {
            Phase::AwaitLoad(stream) | Phase::Streaming(stream) => stream,
            Phase::AwaitHello | Phase::Opening(_) | Phase::Welcoming(..) | Phase::Closed => {
                return self.fail(code::MALFORMED, "Load before the welcome", false);
            }
        };
        let parts = resolve(&self.context, &stream.sight, positions);
        match parts {
            Ok(parts) => {
                for (part, after) in parts {
                    stream.load(part, after);
                }
                self.phase = Phase::Streaming(stream);
            }
            Err(sentence) => self.fail(code::MALFORMED, sentence, false),
        }
    }

    /// Sends what is to be sent, as far as credit and the bound on unsent bytes go. Returns
    /// whether there is more to do at once; call it again when the frames have left.
    ///
    /// # Errors
    /// [`StorageError`] of the reader: the session can be pumped again later.
    pub async fn pump<R: Reader>(
        &mut self,
        reader: &mut R,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        if let Phase::Welcoming(..) = self.phase {
            self.welcome(reader, now).await?;
        }
        let Phase::Streaming(_) = self.phase else {
            return Ok(false);
        };
        loop {
            if self.credit <= 0 {
                return Ok(false);
            }
            if self.out_bytes >= OUT_BYTES_MAX {
                return Ok(true);
            }
            let caught_up = self.follow_log(reader, now).await?;
            if !caught_up {
                continue;
            }
            let Some(stream) = self.stream_mut() else {
                return Ok(false);
            };
            if stream.has_pages_to_read() {
                self.send_page(reader).await?;
                continue;
            }
            if stream.is_checkpoint_wanted(now) {
                self.send_checkpoint(true, now);
            }
            return Ok(false);
        }
    }

    /// Whether the next [`Session::pump`] may read the storage rather than only memory.
    #[must_use]
    pub fn needs_storage(&self) -> bool {
        match &self.phase {
            Phase::Welcoming(..) => true,
            Phase::Streaming(stream) => {
                stream.has_pages_to_read()
                    || matches!(
                        self.context.recent.after(stream.position(), 1),
                        After::TooOld
                    )
            }
            Phase::AwaitHello | Phase::Opening(_) | Phase::AwaitLoad(_) | Phase::Closed => false,
        }
    }

    /// Handles log entries; `true` when none is left.
    async fn follow_log<R: Reader>(
        &mut self,
        reader: &mut R,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let Some(stream) = self.stream_mut() else {
            return Ok(true);
        };
        let entries = if let Some(unfinished) = stream.unfinished() {
            vec![unfinished]
        } else {
            let position = stream.position();
            match self.context.recent.after(position, ENTRIES_AT_ONCE) {
                After::UpToDate => return Ok(true),
                After::Entries(entries) => entries,
                After::TooOld => reader.log_after(position, LOG_BYTES_AT_ONCE).await?,
            }
        };
        if entries.is_empty() {
            return Ok(true);
        }
        for entry in entries {
            let context = Arc::clone(&self.context);
            let Some(stream) = self.stream_mut() else {
                return Ok(true);
            };
            let before = stream.sight.generation();
            let mut frames = Vec::new();
            let finished = stream.entry(
                &entry,
                |bucket| context.plan.rules().tables_of(bucket),
                &mut frames,
            );
            let due = finished && stream.is_checkpoint_due();
            let sight_changed = before != stream.sight.generation();
            let position = stream.position();
            self.sent = self.sent.max(position);
            self.send_all(frames);
            if sight_changed {
                self.actions.push_back(Action::Watch);
            }
            if due {
                self.send_checkpoint(false, now);
            }
            if !finished || self.credit <= 0 || self.out_bytes >= OUT_BYTES_MAX {
                return Ok(false);
            }
        }
        Ok(false)
    }

    async fn send_page<R: Reader>(&mut self, reader: &mut R) -> Result<(), StorageError> {
        let Some(stream) = self.stream_mut() else {
            return Ok(());
        };
        let wants: Vec<PageWant> = stream.page_wants();
        let read = reader.pages(&wants, crate::stream::PAGE_BYTES).await?;
        let Some(stream) = self.stream_mut() else {
            return Ok(());
        };
        let version = read.version;
        let mut frames = Vec::new();
        stream.page(read, &mut frames);
        self.sent = self.sent.max(version);
        self.send_all(frames);
        Ok(())
    }

    fn send_checkpoint(&mut self, caught_up: bool, now: Timestamp) {
        let context = Arc::clone(&self.context);
        let (user, device) = (self.user.clone(), self.device);
        let Some(stream) = self.stream_mut() else {
            return;
        };
        let cursor = sign_cursor(
            &context.secret,
            &user,
            device,
            stream.position(),
            stream.tag(),
        );
        let mut frames = Vec::new();
        stream.checkpoint(cursor, caught_up, now, &mut frames);
        self.send_all(frames);
    }

    /// Reads grants, decides how the stream starts and welcomes (SE4–SE6).
    async fn welcome<R: Reader>(
        &mut self,
        reader: &mut R,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let Phase::Welcoming(hello, opened) = &self.phase else {
            return Ok(());
        };
        let (hello, opened) = (hello.clone(), opened.clone());
        let granted = self.context.plan.rules().reader(&self.identity);
        let (head, grants) = reader.grants(&granted.grantees).await?;
        let signer = opened.forked_from.unwrap_or(opened.device);
        let resume = self.resume(reader, &hello, signer, head).await?;
        let sight = Sight::new(granted, &grants, head.version);
        self.sent = head.version;
        let schema =
            (hello.schema_hash != self.context.info_hash).then(|| self.context.info.clone());
        let welcome = Welcome {
            protocol: PROTOCOL,
            server: self.context.server,
            device: opened.device,
            lease: hello.next_lease,
            user: self.user.0.clone(),
            now,
            schema,
            resume: resume.clone(),
            next_number: opened.next_number,
            pushes_max: PUSHES_MAX,
            horizon: head.horizon,
        };
        self.send(&ServerMessage::Welcome(Box::new(welcome)));
        let tables = hello
            .tables
            .as_ref()
            .map(|tables| tables.iter().copied().collect());
        match resume {
            Resume::Reload { .. } => {
                let stream = Stream::new(sight, tables, (head.version, head.tag), now);
                self.start_reload(stream, now);
            }
            Resume::Continue => {
                let cursor = hello.cursors.first().copied().unwrap_or_default();
                let anew: Vec<_> = grants
                    .iter()
                    .filter(|(_, since)| *since > cursor.version)
                    .map(|(grant, _)| grant.bucket)
                    .collect();
                let known = (hello.buckets_count, hello.buckets_sum) == sight.summary();
                let stream = Stream::new(sight, tables, (cursor.version, cursor.tag), now);
                if known && anew.is_empty() {
                    self.start_continue(stream, hello.loading);
                } else {
                    self.send_full_grants(&stream.sight, anew);
                    self.phase = Phase::AwaitLoad(Box::new(stream));
                }
            }
        }
        self.actions.push_back(Action::Watch);
        Ok(())
    }

    fn start_reload(&mut self, mut stream: Stream, now: Timestamp) {
        self.send_full_grants(&stream.sight, Vec::new());
        let buckets: Vec<_> = stream.sight.buckets().collect();
        for bucket in buckets {
            for table in self.context.plan.rules().tables_of(bucket) {
                stream.load((bucket, *table), None);
            }
        }
        self.phase = Phase::Streaming(Box::new(stream));
        self.send_checkpoint(false, now);
    }

    fn start_continue(&mut self, mut stream: Stream, loading: Vec<LoadPosition>) {
        match resolve(&self.context, &stream.sight, loading) {
            Ok(parts) => {
                for (part, after) in parts {
                    stream.load(part, after);
                }
                self.phase = Phase::Streaming(Box::new(stream));
            }
            Err(sentence) => self.fail(code::MALFORMED, sentence, false),
        }
    }

    fn send_full_grants(&mut self, sight: &Sight, reload: Vec<syncline_core::BucketId>) {
        let grants = Grants {
            full: true,
            add: sight.buckets().collect(),
            drop: Vec::new(),
            reload,
        };
        self.send_all(vec![encode_server(&ServerMessage::Grants(grants))]);
    }

    /// Spec SE4.
    async fn resume<R: Reader>(
        &self,
        reader: &mut R,
        hello: &Hello,
        signer: DeviceId,
        head: Head,
    ) -> Result<Resume, StorageError> {
        let Some(newest) = hello.cursors.first() else {
            return Ok(Resume::Reload {
                reason: ReloadReason::New,
                common: None,
            });
        };
        let valid =
            |cursor: &Cursor| check_cursor(&self.context.secret, &self.user, signer, cursor);
        if valid(newest) && newest.version < head.horizon {
            return Ok(Resume::Reload {
                reason: ReloadReason::Horizon,
                common: None,
            });
        }
        if valid(newest) && in_log(reader, newest).await? {
            if newest.version < head.rules_since {
                return Ok(Resume::Reload {
                    reason: ReloadReason::Rules,
                    common: Some(*newest),
                });
            }
            return Ok(Resume::Continue);
        }
        let mut common = None;
        for cursor in hello.cursors.iter().filter(|cursor| valid(cursor)) {
            if in_log(reader, cursor).await? {
                common = Some(*cursor);
                break;
            }
        }
        Ok(Resume::Reload {
            reason: ReloadReason::Diverged,
            common,
        })
    }

    /// The next frame to send; fewer waiting frames make room for more.
    pub fn poll_frame(&mut self) -> Option<Vec<u8>> {
        let frame = self.out.pop_front()?;
        self.out_bytes -= frame.len();
        Some(frame)
    }

    /// The next thing the driver has to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Session::timeout`] and [`Session::pump`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Timestamp {
        let silence = self.last_heard.plus_millis(SILENCE_MAX_MILLIS);
        match &self.phase {
            Phase::Streaming(stream) if self.credit > 0 => silence.min(stream.next_checkpoint()),
            Phase::Streaming(_)
            | Phase::AwaitHello
            | Phase::Opening(_)
            | Phase::Welcoming(..)
            | Phase::AwaitLoad(_)
            | Phase::Closed => silence,
        }
    }

    /// Ends the session if the replica has been silent for too long.
    pub fn timeout(&mut self, now: Timestamp) {
        if now >= self.last_heard.plus_millis(SILENCE_MAX_MILLIS) {
            self.close();
        }
    }

    /// Tells the replica to come back later, and closes (SE20).
    pub fn go_away(&mut self, retry_after_ms: u64) {
        self.refuse(Refusal {
            code: code::UNAVAILABLE.into(),
            message: "the server is stopping".into(),
            retry: true,
            retry_after_ms: Some(retry_after_ms),
            change: None,
            fatal: true,
        });
    }

    /// Whether a frame waits to be sent.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        !self.out.is_empty()
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
        refusal.fatal = true;
        self.send(&ServerMessage::Refusal(refusal));
        self.close();
    }

    fn close(&mut self) {
        if !self.is_closed() {
            self.phase = Phase::Closed;
            self.actions.push_back(Action::Close);
        }
    }

    /// Sends a message that costs no credit.
    fn send(&mut self, message: &ServerMessage) {
        self.queue(encode_server(message));
    }

    /// Sends frames of the stream, which cost credit.
    fn send_all(&mut self, frames: Vec<Vec<u8>>) {
        for frame in frames {
            self.credit -= i64::try_from(frame.len()).unwrap_or(i64::MAX);
            self.queue(frame);
        }
    }

    fn queue(&mut self, frame: Vec<u8>) {
        self.out_bytes += frame.len();
        self.out.push_back(frame);
    }
}

type LoadPart = ((syncline_core::BucketId, TableNumber), Option<RowKey>);

/// Load positions as parts; a position without a bucket stands for every granted one.
fn resolve(
    context: &SessionContext,
    sight: &Sight,
    positions: Vec<LoadPosition>,
) -> Result<Vec<LoadPart>, String> {
    let mut parts = Vec::new();
    for position in positions {
        let after = match position.after {
            Some(bytes) => Some(RowKey::from_bytes(&bytes).map_err(|error| error.to_string())?),
            None => None,
        };
        match position.bucket {
            Some(bucket) => parts.push(((bucket, position.table), after)),
            None => parts.extend(
                sight
                    .buckets()
                    .filter(|bucket| {
                        context
                            .plan
                            .rules()
                            .tables_of(*bucket)
                            .contains(&position.table)
                    })
                    .map(|bucket| ((bucket, position.table), None)),
            ),
        }
    }
    Ok(parts)
}

async fn in_log<R: Reader>(reader: &mut R, cursor: &Cursor) -> Result<bool, StorageError> {
    let tag: Option<Tag> = reader.tag_at(cursor.version).await?;
    Ok(tag == Some(cursor.tag))
}
