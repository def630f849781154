//! Where corpora begin: what real replicas and a real server say to each other, and what people
//! write.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::Connection;
use syncline_core::{
    DeviceId, Timestamp, UserId, Value,
    rules::Identity,
    wire::{ClientMessage, ServerMessage, decode_client, decode_server},
};
use syncline_replica::{AttachOptions, Replica};
use syncline_server::{Action, Session, SessionContext, net::Auth, session::Opened};
use syncline_sim::Script;
use syncline_store::{
    DeviceHello, Reader as _, commit_group,
    memory::MemoryStorage,
    open_device,
    testkit::{World, block_on, demo_schema},
};

use crate::context::session_context;

/// What the window on the log's end keeps: the whole conversation.
const RECENT_BYTES: usize = 1024 * 1024;

/// An input to begin with: target, name, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    pub target: &'static str,
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Not a frame: another connection begins.
const AGAIN: &[u8] = &[];

/// The tables of the conversation as an app makes them.
const SQL: &str = "
    CREATE TABLE projects(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, budget INTEGER, tags TEXT);
    CREATE TABLE members(id TEXT PRIMARY KEY NOT NULL, project_id TEXT NOT NULL, user_id TEXT NOT NULL, role TEXT NOT NULL);
    CREATE TABLE tasks(id TEXT PRIMARY KEY NOT NULL, project_id TEXT REFERENCES projects ON DELETE CASCADE,
      title TEXT NOT NULL DEFAULT 'untitled', done BOOLEAN, effort INTEGER, edited_by TEXT);
    CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT);
    CREATE TABLE labels(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE);";

const WRITES: &[&str] = &[
    "INSERT INTO projects VALUES ('p', 'a project', 10, '[\"x\",\"y\"]');
     INSERT INTO tasks VALUES ('t', 'p', 'a task', 0, 3, NULL)",
    "INSERT INTO members VALUES ('m', 'p', 'ben', 'editor')",
    "UPDATE tasks SET title = 'renamed', effort = effort + 2",
    "UPDATE projects SET tags = '[\"y\",\"z\"]', budget = 20",
    "INSERT INTO notes(body) VALUES ('a note'), (printf('%.*c', 3000, 'n'))",
    "INSERT INTO labels VALUES ('l', 'a label')",
    "DELETE FROM tasks",
    "DELETE FROM members",
];

/// Everything that corpora are begun with.
///
/// # Panics
/// If the engine does not work.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    conversation(&mut seeds);
    texts(&mut seeds);
    for (seed, steps) in [(3, 16), (7, 32), (17, 50)] {
        let bytes = Script::bytes_of_seed(seed, steps);
        add(&mut seeds, "sim", format!("seed-{seed}"), bytes);
    }
    // Conversations made up from a few bytes each.
    for target in [
        "server_session",
        "replica_session",
        "merge",
        "key",
        "inflate",
        "stored",
        "envelope",
    ] {
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        for length in [16_usize, 200, 800, 2_000] {
            let bytes = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[2]
            });
            let bytes = bytes.take(length).collect();
            add(&mut seeds, target, format!("made-up-{length}"), bytes);
        }
    }
    seeds
}

fn add(seeds: &mut Vec<Seed>, target: &'static str, name: impl Into<String>, bytes: Vec<u8>) {
    let name = name.into();
    seeds.push(Seed {
        target,
        name,
        bytes,
    });
}

/// A replica that writes and a server that answers, all in memory.
fn conversation(seeds: &mut Vec<Seed>) {
    let storage = MemoryStorage::new();
    let mut reader = storage.reader();
    let mut world = World::with_schema(storage, &demo_schema());
    let context = session_context(&mut world, RECENT_BYTES);
    let conn = Connection::open_in_memory().expect("memory");
    conn.execute_batch(SQL).expect("tables");
    let mut state = 7_u8;
    let entropy = move |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_mul(5).wrapping_add(3);
            *byte = state;
        }
    };
    let replica = Replica::attach(conn, AttachOptions::default(), Box::new(entropy));
    let mut replica = replica.expect("attached");
    let identity = Arc::new(Identity {
        user: Some(UserId("ada".into())),
        claims: BTreeMap::new(),
    });
    let mut now = world.now;
    let mut session = Session::new(Arc::clone(&context), Arc::clone(&identity), now);
    replica.connect(now).expect("connects");
    let mut up = Vec::new();
    let mut down = Vec::new();
    for step in 0..200_usize {
        now = now.plus_millis(20);
        if step % 20 == 10
            && let Some(sql) = WRITES.get(step / 20)
        {
            replica
                .connection()
                .execute_batch(sql)
                .expect("the app writes");
        }
        if step == 150 {
            world.push("ada/other", |draw| {
                draw.insert("labels", "o", &[("name", Value::from("of another"))])
            });
        }
        replica.wake(now).expect("wakes");
        replica.handle_timeout(now).expect("goes on");
        while let Some(frame) = replica.poll_transmit() {
            session.receive(&frame, now);
            up.push(frame);
        }
        while let Some(action) = session.poll_action() {
            act(&mut world, &context, &mut session, action, now);
        }
        while block_on(session.pump(&mut reader, now)).expect("memory is read") {}
        while let Some(frame) = session.poll_frame() {
            replica.handle(&frame, now).expect("handles");
            down.push(frame.into());
        }
        while replica.poll_event().is_some() {}
        if replica.closing().is_some() {
            let _again = replica.disconnected(now);
            session = Session::new(Arc::clone(&context), Arc::clone(&identity), now);
            replica.connect(now).expect("connects again");
            up.push(AGAIN.to_vec());
            down.push(AGAIN.to_vec());
        }
    }
    let status = replica.status().expect("a status");
    let closing = replica.closing();
    assert!(
        status.caught_up && status.waiting == 0,
        "{status:#?} {closing:?}"
    );
    frames(seeds, &up, &down);
    let entries = block_on(reader.log_after(syncline_core::Version::ZERO, usize::MAX));
    for (i, entry) in entries.expect("a log").iter().enumerate().take(12) {
        add(seeds, "stored", format!("entry-{i}"), entry.encode_body());
        for record in &entry.records {
            add(
                seeds,
                "key",
                format!("key-{i}"),
                record.key.as_bytes().to_vec(),
            );
        }
    }
}

fn act(
    world: &mut World<MemoryStorage>,
    context: &SessionContext,
    session: &mut Session,
    action: Action,
    now: Timestamp,
) {
    match action {
        Action::Open(hello) => {
            let facts = DeviceHello::new(&hello, session.user().clone());
            let opened = block_on(open_device(
                &mut world.storage,
                &facts,
                DeviceId([0xF0; 16]),
                now,
            ));
            let opened = opened.expect("the device is opened");
            session.opened(Ok(Opened::from(opened)));
        }
        Action::Commit(request) => {
            let submission = session.submission(*request);
            let group = [submission];
            let outcome = block_on(commit_group(&mut world.storage, &context.plan, &group, now));
            context.recent.push(&outcome.entries);
            session.committed(&outcome.results[0]);
        }
        Action::Renew(_) | Action::Watch | Action::Close => {}
    }
}

/// One frame of each kind and size, and the whole conversation for the session machines.
fn frames(seeds: &mut Vec<Seed>, up: &[Vec<u8>], down: &[Vec<u8>]) {
    // Each step: 0, the length, the frame. The replica's begins with a word on how to begin.
    let script = |frames: &[Vec<u8>]| -> Vec<u8> {
        let steps = frames.iter().filter_map(|frame| {
            let length = u16::try_from(frame.len()).ok()?;
            if frame == AGAIN {
                return Some(vec![1]);
            }
            Some([&[0], &length.to_le_bytes()[..], frame].concat())
        });
        steps.flatten().collect()
    };
    add(seeds, "server_session", "conversation", script(up));
    add(
        seeds,
        "replica_session",
        "conversation",
        [vec![0], script(down)].concat(),
    );
    let is_frame = |(_, frame): &(usize, &Vec<u8>)| *frame != AGAIN;
    for (i, frame) in up.iter().enumerate().filter(is_frame) {
        add(seeds, "client_frame", format!("frame-{i}"), frame.clone());
        if let Ok(ClientMessage::Push(push)) = decode_client(frame) {
            add(seeds, "changeset", format!("push-{i}"), push.body);
        }
    }
    for (i, frame) in down.iter().enumerate().filter(is_frame) {
        add(seeds, "server_frame", format!("frame-{i}"), frame.clone());
        if frame[0] == 1 {
            add(seeds, "inflate", format!("frame-{i}"), frame[1..].to_vec());
        }
        match decode_server(frame) {
            Ok(ServerMessage::Welcome(welcome)) => {
                if let Some(schema) = welcome.schema {
                    let bytes = minicbor::to_vec(&schema).expect("memory is written");
                    add(seeds, "changeset", format!("schema-{i}"), bytes);
                }
            }
            Ok(ServerMessage::Changes(changes)) => {
                for record in changes.records.into_iter().take(1) {
                    add(seeds, "changeset", format!("body-{i}"), record.body);
                }
            }
            _ => {}
        }
    }
}

/// What people write.
fn texts(seeds: &mut Vec<Seed>) {
    let config = r#"
[server]
listen = "127.0.0.1:7117"
retention_days = 30
[tables.projects]
columns = { id = "uuid primary key", name = "text not null", tags = "json", notes = "text", budget = "integer default 0" }
indexes = [["name"]]
read  = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid())"
write = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid() AND role = 'editor')"
merge = { tags = "set", budget = "manual" }
[tables.members]
columns = { id = "text primary key", project_id = "uuid references projects on delete cascade", user_id = "text not null", role = "text" }
read = "user_id = auth.uid() OR project_id IN readable(projects)"
write = "project_id IN writable(projects)"
[tables.tasks]
columns = { id = "uuid primary key", project_id = "uuid references projects on delete cascade", title = "text not null default ''", done = "boolean" }
primary_key = ["id"]
unique = [["project_id", "title"]]
read = "project_id IN readable(projects)"
write = "project_id IN writable(projects)"
force = { title = "auth.uid()" }
on_delete = "update-wins"
sync = "on_demand"
"#;
    add(seeds, "config", "whole", config.as_bytes().to_vec());
    for (i, part) in config.split("\n[").enumerate() {
        add(
            seeds,
            "config",
            format!("part-{i}"),
            format!("[{part}\n").into_bytes(),
        );
    }
    for (i, rule) in RULES.iter().enumerate() {
        let rows = b"\x03\x01\x04\x02\x05\x01\x00\x07\x0a\x0b\x0c\x01\x03\x02\x04\x01\x05\x03\x01\x02\x03\x04\x01\x02\x05\x01\x04\x03\x01\x02\x03\x01\x02\x03\x04\x05\x06\x07";
        let bytes = [
            rule.as_bytes(),
            b"\0_owner = auth.uid()\0",
            &rows[..],
            &rows[..],
        ]
        .concat();
        add(seeds, "rule", format!("rule-{i}"), bytes);
    }
    for (i, (which, body)) in REQUESTS.iter().enumerate() {
        let bytes = [&[*which], body.as_bytes()].concat();
        add(seeds, "http", format!("request-{i}"), bytes);
    }
    for (i, script) in SCRIPTS.iter().enumerate() {
        add(
            seeds,
            "file",
            format!("script-{i}"),
            script.as_bytes().to_vec(),
        );
    }
    add(seeds, "file", "conversation", SQL.as_bytes().to_vec());
    let auth = Auth::new(&[0x42; 32]).expect("a secret");
    let (now, end) = (
        Timestamp::default(),
        Timestamp::from_millis(4_000_000_000_000),
    );
    let token = auth
        .issue("ada", BTreeMap::new(), now, end)
        .expect("a token");
    add(seeds, "token", "signed", token.into_bytes());
    add(
        seeds,
        "token",
        "none",
        b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEiLCJleHAiOjQwMDAwMDAwMDB9.".to_vec(),
    );
}

const RULES: &[&str] = &[
    "_owner = auth.uid()",
    "auth.uid() IS NOT NULL AND done",
    "title = 'ada' OR project_id IN readable(projects)",
    "project_id IN (SELECT project_id FROM members WHERE user_id = auth.uid() AND role = 'editor')",
    "EXISTS (SELECT 1 FROM members WHERE members.project_id = tasks.project_id AND members.user_id = auth.uid())",
    "auth.uid() IN (SELECT user_id FROM members m WHERE m.project_id = tasks.project_id) OR points > 3",
    "auth.claim('role') = 'admin' OR (auth.jwt() ->> 'team') = title",
    "NOT done AND title LIKE 'a%' AND points BETWEEN 1 AND 5 AND tags IS NULL",
    "(SELECT auth.uid()) = title AND coalesce(points, 0) <> 1",
    "project_id IN (SELECT id FROM projects WHERE owner_id = auth.uid() AND NOT archived)",
    "true",
    "false",
];

const REQUESTS: &[(u8, &str)] = &[
    (0, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
    (
        0,
        "POST /v1/push HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    ),
    (
        1,
        r#"{"changes":[{"op":"insert","table":"labels","row":{"id":"l","name":"a label"}}]}"#,
    ),
    (
        1,
        r#"{"changes":[{"op":"update","table":"tasks","key":{"id":"t"},"row":{"title":"x"},"add":{"effort":2},"base":1}],"require_unchanged":true}"#,
    ),
    (
        1,
        r#"{"changes":[{"op":"delete","table":"notes","key":{"id":1}}]}"#,
    ),
    (
        1,
        r#"{"changes":[{"op":"insert","table":"notes","row":{"id":7,"body":"n"}},{"op":"insert","table":"projects","row":{"id":"p","name":"n","tags":["a"]}}]}"#,
    ),
    (2, "tables=labels,notes&limit=10"),
    (2, "limit=1"),
    (3, "table=notes&limit=5"),
    (4, "table=notes&key=%7B%22id%22%3A1%7D"),
    (4, "table=labels&id=l"),
    (5, "\0\0\0\0"),
    (6, r#"{"tables":{"labels":"00"}}"#),
    (7, "x"),
    (8, ""),
    (
        9,
        "33333333333333333333333333333333\n{\"name\":\"my phone\"}",
    ),
    (10, "33333333333333333333333333333333"),
    (11, "AAAA.BBBB"),
    (12, ""),
];

const SCRIPTS: &[&str] = &[
    "CREATE TABLE a(id INTEGER PRIMARY KEY, x TEXT UNIQUE, y REFERENCES a(id));\nINSERT INTO a VALUES (1,'x',1),(2,'y',1);\nCREATE INDEX i ON a(lower(x)) WHERE y > 0",
    "CREATE TABLE b(p TEXT, q BLOB, r REAL DEFAULT 1.5, g AS (p || q) STORED, PRIMARY KEY(p, q)) WITHOUT ROWID;\nINSERT INTO b(p,q) VALUES ('a', x'00ff')",
    "CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT, t TEXT COLLATE NOCASE CHECK (length(t) < 9)) STRICT;\nINSERT INTO c(t) VALUES ('T')",
    "CREATE TABLE d(x);\nCREATE VIEW v AS SELECT * FROM d;\nCREATE TRIGGER tr AFTER INSERT ON d BEGIN INSERT INTO d VALUES (1); END;\nINSERT INTO d VALUES (1)",
    "CREATE VIRTUAL TABLE f USING fts5(body);\nINSERT INTO f VALUES ('words')",
    "CREATE TABLE \"syncline_rows\"(id);\nCREATE TABLE \"a b\"(\"c d\" TEXT PRIMARY KEY NOT NULL, \"select\" INT);\nINSERT INTO \"a b\" VALUES ('k', 'text in int')",
    "CREATE TABLE e(id TEXT PRIMARY KEY);\nINSERT INTO e VALUES (NULL), ('a'), (x'61');\nPRAGMA user_version = 9",
];
