//! `syncline verify`.

use serde_json::json;
use syncline::engine::{self, DifferenceKind, Driver};
use syncline_replica::LocalFault;

use super::{connection, interrupt_on_signals, keys, log, runtime};
use crate::{
    args::Verify,
    exit::Exit,
    output::{Output, counted, grouped},
};

pub(crate) fn run(args: Verify, verbose: u8, output: &Output) -> anyhow::Result<Exit> {
    log(verbose);
    let found = runtime()?.block_on(async {
        let replica =
            engine::open_replica_with(&args.file, keys(&args.server.encryption_key_file)?)?;
        let connection = connection(&args.file, &args.server, output)?;
        let mut driver = Driver::new(replica, args.file.clone(), connection.clone())?;
        let interrupt = interrupt_on_signals()?;
        let found = engine::verify(
            &mut driver,
            &args.file,
            &connection,
            args.repair,
            &interrupt,
        )
        .await?;
        anyhow::Ok(found)
    })?;
    for row in &found.local {
        let what = match row.fault {
            LocalFault::Differs => {
                "is not what the server sent, and no program was seen to change it"
            }
            LocalFault::Missing => "is gone, and no program was seen to delete it",
            LocalFault::Unaccounted => "came from nowhere",
        };
        output.result(&format!("{} {} {what}", row.table, row.key), &json!({
            "type": "local", "table": row.table, "key": row.key.to_string(), "fault": format!("{:?}", row.fault).to_lowercase(),
        }));
    }
    for (table, comparison) in &found.tables {
        for row in &comparison.differences {
            let what = match row.kind {
                DifferenceKind::OnlyHere => "only here",
                DifferenceKind::OnlyThere => "only on the server",
                DifferenceKind::Different => "different",
            };
            output.line(&format!("{table} {}: {what}", row.key));
        }
        output.result(
            &format!(
                "{table}: {} equal, {} different, {} only here, {} only there",
                grouped(comparison.equal), grouped(comparison.different), grouped(comparison.only_here), grouped(comparison.only_there)
            ),
            &json!({
                "type": "table", "table": table, "equal": comparison.equal, "different": comparison.different,
                "only_here": comparison.only_here, "only_there": comparison.only_there,
            }),
        );
    }
    if found.parked > 0 {
        output.note(&format!(
            "{} were refused and are not part of this: syncline queue",
            counted(found.parked, "changeset")
        ));
    }
    let equal = found.is_equal();
    let hint = if args.repair {
        ""
    } else {
        "; `verify --repair` loads it again"
    };
    output.result(
        &if equal {
            "equal".to_owned()
        } else {
            format!("not equal{hint}")
        },
        &json!({ "type": "verified", "equal": equal }),
    );
    Ok(if equal { Exit::Done } else { Exit::Differs })
}
