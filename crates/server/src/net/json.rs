//! Rows and changes as JSON, for polling, scripts and curl (spec WI15–WI17). The rules, the
//! pipeline and the log are those of every session.

mod cursor;
mod pull;
mod push;
mod value;

pub(crate) use pull::pull;
pub(crate) use push::push;
