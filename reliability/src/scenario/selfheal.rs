//! A replica whose rows, outbox or metadata are not what the engine left there, and one that is
//! handed to somebody else: what is wrong is named, and mended or refused with an exit code.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use rusqlite::{Connection, config::DbConfig, types::Value as Sql};

use super::bits::SAID;
use crate::{
    check,
    device::{Device, fleet},
    dice::Dice,
    lab::Lab,
    ledger::Outcome,
    server::Server,
};

/// Rows that the file has.
const ROWS: u64 = 60;
/// Exit codes.
const WRONG_USER: i32 = 17;
const DIFFERS: i32 = 21;
/// Tables of the engine's names that are not the engine's any more.
const UNFIT: i32 = 22;

/// Beside the tables of all scenarios, rows that only their author sees.
const OWN: &str = r#"
[tables.own]
columns = { id = "text primary key", body = "text not null" }
read  = "_owner = auth.uid()"
write = "_owner = auth.uid()"
"#;

struct Field<'a> {
    lab: &'a Lab,
    folder: PathBuf,
    server: Server,
    devices: Vec<Device>,
    /// A file in step, and the same with an edit of row [`EDITED`] that waits.
    sound: Vec<u8>,
    waiting: Vec<u8>,
    /// What the server has, without and with that edit.
    before: Vec<String>,
    after: Vec<String>,
}

/// The rows that the waiting edit writes: one it changes, one it makes.
const EDITED: &str = "UPDATE log SET body = 'edited, and not sent yet' WHERE id = 'd2-000000007';
     INSERT INTO own VALUES ('new', 'made, and not sent yet');
     UPDATE syncline_tx SET n = n + 1;";

pub(crate) fn run(lab: &mut Lab, dice: &mut Dice, outcome: &mut Outcome, times: u64) -> Result<()> {
    let folder = lab.round()?;
    let lab = &*lab;
    let mut field = Field::prepare(lab, &folder)?;
    field.rows(dice, outcome, times)?;
    field.outbox(dice, outcome, times)?;
    field.metadata(dice, outcome, times)?;
    field.other_user(outcome)?;
    check::at_rest(lab, &field.server, &mut field.devices)
}

impl<'a> Field<'a> {
    fn prepare(lab: &'a Lab, folder: &Path) -> Result<Self> {
        let config = format!("{}{OWN}", crate::server::CONFIG);
        let server = Server::start_with(lab, folder, None, &config)?;
        let mut devices = fleet(lab, folder, &server, 2, "delete")?;
        for _ in 0..ROWS {
            devices[1].edit("as it was made")?;
        }
        let conn = Connection::open(&devices[1].file)?;
        conn.execute_batch("INSERT INTO own VALUES ('old', 'nobody else sees this')")?;
        drop(conn);
        check::at_rest(lab, &server, &mut devices)?;
        let sound = std::fs::read(&devices[1].file)?;
        let before = everything(&server.database())?;
        let mut field = Self {
            lab,
            folder: folder.to_owned(),
            server,
            devices,
            sound,
            waiting: Vec::new(),
            after: before.clone(),
            before,
        };
        let (device, conn) = field.file(&field.sound)?;
        conn.execute_batch(EDITED)?;
        drop(conn);
        // Sealed, and not sent: the outbox has it.
        device.run(lab, "status", &[], 0)?;
        field.waiting = std::fs::read(&device.file)?;
        field.after = everything(&device.file)?;
        Ok(field)
    }

    /// A file of these bytes, as a device and as a connection that no trigger watches.
    fn file(&self, bytes: &[u8]) -> Result<(Device, Connection)> {
        let file = self.folder.join("hurt.db");
        for name in ["hurt.db-journal", "hurt.db-wal", "hurt.db-shm"] {
            let _none = std::fs::remove_file(self.folder.join(name));
        }
        std::fs::write(&file, bytes)?;
        let conn = Connection::open(&file)?;
        Ok((self.devices[1].copy(&file), conn))
    }

    /// Rows that are others behind the engine's back are named, each and no other, and mended.
    fn rows(&self, dice: &mut Dice, outcome: &mut Outcome, times: u64) -> Result<()> {
        for time in 0..times {
            let (device, conn) = self.file(&self.sound)?;
            unseen(&conn)?;
            let table = ["log", "pairs", "counters", "own"][usize::try_from(dice.below(4))?];
            let (id, what) = match dice.below(3) {
                0 => (flip_value(&conn, dice, table, "id")?, "a bit of"),
                1 => (gone(&conn, dice, table)?, "the loss of"),
                _ => (copied(&conn, dice, table)?, "a copy of"),
            };
            drop(conn);
            let place = || format!("{what} row {id} of {table} ({time})");
            let said = device
                .run(self.lab, "verify", &[], DIFFERS)
                .with_context(place)?;
            let named: Vec<_> = said.iter().filter(|line| line["type"] == "local").collect();
            ensure!(
                named.len() == 1
                    && named[0]["table"] == table
                    && named[0]["key"].to_string().contains(&id),
                "NOT NAMED: {}: {named:?}",
                place()
            );
            // A row that nobody wrote may be all that is left of somebody's work: it stays until a
            // person deletes it.
            let is_left = what == "a copy of";
            let code = if is_left { DIFFERS } else { 0 };
            device
                .run(self.lab, "verify", &["--repair"], code)
                .with_context(place)?;
            let mut there = everything(&device.file)?;
            if is_left {
                there.retain(|row| !row.starts_with(&format!("{id}|")));
            }
            ensure!(there == self.before, "NOT MENDED: {}", place());
            outcome.faults += 1;
            self.untouched().with_context(place)?;
        }
        println!(
            "  {times} rows were not what they should be: each was named, and mended; one that nobody wrote stays"
        );
        Ok(())
    }

    /// The server gets the edit that waits as it was made, or nothing of it, and that is told.
    fn outbox(&mut self, dice: &mut Dice, outcome: &mut Outcome, times: u64) -> Result<()> {
        let (mut arrived, mut parked, mut refused) = (0, 0, 0);
        for time in 0..times {
            let (device, conn) = self.file(&self.waiting)?;
            let table = [
                "syncline_changes",
                "syncline_changes",
                "syncline_outbox",
                "syncline_shadow",
            ][usize::try_from(dice.below(4))?];
            let column = flip_value(&conn, dice, table, "")?;
            drop(conn);
            let place = || format!("a bit of {table}.{column} ({time})");
            let code = device.attempt(self.lab, "sync", &[]).with_context(place)?;
            ensure!(
                code == 0 || SAID.contains(&code),
                "sync ended with {code}: {}",
                place()
            );
            outcome.faults += 1;
            let there = everything(&self.server.database())?;
            if there == self.after {
                arrived += 1;
            } else if code != 0 {
                refused += 1;
            } else {
                let status = device.run(self.lab, "status", &[], 0)?;
                ensure!(
                    status.last().is_some_and(|status| status["parked"] != 0),
                    "LOST, and nobody is told: {}",
                    place()
                );
                parked += 1;
            }
            ensure!(
                there == self.after || there == self.before,
                "THE SERVER TOOK SOMETHING ELSE: {}",
                place()
            );
            if code == 0 {
                self.verified(&device).with_context(place)?;
            }
            if there == self.after {
                self.undo()?;
            }
        }
        println!(
            "  {times} bits of what waits: it arrived as it was made {arrived} times, waits for a person {parked} times, and the file was refused {refused} times"
        );
        Ok(())
    }

    /// What of the engine's own is gone is mended, or the file is refused.
    fn metadata(&mut self, dice: &mut Dice, outcome: &mut Outcome, times: u64) -> Result<()> {
        let (_, conn) = self.file(&self.sound)?;
        let mut names = conn.prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'syncline\\_%' ESCAPE '\\' ORDER BY name",
        )?;
        let names: Vec<String> = names
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let drops = |some: &[String]| {
            some.iter()
                .map(|name| format!("DROP TABLE {name};"))
                .collect::<String>()
        };
        let mut hurts = vec![("all of it".to_owned(), drops(&names))];
        for name in &names {
            hurts.push((name.clone(), format!("DROP TABLE {name};")));
            hurts.push((
                format!("the rows of {name}"),
                format!("DELETE FROM {name};"),
            ));
        }
        for _ in 0..times {
            let name = &names[usize::try_from(dice.below(names.len() as u64))?];
            let (of, seed) = (2 + dice.below(4), dice.below(1_000));
            let rows =
                format!("(SELECT count(*) FROM {name} AS other WHERE other.rowid <= here.rowid)");
            let some = format!("DELETE FROM {name} AS here WHERE ({rows} + {seed}) % {of} = 0;");
            hurts.push((format!("some rows of {name}"), some));
        }
        let (mut mended, mut refused, mut skipped) = (0, 0, 0);
        for (what, hurt) in hurts {
            let (device, conn) = self.file(if dice.toss() {
                &self.sound
            } else {
                &self.waiting
            })?;
            unseen(&conn)?;
            // A table without rowid is taken as a whole.
            if conn.execute_batch(&hurt).is_err() {
                skipped += 1;
                continue;
            }
            drop(conn);
            let place = || format!("without {what}");
            let code = device.attempt(self.lab, "sync", &[]).with_context(place)?;
            ensure!(
                code == 0 || code == UNFIT || SAID.contains(&code),
                "sync ended with {code} {}",
                place()
            );
            outcome.faults += 1;
            if code == 0 {
                self.verified(&device).with_context(place)?;
                mended += 1;
            } else {
                refused += 1;
            }
            let there = everything(&self.server.database())?;
            ensure!(
                there == self.before || there == self.after,
                "THE SERVER TOOK SOMETHING ELSE {}",
                place()
            );
            if there != self.before {
                self.undo()?;
            }
        }
        println!(
            "  {} losses of metadata: {mended} were mended, {refused} refused with an exit code ({skipped} not possible)",
            mended + refused
        );
        Ok(())
    }

    /// Whoever the file is handed to learns nothing by it, and writes nothing.
    fn other_user(&mut self, outcome: &mut Outcome) -> Result<()> {
        let (device, conn) = self.file(&self.waiting)?;
        drop(conn);
        let token = self.server.token(self.lab, "ben")?;
        let mut other = device.copy(&device.file);
        other.be(&token);
        let held = everything(&device.file)?;
        for command in ["sync", "seed", "verify"] {
            other.run(self.lab, command, &[], WRONG_USER)?;
            outcome.faults += 1;
        }
        ensure!(everything(&device.file)? == held, "the file was changed");
        self.untouched()?;
        let mut of_ben = device.copy(&self.folder.join("ben.db"));
        of_ben.be(&token);
        of_ben.run(self.lab, "hydrate", &[], 0)?;
        let conn = check::read(&of_ben.file)?;
        let theirs = check::count(&conn, "SELECT count(*) FROM own", [])?;
        ensure!(theirs == 0, "ben got {theirs} rows of somebody else");
        // With its own user it goes on.
        device.run(self.lab, "sync", &[], 0)?;
        ensure!(
            everything(&self.server.database())? == self.after,
            "LOST: what waited"
        );
        println!("  another user's file was refused by each command, and goes on with its own");
        Ok(())
    }

    /// A file that synced is equal to the server, after a repair if need be.
    fn verified(&self, device: &Device) -> Result<()> {
        let code = device.attempt(self.lab, "verify", &[])?;
        ensure!(
            code == 0 || SAID.contains(&code),
            "verify ended with {code}"
        );
        if code == DIFFERS {
            let code = device.attempt(self.lab, "verify", &["--repair"])?;
            ensure!(
                code == 0 || SAID.contains(&code),
                "verify --repair ended with {code}"
            );
            if code != 0 {
                return Ok(());
            }
        } else if code != 0 {
            return Ok(());
        }
        let status = device.run(self.lab, "status", &[], 0)?;
        let parked = status.last().is_some_and(|status| status["parked"] != 0);
        ensure!(
            parked || everything(&device.file)? == everything(&self.server.database())?,
            "verify says equal, and the rows are not"
        );
        Ok(())
    }

    fn untouched(&self) -> Result<()> {
        let there = everything(&self.server.database())?;
        ensure!(there == self.before, "the server took something");
        Ok(())
    }

    /// The edit that arrived is taken back by its author, so that the next one finds what it found.
    fn undo(&mut self) -> Result<()> {
        self.devices[1].run(self.lab, "sync", &[], 0)?;
        let conn = Connection::open(&self.devices[1].file)?;
        conn.execute_batch(
            "UPDATE log SET body = 'as it was made' WHERE id = 'd2-000000007';
             DELETE FROM own WHERE id = 'new';",
        )?;
        drop(conn);
        self.devices[1].run(self.lab, "sync", &[], 0)?;
        self.untouched()?;
        let file = self.devices[1].file.clone();
        self.sound = std::fs::read(&file)?;
        let (device, conn) = self.file(&self.sound)?;
        conn.execute_batch(EDITED)?;
        drop(conn);
        device.run(self.lab, "status", &[], 0)?;
        self.waiting = std::fs::read(&device.file)?;
        Ok(())
    }
}

/// All rows, those that only their author sees, too.
fn everything(path: &Path) -> Result<Vec<String>> {
    let mut all = check::content(path)?;
    let conn = check::read(path)?;
    let mut own = conn.prepare("SELECT id || '|' || body FROM own ORDER BY id")?;
    for row in own.query_map([], |row| row.get(0))? {
        all.push(row?);
    }
    Ok(all)
}

/// No trigger sees what this connection does.
fn unseen(conn: &Connection) -> Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    Ok(())
}

fn any_row(conn: &Connection, dice: &mut Dice, table: &str) -> Result<i64> {
    let rows = check::count(conn, &format!("SELECT count(*) FROM {table}"), [])?;
    ensure!(rows > 0, "{table} has no rows");
    let at = i64::try_from(dice.below(rows))?;
    let row = format!("SELECT rowid FROM {table} LIMIT 1 OFFSET {at}");
    Ok(conn.query_row(&row, [], |row| row.get(0))?)
}

fn id_of(conn: &Connection, table: &str, rowid: i64) -> Result<String> {
    let id = format!("SELECT id FROM {table} WHERE rowid = {rowid}");
    Ok(conn.query_row(&id, [], |row| row.get(0))?)
}

fn gone(conn: &Connection, dice: &mut Dice, table: &str) -> Result<String> {
    let rowid = any_row(conn, dice, table)?;
    let id = id_of(conn, table, rowid)?;
    conn.execute(&format!("DELETE FROM {table} WHERE rowid = {rowid}"), [])?;
    Ok(id)
}

/// A row that nobody wrote, with the values of another.
fn copied(conn: &Connection, dice: &mut Dice, table: &str) -> Result<String> {
    let rowid = any_row(conn, dice, table)?;
    let columns = columns(conn, table)?;
    let others = columns.iter().filter(|name| *name != "id");
    let others: String = others.map(|name| format!(", {name}")).collect();
    let id = format!("nowhere-{}", dice.below(1_000));
    let copy = format!(
        "INSERT INTO {table} (id{others}) SELECT ?1{others} FROM {table} WHERE rowid = {rowid}"
    );
    conn.execute(&copy, [&id])?;
    Ok(id)
}

fn columns(conn: &Connection, table: &str) -> Result<Vec<String>> {
    let mut names = conn.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = names.query_map([table], |row| row.get(0))?;
    names.collect::<Result<_, _>>().context("columns")
}

/// Changes one bit of one value that is no key (`key`, or nothing); which row, or which column.
fn flip_value(conn: &Connection, dice: &mut Dice, table: &str, key: &str) -> Result<String> {
    let columns = columns(conn, table)?;
    for _ in 0..1_000 {
        let column = &columns[usize::try_from(dice.below(columns.len() as u64))?];
        if column == key {
            continue;
        }
        // Not all have a rowid: the row is found by all it holds.
        let rows = check::count(conn, &format!("SELECT count(*) FROM {table}"), [])?;
        ensure!(rows > 0, "{table} has no rows");
        let at = dice.below(rows);
        let all = format!("SELECT * FROM {table} LIMIT 1 OFFSET {at}");
        let (values, value): (Vec<Sql>, Sql) = conn.query_row(&all, [], |row| {
            let values = (0..columns.len()).map(|n| row.get(n));
            Ok((values.collect::<Result<_, _>>()?, row.get(column.as_str())?))
        })?;
        let Some(flipped) = flip(dice, value) else {
            continue;
        };
        let is: Vec<String> = columns
            .iter()
            .zip(2..)
            .map(|(name, n)| format!("{name} IS ?{n}"))
            .collect();
        let update = format!(
            "UPDATE {table} SET {column} = ?1 WHERE {}",
            is.join(" AND ")
        );
        let all = std::iter::once(&flipped).chain(&values);
        // What a constraint of SQLite's keeps out cannot be there.
        if conn
            .execute(&update, rusqlite::params_from_iter(all))
            .is_err()
        {
            continue;
        }
        return Ok(match (key, &values[0]) {
            ("", _) => column.clone(),
            (_, Sql::Text(id)) => id.clone(),
            _ => bail!("{table} begins with no id"),
        });
    }
    bail!("nothing in {table} has a bit to change")
}

fn flip(dice: &mut Dice, value: Sql) -> Option<Sql> {
    match value {
        Sql::Integer(n) => Some(Sql::Integer(n ^ (1 << dice.below(62)))),
        Sql::Text(text) => {
            let mut bytes = text.into_bytes();
            let at = usize::try_from(dice.below(bytes.len() as u64)).ok()?;
            *bytes.get_mut(at)? ^= 1 << dice.below(5);
            String::from_utf8(bytes).ok().map(Sql::Text)
        }
        Sql::Blob(mut bytes) => {
            let at = usize::try_from(dice.below(bytes.len() as u64)).ok()?;
            *bytes.get_mut(at)? ^= 1 << dice.below(8);
            Some(Sql::Blob(bytes))
        }
        Sql::Null | Sql::Real(_) => None,
    }
}
