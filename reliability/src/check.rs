//! What must hold, whatever happened.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rusqlite::{Connection, OpenFlags};

use crate::{device::Device, lab::Lab, server::Server};

/// A connection of another program, which only reads.
pub(crate) fn read(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .with_context(|| format!("open {}", path.display()))?;
    conn.busy_timeout(std::time::Duration::from_secs(20))?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

/// The one number that a query gives.
pub(crate) fn count(conn: &Connection, query: &str, params: impl rusqlite::Params) -> Result<u64> {
    let count: i64 = conn.query_row(query, params, |row| row.get(0))?;
    u64::try_from(count).with_context(|| format!("{query} gave {count}"))
}

/// SQLite finds nothing wrong with the file.
pub(crate) fn integrity(path: &Path) -> Result<()> {
    let conn = read(path)?;
    let mut found = conn.prepare("PRAGMA integrity_check(5)")?;
    let found: Vec<String> = found
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    ensure!(found == ["ok"], "CORRUPT: {}: {found:?}", path.display());
    Ok(())
}

/// The server has all that the engine on these devices called acknowledged.
pub(crate) fn acknowledged(server: &Server, devices: &[Device]) -> Result<()> {
    let conn = read(&server.database())?;
    for device in devices {
        let own = "SELECT count(*) FROM log WHERE device = ?1 AND n <= ?2";
        let acked = i64::try_from(device.acked)?;
        let mut there = count(&conn, own, (&device.name, acked))?;
        if device.keep.is_some() {
            // Older ones were deleted.
            let last = "SELECT coalesce(max(n), 0) FROM log WHERE device = ?1";
            there = count(&conn, last, [&device.name])?.min(device.acked);
        }
        ensure!(
            there == device.acked,
            "LOST: {} edits of {} were acknowledged, the server has {there} of them",
            device.acked,
            device.name
        );
    }
    whole(&conn, "the server", devices)
}

/// Each transaction is there once, and as a whole.
fn whole(conn: &Connection, whose: &str, devices: &[Device]) -> Result<()> {
    let edits = if devices.iter().any(|device| device.keep.is_some()) {
        // Old ones were deleted; at rest numbers have no gaps.
        "SELECT coalesce(sum(made), 0) FROM (SELECT max(n) AS made FROM log GROUP BY device)"
    } else {
        "SELECT count(*) FROM log"
    };
    let counts = format!("SELECT ({edits}), (SELECT n FROM counters WHERE id = 'all')");
    let (edits, counted): (i64, i64) =
        conn.query_row(&counts, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    ensure!(
        edits == counted,
        "TWICE OR TORN: {whose} has {edits} edits, and {counted} were counted"
    );
    let halves = "SELECT count(*) FROM pairs AS a JOIN pairs AS b
                  ON a.id LIKE '%-a' AND b.id = replace(a.id, '-a', '-b') AND a.n + b.n <> 0";
    let halves: i64 = conn.query_row(halves, [], |row| row.get(0))?;
    ensure!(
        halves == 0,
        "TORN: {halves} transactions are half there at {whose}"
    );
    Ok(())
}

/// Everything is brought to rest with the `syncline` program, and all copies are equal.
pub(crate) fn at_rest(lab: &Lab, server: &Server, devices: &mut [Device]) -> Result<()> {
    for device in devices.iter_mut() {
        device.kill();
        device.run(lab, "sync", &[], 0)?;
    }
    let mut contents = Vec::new();
    for device in devices.iter() {
        device.run(lab, "sync", &[], 0)?;
        let said = device.run(lab, "status", &[], 0)?;
        let status = said.last().context("a status")?;
        for count in ["waiting", "accepted", "parked", "conflicts"] {
            ensure!(
                status[count] == 0,
                "{}: {count} is {} at rest: {status}",
                device.name,
                status[count]
            );
        }
        integrity(&device.file)?;
        contents.push((device.name.clone(), content(&device.file)?));
    }
    integrity(&server.database())?;
    let there = content(&server.database())?;
    for (name, here) in &contents {
        ensure!(
            *here == there,
            "DIFFERENT: {name} is not what the server is"
        );
    }
    for device in devices.iter() {
        let said = device.run(lab, "verify", &[], 0)?;
        let verified = said.last().context("a verdict")?;
        ensure!(
            verified["equal"] == true,
            "verify of {}: {said:?}",
            device.name
        );
        let conn = read(&server.database())?;
        let own = "SELECT count(*), coalesce(max(n), 0) FROM log WHERE device = ?1";
        let (rows, there): (u64, u64) = conn.query_row(own, [&device.name], |row| {
            Ok((
                row.get::<_, i64>(0)?.unsigned_abs(),
                row.get::<_, i64>(1)?.unsigned_abs(),
            ))
        })?;
        let kept = device.keep.map_or(there, |keep| keep.min(there));
        ensure!(
            rows == kept,
            "LOST: {} has {rows} rows at the server, not {kept}",
            device.name
        );
        ensure!(
            there >= device.made,
            "LOST: {} made {} edits, the server has {there}",
            device.name,
            device.made
        );
    }
    whole(&read(&server.database())?, "the server", devices)
}

/// All rows of the tables, in order.
pub(crate) fn content(path: &Path) -> Result<Vec<String>> {
    let conn = read(path)?;
    let mut all = Vec::new();
    for query in [
        "SELECT id || '|' || device || '|' || n || '|' || body FROM log ORDER BY id",
        "SELECT id || '|' || n FROM counters ORDER BY id",
        "SELECT id || '|' || n FROM pairs ORDER BY id",
    ] {
        let mut rows = conn.prepare(query)?;
        for row in rows.query_map([], |row| row.get(0))? {
            all.push(row?);
        }
    }
    Ok(all)
}
