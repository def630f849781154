//! How ranges of seeds, scenarios and chosen steps are written on a command line.

use std::{collections::BTreeSet, fmt};

use crate::{plan::Scenario, script::Script};

/// Steps that are wanted of a script, written as `3,17,80-82`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps(BTreeSet<usize>);

/// The largest number of a step that can be named.
const STEP_MAX: usize = 1_000_000;

impl Steps {
    /// All that are in a script.
    #[must_use]
    pub fn of(script: &Script) -> Self {
        Self(script.numbers().into_iter().collect())
    }

    /// Whether this step is wanted.
    #[must_use]
    pub fn contains(&self, step: usize) -> bool {
        self.0.contains(&step)
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<(usize, usize)> = Vec::new();
        for &step in &self.0 {
            match parts.last_mut() {
                Some((_, last)) if *last + 1 == step => *last = step,
                _ => parts.push((step, step)),
            }
        }
        for (i, (from, to)) in parts.into_iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match from == to {
                true => write!(f, "{comma}{from}")?,
                false => write!(f, "{comma}{from}-{to}")?,
            }
        }
        Ok(())
    }
}

/// The options that make `script` of the one that was drawn, for the command that repeats it.
#[must_use]
pub fn cut_down(drawn: &Script, script: &Script) -> String {
    let mut options = String::new();
    if script.devices() != drawn.devices() {
        options += &format!(" --devices {}", script.devices());
    }
    if script.numbers() != drawn.numbers() {
        options += &format!(" --only {}", Steps::of(script));
    }
    options
}

/// Reads what [`Steps`] writes.
///
/// # Errors
/// What to write instead.
pub fn parse_steps(text: &str) -> Result<Steps, String> {
    let mut found = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| match text.trim().parse::<usize>() {
            Ok(number) if number < STEP_MAX => Ok(number),
            Ok(_) | Err(_) => Err(format!("{text:?} is no step: write them as 3,17,80-82")),
        };
        found.extend(number(from)?..=number(to)?);
    }
    Ok(Steps(found))
}

/// Seeds from the first to before the last, written as `0..100`.
///
/// # Errors
/// What to write instead.
pub fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let number = |part: &str| part.trim().parse::<u64>().ok();
    let range = text
        .split_once("..")
        .and_then(|(from, to)| Some((number(from)?, number(to)?)));
    match range {
        Some((from, to)) if from < to => Ok((from, to)),
        Some((from, to)) => Err(format!("{from} is not below {to}")),
        None => Err("write it as 0..100".into()),
    }
}

/// A scenario by its name.
///
/// # Errors
/// The names there are.
pub fn parse_scenario(text: &str) -> Result<Scenario, String> {
    Scenario::named(text).ok_or_else(|| {
        let names = Scenario::ALL.map(Scenario::name);
        format!("one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_written_as_they_are_read() {
        for (text, again) in [("3,17,80-82", "3,17,80-82"), ("2,1,3", "1-3"), ("", "")] {
            assert_eq!(parse_steps(text).expect(text).to_string(), again);
        }
        assert!(parse_steps("a").is_err() && parse_steps("1-9999999").is_err());
        let drawn = Script::of_seed(7, 20, Scenario::Everything);
        let shorter = drawn
            .clone()
            .only(|step| step == 3 || step > 17)
            .with_devices(99);
        assert_eq!(cut_down(&drawn, &drawn), "");
        assert_eq!(cut_down(&drawn, &shorter), " --devices 99 --only 3,18-19");
        assert_eq!(parse_range("3..7"), Ok((3, 7)));
        assert!(parse_range("7..3").is_err() && parse_range("7").is_err());
    }
}
