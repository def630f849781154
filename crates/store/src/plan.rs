//! The pure heart of the pipeline: what a changeset does to rows, metadata, grants and digests,
//! computed from what was loaded, without any database (spec PL2).
//!
//! A changeset is checked, its changes are merged with the rows as they are, the rules admit them
//! or refuse the whole, and what follows from it (grants, buckets, everything below) is settled
//! into a draft. Only a whole draft is applied to the state of the group. Whatever is missing is
//! asked for as [`Want`](crate::Want)s, and planning runs again.

mod admit;
mod change;
mod changeset;
mod check;
mod clocks;
mod conflict;
mod context;
mod draft;
mod effect;
mod entry;
mod facts;
mod finish;
mod grave;
mod observe;
mod owned;
mod prefetch;
mod settle;
mod state;
mod submission;

#[cfg(test)]
mod tests;

pub use context::Context;
pub use prefetch::prefetch;
pub use submission::{Refusals, Submission};

pub(crate) use changeset::{Planned, plan_changeset};
pub(crate) use draft::{Draft, RowDraft};
pub(crate) use entry::Author;
pub(crate) use finish::{Access, finish, finish_wants};
pub(crate) use observe::{Observed, observe};
pub(crate) use owned::{fingerprint, row_bytes, values_bytes};
pub(crate) use state::{Refused as RefusedNumbers, State};
pub(crate) use submission::Refused;
