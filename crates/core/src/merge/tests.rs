//! The laws of merging, and examples of every strategy.

mod convergence;
mod examples;
mod hostile;
mod laws;
mod rows;
mod support;
mod travels;

pub(crate) use support::json_text;
