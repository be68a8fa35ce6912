//! Relays among themselves: shares, takeover, wake-up, order.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use tidings::outbox::{OutboxEvent, RunningRelay};
use tidings::{Broker, Deliveries, DomainEvent, Outcome};
use tokio::time::Instant;

use crate::database::{Database, databases};

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn event(key: &str, number: usize) -> OutboxEvent {
    DomainEvent::new("test.event", &json!({"key": key, "n": number})).unwrap().with_key(key).into()
}

pub(crate) async fn subscribed(broker: &Broker) -> Deliveries {
    broker.subscriber().subscription("all").bind("#").prefetch(20_000).deliveries().await.unwrap()
}

/// Takes `count` different events; panics where the first of each came out of the order of its key.
pub(crate) async fn take(deliveries: &Deliveries, count: usize) {
    take_more(deliveries, count, &mut HashMap::new()).await;
}

/// As [`take`], after others that `last` knows.
pub(crate) async fn take_more(deliveries: &Deliveries, count: usize, last: &mut HashMap<String, i64>) {
    let mut seen = 0;
    while seen < count {
        let batch = tokio::time::timeout(PATIENCE, deliveries.next(1000)).await.expect("events are missing").unwrap();
        for delivery in batch {
            let data: serde_json::Value = delivery.event().data().unwrap();
            let (key, number) = (data["key"].as_str().unwrap().to_owned(), data["n"].as_i64().unwrap());
            let last = last.entry(key).or_insert(-1);
            assert!(number <= *last + 1, "{number} of {} was seen before {}", data["key"], *last + 1);
            if number == *last + 1 {
                *last = number;
                seen += 1;
            }
            delivery.settle(Outcome::Ok).await.unwrap();
        }
    }
}

pub(crate) async fn start(database: &Database, broker: &Broker, lease: Duration) -> RunningRelay {
    let relay = database.another().await.relay(broker).lease(lease).publish_timeout(lease / 3);
    relay.batch(7).poll_interval(Duration::from_millis(20)).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_share_the_keys_and_take_over_from_each_other() {
    for database in databases().await {
        let broker = Broker::connect("memory:").await.unwrap();
        let deliveries = subscribed(&broker).await;
        let lease = Duration::from_millis(900);
        let first = start(&database, &broker, lease).await;
        until("the first has all", async || first.health().parts == 256).await;
        let second = start(&database, &broker, lease).await;
        until("both have half", async || first.health().parts == 128 && second.health().parts == 128).await;
        for number in 0..20 {
            let events: Vec<_> = (0..25).map(|key| event(&format!("k{key}"), number)).collect();
            database.outbox.publish(events).await.unwrap();
        }
        let mut last = HashMap::new();
        take_more(&deliveries, 500, &mut last).await;
        // Dies without a word.
        drop(first);
        let died = Instant::now();
        until("the other has all", async || second.health().parts == 256).await;
        println!("{}: taken over after {:?}", database.dialect.name(), died.elapsed());
        let takeovers = second.metrics().into_iter().find(|m| m.name == "tidings_outbox_takeovers_total").unwrap();
        assert!((takeovers.value - 1.0).abs() < f64::EPSILON);
        for key in 0..25 {
            database.outbox.publish([event(&format!("l{key}"), 0)]).await.unwrap();
        }
        take_more(&deliveries, 25, &mut last).await;
        // Leaves in order: nobody waits for its lease.
        let third = start(&database, &broker, Duration::from_secs(600)).await;
        until("both have half", async || third.health().parts == 128).await;
        third.stop().await.unwrap();
        until("one has all again", async || second.health().parts == 256).await;
        second.stop().await.unwrap();
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_while_relays_come_and_go() {
    for database in databases().await {
        let broker = Broker::connect("memory:").await.unwrap();
        let deliveries = subscribed(&broker).await;
        let writing = async {
            for number in 0..150 {
                let events: Vec<_> = (0..20).map(|key| event(&format!("k{key}"), number)).collect();
                database.outbox.publish(events).await.unwrap();
            }
        };
        let relaying = async {
            let mut relays = std::collections::VecDeque::new();
            for round in 0..12 {
                relays.push_back(start(&database, &broker, Duration::from_millis(400)).await);
                tokio::time::sleep(Duration::from_millis(fastrand::u64(20..200))).await;
                if round % 2 == 1 {
                    drop(relays.pop_front());
                }
            }
            relays
        };
        let ((), relays, ()) = tokio::join!(writing, relaying, take(&deliveries, 3000));
        for relay in relays {
            relay.stop().await.unwrap();
        }
        assert_eq!(database.outbox.status().await.unwrap().pending, 0);
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serialize_makes_the_second_writer_of_a_key_wait() {
    for mut database in databases().await {
        if database.dialect == tidings::outbox::Dialect::Sqlite {
            database.remove().await;
            continue;
        }
        let broker = Broker::connect("memory:").await.unwrap();
        let deliveries = subscribed(&broker).await;
        let style = database.dialect.default_style();
        let writer = database.writer().serialize(true);
        database.begin("first").await;
        database.begin("second").await;
        database.run("first", &writer.insert(style, &[event("k", 0)]).unwrap()).await.unwrap();
        let statements = writer.insert(style, &[event("k", 1)]).unwrap();
        {
            let mut second = std::pin::pin!(database.run("second", &statements));
            let waits = tokio::time::timeout(Duration::from_millis(200), &mut second).await;
            assert!(waits.is_err(), "the second must wait for the first");
            database.commit("first").await;
            second.await.unwrap();
        }
        database.commit("second").await;
        let relay = start(&database, &broker, Duration::from_secs(5)).await;
        take(&deliveries, 2).await;
        relay.stop().await.unwrap();
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_wakes_a_relay_that_rests() {
    for mut database in databases().await {
        if database.dialect != tidings::outbox::Dialect::Postgres {
            database.remove().await;
            continue;
        }
        let broker = Broker::connect("memory:").await.unwrap();
        let deliveries = subscribed(&broker).await;
        // It would look again after ten minutes.
        let relay = database.another().await.relay(&broker).listen(true).poll_interval(Duration::from_secs(60));
        let relay = relay.start().await.unwrap();
        until("it has looked", async || {
            relay.metrics().iter().any(|m| m.name == "tidings_outbox_polls_total" && m.value >= 1.0)
        })
        .await;
        database.begin("tx").await;
        let writer = database.writer().notify(true);
        let statements = writer.insert(database.dialect.default_style(), &[event("k", 0)]).unwrap();
        database.run("tx", &statements).await.unwrap();
        database.commit("tx").await;
        take(&deliveries, 1).await;
        relay.stop().await.unwrap();
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_row_is_seen_in_the_metrics_of_the_broker() {
    for database in databases().await {
        let broker = Broker::connect("memory:").await.unwrap();
        let relay = start(&database, &broker, Duration::from_millis(400)).await;
        until("there is nothing old", async || {
            broker.metrics().iter().any(|m| m.name == "tidings_outbox_oldest_seconds" && m.value == 0.0)
        })
        .await;
        relay.stop().await.unwrap();
        drop(relay);
        assert!(!broker.metrics().iter().any(|m| m.name.starts_with("tidings_outbox")));
        database.outbox.publish([event("k", 0)]).await.unwrap();
        until("it grows old", async || database.outbox.status().await.unwrap().oldest > Some(Duration::from_millis(5)))
            .await;
        database.remove().await;
    }
}
