//! The power goes: what no fsync has covered is lost, reordered or torn.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{
    check,
    device::{Device, fleet},
    dice::Dice,
    disk::Disk,
    lab::Lab,
    ledger::Outcome,
    process::{PATIENCE, Process},
    proxy::{Proxy, Way},
    server::{self, Server},
};

/// Cuts before everything is brought to rest, checked, and begun anew.
const CUTS_PER_ROUND: u64 = 25;
/// The exit code of a process whose disk lost its power.
const CUT: i32 = 137;

/// Decides when the power goes: at a call of the disk, or at some moment.
fn arm(disk: &Disk, dice: &mut Dice, calls: u64) -> Result<Duration> {
    let at_a_call = dice.toss();
    let after = if at_a_call {
        dice.below(calls)
    } else {
        u64::from(u32::MAX)
    };
    disk.cut_after(after, dice.below(u64::MAX))?;
    Ok(if at_a_call {
        Duration::from_millis(600)
    } else {
        dice.millis(400)
    })
}

/// Waits for the cut; makes it if it did not come by itself.
fn wait_for_cut(process: &mut Process, disk: &Disk, patience: Duration) -> Result<()> {
    let ended = process.wait(patience);
    let code = if ended.is_ok() {
        ended?
    } else {
        disk.cut()?;
        process.wait(PATIENCE)?
    };
    ensure!(
        code == CUT,
        "it ended with {code} and not by the power cut: {}",
        process.errors()
    );
    Ok(())
}

pub(crate) fn server(
    lab: &mut Lab,
    dice: &mut Dice,
    outcome: &mut Outcome,
    times: u64,
) -> Result<()> {
    while outcome.cuts < times {
        let folder = lab.round()?;
        first_start(lab, dice, outcome, &folder)?;
        let mut server = Server::start(lab, &folder, None)?;
        let mut devices = fleet(lab, &folder, &server, 2, "wal")?;
        server.process.kill();
        for device in &mut devices {
            device.start(lab, None, &[])?;
        }
        let (until, mut unsynced) = (times.min(outcome.cuts + CUTS_PER_ROUND), 0);
        while outcome.cuts < until {
            let disk = Disk::new(lab, &folder.join("data"), "server")?;
            // Starting takes calls of the disk, too: sometimes the power goes there.
            let calls = if dice.below(5) == 0 { 12 } else { 250 };
            let patience = arm(&disk, dice, calls)?;
            if server.restart(lab, Some(&disk)).is_ok() {
                for device in &mut devices {
                    device.tell("hurry");
                }
                wait_for_cut(&mut server.process, &disk, patience)?;
            }
            for device in &mut devices {
                device.hear();
            }
            outcome.cuts += 1;
            unsynced += disk.unsynced()?;
            check::integrity(&server.database())?;
            check::acknowledged(&server, &devices)
                .with_context(|| format!("after power cut {}", outcome.cuts))?;
        }
        server.restart(lab, None)?;
        check::at_rest(lab, &server, &mut devices)?;
        let edits: u64 = devices.iter().map(|device| device.made).sum();
        println!(
            "  {} cuts with {unsynced} changes not synced; {edits} edits in this round",
            outcome.cuts
        );
    }
    Ok(())
}

/// A server that never ran loses its power while it begins: what it gave out stays good.
fn first_start(
    lab: &Lab,
    dice: &mut Dice,
    outcome: &mut Outcome,
    folder: &std::path::Path,
) -> Result<()> {
    let data = folder.join("data");
    std::fs::create_dir_all(&data)?;
    let mut token = None;
    for _ in 0..3 {
        let disk = Disk::new(lab, &data, "server")?;
        let calls = if dice.toss() { 5 } else { 80 };
        disk.cut_after(dice.below(calls), dice.below(u64::MAX))?;
        let started = Server::start(lab, folder, Some(&disk));
        outcome.cuts += 1;
        if let Ok(mut server) = started {
            if token.is_none() {
                token = server::token(lab, folder, "ana").ok();
            }
            wait_for_cut(&mut server.process, &disk, Duration::from_millis(20))?;
        }
    }
    let server = Server::start(lab, folder, None).context("after power cuts at its first start")?;
    let now = server.token(lab, "ana")?;
    let secret = |token: &str| -> Result<bool> {
        Ok(crate::lab::finish(
            lab.syncline(folder, &["doctor", "--json"])
                .env("SYNCLINE_URL", &server.url)
                .env("SYNCLINE_TOKEN", token),
            0,
        )
        .is_ok())
    };
    if let Some(token) = token {
        ensure!(
            secret(&token)?,
            "a token that was given before the cut is not good any more; a new one: {}",
            secret(&now)?
        );
    }
    Ok(())
}

pub(crate) fn device(
    lab: &mut Lab,
    dice: &mut Dice,
    outcome: &mut Outcome,
    times: u64,
) -> Result<()> {
    while outcome.cuts < times {
        let folder = lab.round()?;
        let server = Server::start(lab, &folder, None)?;
        let journal = if dice.toss() { "wal" } else { "delete" };
        let mut devices = fleet(lab, &folder, &server, 2, journal)?;
        // What the device sends arrives at once, answers take a while: so there is a time in which
        // only the server knows of it.
        let proxy = Proxy::to(server.address())?;
        proxy.delay(Way::Down, Duration::from_millis(5));
        devices[0].url.clone_from(&proxy.url);
        let identity = devices[0].identity(lab)?;
        devices[1].start(lab, None, &["--pace", "20000"])?;
        let (until, mut unsynced) = (times.min(outcome.cuts + CUTS_PER_ROUND), 0);
        while outcome.cuts < until {
            let disk = Disk::new(lab, &devices[0].folder.clone(), "device")?;
            let calls = if dice.below(4) == 0 { 30 } else { 400 };
            let patience = arm(&disk, dice, calls)?;
            // With pauses in which what was sealed is sent, and without.
            let pace = if dice.toss() { "3000" } else { "60000" };
            let arrival = dice.below(3) == 0;
            if arrival {
                disk.cut_after(u64::from(u32::MAX), dice.below(u64::MAX))?;
            }
            let there = arrival.then_some(&server);
            cut_device(lab, &mut devices[0], &disk, pace, patience, there)?;
            outcome.cuts += 1;
            unsynced += disk.unsynced()?;
            check::acknowledged(&server, &devices)
                .with_context(|| format!("after power cut {} of a device", outcome.cuts))?;
        }
        check::at_rest(lab, &server, &mut devices).with_context(|| format!("journal {journal}"))?;
        // A lease that was sent before it was on the disk would make it a copy of itself.
        ensure!(
            devices[0].identity(lab)? == identity,
            "the device is another one now, journal {journal}"
        );
        let (made, acked) = (devices[0].made, devices[0].acked);
        println!(
            "  {} cuts with {unsynced} changes not synced; {made} edits, {acked} acknowledged in this round, journal {journal}",
            outcome.cuts
        );
    }
    Ok(())
}

/// With a server, the power goes at the moment at which something of the device arrives there: what
/// was sent must not be unknown to its device afterwards.
fn cut_device(
    lab: &Lab,
    device: &mut Device,
    disk: &Disk,
    pace: &str,
    patience: Duration,
    server: Option<&Server>,
) -> Result<()> {
    device.try_start(lab, Some(disk), &["--pace", pace])?;
    if let Some(process) = &mut device.process {
        let said = process.wait_for("the app to open its file", |line| {
            let mut words = line.strip_prefix("open ")?.split(' ');
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        });
        // The power may go before.
        let opened = said.is_ok();
        if let Ok(found) = said {
            device.opened(found)?;
        }
        if let Some(server) = server.filter(|_| opened) {
            wait_for_arrival(server, &device.name)?;
            disk.cut()?;
        }
        if let Some(process) = &mut device.process {
            wait_for_cut(process, disk, if opened { patience } else { PATIENCE })?;
        }
    }
    device.ended();
    Ok(())
}

fn wait_for_arrival(server: &Server, name: &str) -> Result<()> {
    let conn = check::read(&server.database())?;
    let own = "SELECT count(*) FROM log WHERE device = ?1";
    let before = check::count(&conn, own, [name])?;
    let deadline = Instant::now() + Duration::from_secs(2);
    while check::count(&conn, own, [name])? == before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// A plain writer that syncs keeps everything; one that does not, and a server whose disk lies,
/// must lose: else the disk proves nothing.
pub(crate) fn control(
    lab: &mut Lab,
    dice: &mut Dice,
    outcome: &mut Outcome,
    times: u64,
) -> Result<()> {
    for (journal, synchronous, loses) in [
        ("wal", "FULL", false),
        ("delete", "EXTRA", false),
        ("wal", "NORMAL", true),
        ("delete", "OFF", true),
    ] {
        let (mut lost, mut corrupt, mut data_syncs) = (0, 0, 0);
        for _ in 0..times {
            let folder = lab.round()?;
            let disk = Disk::new(lab, &folder, "plain")?;
            disk.cut_after(40 + dice.below(300), dice.below(u64::MAX))?;
            let file = folder.join("plain.db");
            let path = file.to_str().context("a plain path")?;
            let args = [
                "plain",
                "--file",
                path,
                "--journal",
                journal,
                "--synchronous",
                synchronous,
            ];
            rusqlite::Connection::open(&file)?
                .execute_batch("CREATE TABLE log (n INTEGER PRIMARY KEY, body TEXT)")?;
            let mut command = lab.harness(&folder, &args);
            disk.put_under(&mut command);
            let mut process = Process::start(&mut command)?;
            wait_for_cut(&mut process, &disk, Duration::from_secs(5))?;
            outcome.cuts += 1;
            data_syncs += disk.data_syncs()?;
            let said = process.last_words();
            let made: u64 = said.last().map_or(Ok(0), |n| n.parse())?;
            if check::integrity(&file).is_err() {
                corrupt += 1;
                continue;
            }
            let rows = "SELECT count(*) FROM log WHERE n <= ?1";
            let there = check::count(&check::read(&file)?, rows, [i64::try_from(made)?])?;
            lost += u64::from(there < made);
        }
        println!(
            "  plain SQLite, {journal}, synchronous={synchronous}: {lost} of {times} cuts lost rows, {corrupt} damaged the file"
        );
        ensure!(
            loses || data_syncs > 0,
            "plain SQLite with {journal} and {synchronous} never called fdatasync: it was built \
             without what .cargo/config.toml says"
        );
        ensure!(
            loses == (lost + corrupt > 0),
            "plain SQLite with {journal} and {synchronous}: {lost} lost, {corrupt} corrupt"
        );
    }
    let mut lost = 0;
    for _ in 0..times.min(20) {
        lost += u64::from(lying(lab, dice)?);
        outcome.cuts += 1;
    }
    println!("  a server on a disk that lies about fsync lost acknowledged edits {lost} times");
    ensure!(
        lost > 0,
        "a server on a disk that lies lost nothing: the checks see nothing"
    );
    Ok(())
}

/// Whether a server on a disk that lies about fsync loses what it acknowledged.
fn lying(lab: &mut Lab, dice: &mut Dice) -> Result<bool> {
    let folder = lab.round()?;
    let mut server = Server::start(lab, &folder, None)?;
    let mut devices = fleet(lab, &folder, &server, 1, "wal")?;
    server.process.kill();
    let disk = Disk::new(lab, &folder.join("data"), "server")?;
    disk.lie()?;
    disk.cut_after(u64::from(u32::MAX), dice.below(u64::MAX))?;
    server.restart(lab, Some(&disk))?;
    devices[0].start(lab, None, &[])?;
    for _ in 0..5 {
        devices[0].until_acked()?;
    }
    disk.cut()?;
    wait_for_cut(&mut server.process, &disk, PATIENCE)?;
    devices[0].kill();
    let kept =
        check::integrity(&server.database()).and_then(|()| check::acknowledged(&server, &devices));
    Ok(kept.is_err())
}
