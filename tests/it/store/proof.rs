//! The change log in order, and the proof that it gives the catalog.

use catalog_sync::{
    catalog::replay,
    store::{Store, verify},
};
use futures_util::future::join;
use proptest::test_runner::TestRunner;

use super::{
    past::{add_random, find, listings},
    sample::{add, at, coins, grace_period, group, history, subscription, sync},
};

pub(crate) async fn the_log_is_read_in_order_page_by_page(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let other = add(store, "other").await;
    assert_eq!(store.read_log(&acme, 0, 9).await.unwrap(), []);
    sync(store, &acme, 0, [coins("1"), group("7", "Pro")]).await;
    sync(store, &other, 0, [coins("1")]).await;
    sync(store, &acme, 1, [group("7", "Pro"), subscription("8", "7")]).await;

    let mut expected = history(store, &acme).await;
    expected.reverse();
    assert_eq!(expected.len(), 4);
    for most in [1, 3, 4, 9] {
        let mut log = Vec::new();
        loop {
            let after = log
                .last()
                .map_or(0, |line: &catalog_sync::store::LoggedChange| line.seq);
            let page = store.read_log(&acme, after, most).await.unwrap();
            assert!(page.len() <= usize::try_from(most).unwrap());
            if page.is_empty() {
                break;
            }
            log.extend(page);
        }
        assert_eq!(log, expected);
    }
}

pub(crate) async fn the_end_of_a_log_is_of_one_moment(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let end = store.load_log_end(&acme).await.unwrap();
    assert_eq!((end.seq, end.revision, end.log_since), (0, 0, None));
    sync(store, &acme, 0, [coins("1"), coins("2")]).await;
    sync(store, &acme, 1, [coins("1")]).await;
    let end = store.load_log_end(&acme).await.unwrap();
    assert_eq!(end.seq, history(store, &acme).await[0].seq);
    assert_eq!((end.revision, end.log_since), (2, None));
    assert_eq!(end.catalog, store.load_catalog(&acme).await.unwrap());
}

pub(crate) async fn every_log_gives_its_catalog(store: &dyn Store) {
    let mut runner = TestRunner::deterministic();
    let mut changes = 0;
    for case in 0..40 {
        let project = add_random(store, &format!("case-{case}")).await;
        let listings = listings(&mut runner);
        for (minute, snapshot) in (0..).zip(&listings) {
            find(store, &project, minute, snapshot).await;
        }
        let log = store.read_log(&project, 0, u32::MAX).await.unwrap();
        let stored = store.load_catalog(&project).await.unwrap();
        let replayed = replay(log.iter().map(|line| line.change().unwrap()));
        assert_eq!(
            (&replayed.present, &replayed.removed),
            (&stored.present, &stored.removed),
            "case {case}: {listings:#?}"
        );
        let proof = verify(store, &project, at(99)).await.unwrap();
        assert!(proof.holds(), "case {case}: {proof:#?}\n{listings:#?}");
        assert_eq!(proof.changes, log.len());
        changes += log.len();
    }
    assert!(changes > 200, "the cases have {changes} changes");
}

pub(crate) async fn a_log_of_many_pages_is_verified(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let all: Vec<_> = (0..3_000)
        .map(|number| coins(&format!("{number}")))
        .chain([grace_period()])
        .collect();
    sync(store, &acme, 0, all.clone()).await;
    sync(store, &acme, 1, all[2_000..].to_vec()).await;
    let proof = verify(store, &acme, at(2)).await.unwrap();
    assert!(proof.holds(), "{proof:#?}");
    assert_eq!((proof.changes, proof.revisions), (5_001, 2));
    assert_eq!((proof.present, proof.removed), (1_001, 2_000));
}

pub(crate) async fn commits_during_a_verification_contradict_nothing(store: &dyn Store) {
    let acme = add(store, "acme").await;
    for minute in 0..20 {
        let named = coins("1").with("name", format!("name {minute}"));
        let ((), proof) = join(
            async {
                sync(store, &acme, minute, [named]).await;
            },
            verify(store, &acme, at(99)),
        )
        .await;
        let proof = proof.unwrap();
        assert!(proof.holds(), "{proof:#?}");
    }
}
