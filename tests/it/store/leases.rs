//! Leases and the fence in every commit (I1).

use std::sync::atomic::{AtomicU32, Ordering};

use catalog_sync::{
    catalog::{Catalog, Plan},
    project::ProjectId,
    store::{Error, Lease, Store},
};
use futures_util::future::join_all;
use uuid::Uuid;

use super::sample::{TTL, add, aftermath, at, claim, coins, everything, plan, run, snapshot, sync};

pub(crate) async fn a_lease_excludes_others_until_it_ends(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let first = claim(store, &acme, 0).await;
    assert_eq!(first.until, at(0) + TTL);

    let last_moment = first.until - std::time::Duration::from_millis(1);
    let refused = store.acquire(&acme, TTL, last_moment).await;
    assert!(
        matches!(&refused, Err(Error::Leased { project, until }) if *project == acme && *until == first.until),
        "{refused:?}"
    );
    let status = store.read_status(&acme).await.unwrap();
    assert_eq!(status.leased_until, Some(first.until));

    let second = store.acquire(&acme, TTL, first.until).await.unwrap().lease;
    assert_eq!(second.epoch, first.epoch + 1);
}

pub(crate) async fn the_epoch_rises_with_each_claim(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let mut earlier: Vec<Lease> = Vec::new();
    for minute in 0..5 {
        let lease = claim(store, &acme, minute).await;
        if minute % 2 == 0 {
            store.release(&lease).await.unwrap();
        }
        for one in &earlier {
            assert!(lease.epoch > one.epoch);
            assert_ne!(lease.token, one.token);
        }
        earlier.push(lease);
    }
}

pub(crate) async fn a_lease_can_be_renewed_while_nobody_took_it(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let lease = claim(store, &acme, 0).await;

    let renewed = store.renew(&lease, TTL, at(1)).await.unwrap();

    let expected = Lease {
        until: at(1) + TTL,
        ..lease
    };
    assert_eq!(renewed, expected);
    assert!(matches!(
        store.acquire(&acme, TTL, at(1)).await,
        Err(Error::Leased { .. })
    ));
}

pub(crate) async fn a_lease_that_was_taken_over_cannot_be_renewed(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let lost = claim(store, &acme, 0).await;
    let held = claim(store, &acme, 1).await;

    let refused = store.renew(&lost, TTL, at(1)).await;

    assert!(matches!(refused, Err(Error::LeaseLost { epoch, .. }) if epoch == lost.epoch));
    let status = store.read_status(&acme).await.unwrap();
    assert_eq!(status.leased_until, Some(held.until));
}

pub(crate) async fn a_released_lease_is_free_at_once(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let lease = claim(store, &acme, 0).await;

    store.release(&lease).await.unwrap();

    assert!(matches!(
        store.renew(&lease, TTL, at(0)).await,
        Err(Error::LeaseLost { .. })
    ));
    claim(store, &acme, 0).await;
}

pub(crate) async fn releasing_a_lost_lease_does_its_new_holder_no_harm(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let lost = claim(store, &acme, 0).await;
    let held = claim(store, &acme, 1).await;

    store.release(&lost).await.unwrap();

    store.renew(&held, TTL, at(1)).await.unwrap();
}

pub(crate) async fn of_sixteen_claims_at_once_one_wins(store: &dyn Store) {
    let acme = add(store, "acme").await;
    for minute in 0..10 {
        let refused = AtomicU32::new(0);
        let claims = join_all((0..16).map(|_| async {
            match store.acquire(&acme, TTL, at(minute)).await {
                Ok(lease) => Some(lease),
                Err(Error::Leased { .. }) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                    None
                }
                Err(error) => panic!("{error}"),
            }
        }))
        .await;
        let won: Vec<Lease> = claims
            .into_iter()
            .flatten()
            .map(|claim| claim.lease)
            .collect();
        assert_eq!((won.len(), refused.into_inner()), (1, 15));
        assert_eq!(won[0].epoch, minute + 1);
    }
}

pub(crate) async fn a_stale_commit_writes_nothing(store: &dyn Store) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1"), coins("2")]).await;
    let stale = claim(store, &acme, 1).await;
    let held = claim(store, &acme, 2).await;

    writes_nothing(store, &acme, &stale).await;

    store.renew(&held, TTL, at(2)).await.unwrap();
}

pub(crate) async fn a_commit_with_the_right_epoch_and_a_wrong_token_writes_nothing(
    store: &dyn Store,
) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1")]).await;
    let held = claim(store, &acme, 1).await;
    let forged = Lease {
        token: Uuid::now_v7(),
        ..held.clone()
    };
    let ahead = Lease {
        epoch: held.epoch + 1,
        ..held
    };
    writes_nothing(store, &acme, &forged).await;
    writes_nothing(store, &acme, &ahead).await;
}

pub(crate) async fn a_lease_commits_once(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let lease = claim(store, &acme, 0).await;
    let nothing = Plan::nothing();
    store
        .commit(&lease, &nothing, &run(&nothing, 0), &aftermath())
        .await
        .unwrap();
    assert_eq!(store.read_status(&acme).await.unwrap().leased_until, None);

    writes_nothing(store, &acme, &lease).await;

    let next = claim(store, &acme, 0).await;
    assert_eq!(next.epoch, lease.epoch + 1);
}

/// A commit under this lease is refused, and the project is as it was in all that a store can say of it.
async fn writes_nothing(store: &dyn Store, id: &ProjectId, lease: &Lease) {
    let before = everything(store, id).await;
    let mut updated = coins("1");
    updated = updated.with("name", "other");
    let plan = plan(
        &before.catalog,
        &snapshot([updated, coins("3"), coins("4")]),
    );
    assert!(!plan.changes().is_empty());

    let refused = store
        .commit(lease, &plan, &run(&plan, 9), &aftermath())
        .await;

    assert!(
        matches!(&refused, Err(Error::LeaseLost { project, epoch }) if project == id && *epoch == lease.epoch),
        "{refused:?}"
    );
    assert_eq!(everything(store, id).await, before);
}

pub(crate) async fn a_lease_on_a_removed_project_is_lost(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let lease = claim(store, &acme, 0).await;
    store.remove_project(&acme).await.unwrap();

    let plan = plan(&Catalog::default(), &snapshot([coins("1")]));
    let refused = store
        .commit(&lease, &plan, &run(&plan, 0), &aftermath())
        .await;
    assert!(matches!(refused, Err(Error::LeaseLost { .. })));
    let refused = store.renew(&lease, TTL, at(0)).await;
    assert!(matches!(refused, Err(Error::LeaseLost { .. })));
    store.release(&lease).await.unwrap();
}

pub(crate) async fn a_claim_brings_what_a_run_begins_with(store: &dyn Store) {
    let acme = add(store, "acme").await;
    everything(store, &acme).await;

    let claim = store.acquire(&acme, TTL, at(600)).await.unwrap();
    assert_eq!(claim.project, store.load_project(&acme).await.unwrap());
    assert_eq!(claim.key, store.load_key(&acme).await.unwrap());
    assert_eq!(claim.state, store.load_state(&acme).await.unwrap());
}

pub(crate) async fn a_paused_project_cannot_be_claimed(store: &dyn Store) {
    let acme = add(store, "acme").await;
    store.pause(&acme, at(0)).await.unwrap();
    let refused = store.acquire(&acme, TTL, at(1)).await;
    assert!(
        matches!(&refused, Err(Error::Paused(id)) if *id == acme),
        "{refused:?}"
    );
    assert_eq!(store.read_status(&acme).await.unwrap().leased_until, None);

    store.resume(&acme, at(1)).await.unwrap();
    assert_eq!(
        claim(store, &acme, 1).await.epoch,
        1,
        "the refused claim left no trace"
    );
}

pub(crate) async fn a_new_key_ends_the_lease_of_a_run_with_the_old_one(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let lease = claim(store, &acme, 0).await;
    let project = store.load_project(&acme).await.unwrap();
    let key = store.load_key(&acme).await.unwrap();
    store
        .replace_key(&acme, &project.app, &key, at(1))
        .await
        .unwrap();

    let late = run(&Plan::nothing(), 2);
    let refused = store
        .commit(&lease, &Plan::nothing(), &late, &aftermath())
        .await;
    assert!(
        matches!(refused, Err(Error::LeaseLost { .. })),
        "{refused:?}"
    );
    assert_eq!(
        store.load_state(&acme).await.unwrap().key_health.worked_at,
        Some(at(1))
    );
}
