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
    undone: AtomicU32,
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

    fn undo(&self) {
        self.undone.fetch_add(1, Ordering::Relaxed);
    }
}

/// Else what an earlier transaction wrote down would be told again.
#[test]
fn ac16_nothing_is_undone_that_was_not_noted() {
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
    world.storage.fail_commit(StorageError::Full);
    let committing = commit_group(&mut world.storage, &world.context, &group, world.now);
    let outcome = block_on(committing);
    assert!(outcome.entries.is_empty(), "nothing is committed");
    let heard = [&book.noted, &book.undone].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(heard, [0, 0], "this storage has no audit log");
}
