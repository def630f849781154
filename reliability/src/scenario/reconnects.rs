//! One device that connects and disconnects again and again, in three ways. Nothing of it may stay.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    check,
    device::{Device, fleet},
    dice::Dice,
    lab::Lab,
    ledger::Outcome,
    process::PATIENCE,
    proxy::Proxy,
    server::Server,
    usage::{Usage, sessions},
};

/// Connections before what is open is counted for the first time.
const WARM: u64 = 30;
/// Microseconds between two edits: few, since a server keeps the newest of its log in memory, and
/// that it grows with edits is not what is looked for here.
const PACE: &str = "500000";
/// Memory may be larger afterwards by a tenth and this: allocators keep some of what was freed.
const SLACK_KIB: u64 = 6 * 1024;
/// Threads that pools keep for a while, and files for the look itself.
const SLACK: u64 = 4;

pub(crate) fn run(
    lab: &mut Lab,
    dice: &mut Dice,
    outcome: &mut Outcome,
    times: u64,
    loud: bool,
) -> Result<()> {
    let ways = if loud { 2 } else { 3 };
    let folder = lab.round()?;
    let mut server = Server::start(lab, &folder, None)?;
    let mut devices = fleet(lab, &folder, &server, 1, "wal")?;
    let proxy = Proxy::to(server.address())?;
    devices[0].url.clone_from(&proxy.url);
    devices[0].start(lab, None, &["--pace", PACE])?;
    devices[0].until_acked()?;
    for _ in 0..times.min(WARM) {
        again(dice, &proxy, &mut devices[0], ways)?;
    }
    settle(&server, &proxy)?;
    let before = [of_server(&server)?, of_device(&devices[0])?];
    println!("  before: server {}; device {}", before[0], before[1]);
    let mut ended = [0; 3];
    for time in 0..times {
        let way = again(dice, &proxy, &mut devices[0], ways)
            .with_context(|| format!("connection {} of {times}", time + 1))?;
        ended[way] += 1;
        outcome.cuts += 1;
    }
    devices[0].drain()?;
    check::acknowledged(&server, &devices)?;
    // What fell silent ends by itself, within a minute and a half.
    settle(&server, &proxy)?;
    println!(
        "  {} graceful, {} abrupt, {} that fell silent; {} edits",
        ended[0], ended[1], ended[2], devices[0].made
    );
    let judged = as_before("server", before[0], || of_server(&server))
        .and_then(|()| as_before("device", before[1], || of_device(&devices[0])));
    ensure!(server.process.ended()?.is_none(), "the server ended");
    check::at_rest(lab, &server, &mut devices)?;
    judged
}

/// Ends the connection, and waits until the device is in step again; how it ended.
fn again(dice: &mut Dice, proxy: &Proxy, device: &mut Device, ways: u64) -> Result<usize> {
    let way = usize::try_from(dice.below(ways))?;
    device.hear();
    let lives = device.lives;
    match way {
        0 => device.disconnect()?,
        1 => proxy.cut(),
        _ => {
            proxy.hush();
            // The app gives up what is silent; the server is not told.
            device.disconnect()?;
        }
    }
    // What it told before the end is not of the next connection.
    device.hear();
    let lives = if way == 1 { lives } else { device.lives };
    device.tell("on");
    let deadline = Instant::now() + PATIENCE;
    loop {
        device.hear();
        device.alive()?;
        if device.lives > lives {
            return Ok(way);
        }
        if Instant::now() > deadline {
            bail!("it does not connect again; {}", device.story());
        }
        device.tell("hurry");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Until the device's one session is all the server has.
fn settle(server: &Server, proxy: &Proxy) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (open, sessions) = (proxy.open(), sessions(server.address())?);
        if sessions == 1 && open <= 1 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "LEFT BEHIND: the server has {sessions} sessions of one device, {open} connections"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn of_server(server: &Server) -> Result<Usage> {
    Usage::of(server.process.id())
}

fn of_device(device: &Device) -> Result<Usage> {
    Usage::of(
        device
            .process
            .as_ref()
            .context("the app does not run")?
            .id(),
    )
}

/// Waits until a process takes what it took before: pools let threads go after a while.
pub(super) fn as_before(
    what: &str,
    before: Usage,
    mut look: impl FnMut() -> Result<Usage>,
) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let now = look()?;
        let is_same = now.files <= before.files + SLACK
            && now.threads <= before.threads + SLACK
            && now.kib <= before.kib + before.kib / 10 + SLACK_KIB;
        if is_same {
            println!("  {what} afterwards: {now}");
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "LEFT BEHIND: the {what} had {before}, it has {now}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}
