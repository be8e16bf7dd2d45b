//! Samples: projects, entries, plans, and runs that commit them.

use std::time::Duration;

use catalog_sync::{
    catalog::{
        Answer, Catalog, Change, Confirmation, Entry, Key, Kind, Limits, Op, OwnLimits, Plan,
        Snapshot, Standing, diff,
        guard::{self, Evidence, Review},
    },
    clock::Instant,
    diagnosis::{Code, Diagnosis},
    project::{App, Project, ProjectId, SealedKey},
    run::{Cost, Outcome, Run, Trigger},
    store::{
        Aftermath, Ask, Claim, Claimed, Committed, HistoryFilter, LastChance, Lease, LoggedChange,
        RecordedRun, Removed, Request, Shelf, State, Status, Store,
    },
};
use chrono::DateTime;
use uuid::Uuid;

pub(crate) const TTL: Duration = Duration::from_secs(30);

/// So many minutes into the story, with milliseconds.
pub(crate) fn at(minute: i64) -> Instant {
    DateTime::from_timestamp(1_800_000_000 + 60 * minute, 123_000_000).unwrap()
}

pub(crate) fn id(text: &str) -> ProjectId {
    text.parse().unwrap()
}

pub(crate) fn project(name: &str) -> Project {
    Project {
        id: id(name),
        app: App {
            id: "6446901002".to_owned(),
            bundle_id: format!("com.example.{name}"),
            name: format!("{name}'s app"),
        },
        key_id: "2X9R4HXF34".to_owned(),
        issuer_id: Some("57246542-96fe-1a63-e053-0824d011072a".to_owned()),
        cron: None,
        guard: OwnLimits::default(),
        paused_at: None,
        created_at: at(-10),
    }
}

pub(crate) fn key_of(project: &Project) -> SealedKey {
    SealedKey {
        key_id: project.key_id.clone(),
        issuer_id: project.issuer_id.clone(),
        master_key_id: "mk-1".to_owned(),
        sealed: vec![0, 1, 2, 0xff, 0, b'\''],
    }
}

pub(crate) async fn add(store: &dyn Store, name: &str) -> ProjectId {
    let project = project(name);
    store
        .add_project(&project, &key_of(&project))
        .await
        .unwrap();
    project.id
}

/// With the key of this id, not the one that samples share.
pub(crate) async fn add_with_key(store: &dyn Store, name: &str, key_id: &str) -> ProjectId {
    let project = Project {
        key_id: key_id.to_owned(),
        ..project(name)
    };
    store
        .add_project(&project, &key_of(&project))
        .await
        .unwrap();
    project.id
}

/// With a key of its own, and its first sync done: nothing waits.
pub(crate) async fn add_settled(store: &dyn Store, name: &str) -> ProjectId {
    let id = add_with_key(store, name, &format!("KEY-{name}")).await;
    settle(store, &id, -5).await;
    id
}

pub(crate) fn coins(store_id: &str) -> Entry {
    Entry::new(Kind::InAppPurchase, store_id)
        .with("productId", format!("com.example.coins{store_id}"))
        .with("name", "100 Coins")
        .with("inAppPurchaseType", "CONSUMABLE")
        .with("state", "APPROVED")
        .with("familySharable", false)
}

pub(crate) fn group(store_id: &str, name: &str) -> Entry {
    Entry::new(Kind::SubscriptionGroup, store_id).with("referenceName", name)
}

pub(crate) fn subscription(store_id: &str, group: &str) -> Entry {
    Entry::new(Kind::Subscription, store_id)
        .within(group)
        .with("productId", format!("com.example.sub{store_id}"))
        .with("name", "Monthly")
        .with("state", "READY_TO_SUBMIT")
        .with("subscriptionPeriod", "ONE_MONTH")
        .with("groupLevel", 1)
        .with("familySharable", true)
}

pub(crate) fn grace_period() -> Entry {
    Entry::new(Kind::GracePeriod, "6446901002")
        .with("optIn", true)
        .with("sandboxOptIn", false)
        .with("duration", "SIXTEEN_DAYS")
        .with("renewalType", "PAID_TO_PAID_ONLY")
}

/// All kinds, listed completely.
pub(crate) fn snapshot(entries: impl IntoIterator<Item = Entry>) -> Snapshot {
    let entries: Vec<Entry> = entries.into_iter().collect();
    let mut snapshot = Snapshot::new();
    for kind in Kind::ALL {
        let listed = entries.iter().filter(|entry| entry.key.kind == kind);
        snapshot.cover(kind, listed.cloned()).unwrap();
    }
    snapshot
}

/// What makes the catalog like the snapshot, nothing held.
pub(crate) fn plan(catalog: &Catalog, snapshot: &Snapshot) -> Plan {
    let review = |standing| reviewed(catalog, snapshot, Answer::Gone, 0, standing);
    match review(Standing::Nothing) {
        Review {
            hold: Some(hold), ..
        } => review(Standing::Approved(&hold)).plan,
        Review { plan, .. } => plan,
    }
}

/// The plan of a run at that minute which finds that whatever is not listed is there all the same.
pub(crate) fn absent_plan(catalog: &Catalog, snapshot: &Snapshot, minute: i64) -> Plan {
    reviewed(catalog, snapshot, Answer::There, minute, Standing::Nothing).plan
}

/// What the guard says when everything that is not listed gets this answer. All was last seen at minute 0.
fn reviewed(
    catalog: &Catalog,
    snapshot: &Snapshot,
    answer: Answer,
    minute: i64,
    standing: Standing<'_>,
) -> Review {
    let changes = diff(catalog, snapshot);
    let is_removal = |change: &&Change| change.op() == Op::Removed;
    let answers = changes
        .iter()
        .filter(is_removal)
        .map(|change| (change.key().clone(), answer))
        .collect();
    let evidence = Evidence {
        looked_at: snapshot.covers(),
        seen_at: &Kind::ALL.map(|kind| (kind, at(0))).into(),
        answers: &answers,
        turns: &[].into(),
        confirmation: Confirmation::default(),
        now: at(minute),
    };
    guard::review(changes, catalog, &evidence, &Limits::default(), standing)
}

pub(crate) fn product_key(store_id: &str) -> Key {
    coins(store_id).key
}

/// A run that covered everything and ended well.
pub(crate) fn run(plan: &Plan, minute: i64) -> Run {
    Run {
        id: Uuid::now_v7(),
        trigger: Trigger::Schedule,
        requested_at: None,
        slot_at: None,
        started_at: at(minute) - Duration::from_millis(1234),
        finished_at: at(minute),
        outcome: Outcome::Succeeded,
        covered: Kind::ALL.into(),
        listed: Kind::ALL.map(|kind| (kind, 3)).into(),
        failures: [].into(),
        error: None,
        counts: plan.changes().counts(),
        resume_at: None,
        hold: None,
        missing: 0,
        cost: Cost {
            requests: 5,
            retries: 1,
            throttled: 0,
            bytes: 12_345,
            budget_left: Some(3_499),
        },
    }
}

pub(crate) fn aftermath() -> Aftermath {
    Aftermath::default()
}

pub(crate) fn refusal() -> Diagnosis {
    Diagnosis {
        endpoint: Some("/v1/apps/6446901002/inAppPurchasesV2".to_owned()),
        apple_error_id: Some("3a1f \"quoted\"".to_owned()),
        ..Diagnosis::new(
            Code::RoleTooLow,
            "The key's role may not read in-app purchases.",
        )
    }
}

pub(crate) async fn claim(store: &dyn Store, id: &ProjectId, minute: i64) -> Lease {
    store.acquire(id, TTL, at(minute)).await.unwrap().lease
}

/// Answers what was asked for so far.
pub(crate) async fn settle(store: &dyn Store, id: &ProjectId, minute: i64) {
    let claim = store.acquire(id, TTL, at(minute)).await.unwrap();
    finish(store, &claim, minute).await;
}

/// Gives the ticket.
pub(crate) async fn ask(store: &dyn Store, id: &ProjectId, now: Instant) -> i64 {
    let ask = Ask {
        project: id.clone(),
        reason: None,
    };
    store.ask(&[ask], now).await.unwrap().tickets[id]
}

pub(crate) async fn take(store: &dyn Store, most: u32, now: Instant) -> Claimed {
    store.claim(most, LastChance::One, TTL, now).await.unwrap()
}

/// The only project that there is to claim.
pub(crate) async fn take_one(store: &dyn Store, minute: i64) -> Claim {
    let mut claims = take(store, 9, at(minute)).await.claims;
    assert_eq!(claims.len(), 1, "{claims:?}");
    claims.remove(0)
}

pub(crate) fn names(claimed: &Claimed) -> Vec<&str> {
    let names = claimed.claims.iter();
    names.map(|claim| claim.project.id.as_str()).collect()
}

/// Ends the claim's run well, with nothing changed.
pub(crate) async fn finish(store: &dyn Store, claim: &Claim, minute: i64) {
    end(store, claim, &run_for(claim, minute), &aftermath()).await;
}

/// Ends the claim's run so that it is to be repeated.
pub(crate) async fn fail(store: &dyn Store, claim: &Claim, minute: i64, retry_at: Instant) {
    let failed = Run {
        outcome: Outcome::Failed,
        ..run_for(claim, minute)
    };
    let aftermath = Aftermath {
        retry_at: Some(retry_at),
        ..aftermath()
    };
    end(store, claim, &failed, &aftermath).await;
}

pub(crate) async fn end(store: &dyn Store, claim: &Claim, run: &Run, aftermath: &Aftermath) {
    store
        .commit(&claim.lease, &Plan::nothing(), run, aftermath)
        .await
        .unwrap();
}

/// The record of a run that answers what the claim found.
pub(crate) fn run_for(claim: &Claim, minute: i64) -> Run {
    let request = claim.request.as_ref();
    Run {
        trigger: request.map_or(Trigger::Command, |request| request.trigger),
        requested_at: request.map(|request| request.requested_at),
        slot_at: request.and_then(|request| request.slot_at),
        ..run(&Plan::nothing(), minute)
    }
}

pub(crate) async fn pending(store: &dyn Store, id: &ProjectId) -> Option<Request> {
    store.read_status(id).await.unwrap().pending
}

/// A whole run: the catalog becomes these entries.
pub(crate) async fn sync(
    store: &dyn Store,
    id: &ProjectId,
    minute: i64,
    entries: impl IntoIterator<Item = Entry>,
) -> Committed {
    let catalog = store.load_catalog(id).await.unwrap();
    let plan = plan(&catalog, &snapshot(entries));
    let lease = claim(store, id, minute).await;
    store
        .commit(&lease, &plan, &run(&plan, minute), &aftermath())
        .await
        .unwrap()
}

/// Everything that a store says of a project.
#[derive(Debug, PartialEq)]
pub(crate) struct Everything {
    pub(crate) project: Project,
    pub(crate) key: SealedKey,
    pub(crate) state: State,
    pub(crate) catalog: Catalog,
    pub(crate) shelf: Shelf,
    pub(crate) history: Vec<LoggedChange>,
    pub(crate) runs: Vec<RecordedRun>,
    pub(crate) status: Status,
}

pub(crate) async fn everything(store: &dyn Store, id: &ProjectId) -> Everything {
    Everything {
        project: store.load_project(id).await.unwrap(),
        key: store.load_key(id).await.unwrap(),
        state: store.load_state(id).await.unwrap(),
        catalog: store.load_catalog(id).await.unwrap(),
        shelf: store.read_shelf(id, Removed::Included).await.unwrap(),
        history: history(store, id).await,
        runs: store.read_runs(id, u32::MAX).await.unwrap(),
        status: store.read_status(id).await.unwrap(),
    }
}

pub(crate) async fn history(store: &dyn Store, id: &ProjectId) -> Vec<LoggedChange> {
    store
        .read_history(id, &HistoryFilter::default())
        .await
        .unwrap()
}
