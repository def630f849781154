//! Every planted bug is still seen (docs/testing.md, "Planted bugs").

use std::{collections::BTreeSet, thread};

use syncline_sim::{
    Options, Scenario,
    planted::{Planted, caught},
};

/// Within so many seeds a bug has to be seen: else the checks or the workload have a hole.
const SEEDS_MAX: u64 = 300;
const STEPS: usize = 150;

fn options(seed: u64) -> Options {
    Options {
        seed,
        steps: STEPS,
        scenario: Scenario::Everything,
        trace: false,
    }
}

/// Tries the seed that saw the bug last, and all others only where it does not any more.
#[expect(clippy::print_stdout, reason = "says what to record")]
fn check(bug: Planted, recorded: u64) {
    if caught(Some(bug), options(recorded)).is_some() {
        return;
    }
    let found = (0..SEEDS_MAX).find_map(|seed| Some((seed, caught(Some(bug), options(seed))?)));
    match found {
        Some((seed, why)) => println!("{bug:?}: record seed {seed} ({why})"),
        None => panic!("{bug:?} is not seen within {SEEDS_MAX} seeds"),
    }
}

/// A test for each bug, with the seed that sees it first.
macro_rules! seen {
    ($($test:ident: $bug:ident by $seed:literal,)+) => {
        $(#[test]
        fn $test() {
            check(Planted::$bug, $seed);
        })+

        const SEEN: &[(Planted, u64)] = &[$((Planted::$bug, $seed)),+];
    };
}

seen! {
    counter_result_sent: CounterResultSent by 0,
    nocase_edit_unseen: NocaseEditUnseen by 3,
    self_granted_membership: SelfGrantedMembership by 160,
    dependant_accepted: DependantAccepted by 0,
    conflict_not_opened: ConflictNotOpened by 10,
    bucket_move_forgotten: BucketMoveForgotten by 15,
    digest_not_updated: DigestNotUpdated by 0,
    second_grant_not_counted: SecondGrantNotCounted by 0,
    cascade_unseen: CascadeUnseen by 4,
    outside_eviction_unseen: OutsideEvictionUnseen by 9,
    inbox_drained_twice: InboxDrainedTwice by 1,
    lease_unchecked: LeaseUnchecked by 3,
    grant_cached_too_long: GrantCachedTooLong by 0,
    filter_after_send: FilterAfterSend by 0,
    newcomer_sent_columns: NewcomerSentColumns by 1,
    cursor_off_by_one: CursorOffByOne by 2,
    caught_up_never_said: CaughtUpNeverSaid by 0,
    half_checkpoint_shown: HalfCheckpointShown by 7,
    echo_captured: EchoCaptured by 0,
    replace_eviction_unseen: ReplaceEvictionUnseen by 0,
    base_off_by_one: BaseOffByOne by 0,
    removed_when_sent: RemovedWhenSent by 0,
    accepted_dropped_early: AcceptedDroppedEarly by 0,
    refusal_not_rolled_back: RefusalNotRolledBack by 0,
    dependants_sent: DependantsSent by 4,
    lost_tail_not_resent: LostTailNotResent by 3,
    absence_ignored: AbsenceIgnored by 1,
    cascade_on_lost_grant: CascadeOnLostGrant by 0,
}

/// Not seen, or not often enough, with the reason.
const UNSEEN: &[(Planted, &str)] = &[
    (
        Planted::MergeByArrival,
        "all replicas agree with the server: nothing computes the winner besides",
    ),
    (
        Planted::HlcTieNotBroken,
        "as MergeByArrival, and equal readings are rare",
    ),
    (
        Planted::SetRemovalIgnored,
        "an item that is there is too seldom taken out of a set",
    ),
    (
        Planted::JoinedStepForgotten,
        "nothing compares what is shown with what waits while it waits",
    ),
    (Planted::ClockNotClamped, "as MergeByArrival"),
    (
        Planted::ForgottenIdApplied,
        "an answer is too seldom lost for longer than the log reaches back",
    ),
    (Planted::AckBeforeCommit, "no commit of the server fails"),
    (
        Planted::DedupExpiredEarly,
        "an answer is too seldom lost for longer than two seconds",
    ),
    (
        Planted::TombstoneDropped,
        "updates of rows deleted just before a trim are too rare",
    ),
    (
        Planted::DigestOfLaterVersion,
        "no page is read while the log goes on",
    ),
    (
        Planted::SentChangesetGrows,
        "nothing compares what was accepted with what was sent",
    ),
    (
        Planted::NumberReused,
        "the known ids of changesets make up for it",
    ),
    (
        Planted::OlderPageWins,
        "a page is only older than a row after the server went back",
    ),
    (
        Planted::BackoffNeverGrows,
        "nothing counts attempts to connect",
    ),
];

#[test]
fn every_bug_is_listed_once() {
    let seen = SEEN.iter().map(|(bug, _)| *bug);
    let listed: Vec<_> = seen.chain(UNSEEN.iter().map(|(bug, _)| *bug)).collect();
    let distinct: BTreeSet<_> = listed.iter().copied().collect();
    assert_eq!(listed.len(), distinct.len(), "a bug is listed twice");
    assert_eq!(distinct, Planted::ALL.iter().copied().collect());
}

/// What sees the bugs is the bugs, not the seeds.
#[test]
fn the_same_seeds_see_nothing_without_a_bug() {
    let seeds: BTreeSet<u64> = SEEN.iter().map(|(_, seed)| *seed).collect();
    let halves = [0, 1].map(|half| {
        let seeds: Vec<_> = seeds.iter().copied().skip(half).step_by(2).collect();
        thread::spawn(move || {
            for seed in seeds {
                let why = caught(None, options(seed));
                assert!(why.is_none(), "seed {seed}: {}", why.unwrap_or_default());
            }
        })
    });
    for half in halves {
        half.join().expect("nothing is seen");
    }
}
