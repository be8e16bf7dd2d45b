//! Changes out.

use super::{Place, Read, changes};

pub(crate) async fn changes_come_in_order_with_their_ids(place: Place<'_>) {
    let mut publisher = place.queue().publish().await.unwrap();
    let mut listener = place.listen().await;
    // More than are under way at once.
    let sent = changes(0..600);
    publisher.publish(&sent[..10]).await.unwrap();
    publisher.publish(&sent[10..]).await.unwrap();
    publisher.publish(&[]).await.unwrap();
    for change in sent {
        let expected = Read {
            topic: change.topic(),
            id: change.id,
            project: "acme".to_owned(),
            body: change.body,
        };
        assert_eq!(listener.next().await, expected);
    }
}

pub(crate) async fn a_repeated_change_can_be_told(place: Place<'_>) {
    let mut publisher = place.queue().publish().await.unwrap();
    let mut listener = place.listen().await;
    publisher.publish(&changes(0..3)).await.unwrap();
    publisher.publish(&changes(0..4)).await.unwrap();
    drop(publisher);
    let mut publisher = place.queue().publish().await.unwrap();
    publisher.publish(&changes(2..6)).await.unwrap();

    let mut ids = Vec::new();
    let mut read = 0;
    while ids.len() < 6 {
        let change = listener.next().await;
        read += 1;
        if !ids.contains(&change.id) {
            ids.push(change.id);
        }
    }
    let expected: Vec<String> = changes(0..6).into_iter().map(|change| change.id).collect();
    assert_eq!(ids, expected);
    let repeats = if place.queue().name() == "nats" { 0 } else { 5 };
    assert_eq!(read - ids.len(), repeats);
}
