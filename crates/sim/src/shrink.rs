//! The shortest script that still fails as the one that was found.

use std::{panic, rc::Rc};

use crate::{
    script::Script,
    subject::App,
    world::{Failure, simulate_app},
};

/// A script that fails, with little in it that need not be there.
#[derive(Debug)]
pub struct Shrunk {
    pub script: Script,
    pub failure: Box<Failure>,
    /// How often something was run for it.
    pub runs: usize,
}

/// Leaves out devices, kinds of faults and steps as long as what is left fails in the same way,
/// within `runs_max` runs. `None`: the script does not fail at all.
///
/// What panics meanwhile says nothing: the panic hook of the process is another one for that time.
#[must_use]
pub fn shrink(app: &Rc<App>, script: &Script, runs_max: usize) -> Option<Shrunk> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let shrunk = search(app, script, runs_max);
    panic::set_hook(hook);
    shrunk
}

fn search(app: &Rc<App>, script: &Script, runs_max: usize) -> Option<Shrunk> {
    let failure = simulate_app(app, script, false).err()?;
    let mut search = Search {
        app: Rc::clone(app),
        kind: kind(&failure),
        best: script.clone(),
        failure,
        runs: 1,
        runs_max,
    };
    search.devices();
    search.kinds();
    search.steps();
    search.devices();
    Some(Shrunk {
        script: search.best,
        failure: search.failure,
        runs: search.runs,
    })
}

struct Search {
    app: Rc<App>,
    /// How the script failed at first.
    kind: String,
    best: Script,
    failure: Box<Failure>,
    runs: usize,
    runs_max: usize,
}

impl Search {
    /// Takes the candidate if it fails in the same way.
    fn take(&mut self, candidate: Script) -> bool {
        if self.runs >= self.runs_max || candidate == self.best {
            return false;
        }
        self.runs += 1;
        match simulate_app(&self.app, &candidate, false) {
            Err(failure) if kind(&failure) == self.kind => {
                self.best = candidate;
                self.failure = failure;
                true
            }
            Err(_) | Ok(_) => false,
        }
    }

    fn devices(&mut self) {
        for devices in 1..self.best.devices() {
            if self.take(self.best.clone().with_devices(devices)) {
                break;
            }
        }
    }

    /// All steps of one kind at once.
    fn kinds(&mut self) {
        let mut kinds = self.best.kinds();
        kinds.reverse();
        for kind in kinds {
            let without = self.best.clone().without(&kind);
            self.take(without);
        }
    }

    /// Ever smaller parts: what comes after the failure goes first.
    fn steps(&mut self) {
        let mut part = self.best.numbers().len().div_ceil(2);
        while part > 0 {
            let mut end = self.best.numbers().len();
            while end > 0 {
                let numbers = self.best.numbers();
                let start = end.saturating_sub(part);
                let gone = &numbers[start..end.min(numbers.len())];
                let candidate = self.best.clone().only(|number| !gone.contains(&number));
                self.take(candidate);
                end = start;
            }
            part /= 2;
        }
    }
}

/// What a failure says without names and numbers, by which two are taken for the same.
fn kind(failure: &Failure) -> String {
    let text = failure.error.root_cause().to_string();
    let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == ',');
    text.split_whitespace()
        .take(24)
        .filter(is_name)
        .take(6)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Failure {
        Failure {
            error: anyhow::anyhow!("{text}"),
            trace: Vec::new(),
            story: Vec::new(),
        }
    }

    #[test]
    fn failures_are_the_same_without_names_and_numbers() {
        let one = failure("d1 (ann) at Version(17): row 'p1' is None, the server has it");
        let other = failure("d0 (bob) at Version(2): row 'x9' is None, the server has it");
        assert_eq!(kind(&one), kind(&other));
        assert_eq!(kind(&one), "at row is the server has");
        assert_ne!(
            kind(&one),
            kind(&failure("half of a transaction shows in pair1"))
        );
    }
}
