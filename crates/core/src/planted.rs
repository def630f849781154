//! Bugs planted on purpose, to show that the simulator sees them (docs/testing.md, "Planted bugs").
//!
//! Compiled only with the feature `planted`, which nothing but the simulator's tests turns on;
//! without it every question is `false` at compile time and costs nothing. A bug is one line where
//! it would be made, `if planted!(DigestNotUpdated) { … }`, and bites on the threads that
//! `plant` was called on.

use crate::value::Value;

/// Whether planted bugs can bite in this build: never in what is shipped.
pub const COMPILED: bool = cfg!(feature = "planted");

/// Whether two values are texts that differ in nothing but the case of ASCII letters.
pub(crate) fn differ_in_case(a: &Value, b: &Value) -> bool {
    let texts = a.as_text().zip(b.as_text());
    texts.is_some_and(|(a, b)| a != b && a.eq_ignore_ascii_case(b))
}

/// Whether a bug of [`Planted`](crate::planted::Planted) bites.
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is($crate::planted::Planted::$bug)
    };
}

macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $bug:ident,)+) => {
        /// What is wrong while the bug is planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Planted {
            $($(#[doc = $what])+ $bug,)+
        }

        impl Planted {
            /// Every bug, in the order of the engine: merge, planner, storage, session, replica.
            pub const ALL: &[Self] = &[$(Self::$bug),+];
        }
    };
}

bugs! {
    /// Of two concurrent writes the one that arrives later wins, whatever their clocks say.
    MergeByArrival,
    /// Two writes of the same clock reading: neither is the later one.
    HlcTieNotBroken,
    /// The server ignores what an edit takes out of a set.
    SetRemovalIgnored,
    /// An edit that leaves the value as it is leaves no clock either.
    EqualWriteForgotten,
    /// A counter travels as what it became instead of by how much it changed.
    CounterResultSent,
    /// Of two joined steps of a counter only the last one travels.
    JoinedStepForgotten,
    /// A text that changed only in case counts as unchanged.
    NocaseEditUnseen,
    /// A change is judged on the state that it makes itself.
    SelfGrantedMembership,
    /// A clock may run ahead by any time.
    ClockNotClamped,
    /// A changeset is accepted although one that it depends on was refused.
    DependantAccepted,
    /// An id that may be forgotten counts as new.
    ForgottenIdApplied,
    /// A contested edit of a `manual` column is dropped without a conflict.
    ConflictNotOpened,
    /// Children keep their buckets when the parent gets others.
    BucketMoveForgotten,
    /// A digest keeps rows that were deleted.
    DigestNotUpdated,
    /// A bucket that is granted twice is lost with the first of the two grants.
    SecondGrantNotCounted,
    /// A group is acknowledged before its commit, which may fail.
    AckBeforeCommit,
    /// What the database deletes by cascade is not looked at.
    CascadeUnseen,
    /// Rows that another program's REPLACE evicts on the server are not marked.
    OutsideEvictionUnseen,
    /// Marks of other programs' writes are read and stay.
    InboxDrainedTwice,
    /// The ids of changesets are forgotten after two seconds.
    DedupExpiredEarly,
    /// All tombstones go whenever the log is trimmed.
    TombstoneDropped,
    /// Whoever says a device's id is that device, whatever lease the file has.
    LeaseUnchecked,
    /// An open session keeps the buckets that are taken from its user.
    GrantCachedTooLong,
    /// A row is sent to whoever is told that something changed, whatever bucket it is in.
    FilterAfterSend,
    /// Whoever sees a row for the first time is sent only the columns that changed.
    NewcomerSentColumns,
    /// A checkpoint names the digests of pages that were read later.
    DigestOfLaterVersion,
    /// An entry whose version follows directly is passed over.
    CursorOffByOne,
    /// The last checkpoint never says that there is no more.
    CaughtUpNeverSaid,
    /// Rows on demand are sent to whoever may see them.
    DemandNotNarrowed,
    /// A checkpoint is written in two transactions.
    HalfCheckpointShown,
    /// Triggers stay on while the server's rows are written.
    EchoCaptured,
    /// Rows that REPLACE evicts through a unique index are not marked.
    ReplaceEvictionUnseen,
    /// A change is based on the version after the one that its author saw.
    BaseOffByOne,
    /// What was sent grows with what is edited next.
    SentChangesetGrows,
    /// A changeset leaves the outbox when it is sent.
    RemovedWhenSent,
    /// An accepted changeset is no longer shown, although its checkpoint is not here.
    AcceptedDroppedEarly,
    /// The rows of a refused changeset stay as its author made them.
    RefusalNotRolledBack,
    /// What depends on a parked changeset is sent all the same.
    DependantsSent,
    /// After a restored backup numbers are given a second time.
    NumberReused,
    /// What a restored server lost is not sent again.
    LostTailNotResent,
    /// A page takes the place of a row that is newer.
    OlderPageWins,
    /// A row that a page no longer has stays.
    AbsenceIgnored,
    /// Rows of a lost grant take their children with them, whoever may see those.
    CascadeOnLostGrant,
    /// What a device asks for while it is connected is not told.
    SubscribeNotTold,
    /// The same with what it asks for no more.
    UnsubscribeNotTold,
    /// A subscription is live with the next checkpoint, whether its rows came or not.
    LiveTooEarly,
    /// Every pause before connecting again is as short as the first one.
    BackoffNeverGrows,
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

/// Has one bug bite on this thread from now on, or none.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Planted>) {
    PLANTED.set(bug);
}

/// As `planted!`.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(bug: Planted) -> bool {
    PLANTED.get() == Some(bug)
}

/// As `planted!`.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Planted) -> bool {
    false
}
