//! Asking rules about what is stored, beside the writer.

use std::collections::BTreeMap;

use syncline_core::{
    RowKey, TableNumber, Value,
    rules::{Facts, RuleColumn, Stored},
};

use crate::{
    plan::State,
    storage::{Head, Reader, StorageError},
    want::{Loaded, Missing, Want, without_doubles},
};

/// Each round follows one link further: inheritance and chains have few.
const ROUNDS_MAX: usize = 64;
/// Most rows and lookups that one question may need.
const WANTS_MAX: usize = 100_000;

/// Rows as rules see them, all of one moment. What is not loaded yet is an error that says so.
#[derive(Debug)]
pub struct Snapshot(State);

impl Facts for Snapshot {
    type Missing = Missing;

    fn stored(&self, table: TableNumber, key: &RowKey) -> Result<Option<Stored>, Missing> {
        self.0.stored(table, key)
    }

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, Missing> {
        Facts::matching(&self.0, table, column, value)
    }

    fn matching_both(
        &self,
        table: TableNumber,
        first: (RuleColumn, &Value),
        second: (RuleColumn, &Value),
    ) -> Result<Vec<Stored>, Missing> {
        self.0.matching_both(table, first, second)
    }
}

/// Asks `question` until nothing is missing for its answer; everything it is answered by is of
/// one snapshot.
///
/// # Errors
/// As every read; [`StorageError::Failed`] where a question needs too much.
pub async fn inspect<R: Reader, T>(
    reader: &mut R,
    mut question: impl FnMut(&Snapshot) -> Result<T, Missing>,
) -> Result<T, StorageError> {
    let mut wants: Vec<Want> = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let mut state = State::new(Head::default(), BTreeMap::new());
        let mut loaded = Loaded::default();
        // All of it anew: rows of different moments would explain nothing.
        reader.look(&wants, &mut loaded).await?;
        state.loaded = loaded;
        match question(&Snapshot(state)) {
            Ok(answer) => return Ok(answer),
            Err(missing) => wants.extend(missing.0),
        }
        wants = without_doubles(wants);
        if wants.len() > WANTS_MAX {
            break;
        }
    }
    Err(StorageError::Failed(
        "too many rows would have to be looked at for the answer".into(),
    ))
}
