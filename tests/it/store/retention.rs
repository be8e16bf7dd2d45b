//! After retention, the log that is left still gives the catalog: where tests delete by statements of their own, and where the
//! store does.

use catalog_sync::{
    catalog::log::REMOVED_KEPT,
    project::ProjectId,
    store::{Error, Mark, Old, Store, verify},
};
use chrono::TimeDelta;
use proptest::{collection, prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use super::{
    past::{add_random, find, listings, now, then},
    prune::{DAY, day, prune_all},
    raw::Raw,
    sample::{add, at, coins, sync},
};

/// Leaves of what is from before `at(minute)` each entry's latest change alone.
async fn thin(raw: &mut Raw, project: &str, minute: u32) {
    let since = format!("2027-01-15T08:{minute:02}:00.123Z");
    raw.run(&format!(
        "delete from changes where project_id = '{project}' and at < '{since}' and exists (
             select 1 from changes l
             where l.project_id = changes.project_id and l.kind = changes.kind and l.store_id = changes.store_id
                 and l.seq > changes.seq and l.at < '{since}'
         )"
    ))
    .await;
    raw.run(&format!(
        "update project_state set log_since = '{since}' where project_id = '{project}'"
    ))
    .await;
}

pub(crate) async fn the_log_does_not_tell_of_what_was_deleted(store: &dyn Store, raw: &mut Raw) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1")]).await;
    sync(store, &acme, 5, [coins("2")]).await;
    let shelf = now(store, &acme).await;
    thin(raw, "acme", 9).await;
    sync(store, &acme, 12, [coins("1")]).await;

    let refused = store.read_shelf_at(&acme, at(8)).await.unwrap_err();
    assert_eq!(refused.code(), "before_the_log");
    assert_eq!(
        refused.to_string(),
        "the change log of project 'acme' can tell what was from 2027-01-15 08:09:00.123 UTC on: what is older was deleted"
    );
    assert!(
        matches!(refused, Error::BeforeTheLog { project, since } if project == acme && since == at(9))
    );
    assert_eq!(then(store, &acme, 9).await, shelf);
    assert_eq!(then(store, &acme, 12).await, now(store, &acme).await);
}

pub(crate) async fn a_thinned_log_tells_all_from_its_instant_on(store: &dyn Store, raw: &mut Raw) {
    let mut runner = TestRunner::deterministic();
    let mut deleted = 0;
    for case in 0..30 {
        let name = format!("case-{case}");
        let project = add_random(store, &name).await;
        let listings = listings(&mut runner);
        let mut shelves = Vec::new();
        for (minute, snapshot) in (0..).zip(&listings) {
            find(store, &project, minute, snapshot).await;
            shelves.push(now(store, &project).await);
        }
        let whole = verify(store, &project, at(99)).await.unwrap();
        for since in 0..=u32::try_from(listings.len()).unwrap() {
            thin(raw, &name, since).await;
            let proof = verify(store, &project, at(99)).await.unwrap();
            assert!(proof.holds(), "case {case}: {proof:#?}\n{listings:#?}");
            assert_eq!(proof.log_since, Some(at(since.into())));
            for (minute, shelf) in (0..).zip(&shelves).skip(usize::try_from(since).unwrap()) {
                let past = then(store, &project, minute).await;
                assert_eq!(
                    &past, shelf,
                    "case {case}, {since}, {minute}: {listings:#?}"
                );
            }
            deleted = deleted.max(whole.changes - proof.changes);
        }
    }
    assert!(deleted > 0, "no line was deleted");
}

pub(crate) async fn what_was_forgotten_and_came_anew_has_two_lives(
    store: &dyn Store,
    raw: &mut Raw,
) {
    let month = REMOVED_KEPT.num_minutes();
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1"), coins("2")]).await;
    sync(store, &acme, 1, []).await;
    let first = now(store, &acme).await;
    raw.run("delete from entries where removed_at is not null")
        .await;
    let proof = verify(store, &acme, at(month)).await.unwrap();
    assert_eq!(proof.contradictions.len(), 2, "{proof:#?}");
    let proof = verify(store, &acme, at(1 + month)).await.unwrap();
    assert!(proof.holds(), "{proof:#?}");

    sync(store, &acme, 1 + month, [coins("1")]).await;
    assert_eq!(then(store, &acme, 1).await, first);
    let product = &now(store, &acme).await.products[0];
    assert_eq!(product.first_seen_at, at(1 + month));
    assert_eq!(&then(store, &acme, 1 + month).await.products[0], product);
    let proof = verify(store, &acme, at(1 + month)).await.unwrap();
    assert!(proof.holds(), "{proof:#?}");
}

/// That the log gives the catalog, after so many minutes.
async fn is_proven(store: &dyn Store, id: &ProjectId, minute: i64, case: &str) {
    let proof = verify(store, id, at(minute)).await.unwrap();
    assert!(proof.holds(), "{case}: {proof:#?}");
}

pub(crate) async fn the_end_of_the_log_stays_though_what_it_removed_is_gone(
    store: &dyn Store,
    _: &mut Raw,
) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1"), coins("2")]).await;
    sync(store, &acme, 1, [coins("1")]).await;
    assert_eq!(prune_all(store, Old::Entries, day(99)).await, 1);
    assert_eq!(prune_all(store, Old::Changes, day(99)).await, 1);
    assert_eq!(prune_all(store, Old::Changes, day(99)).await, 0);
    is_proven(store, &acme, 99 * DAY, "it ends with the removal").await;

    let new = |name: &str| [coins("1").with("name", name)];
    sync(store, &acme, 100 * DAY, new("A")).await;
    is_proven(store, &acme, 100 * DAY, "more comes after it").await;
    // The latest from before the cutoff, so that nothing is missing from there on.
    assert_eq!(prune_all(store, Old::Changes, day(100)).await, 0);
    is_proven(store, &acme, 100 * DAY, "the cutoff lies between").await;
    sync(store, &acme, 101 * DAY, new("B")).await;
    assert_eq!(prune_all(store, Old::Changes, day(101)).await, 2);
    is_proven(store, &acme, 101 * DAY, "it is gone").await;
}

pub(crate) async fn a_clock_that_was_set_back_leaves_no_gap(store: &dyn Store, _: &mut Raw) {
    let acme = add(store, "acme").await;
    let named = |one: &str, two: &str| [coins("1").with("name", one), coins("2").with("name", two)];
    sync(store, &acme, DAY, named("A", "A")).await;
    sync(store, &acme, 2 * DAY, named("B", "A")).await;
    // By a clock that is ahead, and then by one that is not.
    sync(store, &acme, 50 * DAY, named("B", "B")).await;
    sync(store, &acme, 3 * DAY, named("C", "B")).await;
    // Both changes of the first were overwritten before the cutoff, but the third revision is whole, and the second comes before it.
    assert_eq!(prune_all(store, Old::Changes, day(9)).await, 1);
    is_proven(store, &acme, 50 * DAY, "the second stays").await;
}

/// Runs and passes, so many days after what was before.
#[derive(Clone, Debug)]
enum Step {
    /// Finds what has a name, by a clock that is so many minutes behind.
    Run(i64, [Option<&'static str>; 3], i64),
    /// Deletes entries and changes that are older than so many days, a page of so many rows at a time.
    Pass(i64, [i64; 2], u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = prop_oneof![Just(None), Just(Some("A")), Just(Some("B"))];
    let run = (0..60_i64, [name.clone(), name.clone(), name], 0..8 * DAY)
        .prop_map(|(days, found, behind)| Step::Run(days, found, behind));
    // No clock may be so far behind that what is gone was removed within the month.
    let pass = (0..60_i64, 40..60_i64, 0..60_i64, 1..7_u32)
        .prop_map(|(days, removed, changes, most)| Step::Pass(days, [removed, changes], most));
    collection::vec(prop_oneof![run, pass], 10..30)
}

pub(crate) async fn whatever_is_deleted_the_log_gives_the_catalog(store: &dyn Store, _: &mut Raw) {
    let mut runner = TestRunner::deterministic();
    let mut deleted = [0, 0];
    let mut ends = Vec::new();
    for number in 0..40 {
        let project = add(store, &format!("case-{number}")).await;
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let mut today = 10;
        for (index, step) in steps.iter().enumerate() {
            match step {
                Step::Run(days, found, behind) => {
                    today += days;
                    let found = (["1", "2", "3"].iter().zip(found))
                        .filter_map(|(id, name)| Some(coins(id).with("name", (*name)?)));
                    sync(store, &project, today * DAY - behind, found).await;
                }
                Step::Pass(days, kept, most) => {
                    today += days;
                    for ((old, days), deleted) in [Old::Entries, Old::Changes]
                        .into_iter()
                        .zip(kept)
                        .zip(&mut deleted)
                    {
                        let mut mark = Mark::Start;
                        loop {
                            let before = day(today) - TimeDelta::days(*days);
                            let pruned = store.prune(old, before, &mark, *most, day(today));
                            let pruned = pruned.await.unwrap();
                            *deleted += pruned.deleted;
                            if pruned.is_done {
                                break;
                            }
                            mark = pruned.mark;
                        }
                    }
                }
            }
            let case = format!("case {number}, step {index} of {steps:#?}");
            is_proven(store, &project, today * DAY, &case).await;
        }
        ends.push((project, today));
    }
    // Later passes went through the earlier projects too.
    for (project, today) in ends {
        is_proven(store, &project, (today + 9_999) * DAY, project.as_str()).await;
        sync(store, &project, (today + 9_999) * DAY, [coins("9")]).await;
        is_proven(store, &project, (today + 9_999) * DAY, project.as_str()).await;
    }
    assert!(deleted.iter().all(|rows| *rows > 50), "{deleted:?}");
}
