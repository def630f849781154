//! The contract that every storage keeps, on a real file.

use syncline_store::{contract::Bed, testkit::External};
use syncline_store_sqlite::{SqliteReader, SqliteStorage};

use crate::support::{ENTROPY, execute};

/// A folder with the data file in it.
struct FileBed(tempfile::TempDir);

impl Bed for FileBed {
    type Storage = SqliteStorage;
    type Reader = SqliteReader;

    fn open(&mut self) -> SqliteStorage {
        SqliteStorage::open(self.0.path().join("data.db"), &ENTROPY).expect("the file is opened")
    }

    fn reader(&mut self, storage: &SqliteStorage) -> SqliteReader {
        storage.reader().expect("a reader is opened")
    }

    fn external(&mut self, statements: &[External<'_>]) -> Result<(), String> {
        execute(&self.0.path().join("data.db"), statements)
    }
}

syncline_store::storage_contract!(FileBed(tempfile::tempdir().expect("a folder")));
