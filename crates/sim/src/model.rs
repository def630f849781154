//! What the checks remember of a run, to judge devices and server by.

mod demand;
pub(crate) mod sealed;
mod shown;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use anyhow::bail;
use syncline_core::{
    ChangesetId, Table, TableNumber, Timestamp, Value, Version,
    wire::{PushResult, RowBody, RowState, ServerMessage, Verdict, code, decode_server},
};
use syncline_replica::{QueueState, QueuedChangeset, Replica};
use syncline_store::Submission;

use self::shown::check_pairs;
use crate::{
    checker::{causal::History, waiting::Sent},
    device::{Device, FileVersion},
    rows::{Reader, RowName, Rows, literal_key},
    schema::Who,
    subject::App,
    truth::Truth,
};

/// Moments of the server's rows that are remembered.
const HISTORY_MAX: usize = 600;
/// And rows of all of them together, for the memory's sake.
const HISTORY_ROWS_MAX: usize = 200_000;

/// Who wrote a row of `steps`, and when.
#[derive(Debug, Clone)]
struct Step {
    author: String,
    at: Timestamp,
    /// Whoever wrote it went back to a state from before: it may be anywhere or nowhere.
    may_be_lost: bool,
}

/// The steps of one device.
#[derive(Debug, Default)]
struct OwnSteps {
    ids: BTreeSet<String>,
    /// The device's file in which all of them were found.
    found_in: Option<FileVersion>,
}

#[derive(Debug)]
pub(crate) struct Model {
    /// The server's rows after each group of commits, by the log's end then.
    history: BTreeMap<Version, Moment>,
    history_rows: usize,
    accepted: BTreeMap<ChangesetId, Version>,
    steps: BTreeMap<String, Step>,
    /// By author.
    own: BTreeMap<String, OwnSteps>,
    /// Those that a device had to take back at some time.
    parked_once: BTreeSet<String>,
    pub(crate) app: Rc<App>,
    pub(crate) numbers: Rc<BTreeMap<TableNumber, &'static str>>,
    /// Ids up to here may have been forgotten by the server.
    pub(crate) horizon: Version,
    pub(crate) counts: Counts,
    pub(crate) reader: Reader,
    pub(crate) sent: Sent,
    causal: History,
    /// Steps that were refused somewhere.
    excused: BTreeSet<String>,
    pub(crate) tables: BTreeMap<&'static str, TableSeen>,
    /// The server's table with an encrypted column.
    pub(crate) sealed: Option<Table>,
}

/// One table at the rests of a run, all added up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TableSeen {
    /// Rows on the server.
    pub rows: u64,
    /// Rows that a user may see, for each user.
    pub seen: u64,
    /// Changes that wait for a person on a device because the server refused them.
    pub parked: u64,
}

/// Rows that somebody may see.
type Seen = Rc<Rows>;

#[derive(Debug)]
struct Moment {
    truth: Truth,
    /// What each user of each team may see of it, once somebody asked.
    visible: RefCell<BTreeMap<(String, String), Seen>>,
    /// It is the only thing known of more than one entry of the log.
    is_coarse: bool,
}

/// What a run did, to see that seeds reach what they are meant to reach.
#[derive(Debug, Default, Clone)]
pub struct Counts(pub BTreeMap<String, u64>);

impl Counts {
    pub(crate) fn add(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_insert(0) += 1;
    }
}

impl Moment {
    fn visible(&self, app: &App, who: Who<'_>) -> Seen {
        let known = (who.user.to_owned(), who.team.to_owned());
        let mut visible = self.visible.borrow_mut();
        let visible = visible.entry(known);
        Rc::clone(visible.or_insert_with(|| Rc::new(app.visible(&self.truth, who))))
    }

    fn sees(&self, app: &App, who: Who<'_>, name: &RowName) -> bool {
        self.visible(app, who).contains_key(name)
    }
}

impl Model {
    pub(crate) fn new(app: Rc<App>) -> Self {
        Self {
            app,
            numbers: Rc::default(),
            history: BTreeMap::new(),
            history_rows: 0,
            accepted: BTreeMap::new(),
            steps: BTreeMap::new(),
            own: BTreeMap::new(),
            parked_once: BTreeSet::new(),
            horizon: Version::ZERO,
            counts: Counts::default(),
            reader: Reader::default(),
            sent: Sent::default(),
            causal: History::default(),
            excused: BTreeSet::new(),
            tables: BTreeMap::new(),
            sealed: None,
        }
    }

    /// Notes what there is and who sees it, for reports.
    fn look_at_tables(&mut self, truth: &Truth, devices: &[Device]) -> anyhow::Result<()> {
        for (table, _) in truth.rows.keys() {
            self.tables.entry(table).or_default().rows += 1;
        }
        for user in self.app.users() {
            for (table, _) in self.app.visible(truth, Who::first(user)).keys() {
                self.tables.entry(table).or_default().seen += 1;
            }
        }
        for replica in devices.iter().filter_map(|device| device.replica.as_ref()) {
            for changeset in replica.queue(None, usize::MAX)? {
                for (table, _) in rows_of(&changeset) {
                    let shape = self.app.tables().iter().find(|shape| shape.name == table);
                    if let Some(shape) = shape {
                        self.tables.entry(shape.name).or_default().parked += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// The server's rows before and after the last group, if that came to one entry of the log.
    pub(crate) fn last_step(&self) -> Option<(&Truth, &Truth)> {
        let mut latest = self.history.values().rev();
        let (after, before) = (latest.next()?, latest.next()?);
        (!after.is_coarse).then_some((&before.truth, &after.truth))
    }

    /// An update is not refused because its row is gone while the deletion is remembered and the
    /// author had the row. `name`: a row that everybody sees.
    pub(crate) fn check_gone(&self, name: &RowName, base: Version) -> anyhow::Result<()> {
        let mut moments = self.history.iter().rev().peekable();
        let mut death = None;
        while let Some((at, _)) =
            moments.next_if(|(_, moment)| !moment.truth.rows.contains_key(name))
        {
            death = Some(*at);
        }
        let mut birth = None;
        for (at, moment) in moments {
            if !moment.truth.rows.contains_key(name) {
                break;
            }
            birth = Some(*at);
            // It may have been deleted and inserted again among these.
            if moment.is_coarse {
                break;
            }
        }
        if let (Some(death), Some(birth)) = (death, birth)
            && death > self.horizon
            && base < death
            && base >= birth
        {
            bail!(
                "an update of {name:?} based on {base:?} is refused because the row is gone, but \
                 it was deleted at {death:?} and that is not forgotten"
            );
        }
        Ok(())
    }

    /// The server's rows are these from now on.
    pub(crate) fn moment(&mut self, version: Version, truth: Truth, entries: usize) {
        self.history_rows += truth.rows.len();
        // Looking once more tells no more of the entries before.
        let was_coarse = self
            .history
            .get(&version)
            .is_some_and(|moment| moment.is_coarse);
        let moment = Moment {
            truth,
            visible: RefCell::default(),
            is_coarse: entries > 1 || was_coarse,
        };
        if let Some(known) = self.history.insert(version, moment) {
            self.history_rows -= known.truth.rows.len();
        }
        while self.history.len() > HISTORY_MAX
            || (self.history_rows > HISTORY_ROWS_MAX && self.history.len() > 1)
        {
            if let Some((_, oldest)) = self.history.pop_first() {
                self.history_rows -= oldest.truth.rows.len();
            }
        }
    }

    fn newest(&self) -> Option<&Moment> {
        self.history.last_key_value().map(|(_, moment)| moment)
    }

    /// The server answered; without a disk it may say just that.
    pub(crate) fn answered(&mut self, result: &PushResult, has_disk: bool) -> anyhow::Result<()> {
        match &result.verdict {
            Verdict::Accepted(version) => {
                self.counts.add("accepted");
                let known = self.accepted.insert(result.id, *version);
                if let Some(known) = known.filter(|known| *known != *version) {
                    bail!(
                        "{} was applied twice, at {known:?} and at {version:?}",
                        result.id
                    );
                }
            }
            Verdict::Refused(refusal) => {
                self.counts.add(format!("refused {}", refusal.code));
                if refusal.code == code::MAYBE_APPLIED {
                    self.sent.check_doubt(result.id)?;
                }
                let blames_us = [code::MALFORMED, code::BASE, code::SCHEMA, code::STORAGE];
                let is_excused = refusal.code == code::STORAGE && !has_disk;
                if blames_us.contains(&refusal.code.as_str()) && !is_excused {
                    bail!("{} was refused: {refusal:?}", result.id);
                }
            }
        }
        Ok(())
    }

    /// A changeset was refused: what of it arrives later arrives after what was written later.
    pub(crate) fn refused(&mut self, submission: &Submission) {
        for change in &submission.changeset.changes {
            if self.numbers.get(&change.table) == Some(&"steps") {
                let id = literal_key(&change.key).trim_matches('\'').to_owned();
                self.excused.insert(id);
            }
        }
    }

    /// The server lost everything after `version`.
    pub(crate) fn server_restored(&mut self, version: Version, at: Timestamp) {
        self.history.retain(|known, _| *known <= version);
        self.history_rows = self.history.values().map(|m| m.truth.rows.len()).sum();
        self.accepted.retain(|_, known| *known <= version);
        self.forgive("server", at);
        self.causal.forget_all();
    }

    /// `author` went back to what was there at `at`.
    pub(crate) fn forgive(&mut self, author: &str, at: Timestamp) {
        for step in self.steps.values_mut() {
            step.may_be_lost |= step.author == author && step.at >= at;
        }
    }

    /// What the server does not have of `author`'s may be lost.
    pub(crate) fn forgive_missing(&mut self, author: &str) {
        let newest = self.history.last_key_value();
        for (id, step) in self.steps.iter_mut().filter(|(_, s)| s.author == author) {
            let name = ("steps", format!("'{id}'").into());
            step.may_be_lost |= !newest.is_some_and(|(_, m)| m.truth.rows.contains_key(&name));
        }
    }

    /// What was in this changeset is given up.
    pub(crate) fn discarded(&mut self, steps: &[String]) {
        for id in steps {
            if let Some(step) = self.steps.get_mut(id) {
                step.may_be_lost = true;
            }
        }
    }

    pub(crate) fn stepped(&mut self, step: String, author: &str, at: Timestamp) {
        self.causal.wrote(author, &step);
        let author = author.to_owned();
        let own = self.own.entry(author.clone()).or_default();
        own.found_in = None;
        own.ids.insert(step.clone());
        self.steps.insert(
            step,
            Step {
                author,
                at,
                may_be_lost: false,
            },
        );
    }

    /// Nothing in this frame is hidden from the user it goes to (invariant 3).
    pub(crate) fn check_sent(&mut self, who: Who<'_>, frame: &[u8]) -> anyhow::Result<()> {
        let message = decode_server(frame)?;
        match message {
            ServerMessage::Changes(changes) => {
                for record in &changes.records {
                    let body = RowBody::decode_all(&record.body).next();
                    let Some(body) = body.transpose()? else {
                        bail!("a record without a body");
                    };
                    self.check_body(who, &body, body.version, "changes")?;
                }
            }
            ServerMessage::Page(page) => {
                for part in &page.parts {
                    for body in RowBody::decode_all(&part.rows) {
                        self.check_body(who, &body?, page.version, "a page")?;
                    }
                }
            }
            ServerMessage::Welcome(_)
            | ServerMessage::PushResult(_)
            | ServerMessage::Grants(_)
            | ServerMessage::Checkpoint(_)
            | ServerMessage::Refusal(_)
            | ServerMessage::Pong(_)
            | ServerMessage::Unknown(_) => {}
        }
        Ok(())
    }

    fn check_body(
        &self,
        who: Who<'_>,
        body: &RowBody,
        version: Version,
        kind: &str,
    ) -> anyhow::Result<()> {
        let says_something = match body.state {
            RowState::Whole { .. } | RowState::Columns(_) => true,
            RowState::Deleted | RowState::Removed | RowState::Released => false,
        };
        let Some(table) = self.numbers.get(&body.table).filter(|_| says_something) else {
            return Ok(());
        };
        let name = (*table, literal_key(&body.key).into());
        let Some((end, then)) = self.history.range(version..).next() else {
            return Ok(());
        };
        // The oldest moments are forgotten: before the first that is known nothing is exact.
        let first = self.history.first_key_value();
        let is_known = first.is_some_and(|(first, _)| *first <= version);
        let is_exact = (!then.is_coarse && is_known) || *end == version;
        let may = then.sees(&self.app, who, &name)
            || !is_exact
            || self
                .newest()
                .is_some_and(|now| now.sees(&self.app, who, &name));
        if !may {
            bail!("{who:?} was sent {name:?} of {version:?} in {kind}, which rules forbid");
        }
        Ok(())
    }

    /// The steps in a changeset that waits in this file.
    pub(crate) fn steps_of(
        &self,
        replica: &Replica,
        changeset: &QueuedChangeset,
    ) -> anyhow::Result<Vec<String>> {
        if is_listed(changeset) {
            let steps = rows_of(changeset).filter(|(table, _)| table == "steps");
            return Ok(steps
                .map(|(_, key)| key.trim_matches('\'').to_owned())
                .collect());
        }
        let mut found = Vec::new();
        for id in self.steps.keys() {
            let row = replica.row_status("steps", &[Value::Text(id.as_str().into())])?;
            if row.pending.contains(&changeset.id) {
                found.push(id.clone());
            }
        }
        Ok(found)
    }

    /// Nothing that was written is lost, and nothing counts twice (invariant 2).
    pub(crate) fn check_rest(&mut self, truth: &Truth, devices: &[Device]) -> anyhow::Result<()> {
        self.look_at_tables(truth, devices)?;
        let mut parked = BTreeSet::new();
        for device in devices {
            let Some(replica) = &device.replica else {
                bail!("{} does not run", device.name);
            };
            for changeset in replica.queue(None, usize::MAX)? {
                parked.extend(self.steps_of(replica, &changeset)?);
                if let QueueState::Parked { code, .. } = &changeset.state {
                    self.counts.add(format!("parked {code}"));
                }
            }
        }
        if !self.app.is_own() {
            return Ok(());
        }
        check_pairs(&truth.rows)?;
        let mut of_tally: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for ((table, key), values) in &truth.rows {
            if *table == "steps" {
                let id = key.trim_matches('\'').to_owned();
                of_tally.entry(&values[0]).or_default().insert(id);
            }
        }
        let arrived: BTreeSet<&String> = of_tally.values().flatten().collect();
        for (id, step) in &self.steps {
            if !arrived.contains(id) && !parked.contains(id) && !step.may_be_lost {
                bail!("{id} of {} at {:?} is lost", step.author, step.at);
            }
        }
        self.counts
            .0
            .insert("steps arrived".into(), arrived.len() as u64);
        if self.app.has_on_demand() {
            let lacks_news = |id: &&&String| {
                let news = ("news", format!("'{id}'").into());
                !truth.rows.contains_key(&news)
            };
            if let Some(id) = arrived.iter().find(lacks_news) {
                bail!("{id} arrived without its row of news, which is of the same transaction");
            }
        }
        for ((table, key), values) in &truth.rows {
            if *table == "tallies" {
                let steps = of_tally.get(&**key).cloned().unwrap_or_default();
                let marks = items(&values[1]);
                let distinct: BTreeSet<String> = marks.iter().cloned().collect();
                if values[0] != steps.len().to_string()
                    || marks.len() != distinct.len()
                    || distinct != steps
                {
                    bail!(
                        "{key} was counted to {} with {marks:?}, but its steps are {steps:?}",
                        values[0]
                    );
                }
            }
            if *table == "tasks" {
                let items = items(&values[4]);
                let distinct: BTreeSet<&String> = items.iter().collect();
                if items.len() != distinct.len() {
                    bail!("the log of {key} has an item twice: {items:?}");
                }
            }
        }
        Ok(())
    }

    /// The log has every acknowledged changeset, unless it is allowed to have forgotten it.
    pub(crate) fn check_log(&self, conn: &rusqlite::Connection) -> anyhow::Result<()> {
        let mut statement =
            conn.prepare_cached("SELECT version FROM syncline_log WHERE changeset = ?1")?;
        let mut as_part = conn.prepare_cached(
            "SELECT 1 FROM syncline_log l WHERE version = ?1 AND (changeset = ?2 OR EXISTS
               (SELECT 1 FROM syncline_pieces p WHERE p.version = l.version AND p.whole = ?2))",
        )?;
        for (id, version) in self.accepted.iter().filter(|(_, v)| **v > self.horizon) {
            let mut found = statement.query([&id.0[..]])?;
            let at: Option<i64> = found.next()?.map(|row| row.get(0)).transpose()?;
            // A piece may be there as part of the changeset that it was cut from.
            if at.is_none()
                && let Some(whole) = self.sent.whole(*id)
                && as_part.exists((version.0.cast_signed(), &whole.0[..]))?
            {
                continue;
            }
            if at != Some(version.0.cast_signed()) {
                bail!("{id} was accepted at {version:?}, the log has it at {at:?}");
            }
        }
        Ok(())
    }
}

/// Whether the listing shows each of its changes, and not only the first ones.
pub(crate) fn is_listed(changeset: &QueuedChangeset) -> bool {
    changeset.changes_total == changeset.changes.len() as u64
}

fn rows_of(changeset: &QueuedChangeset) -> impl Iterator<Item = (String, String)> + '_ {
    let changes = changeset.changes.iter();
    changes.map(|change| (change.table.clone(), literal_key(&change.change.key)))
}

/// The texts of a JSON array of texts, as SQL quotes it.
pub(crate) fn items(quoted: &str) -> Vec<String> {
    let inside = quoted.split('"').skip(1).step_by(2);
    inside.map(str::to_owned).collect()
}
