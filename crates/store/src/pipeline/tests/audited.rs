//! Who writes down who gives access hears what comes of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use syncline_core::{Schema, Timestamp};

use crate::{
    AccessChange, Auditor, StorageError, accounts::AccountRecords, commit_group, testkit::block_on,
};

/// Counts what it hears.
#[derive(Debug, Default)]
struct Book {
    noted: AtomicU32,
    committed: AtomicU32,
}

impl Auditor for Book {
    fn note(
        &self,
        _: &mut dyn AccountRecords,
        _: &Schema,
        _: &BTreeMap<AccessChange, u64>,
        _: Timestamp,
    ) -> Result<(), StorageError> {
        self.noted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn committed(&self) {
        self.committed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Else what an earlier transaction wrote down, and lost, would count as told.
#[test]
fn ac16_nothing_is_committed_that_was_not_noted() {
    let mut world = super::garden();
    let book = Arc::new(Book::default());
    world.context = world.context.clone().audited(book.clone());
    let eve = [
        ("project_id", "p".into()),
        ("user_id", "eve".into()),
        ("role", "viewer".into()),
    ];
    let changes = world.draw().insert("members", "eve", &eve).done();
    let group = [world.submission("ada", changes)];
    let committing = commit_group(&mut world.storage, &world.context, &group, world.now);
    let outcome = block_on(committing);
    assert_eq!(outcome.entries.len(), 1, "it is committed");
    let heard = [&book.noted, &book.committed].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(heard, [0, 0], "this storage has no audit log");
}
