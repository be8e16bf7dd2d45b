//! Requests in.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use catalog_sync::queue::Settlement;
use futures_util::FutureExt as _;
use tokio::{sync::Mutex, task::JoinSet};

use super::{Place, ack, body, one, soon};

pub(crate) async fn what_is_absent_is_named_and_not_made(place: Place<'_>) {
    let queue = place.queue();
    let absent = queue.find_absent().await.unwrap();
    assert!(absent.len() >= 3, "{absent:?}");
    assert_eq!(
        queue.find_absent().await.unwrap(),
        absent,
        "looking made it"
    );
    drop(queue.consume().await.unwrap());
    let changes: Vec<String> = absent
        .into_iter()
        .filter(|name| name.to_lowercase().ends_with("changes"))
        .collect();
    assert_eq!(queue.find_absent().await.unwrap(), changes);
    drop(queue.publish().await.unwrap());
    assert_eq!(queue.find_absent().await.unwrap().len(), 0);
}

pub(crate) async fn what_is_absent_is_made(place: Place<'_>) {
    let mut consumer = place.consume().await;
    place.send(&["a"]).await;
    let delivery = one(&mut *consumer).await;
    assert_eq!((body(&delivery), delivery.attempt), ("a", 1));
    // A second worker finds it all there.
    place.consume().await;
}

pub(crate) async fn what_is_there_is_used_as_it_is(place: Place<'_>) {
    let Place { side, port, prefix } = &place;
    side.make_requests_differently(*port, prefix).await;
    place.send(&["a"]).await;
    let mut consumer = place.consume().await;
    let delivery = one(&mut *consumer).await;
    ack(&mut *consumer, delivery).await;
    assert!(side.are_requests_different(*port, prefix).await);
}

pub(crate) async fn an_acknowledged_message_never_comes_again(place: Place<'_>) {
    let mut consumer = place.consume().await;
    place.send(&["a", "b"]).await;
    let delivery = one(&mut *consumer).await;
    assert_eq!(body(&delivery), "a");
    ack(&mut *consumer, delivery).await;
    let delivery = one(&mut *consumer).await;
    ack(&mut *consumer, delivery).await;
    drop(consumer);

    let mut consumer = place.consume().await;
    place.send(&["c"]).await;
    let delivery = one(&mut *consumer).await;
    assert_eq!(body(&delivery), "c");
    ack(&mut *consumer, delivery).await;
    assert_eq!(place.left(consumer).await, 0);
}

pub(crate) async fn an_unsettled_message_comes_again_once_its_consumer_is_gone(place: Place<'_>) {
    let Place { side, port, prefix } = &place;
    // Without that, NATS would take a minute to find that nobody settles it.
    side.make_requests_differently(*port, prefix).await;
    place.send(&["a"]).await;
    let mut consumer = place.consume().await;
    let delivery = one(&mut *consumer).await;
    drop((consumer, delivery));

    let mut consumer = place.consume().await;
    let delivery = one(&mut *consumer).await;
    assert_eq!((body(&delivery), delivery.attempt), ("a", 2));
}

pub(crate) async fn a_rejected_message_is_among_the_dead_letters(place: Place<'_>) {
    let mut consumer = place.consume().await;
    place.send(&["{]", "good"]).await;
    let delivery = one(&mut *consumer).await;
    let reason = "the message is not JSON\r\nInjected: yes".to_owned();
    consumer
        .settle(vec![(delivery, Settlement::Reject { reason })])
        .await
        .unwrap();
    assert_eq!(
        place.dead().await,
        [(
            b"{]".to_vec(),
            "the message is not JSON  Injected: yes".to_owned(),
            format!("{}.requests", place.prefix)
        )]
    );
    let delivery = one(&mut *consumer).await;
    assert_eq!(body(&delivery), "good");
    ack(&mut *consumer, delivery).await;
    assert_eq!(place.left(consumer).await, 0);
}

pub(crate) async fn a_message_to_be_retried_comes_again(place: Place<'_>) {
    let mut consumer = place.consume().await;
    place.send(&["a"]).await;
    for attempt in 1..=25 {
        let delivery = one(&mut *consumer).await;
        assert_eq!((body(&delivery), delivery.attempt), ("a", attempt));
        let after = Duration::from_millis(20);
        consumer
            .settle(vec![(delivery, Settlement::Retry { after })])
            .await
            .unwrap();
    }
    let delivery = one(&mut *consumer).await;
    ack(&mut *consumer, delivery).await;
    assert_eq!(place.left(consumer).await, 0);
    assert_eq!(place.dead().await, []);
}

pub(crate) async fn a_dropped_wait_loses_no_message(place: Place<'_>) {
    let mut consumer = place.consume().await;
    for number in 0..50_u32 {
        {
            let mut wait = consumer.next(1);
            // Long enough to have asked the broker, and then given up.
            for _ in 0..2 {
                assert!((&mut wait).now_or_never().is_none());
                tokio::task::yield_now().await;
            }
        }
        let text = number.to_string();
        place.send(&[&text]).await;
        let delivery = one(&mut *consumer).await;
        assert_eq!((body(&delivery), delivery.attempt), (&*text, 1));
        ack(&mut *consumer, delivery).await;
    }
    assert_eq!(place.left(consumer).await, 0);
}

pub(crate) async fn of_a_thousand_messages_each_is_handled_and_none_is_lost(place: Place<'_>) {
    const MESSAGES: usize = 1_000;
    let mut first = place.consume().await;
    let second = place.consume().await;
    let texts: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    place
        .send(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        .await;

    // Each has a part in it.
    let delivery = one(&mut *first).await;
    let handled = Arc::new(Mutex::new(BTreeSet::from([body(&delivery).to_owned()])));
    ack(&mut *first, delivery).await;
    let (done, _) = tokio::sync::watch::channel(false);
    let mut workers = JoinSet::new();
    for mut consumer in [first, second] {
        let handled = Arc::clone(&handled);
        let done = done.clone();
        workers.spawn(async move {
            let mut finished = done.subscribe();
            let mut count = 0;
            loop {
                let deliveries = tokio::select! {
                    deliveries = soon(&mut *consumer, 100) => deliveries,
                    _ = finished.wait_for(|done| *done) => return count,
                };
                assert!(!deliveries.is_empty() && deliveries.len() <= 100);
                count += deliveries.len();
                let mut handled = handled.lock().await;
                handled.extend(deliveries.iter().map(|delivery| body(delivery).to_owned()));
                let settled = deliveries
                    .into_iter()
                    .map(|delivery| (delivery, Settlement::Ack));
                consumer.settle(settled.collect()).await.unwrap();
                if handled.len() == MESSAGES {
                    done.send_replace(true);
                }
            }
        });
    }
    let counts = workers.join_all().await;
    assert_eq!(counts.iter().sum::<usize>(), MESSAGES - 1, "{counts:?}");
    assert_eq!(handled.lock().await.len(), MESSAGES);
    assert_eq!(place.left(()).await, 0);
}
