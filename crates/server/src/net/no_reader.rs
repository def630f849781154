//! A reader for sessions that need none: whoever asks it is told to come back with a real one.

use std::sync::Arc;

use syncline_core::{
    BucketId, DeviceId, RowKey, TableNumber, Tag, UserId, Version,
    rules::{Grant, GranteeId},
};
use syncline_store::{
    DeviceState, Head, HistoryRead, HistoryWant, Loaded, LogEntry, PageRead, PageWant, Reader,
    RowsRead, StorageError, Want, storage::HashesRead,
};

pub(crate) struct NoReader;

impl Reader for NoReader {
    async fn head(&mut self) -> Result<Head, StorageError> {
        Err(StorageError::Busy)
    }
    async fn log_after(
        &mut self,
        _: Version,
        _: usize,
    ) -> Result<Vec<Arc<LogEntry>>, StorageError> {
        Err(StorageError::Busy)
    }
    async fn tag_at(&mut self, _: Version) -> Result<Option<Tag>, StorageError> {
        Err(StorageError::Busy)
    }
    async fn pages(&mut self, _: &[PageWant], _: usize) -> Result<PageRead, StorageError> {
        Err(StorageError::Busy)
    }
    async fn rows_to_come(&mut self, _: &[PageWant]) -> Result<u64, StorageError> {
        Err(StorageError::Busy)
    }
    async fn grants(
        &mut self,
        _: &[GranteeId],
    ) -> Result<(Head, Vec<(Grant, Version)>), StorageError> {
        Err(StorageError::Busy)
    }
    async fn hashes(
        &mut self,
        _: TableNumber,
        _: &[BucketId],
        _: Option<&RowKey>,
        _: usize,
    ) -> Result<HashesRead, StorageError> {
        Err(StorageError::Busy)
    }
    async fn device(&mut self, _: DeviceId) -> Result<Option<DeviceState>, StorageError> {
        Err(StorageError::Busy)
    }
    async fn devices(&mut self, _: &UserId, _: usize) -> Result<Vec<DeviceState>, StorageError> {
        Err(StorageError::Busy)
    }
    async fn rows(
        &mut self,
        _: TableNumber,
        _: &[RowKey],
        _: usize,
    ) -> Result<RowsRead, StorageError> {
        Err(StorageError::Busy)
    }
    async fn history(&mut self, _: &HistoryWant) -> Result<HistoryRead, StorageError> {
        Err(StorageError::Busy)
    }
    async fn look(&mut self, _: &[Want], _: &mut Loaded) -> Result<(), StorageError> {
        Err(StorageError::Busy)
    }
    async fn keys(
        &mut self,
        _: TableNumber,
        _: Option<&RowKey>,
        _: usize,
    ) -> Result<Vec<RowKey>, StorageError> {
        Err(StorageError::Busy)
    }
}
