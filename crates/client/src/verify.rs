//! Proving that a file equals the server: first by itself, then row by row.

use std::path::Path;

use syncline_core::RowKey;
use syncline_replica::LocalDifference;

use crate::{
    api::Api,
    compare::{Comparison, LISTED_MAX, compare_known},
    credentials::Connection,
    driver::{Driver, Goal, Interrupt},
    error::ClientError,
};

/// What `verify` found.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// Rows of the file that are not what the replica knows of them.
    pub local: Vec<LocalDifference>,
    /// Each synced table against the server's rows.
    pub tables: Vec<(String, Comparison)>,
    /// Changesets that wait in the queue, refused: their rows are compared without them.
    pub parked: u64,
}

impl Verification {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.local.is_empty() && self.tables.iter().all(|(_, found)| found.is_equal())
    }
}

/// Brings the file in step (receipt digests are compared at every checkpoint), then compares each
/// row with what the replica knows and with the server. With `repair`, tables that differ are
/// loaded again and compared once more.
///
/// # Errors
/// The file cannot be read, or the server not reached.
pub async fn verify(
    driver: &mut Driver,
    path: &Path,
    connection: &Connection,
    repair: bool,
    interrupt: &Interrupt,
) -> Result<Verification, ClientError> {
    driver.run(Goal::InStep, interrupt, |_, _| {}).await?;
    let found = compare_all(driver, path, connection).await?;
    if found.is_equal() || !repair {
        return Ok(found);
    }
    let mut tables: Vec<String> = found.local.iter().map(|row| row.table.clone()).collect();
    let differing = found
        .tables
        .iter()
        .filter(|(_, comparison)| !comparison.is_equal());
    tables.extend(differing.map(|(name, _)| name.clone()));
    tables.sort();
    tables.dedup();
    driver
        .replica()
        .repair(&tables)
        .map_err(|error| ClientError::replica(path, error))?;
    driver.run(Goal::InStep, interrupt, |_, _| {}).await?;
    compare_all(driver, path, connection).await
}

async fn compare_all(
    driver: &mut Driver,
    path: &Path,
    connection: &Connection,
) -> Result<Verification, ClientError> {
    let failed = |error| ClientError::replica(path, error);
    let local = driver
        .replica()
        .check_local(LISTED_MAX, crate::system::now())
        .map_err(failed)?;
    let status = driver.replica().status().map_err(failed)?;
    let api = Api::new(connection)?;
    let mut found = Verification {
        local,
        tables: Vec::new(),
        parked: status.parked,
    };
    let matched: Vec<(String, String)> = {
        let replica = driver.replica();
        let tables = replica.matched_tables();
        tables
            .map(|(here, there)| (here.to_owned(), there.to_owned()))
            .collect()
    };
    let asked = driver.replica().asked_for().map_err(failed)?;
    for (here, there) in matched {
        let hashes = |after: Option<&RowKey>, limit| driver.replica().hashes(&here, after, limit);
        let comparison = compare_known(path, &there, asked.as_deref(), &api, hashes).await?;
        found.tables.push((here, comparison));
    }
    Ok(found)
}
