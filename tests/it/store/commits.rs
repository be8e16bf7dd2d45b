//! Commits: what they write, and that they write it whole (I5).

use catalog_sync::{
    catalog::{Answer, Catalog, Digest, Entry, Held, Hold, Kind, Plan, Reason},
    diagnosis::{Code, Diagnosis},
    run::{Cost, KeyHealth, Outcome, Run, Trigger},
    store::{Aftermath, LoggedChange, RecordedRun, Removed, Store},
};
use serde_json::json;

use super::{
    WORKER,
    sample::{
        add, aftermath, at, claim, coins, everything, grace_period, group, history, plan, refusal,
        run, snapshot, subscription, sync,
    },
};

pub(crate) async fn every_op_is_written_and_logged(store: &dyn Store) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1"), coins("2")]).await;
    sync(store, &acme, 1, [coins("1")]).await;
    let dearer = coins("1").with("name", "Dearer");
    let committed = sync(store, &acme, 2, [dearer.clone(), coins("2"), coins("3")]).await;
    let last = sync(store, &acme, 3, [dearer.clone(), coins("2")]).await;

    assert_eq!((committed.revision, committed.rows), (3, 6));
    assert_eq!((last.revision, last.rows), (4, 2));
    let catalog = store.load_catalog(&acme).await.unwrap();
    assert_eq!(
        catalog.present.values().cloned().collect::<Vec<_>>(),
        [dearer.clone(), coins("2")]
    );
    assert_eq!(
        catalog.removed.values().cloned().collect::<Vec<_>>(),
        [coins("3")]
    );

    let mut log = history(store, &acme).await;
    log.reverse();
    let lines: Vec<_> = log
        .iter()
        .map(|line| (line.revision, line.op.as_str(), line.store_id.as_str()))
        .collect();
    assert_eq!(
        lines,
        [
            (1, "added", "1"),
            (1, "added", "2"),
            (2, "removed", "2"),
            (3, "updated", "1"),
            (3, "restored", "2"),
            (3, "added", "3"),
            (4, "removed", "3"),
        ]
    );
    assert!(log.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    let update = &log[3];
    let runs = store.read_runs(&acme, 2).await.unwrap();
    assert_eq!(update.run_id, runs[1].run.id);
    assert_eq!(update.at, at(2));
    assert_eq!(update.kind, "in_app_purchase");
    assert_eq!(update.product_id.as_deref(), Some("com.example.coins1"));
    let before = coins("1").attributes;
    assert_eq!(update.before, Some(json!({ "attributes": before })));
    assert_eq!(
        update.after,
        Some(json!({ "attributes": dearer.attributes }))
    );
    assert_eq!((&log[0].before, &log[6].after), (&None, &None));
}

pub(crate) async fn a_restored_entry_keeps_when_it_was_first_seen(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let times = async || {
        let shelf = store.read_shelf(&acme, Removed::Included).await.unwrap();
        let product = &shelf.products[0];
        (
            product.first_seen_at,
            product.updated_at,
            product.removed_at,
        )
    };
    sync(store, &acme, 0, [coins("1")]).await;
    assert_eq!(times().await, (at(0), at(0), None));
    sync(store, &acme, 1, []).await;
    assert_eq!(times().await, (at(0), at(1), Some(at(1))));
    sync(store, &acme, 2, [coins("1")]).await;
    assert_eq!(times().await, (at(0), at(2), None));
}

pub(crate) async fn revisions_rise_by_one_without_a_gap(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let mut expected = 0;
    for minute in 0..12 {
        let changes = minute % 3 != 2;
        let name = format!("name {}", minute - i64::from(!changes));
        expected += i64::from(changes);
        let committed = sync(store, &acme, minute, [coins("1").with("name", name)]).await;
        assert_eq!(committed.revision, expected);
    }
    let logged: Vec<i64> = history(store, &acme)
        .await
        .iter()
        .rev()
        .map(|line| line.revision)
        .collect();
    assert_eq!(logged, (1..=expected).collect::<Vec<_>>());
    assert_eq!(store.load_state(&acme).await.unwrap().revision, expected);
}

pub(crate) async fn replaying_the_log_from_nothing_gives_the_catalog(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let pro = group("7", "Pro");
    let mut monthly = subscription("8", "7");
    sync(store, &acme, 0, [coins("1"), pro.clone(), monthly.clone()]).await;
    sync(
        store,
        &acme,
        1,
        [pro.clone(), monthly.clone(), grace_period()],
    )
    .await;
    monthly.parent = Some("9".into());
    let plus = group("9", "Plus");
    sync(store, &acme, 2, [coins("1"), plus, monthly, grace_period()]).await;

    let replayed = replay(history(store, &acme).await);
    assert_eq!(replayed, store.load_catalog(&acme).await.unwrap());
    assert_eq!((replayed.present.len(), replayed.removed.len()), (4, 1));
}

/// The catalog that a log, newest line first, leads to.
pub(crate) fn replay(log: Vec<LoggedChange>) -> Catalog {
    let changes = log.into_iter().rev().map(|line| line.change().unwrap());
    catalog_sync::catalog::replay(changes)
}

pub(crate) fn hold() -> Hold {
    Hold {
        digest: Digest::from("0123456789ab"),
        reasons: vec![
            Reason::Percent {
                kind: Kind::InAppPurchase,
                removed: 4,
                present: 10,
                limit_percent: 30,
            },
            Reason::Descendants {
                kind: Kind::SubscriptionGroup,
                store_id: "7".into(),
                descendants: 11,
                limit: 10,
            },
        ],
        removals: vec![
            Held {
                key: coins("1").key,
                product_id: Some("com.example.coins1".to_owned()),
                name: Some("100 \"Coins\"".to_owned()),
                answer: Some(Answer::Gone),
                before: Some(coins("1").body()),
            },
            Held {
                key: group("7", "").key,
                product_id: None,
                name: None,
                answer: None,
                before: None,
            },
        ],
    }
}

pub(crate) async fn a_run_comes_back_as_it_was_recorded(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let plan = plan(
        &Catalog::default(),
        &snapshot([coins("1"), group("7", "P")]),
    );
    let whole = Run {
        trigger: Trigger::Request,
        requested_at: Some(at(-1)),
        slot_at: Some(at(-2)),
        outcome: Outcome::Partial,
        covered: [Kind::InAppPurchase, Kind::SubscriptionGroup].into(),
        listed: [(Kind::InAppPurchase, 1), (Kind::SubscriptionGroup, 1)].into(),
        failures: [
            (
                Kind::GracePeriod,
                Diagnosis::of(Code::GracePeriodUnreadable),
            ),
            (Kind::Subscription, refusal()),
        ]
        .into(),
        error: Some(refusal()),
        hold: Some(hold().summary()),
        missing: 3,
        cost: Cost {
            requests: u64::from(u32::MAX) + 1,
            retries: 2,
            throttled: 3,
            bytes: 1 << 40,
            budget_left: None,
        },
        ..run(&plan, 1)
    };
    let bare = Run {
        trigger: Trigger::Command,
        outcome: Outcome::Failed,
        covered: [].into(),
        listed: [].into(),
        error: Some(Diagnosis::of(Code::UpstreamUnavailable)),
        cost: Cost::default(),
        ..run(&Plan::nothing(), 2)
    };
    for (run, plan) in [(&whole, &plan), (&bare, &Plan::nothing())] {
        let lease = claim(store, &acme, 1).await;
        let committed = store.commit(&lease, plan, run, &aftermath()).await.unwrap();
        assert_eq!(committed.revision, 1);
        let recorded = RecordedRun {
            run: run.clone(),
            epoch: lease.epoch,
            revision: 1,
            worker: Some(WORKER.to_owned()),
        };
        assert_eq!(store.read_runs(&acme, 1).await.unwrap(), [recorded]);
    }
}

pub(crate) async fn runs_come_newest_first(store: &dyn Store) {
    let acme = add(store, "acme").await;
    // The clock is set back between the second run and the third.
    for minute in [5, 9, 7] {
        let name = format!("name {minute}");
        sync(store, &acme, minute, [coins("1").with("name", name)]).await;
    }
    let newest = |limit| async move {
        let runs = store.read_runs(&super::sample::id("acme"), limit).await;
        runs.unwrap()
            .iter()
            .map(|recorded| recorded.run.finished_at)
            .collect::<Vec<_>>()
    };
    assert_eq!(newest(10).await, [at(7), at(9), at(5)]);
    assert_eq!(newest(2).await, [at(7), at(9)]);
    assert_eq!(newest(0).await.len(), 0);
}

pub(crate) async fn the_key_health_comes_back(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let healths = [
        KeyHealth {
            worked_at: Some(at(0)),
            refused_since: Some(at(1)),
            refusals: u32::MAX,
        },
        KeyHealth::default(),
    ];
    for key_health in healths {
        let lease = claim(store, &acme, 1).await;
        let after = Aftermath {
            key_health,
            ..aftermath()
        };
        let nothing = Plan::nothing();
        store
            .commit(&lease, &nothing, &run(&nothing, 1), &after)
            .await
            .unwrap();
        let state = store.load_state(&acme).await.unwrap();
        assert_eq!(state.key_health, key_health);
    }
}

/// Commits a run that changes nothing and ends so.
async fn ends(store: &dyn Store, minute: i64, outcome: Outcome, covered: &[Kind]) {
    let acme = super::sample::id("acme");
    let lease = claim(store, &acme, minute).await;
    let run = Run {
        outcome,
        covered: covered.iter().copied().collect(),
        error: (outcome == Outcome::Failed).then(refusal),
        ..run(&Plan::nothing(), minute)
    };
    store
        .commit(&lease, &Plan::nothing(), &run, &aftermath())
        .await
        .unwrap();
}

pub(crate) async fn failures_in_a_row_are_counted(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let told = async || {
        let status = store.read_status(&acme).await.unwrap();
        (
            status.consecutive_failures,
            status.error,
            status.last_attempt_at,
            status.last_success_at,
        )
    };
    ends(store, 0, Outcome::Succeeded, &Kind::ALL).await;
    assert_eq!(told().await, (0, None, Some(at(0)), Some(at(0))));
    ends(store, 1, Outcome::Failed, &[]).await;
    ends(store, 2, Outcome::Failed, &[]).await;
    assert_eq!(told().await, (2, Some(refusal()), Some(at(2)), Some(at(0))));
    ends(store, 3, Outcome::Held, &Kind::ALL).await;
    assert_eq!(told().await, (0, None, Some(at(3)), Some(at(3))));
    ends(store, 4, Outcome::Failed, &[]).await;
    assert_eq!(told().await.0, 1);
}

pub(crate) async fn a_partial_run_keeps_the_last_success(store: &dyn Store) {
    let acme = add(store, "acme").await;
    ends(store, 0, Outcome::Succeeded, &Kind::ALL).await;
    ends(store, 1, Outcome::Failed, &[]).await;
    ends(store, 2, Outcome::Partial, &[Kind::InAppPurchase]).await;

    let status = store.read_status(&acme).await.unwrap();
    assert_eq!(status.outcome, Some(Outcome::Partial));
    assert_eq!(status.consecutive_failures, 0);
    assert_eq!(status.last_success_at, Some(at(0)));
    assert_eq!(status.last_attempt_at, Some(at(2)));
}

pub(crate) async fn what_was_covered_is_dated_kind_by_kind(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let dates = async || store.read_status(&acme).await.unwrap().covered_at;
    ends(
        store,
        0,
        Outcome::Partial,
        &[Kind::InAppPurchase, Kind::Subscription],
    )
    .await;
    ends(
        store,
        1,
        Outcome::Partial,
        &[Kind::Subscription, Kind::GracePeriod],
    )
    .await;
    let expected = [
        (Kind::InAppPurchase, at(0)),
        (Kind::Subscription, at(1)),
        (Kind::GracePeriod, at(1)),
    ];
    assert_eq!(dates().await, expected.into());
    ends(store, 2, Outcome::Failed, &[]).await;
    assert_eq!(dates().await, expected.into());
}

pub(crate) async fn odd_text_comes_back_as_it_was(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let texts = [
        "it's \"quoted\" \\ $1 ; drop table entries; --".to_owned(),
        "👩‍👩‍👧‍👦 𝕏 ﷽ مرحبا \u{200f}\u{feff}".to_owned(),
        "line\nbreak\ttab\r\u{1}\u{7f}\u{2028}".to_owned(),
        "{\"json\": [null]}".to_owned(),
        "null".to_owned(),
        String::new(),
        " ".to_owned(),
        "x".repeat(100_000),
    ];
    let entries = texts.iter().enumerate().map(|(number, text)| {
        coins(&number.to_string())
            .with("name", text.as_str())
            .with(
                "productId",
                format!("{number} {}", text.get(..4).unwrap_or("👩")),
            )
            .with(text.as_str(), "as a name too")
    });
    let entries: Vec<Entry> = entries.collect();
    sync(store, &acme, 0, entries.clone()).await;

    let catalog = store.load_catalog(&acme).await.unwrap();
    assert_eq!(catalog.present.into_values().collect::<Vec<_>>(), entries);
    let shelf = store.read_shelf(&acme, Removed::LeftOut).await.unwrap();
    for (product, text) in shelf.products.iter().zip(&texts) {
        assert_eq!(product.name.as_ref(), Some(text));
    }
    assert_eq!(
        replay(history(store, &acme).await).present.len(),
        texts.len()
    );
    assert_eq!(sync(store, &acme, 1, entries).await.rows, 0);
}

pub(crate) async fn odd_numbers_come_back_as_they_were(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let numbers = json!([
        0, -1, 1.0, 0.1, -0.5, 1e16, 1e-7, 1e300, 5e-324, 1.797_693_134_862_315_7e308,
        0.300_000_000_000_000_04, 2.225_073_858_507_201e-308,
        i64::MIN, i64::MAX, u64::MAX, 9_007_199_254_740_993_i64,
        [[], {}, [null, true, {"a": {"b": [1]}}]]
    ]);
    let entry = coins("1").with("numbers", numbers);
    sync(store, &acme, 0, [entry.clone()]).await;

    let catalog = store.load_catalog(&acme).await.unwrap();
    assert_eq!(
        catalog.present.into_values().collect::<Vec<_>>(),
        std::slice::from_ref(&entry)
    );
    assert_eq!(sync(store, &acme, 1, [entry]).await.rows, 0);
}

pub(crate) async fn projects_do_not_touch_each_other(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let zenith = add(store, "zenith").await;
    // The same ids in both.
    sync(
        store,
        &acme,
        0,
        [coins("1"), group("7", "A"), subscription("8", "7")],
    )
    .await;
    sync(
        store,
        &zenith,
        0,
        [coins("1"), group("7", "Z"), subscription("8", "7")],
    )
    .await;
    let before = everything(store, &acme).await;

    sync(store, &zenith, 1, [coins("1").with("name", "Z only")]).await;

    assert_eq!(everything(store, &acme).await, before);
    let shelf = store.read_shelf(&acme, Removed::LeftOut).await.unwrap();
    assert_eq!(shelf.products.len(), 2);
    assert_eq!(shelf.products[1].group_name.as_deref(), Some("A"));
}
