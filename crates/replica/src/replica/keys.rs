//! The keys of encrypted columns: whether they are there, and the right ones.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::Replica;
use crate::{
    apply::Fault,
    cipher::Keyring,
    db,
    error::ReplicaError,
    meta::{
        buckets, cursors,
        settings::{self, Key},
    },
    session::{ENCRYPTION_ENDED, ENCRYPTION_KEY_MISSING, ENCRYPTION_KEY_WRONG},
    tables::{SyncedTable, Tables},
    work::Work,
};

/// Why the session cannot go on: code and sentence.
type Obstacle = (&'static str, String);

impl Replica {
    /// Uses these keys for encrypted columns from now on: `keys` of a file that was just attached,
    /// or other ones than it was opened with. What could not be read before is loaded again.
    ///
    /// # Errors
    /// The database's.
    pub fn use_keys(&mut self, keys: Keyring) -> Result<(), ReplicaError> {
        self.keys = keys;
        self.tables.set_keys(&self.keys);
        self.heed_keys()
    }

    /// Has tables with encrypted columns loaded again if the keys are not those of the last time.
    pub(super) fn heed_keys(&mut self) -> Result<(), ReplicaError> {
        let held = ids(&self.keys);
        let known: Option<String> = settings::get(&self.conn, Key::KeysHeld)?;
        if self.keys.is_empty() || known.as_ref() == Some(&held) {
            return Ok(());
        }
        let tables = self.tables.iter();
        let sealed = tables.filter(|table| table.encrypted().next().is_some());
        let sealed: Vec<String> = sealed.map(|table| table.name().to_owned()).collect();
        if known.is_some() && !sealed.is_empty() {
            self.repair(&sealed)?;
        }
        settings::remove(&self.conn, Key::KeysDoubted)?;
        settings::put(&self.conn, Key::KeysHeld, held)
    }

    /// Why nothing can be exchanged with a server that says this of its tables: a column was
    /// encrypted and is not any more (spec EN6), or the key. Asked once it was heard, for a server
    /// that was corrected has to be heard, too.
    pub(crate) fn welcome_obstacle(&self) -> Result<Option<Obstacle>, ReplicaError> {
        if let Some(column) = remember(&self.conn, &self.tables)? {
            let message = format!(
                "{column} was encrypted, and the server says that it is not any more: nothing is \
                 sent, for it would be readable there; declare it `encrypted` again, or detach the \
                 file if this is meant"
            );
            return Ok(Some((ENCRYPTION_ENDED, message)));
        }
        self.key_obstacle()
    }

    /// Why nothing can be exchanged with any server: the key is missing, or another one (spec EN5).
    pub(crate) fn key_obstacle(&self) -> Result<Option<Obstacle>, ReplicaError> {
        let mut names = self.tables.iter().flat_map(|table| {
            let columns = table.encrypted().map(|p| &table.table.columns[p].name);
            columns.map(|column| format!("{}.{column}", table.name()))
        });
        let Some(name) = names.next() else {
            return Ok(None);
        };
        let proven: Option<String> = settings::get(&self.conn, Key::Proven)?;
        if self.keys.is_empty() {
            let which = proven.map_or(String::new(), |id| format!(" {id}"));
            let message = format!(
                "{name} is encrypted, and this device was given no key: give it the key{which} \
                 (`--encryption-key-file`, or `encryption_key` of the library)"
            );
            return Ok(Some((ENCRYPTION_KEY_MISSING, message)));
        }
        if let Some(proven) = proven
            && self.keys.ids().all(|id| id.to_string() != proven)
        {
            let message = format!(
                "{name} is encrypted with key {proven}, and this device was given {}: give it the \
                 right key; to change keys, give the new one and the old one as an older key",
                ids(&self.keys)
            );
            return Ok(Some((ENCRYPTION_KEY_WRONG, message)));
        }
        Ok(None)
    }
}

impl Replica {
    /// Whether nothing is to be sent yet, because it could be sealed with a wrong key: what the
    /// server has says whether it is the right one, so that comes first (spec EN5).
    pub(crate) fn holds_sealed(&mut self) -> Result<bool, ReplicaError> {
        let Some(current) = self.keys.ids().next() else {
            return Ok(false);
        };
        let any = self
            .tables
            .iter()
            .any(|table| table.encrypted().next().is_some());
        if !any || settings::get::<String>(&self.conn, Key::Proven)?.is_some() {
            return Ok(false);
        }
        if cursors::newest(&self.conn)?.is_none() || buckets::is_loading(&self.conn)? {
            return Ok(true);
        }
        // Where nobody has sealed anything that this device may see, its key is as good as any.
        // Where others have, with keys of theirs, it may be: a better one has to be taken later.
        if !settings::get(&self.conn, Key::KeysDoubted)?.unwrap_or(false) {
            settings::put(&self.conn, Key::Proven, current.to_string())?;
        }
        Ok(false)
    }
}

fn ids(keys: &Keyring) -> String {
    let ids: Vec<_> = keys.ids().map(|id| id.to_string()).collect();
    ids.join(", ")
}

/// Columns that a server called encrypted at any time, each as [`place`] has it.
pub(super) fn told_encrypted(conn: &Connection) -> Result<BTreeSet<String>, ReplicaError> {
    let known: Option<String> = settings::get(conn, Key::Encrypted)?;
    let lines = known.iter().flat_map(|known| known.lines());
    Ok(lines.map(str::to_owned).collect())
}

/// A column by the file's numbers.
pub(super) fn place(table: &SyncedTable, position: usize) -> String {
    let column = &table.table.columns[position];
    format!("{} {}", table.number().0, column.number.0)
}

/// Remembers which columns are encrypted, by the file's numbers; the name of one that was and is
/// not any more.
fn remember(conn: &Connection, tables: &Tables) -> Result<Option<String>, ReplicaError> {
    let known = told_encrypted(conn)?;
    let mut now = known.clone();
    for table in tables.iter().filter(|table| table.remote.is_some()) {
        for (position, column) in table.table.columns.iter().enumerate() {
            let line = place(table, position);
            if table.is_encrypted(position) {
                now.insert(line);
            } else if known.contains(&line) && table.server_number(position).is_some() {
                return Ok(Some(format!("{}.{}", table.name(), column.name)));
            }
        }
    }
    if now != known {
        let lines: Vec<_> = now.into_iter().collect();
        db::immediate(conn, || {
            settings::put(conn, Key::Encrypted, lines.join("\n"))
        })?;
    }
    Ok(None)
}

impl Work<'_> {
    /// The first envelope that opens proves the key. As long as none did, one of another key says
    /// that this device has the wrong one, and nothing is applied (spec EN5).
    pub(crate) fn prove_key(&self) -> Result<(), Fault> {
        let Some(keys) = self.tables.iter().map(|table| &table.keys).next() else {
            return Ok(());
        };
        let Some(current) = keys.ids().next() else {
            return Ok(());
        };
        let proven: Option<String> = settings::get(self.conn, Key::Proven)?;
        if self.cells.opened > 0 {
            let current = current.to_string();
            if proven.as_ref() != Some(&current) {
                settings::put(self.conn, Key::Proven, current)?;
            }
            return Ok(());
        }
        match (&self.cells.foreign, proven) {
            (Some((name, id)), None) => Err(Fault::Key(
                ENCRYPTION_KEY_WRONG,
                format!(
                    "{name} is encrypted with key {id}, and this device was given {}: give it the \
                     right key; nothing was applied",
                    ids(keys)
                ),
            )),
            (None, None) if self.cells.met_unknown => {
                Ok(settings::put(self.conn, Key::KeysDoubted, true)?)
            }
            _ => Ok(()),
        }
    }
}
