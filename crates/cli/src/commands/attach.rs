//! `syncline attach` and `detach`.

use std::{
    io::{BufRead, IsTerminal, Write},
    path::Path,
};

use serde_json::json;
use syncline::engine::{self, AttachPlan, AttachRequest, DifferenceKind, plan_attach};

use super::{connection_if_given, keys, log, runtime, subscribe};
use crate::{
    args::{Attach, FileArgs},
    exit::{Exit, Failure},
    output::{Output, counted, grouped},
};

pub(crate) fn attach(args: Attach, verbose: u8, output: &Output) -> anyhow::Result<Exit> {
    log(verbose);
    let request = AttachRequest {
        connection: connection_if_given(&args.server, output)?,
        tables: args.tables,
        keys: keys(&args.server.encryption_key_file)?,
        let_go: args.no_subscribe,
    };
    let runtime = runtime()?;
    let plan = runtime.block_on(plan_attach(&args.file, &request))?;
    show(&plan, output);
    warn_of_leaving(&plan, request.let_go, &args.file, output);
    let is_refused = plan.different() > 0 || !request.let_go && !plan.held.fits();
    if !is_refused && !args.yes && !confirm(&plan, request.connection.is_some())? {
        output.line("nothing was changed");
        return Ok(Exit::Done);
    }
    runtime.block_on(engine::attach(&args.file, &request, &plan))?;
    if !request.let_go {
        subscribe::held(&plan.held.topics, output);
    }
    let file = args.file.display();
    output.result(
        &match &request.connection {
            Some(connection) => format!("attached {file} to {}; next: syncline sync {file} --watch", connection.url),
            None => format!("attached {file} without a server: changes are kept until `syncline sync {file} --server URL`"),
        },
        &json!({
            "type": "attached", "file": args.file, "equal": plan.equal(), "only_here": plan.only_here(),
            "only_there": plan.only_there(), "tables": plan.tables.len(),
        }),
    );
    Ok(Exit::Done)
}

fn show(plan: &AttachPlan, output: &Output) {
    output.would_be_added_there(&plan.added_there());
    let width = plan
        .tables
        .iter()
        .map(|table| table.name.len())
        .max()
        .unwrap_or(0)
        .max(5);
    if plan.tables.iter().any(|table| table.comparison.is_some()) {
        output.line(&format!(
            "{:width$}  {:>10}  {:>10}  {:>10}  {:>10}",
            "table", "equal", "only here", "only there", "different"
        ));
    }
    for table in &plan.tables {
        let Some(found) = &table.comparison else {
            output.result(
                &table.name,
                &json!({ "type": "table", "table": table.name }),
            );
            continue;
        };
        output.result(
            &format!(
                "{:width$}  {:>10}  {:>10}  {:>10}  {:>10}",
                table.name, grouped(found.equal), grouped(found.only_here), grouped(found.only_there), grouped(found.different)
            ),
            &json!({
                "type": "table", "table": table.name, "equal": found.equal, "only_here": found.only_here,
                "only_there": found.only_there, "different": found.different,
            }),
        );
        let listed = found
            .differences
            .iter()
            .filter(|d| d.kind == DifferenceKind::Different);
        for difference in listed.take(5) {
            output.note(&format!("  different: {} {}", table.name, difference.key));
        }
    }
    if !plan.left_out.is_empty() {
        output.object(&json!({ "type": "tables_left_out", "tables": plan.left_out }));
    }
    for (name, why) in &plan.left_out {
        output.note(&format!(
            "left out: {name}: {}",
            why.trim_start_matches(&format!("{name}: "))
                .trim_start_matches(&format!("table {name} cannot sync: "))
        ));
    }
}

/// Rows of tables on demand do not stay in a file that asks for none of them (spec SU1).
fn warn_of_leaving(plan: &AttachPlan, let_go: bool, file: &Path, output: &Output) {
    let (plans, file) = (plan.tables.iter(), file.display());
    for table in plans.filter(|table| table.on_demand) {
        let found = table.comparison.as_ref();
        let rows = found.map_or(0, |found| found.equal + found.only_here + found.different);
        let mut by_table = plan.held.by_table.iter();
        if rows > 0 && (let_go || !by_table.any(|(name, _)| *name == table.name)) {
            let (name, rows) = (&table.name, counted(rows, "row"));
            output.note(&format!(
                "{name} is sent on demand: of its {rows} here, those that this file does not \
                 subscribe to leave it once the server has them; `syncline subscribe {file}` to \
                 what is to stay before the first sync"
            ));
        }
    }
}

/// Asks, if there is somebody to ask; a script has to say --yes.
fn confirm(plan: &AttachPlan, with_server: bool) -> anyhow::Result<bool> {
    let what = match (with_server, plan.only_here(), plan.only_there()) {
        (false, ..) => format!("watch {}", counted(plan.tables.len() as u64, "table")),
        (true, 0, 0) => "send and receive no rows, as both sides are equal".to_owned(),
        (true, here, 0) => format!("send {}", counted(here, "row")),
        (true, 0, there) => format!("receive {}", counted(there, "row")),
        (true, here, there) => format!(
            "send {} and receive {}",
            counted(here, "row"),
            counted(there, "row")
        ),
    };
    if !std::io::stdin().is_terminal() {
        let sentence = format!("attaching would {what}; say --yes to do it (nothing was changed)");
        return Err(Failure::new(Exit::Doubt, sentence).into());
    }
    let mut stderr = std::io::stderr();
    write!(
        stderr,
        "This adds triggers and syncline_* tables, and will {what}. Go on? [y/N] "
    )?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

pub(crate) fn detach(args: &FileArgs, output: &Output) -> anyhow::Result<Exit> {
    let unsent = engine::detach(&args.file)?;
    match unsent {
        Some(0) => {}
        Some(unsent) => output.note(&format!(
            "{} had not reached the server; the rows are still in the file",
            counted(unsent, "changeset")
        )),
        None => output.note(
            "its metadata was gone: whether changes had not reached the server is not known; the \
             rows are still in the file",
        ),
    }
    output.result(
        &format!(
            "detached {}: its schema is as it was, its rows stay",
            args.file.display()
        ),
        &json!({ "type": "detached", "file": args.file, "unsent": unsent }),
    );
    Ok(Exit::Done)
}
