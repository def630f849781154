//! The contract that every storage keeps.

use crate::{
    contract::Bed,
    memory::{MemoryReader, MemoryStorage},
    testkit::External,
};

/// Storages that share one database.
struct MemoryBed(MemoryStorage);

impl Bed for MemoryBed {
    type Storage = MemoryStorage;
    type Reader = MemoryReader;

    fn open(&mut self) -> MemoryStorage {
        self.0.clone()
    }

    fn reader(&mut self, storage: &MemoryStorage) -> MemoryReader {
        storage.reader()
    }

    fn external(&mut self, statements: &[External<'_>]) -> Result<(), String> {
        self.0
            .external(statements)
            .map_err(|error| error.to_string())
    }
}

crate::storage_contract!(MemoryBed(MemoryStorage::new()));
