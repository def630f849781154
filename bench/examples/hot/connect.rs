//! A device that is up to date opens its file and connects: what grows with tables and buckets.

use std::path::Path;

use anyhow::{Result, bail};
use syncline::engine;
use syncline_core::{Timestamp, Value};
use syncline_store::commit_group;

use super::{
    GROUP, House, NOW,
    live::{Live, session},
    measured, ready, rows,
};

/// How often it connects.
pub(super) const TIMES: usize = 10;

/// Nanoseconds that opening the file took, the rest on the device, and the server.
#[derive(Default)]
pub(super) struct Spent {
    pub(super) open: u64,
    pub(super) connect: u64,
    pub(super) serve: u64,
}

#[inline(never)]
fn counted_open<T>(spent: &mut u64, work: impl FnOnce() -> T) -> T {
    measured(spent, work)
}

#[inline(never)]
fn counted_connect<T>(spent: &mut u64, work: impl FnOnce() -> T) -> T {
    measured(spent, work)
}

#[inline(never)]
fn counted_serve<T>(spent: &mut u64, work: impl FnOnce() -> T) -> T {
    measured(spent, work)
}

pub(super) fn run(folder: &Path, has_tables: bool, size: usize) -> Result<Spent> {
    let mut house = match has_tables {
        true => House::new(folder, &rows::many_tables(size))?,
        false => House::new(folder, rows::PROJECTS)?,
    };
    if !has_tables {
        house.make_projects(size)?;
    }
    let mut now = NOW;
    let path = folder.join("device.db");
    let mut live = Live::new(&house, &path, 8, now)?;
    live.catch_up(&mut house, &mut now)?;
    drop(live);
    let mut spent = Spent::default();
    for _ in 0..TIMES {
        now = now.plus_millis(1_000);
        house.reconnect(&path, now, &mut spent)?;
    }
    Ok(spent)
}

impl House {
    fn reconnect(&mut self, path: &Path, now: Timestamp, spent: &mut Spent) -> Result<()> {
        let replica = counted_open(&mut spent.open, || engine::open_replica(path))?;
        let mut live = Live {
            replica,
            session: session(self, now),
        };
        counted_connect(&mut spent.connect, || live.replica.connect(now))?;
        for _ in 0..10 {
            let frames = counted_serve(&mut spent.serve, || {
                live.say();
                self.act(&mut live, now)?;
                live.hear(self, now)
            })?;
            let done = counted_connect(&mut spent.connect, || -> Result<bool> {
                live.handle(&frames, now)?;
                Ok(live.replica.status()?.caught_up)
            })?;
            if done {
                return Ok(());
            }
        }
        bail!("it does not get further: {:?}", live.replica.status())
    }

    /// Projects of Ana's, each a bucket of its own.
    fn make_projects(&mut self, size: usize) -> Result<()> {
        let (device, lease) = self.writer()?;
        let id = |kind: u8, n: usize| Value::Text(format!("00000000-0000-7000-800{kind}-{n:012x}"));
        let text = |text: &str| Value::Text(text.to_owned());
        let numbers: Vec<usize> = (0..size).collect();
        for (number, some) in (1..).zip(numbers.chunks(GROUP)) {
            let project = |n| ("projects", vec![("id", id(1, n)), ("name", text("Garden"))]);
            let member = |n| {
                let values = [
                    ("id", id(2, n)),
                    ("project_id", id(1, n)),
                    ("user_id", text("ana")),
                ];
                ("members", values.to_vec())
            };
            let rows = some.iter().flat_map(|&n| [project(n), member(n)]);
            let submission = self.insertion(device, lease, number, rows)?;
            let (storage, context) = (&mut self.storage, &self.context);
            let outcome = ready(commit_group(storage, &context.plan, &[submission], NOW));
            if let Some(error) = outcome.failure {
                bail!("{error}");
            }
            context.recent.push(&outcome.entries);
        }
        Ok(())
    }
}
