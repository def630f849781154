//! W7: what takes longer when there is a hundred times as much, or ten thousand times.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;
use tempfile::TempDir;

use super::block_on;
use crate::{
    Figure, Options, device,
    figure::percentile_ms,
    rows::{self, CONFIG, Item},
    server::Server,
    wire::Device,
};

const ROWS: usize = 1_000_000;
const ROWS_BEFORE: usize = 10_000;
const BUCKETS: usize = 10_000;
const TABLES: usize = 200;
const CHANGES: usize = 300;
const RECONNECTS: usize = 20;
/// Rows in a changeset while there come more: each is a change in the log.
const TOGETHER: usize = 10;
const PUSHES: usize = 32;
/// Rows that are made before they are sent.
const IN_MEMORY: usize = 50_000;
/// Nothing here should depend on how much there is.
const TARGET: f64 = 1.3;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    block_on(async {
        let mut figures = rows(options).await?;
        figures.extend(buckets(options).await?);
        figures.extend(tables(options).await?);
        Ok(figures)
    })
}

/// Rows, each of which came with a change of its own in the log.
async fn rows(options: &Options) -> Result<Vec<Figure>> {
    let most = options.count(ROWS);
    let few = ROWS_BEFORE.min(most);
    let mut ground = Ground::new(options, CONFIG).await?;
    let mut written = 0;
    let mut looks = Vec::new();
    for size in [few, most] {
        while written < size {
            let next = size.min(written + IN_MEMORY);
            let items: Vec<Item> = (written..next).map(|n| Item::new(0, n)).collect();
            let frames = items
                .chunks(TOGETHER)
                .map(|some| ground.writer.insertion(some));
            let frames = frames.collect::<Result<Vec<_>>>()?;
            ground.writer.push_all(frames, PUSHES).await?;
            written = next;
        }
        // New rows of the table that grows, and of a small one beside it that others see.
        let acknowledged = |writer: &mut Device, _| {
            written += 1;
            writer.insertion(&[Item::new(0, written - 1)])
        };
        let heard = |writer: &mut Device, id: String| writer.news(&id, "news");
        looks.push(ground.look(acknowledged, heard).await?);
    }
    let case = format!("{most} rows and as many changes in the log, against {few}");
    Ok(compared(&looks, &case))
}

/// Buckets that both see.
async fn buckets(options: &Options) -> Result<Vec<Figure>> {
    let most = options.count(BUCKETS);
    let mut ground = Ground::new(options, rows::PROJECTS).await?;
    let mut made = 0;
    let mut looks = Vec::new();
    for size in [1, most] {
        let mut frames = Vec::new();
        for n in made..size {
            let project = uuid(1, n);
            let row = [("id", project.as_str()), ("name", "Garden")];
            frames.push(ground.writer.texts("projects", &[&row])?);
            let (ana, ben) = (uuid(2, n), uuid(3, n));
            let member = |id, user| {
                [
                    ("id", id),
                    ("project_id", project.as_str()),
                    ("user_id", user),
                ]
            };
            let both = [member(ana.as_str(), "ana"), member(ben.as_str(), "ben")];
            let both = [&both[0][..], &both[1][..]];
            frames.push(ground.writer.texts("members", &both)?);
        }
        made = size;
        ground.writer.push_all(frames, PUSHES).await?;
        let task = |writer: &mut Device, id: String| {
            let row = [
                ("id", id.as_str()),
                ("project_id", &uuid(1, 0)),
                ("body", "dig"),
            ];
            writer.texts("tasks", &[&row])
        };
        looks.push(ground.look(task, task).await?);
    }
    Ok(compared(
        &looks,
        &format!("{most} buckets for each user, against 1"),
    ))
}

async fn tables(options: &Options) -> Result<Vec<Figure>> {
    let most = options.count(TABLES);
    let mut looks = Vec::new();
    for size in [1, most] {
        let config = rows::many_tables(size);
        let mut ground = Ground::new(options, &config).await?;
        let row = |writer: &mut Device, id: String| {
            writer.texts("table0", &[&[("id", &id), ("body", "news")]])
        };
        looks.push(ground.look(row, row).await?);
    }
    Ok(compared(&looks, &format!("{most} tables, against 1")))
}

/// A server, somebody who writes, and a file of somebody who sees it.
struct Ground {
    server: Server,
    writer: Device,
    token: String,
    file: PathBuf,
    looks: usize,
    _folder: TempDir,
}

impl Ground {
    async fn new(options: &Options, config: &str) -> Result<Self> {
        let server = Server::start_with(&options.program, config)?;
        let (ana, ben) = (server.token("ana")?, server.token("ben")?);
        let writer = Device::connect(&server.url, &ana, 0).await?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("ben.db");
        device::hydrate(&file, &server.url, &ben).await?;
        Ok(Self {
            server,
            writer,
            token: ben,
            file,
            looks: 0,
            _folder: folder,
        })
    }

    /// Each makes a changeset of one row, with an id that was not used yet.
    async fn look(
        &mut self,
        mut acknowledged: impl FnMut(&mut Device, String) -> Result<Vec<u8>>,
        mut heard: impl FnMut(&mut Device, String) -> Result<Vec<u8>>,
    ) -> Result<Look> {
        self.looks += 1;
        let mut samples = Vec::with_capacity(CHANGES);
        for n in 0..CHANGES {
            let frame = acknowledged(&mut self.writer, uuid(16 + self.looks, n))?;
            let started = Instant::now();
            self.writer.push_all(vec![frame], 1).await?;
            samples.push(started.elapsed());
        }
        let acknowledged = median(samples);

        let mut reader = Device::connect(&self.server.url, &self.token, self.looks).await?;
        reader.load().await?;
        let mut samples = Vec::with_capacity(CHANGES);
        for n in 0..CHANGES {
            let frame = heard(&mut self.writer, uuid(32 + self.looks, n))?;
            let started = Instant::now();
            self.writer.push_all(vec![frame], 1).await?;
            reader.hear(1).await?;
            samples.push(started.elapsed());
        }
        drop(reader);
        Ok(Look {
            acknowledged,
            heard: median(samples),
            reconnected: self.reconnected().await?,
        })
    }

    async fn reconnected(&self) -> Result<f64> {
        let sync = || device::sync(&self.file, &self.server.url, &self.token);
        // Once for what it has missed.
        sync().await?;
        let mut samples = Vec::with_capacity(RECONNECTS);
        for _ in 0..RECONNECTS {
            let started = Instant::now();
            sync().await?;
            samples.push(started.elapsed());
        }
        Ok(median(samples))
    }
}

/// Half of them took at most so many milliseconds.
struct Look {
    acknowledged: f64,
    heard: f64,
    reconnected: f64,
}

/// The last look against the first.
fn compared(looks: &[Look], case: &str) -> Vec<Figure> {
    let [few, .., many] = looks else {
        unreachable!("two looks were taken");
    };
    let cost = |what: &str, of: fn(&Look) -> f64| {
        let case = format!("{what}, with {case}");
        Figure::cost("W7", case, "ms", of(many), of(few), TARGET)
    };
    vec![
        cost("a change until it is acknowledged", |l| l.acknowledged),
        cost("a change until another device has it", |l| l.heard),
        cost("a device that is up to date connects", |l| l.reconnected),
    ]
}

fn median(mut samples: Vec<Duration>) -> f64 {
    percentile_ms(&mut samples, 0.5)
}

fn uuid(kind: usize, n: usize) -> String {
    format!("00000000-0000-7000-8{kind:03x}-{n:012x}")
}
