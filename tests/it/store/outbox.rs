//! What brokers are yet to be told of: every change, in order, until they were.

use catalog_sync::{
    project::ProjectId,
    store::{SinkLease, Store, Untold},
};
use uuid::Uuid;

use super::sample::{TTL, add_with_key, at, coins, history, sync};

fn right_to(sink: &str) -> SinkLease {
    SinkLease {
        sink: sink.to_owned(),
        token: Uuid::now_v7(),
    }
}

async fn name(store: &dyn Store, sinks: &[&str]) {
    let forgotten = store.name_sinks(sinks, at(-60), at(-5)).await.unwrap();
    assert_eq!(forgotten, [""; 0]);
}

/// The right to tell, held for good.
pub(crate) async fn hold(store: &dyn Store, sink: &str) -> SinkLease {
    let right = right_to(sink);
    assert!(store.hold_sink(&right, TTL, at(0)).await.unwrap());
    right
}

pub(crate) async fn read(store: &dyn Store, sink: &str) -> Vec<Untold> {
    store.read_untold(sink, 1_000).await.unwrap()
}

/// As many products as that.
async fn grow(store: &dyn Store, project: &ProjectId, minute: i64, products: u32) {
    let entries = (0..products).map(|number| coins(&number.to_string()));
    sync(store, project, minute, entries).await;
}

async fn add(store: &dyn Store, name: &str) -> ProjectId {
    add_with_key(store, name, name).await
}

pub(crate) async fn nothing_is_kept_while_no_broker_is_named(store: &dyn Store) {
    let acme = add(store, "acme").await;
    grow(store, &acme, 0, 2).await;
    name(store, &["queue"]).await;
    assert_eq!(read(store, "queue").await, []);
    grow(store, &acme, 1, 3).await;
    let told: Vec<i64> = read(store, "queue")
        .await
        .iter()
        .map(|untold| untold.change.revision)
        .collect();
    assert_eq!(told, [2]);
}

pub(crate) async fn each_broker_is_told_for_itself(store: &dyn Store) {
    let acme = add(store, "acme").await;
    name(store, &["one", "two"]).await;
    grow(store, &acme, 0, 2).await;

    let untold = read(store, "one").await;
    let mut expected = history(store, &acme).await;
    expected.reverse();
    let changes: Vec<_> = untold.iter().map(|untold| untold.change.clone()).collect();
    assert_eq!(changes, expected);
    assert!(untold.iter().all(|untold| untold.project == acme));

    let right = hold(store, "one").await;
    assert!(store.told(&right, &untold).await.unwrap());
    assert_eq!(read(store, "one").await, []);
    assert_eq!(read(store, "two").await.len(), 2);
    assert_eq!(read(store, "three").await, []);
}

pub(crate) async fn a_commit_without_changes_tells_nothing(store: &dyn Store) {
    let acme = add(store, "acme").await;
    name(store, &["queue"]).await;
    grow(store, &acme, 0, 2).await;
    let before = read(store, "queue").await;
    grow(store, &acme, 1, 2).await;
    assert_eq!(read(store, "queue").await, before);
}

/// Tells all there is, some at a time, and gives what was told.
async fn tell_all(store: &dyn Store, sink: &str, most: u32) -> Vec<Untold> {
    let right = hold(store, sink).await;
    let mut told = Vec::new();
    loop {
        let untold = store.read_untold(sink, most).await.unwrap();
        assert!(untold.len() <= most as usize);
        if untold.is_empty() {
            return told;
        }
        assert!(store.told(&right, &untold).await.unwrap());
        told.extend(untold);
    }
}

pub(crate) async fn a_long_revision_is_told_in_parts(store: &dyn Store) {
    let acme = add(store, "acme").await;
    name(store, &["queue"]).await;
    grow(store, &acme, 0, 7).await;
    grow(store, &acme, 1, 8).await;
    let seqs: Vec<i64> = tell_all(store, "queue", 3)
        .await
        .iter()
        .map(|untold| untold.change.seq)
        .collect();
    let mut expected: Vec<i64> = history(store, &acme)
        .await
        .iter()
        .map(|change| change.seq)
        .collect();
    expected.reverse();
    assert_eq!(seqs, expected);
}

pub(crate) async fn projects_keep_their_order_beside_each_other(store: &dyn Store) {
    let (a, b) = (add(store, "a").await, add(store, "b").await);
    name(store, &["queue"]).await;
    for (minute, products) in (0..).zip([2, 5, 1, 4]) {
        grow(store, &a, minute, products).await;
        grow(store, &b, minute, products + 1).await;
    }
    let told = tell_all(store, "queue", 2).await;
    for project in [&a, &b] {
        let mut expected = history(store, project).await;
        expected.reverse();
        let of_project = told.iter().filter(|untold| untold.project == *project);
        let changes: Vec<_> = of_project.map(|untold| untold.change.clone()).collect();
        assert_eq!(changes, expected);
    }
}

pub(crate) async fn what_was_not_confirmed_is_read_again(store: &dyn Store) {
    let acme = add(store, "acme").await;
    name(store, &["queue"]).await;
    grow(store, &acme, 0, 4).await;
    let untold = read(store, "queue").await;
    assert_eq!(read(store, "queue").await, untold);
    let right = hold(store, "queue").await;
    assert!(store.told(&right, &untold[..1]).await.unwrap());
    assert_eq!(read(store, "queue").await, untold[1..]);
    // Told twice, as after a crash between the broker's word and ours.
    assert!(store.told(&right, &untold[1..3]).await.unwrap());
    assert!(store.told(&right, &untold[1..3]).await.unwrap());
    assert_eq!(read(store, "queue").await, untold[3..]);
}

pub(crate) async fn who_lost_the_right_to_tell_confirms_nothing(store: &dyn Store) {
    let acme = add(store, "acme").await;
    name(store, &["queue"]).await;
    grow(store, &acme, 0, 2).await;
    let untold = read(store, "queue").await;
    let lost = hold(store, "queue").await;
    let held = right_to("queue");
    assert!(store.hold_sink(&held, TTL, at(1)).await.unwrap());

    assert!(!store.told(&lost, &untold).await.unwrap());
    assert_eq!(read(store, "queue").await, untold);
    // Nor does it take the right from who has it now.
    store.release_sink(&lost).await.unwrap();
    assert!(store.told(&held, &untold).await.unwrap());
}

pub(crate) async fn one_at_a_time_has_the_right_to_tell(store: &dyn Store) {
    name(store, &["queue", "other"]).await;
    let (first, second) = (right_to("queue"), right_to("queue"));
    let holds =
        async |right: &SinkLease, minute| store.hold_sink(right, TTL, at(minute)).await.unwrap();
    assert!(holds(&first, 0).await);
    assert!(!holds(&second, 0).await);
    assert!(holds(&right_to("other"), 0).await);
    assert!(holds(&first, 0).await, "its holder lengthens it");
    assert!(holds(&second, 1).await, "it ran out");
    assert!(!holds(&first, 1).await);
    store.release_sink(&second).await.unwrap();
    assert!(holds(&first, 1).await);
    assert!(!holds(&right_to("nobody"), 1).await, "it was never named");
}

pub(crate) async fn a_broker_that_is_named_no_more_is_forgotten(store: &dyn Store) {
    let acme = add(store, "acme").await;
    store
        .name_sinks(&["stays", "goes"], at(-60), at(0))
        .await
        .unwrap();
    grow(store, &acme, 1, 1).await;
    // Not at once: a worker with an older configuration may still name it.
    let forgotten = store.name_sinks(&["stays"], at(0), at(10)).await.unwrap();
    assert_eq!(forgotten, [""; 0]);
    let forgotten = store.name_sinks(&["stays"], at(5), at(11)).await.unwrap();
    assert_eq!(forgotten, ["goes"]);

    grow(store, &acme, 12, 2).await;
    assert_eq!(read(store, "stays").await.len(), 2);
    assert_eq!(read(store, "goes").await, []);
    // And begins anew when it is named again.
    store
        .name_sinks(&["stays", "goes"], at(5), at(13))
        .await
        .unwrap();
    assert_eq!(read(store, "goes").await, []);
}

pub(crate) async fn a_removed_project_is_told_of_no_more(store: &dyn Store) {
    let (a, b) = (add(store, "a").await, add(store, "b").await);
    name(store, &["queue"]).await;
    grow(store, &a, 0, 2).await;
    grow(store, &b, 0, 1).await;
    let untold = read(store, "queue").await;
    store.remove_project(&a).await.unwrap();
    assert_eq!(read(store, "queue").await, untold[2..]);
    // What was read before it was removed may be confirmed all the same.
    let right = hold(store, "queue").await;
    assert!(store.told(&right, &untold).await.unwrap());
    assert_eq!(read(store, "queue").await, []);
}

pub(crate) async fn what_is_committed_while_a_broker_is_told_stays(store: &dyn Store) {
    let (a, b) = (add(store, "a").await, add(store, "b").await);
    name(store, &["queue"]).await;
    grow(store, &a, 0, 2).await;
    let untold = read(store, "queue").await;
    grow(store, &b, 0, 1).await;
    grow(store, &a, 1, 3).await;
    let right = hold(store, "queue").await;
    assert!(store.told(&right, &untold).await.unwrap());
    let rest = read(store, "queue").await;
    let projects: Vec<_> = rest.iter().map(|untold| &untold.project).collect();
    assert_eq!(projects, [&b, &a]);
}
