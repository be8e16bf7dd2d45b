//! What brokers are yet to be told of.

use catalog_sync::store::{SinkLease, Store};
use uuid::Uuid;

use super::sample::{TTL, add, at, coins, sync};

pub(crate) async fn what_was_not_told_stays_to_be_told(store: &dyn Store) {
    store.name_sinks(&["nats"], at(-1), at(0)).await.unwrap();
    let lease = SinkLease {
        sink: "nats".to_owned(),
        token: Uuid::now_v7(),
    };
    assert!(store.hold_sink(&lease, TTL, at(0)).await.unwrap());
    let (slow, quick) = (add(store, "slow").await, add(store, "quick").await);
    sync(store, &slow, 1, [coins("1"), coins("2")]).await;
    sync(store, &quick, 2, [coins("1"), coins("2")]).await;

    // As Postgres shows them while the first is being committed: numbers are given before commits are seen.
    let mut seen = store.read_untold("nats", 10).await.unwrap();
    seen.retain(|untold| untold.project == quick);
    assert_eq!(seen.len(), 2);
    assert!(store.told(&lease, &seen[..1]).await.unwrap());
    let left = store.read_untold("nats", 10).await.unwrap();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(store.told(&lease, &seen[1..]).await.unwrap());
    let left = store.read_untold("nats", 10).await.unwrap();
    assert!(left.iter().all(|untold| untold.project == slow), "{left:?}");
    assert!(store.told(&lease, &left).await.unwrap());
    assert_eq!(store.read_untold("nats", 10).await.unwrap(), []);
}
