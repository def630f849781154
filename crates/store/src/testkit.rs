//! Small words for tests: a schema of projects and tasks, changesets, and a world of users and
//! devices around a storage.

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that goes wrong is to stop where it does"
)]

mod audit;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Wake, Waker},
    thread::{self, Thread},
};

use syncline_core::{
    Change, Changeset, ChangesetId, Column, ColumnEdit, ColumnType, DeviceId, Edit, Hlc, Lease,
    MergeStrategy, Op, RowKey, Schema, Table, TableNumber, Timestamp, UserId, Value, Version,
    config::Config,
    rules::{Identity, Rules},
    schema::{ForeignKey, OnDelete, RuleTexts, SyncMode},
    wire::{PushResult, Verdict},
};

pub use audit::{Audit, Derived};

use crate::{
    Context, DeviceHello, GroupOutcome, SchemaOptions, Storage, Submission, commit_group,
    open_device, rebuild_rules,
};

/// Runs a future on this thread. Whatever it waits for has its own thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = TaskContext::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}

/// A table to be declared; numbers come from the storage.
#[must_use]
pub fn table(name: &str, columns: Vec<Column>) -> Table {
    Table {
        name: name.to_owned(),
        number: TableNumber(0),
        columns,
        primary_key: vec![0],
        uniques: Vec::new(),
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        without_rowid: false,
        autoincrement: false,
        sync: SyncMode::Auto,
        update_wins: false,
        rules: RuleTexts::default(),
        force: BTreeMap::new(),
    }
}

/// A column that may be NULL and merges by last-write-wins.
#[must_use]
pub fn column(name: &str, ty: ColumnType) -> Column {
    Column {
        name: name.to_owned(),
        number: syncline_core::ColumnNumber(0),
        ty,
        not_null: false,
        default: None,
        check: None,
        collate: None,
        generated: false,
        merge: MergeStrategy::LastWriteWins,
        merge_paths: BTreeMap::new(),
    }
}

fn merged(name: &str, ty: ColumnType, merge: MergeStrategy) -> Column {
    Column {
        merge,
        ..column(name, ty)
    }
}

fn required(name: &str, ty: ColumnType) -> Column {
    Column {
        not_null: true,
        ..column(name, ty)
    }
}

/// Projects with members, and tasks below them; notes of one's own with integer keys, which
/// updates revive; labels that are unique.
#[must_use]
pub fn demo_schema() -> Schema {
    use ColumnType::{Boolean, Integer, Json, Text};
    let mine_or_member = |role: &str| {
        let members = "SELECT project_id FROM members WHERE user_id = auth.uid()";
        format!("_owner = auth.uid() OR id IN ({members}{role})")
    };
    let mut projects = table(
        "projects",
        vec![
            required("id", Text),
            required("name", Text),
            merged("budget", Integer, MergeStrategy::Manual),
            merged("tags", Json, MergeStrategy::Set),
        ],
    );
    projects.rules.read = Some(mine_or_member(""));
    projects.rules.write = Some(mine_or_member(" AND role = 'editor'"));

    let mut members = table(
        "members",
        vec![
            required("id", Text),
            required("project_id", Text),
            required("user_id", Text),
            required("role", Text),
        ],
    );
    members.rules.read = Some("user_id = auth.uid() OR project_id IN readable(projects)".into());
    members.rules.write = Some("project_id IN writable(projects)".into());

    let mut tasks = table(
        "tasks",
        vec![
            required("id", Text),
            column("project_id", Text),
            Column {
                default: Some("'untitled'".into()),
                ..required("title", Text)
            },
            column("done", Boolean),
            merged("effort", Integer, MergeStrategy::Counter),
            column("edited_by", Text),
        ],
    );
    tasks.foreign_keys.push(ForeignKey {
        columns: vec![1],
        parent: "projects".into(),
        parent_columns: Vec::new(),
        on_delete: OnDelete::Cascade,
    });
    tasks.rules.read = Some("project_id IN readable(projects)".into());
    tasks.rules.write = Some("project_id IN writable(projects)".into());
    tasks.force.insert("edited_by".into(), "auth.uid()".into());

    let mut notes = table("notes", vec![required("id", Integer), column("body", Text)]);
    notes.update_wins = true;
    notes.rules.read = Some("_owner = auth.uid()".into());
    notes.rules.write = Some("_owner = auth.uid()".into());

    let mut labels = table("labels", vec![required("id", Text), required("name", Text)]);
    labels.uniques.push(vec![1]);
    labels.rules.read = Some("auth.uid() IS NOT NULL".into());
    labels.rules.write = Some("auth.uid() IS NOT NULL".into());

    Schema {
        tables: vec![projects, members, tasks, notes, labels],
    }
}

/// A change of a named table with named columns.
#[derive(Debug, Clone)]
pub struct Draw<'a> {
    schema: &'a Schema,
    changes: Vec<Change>,
}

impl<'a> Draw<'a> {
    /// No changes yet, of tables of `schema`.
    #[must_use]
    pub fn new(schema: &'a Schema) -> Self {
        Self {
            schema,
            changes: Vec::new(),
        }
    }

    fn table(&self, name: &str) -> &'a Table {
        self.schema.table(name).expect("the table is declared")
    }

    fn edits(table: &Table, values: &[(&str, Edit)]) -> Vec<ColumnEdit> {
        let number = |name: &str| {
            let position = table.position(name).expect("the column is declared");
            table.columns[position].number
        };
        let edit = |(name, edit): &(&str, Edit)| ColumnEdit {
            column: number(name),
            edit: edit.clone(),
        };
        values.iter().map(edit).collect()
    }

    fn add(mut self, table: &Table, key: Value, base: Version, op: Op) -> Self {
        let key = RowKey::encode([&key]).expect("a key has a value");
        self.changes.push(Change {
            table: table.number,
            key,
            base,
            op,
        });
        self
    }

    /// Inserts a row; the first column is the key, columns not named are NULL.
    #[must_use]
    pub fn insert(self, table: &str, key: impl Into<Value>, values: &[(&str, Value)]) -> Self {
        let table = self.table(table);
        let key = key.into();
        let set = |column: &Column| {
            let named = values.iter().find(|(name, _)| *name == column.name);
            let value = named.map_or(Value::Null, |(_, value)| value.clone());
            ColumnEdit {
                column: column.number,
                edit: Edit::Set(value),
            }
        };
        let mut edits: Vec<_> = table.columns.iter().map(set).collect();
        edits[0].edit = Edit::Set(key.clone());
        self.add(table, key, Version::ZERO, Op::Insert(edits))
    }

    /// Inserts a row that names only some columns.
    #[must_use]
    pub fn insert_some(self, table: &str, key: impl Into<Value>, values: &[(&str, Value)]) -> Self {
        let table = self.table(table);
        let values: Vec<_> = values
            .iter()
            .map(|(name, value)| (*name, Edit::Set(value.clone())))
            .collect();
        let edits = Self::edits(table, &values);
        self.add(table, key.into(), Version::ZERO, Op::Insert(edits))
    }

    /// Sets columns of a row as of `base`.
    #[must_use]
    pub fn set(
        self,
        table: &str,
        key: impl Into<Value>,
        base: Version,
        values: &[(&str, Value)],
    ) -> Self {
        let values: Vec<_> = values
            .iter()
            .map(|(name, value)| (*name, Edit::Set(value.clone())))
            .collect();
        self.edit(table, key, base, &values)
    }

    /// Updates a row with any edits.
    #[must_use]
    pub fn edit(
        self,
        table: &str,
        key: impl Into<Value>,
        base: Version,
        edits: &[(&str, Edit)],
    ) -> Self {
        let table = self.table(table);
        let edits = Self::edits(table, edits);
        self.add(table, key.into(), base, Op::Update(edits))
    }

    /// Deletes a row as of `base`.
    #[must_use]
    pub fn delete(self, table: &str, key: impl Into<Value>, base: Version) -> Self {
        let table = self.table(table);
        self.add(table, key.into(), base, Op::Delete)
    }
}

/// Users with devices, in front of one storage.
#[derive(Debug)]
pub struct World<S> {
    pub storage: S,
    pub context: Context,
    pub now: Timestamp,
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
            devices: BTreeMap::new(),
            ids: 0,
        }
    }

    /// Puts another storage in the place of the one there is: the server starts again.
    #[must_use]
    pub fn restart(self, again: impl FnOnce(S) -> S) -> Self {
        Self {
            storage: again(self.storage),
            ..self
        }
    }

    /// Changes to be submitted.
    #[must_use]
    pub fn draw(&self) -> Draw<'_> {
        Draw::new(self.context.schema())
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
            platform: "test".to_owned(),
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
        };
        if let Some(device) = self.devices.get_mut(device) {
            device.next += 1;
        }
        Submission {
            identity: known.identity,
            device: known.id,
            changeset,
            sent: Version(Version::LIMIT - 1),
            refused: Arc::new(known.refused),
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

impl Draw<'_> {
    /// The changes, in the order they were drawn.
    #[must_use]
    pub fn done(self) -> Vec<Change> {
        self.changes
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

/// One statement of another program, which knows names only.
#[derive(Debug, Clone, PartialEq)]
pub enum External<'a> {
    Insert {
        table: &'a str,
        values: Vec<(&'a str, Value)>,
    },
    /// Of the row with these key values, by column.
    Update {
        table: &'a str,
        key: Vec<(&'a str, Value)>,
        set: Vec<(&'a str, Value)>,
    },
    Delete {
        table: &'a str,
        key: Vec<(&'a str, Value)>,
    },
}

impl External<'_> {
    /// The statement in SQL with `?1`, `?2`, … and the values for them.
    #[must_use]
    pub fn sql(&self) -> (String, Vec<Value>) {
        let mut parameters = Vec::new();
        let mut list = |pairs: &[(&str, Value)], separator: &str| {
            let mut text = String::new();
            for (name, value) in pairs {
                if !text.is_empty() {
                    text.push_str(separator);
                }
                parameters.push(value.clone());
                text.push_str(&format!("\"{name}\" = ?{}", parameters.len()));
            }
            text
        };
        let sql = match self {
            Self::Insert { table, values } => {
                let names: Vec<_> = values
                    .iter()
                    .map(|(name, _)| format!("\"{name}\""))
                    .collect();
                let places: Vec<_> = (1..=values.len()).map(|n| format!("?{n}")).collect();
                parameters.extend(values.iter().map(|(_, value)| value.clone()));
                let (names, places) = (names.join(", "), places.join(", "));
                format!("INSERT INTO \"{table}\" ({names}) VALUES ({places})")
            }
            Self::Update { table, key, set } => {
                let set = list(set, ", ");
                format!("UPDATE \"{table}\" SET {set} WHERE {}", list(key, " AND "))
            }
            Self::Delete { table, key } => {
                format!("DELETE FROM \"{table}\" WHERE {}", list(key, " AND "))
            }
        };
        (sql, parameters)
    }
}
