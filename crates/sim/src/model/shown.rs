//! What a device shows, at its checkpoints and between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
    rc::Rc,
};

use anyhow::{Context as _, anyhow, bail};
use syncline_core::{ChangesetId, Version};
use syncline_replica::{QueueState, QueuedChangeset};

use super::{
    Model,
    demand::{Demand, Presence},
    is_listed, rows_of,
    sealed::agree_sealed,
};
use crate::{
    checker::{atomic, waiting},
    device::Device,
    rows::{RowName, Rows, agree, side_by_side, without_effort},
    schema::Who,
};

/// After these, what was accepted or parked may be sent again, and then depends on nothing any more.
const TWISTS: [&str; 5] = [
    "RestoreServer",
    "RestoreDevice",
    "CopyDevice",
    "Silence",
    "retries",
];

/// Rows that a device shows, and what is known of them.
struct Comparison<'a> {
    here: &'a Rows,
    /// Rows that what waits writes.
    touched: &'a BTreeMap<String, BTreeSet<String>>,
    version: Version,
    may_lack: bool,
    /// `None` where no table is on demand.
    demand: Option<Demand>,
    /// Nothing is under way any more.
    at_rest: bool,
}

impl Model {
    /// What somebody wrote is in view on their device from then on, unless it was refused: also
    /// between its acceptance and the checkpoint that has it.
    pub(crate) fn check_own_steps(&mut self, device: &Device) -> anyhow::Result<()> {
        let Some(own) = self.own.get(&device.name) else {
            return Ok(());
        };
        // Steps that may be lost since leave fewer to look for.
        let file = device.file_version()?;
        if own.found_in == Some(file) {
            return Ok(());
        }
        let steps = &self.steps;
        let counts = |id: &&String| steps.get(*id).is_some_and(|step| !step.may_be_lost);
        let mut hidden: BTreeSet<&str> = own.ids.iter().filter(counts).map(|id| &**id).collect();
        if !hidden.is_empty() {
            let mut statement = device.app.prepare_cached("SELECT id FROM steps")?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                hidden.remove(row.get_ref(0)?.as_str()?);
            }
        }
        if let Some(replica) = device.replica.as_ref().filter(|_| !hidden.is_empty()) {
            let mut parked = Vec::new();
            for changeset in replica.queue(None, usize::MAX)? {
                if matches!(changeset.state, QueueState::Parked { .. }) {
                    parked.extend(self.steps_of(replica, &changeset)?);
                }
            }
            self.parked_once.extend(parked);
            // One that was accepted after all comes back with its checkpoint.
            let is_missing = |id: &&&str| !self.parked_once.contains(**id);
            if let Some(id) = hidden.iter().find(is_missing) {
                bail!("{} wrote {id} and does not see it", device.name);
            }
        }
        if let Some(own) = self.own.get_mut(&device.name) {
            own.found_in = device.replica.is_some().then_some(file);
        }
        Ok(())
    }

    /// What builds on a refused changeset is not sent: here, what wrote its rows after it.
    pub(crate) fn check_dependants(
        &self,
        device: &Device,
        refused: ChangesetId,
    ) -> anyhow::Result<()> {
        if TWISTS
            .iter()
            .any(|fault| self.counts.0.contains_key(*fault))
        {
            return Ok(());
        }
        let replica = device.replica.as_ref();
        let queue = replica.map_or(Ok(Vec::new()), |r| r.queue(None, usize::MAX))?;
        let mut later = queue.iter().skip_while(|changeset| changeset.id != refused);
        let Some(rows) = later.next().map(|c| rows_of(c).collect::<BTreeSet<_>>()) else {
            return Ok(());
        };
        let waits = |c: &&QueuedChangeset| !matches!(c.state, QueueState::Parked { .. });
        for changeset in later.filter(waits) {
            if let Some(row) = rows_of(changeset).find(|row| rows.contains(row)) {
                bail!(
                    "{}: {refused} was refused, but {}, which wrote {row:?} after it, is not held \
                     back",
                    device.name,
                    changeset.id
                );
            }
        }
        Ok(())
    }

    /// The device shows exactly the server's rows of its checkpoint, but for its unsent changes
    /// (invariant 1). `false`: nothing is known to compare with.
    pub(crate) fn check_device(
        &mut self,
        device: &Device,
        version: Version,
    ) -> anyhow::Result<bool> {
        self.check(device, version, &[device.who], false, true)
    }

    /// As [`Model::check_device`], where the rows may be what any one of `whos` may see; `may_lack`:
    /// rows may be gone whose grants were lost since.
    pub(crate) fn check_file(
        &mut self,
        device: &Device,
        version: Version,
        whos: &[Who<'_>],
        may_lack: bool,
    ) -> anyhow::Result<bool> {
        self.check(device, version, whos, may_lack, false)
    }

    fn check(
        &mut self,
        device: &Device,
        version: Version,
        whos: &[Who<'_>],
        may_lack: bool,
        at_rest: bool,
    ) -> anyhow::Result<bool> {
        let Some(replica) = &device.replica else {
            return Ok(false);
        };
        let status = replica.status()?;
        let seeding = status.tables.iter().any(|table| table.seeding);
        if status.loading.is_some() || seeding {
            return Ok(false);
        }
        let Some(moment) = self.history.get(&version) else {
            return Ok(false);
        };
        let mut touched: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut queue = replica.queue(None, usize::MAX)?;
        self.sent.check(&device.name, &queue)?;
        queue.retain(|changeset| !matches!(changeset.state, QueueState::Parked { .. }));
        for changeset in &queue {
            // A listing shows the first changes only: nobody can say what the others touch.
            if !is_listed(changeset) {
                return Ok(false);
            }
            for (table, key) in rows_of(changeset) {
                touched.entry(table).or_default().insert(key);
            }
        }
        if status.unstorable > 0 {
            bail!("{} cannot hold {} rows", device.name, status.unstorable);
        }
        let mut here = self.reader.read(&device.app, self.app.tables())?;
        // What the app has in a column of its own is sent as soon as it hears that the server has
        // that column, too.
        if self.app.is_own() && !status.connected {
            without_effort(&mut here);
        }
        let comparison = Comparison {
            here: &here,
            touched: &touched,
            version,
            may_lack,
            demand: match self.app.has_on_demand() {
                true => Some(Demand::new(replica.subscriptions()?)),
                false => None,
            },
            at_rest,
        };
        let mut found = Err(anyhow!("nobody is asked for"));
        for who in whos {
            found = self.compare(&comparison, *who);
            if found.is_ok() {
                break;
            }
        }
        found.with_context(|| {
            let queue = replica.queue(None, 20);
            format!("{} at {version:?}; the queue is {queue:#?}", device.name)
        })?;
        // Counters are columns of rows that everybody sees.
        let visible = moment.visible(&self.app, device.who);
        if self.app.is_own() {
            waiting::check_counters(&here, &moment.truth.rows, &visible, &queue)
                .map_err(|error| error.context(format!("{} at {version:?}", device.name)))?;
            check_pairs(&here).map_err(|error| error.context(device.name.clone()))?;
        }
        self.counts.add("checkpoints compared");
        Ok(true)
    }

    /// Whether a device that shows these rows shows what `who` may see.
    fn compare(&self, comparison: &Comparison<'_>, who: Who<'_>) -> anyhow::Result<()> {
        let (here, version) = (comparison.here, comparison.version);
        let Some(moment) = self.history.get(&version) else {
            return Ok(());
        };
        let visible = moment.visible(&self.app, who);
        let is_touched = |(table, key): &RowName| {
            let keys = comparison.touched.get(*table);
            keys.is_some_and(|keys| keys.contains(&**key))
        };
        for (name, found, expected) in side_by_side(here, &visible) {
            // Most are the very same row.
            if comparison.demand.is_none()
                && found.is_some_and(|found| expected.is_some_and(|row| Rc::ptr_eq(found, row)))
            {
                continue;
            }
            if is_touched(name) {
                continue;
            }
            let presence = match (expected, &comparison.demand) {
                (Some(values), Some(demand)) => demand.presence(&moment.truth, who, name, values),
                (None, _) | (_, None) => Presence::Must,
            };
            match (found, presence) {
                (Some(_), Presence::MustNot) if comparison.at_rest => {
                    bail!("{name:?} is here, and nobody asks for it")
                }
                (None, Presence::May | Presence::MustNot) => continue,
                _ => {}
            }
            let is_equal = match (found, expected) {
                (Some(found), Some(expected)) => {
                    agree(found, expected)
                        || agree_sealed(self.sealed.as_ref(), name, found, expected)
                }
                (found, expected) => found == expected,
            };
            if is_equal || (comparison.may_lack && found.is_none()) {
                continue;
            }
            // On connecting, what was lost meanwhile goes before anything else comes: checkpoints
            // on the way to the log's end are of before that. It may be back by now.
            // The server may also have been told of a commit, and its session not yet.
            let mut later = self.history.range((Excluded(version), Unbounded));
            if found.is_none() && later.any(|(_, then)| !then.sees(&self.app, who, name)) {
                continue;
            }
            bail!(
                "{name:?} is {found:?}, the server has {expected:?} for {who:?} (and {:?} at all)",
                moment.truth.rows.get(name),
            );
        }
        Ok(())
    }

    /// What a device shows between checkpoints contradicts nothing that it or others have seen,
    /// and no half of a transaction shows.
    pub(crate) fn check_shown(&mut self, device: &Device) -> anyhow::Result<()> {
        if !self.app.is_own() {
            return Ok(());
        }
        let tables = self.app.tables().iter();
        let judged = tables.filter(|table| ["pairs", "steps"].contains(&table.name));
        let rows = self.reader.read(&device.app, judged)?;
        check_pairs(&rows).map_err(|error| error.context(device.name.clone()))?;
        let Some(replica) = &device.replica else {
            return Ok(());
        };
        // The promises hold for what is live.
        let activity = replica.activity()?;
        if activity.loading.is_some() || activity.seeding || replica.checkpoint()?.is_none() {
            return Ok(());
        }
        let steps = rows.keys().filter(|(table, _)| *table == "steps");
        let shown = steps
            .map(|(_, key)| key.trim_matches('\'').to_owned())
            .collect();
        let mut parked = BTreeSet::new();
        let queue = replica.queue(None, usize::MAX)?;
        self.sent.check(&device.name, &queue)?;
        for changeset in queue {
            if matches!(changeset.state, QueueState::Parked { .. }) {
                parked.extend(self.steps_of(replica, &changeset)?);
            }
        }
        // What was refused anywhere is waiting there for a person, or was given up.
        self.excused.extend(parked);
        let steps = &self.steps;
        let excused = &self.excused;
        let truth = self
            .history
            .last_key_value()
            .map(|(_, moment)| &moment.truth.rows);
        let has_arrived = |id: &str| {
            let name = ("steps", format!("'{id}'").into());
            truth.is_some_and(|rows| rows.contains_key(&name))
        };
        // What others wrote and the server has not got is nobody's to see: it may be refused.
        let is_excused = |id: &str| match steps.get(id) {
            Some(step) => {
                let is_own = step.author == device.name;
                step.may_be_lost || excused.contains(id) || (!is_own && !has_arrived(id))
            }
            None => true,
        };
        let read = self.causal.read(&device.name, &shown, is_excused);
        self.counts.add("reads between checkpoints");
        read.map_err(|anomaly| anyhow::anyhow!("{} {anomaly}", device.name))
    }

    /// What this device shows has nothing to do with what it showed before.
    pub(crate) fn forget_reads(&mut self, device: &str) {
        self.causal.forget_reader(device);
    }
}

/// Both halves of each pair are there, and add up to zero (invariant 4).
pub(super) fn check_pairs(rows: &Rows) -> anyhow::Result<()> {
    let pairs = rows.iter().filter(|((table, _), _)| *table == "pairs");
    let values: Vec<_> = pairs
        .map(|(_, values)| Ok((&values[0], values[1].parse::<i64>()?)))
        .collect::<Result<_, std::num::ParseIntError>>()?;
    atomic::check_pairs(values.into_iter())
}
