//! The clock of the database is set. What the tables hold is set the other way instead, which is the same to a relay.

use std::time::Duration;

use tidings::outbox::{OutboxEvent, RunningRelay, outbox_insert};
use tidings::{Broker, DomainEvent};

use crate::database::{Database, databases};
use crate::relays::{event, start, subscribed, take, until};

/// An hour, in the microseconds of the tables.
const HOUR: i64 = 3_600_000_000;
/// A time long ago.
const PAST: i64 = 1000;

/// The same on every database, at once: there is some waiting.
async fn on_each<F: Future<Output = ()>>(check: impl Fn(Database) -> F) {
    futures_util::future::join_all(databases().await.into_iter().map(check)).await;
}

/// Runs a statement on what relays know of each other, or on the rows, and returns how many it changed.
async fn set(database: &Database, suffix: &str, what: &str) -> u64 {
    let table = database.table();
    let (head, quote) = table.split_at(table.len() - 1);
    let mut statement = outbox_insert(database.dialect, &[event("k", 0)]).unwrap().remove(0);
    statement.sql = format!("UPDATE {head}{suffix}{quote} SET {what}");
    statement.params.clear();
    database.change("clock", &statement).await.unwrap()
}

fn metric(relay: &RunningRelay, name: &str) -> f64 {
    relay.metrics().into_iter().find(|metric| metric.name == name).unwrap().value
}

async fn two_relays(database: &mut Database, broker: &Broker, lease: Duration) -> [RunningRelay; 2] {
    // A connection for `set`, without a transaction.
    database.begin("clock").await;
    database.commit("clock").await;
    let relays = [start(database, broker, lease).await, start(database, broker, lease).await];
    until("each has half", async || relays.iter().all(|relay| relay.health().parts == 128)).await;
    relays
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_that_live_stay_when_the_clock_is_set_forward() {
    on_each(|mut database| async move {
        let broker = Broker::connect("memory:").await.unwrap();
        let deliveries = subscribed(&broker).await;
        let relays = two_relays(&mut database, &broker, Duration::from_secs(9)).await;
        let past = format!("started_at = {PAST} - 9000000, until = {PAST}");
        assert_eq!(set(&database, "_relay", &past).await, 2);
        until("both have renewed their leases", async || {
            set(&database, "_relay", &format!("started_at = started_at - 1 WHERE until = {PAST}")).await == 0
        })
        .await;
        database.outbox.publish((0..50).map(|key| event(&format!("k{key}"), 0))).await.unwrap();
        take(&deliveries, 50).await;
        for relay in relays {
            assert!(metric(&relay, "tidings_outbox_takeovers_total") < 0.5);
            assert_eq!(relay.health().parts, 128);
            relay.stop().await.unwrap();
        }
        database.remove().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_relay_is_taken_over_when_the_clock_is_set_back() {
    on_each(|mut database| async move {
        let broker = Broker::connect("memory:").await.unwrap();
        let [dead, relay] = two_relays(&mut database, &broker, Duration::from_millis(1500)).await;
        drop(dead);
        set(&database, "_relay", &format!("started_at = started_at + {HOUR}, until = until + {HOUR}")).await;
        until("the other has all", async || relay.health().parts == 256).await;
        relay.stop().await.unwrap();
        database.remove().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_back_off_is_not_longer_when_the_clock_is_set_back() {
    on_each(|mut database| async move {
        let broker = Broker::connect("memory:").await.unwrap();
        let deliveries = subscribed(&broker).await;
        let large = DomainEvent::new("test.event", &"x".repeat(3000)).unwrap().with_key("bad");
        database.outbox.publish([OutboxEvent::from(large), event("good", 0)]).await.unwrap();
        let relay = database.another().await.relay(&broker).max_payload(2000).poll_interval(Duration::from_millis(20));
        let relay = relay.backoff(Duration::from_secs(600), Duration::from_secs(600)).start().await.unwrap();
        take(&deliveries, 1).await;
        let failures = || metric(&relay, "tidings_outbox_failures_total");
        database.begin("clock").await;
        database.commit("clock").await;
        let back =
            format!("processed_at = processed_at + {HOUR}, available_at = available_at + {HOUR} WHERE state = 3");
        until("it waits to be tried again", async || set(&database, "", &back).await == 1).await;
        until("it is tried again", async || failures() > 1.5).await;
        relay.stop().await.unwrap();
        database.remove().await;
    })
    .await;
}
