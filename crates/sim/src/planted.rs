//! Runs with a bug planted in the engine: what the checks are worth is which of them they see.

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use syncline_core::planted::Planted;
use syncline_core::planted::plant;

use crate::world::{Options, simulate};

/// Runs a seed with `bug` in the engine. What a check said, or where the engine panicked; `None`
/// if all went well.
#[must_use]
pub fn caught(bug: Option<Planted>, options: Options) -> Option<String> {
    plant(bug);
    let outcome = catch_unwind(AssertUnwindSafe(|| simulate(options)));
    plant(None);
    match outcome {
        Ok(Ok(_)) => None,
        Ok(Err(failure)) => Some(format!("{:#}", failure.error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Some(format!("a panic: {}", text.unwrap_or_default()))
        }
    }
}
