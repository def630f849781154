//! Rows and changes as JSON, for polling, scripts and curl (spec WI15–WI18). The rules, the
//! pipeline and the log are those of every session.

mod cursor;
pub(crate) mod history;
mod length;
mod pull;
mod push;
mod value;

pub(crate) use pull::pull;
pub(crate) use push::{device_of, push};
pub(crate) use value::{columns_from_json, key_to_json};
