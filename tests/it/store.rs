//! The stores: one suite, run over SQLite and over Postgres, and what only one of the two can do.

mod budgets;
mod claims;
mod commits;
mod documented;
mod fleet;
mod holds;
mod inbox;
mod laws;
mod leases;
mod losses;
mod master_keys;
mod mishaps;
mod opening;
mod outbox;
mod past;
mod postgres_rows;
mod projects;
mod proof;
mod prune;
pub(crate) mod raw;
mod retention;
pub(crate) mod sample;
mod seen;
mod slots;
mod tampering;
mod untold;
mod upgrade;
mod views;
mod wholeness;
mod work;
mod work_laws;

use std::sync::Arc;

use catalog_sync::store::{self, Store};

#[cfg(feature = "simulator")]
pub(crate) use self::commits::replay;
use crate::postgres;

/// The worker's name in all of these tests.
const WORKER: &str = "worker-1";

/// A migrated store with nothing in it, of which `url` is the address; `_place` goes with it.
struct Fresh<P> {
    store: Arc<dyn Store>,
    url: String,
    _place: P,
}

async fn fresh_sqlite() -> Fresh<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("catalog.db").display());
    Fresh {
        store: open_migrated(&url).await,
        url,
        _place: folder,
    }
}

async fn fresh_postgres() -> Fresh<postgres::Database> {
    let database = postgres::database().await;
    Fresh {
        store: open_migrated(database.url()).await,
        url: database.url().to_owned(),
        _place: database,
    }
}

async fn open_migrated(url: &str) -> Arc<dyn Store> {
    let options = store::Options {
        worker: WORKER.to_owned(),
        ..store::Options::default()
    };
    store::open_migrated(url, &options).await.unwrap()
}

/// Makes of each case, written once as `async fn case(store: &dyn Store)`, a test over each store. Those after `by hand` are
/// given a connection of the host's own too: `async fn case(store: &dyn Store, raw: &mut Raw)`.
macro_rules! conformance {
    (
        $($subject:ident { $($case:ident)* })*
        ; by hand
        $($by_hand:ident { $($hand_case:ident)* })*
    ) => {
        mod on_sqlite {
            conformance!(@tests fresh_sqlite $($subject { $($case)* })*);
            conformance!(@by_hand fresh_sqlite $($by_hand { $($hand_case)* })*);
        }

        mod on_postgres {
            conformance!(@tests fresh_postgres $($subject { $($case)* })*);
            conformance!(@by_hand fresh_postgres $($by_hand { $($hand_case)* })*);
        }
    };
    (@tests $fresh:ident $($subject:ident { $($case:ident)* })*) => {
        $(mod $subject {
            $(#[tokio::test]
            async fn $case() {
                let fresh = crate::store::$fresh().await;
                crate::store::$subject::$case(&*fresh.store).await;
            })*
        })*
    };
    (@by_hand $fresh:ident $($subject:ident { $($case:ident)* })*) => {
        $(mod $subject {
            $(#[tokio::test]
            async fn $case() {
                let fresh = crate::store::$fresh().await;
                let mut raw = crate::store::raw::Raw::connect(&fresh.url).await;
                crate::store::$subject::$case(&*fresh.store, &mut raw).await;
            })*
        })*
    };
}

conformance! {
    fleet {
        no_projects_are_counted_as_none
        each_project_is_fresh_stale_new_or_paused
        a_project_is_stale_by_its_own_schedule
        ages_are_counted_by_how_old_they_are
        failing_projects_are_counted_by_their_code
        what_broke_last_is_named_before_what_is_old_or_passes
        holds_and_what_is_set_aside_are_counted
        what_waits_is_told_from_what_is_under_way
        a_key_with_little_left_is_counted_for_an_hour
        an_outbox_tells_how_much_waits_and_since_when
        a_worker_is_at_work_while_it_says_so
        the_worst_come_first
    }
    master_keys {
        what_tells_a_master_key_from_another_is_noted_once
        each_master_key_tells_how_many_keys_it_seals
        a_master_key_in_use_is_not_retired
        nothing_is_sealed_with_a_retired_master_key
        sealed_keys_are_listed_by_what_seals_them
        a_key_that_was_replaced_meanwhile_is_left_alone
    }
    projects {
        a_project_comes_back_as_it_was_added
        a_new_project_has_nothing_yet
        projects_are_listed_by_id
        an_id_that_is_taken_is_refused_and_changes_nothing
        an_unknown_project_is_an_error_of_every_method
        the_nearest_name_is_offered
        a_replaced_key_begins_its_health_anew
        projects_that_share_a_key_are_found
        pausing_a_paused_project_changes_nothing
        limits_of_its_own_come_back_and_go
        a_removed_project_leaves_nothing_and_others_stay
    }
    leases {
        a_lease_excludes_others_until_it_ends
        the_epoch_rises_with_each_claim
        a_lease_can_be_renewed_while_nobody_took_it
        a_lease_that_was_taken_over_cannot_be_renewed
        a_released_lease_is_free_at_once
        releasing_a_lost_lease_does_its_new_holder_no_harm
        of_sixteen_claims_at_once_one_wins
        a_stale_commit_writes_nothing
        a_commit_with_the_right_epoch_and_a_wrong_token_writes_nothing
        a_lease_commits_once
        a_lease_on_a_removed_project_is_lost
        a_claim_brings_what_a_run_begins_with
        a_paused_project_cannot_be_claimed
        a_new_key_ends_the_lease_of_a_run_with_the_old_one
    }
    commits {
        every_op_is_written_and_logged
        a_restored_entry_keeps_when_it_was_first_seen
        revisions_rise_by_one_without_a_gap
        replaying_the_log_from_nothing_gives_the_catalog
        a_run_comes_back_as_it_was_recorded
        runs_come_newest_first
        the_key_health_comes_back
        failures_in_a_row_are_counted
        a_partial_run_keeps_the_last_success
        what_was_covered_is_dated_kind_by_kind
        odd_text_comes_back_as_it_was
        odd_numbers_come_back_as_they_were
        projects_do_not_touch_each_other
    }
    holds {
        a_hold_stands_until_it_ends
        what_was_begun_by_hand_is_told_once_more
        thousands_that_vanish_are_noted_in_a_few_steps
        holds_are_kept_with_how_they_ended
        what_is_noted_is_no_change
        a_change_tells_when_what_was_before_was_last_seen
        a_discarded_hold_keeps_its_things_and_can_be_taken_back
        a_discarded_hold_stays_while_it_can_be_taken_back
        deciding_leaves_what_was_asked_for_to_be_done
        what_is_not_known_is_new_once_in_all_projects
        of_what_each_kind_was_listed_comes_back
    }
    untold {
        what_was_not_told_stays_to_be_told
    }
    wholeness {
        an_unchanged_catalog_writes_no_row
        ten_thousand_products_take_as_many_statements_as_one
        a_violated_constraint_leaves_nothing_half_written
        a_dropped_commit_is_whole_or_nothing
        a_reader_sees_a_whole_commit_or_nothing
    }
    views {
        products_have_typed_columns
        unknown_names_give_null
        unexpected_types_give_null
        groups_name_their_subscriptions
        a_grace_period_is_read_or_unset_or_unknown
        removed_entries_are_left_out_unless_asked_for
        products_come_by_product_id
        history_can_be_narrowed
        a_status_tells_how_a_project_fares
        statuses_come_by_id
    }
    laws {
        a_committed_catalog_is_the_applied_one
        replaying_what_is_left_gives_the_catalog_then_and_since
    }
    work {
        a_new_project_has_asked_for_its_first_sync
        a_project_has_one_request_however_often_it_is_asked_for
        the_first_instant_and_the_first_reason_stay
        one_call_may_name_a_project_twice
        unknown_projects_are_named_and_the_others_are_asked
        a_reason_in_odd_text_spoils_nobodys_request
        all_who_write_the_list_at_once_get_through
        a_ticket_is_served_once_its_run_has_ended
        a_new_key_asks
        a_new_key_leaves_what_its_lost_run_was_to_answer
        resuming_asks
        pausing_does_not_lose_a_request
        resuming_what_was_not_paused_asks_nothing
        requests_during_a_run_make_one_more_run_after_it
        a_request_during_a_run_that_fails_is_not_put_off
        a_request_after_a_workers_death_is_answered_by_the_takeover
        a_request_during_a_run_that_dies_is_answered_by_the_takeover
        a_release_leaves_the_request_and_counts_nothing
        what_was_asked_before_and_during_a_released_run_is_one_run
        a_sync_by_hand_answers_what_was_asked_before_it
        a_stale_commit_serves_nothing
        what_there_is_to_do_can_be_seen
        a_run_to_be_repeated_waits_for_its_instant
        repetitions_in_a_row_are_counted
        a_request_replaces_a_repetition_that_would_come_later
        a_sync_by_hand_makes_a_repetition_needless
    }
    claims {
        on_demand_comes_before_scheduled_before_repeated
        who_has_waited_longest_comes_first
        no_more_are_claimed_than_wanted
        a_paused_project_is_left_alone
        a_claimed_project_is_nobody_elses
        projects_that_share_a_key_take_turns
        a_key_is_free_again_when_its_lease_ran_out
        a_sync_by_hand_keeps_its_key_from_others
        a_busy_key_does_not_stand_in_the_way_of_others
        of_sixteen_claimers_at_once_each_has_other_projects
        of_sixteen_claimers_at_once_one_has_the_key
        a_claim_brings_what_acquiring_brings
        a_worker_is_named_where_it_works_and_where_it_worked
        a_removed_project_is_not_claimed
    }
    losses {
        a_lease_that_ran_out_is_told
        three_in_a_row_set_a_project_aside
        a_run_that_ends_in_between_begins_the_count_anew
        losses_of_other_days_do_not_count
        a_last_chance_is_not_given_beside_another
        last_chances_are_given_one_at_a_time
        a_last_chance_does_not_stand_in_the_way_of_others
        resuming_takes_a_project_up_again
        a_project_set_aside_may_be_synced_by_hand
        asking_does_not_take_a_project_up_again
        a_sync_by_hand_that_dies_counts_too
        losses_are_kept_over_a_release
        a_late_commit_of_a_lease_that_nobody_took_is_no_loss
        a_renewed_lease_is_no_loss
    }
    slots {
        a_new_project_gets_an_appointment_and_no_slot
        a_slot_that_is_due_is_issued_once
        schedulers_that_meet_issue_each_slot_once
        what_was_missed_is_caught_up_once
        a_clock_set_back_repeats_no_slot
        a_slot_that_waits_or_is_under_way_is_not_issued_again
        a_paused_project_catches_up_once_when_resumed
        a_project_set_aside_gets_no_slots_until_resumed
        a_project_keeps_to_its_own_cron
        a_changed_schedule_moves_appointments_page_by_page
        an_unchanged_schedule_changes_no_appointment
        what_is_due_already_is_left_to_the_tick
        a_key_that_waits_for_a_person_is_passed_over_for_a_while
        a_key_that_waits_for_a_person_is_looked_at_on_demand
        a_failure_that_passes_by_itself_is_not_passed_over
        a_slot_has_one_run
        no_more_slots_are_issued_than_wanted_at_once
        a_slot_replaces_a_repetition_that_would_come_later
        a_repetition_is_no_second_run_of_its_slot
        a_slot_joins_what_waits_already
        a_slot_that_comes_during_a_run_has_a_run_of_its_own
        a_dead_runs_slot_is_the_takeovers
        a_slot_is_not_issued_before_the_projects_place_in_the_spread
    }
    budgets {
        the_ledger_tells_what_is_left_to_all_projects_of_a_key
        scheduled_work_leaves_a_fifth
        what_somebody_waits_for_leaves_a_twentieth
        who_is_put_off_waits_until_the_instant_told
        a_key_that_apple_turned_away_puts_off_all_its_projects
        what_one_project_spends_another_with_its_key_lacks
        requests_count_though_no_answer_told_of_the_budget
        a_key_is_forgotten_with_its_last_project
        another_key_begins_anew_and_the_same_goes_on
        a_stale_commit_spends_nothing
    }
    outbox {
        nothing_is_kept_while_no_broker_is_named
        each_broker_is_told_for_itself
        a_commit_without_changes_tells_nothing
        a_long_revision_is_told_in_parts
        projects_keep_their_order_beside_each_other
        what_was_not_confirmed_is_read_again
        who_lost_the_right_to_tell_confirms_nothing
        one_at_a_time_has_the_right_to_tell
        a_broker_that_is_named_no_more_is_forgotten
        a_removed_project_is_told_of_no_more
        what_is_committed_while_a_broker_is_told_stays
    }
    work_laws {
        every_request_is_answered_by_a_later_run
    }
    past {
        the_shelf_of_now_is_the_shelf
        whatever_values_there_are_the_past_is_read_like_the_present
        after_each_revision_the_shelf_was_as_it_is_read_now
        before_the_first_change_the_shelf_is_empty
        a_group_has_the_name_that_it_had
        what_returned_was_gone_in_between
        a_grace_period_was_what_it_was_and_never_another_apps
        a_clock_that_was_set_back_mixes_no_revisions
    }
    proof {
        the_log_is_read_in_order_page_by_page
        the_end_of_a_log_is_of_one_moment
        every_log_gives_its_catalog
        a_log_of_many_pages_is_verified
        commits_during_a_verification_contradict_nothing
    }
    ; by hand
    seen {
        a_line_tells_when_what_was_before_was_last_seen
        the_values_of_the_grace_period_come_in_order
    }
    retention {
        the_log_does_not_tell_of_what_was_deleted
        a_thinned_log_tells_all_from_its_instant_on
        what_was_forgotten_and_came_anew_has_two_lives
        the_end_of_the_log_stays_though_what_it_removed_is_gone
        a_clock_that_was_set_back_leaves_no_gap
        whatever_is_deleted_the_log_gives_the_catalog
    }
    tampering {
        a_log_that_was_tampered_with_is_found
        a_catalog_that_was_tampered_with_is_found
        a_newer_kind_is_no_part_of_the_shelf
    }
    mishaps {
        a_run_that_could_not_be_recorded_waits
        a_project_that_cannot_be_read_holds_up_no_other
        a_clock_set_back_leaves_nothing_waiting
        a_slot_that_was_issued_twice_has_one_run
        a_request_during_a_run_does_not_bring_its_slot_back
    }
    inbox {
        a_row_asks_for_its_project_and_goes
        many_rows_of_a_project_are_one_request
        an_instant_to_come_counts_as_now
        rows_that_name_no_project_are_put_aside_with_the_cause
        no_more_rows_are_taken_than_wanted_the_oldest_first
        takers_that_meet_take_each_row_once
        odd_instants_do_no_harm
        texts_that_are_none_hold_up_nothing
        a_row_during_a_run_causes_another
        what_was_put_aside_is_forgotten_in_time
        the_host_can_read_what_waits_and_what_runs
        the_host_can_read_what_is_set_aside
    }
    prune {
        what_was_removed_long_ago_is_deleted_for_good
        nothing_is_deleted_that_was_removed_within_30_days
        an_entry_that_returned_is_left_alone
        no_more_rows_are_looked_at_than_wanted
        a_change_goes_once_another_has_overwritten_it_before_the_cutoff
        the_log_is_whole_since_the_latest_cutoff
        what_a_broker_is_still_to_be_told_stays
        changes_of_the_grace_period_are_kept_for_ever
        the_removal_of_what_is_gone_for_good_goes_too
        a_removal_goes_after_what_it_removed
        what_a_run_under_way_has_loaded_stays
        old_runs_go_but_for_a_projects_latest
        runs_that_ended_at_once_are_looked_at_page_by_page
        holds_go_once_they_ended_long_ago
        workers_that_meet_delete_everything_once
        what_is_locked_is_left_for_later
        projects_that_are_removed_meanwhile_do_no_harm
    }
}
