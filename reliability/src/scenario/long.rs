//! A steady load for a long time: what must not grow does not.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{
    check,
    device::{Device, fleet},
    dice::Dice,
    lab::Lab,
    ledger::Outcome,
    samples::{between, flat, latencies, micros, percentile, told},
    server::Server,
    usage::{Usage, bytes, wal},
};

/// Rows that each device keeps of its edits, so that the data does not grow.
const KEEP: u64 = 300;
/// Looks at everything during a run.
const LOOKS: u64 = 240;
/// What memory and files may differ by between two looks, without a trend.
const MEMORY_SLACK_KIB: u64 = 4 * 1024;
const FILE_SLACK: u64 = 1024 * 1024;
/// Edits on their way at a look, more or less.
const WAITING_SLACK: u64 = 20;
/// A median latency may differ by this; it is judged of a run that is long enough.
const LATENCY_SLACK: u64 = 50_000;
const JUDGED_SECONDS: u64 = 300;

/// Everything that was seen, look by look.
#[derive(Default)]
struct Series {
    server_kib: Vec<u64>,
    device_kib: [Vec<u64>; 2],
    files: Vec<u64>,
    threads: Vec<u64>,
    server_wal: Vec<u64>,
    device_wal: Vec<u64>,
    waiting: Vec<u64>,
    log_lines: Vec<u64>,
    /// What grows by design, beside how many edits were made.
    server_database: Vec<(u64, u64)>,
    device_file: Vec<(u64, u64)>,
}

pub(crate) fn run(
    lab: &mut Lab,
    _dice: &mut Dice,
    _outcome: &mut Outcome,
    seconds: u64,
    pace: u64,
) -> Result<()> {
    let folder = lab.round()?;
    let mut server = Server::start(lab, &folder, None)?;
    let mut devices = fleet(lab, &folder, &server, 2, "wal")?;
    let pace = pace.to_string();
    for device in &mut devices {
        device.keep = Some(KEEP);
        device.start(lab, None, &["--pace", &pace, "--timed"])?;
        device.until_acked()?;
    }
    let mut series = Series::default();
    let (began, from) = (Instant::now(), micros());
    let pause = Duration::from_millis(seconds * 1_000 / LOOKS);
    for look in 1..=LOOKS {
        let at = pause * u32::try_from(look)?;
        while began.elapsed() < at {
            std::thread::sleep((at - began.elapsed()).min(Duration::from_secs(1)));
            for device in &mut devices {
                device.hear();
                device.alive()?;
            }
        }
        series
            .look(&server, &devices)
            .with_context(|| format!("look {look} of {LOOKS}"))?;
    }
    let to = micros();
    for device in &mut devices {
        device.drain()?;
    }
    let judged = series.judge().and_then(|()| latency(&devices, from, to));
    ensure!(server.process.ended()?.is_none(), "the server ended");
    check::acknowledged(&server, &devices)?;
    check::at_rest(lab, &server, &mut devices)?;
    judged
}

impl Series {
    fn look(&mut self, server: &Server, devices: &[Device]) -> Result<()> {
        let usage = Usage::of(server.process.id())?;
        self.server_kib.push(usage.kib);
        let (mut files, mut threads) = (usage.files, usage.threads);
        let (mut waiting, mut device_wal) = (0, 0);
        for (device, kib) in devices.iter().zip(&mut self.device_kib) {
            let process = device.process.as_ref().context("the app does not run")?;
            let usage = Usage::of(process.id())?;
            kib.push(usage.kib);
            files += usage.files;
            threads += usage.threads;
            device_wal += bytes(&wal(&device.file));
            let rows = "SELECT (SELECT count(*) FROM syncline_outbox)
                             + (SELECT count(*) FROM syncline_shadow)";
            waiting += check::count(&check::read(&device.file)?, rows, [])?;
        }
        self.files.push(files);
        self.threads.push(threads);
        self.waiting.push(waiting);
        self.device_wal.push(device_wal);
        self.server_wal.push(bytes(&wal(&server.database())));
        self.log_lines.push(server.process.log_bytes());
        let edits = devices.iter().map(|device| device.made).sum();
        let size = bytes(&server.database()) + bytes(&wal(&server.database()));
        self.server_database.push((edits, size));
        self.device_file.push((edits, bytes(&devices[0].file)));
        Ok(())
    }

    fn judge(&self) -> Result<()> {
        let memory = MEMORY_SLACK_KIB;
        let all: [Result<()>; 11] = [
            flat("memory of the server", "KiB", &self.server_kib, memory),
            flat("memory of d1", "KiB", &self.device_kib[0], memory),
            flat("memory of d2", "KiB", &self.device_kib[1], memory),
            flat("open files of all", "files", &self.files, 4),
            flat("threads of all", "threads", &self.threads, 4),
            flat("WAL of the server", "bytes", &self.server_wal, FILE_SLACK),
            flat("WALs of the devices", "bytes", &self.device_wal, FILE_SLACK),
            flat("outboxes and shadows", "rows", &self.waiting, WAITING_SLACK),
            flat("what the server logged", "bytes", &self.log_lines, 4_096),
            steady("the server's database", &self.server_database),
            steady("d1's file", &self.device_file),
        ];
        all.into_iter().collect()
    }
}

/// Of what grows with each edit by design (the server's log and history until they are old, a
/// device's accepted changesets up to 64 MiB): an edit takes as much in the last quarter as in the
/// second, or less.
fn steady(what: &str, sizes: &[(u64, u64)]) -> Result<()> {
    let quarter = sizes.len() / 4;
    let each = |from: usize, to: usize| {
        let edits = sizes[to].0.saturating_sub(sizes[from].0).max(1);
        sizes[to].1.saturating_sub(sizes[from].1) / edits
    };
    let last = sizes.len() - 1;
    let (before, after) = (each(quarter, 2 * quarter), each(last - quarter, last));
    println!(
        "  {what}: {} bytes at the end; {before} bytes for each edit in the second quarter, {after} in the last",
        sizes[last].1
    );
    ensure!(
        after <= before + before / 4 + 256,
        "GROWS: {what} took {before} bytes for each edit and takes {after}"
    );
    Ok(())
}

/// From the commit on one device until another program sees it in the file of the other.
fn latency(devices: &[Device], from: u64, to: u64) -> Result<()> {
    let quarter = (to - from) / 4;
    for (writer, reader) in [(0, 1), (1, 0)] {
        let all = latencies(&devices[writer], &devices[reader]);
        let second = between(&all, from + quarter, from + 2 * quarter);
        let last = between(&all, to - quarter, to);
        println!(
            "  latency {} to {}: {} in the second quarter, {} in the last",
            devices[writer].name,
            devices[reader].name,
            told(&second),
            told(&last)
        );
        let (before, after) = (percentile(&second, 50), percentile(&last, 50));
        ensure!(
            !second.is_empty() && !last.is_empty(),
            "nothing arrived from {}",
            devices[writer].name
        );
        ensure!(
            (to - from) / 1_000_000 < JUDGED_SECONDS
                || after <= before + before / 2 + LATENCY_SLACK,
            "SLOWER: the median latency was {before} and is {after} microseconds"
        );
    }
    let edits: u64 = devices.iter().map(|device| device.made).sum();
    println!("  {edits} edits");
    Ok(())
}
