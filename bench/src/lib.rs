//! Workloads of the sync engine, each printed beside what the machine itself does in the same run.
//!
//! A figure alone says as much of the neighbours of a machine as of the engine. Its ratio to a
//! limit that was measured a moment before on the same machine says what the engine costs.
//! The server is the `syncline` program in a process of its own, on an embedded database that is
//! synchronised to the disk with each commit, as it is in use.

mod bare;
mod device;
mod figure;
mod rows;
mod server;
mod wire;
mod workloads;

use std::path::PathBuf;

use anyhow::{Result, bail};

pub use bare::serve_bare_fan_out;
pub use figure::{Better, Figure};

/// How much work a run does.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `syncline` program that serves.
    pub program: PathBuf,
    /// The one that measures; it is the bare server as well.
    pub own: PathBuf,
    /// A tenth of the work, for trying that everything works: the figures say little.
    pub quick: bool,
}

impl Options {
    /// `full` items, or a tenth of them.
    pub(crate) fn count(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }
}

/// A workload by its name, and what it measures.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// `W1`, `W2` …
    pub name: &'static str,
    /// One line for people.
    pub what: &'static str,
    run: fn(&Options) -> Result<Vec<Figure>>,
}

/// All workloads, in order.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "W1",
        what: "a new device downloads 100,000 rows into its SQLite",
        run: workloads::download::run,
    },
    Workload {
        name: "W2",
        what: "ten devices push, acknowledged durable",
        run: workloads::push::run,
    },
    Workload {
        name: "W3",
        what: "a write on one device until another device's SQLite has it",
        run: workloads::latency::run,
    },
    Workload {
        name: "W4",
        what: "one writer, many live devices",
        run: workloads::fan_out::run,
    },
    Workload {
        name: "W5",
        what: "memory of idle live devices",
        run: workloads::idle::run,
    },
    Workload {
        name: "W6",
        what: "what capture costs a local write; memory and size of a device's program",
        run: workloads::capture::run,
    },
    Workload {
        name: "W7",
        what: "what takes longer with more rows, buckets and tables",
        run: workloads::growth::run,
    },
    Workload {
        name: "W8",
        what: "everybody comes back after a restart of the server",
        run: workloads::returning::run,
    },
];

/// The workloads of these names; all when there are none.
///
/// # Errors
/// A name that no workload has.
pub fn chosen(names: &[String]) -> Result<Vec<Workload>> {
    for name in names {
        if !WORKLOADS
            .iter()
            .any(|workload| workload.name.eq_ignore_ascii_case(name))
        {
            let all: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
            bail!(
                "there is no workload {name}: choose from {}",
                all.join(", ")
            );
        }
    }
    let is_chosen = |workload: &&Workload| {
        names.is_empty()
            || names
                .iter()
                .any(|name| workload.name.eq_ignore_ascii_case(name))
    };
    Ok(WORKLOADS.iter().filter(is_chosen).copied().collect())
}

impl Workload {
    /// Runs it; a minute at most on two cores.
    ///
    /// # Errors
    /// Anything that kept it from running: a figure is never made up.
    pub fn run(&self, options: &Options) -> Result<Vec<Figure>> {
        (self.run)(options)
    }
}
