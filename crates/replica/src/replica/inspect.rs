//! What can be asked of a replica.

use syncline_core::{
    Change, ChangesetId, DeviceId, Op, RowKey, Timestamp, Value, Version, wire::LoadPosition,
};

use super::Replica;
use crate::{
    adopt::compare,
    apply::record_extra,
    capture::Comparison,
    conflict,
    db::{self, Doing},
    error::ReplicaError,
    meta::{
        buckets, cursors, ledger,
        names::{self, Names},
        outbox::{self, Entry, State},
        settings::{self, Key},
        shadow,
    },
    queue::{QueueState, QueuedChange, QueuedChangeset},
    session::{Phase, receive::progress},
    status::{
        Activity, LocalDifference, LocalFault, RowState, RowStatus, Status, TableState, TableStatus,
    },
    tables::SyncedTable,
    work::Work,
};

impl Replica {
    /// The replica at this moment; instant whatever the size of the file.
    ///
    /// # Errors
    /// The database's.
    pub fn status(&self) -> Result<Status, ReplicaError> {
        db::snapshot(&self.conn, || self.read_status())
    }

    fn read_status(&self) -> Result<Status, ReplicaError> {
        let conn = &self.conn;
        let mut tables = Vec::new();
        let records = names::tables(conn)?;
        let any_loading = buckets::is_any_table_loading(conn)?;
        for table in self
            .tables
            .iter()
            .filter(|table| table.name() != conflict::TABLE)
        {
            let t = table.number();
            let record = records.iter().find(|record| record.t == t);
            let state = if table.remote.is_none() {
                TableState::Unmatched
            } else if any_loading && buckets::is_table_loading(conn, t)? {
                TableState::Loading
            } else {
                TableState::Live
            };
            tables.push(TableStatus {
                name: table.name().to_owned(),
                state,
                rows: record.map_or(0, |record| record.rows),
                seeding: record.is_some_and(|record| record.seeding),
            });
        }
        for (name, reason) in &self.tables.left_out {
            let (name, reason) = (name.clone(), reason.clone());
            let state = TableState::LeftOut { reason };
            tables.push(TableStatus {
                name,
                state,
                rows: 0,
                seeding: false,
            });
        }
        let checkpoint = cursors::newest(conn)?;
        let is_loading = checkpoint.is_some() && buckets::is_loading(conn)?;
        Ok(Status {
            device: DeviceId(settings::get_id(conn, Key::Device)?.unwrap_or_default()),
            server: settings::get_id(conn, Key::Server)?.map(DeviceId),
            user: settings::get(conn, Key::User)?,
            url: settings::get(conn, Key::Url)?,
            connected: self.session.phase == Phase::Streaming,
            deregistered: self.is_deregistered()?,
            tables,
            waiting: outbox::count(conn, State::Sealed)?,
            accepted: outbox::count(conn, State::Accepted)?,
            parked: outbox::count(conn, State::Parked)?,
            conflicts: self.count_conflicts()?,
            unstorable: shadow::count_hidden(conn)?,
            checkpoint,
            caught_up: self.is_caught_up()?,
            loading: if is_loading {
                Some(progress(conn)?)
            } else {
                None
            },
            quota: self.quota()?,
        })
    }

    /// Changes whenever another connection has committed to the file since the last call.
    ///
    /// # Errors
    /// The database's.
    pub fn data_version(&self) -> Result<i64, ReplicaError> {
        self.conn
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .doing("asking whether the file was written")
    }

    /// How far the session has come.
    ///
    /// # Errors
    /// The database's.
    pub fn activity(&self) -> Result<Activity, ReplicaError> {
        db::snapshot(&self.conn, || self.read_activity())
    }

    fn read_activity(&self) -> Result<Activity, ReplicaError> {
        let conn = &self.conn;
        let is_loading = cursors::newest(conn)?.is_some() && buckets::is_loading(conn)?;
        Ok(Activity {
            connected: self.session.phase == Phase::Streaming,
            waiting: outbox::count(conn, State::Sealed)?,
            accepted: outbox::count(conn, State::Accepted)?,
            seeding: self.tables.iter().any(|table| table.seeding),
            caught_up: self.is_caught_up()?,
            loading: is_loading.then(|| progress(conn)).transpose()?,
        })
    }

    fn is_caught_up(&self) -> Result<bool, ReplicaError> {
        Ok(match self.session.phase {
            Phase::Closed => settings::get(&self.conn, Key::CaughtUp)?.unwrap_or(false),
            Phase::Greeting | Phase::Streaming => self.session.caught_up,
        })
    }

    fn count_conflicts(&self) -> Result<u64, ReplicaError> {
        if self.tables.named(conflict::TABLE).is_none() {
            return Ok(0);
        }
        let text = format!(
            "SELECT count(*) FROM {} WHERE state = 'open'",
            conflict::TABLE
        );
        self.conn
            .prepare_cached(&text)
            .and_then(|mut s| s.query_row([], |row| row.get::<_, i64>(0)))
            .map(i64::cast_unsigned)
            .doing("counting the open conflicts")
    }

    /// The version of the last checkpoint.
    ///
    /// # Errors
    /// The database's.
    pub fn checkpoint(&self) -> Result<Option<Version>, ReplicaError> {
        cursors::newest(&self.conn)
    }

    /// The outbox in order, at most `limit` changesets after `after`.
    ///
    /// # Errors
    /// The database's.
    pub fn queue(
        &self,
        after: Option<ChangesetId>,
        limit: usize,
    ) -> Result<Vec<QueuedChangeset>, ReplicaError> {
        let after = match after {
            Some(id) => outbox::by_id(&self.conn, id)?.map_or(0, |entry| entry.seq),
            None => 0,
        };
        let entries = outbox::list(&self.conn, after, limit)?;
        let mut names = Names::new(&self.conn);
        entries
            .into_iter()
            .map(|entry| self.listed(entry, &mut names))
            .collect()
    }

    /// One changeset of the outbox; `None` if it is not there any more.
    ///
    /// # Errors
    /// The database's.
    pub fn queued(&self, id: ChangesetId) -> Result<Option<QueuedChangeset>, ReplicaError> {
        let entry = outbox::by_id(&self.conn, id)?;
        let mut names = Names::new(&self.conn);
        entry
            .map(|entry| self.listed(entry, &mut names))
            .transpose()
    }

    fn listed(&self, entry: Entry, names: &mut Names<'_>) -> Result<QueuedChangeset, ReplicaError> {
        let mut changes = Vec::new();
        let limit = QueuedChangeset::CHANGES_LISTED;
        for stored in outbox::readable(&self.conn, entry.seq, limit)? {
            changes.push(QueuedChange {
                table: names
                    .table(stored.change.table)?
                    .unwrap_or_default()
                    .to_owned(),
                columns: columns(names, &stored.change)?,
                change: stored.change,
            });
        }
        let state = match entry.state {
            State::Sealed if self.session.is_in_flight(entry.id) => QueueState::Sent,
            State::Sealed => QueueState::Sealed,
            State::Accepted => QueueState::Accepted {
                version: entry.version.unwrap_or_default(),
            },
            State::Parked => QueueState::Parked {
                code: entry.code.unwrap_or_default(),
                message: entry.message.unwrap_or_default(),
                at: entry.parked_at.unwrap_or_default(),
            },
        };
        Ok(QueuedChangeset {
            id: entry.id,
            state,
            first_marked_at: entry.first_at,
            last_marked_at: entry.last_at,
            changes_total: entry.changes,
            changes,
        })
    }

    /// What is known of the row of `table` with this key (its values in key order).
    ///
    /// # Errors
    /// [`ReplicaError::UnknownTable`], [`ReplicaError::BadKey`], or the database's.
    pub fn row_status(&self, table: &str, key: &[Value]) -> Result<RowStatus, ReplicaError> {
        let conn = &self.conn;
        let table = self
            .tables
            .named(table)
            .ok_or_else(|| ReplicaError::UnknownTable {
                name: table.to_owned(),
            })?;
        let key = row_key(table, key)?;
        let known = ledger::get(conn, table.number(), &key)?;
        let mut pending = Vec::new();
        for touching in outbox::touching(conn, table.number(), &key)? {
            pending.extend(outbox::entry(conn, touching.seq)?.map(|entry| entry.id));
        }
        let conflicts = self.conflicts_of(table, &key)?;
        let state = if !conflicts.is_empty() {
            RowState::Conflict
        } else if !pending.is_empty() {
            RowState::Pending
        } else if known.is_some() {
            RowState::Synced
        } else {
            RowState::Unknown
        };
        let time = |version: Version| Timestamp(version.0);
        Ok(RowStatus {
            state,
            version: known.as_ref().map(|known| known.version),
            owner: names::user_name(conn, known.as_ref().and_then(|known| known.owner))?,
            created_at: known.as_ref().map(|known| time(known.created)),
            modified_at: known.as_ref().map(|known| time(known.version)),
            modified_by: names::user_name(conn, known.as_ref().and_then(|known| known.author))?,
            pending,
            conflicts,
        })
    }

    /// Whether the row was made in this file since it was attached, and waits to be sent: should
    /// the server have another one of this key, they are two rows. Seal first.
    ///
    /// # Errors
    /// The database's.
    pub fn waits_to_be_inserted(&self, table: &str, key: &RowKey) -> Result<bool, ReplicaError> {
        let Some(table) = self.tables.named(table) else {
            return Ok(false);
        };
        outbox::waits_to_be_inserted(&self.conn, table.number(), key)
    }

    fn conflicts_of(&self, table: &SyncedTable, key: &RowKey) -> Result<Vec<String>, ReplicaError> {
        const DOING: &str = "reading the conflicts of a row";
        let text = format!(
            "SELECT id, row_key FROM {} WHERE state = 'open' AND table_name = ?1",
            conflict::TABLE
        );
        let mut statement = self.conn.prepare_cached(&text).doing(DOING)?;
        let mut rows = statement.query([table.name()]).doing(DOING)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().doing(DOING)? {
            let id: String = row.get(0).doing(DOING)?;
            let stored: String = row.get(1).doing(DOING)?;
            let values = conflict::key_values(&stored);
            if values.is_some_and(|values| row_key(table, &values).ok().as_ref() == Some(key)) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Compares every row with the content hash kept for it; reports at most `limit`
    /// differences. Reads the tables once, in key order, on one state of the file: as long as it
    /// lasts (seconds for a million rows) nothing that others write can leave a write-ahead log,
    /// and without one nobody else can write.
    ///
    /// # Errors
    /// The database's.
    pub fn check_local(
        &mut self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<LocalDifference>, ReplicaError> {
        self.seal(now)?;
        db::snapshot(&self.conn, || {
            let work = Work::new(&self.conn, &self.tables);
            let mut found = Vec::new();
            for table in self.tables.iter() {
                present(&work, table, limit, &mut found)?;
                missing(&work, table, limit, &mut found)?;
            }
            Ok(found)
        })
    }

    /// The app's tables that are matched with one of the server's: the name here, and there.
    pub fn matched_tables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tables.iter().filter_map(|table| {
            let remote = table.remote.as_ref()?;
            let is_ours = table.name().eq_ignore_ascii_case(conflict::TABLE);
            (!is_ours).then_some((table.name(), remote.table.name.as_str()))
        })
    }

    /// The content hashes of the rows of a table that the server gave, as they are in the file, with
    /// what is kept aside because the file has no columns for it: at most `limit` after `after`, in
    /// key order. For such rows that are missing, 0.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownTable`], or the database's.
    pub fn hashes(
        &self,
        table: &str,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, u64)>, ReplicaError> {
        let Some(table) = self.tables.named(table) else {
            let name = table.to_owned();
            return Err(ReplicaError::UnknownTable { name });
        };
        let work = Work::new(&self.conn, &self.tables);
        let mut found = Vec::new();
        for key in ledger::keys_after(&self.conn, table.number(), after, limit)? {
            let Some(known) = ledger::get(&self.conn, table.number(), &key)? else {
                continue;
            };
            let hash = match work.visible(table, &key)? {
                Some(row) => {
                    let hash = table.hash_there(&key, &row, &record_extra(&known)?);
                    hash.ok_or_else(|| ReplicaError::NoKey {
                        table: table.name().to_owned(),
                    })?
                }
                None => 0,
            };
            found.push((key, hash));
        }
        Ok(found)
    }

    /// Has these tables (all if empty) loaded again: at once if a session is open, else with the
    /// next. Nothing is dropped meanwhile; unsent changes stay.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownTable`], or the database's.
    pub fn repair(&mut self, tables: &[String]) -> Result<(), ReplicaError> {
        let unknown = tables.iter().find(|name| self.tables.named(name).is_none());
        if let Some(name) = unknown {
            return Err(ReplicaError::UnknownTable { name: name.clone() });
        }
        let mut positions = Vec::new();
        let mut live = Vec::new();
        db::immediate(&self.conn, || {
            for table in self.tables.iter() {
                let is_wanted = tables.is_empty()
                    || tables
                        .iter()
                        .any(|name| name.eq_ignore_ascii_case(table.name()));
                if let (true, Some(remote)) = (is_wanted, &table.remote) {
                    let number = remote.table.number;
                    let buckets = buckets::live_in(&self.conn, table.number())?;
                    live.extend(buckets.into_iter().map(|bucket| (bucket, number)));
                    buckets::reload_table(&self.conn, table.number())?;
                    positions.push(LoadPosition {
                        bucket: None,
                        table: number,
                        after: None,
                    });
                }
            }
            Ok::<_, ReplicaError>(())
        })?;
        self.note_asked_again(live);
        self.ask_again(positions);
        Ok(())
    }
}

/// Names of the columns that an operation writes.
fn columns(names: &mut Names<'_>, change: &Change) -> Result<Vec<String>, ReplicaError> {
    let (Op::Insert(edits) | Op::Update(edits)) = &change.op else {
        return Ok(Vec::new());
    };
    let mut found = Vec::with_capacity(edits.len());
    for edit in edits {
        let name = names.column(change.table, edit.column)?;
        found.extend(name.map(str::to_owned));
    }
    Ok(found)
}

pub(super) fn row_key(table: &SyncedTable, values: &[Value]) -> Result<RowKey, ReplicaError> {
    let bad = |reason: String| ReplicaError::BadKey {
        table: table.name().to_owned(),
        reason,
    };
    let positions = &table.table.primary_key;
    if positions.len() != values.len() {
        return Err(bad(format!(
            "it has {} columns, {} values were given",
            positions.len(),
            values.len()
        )));
    }
    let values: Vec<Value> = values
        .iter()
        .zip(positions)
        .map(|(value, &p)| value.clone().canonical(table.table.columns[p].ty))
        .collect();
    RowKey::encode(&values).map_err(|error| bad(error.to_string()))
}

/// Rows of the table that should not be there, or not so.
fn present(
    work: &Work<'_>,
    table: &SyncedTable,
    limit: usize,
    found: &mut Vec<LocalDifference>,
) -> Result<(), ReplicaError> {
    table.sql.for_each(work.conn, |row| {
        let Ok(row) = row else { return Ok(()) };
        let Ok(key) = row.key(&table.table) else {
            return Ok(());
        };
        let fault = match compare(work, table, &key, &row)? {
            Comparison::Same => return Ok(()),
            Comparison::Different => LocalFault::Differs,
            Comparison::Unknown => LocalFault::Unaccounted,
        };
        if found.len() < limit {
            found.push(LocalDifference {
                table: table.name().to_owned(),
                key,
                fault,
            });
        }
        Ok::<_, ReplicaError>(())
    })
}

/// Rows that should be in the table.
fn missing(
    work: &Work<'_>,
    table: &SyncedTable,
    limit: usize,
    found: &mut Vec<LocalDifference>,
) -> Result<(), ReplicaError> {
    const LOOKED_AT: usize = 1_000;
    let mut after: Option<RowKey> = None;
    loop {
        let keys = shadow::keys_with_rows(work.conn, table.number(), after.as_ref(), LOOKED_AT)?;
        let Some(last) = keys.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for key in keys {
            if found.len() < limit
                && work.expects(table, &key)?
                && !table.sql.exists(work.conn, &key)?
            {
                let fault = LocalFault::Missing;
                found.push(LocalDifference {
                    table: table.name().to_owned(),
                    key,
                    fault,
                });
            }
        }
    }
}
