//! The library of `crates/client` as an addon for Node, for `packages/node`, which gives it the
//! names and types that apps see. Nothing is decided here: calls go through, JSON both ways.
//!
//! What it adds is what a process with JavaScript in it needs: errors that can be told apart, no
//! panic that goes further, callbacks that do not keep a process alive, and file locks that hold
//! beside another copy of SQLite.

mod accounts;
mod call;
mod cell;
mod claim;
mod conflict;
mod events;
mod failure;
mod js;
mod live;
mod locks;
mod manager;
mod run;
mod settings;
mod told;

use napi_derive::napi;

use crate::failure::{Failure, guarded};

/// A new row id that sorts by time.
#[napi]
pub fn new_id() -> String {
    syncline::new_id()
}

/// What a ready-made resolver says to a conflict, as JSON.
#[napi]
pub async fn decide(name: String, case: String) -> napi::Result<String> {
    guarded(async {
        let case = serde_json::from_str(&case).map_err(|error| Failure::call(&error))?;
        Ok(conflict::decide(&name, &case).await?.to_string())
    })
    .await
}
