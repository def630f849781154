//! The metadata that Syncline keeps in the app's file: ordinary tables named `syncline_*`.

pub(crate) mod acknowledged;
pub(crate) mod ahead;
pub(crate) mod buckets;
pub(crate) mod cursors;
mod format;
pub(crate) mod former;
pub(crate) mod given;
pub(crate) mod ledger;
pub(crate) mod members;
pub(crate) mod names;
pub(crate) mod outbox;
pub(crate) mod settings;
pub(crate) mod shadow;
pub(crate) mod subscriptions;

pub(crate) use format::{create, exists, verify};
