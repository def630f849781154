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
    nocase_edit_unseen: NocaseEditUnseen by 7,
    self_granted_membership: SelfGrantedMembership by 71,
    dependant_accepted: DependantAccepted by 0,
    conflict_not_opened: ConflictNotOpened by 12,
    bucket_move_forgotten: BucketMoveForgotten by 20,
    digest_not_updated: DigestNotUpdated by 0,
    second_grant_not_counted: SecondGrantNotCounted by 0,
    cascade_unseen: CascadeUnseen by 0,
    outside_eviction_unseen: OutsideEvictionUnseen by 67,
    inbox_drained_twice: InboxDrainedTwice by 2,
    lease_unchecked: LeaseUnchecked by 3,
    grant_cached_too_long: GrantCachedTooLong by 2,
    filter_after_send: FilterAfterSend by 0,
    newcomer_sent_columns: NewcomerSentColumns by 0,
    cursor_off_by_one: CursorOffByOne by 1,
    caught_up_never_said: CaughtUpNeverSaid by 0,
    half_checkpoint_shown: HalfCheckpointShown by 6,
    echo_captured: EchoCaptured by 0,
    replace_eviction_unseen: ReplaceEvictionUnseen by 1,
    base_off_by_one: BaseOffByOne by 1,
    removed_when_sent: RemovedWhenSent by 0,
    accepted_dropped_early: AcceptedDroppedEarly by 0,
    refusal_not_rolled_back: RefusalNotRolledBack by 0,
    dependants_sent: DependantsSent by 15,
    lost_tail_not_resent: LostTailNotResent by 3,
    absence_ignored: AbsenceIgnored by 0,
    cascade_on_lost_grant: CascadeOnLostGrant by 0,
    merge_by_arrival: MergeByArrival by 2,
    hlc_tie_not_broken: HlcTieNotBroken by 59,
    set_removal_ignored: SetRemovalIgnored by 2,
    clock_not_clamped: ClockNotClamped by 29,
    equal_write_forgotten: EqualWriteForgotten by 28,
    demand_not_narrowed: DemandNotNarrowed by 5,
    subscribe_not_told: SubscribeNotTold by 5,
    unsubscribe_not_told: UnsubscribeNotTold by 83,
    live_too_early: LiveTooEarly by 5,
    forgotten_id_applied: ForgottenIdApplied by 12,
    ack_before_commit: AckBeforeCommit by 5,
    dedup_expired_early: DedupExpiredEarly by 70,
    tombstone_dropped: TombstoneDropped by 116,
    digest_of_later_version: DigestOfLaterVersion by 114,
    sent_changeset_grows: SentChangesetGrows by 0,
    backoff_never_grows: BackoffNeverGrows by 3,
    joined_step_forgotten: JoinedStepForgotten by 2,
}

/// Not seen, or not often enough, with the reason.
const UNSEEN: &[(Planted, &str)] = &[
    (
        Planted::NumberReused,
        "the known ids of changesets make up for it",
    ),
    (
        Planted::OlderPageWins,
        "only a server that is not sound sends a page older than what it sent before (SE11)",
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
