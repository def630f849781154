//! One run: devices, a server, time, and what goes wrong.

mod demand;
mod devices;
mod faults;
mod people;
mod rest;
mod serve;

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use anyhow::{Context as _, anyhow, bail};
use rusqlite::Connection;
use syncline_core::{Timestamp, Version};
use syncline_server::SessionId;

use crate::{
    checker::bounded::check_replica,
    database::Disk,
    device::{Birth, Device, OldFile},
    link::Lane,
    model::{Counts, Model, TableSeen},
    oracle::Oracle,
    plan::{Fault, Plan, Scenario},
    rng::Rng,
    schema::Who,
    script::{Act, Script, Step},
    server::Server,
    subject::App,
    trace::{Trace, Way},
};

/// 2026-01-01, when every run begins.
const START: Timestamp = Timestamp(1_767_225_600_000_000);
/// Frames that are under way at once; more wait in the session.
const FRAMES_UNDER_WAY: usize = 16;
/// Things that happen between two steps: more is a storm.
const STORM: u64 = 30_000;
/// Edits that write thousands of rows, where there are such.
const BULK_PERCENT: u64 = 3;
/// What a run is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub seed: u64,
    /// Edits and faults.
    pub steps: usize,
    pub scenario: Scenario,
    /// Prints every line of the trace.
    pub trace: bool,
}

/// A run that went well.
#[derive(Debug)]
pub struct Outcome {
    /// Equal for every run of the same script.
    pub hash: u64,
    /// Virtual seconds that it lasted.
    pub seconds: u64,
    pub counts: Counts,
    pub tables: BTreeMap<&'static str, TableSeen>,
    /// How large files were at each rest.
    pub sizes: Vec<Sizes>,
}

/// How much room everything takes at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Virtual seconds since the run began.
    pub seconds: u64,
    pub server_bytes: u64,
    /// The largest of the devices' files.
    pub device_bytes: u64,
}

/// A run in which a promise was broken.
#[derive(Debug)]
pub struct Failure {
    pub error: anyhow::Error,
    /// The end of the trace.
    pub trace: Vec<String>,
    /// What people and programs did, step by step, without frames.
    pub story: Vec<String>,
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`]: a promise was broken, and the last that happened before.
pub fn simulate(options: Options) -> Result<Outcome, Box<Failure>> {
    let script = Script::of_seed(options.seed, options.steps, options.scenario);
    simulate_script(&script, options.trace)
}

/// Runs what a fuzzer's bytes say; any bytes will do.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_bytes(bytes: &[u8]) -> Result<Outcome, Box<Failure>> {
    simulate_script(&Script::of_bytes(bytes), false)
}

/// Runs a script.
///
/// # Errors
/// As [`simulate`]; a panic of the engine is one of them.
pub fn simulate_script(script: &Script, trace: bool) -> Result<Outcome, Box<Failure>> {
    simulate_app(&App::own(), script, trace)
}

/// Runs a script on another app than the simulator's own.
///
/// # Errors
/// As [`simulate_script`].
pub fn simulate_app(app: &Rc<App>, script: &Script, trace: bool) -> Result<Outcome, Box<Failure>> {
    let mut world = World::new(app, script, trace).map_err(|error| {
        Box::new(Failure {
            error,
            trace: Vec::new(),
            story: Vec::new(),
        })
    })?;
    let run = catch_unwind(AssertUnwindSafe(|| world.run(&script.steps)));
    match run.unwrap_or_else(|panic| Err(panicked(&*panic))) {
        Ok(()) => Ok(Outcome {
            hash: world.trace.hash(),
            seconds: world.seconds(),
            tables: world.model.tables,
            counts: world.model.counts,
            sizes: world.sizes,
        }),
        Err(error) => Err(Box::new(Failure {
            error,
            trace: world.trace.tail(),
            story: world.story,
        })),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    anyhow!("panicked: {}", text.unwrap_or("without a word"))
}

struct World {
    now: Timestamp,
    /// Decides what is no step.
    rng: Rng,
    /// Decides the step that is under way.
    dice: Rng,
    plan: Plan,
    /// What steps did, for a failure's report, and whether what is said now belongs to it.
    story: Vec<String>,
    is_telling: bool,
    server: Server,
    /// When the server is started again.
    server_at: Option<Timestamp>,
    /// When it commits what waits.
    commit_at: Option<Timestamp>,
    devices: Vec<Device>,
    /// Sessions whose other end is gone without a word, and what it sent that still arrives.
    ghosts: Vec<(SessionId, Lane)>,
    /// When the server's disk works again.
    disk_at: Option<Timestamp>,
    model: Model,
    oracle: Oracle,
    trace: Trace,
    /// When the server was restored, and to which end of its log.
    server_losses: Vec<(Timestamp, Version)>,
    /// Old copies: of the server, and of devices by position.
    server_copy: Option<(Connection, Timestamp)>,
    device_copies: Vec<(usize, OldFile)>,
    next_id: u64,
    happened: u64,
    /// Faults have ended, and everything comes to rest.
    is_resting: bool,
    retention_ms: Option<u64>,
    sizes: Vec<Sizes>,
}

impl World {
    fn new(app: &Rc<App>, script: &Script, trace: bool) -> anyhow::Result<Self> {
        let mut rng = Rng::new(script.seed);
        let plan = script.plan.clone();
        let app = &app.for_plan(&plan);
        let disk = Disk::new(plan.files)?;
        let server = Server::start(Rc::clone(app), rng.fork(), &disk, START)?;
        let numbers = Rc::new(server.numbers());
        let mut world = Self {
            now: START,
            dice: Rng::new(0),
            story: Vec::new(),
            is_telling: true,
            plan,
            server,
            server_at: None,
            commit_at: None,
            devices: Vec::new(),
            ghosts: Vec::new(),
            disk_at: None,
            model: Model::new(Rc::clone(app)),
            trace: Trace::new(trace, Rc::clone(&numbers)),
            oracle: Oracle::default(),
            server_losses: Vec::new(),
            server_copy: None,
            device_copies: Vec::new(),
            next_id: 0,
            happened: 0,
            is_resting: false,
            retention_ms: script.retention_ms,
            sizes: Vec::new(),
            rng,
        };
        let plan = world.plan.clone();
        world.say(format!("{plan:?}"));
        world.model.numbers = numbers;
        if world.model.app.has_on_demand() {
            world.model.sealed = world.server.plan.schema().table("letters").cloned();
        }
        world.oracle.tables = (*world.model.numbers).clone();
        world.oracle.columns = world.server.columns();
        world.oracle.winners.strategies = world.server.strategies();
        let head = world.server_head()?;
        world.remember(head, 1)?;
        for i in 0..plan.devices {
            let user = *world.rng.pick(app.users());
            let birth = match app.before().filter(|_| world.rng.percent(30)) {
                Some((tables, rows)) => Birth::Filled { tables, rows },
                None => Birth::Empty,
            };
            let skew = match plan.has(Fault::Clock) {
                true => skew(&mut world.rng),
                false => 0,
            };
            let name = format!("d{i}");
            world.say(format!(
                "{name} is {user}'s, {}, {skew} ms ahead",
                birth.name()
            ));
            let fork = world.rng.fork();
            let device = Device::new(
                name,
                Who::first(user),
                birth,
                skew,
                fork,
                disk.clone(),
                START,
            )?;
            world.devices.push(device);
        }
        Ok(world)
    }

    fn run(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        for step in steps {
            self.is_telling = true;
            self.dice = Rng::new(step.salt);
            self.step(step)?;
            self.is_telling = false;
            self.advance(self.now.plus_millis(step.pause_ms))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        self.say(format!("step {}: {}", step.number, step.act));
        match step.act {
            Act::Edit => self.edit(),
            Act::Tend => self.tend_queue(),
            Act::CopyFile => self.copy_file(),
            Act::Backup => {
                if self.server.is_up() {
                    self.server_copy = Some((self.server.backup()?, self.now));
                }
                Ok(())
            }
            Act::Fault(fault) => {
                self.model.counts.add(format!("{fault:?}"));
                self.inflict(fault)
            }
            Act::Rest => {
                self.is_telling = false;
                self.come_to_rest()?;
                self.check_rest()?;
                self.weigh()?;
                match self.retention_ms {
                    Some(retention) => self.keep(retention),
                    None => Ok(()),
                }
            }
        }
    }

    /// A device's file, to come back later.
    fn copy_file(&mut self) -> anyhow::Result<()> {
        let i = self.any_device();
        if self.seal_whole(i)? {
            let copy = self.devices[i].old_file(self.now)?;
            self.device_copies.retain(|(of, _)| *of != i);
            self.device_copies.push((i, copy));
        }
        Ok(())
    }

    /// Lets everything happen that is due until then.
    fn advance(&mut self, until: Timestamp) -> anyhow::Result<()> {
        self.happened = 0;
        loop {
            self.collect()?;
            self.server.check_bounded()?;
            self.check_devices_bounded()?;
            let devices = self.devices.iter().filter_map(|device| {
                let session = device.link.as_ref().map(|link| link.session);
                device.due(session.is_none_or(|session| self.server.listens(session)))
            });
            let late = self
                .ghosts
                .iter()
                .filter_map(|(session, late)| late.due().filter(|_| self.server.listens(*session)));
            let others = [
                self.server_at,
                self.commit_at,
                self.disk_at,
                self.server.due(),
                late.min(),
            ];
            let next = devices.chain(others.into_iter().flatten()).min();
            self.check_told(next.map_or(until, |next| next.min(until)))?;
            let Some(next) = next.filter(|next| *next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            self.serve()?;
            for i in 0..self.devices.len() {
                self.device_turn(i)?;
            }
            self.happened += 1;
            if self.happened > STORM {
                bail!("a storm: more than {STORM} things happen without end");
            }
        }
        self.now = self.now.max(until);
        Ok(())
    }

    fn check_devices_bounded(&self) -> anyhow::Result<()> {
        for device in &self.devices {
            if let Some(replica) = &device.replica {
                check_replica(replica.held()).with_context(|| device.name.clone())?;
            }
        }
        Ok(())
    }

    /// Nothing happens until `then`: whoever has a sound connection is not kept waiting for long.
    fn check_told(&mut self, then: Timestamp) -> anyhow::Result<()> {
        let has_no_work =
            self.server.is_up() && self.commit_at.is_none() && !self.server.has_waiting();
        for device in &mut self.devices {
            let is_quiet = has_no_work && device.is_quiet();
            if device.patience.is_over(is_quiet, self.now, then)
                && let Some(open) = device.is_not_told()?
            {
                bail!(
                    "{} is connected, nothing is under way, and still it is not told that this \
                     was all: {open}",
                    device.name
                );
            }
        }
        Ok(())
    }

    /// Moves what sessions have to say onto the links.
    fn collect(&mut self) -> anyhow::Result<()> {
        let now = self.now;
        for i in 0..self.devices.len() {
            loop {
                let device = &mut self.devices[i];
                let Some(link) = &mut device.link else { break };
                let session = link.session;
                let mut moved = false;
                while link.down.len() < FRAMES_UNDER_WAY
                    && let Some(frame) = self.server.poll_frame(session)
                {
                    moved = true;
                    self.model.check_sent(device.who, &frame)?;
                    if !link.is_dark {
                        link.down.send(frame, now, &mut device.rng);
                    }
                }
                if !moved {
                    break;
                }
                self.server.pump(session, now)?;
            }
            let device = &self.devices[i];
            let is_over = device.link.as_ref().is_some_and(|link| {
                !link.is_dark && link.down.len() == 0 && !self.server.has(link.session)
            });
            if is_over {
                self.say(format!("{} is hung up on", self.devices[i].name));
                self.hang_up(i)?;
            }
        }
        for (ghost, late) in std::mem::take(&mut self.ghosts) {
            while self.server.poll_frame(ghost).is_some() {
                self.server.pump(ghost, now)?;
            }
            if self.server.has(ghost) {
                self.ghosts.push((ghost, late));
            }
        }
        self.bury_server()
    }

    fn server_head(&mut self) -> anyhow::Result<Version> {
        self.server.head().context("the log's end")
    }

    fn any_device(&mut self) -> usize {
        usize::try_from(self.dice.below(self.devices.len() as u64)).expect("a few devices")
    }

    /// Virtual ones since the run began.
    fn seconds(&self) -> u64 {
        (self.now.0 - START.0) / 1_000_000
    }

    fn say(&mut self, text: impl std::fmt::Display) {
        let at = Timestamp(self.now.0 - START.0);
        if self.is_telling {
            let seconds = at.0 / 1_000_000;
            let millis = at.0 / 1_000 % 1_000;
            self.story
                .push(format!("{seconds:>6}.{millis:03} s  {text}"));
        }
        self.trace.line(at, text);
    }

    fn say_frame(&mut self, i: usize, way: Way, frame: &[u8]) {
        let at = Timestamp(self.now.0 - START.0);
        self.trace.frame(at, &self.devices[i].name, way, frame);
    }
}

/// How far a clock is off, in milliseconds.
fn skew(rng: &mut Rng) -> i64 {
    *rng.pick(&[
        0,
        0,
        700,
        -900,
        45_000,
        -45_000,
        3_600_000,
        -3_600_000,
        31_536_000_000,
    ])
}
