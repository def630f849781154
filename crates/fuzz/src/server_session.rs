//! The server's session: a hostile device between two people, one of whom has secrets.

mod messages;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arbitrary::{Arbitrary as _, Unstructured};
use syncline_core::{
    BucketId, Cursor, DeviceId, RowKey, UserId, Value, Version,
    rules::Identity,
    wire::{
        CURSORS_MAX, ClientMessage, Refusal, ServerMessage, code, decode_server, encode_client,
    },
};
use syncline_server::{
    Action, Session, SessionContext,
    session::{Opened, Proof},
};
use syncline_store::{
    DeviceHello, Group as _, OpenDeviceError, Storage as _, commit_group,
    memory::{MemoryReader, MemoryStorage},
    open_device,
    testkit::{Audit, World, block_on, demo_schema},
};

use self::messages::{hello, message};
use crate::context::session_context;

/// What the window on the log's end keeps: little, so that the log is read, too.
const RECENT_BYTES: usize = 64 * 1024;

/// What only Ada may read. Inputs that have it already are of no use.
const SECRET: &str = "q7#Vx2!secret-of-ada";
const STEPS_MAX: usize = 96;
const SHARED: &str = "shared";

/// A server with Ada's rows, and Eve's connection to it.
struct Bench {
    world: World<MemoryStorage>,
    context: Arc<SessionContext>,
    reader: MemoryReader,
    eve: Session,
    sessions: u8,
    lease: u8,
    number: u64,
    /// What Eve was given, to give it back changed.
    cursors: Vec<Cursor>,
    buckets: Vec<BucketId>,
    keys: Vec<Vec<u8>>,
    last_version: Version,
    /// Ada's writes since Eve lost her membership, and whether she has it.
    written: u32,
    is_member: bool,
    was_editor: bool,
    /// Texts from here on were written while Eve was no member.
    hidden_from: u32,
    /// Texts of Ada's own notes.
    private: BTreeSet<u32>,
}

impl Bench {
    fn new() -> Self {
        let storage = MemoryStorage::new();
        let reader = storage.reader();
        let mut world = World::with_schema(storage, &demo_schema());
        let secret: Value = SECRET.into();
        world
            .push("ada", |draw| {
                draw.insert("projects", "private", &[("name", secret.clone())])
                    .insert("projects", SHARED, &[("name", "for both".into())])
                    .insert("notes", Value::Integer(1), &[("body", secret.clone())])
                    .insert(
                        "tasks",
                        "t-private",
                        &[("project_id", "private".into()), ("title", secret.clone())],
                    )
                    .insert(
                        "tasks",
                        "t-shared",
                        &[("project_id", SHARED.into()), ("title", "for both".into())],
                    )
                    .insert("labels", "l", &[("name", "for all".into())])
            })
            .accepted();
        let context = session_context(&mut world, RECENT_BYTES);
        let eve = Session::new(Arc::clone(&context), Arc::new(identity("eve")), world.now);
        Self {
            world,
            context,
            reader,
            eve,
            sessions: 0,
            lease: 0,
            number: 1,
            cursors: Vec::new(),
            buckets: Vec::new(),
            keys: vec![
                key(&"t-shared".into()),
                key(&"private".into()),
                key(&Value::Integer(1)),
            ],
            last_version: Version::ZERO,
            written: 0,
            is_member: false,
            was_editor: false,
            hidden_from: 0,
            private: BTreeSet::new(),
        }
    }

    fn reconnect(&mut self) {
        self.sessions = self.sessions.wrapping_add(1);
        self.eve = Session::new(
            Arc::clone(&self.context),
            Arc::new(identity("eve")),
            self.world.now,
        );
    }

    /// What only someone with a membership may read from now on.
    fn marker(&self, number: u32) -> String {
        format!("{SECRET} {number:06}.")
    }

    /// Ada's devices write.
    fn ada(&mut self, what: u8) {
        self.written += 1;
        let marker: Value = self.marker(self.written).into();
        let number = self.written;
        let base = Version::ZERO;
        match what % 7 {
            0 => {
                let pushed = self.world.push("ada", |draw| {
                    draw.insert(
                        "tasks",
                        format!("t{number}"),
                        &[("project_id", SHARED.into()), ("title", marker)],
                    )
                });
                self.log(&pushed.outcome.entries);
            }
            1 => {
                let member = [
                    ("project_id", SHARED.into()),
                    ("user_id", "eve".into()),
                    ("role", if what > 128 { "editor" } else { "viewer" }.into()),
                ];
                let pushed = self
                    .world
                    .push("ada", |draw| draw.insert("members", "m-eve", &member));
                self.log(&pushed.outcome.entries);
                // Everything there is may be seen now.
                self.is_member = true;
                self.was_editor |= what > 128;
            }
            2 => {
                let pushed = self
                    .world
                    .push("ada", |draw| draw.delete("members", "m-eve", base));
                self.log(&pushed.outcome.entries);
                // As an editor she may have left herself another way in.
                if !self.was_editor && std::mem::take(&mut self.is_member) {
                    self.hidden_from = self.written;
                }
            }
            3 => {
                let pushed = self.world.push("ada", |draw| {
                    draw.set(
                        "tasks",
                        "t-shared",
                        Version(Version::LIMIT - 2),
                        &[("title", marker)],
                    )
                });
                self.log(&pushed.outcome.entries);
            }
            4 => {
                self.private.insert(number);
                let pushed = self.world.push("ada", |draw| {
                    draw.insert(
                        "notes",
                        Value::Integer(i64::from(number) + 10),
                        &[("body", marker)],
                    )
                });
                self.log(&pushed.outcome.entries);
            }
            5 => {
                // Between the projects: out of sight, or into it.
                let to = if what > 128 { SHARED } else { "private" };
                let pushed = self.world.push("ada", |draw| {
                    draw.set("tasks", "t-shared", base, &[("project_id", to.into())])
                });
                self.log(&pushed.outcome.entries);
            }
            _ => {
                let group = block_on(self.world.storage.begin()).expect("memory has a head");
                let head = group.head();
                block_on(group.rollback());
                block_on(self.world.storage.trim(head.version)).expect("memory is trimmed");
            }
        }
    }

    fn log(&mut self, entries: &[Arc<syncline_store::LogEntry>]) {
        self.context.recent.push(entries);
    }

    fn say(&mut self, frame: &[u8]) {
        if self.eve.is_listening() {
            self.eve.receive(frame, self.world.now);
        }
        self.listen();
    }

    /// Does what the session asks for, and looks at all that it says.
    fn listen(&mut self) {
        for _ in 0..10_000 {
            while let Some(action) = self.eve.poll_action() {
                self.act(action);
            }
            let pumped = block_on(self.eve.pump(&mut self.reader, self.world.now));
            let more = pumped.expect("memory is read");
            let mut silent = true;
            while let Some(frame) = self.eve.poll_frame() {
                silent = false;
                self.look_at(&frame);
            }
            if silent && !more {
                return;
            }
        }
        panic!("the session has no end");
    }

    fn look_at(&mut self, frame: &[u8]) {
        let message = decode_server(frame).expect("the server speaks the protocol");
        let mut bodies = Vec::new();
        match &message {
            ServerMessage::Page(page) => {
                for part in &page.parts {
                    bodies.extend_from_slice(&part.rows);
                    self.keys.extend(part.to.clone());
                }
            }
            ServerMessage::Changes(changes) => {
                for record in &changes.records {
                    bodies.extend_from_slice(&record.body);
                }
            }
            ServerMessage::Grants(grants) => self.buckets.extend(&grants.add),
            ServerMessage::Checkpoint(checkpoint) => {
                assert!(
                    checkpoint.cursor.version >= self.last_version || self.cursors.is_empty(),
                    "checkpoints do not go back"
                );
                self.cursors.insert(0, checkpoint.cursor);
                self.cursors.truncate(CURSORS_MAX);
            }
            ServerMessage::Welcome(_)
            | ServerMessage::PushResult(_)
            | ServerMessage::Refusal(_)
            | ServerMessage::Pong(_)
            | ServerMessage::Unknown(_) => {
                // Refusals, names and conflicts tell no secret either.
                bodies = format!("{message:?}").into_bytes();
            }
        }
        self.buckets.truncate(16);
        self.keys.truncate(16);
        self.no_secret(&bodies);
    }

    /// Nothing of Ada's own, and nothing of the shared project that was written since Eve was put
    /// out of it.
    fn no_secret(&self, bodies: &[u8]) {
        let secret = SECRET.as_bytes();
        let found = bodies
            .windows(secret.len())
            .enumerate()
            .filter(|(_, part)| *part == secret);
        for (at, _) in found {
            let rest = &bodies[at + secret.len()..];
            let number = rest
                .get(1..7)
                .and_then(|digits| std::str::from_utf8(digits).ok());
            let number: Option<u32> = number.and_then(|digits| digits.parse().ok());
            let is_visible = number.is_some_and(|n| {
                !self.private.contains(&n) && (self.is_member || n < self.hidden_from)
            });
            assert!(
                is_visible,
                "Eve was sent a secret: {:?}",
                String::from_utf8_lossy(bodies)
            );
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Open(hello) => {
                let facts = DeviceHello::new(&hello, self.eve.user().clone());
                self.sessions = self.sessions.wrapping_add(1);
                let mut fresh = DeviceId([0xF0; 16]);
                fresh.0[0] = self.sessions;
                let now = self.world.now;
                let opened = block_on(open_device(&mut self.world.storage, &facts, fresh, now));
                self.eve.opened(match opened {
                    Ok(opened) => {
                        self.number = opened.state.last_number + 1;
                        Ok(Opened::from(opened))
                    }
                    Err(OpenDeviceError::Refused(refusal)) => Err(*refusal),
                    Err(OpenDeviceError::Storage(error)) => panic!("{error}"),
                });
            }
            Action::Commit(request) => {
                let submission = self.eve.submission(*request);
                let now = self.world.now;
                let plan = Arc::clone(&self.context.plan);
                let group = [submission];
                let outcome = block_on(commit_group(&mut self.world.storage, &plan, &group, now));
                self.log(&outcome.entries);
                let result = &outcome.results[0];
                if let syncline_core::wire::Verdict::Refused(refusal) = &result.verdict {
                    assert_ne!(refusal.code, code::STORAGE, "{refusal:?} of {group:?}");
                }
                self.eve.committed(result);
            }
            Action::Renew(token) => {
                let renewed = match token.as_str() {
                    "a" => Ok(Proof {
                        identity: Arc::clone(self.eve.identity()),
                        expires: Some(self.world.now.plus_millis(60_000)),
                    }),
                    "b" => Ok(Proof {
                        identity: Arc::new(identity("ada")),
                        expires: None,
                    }),
                    _ => Err(refusal()),
                };
                self.eve.renewed(renewed);
            }
            Action::Watch | Action::Close => {}
        }
    }
}

fn refusal() -> Refusal {
    Refusal {
        code: code::UNAUTHORIZED.into(),
        message: "the token has expired".into(),
        retry: false,
        retry_after_ms: None,
        change: None,
        fatal: true,
    }
}

fn identity(user: &str) -> Identity {
    Identity {
        user: Some(UserId(user.to_owned())),
        claims: BTreeMap::new(),
    }
}

fn key(value: &Value) -> Vec<u8> {
    let key = RowKey::encode([value]).expect("a key has a value");
    key.as_bytes().to_vec()
}

/// A conversation: each step is a byte that says what happens, and what that needs.
pub(crate) fn server_session(bytes: &[u8]) {
    if bytes.windows(6).any(|part| part == &SECRET.as_bytes()[..6]) {
        return;
    }
    let mut bench = Bench::new();
    let mut u = Unstructured::new(bytes);
    let _ended = converse(&mut bench, &mut u);
    bench.listen();
    let audit = Audit::of(&mut bench.world, &mut bench.reader, &["ada", "eve"]);
    assert_eq!(
        audit.maintained, audit.anew,
        "what follows from rows is kept true"
    );
}

fn converse(bench: &mut Bench, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    for _ in 0..STEPS_MAX {
        if u.is_empty() {
            break;
        }
        match u8::arbitrary(u)? % 12 {
            // A frame as it is.
            0 => {
                let length = usize::from(u16::arbitrary(u)?);
                let frame = u.bytes(length.min(u.len()))?.to_vec();
                bench.say(&frame);
            }
            1 => bench.reconnect(),
            2 | 3 => bench.ada(u8::arbitrary(u)?),
            4 => {
                let millis = u64::from(u16::arbitrary(u)?);
                bench.world.now = bench.world.now.plus_millis(millis);
                bench.eve.timeout(bench.world.now);
                bench.listen();
            }
            // A message with some bytes changed.
            5 => {
                let mut frame = encode_client(&message(bench, u)?);
                let at = usize::from(u16::arbitrary(u)?) % frame.len();
                frame[at] ^= u8::arbitrary(u)?;
                bench.say(&frame);
            }
            6 => {
                let hello = hello(bench, u)?;
                bench.say(&encode_client(&ClientMessage::Hello(hello)));
            }
            _ => {
                let message = message(bench, u)?;
                bench.say(&encode_client(&message));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A viewer of the shared project, who has heard what is in it.
    fn welcomed() -> Bench {
        let mut bench = Bench::new();
        bench.ada(1);
        let hello = hello(&mut bench, &mut Unstructured::new(&[0; 64])).expect("a Hello");
        bench.say(&encode_client(&ClientMessage::Hello(hello)));
        assert!(!bench.eve.is_closed() && bench.eve.sight().is_some());
        bench
    }

    #[test]
    fn what_a_member_may_see_passes() {
        let mut bench = welcomed();
        bench.ada(3);
        bench.listen();
        bench.ada(2);
        bench.ada(3);
        bench.listen();
    }

    #[test]
    #[should_panic(expected = "Eve was sent a secret")]
    fn a_row_that_is_sent_to_who_lost_it_is_seen() {
        let mut bench = welcomed();
        // The server does not know that she lost it.
        bench.is_member = false;
        bench.hidden_from = 0;
        bench.ada(3);
        bench.listen();
    }
}
