//! A history of several users on several devices, made of bytes, and what has to be the same
//! however its changesets arrive in groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use syncline_core::{
    Change, DeviceId, Edit, Hlc, RowKey, TableNumber, Value, Version,
    wire::{PushResult, Verdict},
};

use super::{Audit, Draw, World, block_on, past_agrees_with_log};
use crate::{Group as _, LoadedRow, LogEntry, Reader, Room, Storage, Submission};

/// One changeset: any bytes mean one.
pub type Step = [u8; 12];

const DEVICES: [&str; 4] = ["ada", "ada/phone", "ben", "cleo"];
const USERS: [&str; 3] = ["ada", "ben", "cleo"];

/// Commits `steps` one by one in the first world, in groups of `groups` (again and again) in the
/// second one, and insists that nobody can tell the difference: the same verdicts, log, rows,
/// metadata and history. In both everything that is derived is what it is when computed anew, and every
/// changeset is in the log at most once.
pub fn grouping_is_invisible<S: Storage, R: Reader>(
    (one, mut reader): (&mut World<S>, R),
    (grouped, mut grouped_reader): (&mut World<S>, R),
    steps: &[Step],
    groups: &[usize],
) {
    for world in [&mut *one, &mut *grouped] {
        for device in DEVICES {
            world.open(device);
        }
    }
    let mut history: Vec<Submission> = Vec::new();
    let mut results = Vec::new();
    let mut refused = Numbers::default();
    let mut versions = vec![Version::ZERO];
    for step in steps {
        let submission = submission(one, step, &history, &versions);
        results.extend(commit(one, std::slice::from_ref(&submission), &mut refused));
        versions.push(block_on(reader.head()).expect("the head is read").version);
        history.push(submission);
    }
    let mut refused = Numbers::default();
    let mut in_groups = Vec::new();
    let (mut rest, mut sizes) = (&history[..], groups.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().map_or(1, |size| (*size).clamp(1, rest.len()));
        in_groups.extend(commit(grouped, &rest[..size], &mut refused));
        rest = &rest[size..];
        let audit = Audit::of(grouped, &mut grouped_reader, &USERS);
        assert_eq!(audit.maintained, audit.anew);
    }
    let audit = Audit::of(one, &mut reader, &USERS);
    assert_eq!(audit.maintained, audit.anew);
    for (one, grouped) in results.iter().zip(&in_groups) {
        assert_eq!(judged(grouped), judged(one));
    }
    let entries = log(&mut reader);
    assert_eq!(log(&mut grouped_reader), entries);
    assert_eq!(rows(grouped), rows(one));
    let past = past_agrees_with_log(&mut reader, &entries, one.context.schema());
    let grouped_past = past_agrees_with_log(&mut grouped_reader, &entries, one.context.schema());
    assert_eq!(grouped_past, past);
    exactly_once(&entries, &history, &results);
}

/// The numbers refused for good, as each device's connection remembers them.
type Numbers = BTreeMap<DeviceId, BTreeSet<u64>>;

/// Commits a group at the same moment as every other.
fn commit<S: Storage>(
    world: &mut World<S>,
    group: &[Submission],
    refused: &mut Numbers,
) -> Vec<PushResult> {
    let known = |submission: &Submission| Submission {
        refused: Arc::new(
            refused
                .get(&submission.device)
                .cloned()
                .unwrap_or_default()
                .into(),
        ),
        ..submission.clone()
    };
    let submissions: Vec<_> = group.iter().map(known).collect();
    let now = world.now;
    let outcome = world.commit(&submissions);
    world.now = now;
    assert!(outcome.failure.is_none(), "{:?}", outcome.failure);
    for (submission, result) in submissions.iter().zip(&outcome.results) {
        let numbers = refused.entry(submission.device).or_default();
        match &result.verdict {
            Verdict::Accepted(_) => drop(numbers.remove(&submission.changeset.number)),
            Verdict::Refused(refusal) if refusal.retry => {}
            Verdict::Refused(_) => drop(numbers.insert(submission.changeset.number)),
        }
    }
    outcome.results
}

/// What a result says, without the database's own words.
fn judged(result: &PushResult) -> (Result<Version, String>, Vec<String>) {
    let verdict = match &result.verdict {
        Verdict::Accepted(version) => Ok(*version),
        Verdict::Refused(refusal) => Err(format!("{} {:?}", refusal.code, refusal.change)),
    };
    (
        verdict,
        result.lost.iter().map(|lost| format!("{lost:?}")).collect(),
    )
}

fn log<R: Reader>(reader: &mut R) -> Vec<Arc<LogEntry>> {
    block_on(reader.log_after(Version::ZERO, usize::MAX)).expect("the log is read")
}

fn rows<S: Storage>(world: &mut World<S>) -> Vec<(TableNumber, RowKey, LoadedRow)> {
    block_on(async {
        let mut found = Vec::new();
        let mut group = world.storage.begin().await.expect("a group begins");
        for table in &world.context.schema().tables {
            let rows = group.scan(table.number, None, Room::ALL).await;
            let rows = rows.expect("rows are read").into_iter();
            found.extend(rows.map(|(key, row)| (table.number, key, row)));
        }
        group.rollback().await;
        found
    })
}

fn exactly_once(entries: &[Arc<LogEntry>], history: &[Submission], results: &[PushResult]) {
    let mut logged = BTreeMap::new();
    for entry in entries {
        let twice = logged.insert(entry.changeset, entry.version);
        assert_eq!(twice, None, "{:?} is in the log twice", entry.changeset);
    }
    let mut accepted = BTreeMap::new();
    for (submission, result) in history.iter().zip(results) {
        let id = submission.changeset.id;
        if let Verdict::Accepted(version) = result.verdict {
            let known = *accepted.entry(id).or_insert(version);
            assert_eq!(known, version, "once accepted, always with the same answer");
        } else {
            assert_eq!(
                accepted.get(&id),
                None,
                "what was accepted is not refused later"
            );
        }
    }
    assert_eq!(logged, accepted);
}

/// The submission that a step means after `history`, which left the log at `versions`.
fn submission<S: Storage>(
    world: &mut World<S>,
    step: &Step,
    history: &[Submission],
    versions: &[Version],
) -> Submission {
    let [who, how, extra, ..] = *step;
    if how % 8 == 0 && !history.is_empty() {
        return history[usize::from(extra) % history.len()].clone();
    }
    let live = live(world);
    let mut draw = Some(world.draw());
    let mut named = BTreeSet::new();
    for part in step[3..].chunks_exact(3).take(1 + usize::from(how % 3)) {
        let base = match part[2] >> 5 {
            0 => Version::ZERO,
            n => versions[versions.len().saturating_sub(usize::from(n))],
        };
        let change = Part {
            kind: part[0],
            key: part[1],
            value: part[2],
            base,
        };
        if named.insert(change.row()) {
            let exists = live.contains(&change.row());
            draw = draw.map(|draw| change.draw(draw, exists));
        }
    }
    let changes: Vec<Change> = draw.map(Draw::done).unwrap_or_default();
    let mut submission = world.submission(DEVICES[usize::from(who) % DEVICES.len()], changes);
    let changeset = &mut submission.changeset;
    changeset.hlc = Hlc::at(world.now.plus_millis(u64::from(extra % 5)));
    changeset.require_unchanged = extra % 16 == 15;
    if extra % 8 == 1 && changeset.number > 1 {
        changeset.depends = vec![changeset.number - 1];
    }
    submission
}

/// The rows that there are.
fn live<S: Storage>(world: &mut World<S>) -> BTreeSet<(&'static str, RowKey)> {
    let rows = rows(world);
    let name = |number| {
        world
            .context
            .schema()
            .by_number(number)
            .map(|table| &table.name)
    };
    let named = rows.into_iter().filter_map(|(number, key, _)| {
        let known = TABLES
            .into_iter()
            .find(|known| name(number).is_some_and(|n| n == known))?;
        Some((known, key))
    });
    named.collect()
}

const TABLES: [&str; 5] = ["projects", "members", "tasks", "notes", "labels"];

/// One change of a step.
#[derive(Debug, Clone, Copy)]
struct Part {
    kind: u8,
    key: u8,
    value: u8,
    base: Version,
}

impl Part {
    fn table(self) -> &'static str {
        TABLES[usize::from(self.kind) % TABLES.len()]
    }

    fn key(self) -> Value {
        let table = self.table();
        let most = if table == "tasks" { 5 } else { 3 };
        if table == "notes" {
            return i64::from(self.key % most).into();
        }
        Value::Text(format!("{}{}", &table[..1], self.key % most))
    }

    fn row(self) -> (&'static str, RowKey) {
        (self.table(), RowKey::encode([&self.key()]).expect("a key"))
    }

    /// Mostly what makes sense; where it does not, an eighth of the time all the same.
    fn draw(self, draw: Draw<'_>, exists: bool) -> Draw<'_> {
        let stubborn = self.key / 16 == 0;
        match self.kind / 5 % 8 {
            7 if exists || stubborn => draw.delete(self.table(), self.key(), self.base),
            0..=1 if !exists || stubborn => self.insert(draw),
            _ if exists || stubborn => self.update(draw),
            _ => self.insert(draw),
        }
    }

    fn text(self, prefix: &str, most: u8) -> Value {
        Value::Text(format!("{prefix}{}", self.value % most))
    }

    fn user(self) -> Value {
        USERS[usize::from(self.value / 3) % USERS.len()].into()
    }

    fn role(self) -> Value {
        if self.value.is_multiple_of(4) {
            "viewer"
        } else {
            "editor"
        }
        .into()
    }

    fn insert(self, draw: Draw<'_>) -> Draw<'_> {
        let (table, key) = (self.table(), self.key());
        let project = ("project_id", self.text("p", 3));
        let title = ("title", self.text("title ", 9));
        match table {
            "members" => {
                let of = [project, ("user_id", self.user()), ("role", self.role())];
                draw.insert(table, key, &of)
            }
            "tasks" if self.value.is_multiple_of(5) => {
                draw.insert_some(table, key.clone(), &[("id", key), project])
            }
            "tasks" => draw.insert(table, key, &[project, title]),
            "notes" => draw.insert(table, key, &[("body", self.text("body ", 9))]),
            "labels" => draw.insert(table, key, &[("name", self.text("label ", 4))]),
            _ => draw.insert(table, key, &[("name", self.text("name ", 9))]),
        }
    }

    fn update(self, draw: Draw<'_>) -> Draw<'_> {
        let (table, key, base) = (self.table(), self.key(), self.base);
        let project = ("project_id", self.text("p", 3));
        let number = Value::from(i64::from(self.value % 7));
        match (table, self.value % 4) {
            ("projects", 0) => {
                let decide = Edit::Decide {
                    base: Value::Null,
                    new: number,
                };
                draw.edit(table, key, base, &[("budget", decide)])
            }
            ("members", 0) => draw.set(table, key, base, &[project]),
            ("members", _) => {
                let of = [("role", self.role()), ("user_id", self.user())];
                draw.set(table, key, base, &of)
            }
            ("tasks", 0) => draw.set(table, key, base, &[project]),
            ("tasks", 1) => draw.edit(table, key, base, &[("effort", Edit::Add(number))]),
            ("tasks", _) => draw.set(table, key, base, &[("title", self.text("title ", 9))]),
            ("notes", _) => draw.set(table, key, base, &[("body", self.text("body ", 9))]),
            ("labels", _) => draw.set(table, key, base, &[("name", self.text("label ", 4))]),
            (_, _) => draw.set(table, key, base, &[("name", self.text("name ", 9))]),
        }
    }
}
