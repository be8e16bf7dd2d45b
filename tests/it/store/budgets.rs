//! What a key has left to spend is known to whoever claims next (I7).

use catalog_sync::{
    budget::Budget,
    clock::Instant,
    project::ProjectId,
    run::{Cost, Run},
    store::{Aftermath, Claim, Store},
};

use super::sample::{
    TTL, add_settled, add_with_key, aftermath, ask, at, end, id, key_of, names, pending, run_for,
    settle, take, take_one,
};

/// Of a thousand.
fn left(left: u64) -> Budget {
    Budget { limit: 1000, left }
}

/// A run that ends with this much of its key's budget left, and is to be repeated at the next minute.
async fn spend(store: &dyn Store, project: &ProjectId, minute: i64, budget: Budget) {
    let claim = store.acquire(project, TTL, at(minute)).await.unwrap();
    let aftermath = Aftermath {
        budget: Some(budget),
        retry_at: Some(at(minute + 1)),
        ..aftermath()
    };
    end(store, &claim, &run_for(&claim, minute), &aftermath).await;
}

/// A run that Apple told to stay away.
async fn block(store: &dyn Store, claim: &Claim, minute: i64, until: Instant) {
    let run = Run {
        resume_at: Some(until),
        ..run_for(claim, minute)
    };
    end(store, claim, &run, &aftermath()).await;
}

async fn acquire(store: &dyn Store, project: &ProjectId, minute: i64) -> Claim {
    store.acquire(project, TTL, at(minute)).await.unwrap()
}

pub(crate) async fn the_ledger_tells_what_is_left_to_all_projects_of_a_key(store: &dyn Store) {
    let one = add_with_key(store, "one", "SHARED").await;
    let other = add_with_key(store, "other", "SHARED").await;
    let alone = add_with_key(store, "alone", "ALONE").await;
    spend(store, &one, 0, left(321)).await;
    for (project, budget) in [
        (&one, left(321)),
        (&other, left(321)),
        (
            &alone,
            Budget {
                limit: 3600,
                left: 3600,
            },
        ),
    ] {
        let ledger = store.load_ledger(project).await.unwrap();
        assert_eq!(ledger.left(at(1)), budget);
    }
    let unknown = store.load_ledger(&id("nobody")).await;
    assert_eq!(unknown.unwrap_err().code(), "unknown_project");
}

pub(crate) async fn scheduled_work_leaves_a_fifth(store: &dyn Store) {
    let enough = add_settled(store, "enough").await;
    let little = add_settled(store, "little").await;
    spend(store, &enough, 0, left(201)).await;
    spend(store, &little, 0, left(200)).await;

    let claimed = take(store, 9, at(1)).await;

    assert_eq!(names(&claimed), ["enough"]);
    // Others spent from it too, so it is worth another look soon.
    assert_eq!(claimed.deferred, [(little, at(10))]);
}

pub(crate) async fn what_somebody_waits_for_leaves_a_twentieth(store: &dyn Store) {
    for (name, budget) in [("enough", 51), ("little", 50)] {
        let project = add_settled(store, name).await;
        spend(store, &project, 0, left(budget)).await;
        ask(store, &project, at(1)).await;
    }
    let claimed = take(store, 9, at(1)).await;
    assert_eq!(names(&claimed), ["enough"]);
    assert_eq!(claimed.deferred.len(), 1);
}

pub(crate) async fn who_is_put_off_waits_until_the_instant_told(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    spend(store, &acme, 0, left(0)).await;
    let deferred = take(store, 9, at(1)).await.deferred;
    let [(_, until)] = deferred[..] else {
        panic!("{deferred:?}");
    };

    assert_eq!(pending(store, &acme).await.unwrap().ready_at, until);
    assert!(!store.look(at(2)).await.unwrap().ready);
    assert_eq!(take(store, 9, at(2)).await.deferred, []);
    assert_eq!(names(&take(store, 9, until).await), ["acme"]);
}

pub(crate) async fn a_key_that_apple_turned_away_puts_off_all_its_projects(store: &dyn Store) {
    let first = add_with_key(store, "a", "shared").await;
    let second = add_with_key(store, "b", "shared").await;
    let third = add_with_key(store, "c", "other").await;
    settle(store, &second, -1).await;
    block(store, &acquire(store, &first, 0).await, 0, at(20)).await;
    for project in [&first, &second, &third] {
        ask(store, project, at(1)).await;
    }

    let claimed = take(store, 9, at(1)).await;

    assert_eq!(names(&claimed), ["c"]);
    assert_eq!(claimed.deferred.len(), 2);
    assert!(claimed.deferred.iter().all(|(_, until)| *until == at(20)));
    store.release(&claimed.claims[0].lease).await.unwrap();
    store.remove_project(&third).await.unwrap();
    take_one(store, 20).await;
}

pub(crate) async fn what_one_project_spends_another_with_its_key_lacks(store: &dyn Store) {
    let spender = add_with_key(store, "a", "shared").await;
    let other = add_with_key(store, "b", "shared").await;
    settle(store, &other, -1).await;
    spend(store, &spender, 0, left(40)).await;
    store.pause(&spender, at(0)).await.unwrap();
    ask(store, &other, at(1)).await;
    let claimed = take(store, 9, at(1)).await;
    assert!(names(&claimed).is_empty());
    assert_eq!(claimed.deferred[0].0, other);
}

pub(crate) async fn requests_count_though_no_answer_told_of_the_budget(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let claim = acquire(store, &acme, 0).await;
    let run = Run {
        cost: Cost {
            requests: 3_000,
            ..Cost::default()
        },
        ..run_for(&claim, 0)
    };
    let again = Aftermath {
        retry_at: Some(at(1)),
        ..aftermath()
    };
    end(store, &claim, &run, &again).await;

    let claimed = take(store, 9, at(1)).await;
    assert!(names(&claimed).is_empty(), "{claimed:?}");
    assert_eq!(claimed.deferred.len(), 1);
    // On demand there is enough.
    ask(store, &acme, at(2)).await;
    assert_eq!(names(&take(store, 9, at(2)).await), ["acme"]);
}

pub(crate) async fn a_key_is_forgotten_with_its_last_project(store: &dyn Store) {
    let first = add_with_key(store, "a", "shared").await;
    let second = add_with_key(store, "b", "shared").await;
    settle(store, &second, -1).await;
    block(store, &acquire(store, &first, 0).await, 0, at(20)).await;

    store.remove_project(&first).await.unwrap();
    ask(store, &second, at(1)).await;
    assert_eq!(take(store, 9, at(1)).await.deferred.len(), 1);

    store.remove_project(&second).await.unwrap();
    add_with_key(store, "c", "shared").await;
    assert_eq!(names(&take(store, 9, at(1)).await), ["c"]);
}

pub(crate) async fn another_key_begins_anew_and_the_same_goes_on(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    block(store, &acquire(store, &acme, 0).await, 0, at(20)).await;
    let project = store.load_project(&acme).await.unwrap();
    let replace = async |key_id: &str| {
        let key = catalog_sync::project::SealedKey {
            key_id: key_id.to_owned(),
            ..key_of(&project)
        };
        store
            .replace_key(&acme, &project.app, &key, at(1))
            .await
            .unwrap();
    };
    replace(&project.key_id).await;
    assert_eq!(take(store, 9, at(1)).await.deferred.len(), 1);
    replace("ANOTHER").await;
    let claim = take_one(store, 1).await;
    assert_eq!(claim.key.key_id, "ANOTHER");
    store.release(&claim.lease).await.unwrap();
    // The old one was nobody's any more.
    replace(&project.key_id).await;
    take_one(store, 1).await;
}

pub(crate) async fn a_stale_commit_spends_nothing(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    ask(store, &acme, at(0)).await;
    let stale = take_one(store, 0).await;
    let takeover = take_one(store, 1).await;
    let run = Run {
        resume_at: Some(at(20)),
        ..run_for(&stale, 1)
    };
    store
        .commit(
            &stale.lease,
            &catalog_sync::catalog::Plan::nothing(),
            &run,
            &aftermath(),
        )
        .await
        .unwrap_err();
    store.release(&takeover.lease).await.unwrap();
    take_one(store, 1).await;
}
