//! What is held, what is noted of what was not listed, and what is told once.

use catalog_sync::{
    catalog::{Absence, Answer, Digest, Entry, Hold, Kind, Plan, Source, Unforeseen},
    run::{HoldEnd, Outcome, Run},
    store::{Aftermath, Ended, Error, HoldTurn, Old, Removed, Seen, Store},
};

use super::{
    commits::hold,
    prune::{day, prune_all},
    sample::{
        absent_plan, add, aftermath, at, claim, coins, grace_period, history, id, product_key, run,
        snapshot, sync,
    },
};

/// Commits a run that does so with what was held.
async fn turns(store: &dyn Store, minute: i64, ended: Option<HoldEnd>, begun: Option<Hold>) {
    let acme = id("acme");
    let nothing = Plan::nothing();
    let lease = claim(store, &acme, minute).await;
    let run = Run {
        outcome: begun.as_ref().map_or(Outcome::Succeeded, |_| Outcome::Held),
        hold: begun.as_ref().map(Hold::summary),
        ..run(&nothing, minute)
    };
    let after = Aftermath {
        hold: HoldTurn {
            ended,
            begun,
            is_told: false,
        },
        ..aftermath()
    };
    store.commit(&lease, &nothing, &run, &after).await.unwrap();
}

/// Another hold than [`hold`].
fn less() -> Hold {
    Hold {
        digest: Digest::from("ba9876543210"),
        removals: hold().removals.into_iter().take(1).collect(),
        ..hold()
    }
}

pub(crate) async fn a_hold_stands_until_it_ends(store: &dyn Store) {
    let acme = add(store, "acme").await;
    turns(store, 0, None, Some(hold())).await;
    for minute in 0..2 {
        assert_eq!(store.load_state(&acme).await.unwrap().hold, Some(hold()));
        let status = store.read_status(&acme).await.unwrap();
        assert_eq!(status.hold, Some(hold().summary()));
        assert_eq!(status.held_since, Some(at(0)));
        let claim = store
            .acquire(&acme, super::sample::TTL, at(minute))
            .await
            .unwrap();
        assert_eq!(claim.state.hold, Some(hold()), "a run begins with it");
        store.release(&claim.lease).await.unwrap();
        // A run that leaves it as it is.
        turns(store, minute, None, None).await;
    }
    turns(store, 2, Some(HoldEnd::Replaced), Some(less())).await;
    assert_eq!(store.load_state(&acme).await.unwrap().hold, Some(less()));
    let status = store.read_status(&acme).await.unwrap();
    assert_eq!(
        status.held_since,
        Some(at(0)),
        "something is held since then"
    );
    turns(store, 3, Some(HoldEnd::Lapsed), None).await;
    assert_eq!(store.load_state(&acme).await.unwrap().hold, None);
    let status = store.read_status(&acme).await.unwrap();
    assert_eq!((status.hold, status.held_since), (None, None));
}

pub(crate) async fn what_was_begun_by_hand_is_told_once_more(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let is_untold = async || store.load_state(&acme).await.unwrap().hold_is_untold;
    assert!(!is_untold().await);
    for (minute, begun, is_told) in [(0, Some(hold()), false), (1, None, false), (2, None, true)] {
        let nothing = Plan::nothing();
        let lease = claim(store, &acme, minute).await;
        let after = Aftermath {
            hold: HoldTurn {
                ended: None,
                begun,
                is_told,
            },
            ..aftermath()
        };
        let run = run(&nothing, minute);
        store.commit(&lease, &nothing, &run, &after).await.unwrap();
        assert_eq!(is_untold().await, !is_told, "{minute}");
        assert_eq!(store.load_state(&acme).await.unwrap().hold, Some(hold()));
    }
}

pub(crate) async fn thousands_that_vanish_are_noted_in_a_few_steps(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let many: Vec<_> = (0..3000).map(|id| coins(&id.to_string())).collect();
    sync(store, &acme, 0, many).await;
    let before = store.load_catalog(&acme).await.unwrap();
    let plan = absent_plan(&before, &snapshot([]), 5);
    let lease = claim(store, &acme, 5).await;
    // Looked through once for each of the others, they would take longer than a call may.
    let committed = store
        .commit(&lease, &plan, &run(&plan, 5), &aftermath())
        .await;
    assert_eq!(committed.unwrap().rows, 3000);
}

pub(crate) async fn holds_are_kept_with_how_they_ended(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let beta = add(store, "beta").await;
    assert!(
        store
            .read_holds(None, Ended::Included)
            .await
            .unwrap()
            .is_empty()
    );
    turns(store, 0, None, Some(hold())).await;
    turns(store, 1, Some(HoldEnd::Approved), Some(less())).await;
    let all = store
        .read_holds(Some(&acme), Ended::Included)
        .await
        .unwrap();
    let told: Vec<_> = all
        .iter()
        .map(|held| (held.hold(), held.held_at, held.ended, held.ended_at))
        .collect();
    assert_eq!(
        told,
        [
            (less(), at(1), None, None),
            (hold(), at(0), Some(HoldEnd::Approved), Some(at(1)))
        ]
    );
    assert_eq!(all[1].reason, hold().to_string());
    assert_eq!(all[1].ended_run_id, all[0].run_id);
    assert!(all[0].run_id.is_some() && all[0].ended_run_id.is_none());
    assert_eq!(all[0].project_id, acme);

    let standing = store.read_holds(None, Ended::LeftOut).await.unwrap();
    assert_eq!(standing, all[..1]);
    assert!(
        store
            .read_holds(Some(&beta), Ended::Included)
            .await
            .unwrap()
            .is_empty()
    );
    let unknown = store.read_holds(Some(&id("nobody")), Ended::LeftOut).await;
    assert!(matches!(unknown, Err(Error::UnknownProject { .. })));
}

pub(crate) async fn what_is_noted_is_no_change(store: &dyn Store) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1"), coins("2"), grace_period()]).await;
    let before = store.load_catalog(&acme).await.unwrap();
    let log = history(store, &acme).await;

    let plan = absent_plan(&before, &snapshot([coins("2"), grace_period()]), 5);
    let noted = plan.absent_after(&before);
    let absence = Absence {
        since: at(5),
        seen_at: Some(at(0)),
        answer: Some(Answer::There),
        kept_at: None,
    };
    assert_eq!(noted, [(product_key("1"), absence)].into());
    let lease = claim(store, &acme, 5).await;
    let recorded = Run {
        missing: 1,
        ..run(&plan, 5)
    };
    let committed = store
        .commit(&lease, &plan, &recorded, &aftermath())
        .await
        .unwrap();
    assert_eq!((committed.revision, committed.rows), (1, 1));

    let after = store.load_catalog(&acme).await.unwrap();
    assert_eq!((after.absent, after.present), (noted, before.present));
    assert_eq!(history(store, &acme).await, log);
    let shelf = store.read_shelf(&acme, Removed::LeftOut).await.unwrap();
    let missing: Vec<_> = shelf.products.iter().map(|it| it.missing_since).collect();
    assert_eq!(missing, [Some(at(5)), None]);
    assert_eq!(store.read_status(&acme).await.unwrap().missing, 1);
    assert_eq!(store.read_runs(&acme, 1).await.unwrap()[0].run.missing, 1);

    // It is listed again.
    sync(store, &acme, 6, [coins("1"), coins("2"), grace_period()]).await;
    assert!(store.load_catalog(&acme).await.unwrap().absent.is_empty());
    assert_eq!(store.read_status(&acme).await.unwrap().missing, 0);
}

pub(crate) async fn a_change_tells_when_what_was_before_was_last_seen(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let seen = async |minute, entries: Vec<Entry>| {
        let catalog = store.load_catalog(&acme).await.unwrap();
        let covered_before = store.load_state(&acme).await.unwrap().covered_at;
        let plan = super::sample::plan(&catalog, &snapshot(entries));
        let lease = claim(store, &acme, minute).await;
        let after = Aftermath {
            covered_before,
            ..aftermath()
        };
        store
            .commit(&lease, &plan, &run(&plan, minute), &after)
            .await
            .unwrap();
    };
    let shorter = grace_period().with("duration", "THREE_DAYS");
    seen(0, vec![coins("1"), coins("2"), grace_period()]).await;
    seen(10, vec![coins("1"), coins("2"), grace_period()]).await;
    // One is not listed, which is noted; then it goes.
    let catalog = store.load_catalog(&acme).await.unwrap();
    let plan = absent_plan(&catalog, &snapshot([coins("1"), grace_period()]), 20);
    let lease = claim(store, &acme, 20).await;
    store
        .commit(&lease, &plan, &run(&plan, 20), &aftermath())
        .await
        .unwrap();
    seen(30, vec![coins("1"), shorter.clone()]).await;
    seen(40, vec![coins("1"), coins("2"), shorter]).await;

    let log = history(store, &acme).await;
    let told: Vec<_> = log
        .iter()
        .rev()
        .map(|it| (it.op.as_str(), it.kind.as_str(), it.before_seen_at))
        .collect();
    assert_eq!(
        told,
        [
            ("added", "in_app_purchase", None),
            ("added", "in_app_purchase", None),
            ("added", "grace_period", None),
            ("removed", "in_app_purchase", Some(at(0))),
            ("updated", "grace_period", Some(at(20))),
            ("restored", "in_app_purchase", None),
        ]
    );
}

pub(crate) async fn a_discarded_hold_keeps_its_things_and_can_be_taken_back(store: &dyn Store) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1"), coins("2")]).await;
    let held = Hold {
        removals: less().removals,
        ..hold()
    };
    turns(store, 1, None, Some(held.clone())).await;

    let lease = claim(store, &acme, 2).await;
    let wrong = store.discard(&lease, &"000000000000".into(), at(2)).await;
    assert_eq!(wrong.unwrap(), None);
    assert_eq!(
        store.load_state(&acme).await.unwrap().hold,
        Some(held.clone())
    );

    let lease = claim(store, &acme, 3).await;
    let discarded = store.discard(&lease, &held.digest, at(3)).await.unwrap();
    assert_eq!(discarded, Some(held.clone()));
    let state = store.load_state(&acme).await.unwrap();
    assert_eq!((state.hold, state.revision), (None, 1));
    let catalog = store.load_catalog(&acme).await.unwrap();
    assert_eq!(catalog.absent.len(), 1);
    assert_eq!(catalog.absent[&product_key("1")].kept_at, Some(at(3)));
    let kept = store.read_shelf(&acme, Removed::LeftOut).await.unwrap();
    assert_eq!(kept.products[0].kept_since, Some(at(3)));
    let ended = store
        .read_holds(Some(&acme), Ended::Included)
        .await
        .unwrap();
    assert_eq!(ended[0].ended, Some(HoldEnd::Discarded));
    assert_eq!(ended[0].ended_at, Some(at(3)));

    // The lease went back with it, and a refused one decides nothing.
    let refused = store.discard(&lease, &held.digest, at(4)).await;
    assert!(
        matches!(refused, Err(Error::LeaseLost { .. })),
        "{refused:?}"
    );
    let refused = store.reopen(&lease, &held.digest).await;
    assert!(
        matches!(refused, Err(Error::LeaseLost { .. })),
        "{refused:?}"
    );

    let lease = claim(store, &acme, 5).await;
    assert!(!store.reopen(&lease, &"000000000000".into()).await.unwrap());
    let lease = claim(store, &acme, 5).await;
    assert!(store.reopen(&lease, &held.digest).await.unwrap());
    assert_eq!(
        store.load_state(&acme).await.unwrap().hold,
        Some(held.clone())
    );
    let catalog = store.load_catalog(&acme).await.unwrap();
    assert_eq!(catalog.absent[&product_key("1")].kept_at, None);
    // Both stand in the record: that it was kept, and that it is held again.
    let all = store
        .read_holds(Some(&acme), Ended::Included)
        .await
        .unwrap();
    let ends: Vec<_> = all.iter().map(|hold| hold.ended).collect();
    assert_eq!(ends, [None, Some(HoldEnd::Discarded)]);
    // One stands: nothing else is taken back.
    let lease = claim(store, &acme, 6).await;
    assert!(!store.reopen(&lease, &held.digest).await.unwrap());
    turns(store, 7, Some(HoldEnd::Approved), None).await;
    let lease = claim(store, &acme, 8).await;
    let approved = store.reopen(&lease, &held.digest).await.unwrap();
    assert!(!approved, "what was approved is gone");
}

pub(crate) async fn a_discarded_hold_stays_while_it_can_be_taken_back(store: &dyn Store) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1"), coins("2")]).await;
    turns(store, 1, None, Some(hold())).await;
    turns(store, 2, Some(HoldEnd::Lapsed), Some(less())).await;
    let lease = claim(store, &acme, 3).await;
    let discarded = store.discard(&lease, &less().digest, at(3)).await.unwrap();
    assert!(discarded.is_some());
    let all = async || {
        let holds = store.read_holds(Some(&acme), Ended::Included).await;
        holds.unwrap().len()
    };
    for (deleted, left) in [(1, 1), (0, 1)] {
        assert_eq!(prune_all(store, Old::Holds, day(99)).await, deleted);
        assert_eq!(all().await, left);
    }
    let lease = claim(store, &acme, 4).await;
    assert!(store.reopen(&lease, &less().digest).await.unwrap());
    // What was decided is over; what is held anew stands.
    assert_eq!(prune_all(store, Old::Holds, day(99)).await, 1);
    assert_eq!(all().await, 1);

    // What was kept is there again.
    let lease = claim(store, &acme, 5).await;
    store.discard(&lease, &less().digest, at(5)).await.unwrap();
    assert_eq!(prune_all(store, Old::Holds, day(99)).await, 0);
    let there = [coins("1").with("name", "New"), coins("2")];
    sync(store, &acme, 6, there).await;
    assert_eq!(prune_all(store, Old::Holds, day(99)).await, 1);
    assert_eq!(all().await, 0);
}

pub(crate) async fn deciding_leaves_what_was_asked_for_to_be_done(store: &dyn Store) {
    let acme = add(store, "acme").await;
    turns(store, 0, None, Some(hold())).await;
    super::sample::ask(store, &acme, at(1)).await;
    let lease = claim(store, &acme, 2).await;
    store.discard(&lease, &hold().digest, at(2)).await.unwrap();
    let status = store.read_status(&acme).await.unwrap();
    assert!(status.pending.is_some() && status.leased_until.is_none());
}

pub(crate) async fn what_is_not_known_is_new_once_in_all_projects(store: &dyn Store) {
    let seen = |attribute: &str, value: Option<&str>| Seen {
        what: Unforeseen {
            kind: Kind::Subscription,
            attribute: attribute.to_owned(),
            value: value.map(str::to_owned),
        },
        store_id: "7".to_owned(),
    };
    let long = "x".repeat(1000);
    let first = vec![seen("colour", None), seen("state", Some("\"NEW\""))];
    let more = vec![
        seen("colour", None),
        seen("state", Some("\"NEW\"")),
        seen("state", Some("\"NEWER\"")),
        seen("state", Some(&long)),
    ];
    let mut told = Vec::new();
    for (project, minute, unforeseen) in [
        ("acme", 0, first.clone()),
        ("acme", 1, first),
        ("beta", 2, more),
        ("beta", 3, Vec::new()),
    ] {
        let project = if minute % 2 == 0 {
            add(store, project).await
        } else {
            id(project)
        };
        let nothing = Plan::nothing();
        let lease = claim(store, &project, minute).await;
        let after = Aftermath {
            unforeseen,
            ..aftermath()
        };
        let committed = store
            .commit(&lease, &nothing, &run(&nothing, minute), &after)
            .await
            .unwrap();
        let mut new: Vec<_> = committed
            .unforeseen
            .into_iter()
            .map(|what| (what.attribute, what.value))
            .collect();
        new.sort();
        told.push(new);
    }
    let of =
        |attribute: &str, value: Option<&str>| (attribute.to_owned(), value.map(str::to_owned));
    assert_eq!(told[0], [of("colour", None), of("state", Some("\"NEW\""))]);
    assert!(told[1].is_empty() && told[3].is_empty());
    assert_eq!(
        told[2],
        [
            of("state", Some("\"NEWER\"")),
            of("state", Some(&long[..200]))
        ]
    );
}

pub(crate) async fn of_what_each_kind_was_listed_comes_back(store: &dyn Store) {
    let acme = add(store, "acme").await;
    assert!(
        store
            .load_state(&acme)
            .await
            .unwrap()
            .listed_with
            .is_empty()
    );
    let source = |key: &str| Source {
        app: "6446901002".to_owned(),
        key: key.to_owned(),
        read: "/v1/x".to_owned(),
    };
    let nothing = Plan::nothing();
    for (minute, kind, key) in [
        (0, Kind::InAppPurchase, "A"),
        (1, Kind::Subscription, "A"),
        (2, Kind::InAppPurchase, "B"),
    ] {
        let lease = claim(store, &acme, minute).await;
        let after = Aftermath {
            listed_with: [(kind, source(key))].into(),
            ..aftermath()
        };
        store
            .commit(&lease, &nothing, &run(&nothing, minute), &after)
            .await
            .unwrap();
    }
    let state = store.load_state(&acme).await.unwrap();
    assert_eq!(
        state.listed_with,
        [
            (Kind::InAppPurchase, source("B")),
            (Kind::Subscription, source("A"))
        ]
        .into()
    );
    assert_eq!(state.covered_at[&Kind::InAppPurchase], at(2));
}
