//! A replica's side of a session, as bare as can be.

use syncline_core::{
    BucketId, Change, Changeset, ChangesetId, Cursor, DeviceId, Hlc, Lease, Version,
    wire::{
        Checkpoint, ClientMessage, Credit, Grants, Hello, LiveBucket, Load, LoadPosition, PROTOCOL,
        Page, Push, PushResult, Refusal, RowBody, ServerMessage, Verdict, Welcome, decode_server,
        encode_changeset, encode_client,
    },
};
use syncline_server::{Session, SessionId};
use syncline_store::testkit::Draw;

use crate::bed::Bed;

/// Credit that is never used up.
pub const PLENTY: u64 = 1 << 40;

/// A device, connected or not.
pub struct Client {
    user: String,
    pub hello: Hello,
    pub id: SessionId,
    pub session: Session,
    /// What was heard and not looked at, in order, with the length of its frame.
    pub heard: Vec<(ServerMessage, usize)>,
    /// Newest first.
    pub cursors: Vec<Cursor>,
    next_number: u64,
    ids: u8,
}

impl Client {
    /// A device that has not said anything.
    pub fn new(bed: &mut Bed, name: &str) -> Self {
        let user = name.split('/').next().unwrap_or(name).to_owned();
        let mut device = [0; 16];
        device[..name.len()].copy_from_slice(name.as_bytes());
        let (id, session) = bed.session(&user);
        let hello = Hello {
            protocol: PROTOCOL,
            device: DeviceId(device),
            lease: Lease::default(),
            next_lease: Lease([1; 16]),
            device_name: name.to_owned(),
            platform: "test".to_owned(),
            server: DeviceId::default(),
            schema_hash: 0,
            cursors: Vec::new(),
            tables: None,
            buckets_count: 0,
            buckets_sum: 0,
            loading: Vec::new(),
            credit: PLENTY,
            now: bed.world.now,
            renamed: false,
            register_anew: false,
            subscriptions: None,
            subscribed: 0,
            loads_again: false,
        };
        Self {
            user,
            hello,
            id,
            session,
            heard: Vec::new(),
            cursors: Vec::new(),
            next_number: 1,
            ids: 0,
        }
    }

    /// A device that has said Hello for the first time; what it heard is there to be looked at.
    pub fn connected(bed: &mut Bed, name: &str) -> Self {
        let mut client = Self::new(bed, name);
        client.greet(bed);
        client
    }

    /// A device that holds everything it may see; nothing is left to be looked at.
    pub fn synced(bed: &mut Bed, name: &str) -> Self {
        let mut client = Self::connected(bed, name);
        client.heard.clear();
        client
    }

    pub fn greet(&mut self, bed: &mut Bed) {
        self.say(bed, &ClientMessage::Hello(self.hello.clone()));
    }

    /// Connects again with the newest cursors, and says Hello.
    pub fn reconnect(&mut self, bed: &mut Bed) {
        self.prepare_reconnect(bed);
        self.greet(bed);
    }

    /// A new connection, before Hello.
    pub fn prepare_reconnect(&mut self, bed: &mut Bed) {
        let mut next = self.hello.next_lease;
        next.0[0] += 1;
        self.hello.lease = std::mem::replace(&mut self.hello.next_lease, next);
        self.hello.cursors.clone_from(&self.cursors);
        self.hello.schema_hash = bed.context.info_hash;
        if let Some(sight) = self.session.sight() {
            (self.hello.buckets_count, self.hello.buckets_sum) = sight.summary();
        }
        (self.id, self.session) = bed.session(&self.user);
        self.heard.clear();
    }

    pub fn say(&mut self, bed: &mut Bed, message: &ClientMessage) {
        self.say_bytes(bed, &encode_client(message));
    }

    pub fn say_bytes(&mut self, bed: &mut Bed, frame: &[u8]) {
        self.session.receive(frame, bed.world.now);
        self.listen(bed);
    }

    pub fn credit(&mut self, bed: &mut Bed, bytes: u64) {
        self.say(
            bed,
            &ClientMessage::Credit(Credit {
                bytes,
                checkpoint: None,
            }),
        );
    }

    pub fn load(&mut self, bed: &mut Bed, positions: Vec<LoadPosition>) {
        self.say(bed, &ClientMessage::Load(Load { positions }));
    }

    /// Takes everything the session has to say.
    pub fn listen(&mut self, bed: &mut Bed) {
        loop {
            bed.serve(self.id, &mut self.session);
            let mut silent = true;
            while let Some(frame) = self.session.poll_frame() {
                silent = false;
                let message = decode_server(&frame).expect("the server speaks the protocol");
                if let ServerMessage::Checkpoint(checkpoint) = &message {
                    self.cursors.insert(0, checkpoint.cursor);
                }
                self.heard.push((message, frame.len()));
            }
            if silent {
                return;
            }
        }
    }

    /// The next changeset of this device.
    pub fn changeset(&mut self, bed: &Bed, changes: Vec<Change>) -> Changeset {
        self.ids += 1;
        let mut id = self.hello.device.0;
        id[15] = self.ids;
        let number = self.next_number;
        self.next_number += 1;
        Changeset {
            id: ChangesetId(id),
            number,
            depends: Vec::new(),
            hlc: Hlc::at(bed.world.now),
            changes,
            require_unchanged: false,
            may_be_applied_already: false,
            after: None,
            piece: None,
        }
    }

    pub fn draw(&mut self, bed: &Bed, changes: impl FnOnce(Draw<'_>) -> Draw<'_>) -> Changeset {
        let changes = changes(bed.world.draw()).done();
        self.changeset(bed, changes)
    }

    /// Pushes a changeset whole.
    pub fn push(&mut self, bed: &mut Bed, changeset: &Changeset) {
        self.say(bed, &push_of(changeset));
    }

    /// Pushes and is accepted at this version.
    pub fn write(&mut self, bed: &mut Bed, changes: impl FnOnce(Draw<'_>) -> Draw<'_>) -> Version {
        let changeset = self.draw(bed, changes);
        bed.world.now = bed.world.now.plus_millis(1);
        self.push(bed, &changeset);
        let results = self.results();
        match &results.last().expect("there is an answer").verdict {
            Verdict::Accepted(version) => *version,
            Verdict::Refused(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    pub fn messages(&self) -> impl Iterator<Item = &ServerMessage> {
        self.heard.iter().map(|(message, _)| message)
    }

    pub fn welcome(&self) -> &Welcome {
        let welcome = self.messages().find_map(|message| match message {
            ServerMessage::Welcome(welcome) => Some(welcome),
            _ => None,
        });
        welcome.expect("the session was welcomed")
    }

    pub fn grants(&self) -> Vec<&Grants> {
        let grants = self.messages().filter_map(|message| match message {
            ServerMessage::Grants(grants) => Some(grants),
            _ => None,
        });
        grants.collect()
    }

    pub fn pages(&self) -> Vec<&Page> {
        let pages = self.messages().filter_map(|message| match message {
            ServerMessage::Page(page) => Some(page),
            _ => None,
        });
        pages.collect()
    }

    pub fn checkpoints(&self) -> Vec<&Checkpoint> {
        let checkpoints = self.messages().filter_map(|message| match message {
            ServerMessage::Checkpoint(checkpoint) => Some(checkpoint),
            _ => None,
        });
        checkpoints.collect()
    }

    pub fn results(&self) -> Vec<&PushResult> {
        let results = self.messages().filter_map(|message| match message {
            ServerMessage::PushResult(result) => Some(result),
            _ => None,
        });
        results.collect()
    }

    /// The refusal that ended the session.
    pub fn refusal(&self) -> &Refusal {
        assert!(self.session.is_closed(), "the session goes on");
        match self.messages().last() {
            Some(ServerMessage::Refusal(refusal)) => refusal,
            other => panic!("no refusal at the end, but {other:?}"),
        }
    }

    /// The rows in log records, with the buckets each names.
    pub fn records(&self) -> Vec<(RowBody, Vec<BucketId>)> {
        let mut found = Vec::new();
        for message in self.messages() {
            let ServerMessage::Changes(changes) = message else {
                continue;
            };
            for record in &changes.records {
                let (body, _) = RowBody::decode(&record.body).expect("a body");
                let bucket = |at: &u32| changes.buckets[usize::try_from(*at).expect("small")];
                found.push((body, record.buckets.iter().map(bucket).collect()));
            }
        }
        found
    }

    /// The rows in pages.
    pub fn page_rows(&self) -> Vec<RowBody> {
        let parts = self.pages().into_iter().flat_map(|page| &page.parts);
        parts
            .flat_map(|part| RowBody::decode_all(&part.rows))
            .map(|body| body.expect("a body"))
            .collect()
    }

    /// Everything that turned live, in order.
    pub fn live(&self) -> Vec<LiveBucket> {
        let live = self
            .checkpoints()
            .into_iter()
            .flat_map(|c| c.live.iter().copied());
        live.collect()
    }

    /// What was heard, one word for each message.
    pub fn words(&self) -> Vec<&'static str> {
        let word = |message: &ServerMessage| match message {
            ServerMessage::Welcome(_) => "Welcome",
            ServerMessage::PushResult(_) => "PushResult",
            ServerMessage::Grants(_) => "Grants",
            ServerMessage::Page(_) => "Page",
            ServerMessage::Changes(_) => "Changes",
            ServerMessage::Checkpoint(_) => "Checkpoint",
            ServerMessage::Refusal(_) => "Refusal",
            ServerMessage::Pong(_) => "Pong",
            ServerMessage::Unknown(_) => "Unknown",
        };
        self.messages().map(word).collect()
    }
}

pub fn push_of(changeset: &Changeset) -> ClientMessage {
    ClientMessage::Push(Push {
        id: changeset.id,
        body: encode_changeset(changeset),
        parts: 0,
    })
}

/// The code of a refused changeset.
pub fn code_of(result: &PushResult) -> &str {
    match &result.verdict {
        Verdict::Refused(refusal) => &refusal.code,
        Verdict::Accepted(version) => panic!("accepted at {version:?}"),
    }
}

pub fn accepted(result: &PushResult) -> Version {
    match &result.verdict {
        Verdict::Accepted(version) => *version,
        Verdict::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}
