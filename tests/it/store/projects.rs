//! The life of a project and its key.

use catalog_sync::{
    catalog::{Catalog, Kind, OwnLimits, Plan},
    project::{App, Project, SealedKey},
    run::KeyHealth,
    store::{Aftermath, Error, HistoryFilter, Removed, Store},
};

use super::sample::{
    TTL, add, aftermath, at, claim, coins, everything, id, key_of, project, run, sync,
};

pub(crate) async fn a_project_comes_back_as_it_was_added(store: &dyn Store) {
    let mut individual = project("acme");
    individual.issuer_id = None;
    individual.paused_at = Some(at(0));
    individual.guard.removed_max = Some(7);
    let key = key_of(&individual);
    store.add_project(&individual, &key).await.unwrap();

    let acme = &individual.id;
    assert_eq!(store.load_project(acme).await.unwrap(), individual);
    assert_eq!(store.load_key(acme).await.unwrap(), key);
}

pub(crate) async fn a_new_project_has_nothing_yet(store: &dyn Store) {
    let acme = add(store, "acme").await;

    let all = everything(store, &acme).await;
    assert_eq!(all.state.revision, 0);
    // It was verified before it was added.
    assert_eq!(
        all.state.key_health,
        KeyHealth::worked(all.project.created_at)
    );
    assert_eq!(all.state.hold, None);
    assert_eq!(all.catalog, Catalog::default());
    assert_eq!(
        (all.shelf.products.len(), all.shelf.grace_period),
        (0, None)
    );
    assert_eq!((all.history.len(), all.runs.len()), (0, 0));
    assert_eq!(all.status.project, all.project);
    assert_eq!(all.status.last_attempt_at, None);
    assert_eq!(all.status.outcome, None);
    assert_eq!(all.status.present, Kind::ALL.map(|kind| (kind, 0)).into());
    assert_eq!(all.status.covered_at, [].into());
    assert_eq!(all.status.leased_until, None);
}

pub(crate) async fn projects_are_listed_by_id(store: &dyn Store) {
    assert_eq!(store.list_projects().await.unwrap(), []);
    for name in ["b", "a", "a-1", "B", "a.1", "a_1"] {
        add(store, name).await;
    }
    let listed = store.list_projects().await.unwrap();
    let expected = ["B", "a", "a-1", "a.1", "a_1", "b"].map(project);
    assert_eq!(listed, expected);
}

pub(crate) async fn an_id_that_is_taken_is_refused_and_changes_nothing(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let before = everything(store, &acme).await;

    let mut other = project("acme");
    other.app.bundle_id = "com.example.other".to_owned();
    other.key_id = "OTHERKEY00".to_owned();
    let refused = store.add_project(&other, &key_of(&other)).await;

    assert!(matches!(refused, Err(Error::ProjectExists(taken)) if taken == acme));
    assert_eq!(everything(store, &acme).await, before);
}

pub(crate) async fn an_unknown_project_is_an_error_of_every_method(store: &dyn Store) {
    let ghost = id("ghost");
    let sealed = key_of(&project("ghost"));
    let app = project("ghost").app;
    let filter = HistoryFilter::default();
    let answers = [
        store.load_project(&ghost).await.err(),
        store.load_key(&ghost).await.err(),
        store.replace_key(&ghost, &app, &sealed, at(0)).await.err(),
        store.pause(&ghost, at(0)).await.err(),
        store.resume(&ghost, at(0)).await.err(),
        store.set_guard(&ghost, &OwnLimits::default()).await.err(),
        store.remove_project(&ghost).await.err(),
        store.acquire(&ghost, TTL, at(0)).await.err(),
        store.load_state(&ghost).await.err(),
        store.load_catalog(&ghost).await.err(),
        store.read_shelf(&ghost, Removed::Included).await.err(),
        store.read_shelf_at(&ghost, at(0)).await.err(),
        store.read_grace_periods(&ghost).await.err(),
        store.read_log(&ghost, 0, 1).await.err(),
        store.load_log_end(&ghost).await.err(),
        store.read_history(&ghost, &filter).await.err(),
        store.read_runs(&ghost, 1).await.err(),
        store.read_status(&ghost).await.err(),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        assert!(
            matches!(&answer, Some(Error::UnknownProject { id, nearest: None }) if *id == ghost),
            "answer {number}: {answer:?}"
        );
    }
}

pub(crate) async fn the_nearest_name_is_offered(store: &dyn Store) {
    for name in ["acme-production", "zenith", "acme-staging"] {
        add(store, name).await;
    }
    let slip = store.load_project(&id("acme-prodution")).await.unwrap_err();
    assert_eq!(
        slip.to_string(),
        "there is no project 'acme-prodution'; did you mean 'acme-production'?"
    );
    let stranger = store.load_project(&id("quux")).await.unwrap_err();
    assert_eq!(stranger.to_string(), "there is no project 'quux'");
}

pub(crate) async fn a_replaced_key_begins_its_health_anew(store: &dyn Store) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1")]).await;
    let lease = claim(store, &acme, 1).await;
    let refused = Aftermath {
        key_health: KeyHealth {
            worked_at: Some(at(0)),
            refused_since: Some(at(1)),
            refusals: 3,
        },
        ..aftermath()
    };
    let nothing = Plan::nothing();
    store
        .commit(&lease, &nothing, &run(&nothing, 1), &refused)
        .await
        .unwrap();
    let before = everything(store, &acme).await;
    assert_eq!(before.state.key_health, refused.key_health);

    let app = App {
        id: "1".to_owned(),
        bundle_id: "com.example.renamed".to_owned(),
        name: "Renamed".to_owned(),
    };
    let key = SealedKey {
        key_id: "NEWKEY0000".to_owned(),
        issuer_id: None,
        master_key_id: "mk-2".to_owned(),
        sealed: vec![9; 300],
    };
    store.replace_key(&acme, &app, &key, at(2)).await.unwrap();

    let after = everything(store, &acme).await;
    assert_eq!(after.key, key);
    assert_eq!(after.project.app, app);
    assert_eq!(after.project.key_id, "NEWKEY0000");
    assert_eq!(after.project.issuer_id, None);
    assert_eq!(after.project.created_at, before.project.created_at);
    let anew = KeyHealth {
        worked_at: Some(at(2)),
        refused_since: None,
        refusals: 0,
    };
    assert_eq!(after.state.key_health, anew);
    assert_eq!(after.catalog, before.catalog);
    assert_eq!(after.runs, before.runs);
}

pub(crate) async fn projects_that_share_a_key_are_found(store: &dyn Store) {
    for name in ["c", "a", "b"] {
        add(store, name).await;
    }
    let mut own = project("own");
    own.key_id = "OWNKEY0000".to_owned();
    store.add_project(&own, &key_of(&own)).await.unwrap();

    let shared = &project("a").key_id;
    let others = store.list_sharing_key(&id("a"), shared).await.unwrap();
    assert_eq!(others, [id("b"), id("c")]);
    let others = store.list_sharing_key(&own.id, &own.key_id).await.unwrap();
    assert_eq!(others, []);
    let planned = id("not-added-yet");
    let others = store.list_sharing_key(&planned, shared).await.unwrap();
    assert_eq!(others, [id("a"), id("b"), id("c")]);
}

pub(crate) async fn pausing_a_paused_project_changes_nothing(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let paused_at = async || store.load_project(&acme).await.unwrap().paused_at;

    store.pause(&acme, at(1)).await.unwrap();
    store.pause(&acme, at(2)).await.unwrap();
    assert_eq!(paused_at().await, Some(at(1)));
    store.resume(&acme, at(2)).await.unwrap();
    store.resume(&acme, at(2)).await.unwrap();
    assert_eq!(paused_at().await, None);
    store.pause(&acme, at(3)).await.unwrap();
    assert_eq!(paused_at().await, Some(at(3)));
}

pub(crate) async fn limits_of_its_own_come_back_and_go(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let zenith = add(store, "zenith").await;
    let own = OwnLimits {
        removed_percent: Some(50),
        removed_max: Some(0),
        ..OwnLimits::default()
    };
    store.set_guard(&acme, &own).await.unwrap();

    let expected = Project {
        guard: own,
        ..project("acme")
    };
    assert_eq!(store.load_project(&acme).await.unwrap(), expected);
    assert_eq!(store.read_status(&acme).await.unwrap().project, expected);
    let claim = store.acquire(&acme, TTL, at(0)).await.unwrap();
    assert_eq!(claim.project, expected);
    assert_eq!(
        store.load_project(&zenith).await.unwrap(),
        project("zenith")
    );

    let other = OwnLimits {
        percent_from: Some(1),
        ..OwnLimits::default()
    };
    store.set_guard(&acme, &other).await.unwrap();
    assert_eq!(store.load_project(&acme).await.unwrap().guard, other);
    let none = OwnLimits::default();
    store.set_guard(&acme, &none).await.unwrap();
    assert_eq!(store.load_project(&acme).await.unwrap(), project("acme"));
}

pub(crate) async fn a_removed_project_leaves_nothing_and_others_stay(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let zenith = add(store, "zenith").await;
    sync(store, &acme, 0, [coins("1")]).await;
    sync(store, &zenith, 0, [coins("1"), coins("2")]).await;
    let others = everything(store, &zenith).await;

    store.remove_project(&acme).await.unwrap();

    assert!(store.load_project(&acme).await.is_err());
    assert_eq!(everything(store, &zenith).await, others);
    let acme = add(store, "acme").await;
    a_blank_slate(store, &acme).await;
}

async fn a_blank_slate(store: &dyn Store, id: &catalog_sync::project::ProjectId) {
    let all = everything(store, id).await;
    assert_eq!(all.catalog, Catalog::default());
    assert_eq!(all.history, []);
    assert_eq!(all.runs, []);
    assert_eq!(all.state.revision, 0);
}
