//! A storage with users and devices in front of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use syncline_core::{
    Change, Changeset, ChangesetId, DeviceId, Hlc, Lease, Schema, Timestamp, UserId, Version,
    config::Config,
    rules::{Identity, Rules},
    wire::{PushResult, Verdict},
};

use super::{block_on, demo_schema, draw::Draw};
use crate::{
    Context, DeviceHello, GroupOutcome, SchemaOptions, Storage, Submission, commit_group,
    open_device, rebuild_rules,
};

/// Users with devices, in front of one storage.
#[derive(Debug)]
pub struct World<S> {
    pub storage: S,
    pub context: Context,
    pub now: Timestamp,
    declared: Schema,
    devices: BTreeMap<String, TestDevice>,
    ids: u64,
}

/// A device as the world remembers it.
#[derive(Debug, Clone)]
struct TestDevice {
    id: DeviceId,
    identity: Arc<Identity>,
    next: u64,
    refused: BTreeSet<u64>,
}

/// The schema that `storage` gives to the declared tables, with its rules.
pub fn context_of<S: Storage>(storage: &mut S, schema: &Schema) -> (Context, Option<[u8; 32]>) {
    let config = Config {
        schema: schema.clone(),
        ..Config::default()
    };
    let options = SchemaOptions {
        managed: true,
        allow: Vec::new(),
    };
    let report = block_on(storage.apply_schema(&config, &options)).expect("the schema is applied");
    let rules = Rules::compile(&report.schema, storage.secret()).expect("the rules fit");
    (Context::new(report.schema, rules), report.rules)
}

impl<S: Storage> World<S> {
    /// A server over `storage` with [`demo_schema`], started on 2026-01-01.
    pub fn new(storage: S) -> Self {
        Self::with_schema(storage, &demo_schema())
    }

    /// A server over `storage` with these tables.
    pub fn with_schema(mut storage: S, schema: &Schema) -> Self {
        let now = Timestamp::from_millis(1_767_225_600_000);
        let (context, rules) = context_of(&mut storage, schema);
        if rules != Some(context.rules().fingerprint()) {
            block_on(rebuild_rules(&mut storage, &context, now)).expect("the rules are recorded");
        }
        Self {
            storage,
            context,
            now,
            declared: schema.clone(),
            devices: BTreeMap::new(),
            ids: 0,
        }
    }

    /// Puts another storage in the place of the one there is: the server starts again.
    #[must_use]
    pub fn restart(self, again: impl FnOnce(S) -> S) -> Self {
        let mut storage = again(self.storage);
        let (context, _) = context_of(&mut storage, &self.declared);
        Self {
            storage,
            context,
            ..self
        }
    }

    /// Changes to be submitted.
    #[must_use]
    pub fn draw(&self) -> Draw<'_> {
        Draw::new(self.context.schema())
    }

    /// Makes the device known to the server.
    pub fn open(&mut self, device: &str) {
        self.device(device);
    }

    /// The user's device: `ada` has the device `ada`, and `ada/phone` is another of hers.
    fn device(&mut self, name: &str) -> TestDevice {
        if let Some(device) = self.devices.get(name) {
            return device.clone();
        }
        let user = name.split('/').next().unwrap_or(name);
        let mut id = [0; 16];
        id[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
        let hello = DeviceHello {
            device: DeviceId(id),
            lease: Lease::default(),
            next_lease: Lease([1; 16]),
            user: UserId(user.to_owned()),
            name: name.to_owned(),
            renamed: false,
            platform: "test".to_owned(),
            register_anew: false,
        };
        block_on(open_device(
            &mut self.storage,
            &hello,
            DeviceId([0xEE; 16]),
            self.now,
        ))
        .expect("the device is opened");
        let identity = Identity {
            user: Some(UserId(user.to_owned())),
            claims: BTreeMap::new(),
        };
        let device = TestDevice {
            id: DeviceId(id),
            identity: Arc::new(identity),
            next: 1,
            refused: BTreeSet::new(),
        };
        self.devices.insert(name.to_owned(), device.clone());
        device
    }

    /// A submission of the device's next changeset, sealed now.
    pub fn submission(&mut self, device: &str, changes: Vec<Change>) -> Submission {
        let known = self.device(device);
        self.ids += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.ids.to_be_bytes());
        let changeset = Changeset {
            id: ChangesetId(id),
            number: known.next,
            depends: Vec::new(),
            hlc: Hlc::at(self.now),
            changes,
            require_unchanged: false,
            may_be_applied_already: false,
            after: Some(Version::ZERO),
            piece: None,
        };
        if let Some(device) = self.devices.get_mut(device) {
            device.next += 1;
        }
        Submission {
            identity: known.identity,
            device: known.id,
            lease: None,
            changeset,
            sent: Version(Version::LIMIT - 1),
            refused: Arc::new(known.refused.into()),
        }
    }

    /// Commits submissions as one group, a millisecond later than the last.
    pub fn commit(&mut self, submissions: &[Submission]) -> GroupOutcome {
        self.now = self.now.plus_millis(1);
        block_on(commit_group(
            &mut self.storage,
            &self.context,
            submissions,
            self.now,
        ))
    }

    /// Commits one changeset of `device`.
    pub fn push(&mut self, device: &str, changes: impl FnOnce(Draw<'_>) -> Draw<'_>) -> Pushed {
        let changes = changes(self.draw()).done();
        let submission = self.submission(device, changes);
        let outcome = self.commit(std::slice::from_ref(&submission));
        Pushed {
            outcome,
            submission,
        }
    }
}

/// What came of [`World::push`].
#[derive(Debug)]
pub struct Pushed {
    pub outcome: GroupOutcome,
    pub submission: Submission,
}

impl Pushed {
    /// The only result.
    #[must_use]
    pub fn result(&self) -> &PushResult {
        &self.outcome.results[0]
    }

    /// Insists that it was accepted.
    pub fn accepted(&self) {
        let _ = self.version();
    }

    /// The version it was accepted at.
    #[must_use]
    pub fn version(&self) -> Version {
        match &self.result().verdict {
            Verdict::Accepted(version) => *version,
            Verdict::Refused(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    /// The code it was refused with.
    #[must_use]
    pub fn code(&self) -> &str {
        match &self.result().verdict {
            Verdict::Accepted(version) => panic!("accepted at {version:?}"),
            Verdict::Refused(refusal) => &refusal.code,
        }
    }
}
