//! A server without a network: a storage in memory, the pipeline, and sessions by hand.

use std::{collections::BTreeMap, sync::Arc};

use syncline_core::{
    ColumnNumber, DeviceId, Schema, TableNumber, Version,
    config::LimitsConfig,
    rules::Identity,
    schema::SyncMode,
    wire::{Refusal, SchemaInfo, code},
};
use syncline_server::{
    Action, Hub, Recent, Session, SessionContext, SessionId,
    recent::RECENT_BYTES_MAX,
    session::{Opened, Proof},
};
use syncline_store::{
    DeviceHello, Group, LogEntry, OpenDeviceError, Storage, StorageError, commit_group,
    memory::{MemoryReader, MemoryStorage},
    open_device,
    testkit::{Draw, World, block_on, context_of, demo_schema},
};

/// The token that [`Bed::serve`] takes for a fresh one of the same user.
pub const FRESH_TOKEN: &str = "fresh";
/// Few, so that a test can have more.
pub const SUBSCRIPTIONS_MAX: u32 = 8;

/// A server and the devices that write around the sessions under test.
pub struct Bed {
    pub world: World<MemoryStorage>,
    pub context: Arc<SessionContext>,
    pub hub: Hub,
    pub reader: MemoryReader,
    schema: Schema,
    sessions: u64,
}

impl Bed {
    pub fn new() -> Self {
        Self::with_recent(RECENT_BYTES_MAX)
    }

    /// With a window on the log of so many bytes.
    pub fn with_recent(bytes_max: usize) -> Self {
        Self::with(demo_schema(), bytes_max)
    }

    /// Tasks sync on demand.
    pub fn on_demand() -> Self {
        let mut schema = demo_schema();
        let mut tables = schema.tables.iter_mut();
        let tasks = tables.find(|table| table.name == "tasks");
        tasks.expect("the schema has tasks").sync = SyncMode::OnDemand;
        Self::with(schema, RECENT_BYTES_MAX)
    }

    fn with(schema: Schema, bytes_max: usize) -> Self {
        let mut world = World::with_schema(MemoryStorage::new(), &schema);
        let reader = world.storage.reader();
        let context = context(&mut world, &schema, bytes_max);
        Self {
            world,
            context,
            hub: Hub::default(),
            reader,
            schema,
            sessions: 0,
        }
    }

    /// Lets a device have so many subscriptions.
    pub fn allow_subscriptions(&mut self, most: u32) {
        let context = Arc::get_mut(&mut self.context);
        context.expect("there is no session yet").subscriptions_max = most;
    }

    /// A device may load so many rows; for sessions from now on.
    pub fn limit_device_rows(&mut self, device_rows: u64) {
        let limits = LimitsConfig {
            device_rows,
            ..LimitsConfig::default()
        };
        let plan = self.context.plan.as_ref().clone().limited(limits);
        let context = Arc::get_mut(&mut self.context);
        context.expect("there is no session yet").plan = Arc::new(plan);
    }

    /// Everything but the database is lost, as in a restart.
    pub fn restart(&mut self) {
        self.hub = Hub::default();
        self.context = context(&mut self.world, &self.schema, RECENT_BYTES_MAX);
    }

    pub fn column(&self, table: &str, name: &str) -> ColumnNumber {
        let table = self.context.plan.schema().table(table);
        let table = table.expect("the table is declared");
        table.columns[table.position(name).expect("a column")].number
    }

    pub fn table(&self, name: &str) -> TableNumber {
        let schema = self.context.plan.schema();
        schema.table(name).expect("the table is declared").number
    }

    /// Another device of `user` commits a changeset.
    pub fn write(&mut self, user: &str, changes: impl FnOnce(Draw<'_>) -> Draw<'_>) -> Version {
        let device = format!("{user}/other");
        let pushed = self.world.push(&device, changes);
        self.context.recent.push(&pushed.outcome.entries);
        pushed.version()
    }

    /// The last entry of the log.
    pub fn last_entry(&mut self) -> Arc<LogEntry> {
        let entries = block_on(syncline_store::Reader::log_after(
            &mut self.reader,
            Version::ZERO,
            usize::MAX,
        ));
        let entries = entries.expect("the log is read");
        Arc::clone(entries.last().expect("the log has an entry"))
    }

    pub fn session(&mut self, user: &str) -> (SessionId, Session) {
        self.sessions += 1;
        let identity = Arc::new(identity(user));
        let session = Session::new(Arc::clone(&self.context), identity, self.world.now);
        (SessionId(self.sessions), session)
    }

    /// Does what the session asks for and pumps it until nothing is left to do.
    pub fn serve(&mut self, id: SessionId, session: &mut Session) {
        loop {
            while let Some(action) = session.poll_action() {
                self.act(id, session, action);
            }
            let more = block_on(session.pump(&mut self.reader, self.world.now));
            let more = more.expect("memory is read");
            // A full outbox waits for the socket.
            if !more || session.has_frames() {
                break;
            }
        }
        while let Some(action) = session.poll_action() {
            self.act(id, session, action);
        }
    }

    fn act(&mut self, id: SessionId, session: &mut Session, action: Action) {
        match action {
            Action::Open(hello) => {
                let facts = DeviceHello::new(&hello, session.user().clone());
                let mut fresh = DeviceId([0xF0; 16]);
                fresh.0[0] = u8::try_from(id.0).expect("few sessions");
                let now = self.world.now;
                let opened = block_on(open_device(&mut self.world.storage, &facts, fresh, now));
                session.opened(match opened {
                    Ok(opened) => Ok(Opened::from(opened)),
                    Err(OpenDeviceError::Refused(refusal)) => Err(*refusal),
                    Err(OpenDeviceError::Storage(error)) => panic!("{error}"),
                });
            }
            Action::Commit(request) => {
                let submission = session.submission(*request);
                let now = self.world.now;
                let outcome = block_on(commit_group(
                    &mut self.world.storage,
                    &self.context.plan,
                    &[submission],
                    now,
                ));
                self.context.recent.push(&outcome.entries);
                session.committed(&outcome.results[0]);
            }
            Action::Renew(token) => {
                let own = session.identity();
                session.renewed(match token.as_str() {
                    FRESH_TOKEN => Ok(Proof {
                        identity: Arc::clone(own),
                        expires: Some(self.world.now.plus_millis(600_000)),
                    }),
                    "admin" => Ok(Proof {
                        identity: Arc::new(Identity {
                            claims: BTreeMap::from([("role".into(), "admin".into())]),
                            ..identity(&own.user.as_ref().expect("signed in").0)
                        }),
                        expires: None,
                    }),
                    _ => Err(Refusal {
                        code: code::UNAUTHORIZED.into(),
                        message: "the token has expired: get a fresh one".into(),
                        retry: false,
                        retry_after_ms: None,
                        change: None,
                        fatal: true,
                    }),
                });
            }
            Action::Watch => {
                if let Some(sight) = session.sight() {
                    self.hub.watch(id, session.device(), sight);
                }
            }
            Action::Close => {}
        }
    }

    /// The next commit fails.
    pub fn fail_commit(&self) {
        self.world.storage.fail_commit(StorageError::Full);
    }

    /// Forgets the log up to `horizon`.
    pub fn trim(&mut self, horizon: Version) {
        block_on(self.world.storage.trim(horizon)).expect("memory is trimmed");
    }
}

pub fn identity(user: &str) -> Identity {
    Identity {
        user: Some(syncline_core::UserId(user.to_owned())),
        claims: BTreeMap::new(),
    }
}

/// What a starting server makes of its storage.
fn context(
    world: &mut World<MemoryStorage>,
    schema: &Schema,
    recent_max: usize,
) -> Arc<SessionContext> {
    let (plan, _) = context_of(&mut world.storage, schema);
    let group = block_on(world.storage.begin()).expect("memory has a head");
    let head = group.head();
    block_on(group.rollback());
    let info = SchemaInfo::from_schema(plan.schema());
    Arc::new(SessionContext {
        server: world.storage.server_id(),
        secret: *world.storage.secret(),
        info_hash: info.hash(),
        info,
        plan: Arc::new(plan),
        recent: Arc::new(Recent::with_limit(head.version, head.tag, recent_max)),
        subscriptions_max: SUBSCRIPTIONS_MAX,
    })
}

/// Text that deflate cannot shorten much.
pub fn noise(seed: u64, length: usize) -> String {
    let mut state = seed + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(33 + u8::try_from((state >> 33) % 90).expect("below 90"))
    };
    (0..length).map(|_| next()).collect()
}
