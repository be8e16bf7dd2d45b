//! What must hold of a catalog, its change log and what readers see.

use std::collections::{BTreeMap, BTreeSet};

use catalog_sync::{
    catalog::{Catalog, Entry, Key, Kind},
    project::ProjectId,
    simulator::App,
    store::{HistoryFilter, LoggedChange, Removed, Shelf, Store},
};

use crate::store::replay;

type Ids = BTreeSet<(Kind, String)>;

pub(crate) fn ids<'a>(keys: impl Iterator<Item = &'a Key>) -> Ids {
    keys.map(|key| (key.kind, key.store_id.to_string()))
        .collect()
}

/// The catalog, once the log and what readers see agree with it.
pub(crate) async fn consistent(
    store: &dyn Store,
    id: &ProjectId,
    app_id: &str,
) -> Result<Catalog, String> {
    let catalog = store.load_catalog(id).await.unwrap();
    let log = store.read_history(id, &HistoryFilter::default()).await;
    let log = log.unwrap();
    let revision = store.load_state(id).await.unwrap().revision;
    let revisions: BTreeSet<i64> = log.iter().map(|line| line.revision).collect();
    if !revisions.iter().copied().eq(1..=revision) {
        return Err(format!(
            "revision {revision}, and the log has {revisions:?}"
        ));
    }
    in_sequence(&log)?;
    if replay(log) != catalog.clone().logged() {
        return Err("the log, replayed from nothing, is not the catalog".to_owned());
    }

    let shelf = store.read_shelf(id, Removed::Included).await.unwrap();
    let (present, removed) = on_shelf(&shelf, app_id);
    for (shown, known) in [(present, &catalog.present), (removed, &catalog.removed)] {
        let known = ids(known.keys());
        if shown != known {
            return Err(format!(
                "readers see {shown:?}, and the catalog has {known:?}"
            ));
        }
    }
    Ok(catalog)
}

/// A thing is added once, removed and updated while it is present, and restored when it was removed.
fn in_sequence(log: &[LoggedChange]) -> Result<(), String> {
    let mut is_present = BTreeMap::new();
    for line in log.iter().rev() {
        let was = is_present.get(&(&line.kind, &line.store_id)).copied();
        let is = match (line.op.as_str(), was) {
            ("added", None) | ("restored", Some(false)) | ("updated", Some(true)) => true,
            ("removed", Some(true)) => false,
            (op, was) => {
                return Err(format!(
                    "{} {} was {op} when its presence was {was:?}",
                    line.kind, line.store_id
                ));
            }
        };
        is_present.insert((&line.kind, &line.store_id), is);
    }
    Ok(())
}

/// What readers see as present, and as removed.
fn on_shelf(shelf: &Shelf, app_id: &str) -> (Ids, Ids) {
    let products = shelf.products.iter().map(|it| {
        let kind = match it.kind.as_deref() {
            Some("auto_renewable_subscription") => Kind::Subscription,
            _ => Kind::InAppPurchase,
        };
        (it.removed_at, (kind, it.store_id.clone()))
    });
    let groups = shelf.subscription_groups.iter();
    let groups = groups.map(|it| {
        (
            it.removed_at,
            (Kind::SubscriptionGroup, it.store_id.clone()),
        )
    });
    let grace_period = shelf.grace_period.iter();
    let grace_period = grace_period.map(|_| (None, (Kind::GracePeriod, app_id.to_owned())));
    let (mut present, mut removed) = (Ids::new(), Ids::new());
    for (removed_at, id) in products.chain(groups).chain(grace_period) {
        match removed_at {
            None => present.insert(id),
            Some(_) => removed.insert(id),
        };
    }
    (present, removed)
}

/// What differs between what is present and what upstream has. All else that ever was is a tombstone: the log says so.
pub(crate) fn disagreement(catalog: &Catalog, app: &App) -> Option<String> {
    let present: BTreeMap<_, _> = catalog.present.values().map(features).collect();
    let upstream = of_app(app);
    (present != upstream)
        .then(|| format!("the catalog has {present:#?}, and upstream {upstream:#?}"))
}

/// What is compared of a thing: its group, its name, and its state or duration.
type Features = (Option<String>, Option<String>, Option<String>);

fn features(entry: &Entry) -> ((Kind, String), Features) {
    let text = |name| Some(entry.attributes.get(name)?.as_str()?.to_owned());
    let features = (
        entry.parent.as_ref().map(ToString::to_string),
        entry.name().map(str::to_owned),
        text("state").or(text("duration")),
    );
    ((entry.key.kind, entry.key.store_id.to_string()), features)
}

fn of_app(app: &App) -> BTreeMap<(Kind, String), Features> {
    let duration = app.grace_period.as_ref().and_then(|it| it.duration.clone());
    let grace_period = ((Kind::GracePeriod, app.id.clone()), (None, None, duration));
    let mut all = BTreeMap::from([grace_period]);
    for it in &app.in_app_purchases {
        let features = (None, Some(it.name.clone()), it.state.clone());
        all.insert((Kind::InAppPurchase, it.id.clone()), features);
    }
    for group in &app.subscription_groups {
        let features = (None, Some(group.reference_name.clone()), None);
        all.insert((Kind::SubscriptionGroup, group.id.clone()), features);
        for it in &group.subscriptions {
            let features = (
                Some(group.id.clone()),
                Some(it.name.clone()),
                it.state.clone(),
            );
            all.insert((Kind::Subscription, it.id.clone()), features);
        }
    }
    all
}
