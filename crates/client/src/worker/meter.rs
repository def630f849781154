//! Measuring a run: how far it is, and what it did.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use syncline_core::Timestamp;
use syncline_replica::{LoadProgress, RowCounts, Status, TableState, TableTally};

use super::Core;
use crate::{
    driver::{Notice, Summary},
    event::{ChangeRefused, ConflictNotice, Event},
    resolver,
    run::{Operation, Phase, Progress, Request, SyncReport, Tables},
    sync_error::{Error, ErrorKind},
    system,
};

/// Conflicts and errors that a report lists.
const LISTED_MAX: usize = 1_000;
/// Progress events are told this often at most.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// One run's progress and result.
pub(super) struct Meter {
    core: Rc<Core>,
    operation: Operation,
    tables: Tables,
    progress_to: Option<tokio::sync::mpsc::Sender<Progress>>,
    started: Instant,
    started_at: Timestamp,
    before: BTreeMap<String, TableTally>,
    last: Option<Progress>,
    told: Option<Instant>,
    /// Most changesets that waited, and rows that tables had to send as a whole.
    waiting_max: u64,
    to_seed: u64,
    conflicts: Vec<ConflictNotice>,
    errors: Vec<Error>,
}

impl Meter {
    pub(super) fn new(core: &Rc<Core>, request: &Request) -> Self {
        Self {
            core: Rc::clone(core),
            operation: request.operation,
            tables: request.tables.clone(),
            progress_to: request.progress.clone(),
            started: Instant::now(),
            started_at: system::now(),
            before: tally(core),
            last: None,
            told: None,
            waiting_max: 0,
            to_seed: 0,
            conflicts: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Rows that are to be sent as a whole.
    pub(super) fn will_seed(&mut self, rows: u64) {
        self.to_seed = rows;
    }

    /// Says where the run is; the percentage never falls.
    pub(super) fn at(&mut self, percentage: u64, phase: Phase, table: Option<&str>, text: String) {
        let before = self.last.as_ref().map_or(0, |last| last.percentage);
        let percentage = u8::try_from(percentage.min(100)).unwrap_or(100).max(before);
        let progress = Progress {
            percentage,
            message: text,
            table: table.map(str::to_owned),
            phase,
        };
        let is_news = self.last.as_ref().is_none_or(|last| last.phase != phase);
        let is_time = self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY);
        if self.last.as_ref() == Some(&progress) || !(is_news || is_time) {
            return;
        }
        self.told = Some(Instant::now());
        if let Some(to) = &self.progress_to {
            // A caller that does not take it gets the next one.
            let _full = to.try_send(progress.clone());
        }
        self.core.tell(&Event::SyncProgress(progress.clone()));
        self.last = Some(progress);
    }

    /// Takes what the driver tells while it runs.
    pub(super) fn notice(&mut self, notice: &Notice<'_>, status: &Status) {
        match notice {
            Notice::Event(event) => {
                if let syncline_replica::Event::Connected { .. } = event {
                    self.core.shared.connected.store(true, Ordering::Release);
                    self.at(5, Phase::Connecting, None, "connected".into());
                }
                if let syncline_replica::Event::Loading(progress) = event {
                    self.loading(*progress, status);
                }
                let Some(mut event) = Event::of(event) else {
                    return;
                };
                self.take(&mut event);
                self.core.tell(&event);
            }
            Notice::Sending => self.sending(status),
            Notice::Wiped(wiped) => {
                self.core.wiped();
                self.core.tell(&Event::Wiped((*wiped).clone()));
            }
            Notice::Disconnected { error, pause } => {
                self.core.shared.connected.store(false, Ordering::Release);
                let error = Error::of_client(error);
                self.core.tell(&Event::Disconnected {
                    error,
                    retry_after: *pause,
                });
            }
        }
    }

    fn take(&mut self, event: &mut Event) {
        if let Event::ConflictDetected(conflict) = event {
            resolver::begin(&self.core, &conflict.id, &conflict.table);
            if self.conflicts.len() < LISTED_MAX {
                self.conflicts.push(conflict.clone());
            }
        }
        if let Event::ChangeRefused(refused) = event {
            self.name_row(refused);
            if self.errors.len() < LISTED_MAX {
                let message = format!("{} was undone: {}", refused.row, refused.reason);
                let error = Error::new(ErrorKind::Refused, &refused.code, message);
                self.errors.push(error);
            }
        }
    }

    /// Table and key of the first row of a refused changeset.
    fn name_row(&self, refused: &mut ChangeRefused) {
        let queued = self.core.with(|replica| replica.queued(refused.changeset));
        if let Ok(Some(Some(queued))) = queued
            && let Some(first) = queued.changes.first()
        {
            refused.row = format!("{} {}", first.table, first.change.key);
        } else {
            refused.row = "a change".into();
        }
    }

    fn sending(&mut self, status: &Status) {
        let waiting = status.waiting + status.accepted;
        self.waiting_max = self.waiting_max.max(waiting);
        let seeding = status.tables.iter().find(|table| table.seeding);
        let (done, of, text) = if self.to_seed > 0 {
            let sent: u64 = status.tables.iter().map(|table| table.rows).sum();
            let sent = sent.min(self.to_seed);
            let text = format!("sending row {sent} of {}", self.to_seed);
            (sent, self.to_seed, text)
        } else {
            let text = format!("sending, {waiting} to go");
            (self.waiting_max - waiting, self.waiting_max, text)
        };
        let table = seeding.map(|table| table.name.as_str());
        self.at(part(5, 60, done, of), Phase::Sending, table, text);
    }

    fn loading(&mut self, progress: LoadProgress, status: &Status) {
        let done = progress.done;
        let total = progress.remaining.map(|left| done + left);
        let text = match total {
            Some(total) => format!("receiving row {done} of {total}"),
            None => format!("receiving, {done} rows so far"),
        };
        let table = status
            .tables
            .iter()
            .find(|table| table.state == TableState::Loading)
            .map(|table| table.name.as_str());
        let percentage = part(5, 95, done, total.unwrap_or(0));
        self.at(percentage, Phase::Receiving, table, text);
    }

    /// The result of a run that ended well.
    pub(super) fn report(&mut self, summary: &Summary) -> SyncReport {
        let mut report = self.blank(false);
        for (name, tally) in tally(&self.core) {
            if name.starts_with("syncline_") || !self.tables.contains(&name) {
                continue;
            }
            let before = self.before.get(&name).copied().unwrap_or_default();
            report.sent.add(tally.sent.since(before.sent));
            report.received.add(tally.received.since(before.received));
        }
        report.records_processed = report.sent.total() + report.received.total();
        report.edits_lost = summary.edits_lost;
        report.bytes_sent = summary.bytes_sent;
        report.bytes_received = summary.bytes_received;
        report.network_time = summary.waited;
        report.conflicts = std::mem::take(&mut self.conflicts);
        report.errors = std::mem::take(&mut self.errors);
        let text = format!("{} records", report.records_processed);
        self.at(100, Phase::Done, None, text);
        report
    }

    /// The result where no server is configured.
    pub(super) fn offline(&mut self) -> SyncReport {
        let text = "offline: no server is configured".to_owned();
        self.at(100, Phase::Done, None, text);
        SyncReport {
            is_offline: true,
            ..self.blank(false)
        }
    }

    /// A result with nothing in it yet.
    pub(super) fn blank(&self, dry_run: bool) -> SyncReport {
        SyncReport {
            operation: self.operation,
            tables: self.tables.clone(),
            dry_run,
            is_offline: false,
            records_processed: 0,
            sent: RowCounts::default(),
            received: RowCounts::default(),
            conflicts: Vec::new(),
            edits_lost: 0,
            errors: Vec::new(),
            bytes_sent: 0,
            bytes_received: 0,
            started_at: self.started_at,
            duration: self.started.elapsed(),
            network_time: Duration::ZERO,
        }
    }

    /// What goes on in a run that has no end is measured anew from here.
    pub(super) fn restart(&mut self) {
        self.started = Instant::now();
        self.started_at = system::now();
        self.before = tally(&self.core);
        (self.last, self.waiting_max, self.to_seed) = (None, 0, 0);
    }
}

fn tally(core: &Core) -> BTreeMap<String, TableTally> {
    let replica = core.replica();
    replica.map_or_else(BTreeMap::new, |replica| replica.borrow().tally().clone())
}

/// `done` of `of` as a percentage between two others.
fn part(from: u64, to: u64, done: u64, of: u64) -> u64 {
    match of {
        0 => from,
        of => from + (to - from) * done.min(of) / of,
    }
}
