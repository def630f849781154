//! Doing one run: the file is attached if it is not, the replica is driven, the result is told.

use std::{cell::RefCell, future::Future, rc::Rc, sync::atomic::Ordering};

use syncline_core::RowKey;
use syncline_replica::{Replica, TableState};

use super::{Core, meter::Meter};
use crate::{
    attach::{self, AttachRequest},
    credentials::Connection,
    database,
    driver::{Driver, Goal, Interrupt, Notice, Summary},
    dry_run,
    event::Event,
    resolver,
    run::{Operation, Phase, Request, SyncReport, Tables},
    sync_error::{Error, ErrorKind},
    system,
};

/// The code of errors after which somebody has to sign in.
const SIGNED_OUT: &str = "signed_out";
/// Rounds of one run in which resolvers decide something; what opens later waits for the next run.
const DECIDED_AGAIN_MAX: usize = 4;

/// Runs and tells who asked.
pub(super) async fn answered(core: &Rc<Core>, mut request: Request) {
    let answer = request.answer.take();
    let outcome = if request.interrupt.is_triggered() {
        Err(Error::interrupted())
    } else if request.operation == Operation::Sync && !core.shared.config().is_sync_available() {
        Ok(Meter::new(core, &request).offline())
    } else {
        run(core, &request).await
    };
    if let Some(answer) = answer {
        // Who does not wait any more has interrupted it.
        let _gone = answer.send(outcome);
    }
}

/// One run that has an end.
pub(super) async fn run(core: &Rc<Core>, request: &Request) -> Result<SyncReport, Error> {
    let mut meter = Meter::new(core, request);
    if request.dry_run {
        let report = meter.blank(true);
        let work = dry_run::dry_run(core, report);
        return unless_interrupted(&request.interrupt, work).await;
    }
    core.tell(&Event::SyncStarted(request.operation));
    meter.at(0, Phase::Connecting, None, "connecting".into());
    let outcome = to_its_end(core, request, &mut meter).await;
    core.shared.connected.store(false, Ordering::Release);
    match &outcome {
        Ok(report) => {
            core.record(report, None);
            core.tell(&Event::SyncCompleted(report.clone()));
        }
        Err(error) => {
            core.record(&meter.blank(false), Some(error));
            tell_failure(core, error);
        }
    }
    outcome
}

fn tell_failure(core: &Core, error: &Error) {
    core.tell(&Event::SyncError(error.clone()));
    if error.code() == SIGNED_OUT {
        let reason = error.to_string();
        core.tell(&Event::SignedOut { reason });
    }
}

async fn to_its_end(
    core: &Rc<Core>,
    request: &Request,
    meter: &mut Meter,
) -> Result<SyncReport, Error> {
    let connection = core.connection()?;
    let attaching = attached(core, &connection, &request.tables, meter);
    let replica = unless_interrupted(&request.interrupt, attaching).await?;
    let mut driver = driver(core, replica, connection, meter)?;
    driver.set_attempts_max(core.shared.config().max_retries.saturating_add(1));
    let goal = match request.operation {
        Operation::Seed => Goal::Sent,
        Operation::Hydrate | Operation::Sync | Operation::Auto => Goal::InStep,
    };
    core.resolvers
        .borrow_mut()
        .of_run
        .clone_from(&request.resolver);
    let driven = drive(core, &mut driver, goal, &request.interrupt, meter).await;
    core.resolvers.borrow_mut().of_run = None;
    let summary = driven?;
    known(core, &request.tables)?;
    Ok(meter.report(&summary))
}

/// Runs until the goal is reached, and again as long as resolvers decided something meanwhile.
async fn drive(
    core: &Rc<Core>,
    driver: &mut Driver,
    goal: Goal,
    interrupt: &Interrupt,
    meter: &mut Meter,
) -> Result<Summary, Error> {
    resolver::decide_open(core)?;
    // A resolver may take as long as it likes.
    let decided = async || Ok(resolver::all_decided(core).await);
    let mut total = Summary::default();
    for _ in 0..DECIDED_AGAIN_MAX {
        let before = unless_interrupted(interrupt, decided()).await?;
        let ran = driver.run(goal, interrupt, |notice, status| {
            meter.notice(notice, status);
        });
        total.add(&ran.await?);
        if unless_interrupted(interrupt, decided()).await? == before {
            break;
        }
    }
    Ok(total)
}

/// Keeps the file in step until interrupted; each time that everything is here a sync counts as
/// completed.
pub(super) async fn live(core: &Rc<Core>, interrupt: &Interrupt) -> Result<(), Error> {
    let request = Request {
        operation: Operation::Auto,
        tables: core.shared.config().tables.clone(),
        dry_run: false,
        interrupt: interrupt.clone(),
        progress: None,
        resolver: None,
        answer: None,
    };
    let mut meter = Meter::new(core, &request);
    core.tell(&Event::SyncStarted(Operation::Auto));
    let outcome = without_end(core, &request, &mut meter).await;
    core.shared.connected.store(false, Ordering::Release);
    match outcome {
        Ok(()) => Ok(()),
        // Something else is to be done first: no failure.
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        Err(error) => {
            tell_failure(core, &error);
            Err(error)
        }
    }
}

async fn without_end(core: &Rc<Core>, request: &Request, meter: &mut Meter) -> Result<(), Error> {
    let connection = core.connection()?;
    let attaching = attached(core, &connection, &request.tables, meter);
    let replica = unless_interrupted(&request.interrupt, attaching).await?;
    let mut driver = driver(core, replica, connection, meter)?;
    let progress = driver.progress();
    let mut before = Summary::default();
    driver
        .run(Goal::Forever, &request.interrupt, |notice, status| {
            meter.notice(notice, status);
            if let Notice::Event(syncline_replica::Event::Live { .. }) = notice {
                let now = progress.get();
                let report = meter.report(&now.since(&before));
                before = now;
                core.record(&report, None);
                core.tell(&Event::SyncCompleted(report));
                meter.restart();
            }
        })
        .await?;
    Ok(())
}

fn driver(
    core: &Core,
    replica: Rc<RefCell<Replica>>,
    connection: Connection,
    meter: &mut Meter,
) -> Result<Driver, Error> {
    meter.will_seed(database::rows_to_seed(&replica.borrow(), core.path())?);
    Ok(Driver::shared(replica, core.path.clone(), connection)?)
}

async fn unless_interrupted<T>(
    interrupt: &Interrupt,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        () = interrupt.triggered() => Err(Error::interrupted()),
        done = work => done,
    }
}

/// The replica of the file, which is attached now if it was not, with the tables that are wanted.
async fn attached(
    core: &Rc<Core>,
    connection: &Connection,
    tables: &Tables,
    meter: &mut Meter,
) -> Result<Rc<RefCell<Replica>>, Error> {
    let tables = core.shared.config().tables.narrowed(tables)?;
    let let_go = !core.shared.config().subscribe_at_attach;
    let path = core.path();
    if core.replica().is_none()
        && let Some(replica) = database::open_attached(path, core.keys())?
    {
        // Another program was quicker.
        core.attached(replica);
    }
    if let Some(replica) = core.replica() {
        let status = {
            let mut replica = replica.borrow_mut();
            let sealed = replica.seal(system::now());
            sealed
                .and_then(|_| replica.status())
                .map_err(|e| core.failed(e))?
        };
        let is_another =
            |table: &str, key: &RowKey| replica.borrow().waits_to_be_inserted(table, key);
        let keys = core.keys();
        let met = attach::meet(path, &status, connection, &keys, let_go, is_another).await?;
        let subscribed = replica.borrow_mut().subscribe_all(
            &met.subscriptions,
            met.subscriptions_max,
            system::now(),
        );
        subscribed.map_err(|error| core.failed(error))?;
        widen(core, &replica, &tables, connection).await?;
        return Ok(replica);
    }
    let text = "comparing the file with the server".to_owned();
    meter.at(2, Phase::Comparing, None, text);
    let names = tables.names().to_vec();
    let replica = if database::is_blank(path)? {
        let mut replica = attach::hydrate_unremembered(path, connection, names).await?;
        replica.use_keys(core.keys()).map_err(|e| core.failed(e))?;
        replica
    } else {
        let request = AttachRequest {
            connection: Some(connection.clone()),
            tables: names,
            keys: core.keys(),
            let_go,
        };
        let plan = attach::plan_attach(path, &request).await?;
        if let Some((name, why)) = plan.left_out.iter().find(|(name, _)| tables.names_it(name)) {
            return Err(Error::table(name, why));
        }
        attach::attach_unremembered(path, &request, &plan).await?
    };
    named(core, replica)
}

/// Makes the file a replica before any server is known. Whether it was none.
pub(crate) async fn attach_offline(core: &Rc<Core>) -> Result<bool, Error> {
    let path = core.path();
    if core.replica().is_some() {
        return Ok(false);
    }
    if database::is_attached(path)? {
        core.attached(database::open_replica_with(path, core.keys())?);
        return Ok(false);
    }
    let tables = core.shared.config().tables.names().to_vec();
    let request = AttachRequest {
        connection: None,
        tables,
        keys: core.keys(),
        ..AttachRequest::default()
    };
    let plan = attach::plan_attach(path, &request).await?;
    let replica = attach::attach_unremembered(path, &request, &plan).await?;
    named(core, replica)?;
    Ok(true)
}

/// Takes a file that was just attached, with the name that the app gives the device.
fn named(core: &Core, replica: Replica) -> Result<Rc<RefCell<Replica>>, Error> {
    let replica = core.attached(replica);
    let name = core.shared.config().device_name.clone();
    if let Some(name) = name {
        let named = replica.borrow_mut().set_device_name(&name);
        named.map_err(|error| core.failed(error))?;
    }
    Ok(replica)
}

/// Lets tables sync that no call has named before.
async fn widen(
    core: &Core,
    replica: &Rc<RefCell<Replica>>,
    tables: &Tables,
    connection: &Connection,
) -> Result<(), Error> {
    let chosen = replica.borrow().chosen();
    let Some(chosen) = chosen.map_err(|error| core.failed(error))? else {
        return Ok(());
    };
    let is_chosen = |name: &String| chosen.iter().any(|known| known.eq_ignore_ascii_case(name));
    if let Tables::Only(names) = tables
        && names.iter().all(is_chosen)
    {
        return Ok(());
    }
    let let_go = !core.shared.config().subscribe_at_attach;
    let subscriptions = attach::compare_more(
        core.path(),
        tables.names(),
        &chosen,
        connection,
        &core.keys(),
        let_go,
    )
    .await?;
    let names = match tables {
        Tables::All => None,
        Tables::Only(names) => Some(names.as_slice()),
    };
    let widened = replica
        .borrow_mut()
        .choose_more(names, &subscriptions, system::now());
    widened.map(drop).map_err(|error| core.failed(error))
}

/// Tables that were named must sync by now.
fn known(core: &Core, tables: &Tables) -> Result<(), Error> {
    let Some(status) = core.with(|replica| replica.status())? else {
        return Ok(());
    };
    for name in tables.names() {
        let found = status
            .tables
            .iter()
            .find(|table| table.name.eq_ignore_ascii_case(name));
        match found.map(|table| &table.state) {
            Some(TableState::LeftOut { reason }) => return Err(Error::table(name, reason)),
            Some(_) => {}
            None => {
                return Err(Error::table(name, "this file has no such table"));
            }
        }
    }
    Ok(())
}
