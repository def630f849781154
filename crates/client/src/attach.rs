//! Making a file a replica: `attach` for one that has rows, `hydrate` for a new one, `detach`.

use std::path::Path;

use rusqlite::Connection as Sqlite;
use syncline_core::{RowKey, Schema, Table, schema::SyncMode};
use syncline_replica::{
    AttachOptions, Keyring, Replica, ReplicaError, Seeding, Status, TableChoice, Topic,
    introspect::{self, IntrospectError, Introspection, introspect},
};

use crate::{
    api::Api,
    compare::{Comparison, compare_table, compare_with_nothing},
    credentials::Connection,
    database,
    error::ClientError,
    held::Held,
    system, there,
};

/// What is to be attached, and to what.
#[derive(Debug, Clone, Default)]
pub struct AttachRequest {
    /// `None`: the file is made ready and waits for a server.
    pub connection: Option<Connection>,
    /// Empty: all that can sync.
    pub tables: Vec<String>,
    /// Of encrypted columns.
    pub keys: Keyring,
    /// Subscribes to nothing: rows of tables on demand leave the file once the server has them.
    pub let_go: bool,
}

/// What attaching would do. Nothing was changed to find out.
#[derive(Debug, Clone, Default)]
pub struct AttachPlan {
    pub tables: Vec<TablePlan>,
    /// Tables that cannot sync or that the server does not have: name and reason.
    pub left_out: Vec<(String, String)>,
    /// What is subscribed to, so that rows of tables on demand stay in the file.
    pub held: Held,
    /// Tables the server does not have and adds when the file is attached (`serve --dev`).
    pub(crate) to_add: Vec<Table>,
}

/// One table of the plan.
#[derive(Debug, Clone)]
pub struct TablePlan {
    pub name: String,
    /// `None` without a server to compare with.
    pub comparison: Option<Comparison>,
    /// The server sends its rows only when they are subscribed to.
    pub on_demand: bool,
}

impl AttachPlan {
    /// Names of the tables that the server does not have and would add.
    #[must_use]
    pub fn added_there(&self) -> Vec<String> {
        let names = self.to_add.iter().map(|table| table.name.clone());
        names.collect()
    }
    /// Rows that exist on both sides under one key with different content: nobody can know which
    /// is right, or whether they were ever the same row.
    #[must_use]
    pub fn different(&self) -> u64 {
        self.sum(|comparison| comparison.different)
    }
    /// Rows that would be sent.
    #[must_use]
    pub fn only_here(&self) -> u64 {
        self.sum(|comparison| comparison.only_here)
    }
    /// Rows that would arrive.
    #[must_use]
    pub fn only_there(&self) -> u64 {
        self.sum(|comparison| comparison.only_there)
    }
    /// Rows that are the same already.
    #[must_use]
    pub fn equal(&self) -> u64 {
        self.sum(|comparison| comparison.equal)
    }
    fn sum(&self, of: impl Fn(&Comparison) -> u64) -> u64 {
        self.tables
            .iter()
            .filter_map(|table| table.comparison.as_ref())
            .map(of)
            .sum()
    }
}

/// Finds out what attaching the file would do; changes nothing, neither in the file nor on the
/// server.
///
/// # Errors
/// The file cannot be attached at all, or the server not be asked.
pub async fn plan_attach(path: &Path, request: &AttachRequest) -> Result<AttachPlan, ClientError> {
    let conn = database::open(path)?;
    let attached =
        Replica::is_attached(&conn).map_err(|error| ClientError::replica(path, error))?;
    if attached {
        return Err(ClientError::AlreadyAttached(path.to_owned()));
    }
    let unfit = |error: IntrospectError| ClientError::TableUnfit {
        message: error.to_string(),
    };
    if let Some((name, advice)) = introspect::reserved_name(&conn).map_err(unfit)? {
        let message = format!("{name} cannot stay as it is: {advice}");
        return Err(ClientError::TableUnfit { message });
    }
    let found = introspect(&conn).map_err(unfit)?;
    let mut plan = AttachPlan::default();
    let local = with_parents(
        chosen(path, &found, &request.tables, &mut plan)?,
        &found,
        &mut plan,
    );
    let Some(connection) = &request.connection else {
        plan.tables = local
            .into_iter()
            .map(|table| TablePlan {
                name: table.name.clone(),
                comparison: None,
                on_demand: false,
            })
            .collect();
        return Ok(plan);
    };
    let is_another = |_: &str, _: &RowKey| Ok(false);
    compare_all(
        &conn,
        path,
        &local,
        connection,
        &request.keys,
        &mut plan,
        is_another,
    )
    .await?;
    if plan.tables.is_empty() {
        let message = format!(
            "none of the tables of {} can sync with this server: {}",
            path.display(),
            listed(&plan.left_out)
        );
        return Err(ClientError::TableUnfit { message });
    }
    Ok(plan)
}

/// Compares each table with the server's rows of it, into `plan`.
async fn compare_all(
    conn: &Sqlite,
    path: &Path,
    local: &[&Table],
    connection: &Connection,
    keys: &Keyring,
    plan: &mut AttachPlan,
    is_another: impl Fn(&str, &RowKey) -> Result<bool, ReplicaError>,
) -> Result<(), ClientError> {
    let api = Api::new(connection)?;
    let remote = there::look(&api, local, plan).await?;
    for table in local {
        let Some(there) = remote.table(&table.name) else {
            let reason = "the server does not sync it".to_owned();
            plan.left_out.push((table.name.clone(), reason));
            continue;
        };
        let shared = common(table, there);
        let is_new = plan.to_add.iter().any(|new| new.name == table.name);
        let comparison = if is_new {
            compare_with_nothing(conn, path, &shared)?
        } else {
            compare_table(conn, path, &shared, &api, keys, |key| {
                is_another(&table.name, key).map_err(|error| ClientError::replica(path, error))
            })
            .await?
        };
        plan.tables.push(TablePlan {
            name: table.name.clone(),
            comparison: Some(comparison),
            on_demand: there.sync == SyncMode::OnDemand,
        });
    }
    if remote
        .tables
        .iter()
        .any(|table| table.sync == SyncMode::OnDemand)
    {
        let is_planned = |table: &&Table| plan.tables.iter().any(|known| known.name == table.name);
        let planned: Vec<&Table> = local.iter().copied().filter(is_planned).collect();
        plan.held = Held::find(conn, path, &planned, &api).await?;
    }
    Ok(())
}

/// Attaches the file as planned: the server adds the tables that it lacks, then the file is made
/// a replica.
///
/// # Errors
/// [`ClientError::Doubt`] if rows differ, the server's if it does not add the tables, or the file
/// cannot be written; then nothing changed in the file.
pub async fn attach(
    path: &Path,
    request: &AttachRequest,
    plan: &AttachPlan,
) -> Result<(), ClientError> {
    drop(attach_unremembered(path, request, plan).await?);
    match &request.connection {
        Some(connection) => connection.save(path),
        None => Ok(()),
    }
}

/// As [`attach`], for an app that keeps its own credentials.
pub(crate) async fn attach_unremembered(
    path: &Path,
    request: &AttachRequest,
    plan: &AttachPlan,
) -> Result<Replica, ClientError> {
    in_no_doubt(path, plan)?;
    let subscriptions = stays(path, plan, request.let_go)?;
    if let Some(connection) = &request.connection {
        there::add(&Api::new(connection)?, plan).await?;
    }
    let conn = database::open(path)?;
    let nothing_to_send = request.connection.is_some() && plan.only_here() == 0;
    let options = AttachOptions {
        tables: TableChoice::Only(plan.tables.iter().map(|table| table.name.clone()).collect()),
        create_missing: false,
        subscriptions,
        seeding: if nothing_to_send {
            Seeding::Skip
        } else {
            Seeding::Send
        },
        ..options(request.connection.as_ref())
    };
    let failed = |error| ClientError::replica(path, error);
    let attached = Replica::attach(conn, options, Box::new(system::entropy));
    let mut replica = attached.map_err(failed)?;
    replica.use_keys(request.keys.clone()).map_err(failed)?;
    Ok(replica)
}

fn in_no_doubt(path: &Path, plan: &AttachPlan) -> Result<(), ClientError> {
    let different = plan.different();
    if different == 0 {
        return Ok(());
    }
    Err(ClientError::Doubt(format!(
        "{different} {} of {} {} the same key as a row on the server and other content; nothing \
         was changed. If the server is right, hydrate a new file; if they are different things, \
         give one side other keys",
        if different == 1 { "row" } else { "rows" },
        path.display(),
        if different == 1 { "has" } else { "have" },
    )))
}

/// What is subscribed to so that the file's rows of tables on demand stay in it.
fn stays(path: &Path, plan: &AttachPlan, let_go: bool) -> Result<Vec<Topic>, ClientError> {
    let held = &plan.held;
    if let_go {
        return Ok(Vec::new());
    }
    if held.fits() {
        return Ok(held.topics.clone());
    }
    let by_table = held.by_table.iter();
    let by_table: Vec<String> = by_table
        .map(|(name, count)| format!("{name}: {count}"))
        .collect();
    Err(ClientError::Doubt(format!(
        "the rows of {} in tables on demand stay there only while it subscribes to {} things ({}), \
         and the server allows a device {}; nothing was changed. Raise `device_subscriptions` in \
         [limits] of the server, leave tables out, or subscribe to nothing (`--no-subscribe`, or \
         `subscribe_at_attach` of the library): then rows that nobody subscribes to leave the file \
         once the server has them",
        path.display(),
        held.count(),
        by_table.join(", "),
        held.max,
    )))
}

/// Makes a new file a replica: its tables come with the first session. The server is asked
/// before, so a wrong token or table leaves nothing behind.
///
/// # Errors
/// [`ClientError::Exists`] if there is a file already, or it cannot be made; the server's.
pub async fn hydrate(
    path: &Path,
    connection: &Connection,
    tables: Vec<String>,
) -> Result<Replica, ClientError> {
    let replica = hydrate_unremembered(path, connection, tables).await?;
    connection.save(path)?;
    Ok(replica)
}

/// As [`hydrate`], for an app that keeps its own credentials.
pub(crate) async fn hydrate_unremembered(
    path: &Path,
    connection: &Connection,
    tables: Vec<String>,
) -> Result<Replica, ClientError> {
    if path.exists() && !database::is_blank(path)? {
        return Err(ClientError::Exists(path.to_owned()));
    }
    let there = Api::new(connection)?.schema().await?.to_schema();
    if let Some(name) = tables.iter().find(|name| there.table(name).is_none()) {
        let known: Vec<&str> = there
            .tables
            .iter()
            .map(|table| table.name.as_str())
            .filter(|name| !name.starts_with("syncline_"))
            .collect();
        let message = format!(
            "the server has no table {name}; it has: {}",
            known.join(", ")
        );
        return Err(ClientError::TableUnfit { message });
    }
    let conn = database::create(path)?;
    let options = AttachOptions {
        tables: if tables.is_empty() {
            TableChoice::All
        } else {
            TableChoice::Only(tables)
        },
        create_missing: true,
        seeding: Seeding::Skip,
        ..options(Some(connection))
    };
    Replica::attach(conn, options, Box::new(system::entropy))
        .map_err(|error| ClientError::replica(path, error))
}

/// What came of meeting a server for the first time.
#[derive(Debug, Default)]
pub struct Met {
    /// Tables that the server added.
    pub added: Vec<String>,
    /// To be subscribed to before the first session ([`Replica::subscribe_all`]), so that rows of
    /// tables on demand stay in the file.
    pub subscriptions: Vec<Topic>,
    /// How many the server allows, with those that there are already.
    pub subscriptions_max: u64,
}

/// What attaching leaves undone when no server is known: compares the rows with the server's, and
/// offers it tables that it lacks. To be called before the first session of a file; does nothing
/// later. Rows that were made since the file was attached are in no doubt: `is_another`
/// ([`Replica::waits_to_be_inserted`]). `let_go`: as [`AttachRequest::let_go`].
///
/// # Errors
/// [`ClientError::Doubt`] if rows differ; the server's.
pub async fn meet(
    path: &Path,
    status: &Status,
    connection: &Connection,
    keys: &Keyring,
    let_go: bool,
    is_another: impl Fn(&str, &RowKey) -> Result<bool, ReplicaError>,
) -> Result<Met, ClientError> {
    let is_compared = status.url.as_deref() == Some(connection.url.as_str());
    if status.server.is_some() || status.tables.is_empty() || is_compared {
        return Ok(Met::default());
    }
    let conn = database::open(path)?;
    let found = introspect(&conn).map_err(|error| ClientError::TableUnfit {
        message: error.to_string(),
    })?;
    let attached = |name: &str| {
        let mut names = status.tables.iter().map(|table| table.name.as_str());
        names.any(|known| known.eq_ignore_ascii_case(name))
    };
    let local: Vec<&Table> = found
        .tables
        .iter()
        .map(|table| &table.table)
        .filter(|table| attached(&table.name))
        .collect();
    let mut plan = AttachPlan::default();
    compare_all(&conn, path, &local, connection, keys, &mut plan, is_another).await?;
    in_no_doubt(path, &plan)?;
    let subscriptions = stays(path, &plan, let_go)?;
    there::add(&Api::new(connection)?, &plan).await?;
    Ok(Met {
        added: plan.added_there(),
        subscriptions,
        subscriptions_max: plan.held.max,
    })
}

/// Compares tables that are to sync from now on, besides those `chosen` already; `names`: these,
/// or all that can. What is to be subscribed to with that, unless `let_go`.
///
/// # Errors
/// [`ClientError::Doubt`] if rows differ; the server's.
pub(crate) async fn compare_more(
    path: &Path,
    names: &[String],
    chosen: &[String],
    connection: &Connection,
    keys: &Keyring,
    let_go: bool,
) -> Result<Vec<Topic>, ClientError> {
    let conn = database::open(path)?;
    let found = introspect(&conn).map_err(|error| ClientError::TableUnfit {
        message: error.to_string(),
    })?;
    let is_in = |list: &[String], name: &str| list.iter().any(|n| n.eq_ignore_ascii_case(name));
    let local: Vec<&Table> = found
        .tables
        .iter()
        .map(|table| &table.table)
        .filter(|table| names.is_empty() || is_in(names, &table.name))
        .filter(|table| !is_in(chosen, &table.name))
        .collect();
    if local.is_empty() {
        return Ok(Vec::new());
    }
    let mut plan = AttachPlan::default();
    let is_another = |_: &str, _: &RowKey| Ok(false);
    compare_all(&conn, path, &local, connection, keys, &mut plan, is_another).await?;
    in_no_doubt(path, &plan)?;
    let subscriptions = stays(path, &plan, let_go)?;
    there::add(&Api::new(connection)?, &plan).await?;
    Ok(subscriptions)
}

/// Takes everything of Syncline out of the file again, and forgets its credentials; also what is
/// left in a file whose metadata is gone. How many changesets had not reached the server, if that
/// is known: their rows stay in the file.
///
/// # Errors
/// The file is not attached or cannot be written; then nothing changed.
pub fn detach(path: &Path) -> Result<Option<u64>, ClientError> {
    let failed = |error| ClientError::replica(path, error);
    let conn = database::open(path)?;
    let unsent = match Replica::remove_leftovers(&conn).map_err(failed)? {
        true => None,
        false => {
            let replica = database::replica_of(conn, path, Keyring::default())?;
            let status = replica.status().map_err(failed)?;
            replica.detach().map_err(failed)?;
            Some(status.waiting + status.parked)
        }
    };
    Connection::forget(path)?;
    Ok(unsent)
}

fn options(connection: Option<&Connection>) -> AttachOptions {
    AttachOptions {
        device_name: system::device_name(),
        platform: system::platform(),
        url: connection.map(|connection| connection.url.clone()),
        ..AttachOptions::default()
    }
}

/// The tables asked for, or all that can sync.
fn chosen<'a>(
    path: &Path,
    found: &'a Introspection,
    names: &[String],
    plan: &mut AttachPlan,
) -> Result<Vec<&'a Table>, ClientError> {
    for name in names {
        if let Some(problem) = found
            .problems
            .iter()
            .find(|p| p.table.eq_ignore_ascii_case(name))
        {
            return Err(ClientError::TableUnfit {
                message: problem.to_string(),
            });
        }
        if !found
            .tables
            .iter()
            .any(|t| t.table.name.eq_ignore_ascii_case(name))
        {
            let message = format!("{} has no table {name}", path.display());
            return Err(ClientError::TableUnfit { message });
        }
    }
    let wanted =
        |name: &str| names.is_empty() || names.iter().any(|n| n.eq_ignore_ascii_case(name));
    for problem in found
        .problems
        .iter()
        .filter(|problem| wanted(&problem.table))
    {
        plan.left_out
            .push((problem.table.clone(), problem.to_string()));
    }
    let tables: Vec<_> = found
        .tables
        .iter()
        .map(|t| &t.table)
        .filter(|table| wanted(&table.name))
        .collect();
    if tables.is_empty() {
        let why = if plan.left_out.is_empty() {
            "it has no tables".to_owned()
        } else {
            listed(&plan.left_out)
        };
        let message = format!("{} has no table that can sync: {why}", path.display());
        return Err(ClientError::TableUnfit { message });
    }
    Ok(tables)
}

/// The tables that refer to none that cannot sync; the others are left out of the plan.
///
/// On another device rows would refer to rows that are never there, and a program that checks
/// foreign keys could not write them. References to tables that are not chosen, or that the file
/// does not have, are whoever's who made them so.
fn with_parents<'a>(
    mut chosen: Vec<&'a Table>,
    found: &Introspection,
    plan: &mut AttachPlan,
) -> Vec<&'a Table> {
    let problems = found.problems.iter().map(|problem| &problem.table);
    let mut unfit: Vec<&str> = problems
        .chain(&found.left_out)
        .map(String::as_str)
        .collect();
    let mut fit: Vec<&Table> = found.tables.iter().map(|local| &local.table).collect();
    loop {
        let unfit_parent = |table: &Table| {
            let keys = table.foreign_keys.iter();
            let parent = |name: &str| unfit.iter().find(|known| known.eq_ignore_ascii_case(name));
            keys.filter_map(|key| parent(&key.parent).copied()).next()
        };
        let child = fit.iter().enumerate();
        let Some((position, parent)) = child
            .filter_map(|(position, table)| Some((position, unfit_parent(table)?)))
            .next()
        else {
            return chosen;
        };
        let name = fit.remove(position).name.as_str();
        if let Some(position) = chosen.iter().position(|table| table.name == name) {
            chosen.remove(position);
            let reason = format!(
                "table {name} cannot sync: it refers to {parent}, which cannot; make {parent} fit \
                 to sync, or take the reference out"
            );
            plan.left_out.push((name.to_owned(), reason));
        }
        unfit.push(name);
    }
}

/// The server's table with the columns that the file has too, so that hashes are comparable.
pub(crate) fn common(local: &Table, there: &Table) -> Table {
    let mut table = there.clone();
    let kept: Vec<usize> = (0..there.columns.len())
        .filter(|&i| local.position(&there.columns[i].name).is_some())
        .collect();
    table.primary_key = there
        .primary_key
        .iter()
        .filter_map(|i| kept.iter().position(|k| k == i))
        .collect();
    table.uniques.clear();
    table.indexes.clear();
    table.foreign_keys.clear();
    table.columns = kept.iter().map(|&i| there.columns[i].clone()).collect();
    table
}

/// The tables of the file that its replica and the server share, ready to be compared.
pub(crate) fn shared_tables(conn: &Sqlite, there: &Schema) -> Result<Vec<Table>, ClientError> {
    let found = introspect(conn).map_err(|error| ClientError::TableUnfit {
        message: error.to_string(),
    })?;
    let tables = found.tables.iter().map(|local| &local.table);
    Ok(tables
        .filter_map(|local| Some(common(local, there.table(&local.name)?)))
        .collect())
}

fn listed(left_out: &[(String, String)]) -> String {
    left_out
        .iter()
        .map(|(name, why)| format!("{name}: {why}"))
        .collect::<Vec<_>>()
        .join("; ")
}
