//! Brokers that are killed, down, or refuse us.

use std::{collections::BTreeSet, time::Duration};

use catalog_sync::queue::{Error, PATIENCE, Settlement};

use super::{GENEROUS, Place, ack, body, changes, one};
use crate::broker::{Broker, free_port};

/// Within which each call is over when the broker is gone, on a machine that may be busy.
const BOUND: Duration = PATIENCE.saturating_mul(3);

/// The same place on a broker of its own, on which all that is needed was there before it was started. What is made in
/// the moment of a crash may be lost with it, and that is not what these tests are about.
pub(crate) async fn own(place: Place<'_>) -> (Broker, Place<'_>) {
    let mut broker = tokio::task::block_in_place(|| place.side.own());
    let port = broker.port;
    let place = Place { port, ..place };
    place
        .side
        .make_requests_differently(port, &place.prefix)
        .await;
    place.consume().await;
    place.queue().publish().await.unwrap();
    drop(place.listen().await);
    tokio::task::block_in_place(|| {
        broker.stop();
        broker.restart();
    });
    (broker, place)
}

async fn bounded<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(BOUND, call)
        .await
        .expect("the call has no end")
}

fn told<T>(result: Result<T, Error>, port: u16) -> String {
    match result {
        Err(Error::Unavailable(told)) => {
            assert!(told.contains(&format!("127.0.0.1:{port}")), "{told}");
            told
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it did not fail"),
    }
}

pub(crate) async fn a_broker_killed_while_we_wait_is_noticed_and_comes_back(place: Place<'_>) {
    let (mut broker, place) = own(place).await;
    let mut consumer = place.consume().await;
    place.send(&["a", "b"]).await;
    let delivery = one(&mut *consumer).await;
    ack(&mut *consumer, delivery).await;
    let held = one(&mut *consumer).await;

    let waiting = async { told(bounded(consumer.next(1)).await, place.port) };
    let killing = async { tokio::task::block_in_place(|| broker.kill()) };
    tokio::join!(waiting, killing);
    // It stays lost, and so does what it gave.
    told(bounded(consumer.next(1)).await, place.port);
    let settled = vec![(held, Settlement::Ack)];
    told(bounded(consumer.settle(settled)).await, place.port);
    told(bounded(place.queue().consume()).await, place.port);
    told(bounded(place.queue().publish()).await, place.port);

    tokio::task::block_in_place(|| broker.restart());
    // The old one does not come to life again.
    told(bounded(consumer.next(1)).await, place.port);
    let mut consumer = place.consume().await;
    place.send(&["c"]).await;
    let mut missing = BTreeSet::from(["b", "c"]);
    while !missing.is_empty() {
        let delivery = tokio::time::timeout(GENEROUS * 3, consumer.next(1)).await;
        let delivery = delivery.unwrap().unwrap().remove(0);
        // What was acknowledged just before the broker was killed may come again: it had not written that down.
        assert!(missing.remove(body(&delivery)) || body(&delivery) == "a");
        ack(&mut *consumer, delivery).await;
    }
}

pub(crate) async fn a_broker_killed_before_settling_gives_the_message_again(place: Place<'_>) {
    let (mut broker, place) = own(place).await;
    let mut consumer = place.consume().await;
    place.send(&["a"]).await;
    let delivery = one(&mut *consumer).await;
    tokio::task::block_in_place(|| broker.kill());
    let reason = "no request".to_owned();
    let settled = vec![(delivery, Settlement::Reject { reason })];
    told(bounded(consumer.settle(settled)).await, place.port);

    tokio::task::block_in_place(|| broker.restart());
    let mut consumer = place.consume().await;
    assert_eq!(place.dead().await, []);
    let delivery = one(&mut *consumer).await;
    assert_eq!(body(&delivery), "a");
    ack(&mut *consumer, delivery).await;
    assert_eq!(place.left(consumer).await, 0);
}

pub(crate) async fn a_publisher_notices_and_repeats(place: Place<'_>) {
    let (mut broker, place) = own(place).await;
    let mut publisher = place.queue().publish().await.unwrap();
    publisher.publish(&changes(0..5)).await.unwrap();
    tokio::task::block_in_place(|| broker.kill());
    told(
        bounded(publisher.publish(&changes(5..10))).await,
        place.port,
    );

    tokio::task::block_in_place(|| broker.restart());
    told(
        bounded(publisher.publish(&changes(5..10))).await,
        place.port,
    );
    let mut publisher = place.queue().publish().await.unwrap();
    publisher.publish(&changes(5..10)).await.unwrap();
    let mut listener = place.listen().await;
    for change in changes(0..10) {
        assert_eq!(listener.next().await.id, change.id);
    }
}

pub(crate) async fn a_broker_that_is_down_is_named(place: Place<'_>) {
    let nobody = Place {
        port: free_port(),
        ..place
    };
    for told in [
        told(bounded(nobody.queue().consume()).await, nobody.port),
        told(bounded(nobody.queue().publish()).await, nobody.port),
    ] {
        assert!(told.contains("cannot be reached"), "{told}");
        assert!(!told.contains("guest"), "{told}");
    }
}

pub(crate) async fn a_wrong_password_is_told_and_not_shown(place: Place<'_>) {
    let (broker, queue) = place.side.with_wrong_password("canary").await;
    for error in [
        bounded(queue.consume()).await.err().unwrap(),
        bounded(queue.publish()).await.err().unwrap(),
    ] {
        let Error::Refused(told) = &error else {
            panic!("{error:?}");
        };
        assert!(
            told.contains("password") && told.contains(&broker.port.to_string()),
            "{told}"
        );
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}
