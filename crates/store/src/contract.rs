//! The contract suite: what every storage has to show before a server may stand on it.
//!
//! A storage crate implements [`Bed`] and writes `syncline_store::storage_contract!(MyBed::new());`
//! in a test module: that makes a test of each case, named by the rule it shows.

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that goes wrong is to stop where it does"
)]

pub mod devices;
pub mod groups;
pub mod history;
pub mod ledgers;
pub mod pipeline;
pub mod quotas;
pub mod reading;
pub mod schemas;
mod support;
pub mod values;

use crate::{
    storage::{Reader, Storage},
    testkit::External,
};

/// One empty database that a case runs on.
pub trait Bed {
    type Storage: Storage;
    type Reader: Reader;
    /// Opens the database. Called again after the first storage was dropped: a restart.
    fn open(&mut self) -> Self::Storage;
    /// A reader beside `storage`; may be called several times.
    fn reader(&mut self, storage: &Self::Storage) -> Self::Reader;
    /// One transaction of another program, committed.
    ///
    /// # Errors
    /// What the database said, if it refused a statement.
    fn external(&mut self, statements: &[External<'_>]) -> Result<(), String>;
}

/// A test of every case of the contract, each on a bed of its own made by `$bed`.
#[macro_export]
macro_rules! storage_contract {
    ($bed:expr) => {
        $crate::storage_contract! { @cases $bed;
            devices:
                de2_a_name_stays_until_somebody_gives_another,
                de3_devices_are_listed_for_their_user_the_last_seen_first,
                de3_how_devices_were_seen_is_noted_at_once,
                de4_a_deregistered_device_opens_nothing_and_commits_nothing,
                de8_a_device_that_is_to_be_wiped_is_told_by_its_lease_and_not_registered_anew,
                de5_a_device_that_is_registered_anew_is_another_one;
            groups:
                pl1_a_commit_is_seen_afterwards_and_a_rollback_is_not,
                pl1_a_group_sees_its_own_writes,
                pl2_every_want_is_answered,
                pl2_matching_finds_exactly_equal_values,
                pl12_own_writes_leave_no_marks,
                pl12_a_cascade_is_marked_with_the_image_before,
                pl12_defaults_fill_omitted_columns_and_are_marked,
                pl13_another_program_is_marked_with_the_first_image_before,
                pl13_marks_are_taken_in_portions_and_once,
                pl13_a_portion_of_marks_is_bounded_in_bytes,
                pl14_a_constraint_refuses_the_write,
                pl14_unique_values_can_be_swapped,
                pl14_rows_can_take_each_others_unique_values_in_a_ring;
            history:
                pl21_history_comes_back_as_it_was_written,
                pl21_history_is_read_in_portions_in_both_directions,
                pl21_history_is_trimmed_by_itself_and_can_be_left_out,
                pl21_a_commit_keeps_what_was_before,
                pl21_what_another_program_wrote_is_in_the_history,
                pl21_a_record_says_where_the_row_lay,
                pl21_an_insert_stays_in_the_history_whatever_becomes_of_the_row;
            ledgers:
                pl1_metadata_comes_back_as_it_was_written,
                pl3_known_changesets_are_remembered,
                pl11_grant_counts_are_absolute_and_keep_their_since,
                pl18_the_log_knows_which_grants_an_entry_took,
                pl15_digests_are_absolute,
                pl15_a_rules_fingerprint_moves_rules_since,
                se2_devices_come_back_as_they_were_written,
                pl10_scan_goes_through_live_rows_in_key_order;
            reading:
                se8_the_log_is_read_in_order_and_in_portions,
                id3_tags_are_found_at_exactly_their_version,
                pl3_trim_forgets_up_to_the_horizon,
                se11_pages_are_in_key_order_with_the_digest_at_the_end,
                se11_a_page_is_one_snapshot_of_several_buckets,
                se11_rows_to_come_are_those_of_the_pages,
                se10_grants_are_found_by_grantee,
                di3_hashes_are_those_of_the_content,
                pl17_readers_see_only_what_is_committed,
                ru27_a_reader_answers_what_rules_ask;
            schemas:
                id8_numbers_are_for_ever,
                id8_additive_changes_keep_rows,
                id8_destructive_changes_need_leave,
                id8_renames_keep_numbers_and_rows,
                pl13_marks_wait_over_a_restart;
            values:
                ce2_every_value_comes_back_exactly,
                ce10_keys_of_every_kind_are_found,
                ce2_a_large_blob_comes_back_exactly;
            pipeline:
                pl3_a_changeset_is_applied_once_also_over_a_restart,
                pl3_what_came_in_pieces_is_not_applied_again,
                pl4_a_refused_changeset_leaves_nothing,
                pl12_the_log_has_cascades_and_defaults,
                pl18_one_group_takes_a_row_through_several_lives,
                pl13_what_another_program_wrote_is_in_the_log,
                pl14_the_culprit_alone_is_refused,
                pl15_digests_and_grants_are_those_computed_anew,
                pl17_a_restart_keeps_everything,
                se2_a_lease_is_exchanged_durably,
                se2_a_copy_gets_an_id_of_its_own;
            quotas:
                li6_what_is_counted_is_what_is_there,
                li6_what_goes_over_is_refused_until_there_is_room,
                li6_counting_begins_and_ends_with_the_configuration;
        }
    };
    (@cases $bed:expr; $($module:ident: $($case:ident),* ;)*) => {
        $($(
            #[test]
            fn $case() {
                $crate::contract::$module::$case(&mut $bed);
            }
        )*)*
    };
}
