//! What a run does, written down before it begins: it can be repeated, shortened and printed,
//! and be made of a seed or of the bytes of a fuzzer.

use std::{collections::BTreeSet, fmt};

use arbitrary::Unstructured;

use crate::{
    plan::{Fault, Plan, Scenario},
    rng::Rng,
};

/// Steps of a run of a fuzzer's bytes.
const FUZZED_STEPS_MAX: usize = 300;
/// Steps between rests, where a script is spread over hours.
const REST_EVERY: usize = 250;
/// What a plan is drawn of.
const PLAN_BYTES: usize = 64;
/// What a step is drawn of.
const STEP_BYTES: usize = 16;

/// A run before it begins.
///
/// Each step has random numbers of its own: without one of them, the others do what they did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Decides what is no step: ids, delays, what else happens at one moment.
    pub(crate) seed: u64,
    pub(crate) plan: Plan,
    pub(crate) steps: Vec<Step>,
    /// How long the server keeps its log and its history: what is older at a rest is forgotten.
    pub(crate) retention_ms: Option<u64>,
}

/// One thing that somebody or something does, and the time until the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its place in the script that was drawn.
    pub(crate) number: usize,
    pub(crate) act: Act,
    /// The seed of its random numbers.
    pub(crate) salt: u64,
    pub(crate) pause_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Somebody uses the app of one of the devices.
    Edit,
    /// Somebody looks at what was refused, and at conflicts.
    Tend,
    /// A device's file is copied, to come back later.
    CopyFile,
    /// The server's data is copied, to come back later.
    Backup,
    Fault(Fault),
    /// Faults end, everything comes to rest and is compared.
    Rest,
}

impl Script {
    /// The script of a seed: equal for ever, until the simulator itself changes.
    #[must_use]
    pub fn of_seed(seed: u64, steps: usize, scenario: Scenario) -> Self {
        let bytes = drawn_of(seed, steps);
        let mut bytes = Unstructured::new(&bytes);
        Self::draw(seed, &mut bytes, steps, scenario)
    }

    /// Bytes of which [`Script::of_bytes`] makes the script of a seed with everything that can go
    /// wrong: where a fuzzer begins.
    #[must_use]
    pub fn bytes_of_seed(seed: u64, steps: usize) -> Vec<u8> {
        [&seed.to_le_bytes()[..], &drawn_of(seed, steps)].concat()
    }

    /// The script of a fuzzer's bytes; what is missing at the end counts as zeros.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let steps = bytes.len().saturating_sub(PLAN_BYTES) / STEP_BYTES;
        let steps = steps.min(FUZZED_STEPS_MAX);
        let mut bytes = Unstructured::new(bytes);
        let seed = bytes.arbitrary().unwrap_or_default();
        Self::draw(seed, &mut bytes, steps, Scenario::Everything)
    }

    fn draw(seed: u64, bytes: &mut Unstructured<'_>, steps: usize, scenario: Scenario) -> Self {
        // The plan takes as many bytes as it likes, of its own: steps stay where they are.
        let plan = bytes.bytes(bytes.len().min(PLAN_BYTES)).unwrap_or_default();
        let plan = Plan::draw(&mut Unstructured::new(plan), scenario);
        let plan = plan.unwrap_or_else(|_| Plan::quiet());
        let mut drawn = Vec::with_capacity(steps + 2);
        for number in 0..steps {
            if number == steps / 2 {
                drawn.push(Step::rest());
            }
            let own = bytes.bytes(bytes.len().min(STEP_BYTES)).unwrap_or_default();
            drawn.extend(Step::draw(&mut Unstructured::new(own), number, &plan));
        }
        drawn.push(Step::rest());
        Self {
            seed,
            plan,
            steps: drawn,
            retention_ms: None,
        }
    }

    /// Leaves out all steps but those whose numbers are wanted; a run still comes to rest.
    #[must_use]
    pub fn only(mut self, is_wanted: impl Fn(usize) -> bool) -> Self {
        let is_rest = |step: &Step| step.act == Act::Rest;
        self.steps
            .retain(|step| is_rest(step) || is_wanted(step.number));
        // One rest after another tells nothing new.
        self.steps
            .dedup_by(|next, last| is_rest(next) && is_rest(last));
        self
    }

    /// The same spread over so many hours, with a rest after each 250 steps, and a
    /// server that keeps its log for one hour.
    #[must_use]
    pub fn over_hours(mut self, hours: u64) -> Self {
        let whole: u64 = self.steps.iter().map(|step| step.pause_ms).sum();
        let wanted = u128::from(hours) * 3_600_000;
        let mut steps = Vec::with_capacity(self.steps.len());
        for mut step in self.steps {
            if step.act == Act::Rest {
                continue;
            }
            let pause = u128::from(step.pause_ms) * wanted / u128::from(whole.max(1));
            step.pause_ms = u64::try_from(pause).unwrap_or(u64::MAX);
            steps.push(step);
            if steps.len() % (REST_EVERY + 1) == REST_EVERY {
                steps.push(Step::rest());
            }
        }
        steps.push(Step::rest());
        self.steps = steps;
        self.retention_ms = Some(3_600_000);
        self
    }

    /// The same with so many devices at the beginning.
    #[must_use]
    pub fn with_devices(mut self, devices: u64) -> Self {
        self.plan.devices = devices.max(1);
        self
    }

    /// Leaves out all steps of one of [`Script::kinds`].
    #[must_use]
    pub fn without(self, kind: &str) -> Self {
        let steps = self.steps.iter();
        let of_kind = steps.filter(|step| step.act.to_string() == kind);
        let of_kind: BTreeSet<usize> = of_kind.map(|step| step.number).collect();
        self.only(|number| !of_kind.contains(&number))
    }

    /// The kinds of its steps, by name.
    #[must_use]
    pub fn kinds(&self) -> Vec<String> {
        let steps = self.steps.iter().filter(|step| step.act != Act::Rest);
        let kinds: BTreeSet<String> = steps.map(|step| step.act.to_string()).collect();
        kinds.into_iter().collect()
    }

    /// The numbers of its steps.
    #[must_use]
    pub fn numbers(&self) -> Vec<usize> {
        let steps = self.steps.iter().filter(|step| step.act != Act::Rest);
        steps.map(|step| step.number).collect()
    }

    /// How many devices it begins with.
    #[must_use]
    pub fn devices(&self) -> u64 {
        self.plan.devices
    }
}

fn drawn_of(seed: u64, steps: usize) -> Vec<u8> {
    let mut bytes = vec![0; PLAN_BYTES + steps.saturating_mul(STEP_BYTES)];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

impl Plan {
    /// What is left when there are no bytes to draw from.
    fn quiet() -> Self {
        Self {
            devices: 2,
            slow_ms: 5,
            group_max: 1,
            bulk: false,
            files: false,
            pauses: false,
            faults: Vec::new(),
            together: false,
        }
    }
}

impl Step {
    fn rest() -> Self {
        Self {
            number: usize::MAX,
            act: Act::Rest,
            salt: 0,
            pause_ms: 0,
        }
    }

    /// `None`: the bytes have ended.
    fn draw(u: &mut Unstructured<'_>, number: usize, plan: &Plan) -> Option<Self> {
        let salt = u.arbitrary::<u64>().ok()?;
        let kind = u.int_in_range(0..=99_u8).ok()?;
        let dice = u.int_in_range(0..=99_u16).ok()?;
        let pause = u.int_in_range(0..=19_u8).ok()?;
        let length = u.arbitrary::<u16>().ok()?;
        let act = match kind {
            0..=2 => Act::Tend,
            3..=5 => Act::CopyFile,
            6..=8 => Act::Backup,
            9..=49 => plan.fault(dice).map_or(Act::Edit, Act::Fault),
            _ => Act::Edit,
        };
        let length = u64::from(length);
        let pause_ms = match pause {
            0 if plan.pauses => length * 90_000 / 65_536,
            0..=2 => length % 4_000,
            3..=7 => 0,
            _ => length % 100,
        };
        Some(Self {
            number,
            act,
            salt,
            pause_ms,
        })
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => write!(f, "{fault:?}"),
            Self::Edit | Self::Tend | Self::CopyFile | Self::Backup | Self::Rest => {
                write!(f, "{self:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_script_and_steps_are_left_out_one_by_one() {
        let script = Script::of_seed(7, 50, Scenario::Everything);
        assert_eq!(script, Script::of_seed(7, 50, Scenario::Everything));
        assert_ne!(script, Script::of_seed(8, 50, Scenario::Everything));
        assert_eq!(script.numbers(), (0..50).collect::<Vec<_>>());

        let shorter = script.clone().only(|number| number % 10 == 3);
        assert_eq!(shorter.numbers(), [3, 13, 23, 33, 43]);
        for step in &shorter.steps {
            assert!(script.steps.contains(step), "{step:?}");
        }
        let bytes = Script::bytes_of_seed(7, 50);
        assert_eq!(Script::of_bytes(&bytes), script);
        let empty = script.only(|_| false);
        assert_eq!(empty.steps, [Step::rest()]);
    }

    #[test]
    fn any_bytes_are_a_script() {
        for len in 0..400 {
            let bytes: Vec<u8> = (0..=250).cycle().step_by(37).take(len).collect();
            let script = Script::of_bytes(&bytes);
            assert!(script.numbers().len() <= FUZZED_STEPS_MAX);
            assert!(script.devices() >= 1);
        }
        let many = Script::of_bytes(&vec![9; 1 << 20]);
        assert_eq!(many.numbers().len(), FUZZED_STEPS_MAX);
    }
}
