//! When what was before was last seen.

use catalog_sync::store::Store;
use serde_json::json;

use super::{
    raw::Raw,
    sample::{add, at, coins, grace_period, history, sync},
};

/// `at(minute)`, as SQL has it.
fn text(minute: u32) -> String {
    format!("2027-01-15T08:{minute:02}:00.123Z")
}

pub(crate) async fn a_line_tells_when_what_was_before_was_last_seen(
    store: &dyn Store,
    raw: &mut Raw,
) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1")]).await;
    sync(store, &acme, 9, []).await;
    raw.run("update changes set before_seen_at = null where op = 'added'")
        .await;
    let seen = text(7);
    raw.run(&format!(
        "update changes set before_seen_at = '{seen}' where op = 'removed'"
    ))
    .await;
    let lines = history(store, &acme).await;
    let seen: Vec<_> = lines.iter().map(|line| line.before_seen_at).collect();
    assert_eq!(seen, [Some(at(7)), None]);
    let log = store.read_log(&acme, 0, 9).await.unwrap();
    assert_eq!(log[1].before_seen_at, Some(at(7)));
}

pub(crate) async fn the_values_of_the_grace_period_come_in_order(store: &dyn Store, raw: &mut Raw) {
    let acme = add(store, "acme").await;
    assert_eq!(store.read_grace_periods(&acme).await.unwrap(), []);
    sync(store, &acme, 0, [grace_period()]).await;
    let odd = grace_period()
        .with("duration", "FORTY_DAYS")
        .with("renewalType", 7)
        .with("optIn", "true");
    sync(store, &acme, 20, [odd.clone(), coins("1")]).await;
    let seen = text(15);
    raw.run(&format!(
        "update changes set before_seen_at = '{seen}' where kind = 'grace_period' and op = 'updated'"
    ))
    .await;
    sync(store, &acme, 40, [odd.clone(), coins("1")]).await;

    let past = store.read_grace_periods(&acme).await.unwrap();
    let [first, second] = past.as_slice() else {
        panic!("{past:#?}")
    };
    assert_eq!(
        (first.project_id.as_str(), first.app_id.as_str()),
        ("acme", "6446901002")
    );
    assert_eq!(
        (first.opt_in, first.sandbox_opt_in, first.duration_days),
        (Some(true), Some(false), Some(16))
    );
    assert_eq!(first.renewal_type.as_deref(), Some("paid_to_paid_only"));
    assert_eq!(
        (first.first_seen_at, first.last_seen_at),
        (at(0), Some(at(15)))
    );
    assert_eq!(first.attributes, json!(grace_period().attributes));
    assert_eq!(
        (second.opt_in, second.sandbox_opt_in, second.duration_days),
        (None, Some(false), None)
    );
    assert_eq!(second.renewal_type, None);
    assert_eq!(
        (second.first_seen_at, second.last_seen_at),
        (at(20), Some(at(40)))
    );
    assert_eq!(second.attributes, json!(odd.attributes));
}
