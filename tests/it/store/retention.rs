//! After retention: lines of the log and rows of removed entries are gone, by statements of the tests' own.

use catalog_sync::{
    catalog::log::REMOVED_KEPT,
    store::{Error, Store, verify},
};
use proptest::test_runner::TestRunner;

use super::{
    past::{add_random, find, listings, now, then},
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
