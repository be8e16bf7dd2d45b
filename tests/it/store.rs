//! The stores: one suite, run over SQLite and over Postgres, and what only one of the two can do.

mod commits;
mod documented;
mod laws;
mod leases;
mod opening;
mod projects;
pub(crate) mod sample;
mod untold;
mod views;
mod wholeness;

use std::sync::Arc;

use catalog_sync::store::{self, Store};

#[cfg(all(feature = "nats", feature = "simulator"))]
pub(crate) use self::commits::replay;
use crate::postgres;

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
    store::open_migrated(url, &store::Options::default())
        .await
        .unwrap()
}

/// Makes of each case, written once as `async fn case(store: &dyn Store)`, a test over each store.
macro_rules! conformance {
    ($($subject:ident { $($case:ident)* })*) => {
        mod on_sqlite {
            $(mod $subject {
                $(#[tokio::test]
                async fn $case() {
                    let fresh = crate::store::fresh_sqlite().await;
                    crate::store::$subject::$case(&*fresh.store).await;
                })*
            })*
        }

        mod on_postgres {
            $(mod $subject {
                $(#[tokio::test]
                async fn $case() {
                    let fresh = crate::store::fresh_postgres().await;
                    crate::store::$subject::$case(&*fresh.store).await;
                })*
            })*
        }
    };
}

conformance! {
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
        a_hold_comes_back_and_goes
        the_key_health_comes_back
        failures_in_a_row_are_counted
        a_partial_run_keeps_the_last_success
        what_was_covered_is_dated_kind_by_kind
        odd_text_comes_back_as_it_was
        odd_numbers_come_back_as_they_were
        projects_do_not_touch_each_other
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
    }
}
