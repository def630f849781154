//! Saying what a run would do.

use std::{collections::BTreeMap, path::Path, rc::Rc};

use syncline_core::Op;
use syncline_replica::{QueueState, Replica, RowCounts, TableState};

use crate::{
    api::Api,
    attach::{self, AttachRequest},
    compare::{Comparison, compare_table},
    credentials::Connection,
    database,
    run::{Operation, SyncReport, Tables},
    sync_error::Error,
    system,
    worker::Core,
};

/// Changesets of the outbox read at once.
const PAGE: usize = 100;

/// Fills in `report` without changing anything here or there.
pub(crate) async fn dry_run(core: &Rc<Core>, mut report: SyncReport) -> Result<SyncReport, Error> {
    let connection = core.connection()?;
    let tables = core.shared.config().tables.narrowed(&report.tables)?;
    if core.replica().is_some() {
        attached(core, &connection, &tables, &mut report).await?;
    } else if database::is_blank(core.path())? {
        blank(core.path(), &connection, &tables, &mut report).await?;
    } else {
        let request = AttachRequest {
            connection: Some(connection),
            tables: tables.names().to_vec(),
            keys: core.keys(),
            ..AttachRequest::default()
        };
        let plan = attach::plan_attach(core.path(), &request).await?;
        for (name, why) in &plan.left_out {
            report.errors.push(Error::table(name, why));
        }
        report.sent.created = plan.only_here();
        report.received.created = plan.only_there();
        report.received.updated = plan.different();
    }
    match report.operation {
        Operation::Seed => report.received = RowCounts::default(),
        Operation::Hydrate => report.sent = RowCounts::default(),
        Operation::Sync | Operation::Auto => {}
    }
    report.records_processed = report.sent.total() + report.received.total();
    Ok(report)
}

/// A new file would get every row of the server.
async fn blank(
    path: &Path,
    connection: &Connection,
    tables: &Tables,
    report: &mut SyncReport,
) -> Result<(), Error> {
    let api = Api::new(connection)?;
    let schema = api.schema().await?.to_schema();
    for table in &schema.tables {
        if table.name.starts_with("syncline_") || !tables.contains(&table.name) {
            continue;
        }
        let mut after = None;
        loop {
            let (rows, more) = api.hashes(&table.name, after.as_ref(), None).await?;
            report.received.created += rows.len() as u64;
            after = rows.last().map(|row| row.key.clone());
            if !more || after.is_none() {
                break;
            }
        }
    }
    tracing::debug!(path = %path.display(), "counted what would arrive");
    Ok(())
}

/// What waits would be sent; what differs from the server otherwise would be received.
async fn attached(
    core: &Rc<Core>,
    connection: &Connection,
    tables: &Tables,
    report: &mut SyncReport,
) -> Result<(), Error> {
    let Some(replica) = core.replica() else {
        return Ok(());
    };
    let (pending, status) = {
        let mut replica = replica.borrow_mut();
        replica.seal(system::now()).map_err(|e| core.failed(e))?;
        let pending = pending(&replica).map_err(|e| core.failed(e))?;
        (pending, replica.status().map_err(|e| core.failed(e))?)
    };
    let api = Api::new(connection)?;
    let schema = api.schema().await?.to_schema();
    let conn = database::open(core.path())?;
    for table in attach::shared_tables(&conn, &schema)? {
        let state = status
            .tables
            .iter()
            .find(|known| known.name.eq_ignore_ascii_case(&table.name));
        let Some(state) = state.filter(|known| !matches!(known.state, TableState::LeftOut { .. }))
        else {
            continue;
        };
        if !tables.contains(&table.name) {
            continue;
        }
        let found = compare_table(&conn, core.path(), &table, &api, &core.keys(), |_| {
            Ok(false)
        })
        .await?;
        let waiting = pending.get(&state.name).copied().unwrap_or_default();
        add(report, &found, waiting, state.seeding);
    }
    Ok(())
}

fn add(report: &mut SyncReport, found: &Comparison, waiting: RowCounts, is_seeding: bool) {
    report.sent.add(waiting);
    if is_seeding {
        report.sent.created += found.only_here.saturating_sub(waiting.created);
    } else {
        report.received.deleted += found.only_here.saturating_sub(waiting.created);
    }
    report.received.created += found.only_there.saturating_sub(waiting.deleted);
    report.received.updated += found.different.saturating_sub(waiting.updated);
}

/// What waits in the outbox, by table.
fn pending(
    replica: &Replica,
) -> Result<BTreeMap<String, RowCounts>, syncline_replica::ReplicaError> {
    let mut counts: BTreeMap<String, RowCounts> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = replica.queue(after, PAGE)?;
        for queued in &page {
            if !matches!(queued.state, QueueState::Sealed | QueueState::Sent) {
                continue;
            }
            for change in &queued.changes {
                let counts = counts.entry(change.table.clone()).or_default();
                match change.change.op {
                    Op::Insert(_) => counts.created += 1,
                    Op::Update(_) => counts.updated += 1,
                    Op::Delete => counts.deleted += 1,
                }
            }
            // A listing shows the first ones; the rest of a large one is like them.
            let unlisted = queued.changes_total - queued.changes.len() as u64;
            if let (Some(last), true) = (queued.changes.last(), unlisted > 0) {
                let counts = counts.entry(last.table.clone()).or_default();
                match last.change.op {
                    Op::Insert(_) => counts.created += unlisted,
                    Op::Update(_) => counts.updated += unlisted,
                    Op::Delete => counts.deleted += unlisted,
                }
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.id),
            Some(_) | None => return Ok(counts),
        }
    }
}
