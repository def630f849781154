//! A network that cuts at every frame, says things twice, and changes bits.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rusqlite::Connection;

use crate::{
    check,
    device::{Device, fleet},
    dice::Dice,
    lab::Lab,
    ledger::Outcome,
    proxy::{Fault, Placed, Proxy, Way},
    server::Server,
};

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Harm {
    /// Ends the connection before, inside and after each frame of each conversation.
    Cut,
    /// Lets an earlier frame of the connection arrive once more.
    Repeat,
    /// Changes one bit of a frame.
    Flip,
}

/// A conversation that is repeated with a fault in another place each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Talk {
    /// A new file gets tables and rows.
    Hydrate,
    /// One small transaction.
    Push,
    /// One transaction of some megabytes, in parts.
    Parts,
    /// What another device wrote.
    Pull,
    /// A connection that stays: own edits go up, others' come down.
    Live,
    /// The same as `Push` and `Pull` at once, over plain HTTP.
    Http,
}

const TALKS: [Talk; 6] = [
    Talk::Hydrate,
    Talk::Push,
    Talk::Parts,
    Talk::Pull,
    Talk::Live,
    Talk::Http,
];

/// A conversation that takes longer is told: somebody waits for what does not come.
const SLOW: Duration = Duration::from_secs(20);

struct Field<'a> {
    lab: &'a Lab,
    folder: PathBuf,
    server: Server,
    proxy: Proxy,
    devices: Vec<Device>,
    /// Files so far; each hydrated one is new.
    files: u64,
}

pub(crate) fn run(
    lab: &mut Lab,
    dice: &mut Dice,
    outcome: &mut Outcome,
    harm: Harm,
    every: u64,
    only: Option<Talk>,
    check_every: u64,
) -> Result<()> {
    for talk in TALKS {
        if only.is_some_and(|only| only != talk) {
            continue;
        }
        let folder = lab.round()?;
        let server = Server::start(lab, &folder, None)?;
        let devices = fleet(lab, &folder, &server, 2, "wal")?;
        let proxy = Proxy::to(server.address())?;
        let mut field = Field {
            lab,
            folder,
            server,
            proxy,
            devices,
            files: 0,
        };
        field.devices[0].url.clone_from(&field.proxy.url);
        field.proxy.refuse_web_sockets(talk == Talk::Http);
        // The first time other frames may go, such as the server's tables.
        field.hold(talk, &[])?;
        field.hold(talk, &[])?;
        let frames = [field.proxy.frames(Way::Up), field.proxy.frames(Way::Down)];
        let mut places = places(dice, harm, frames);
        let skipped = dice.below(every);
        places = places
            .into_iter()
            .skip(usize::try_from(skipped)?)
            .step_by(usize::try_from(every)?)
            .collect();
        let (mut done, mut hits) = (0, 0);
        for placed in &places {
            let began = Instant::now();
            hits += field
                .hold(talk, &[*placed])
                .with_context(|| format!("{talk:?} with {placed:?} of {frames:?} frames"))?;
            if began.elapsed() > SLOW {
                let seconds = began.elapsed().as_secs();
                println!("  {talk:?} took {seconds} s with {placed:?} of {frames:?} frames");
            }
            done += 1;
            if done % check_every.max(1) == 0 {
                field
                    .compare(harm)
                    .with_context(|| format!("after {talk:?}, {placed:?}"))?;
            }
        }
        let mended = field
            .compare(harm)
            .with_context(|| format!("after {talk:?}, {harm:?}"))?;
        match harm {
            Harm::Cut => outcome.cuts += hits,
            Harm::Repeat | Harm::Flip => outcome.faults += hits,
        }
        println!(
            "  {talk:?}: {} frames up, {} down; {hits} of {} faults hit{mended}",
            frames[0],
            frames[1],
            places.len()
        );
    }
    Ok(())
}

/// All places for a fault in a conversation of so many frames.
fn places(dice: &mut Dice, harm: Harm, frames: [u64; 2]) -> Vec<Placed> {
    let mut places = Vec::new();
    for (way, count) in [(Way::Up, frames[0]), (Way::Down, frames[1])] {
        for frame in 0..count {
            let faults = match harm {
                Harm::Cut => vec![Fault::CutBefore, Fault::CutInside, Fault::CutAfter],
                Harm::Repeat => vec![
                    Fault::Repeat { back: 0 },
                    Fault::Repeat {
                        back: dice.below(4),
                    },
                ],
                Harm::Flip => (0..4)
                    .map(|_| Fault::Flip {
                        byte: dice.below(400),
                        bit: (dice.below(8) & 7) as u8,
                    })
                    .collect(),
            };
            places.extend(faults.into_iter().map(|fault| Placed { way, frame, fault }));
        }
    }
    places
}

impl Field<'_> {
    /// Holds the conversation to its end; how many faults happened.
    fn hold(&mut self, talk: Talk, faults: &[Placed]) -> Result<u64> {
        match talk {
            Talk::Hydrate => {
                self.files += 1;
                let file = self.folder.join(format!("new-{}.db", self.files));
                let mut device = self.devices[0].copy(&file);
                device.url.clone_from(&self.proxy.url);
                self.proxy.begin(faults);
                // A fault may end it; what was begun goes on with `sync`.
                if device.attempt(self.lab, "hydrate", &[])? != 0 {
                    self.proxy.begin(&[]);
                    let again = if file.exists() { "sync" } else { "hydrate" };
                    device.run(self.lab, again, &[], 0)?;
                }
                // So may a fault of a later connection.
                self.sync_through(&device)?;
            }
            Talk::Push | Talk::Parts | Talk::Pull | Talk::Http => {
                let body = "x".repeat(if talk == Talk::Parts { 3_000_000 } else { 40 });
                if talk != Talk::Pull {
                    self.devices[0].edit(&body)?;
                }
                if matches!(talk, Talk::Pull | Talk::Http) {
                    self.devices[1].edit(&body)?;
                    self.devices[1].run(self.lab, "sync", &[], 0)?;
                }
                self.proxy.begin(faults);
                self.sync_through(&self.devices[0])?;
            }
            Talk::Live => {
                self.proxy.begin(faults);
                self.devices[0].start(self.lab, None, &["--pace", "1000"])?;
                let acked = self.devices[0].acked;
                self.devices[0].until("edits at the server", |device| {
                    device.acked >= acked.max(1) + 3
                })?;
                self.devices[1].edit("from the other")?;
                self.devices[1].run(self.lab, "sync", &[], 0)?;
                self.devices[0].drain()?;
                self.devices[0].kill();
            }
        }
        Ok(self.proxy.hits())
    }

    /// A command that a fault ended says so; the next one, without a fault, gets through.
    fn sync_through(&self, device: &Device) -> Result<()> {
        if device.attempt(self.lab, "sync", &[])? != 0 {
            self.proxy.begin(&[]);
            device.run(self.lab, "sync", &[], 0)?;
        }
        Ok(())
    }

    /// Everything is equal at rest. A flipped bit that nothing could notice on its way must be
    /// named by `verify`, and mended by its repair.
    fn compare(&mut self, harm: Harm) -> Result<String> {
        self.proxy.begin(&[]);
        ensure!(
            self.server.process.ended()?.is_none(),
            "the server ended: {}",
            self.server.process.errors()
        );
        let said = self.server.process.errors();
        ensure!(!said.contains("panicked"), "the server panicked: {said}");
        if harm != Harm::Flip {
            check::at_rest(self.lab, &self.server, &mut self.devices)?;
            return Ok(String::new());
        }
        let mut differed = 0;
        for device in &self.devices {
            device.run(self.lab, "sync", &[], 0)?;
            if device.attempt(self.lab, "verify", &[])? != 0 {
                differed += 1;
                device.run(self.lab, "verify", &["--repair"], 0)?;
            }
            check::integrity(&device.file)?;
        }
        check::integrity(&self.server.database())?;
        std::thread::sleep(Duration::from_millis(1));
        Ok(format!("; verify found and mended {differed} files"))
    }
}

impl Device {
    /// An edit as its app makes it, while that does not run.
    pub(crate) fn edit(&mut self, body: &str) -> Result<()> {
        let mut conn = Connection::open(&self.file)?;
        conn.busy_timeout(Duration::from_secs(20))?;
        self.made += 1;
        let n = i64::try_from(self.made)?;
        let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let row = (format!("{}-{n:09}", self.name), &self.name, n, body);
        tx.execute("INSERT INTO log VALUES (?1, ?2, ?3, ?4)", row)?;
        tx.execute("UPDATE counters SET n = n + 1 WHERE id = 'all'", [])?;
        tx.execute("UPDATE syncline_tx SET n = n + 1", [])?;
        Ok(tx.commit()?)
    }
}
