//! Seeds of the simulator that run with every other test.

#[cfg(feature = "planted")]
mod planted;

use syncline_sim::{Options, Scenario, simulate};

/// Runs one seed.
fn run(seed: u64, steps: usize, scenario: Scenario) -> u64 {
    let options = Options {
        seed,
        steps,
        scenario,
        trace: false,
    };
    match simulate(options) {
        Ok(outcome) => outcome.hash,
        Err(failure) => panic!(
            "{}\nseed {seed} failed: {:#}\nrepeat it with: cargo run --profile sim -p syncline-sim \
             -- --seed {seed} --steps {steps} --scenario {scenario}",
            failure.trace.join("\n"),
            failure.error
        ),
    }
}

/// The same seed gives the same run, line by line (invariant 7).
#[test]
fn a_seed_always_gives_the_same_trace() {
    let hash = |seed| run(seed, 60, Scenario::Everything);
    for seed in [3, 17, 38] {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
    assert_ne!(hash(3), hash(4));
}

/// What every change of the engine is tried on first.
#[test]
fn ob2_ob3_ob11_ap1_se10_the_promises_hold_under_faults() {
    for seed in 100..108 {
        run(seed, 120, Scenario::Everything);
    }
}

#[test]
fn each_scenario_comes_to_rest() {
    for scenario in Scenario::ALL {
        run(1, 60, scenario);
    }
}

#[test]
fn seeds_that_found_something() {
    let found: toml::Table = include_str!("../../seeds.toml")
        .parse()
        .expect("seeds.toml");
    let seeds = found["seed"].as_array().expect("a list of seeds");
    for entry in seeds {
        let number = |name: &str| {
            let number = entry[name].as_integer().expect("a number");
            usize::try_from(number).expect("a small number")
        };
        let scenario = entry.get("scenario").and_then(toml::Value::as_str);
        let scenario = scenario.unwrap_or("everything");
        let scenario = Scenario::named(scenario).expect("a scenario");
        run(number("seed") as u64, number("steps"), scenario);
    }
}
