//! The embedded storage as the server's backend.

use std::{path::PathBuf, sync::Arc};

use syncline_server::net::Backend;
use syncline_store::{StorageError, accounts::AccountStore};
use syncline_store_sqlite::{SqliteReader, SqliteStorage};

/// One SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteBackend {
    pub path: PathBuf,
    /// Random: becomes the server's id and secret when the data is new.
    pub entropy: [u8; 32],
}

impl Backend for SqliteBackend {
    type Storage = SqliteStorage;
    type Reader = SqliteReader;

    fn open(&self) -> Result<SqliteStorage, StorageError> {
        SqliteStorage::open(&self.path, &self.entropy)
            .map_err(|error| StorageError::Failed(error.into()))
    }

    fn reader(storage: &SqliteStorage) -> Result<SqliteReader, StorageError> {
        storage.reader()
    }

    fn accounts(storage: &SqliteStorage) -> Result<Option<Arc<dyn AccountStore>>, StorageError> {
        Ok(Some(Arc::new(storage.accounts()?)))
    }
}
