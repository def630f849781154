//! One mistake in the file, and how mistakes are collected.

use super::place::Source;

/// One mistake in the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message} (expected {expected}; {suggestion})")]
pub struct ConfigError {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
    pub expected: String,
    /// What to write.
    pub suggestion: String,
}

/// A mistake and where it is, in bytes of what was being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) at: usize,
    pub(super) message: String,
    pub(super) expected: String,
    pub(super) suggestion: String,
}

impl Mistake {
    pub(super) fn new(
        at: usize,
        message: impl Into<String>,
        expected: impl Into<String>,
        suggestion: impl Into<String>,
    ) -> Self {
        Self {
            at,
            message: message.into(),
            expected: expected.into(),
            suggestion: suggestion.into(),
        }
    }

    /// The same mistake, of the thing called `path`.
    pub(super) fn of(self, path: &str) -> Self {
        Self {
            message: format!("{path}: {}", self.message),
            ..self
        }
    }
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, mistake: Mistake) {
        self.0.push(mistake);
    }

    pub(super) fn add(
        &mut self,
        at: usize,
        message: impl Into<String>,
        expected: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        self.push(Mistake::new(at, message, expected, suggestion));
    }

    /// `value`, or every mistake in order of place.
    pub(super) fn or<T>(self, source: &Source, value: T) -> Result<T, Vec<ConfigError>> {
        if self.0.is_empty() {
            return Ok(value);
        }
        let mut mistakes = self.0;
        mistakes.sort_by_key(|mistake| mistake.at);
        mistakes.dedup();
        Err(mistakes
            .into_iter()
            .map(|mistake| source.error(mistake))
            .collect())
    }
}
