//! What a subscriber does when it is paused, drained, dropped or let down, on the memory transport.
#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use tidings::{Broker, Deliveries, DomainEvent, Outcome};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

async fn memory() -> Broker {
    Broker::connect("memory:").await.unwrap()
}

async fn publish(broker: &Broker, key: &str, ids: &[&str]) {
    for id in ids {
        let event = DomainEvent::new("a.b", &1).unwrap().with_id(id).unwrap().with_key(key);
        broker.publisher().publish(event).await.unwrap();
    }
}

/// Waits until so many events wait in the buffer.
async fn buffered(deliveries: &Deliveries, count: usize) {
    while deliveries.health().buffered != count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Takes and acknowledges one event; its id.
async fn handle_one(deliveries: &Deliveries) -> String {
    let delivery = timeout(LONG, deliveries.next(1)).await.expect("nothing is handed over").unwrap().remove(0);
    let id = delivery.event().id().to_owned();
    delivery.settle(Outcome::Ok).await.unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn a_pause_does_not_block_the_keys_that_were_waiting() {
    let broker = memory().await;
    let deliveries = broker.subscriber().subscription("s").bind("#").ordered().deliveries().await.unwrap();
    publish(&broker, "k", &["1", "2"]).await;
    buffered(&deliveries, 2).await;
    deliveries.pause().await.unwrap();
    deliveries.resume().await.unwrap();
    assert_eq!(handle_one(&deliveries).await, "1");
    assert_eq!(handle_one(&deliveries).await, "2");
}

#[tokio::test(start_paused = true)]
async fn what_was_held_too_long_comes_again_in_order() {
    let broker = memory().await;
    let subscriber = broker.subscriber();
    let held = subscriber.subscription("s").bind("#").ordered().max_hold(Duration::from_secs(10));
    let deliveries = held.deliveries().await.unwrap();
    publish(&broker, "k", &["1", "2"]).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(handle_one(&deliveries).await, "1");
    assert_eq!(handle_one(&deliveries).await, "2");
}
