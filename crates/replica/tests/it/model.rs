//! Random edits by plain connections on several devices, random cuts, kills, lost grants, a
//! server that is restored or forgets: at rest everything is equal and the books agree.

use std::path::PathBuf;

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use rusqlite::Connection;
use syncline_core::{BucketId, MergeStrategy, Schema, Value};

use crate::{
    authority::{Authority, Backup, HOME},
    device::{Device, schema},
    fixture::cases,
};

const AWAY: BucketId = BucketId([8; 16]);
const DEVICES: usize = 3;

const TABLES: &str = "
    CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT, n INTEGER DEFAULT 0);
    CREATE TABLE items(
      id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id), title TEXT,
      rank INTEGER UNIQUE);
    CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT);
    CREATE TABLE labels(
      note INTEGER NOT NULL REFERENCES notes(id), label TEXT NOT NULL, PRIMARY KEY(note, label));";

#[derive(Debug, Clone)]
enum Step {
    /// A transaction of the app's, and whether it says where it ends.
    Write(usize, Vec<String>, bool),
    Seal(usize),
    /// Moves frames, that many from the server.
    Exchange(usize, usize),
    Sync(usize),
    Cut(usize),
    Kill(usize),
    /// Another program on the server.
    Serve(i64, u8),
    Grant,
    Backup,
    Restore,
    Forget,
    Busy(bool),
}

fn statement() -> impl Strategy<Value = String> {
    let id = 1..5_u8;
    prop_oneof![
        (id.clone(), 0..9_u8).prop_map(|(i, x)| format!(
            "INSERT OR REPLACE INTO lists VALUES('l{i}', 'name {x}', {x})"
        )),
        (id.clone(), 0..9_u8)
            .prop_map(|(i, x)| format!("UPDATE lists SET name = 'new {x}' WHERE id = 'l{i}'")),
        id.clone()
            .prop_map(|i| format!("UPDATE lists SET n = n + {i} WHERE id = 'l{i}'")),
        id.clone()
            .prop_map(|i| format!("DELETE FROM lists WHERE id = 'l{i}'")),
        (id.clone(), id.clone(), 1..4_u8).prop_map(|(i, l, r)| format!(
            "INSERT OR REPLACE INTO items VALUES('i{i}', 'l{l}', 'title', {r})"
        )),
        (id.clone(), 1..4_u8)
            .prop_map(|(i, r)| format!("UPDATE OR REPLACE items SET rank = {r} WHERE id = 'i{i}'")),
        (id.clone(), id.clone())
            .prop_map(|(i, l)| format!("UPDATE items SET list = 'l{l}' WHERE id = 'i{i}'")),
        (id.clone(), id.clone()).prop_map(|(i, j)| format!(
            "UPDATE OR REPLACE items SET id = 'i{j}' WHERE id = 'i{i}'"
        )),
        id.clone()
            .prop_map(|i| format!("DELETE FROM items WHERE id = 'i{i}'")),
        id.clone()
            .prop_map(|i| format!("INSERT INTO notes(body) VALUES('note {i}')")),
        id.clone().prop_map(|i| format!(
            "INSERT OR IGNORE INTO labels SELECT max(id), 'label {i}' FROM notes"
        )),
        id.clone()
            .prop_map(|i| format!("UPDATE notes SET body = 'edited' WHERE id % 5 = {i}")),
        id.prop_map(|i| format!("DELETE FROM notes WHERE id % 7 = {i}")),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..DEVICES;
    prop_oneof![
        8 => (device.clone(), prop::collection::vec(statement(), 1..4), any::<bool>())
            .prop_map(|(d, s, m)| Step::Write(d, s, m)),
        2 => device.clone().prop_map(Step::Seal),
        6 => (device.clone(), 0..6_usize).prop_map(|(d, n)| Step::Exchange(d, n)),
        3 => device.clone().prop_map(Step::Sync),
        2 => device.clone().prop_map(Step::Cut),
        1 => device.prop_map(Step::Kill),
        2 => (1..5_i64, 0..9_u8).prop_map(|(i, x)| Step::Serve(i, x)),
        1 => Just(Step::Grant),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
        1 => Just(Step::Forget),
        1 => any::<bool>().prop_map(Step::Busy),
    ]
}

struct World {
    server: Authority,
    devices: Vec<Option<Device>>,
    apps: Vec<Connection>,
    paths: Vec<PathBuf>,
    backup: Option<Backup>,
    _dir: tempfile::TempDir,
}

fn tables() -> Schema {
    let mut schema = schema(TABLES);
    let lists = schema
        .tables
        .iter_mut()
        .find(|t| t.name == "lists")
        .unwrap();
    lists.columns[2].merge = MergeStrategy::Counter;
    schema
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Authority::new(tables());
        server.granted = [HOME, AWAY].into();
        server.buckets = |table, row| match (table.name.as_str(), &row.0[1]) {
            ("items", Value::Text(list)) if list == "l2" => [AWAY].into(),
            ("items", Value::Text(list)) if list == "l3" => [HOME, AWAY].into(),
            _ => [HOME].into(),
        };
        let quick = "PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF";
        let paths: Vec<_> = (0..DEVICES)
            .map(|i| dir.path().join(format!("{i}.db")))
            .collect();
        let devices = (1..).zip(&paths).map(|(seed, path)| {
            let device = Device::create(path, &format!("{quick}; {TABLES}"), seed);
            Some(device)
        });
        let devices = devices.collect();
        let apps = paths.iter().map(|path| {
            let app = Connection::open(path).unwrap();
            app.execute_batch(quick).unwrap();
            app
        });
        Self {
            server,
            devices,
            apps: apps.collect(),
            paths,
            backup: None,
            _dir: dir,
        }
    }

    fn device(&mut self, d: usize) -> (&mut Device, &mut Authority) {
        (self.devices[d].as_mut().unwrap(), &mut self.server)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(d, statements, marked) => {
                let mut sql = format!("BEGIN; {};", statements.join("; "));
                if *marked {
                    sql += "UPDATE syncline_tx SET n = n + 1;";
                }
                self.apps[*d]
                    .execute_batch(&format!("{sql} COMMIT"))
                    .unwrap();
            }
            Step::Seal(d) => drop(self.device(*d).0.seal()),
            Step::Exchange(d, frames) => {
                let (device, server) = self.device(*d);
                if device.link.is_none() {
                    device.connect();
                }
                device.push(server);
                if let Some(link) = &mut device.link {
                    link.page_rows = 3;
                    let _moved = server.page(link) || server.advance(link);
                }
                for _ in 0..*frames {
                    device.download();
                    device.upload(server);
                }
            }
            Step::Sync(d) => {
                let (device, server) = self.device(*d);
                device.sync(server);
            }
            Step::Cut(d) => drop(self.device(*d).0.disconnect()),
            Step::Kill(d) => {
                let device = self.devices[*d].take().unwrap();
                let device = device.restart(&self.paths[*d]);
                let conn = device.replica.connection();
                conn.execute_batch("PRAGMA synchronous = OFF").unwrap();
                self.devices[*d] = Some(device);
            }
            Step::Serve(i, x) => {
                let list = Value::Text(format!("l{i}"));
                let name = Value::Text(format!("of the server {x}"));
                self.server
                    .write(&[("lists", vec![list.clone(), name, Value::Integer(*i)])]);
                if x % 3 == 0 {
                    self.server.delete("lists", &[list]);
                }
            }
            Step::Grant => {
                self.cut_all();
                if !self.server.granted.remove(&AWAY) {
                    self.server.granted.insert(AWAY);
                }
            }
            Step::Backup => self.backup = Some(self.server.backup()),
            Step::Restore => {
                if let Some(backup) = self.backup.take() {
                    self.cut_all();
                    self.server.restore(backup);
                }
            }
            Step::Forget => self.server.horizon = self.server.end(),
            Step::Busy(is_busy) => self.server.is_busy = *is_busy,
        }
    }

    fn cut_all(&mut self) {
        for device in self.devices.iter_mut().flatten() {
            device.disconnect();
        }
    }

    fn rest(&mut self) {
        self.server.is_busy = false;
        self.cut_all();
        for _ in 0..4 {
            for d in 0..DEVICES {
                let (device, server) = self.device(d);
                device.sync(server);
            }
        }
        for d in 0..DEVICES {
            let (device, server) = self.device(d);
            let outbox = device.outbox();
            assert!(
                outbox.chars().all(|state| state == 'p'),
                "device {d}: {outbox}"
            );
            device.assert_equal(server);
            let hidden = device.replica.status().unwrap().unstorable;
            assert_eq!(hidden, 0, "device {d} hides rows");
            let left = "SELECT (SELECT count(*) FROM syncline_shadow),
                               (SELECT count(*) FROM syncline_ahead)";
            assert_eq!(device.query(left), "0|0", "device {d}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(40),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/it/model.seeds",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn ob11_devices_come_to_rest_equal(steps in prop::collection::vec(step(), 1..50)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.rest();
    }
}
