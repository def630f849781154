//! Words for the tests: tables, rows, groups, and other programs.

#![expect(
    clippy::unwrap_used,
    reason = "a test that goes wrong stops where it does"
)]

use std::{
    collections::BTreeMap,
    future::Future,
    io::Write as _,
    path::{Path, PathBuf},
    pin::pin,
    process::{Command, Stdio},
    task::{Context, Poll, Waker},
};

use syncline_core::{
    BucketId, Column, ColumnNumber, ColumnType, MergeStrategy, Row, RowKey, Schema, Table,
    TableNumber, Value, Version,
    config::Config,
    schema::{ForeignKey, OnDelete, RuleTexts, SyncMode},
};
use syncline_store::testkit::External;
use syncline_store::{
    Group, Ledger, Mark, Room, RowMeta, RowWrite, SchemaError, SchemaOptions, SchemaReport,
    Storage, StorageError,
};
use syncline_store_sqlite::{SqliteReader, SqliteStorage};

pub(crate) const ENTROPY: [u8; 32] = [7; 32];

/// Runs a future that is ready at once, as all of this storage are.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a future of this storage waits"),
    }
}

pub(crate) fn column(name: &str, ty: ColumnType) -> Column {
    Column {
        name: name.into(),
        number: ColumnNumber(0),
        ty,
        not_null: false,
        default: None,
        check: None,
        collate: None,
        generated: false,
        computed: None,
        declared: None,
        merge: MergeStrategy::LastWriteWins,
        encrypted: None,
        merge_paths: BTreeMap::new(),
    }
}

/// The first column is the key.
pub(crate) fn table(name: &str, columns: &[(&str, ColumnType)]) -> Table {
    Table {
        name: name.into(),
        number: TableNumber(100),
        columns: columns.iter().map(|(name, ty)| column(name, *ty)).collect(),
        primary_key: vec![0],
        uniques: Vec::new(),
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        without_rowid: false,
        autoincrement: false,
        further_indexes: Vec::new(),
        checks: Vec::new(),
        strict: false,
        sync: SyncMode::Auto,
        update_wins: false,
        rules: RuleTexts::default(),
        force: BTreeMap::new(),
    }
}

/// To be read from the database.
pub(crate) fn as_is(name: &str) -> Table {
    Table {
        primary_key: Vec::new(),
        ..table(name, &[])
    }
}

pub(crate) fn reference(column: usize, parent: &str, on_delete: OnDelete) -> ForeignKey {
    ForeignKey {
        columns: vec![column],
        parent: parent.into(),
        parent_columns: Vec::new(),
        on_delete,
    }
}

pub(crate) fn config(tables: &[Table]) -> Config {
    Config {
        schema: Schema {
            tables: tables.to_vec(),
        },
        ..Config::default()
    }
}

pub(crate) fn text(value: &str) -> Value {
    Value::Text(value.into())
}

pub(crate) fn key(value: &str) -> RowKey {
    RowKey::encode([&text(value)]).unwrap()
}

pub(crate) fn row<const N: usize>(values: [&str; N]) -> Row {
    Row(values.map(text).into())
}

/// A storage on a file in a folder of its own.
pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) storage: SqliteStorage,
    pub(crate) schema: Schema,
    next: u64,
}

impl World {
    /// With these tables, managed.
    pub(crate) fn new(tables: &[Table]) -> Self {
        let mut world = Self::empty();
        world.apply(tables).unwrap();
        world
    }

    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = SqliteStorage::open(dir.path().join("data.db"), &ENTROPY).unwrap();
        Self {
            dir,
            storage,
            schema: Schema::default(),
            next: 0,
        }
    }

    pub(crate) fn apply(&mut self, tables: &[Table]) -> Result<SchemaReport, SchemaError> {
        self.apply_config(&config(tables), true, &[])
    }

    pub(crate) fn apply_config(
        &mut self,
        config: &Config,
        managed: bool,
        allow: &[&str],
    ) -> Result<SchemaReport, SchemaError> {
        let allow = allow.iter().map(ToString::to_string).collect();
        let report = now(self
            .storage
            .apply_schema(config, &SchemaOptions { managed, allow }))?;
        self.schema = report.schema.clone();
        Ok(report)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("data.db")
    }

    /// Stops the server and starts it again.
    pub(crate) fn restart(&mut self) {
        let path = self.path();
        let memory = SqliteStorage::open_in_memory("meanwhile", &ENTROPY).unwrap();
        drop(std::mem::replace(&mut self.storage, memory));
        self.storage = SqliteStorage::open(path, &ENTROPY).unwrap();
    }

    pub(crate) fn reader(&self) -> SqliteReader {
        self.storage.reader().unwrap()
    }

    pub(crate) fn number(&self, table: &str) -> TableNumber {
        self.schema.table(table).unwrap().number
    }

    /// A connection as another program in Rust has it.
    pub(crate) fn other(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    /// What another program's SQL does, in the sqlite3 shell.
    pub(crate) fn shell(&self, sql: &str) {
        shell(&self.path(), sql);
    }

    /// One group: writes, takes the marks that are left, and gives every row written or marked
    /// metadata in the bucket `home`.
    pub(crate) fn group(&mut self, writes: &[Write]) -> Result<Vec<Mark>, StorageError> {
        let mut group = now(self.storage.begin())?;
        let result = write(&mut group, writes);
        if let Err(error) = result {
            now(group.rollback());
            return Err(error);
        }
        let marks = now(group.take_marks(Room::ALL))?.marks;
        let mut ledger = Ledger::default();
        let written = writes.iter().map(|w| (w.table, w.key.clone()));
        let marked = marks.iter().map(|mark| (mark.table, mark.key.clone()));
        let touched: std::collections::BTreeSet<_> = written.chain(marked).collect();
        for (table, key) in touched {
            self.next += 1;
            let mut loaded = syncline_store::Loaded::default();
            now(group.load(
                &[syncline_store::Want::Row(table, key.clone())],
                &mut loaded,
            ))?;
            let Some(found) = loaded.row(table, &key).flatten() else {
                continue;
            };
            let deleted = found.row.is_none();
            let meta = RowMeta {
                version: Version(self.next),
                created: Version(self.next),
                buckets: if deleted { Vec::new() } else { vec![HOME] },
                deleted,
                ..RowMeta::default()
            };
            ledger
                .metas
                .push((table, key, meta, found.meta.buckets.clone()));
        }
        now(group.write_ledger(&ledger))?;
        now(group.commit())?;
        Ok(marks)
    }

    /// The marks that other programs left.
    pub(crate) fn marks(&mut self) -> Vec<Mark> {
        self.group(&[]).unwrap()
    }

    /// Marks in words: `tasks a: before → after`.
    pub(crate) fn told(&mut self) -> Vec<String> {
        let marks = self.marks();
        self.tell(&marks)
    }

    pub(crate) fn tell(&self, marks: &[Mark]) -> Vec<String> {
        let show = |row: Option<&Row>| match row {
            None => "nothing".to_owned(),
            Some(row) => {
                let values: Vec<_> = row.0.iter().map(|value| format!("{value:?}")).collect();
                values.join(" ")
            }
        };
        let mut out = Vec::new();
        for mark in marks {
            let table = self.schema.by_number(mark.table).unwrap();
            let after =
                now(self
                    .reader()
                    .rows(mark.table, std::slice::from_ref(&mark.key), usize::MAX))
                .unwrap()
                .rows
                .pop()
                .map(|(_, row, _)| row);
            let (before, after) = (show(mark.before.as_ref()), show(after.as_ref()));
            out.push(format!("{} {}: {before} → {after}", table.name, mark.key));
        }
        out
    }
}

use syncline_store::Reader as _;

/// The bucket that [`World::group`] puts everything into.
pub(crate) const HOME: BucketId = BucketId([1; 16]);

/// A row to write.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) table: TableNumber,
    pub(crate) key: RowKey,
    pub(crate) row: Option<Row>,
    pub(crate) exists: bool,
    pub(crate) columns: Vec<usize>,
}

impl World {
    pub(crate) fn insert(&self, name: &str, row: Row) -> Write {
        let table = self.schema.table(name).unwrap();
        let key = row.key(table).unwrap();
        Write {
            table: table.number,
            key,
            row: Some(row),
            exists: false,
            columns: Vec::new(),
        }
    }

    pub(crate) fn update(&self, name: &str, row: Row, columns: &[usize]) -> Write {
        Write {
            exists: true,
            columns: columns.into(),
            ..self.insert(name, row)
        }
    }

    pub(crate) fn delete(&self, name: &str, key: RowKey) -> Write {
        let table = self.number(name);
        Write {
            table,
            key,
            row: None,
            exists: true,
            columns: Vec::new(),
        }
    }
}

pub(crate) fn write<G: Group>(group: &mut G, writes: &[Write]) -> Result<(), StorageError> {
    let writes: Vec<_> = writes
        .iter()
        .map(|write| RowWrite {
            table: write.table,
            key: &write.key,
            row: write.row.as_ref(),
            exists: write.exists,
            columns: &write.columns,
        })
        .collect();
    now(group.write_rows(&writes))
}

/// Runs SQL in the sqlite3 shell.
pub(crate) fn shell(path: &Path, sql: &str) {
    run(
        Command::new("sqlite3")
            .arg("-bail")
            .arg("-cmd")
            .arg(".timeout 5000")
            .arg(path),
        sql,
    );
}

/// Runs a Python program with `db` connected to the file.
pub(crate) fn python(path: &Path, program: &str) {
    let program = format!(
        "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], timeout=5)\n{program}\ndb.commit()\n"
    );
    run(Command::new("python3").arg("-").arg(path), &program);
}

fn run(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// One transaction of another program, by statements; what the database said if it refused.
pub(crate) fn execute(path: &Path, statements: &[External<'_>]) -> Result<(), String> {
    let run = || -> rusqlite::Result<()> {
        let mut conn = rusqlite::Connection::open(path)?;
        conn.busy_timeout(std::time::Duration::from_secs(5))?;
        conn.pragma_update(None, "foreign_keys", true)?;
        let transaction = conn.transaction()?;
        for statement in statements {
            let (sql, parameters) = statement.sql();
            let parameters = parameters.into_iter().map(|value| match value {
                Value::Null => rusqlite::types::Value::Null,
                Value::Integer(n) => n.into(),
                Value::Real(x) => x.into(),
                Value::Text(text) => text.into(),
                Value::Blob(bytes) => bytes.into(),
            });
            transaction.execute(&sql, rusqlite::params_from_iter(parameters))?;
        }
        transaction.commit()
    };
    run().map_err(|error| error.to_string())
}
