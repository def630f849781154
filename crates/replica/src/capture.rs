//! Notices what any program changes in the app's tables, and says what changed.
//!
//! Triggers only mark ([`install()`]): the first time that a row is touched under a transaction
//! number, its image goes to the table's mark table. [`take_drafts`] empties the marks and
//! computes each change as the difference between that image and the next one, or the row as it
//! is. [`check`] notices when the app's schema changed under the triggers, and [`rescan()`] then
//! finds what went unmarked by comparing content hashes.
//!
//! Marking knows nothing of servers or outboxes; it is rules CA1–CA9, SL1, SL2, SL7 and SL10 of
//! the specification.

mod boundary;
mod chain;
mod drafts;
mod install;
mod names;
mod rescan;
mod stamp;
mod triggers;

pub(crate) use install::captured_columns;
pub(crate) use triggers::rivals;

pub use crate::objects::Objects;
pub use boundary::{begin_marked, end_marked, has_marks};
pub use drafts::{
    Before, Draft, DraftChange, DraftFault, DraftProblem, Drafts, LostRow, take_drafts,
};
pub use install::{CaptureError, install, remove_everything, uncaptured, uninstall_table};
pub(crate) use names::{captured_table, names_in_triggers};
pub use rescan::{Comparison, KnownRows, Rescanned, rescan};
pub use stamp::{Finding, check, dropped, schema_version};
