//! Transactions of programs, and their clocks, beside a relay that is at work.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tidings::outbox::{Dialect, Outbox, OutboxEvent, Tables, WakeUp};
use tidings::{Broker, Timestamp};
use tokio::sync::mpsc;

use crate::database::{Database, databases};
use crate::relays::{event, start, subscribed, take, take_more, until};

/// How long a transaction stays open at least: a minute in the long form.
fn long_hold() -> Duration {
    Duration::from_secs(if std::env::var_os("TIDINGS_LONG").is_some() { 60 } else { 0 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stays_open_delays_only_itself() {
    for mut database in databases().await {
        if database.dialect == Dialect::Sqlite {
            // It has one writer at a time.
            database.remove().await;
            continue;
        }
        let broker = Broker::connect("memory:").await.unwrap();
        let deliveries = subscribed(&broker).await;
        let relay = start(&database, &broker, Duration::from_secs(5)).await;
        let style = database.dialect.default_style();
        let writer = database.writer();
        let mut last = HashMap::new();
        database.begin("late").await;
        let events = [event("late", 0), event("late", 1)];
        database.run("late", &writer.insert(style, &events).unwrap()).await.unwrap();
        let (begun, mut number) = (Instant::now(), 0);
        while number < 30 || begun.elapsed() < long_hold() {
            database.begin("early").await;
            let events: Vec<_> = (0..5).map(|key| event(&format!("k{key}"), number)).collect();
            database.run("early", &writer.insert(style, &events).unwrap()).await.unwrap();
            database.commit("early").await;
            // Each is published while the other one is open.
            take_more(&deliveries, 5, &mut last).await;
            number += 1;
        }
        println!("{}: {number} others in {:?}", database.dialect.name(), begun.elapsed());
        assert!(!last.contains_key("late"), "it is not committed");
        database.commit("late").await;
        take_more(&deliveries, 2, &mut last).await;
        relay.stop().await.unwrap();
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_holds_a_sqlite_file_is_not_skipped() {
    let mut database = Database::sqlite().await;
    let broker = Broker::connect("memory:").await.unwrap();
    let deliveries = subscribed(&broker).await;
    let impatient = format!("{}&busy_timeout=50", database.url);
    let outbox = Outbox::connect_to(&impatient, database.tables.clone()).await.unwrap();
    // Its lease is over long before the transaction is, in the long form.
    let relay = outbox.relay(&broker).lease(Duration::from_secs(2)).publish_timeout(Duration::from_millis(500));
    let relay = relay.poll_interval(Duration::from_millis(20)).start().await.unwrap();
    let mut last = HashMap::new();
    let early = |number| (0..5).map(move |key| event(&format!("k{key}"), number));
    database.outbox.publish(early(0)).await.unwrap();
    take_more(&deliveries, 5, &mut last).await;
    database.begin("late").await;
    let statements = database.writer().insert(Dialect::Sqlite.default_style(), &[event("late", 0), event("late", 1)]);
    database.run("late", &statements.unwrap()).await.unwrap();
    let begun = Instant::now();
    until("it says what it waits for", async || {
        relay.health().last_error.is_some_and(|error| error.contains("busy") || error.contains("lock"))
    })
    .await;
    tokio::time::sleep(long_hold().saturating_sub(begun.elapsed())).await;
    assert!(!last.contains_key("late"), "it is not committed");
    database.commit("late").await;
    take_more(&deliveries, 2, &mut last).await;
    database.outbox.publish(early(1)).await.unwrap();
    take_more(&deliveries, 5, &mut last).await;
    database.outbox.drain(Duration::from_secs(30)).await.unwrap();
    relay.stop().await.unwrap();
    outbox.close().await.unwrap();
    database.remove().await;
}

/// Wakes a relay when the test says so.
struct ByHand(mpsc::Receiver<()>);

#[async_trait::async_trait]
impl WakeUp for ByHand {
    async fn wait(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_row_delays_no_other_key_by_a_poll() {
    for database in databases().await {
        let broker = Broker::connect("memory:").await.unwrap();
        let deliveries = subscribed(&broker).await;
        let (wake, by_hand) = mpsc::channel(1);
        // It looks when it is woken, and otherwise every ten minutes.
        let relay = database.another().await.relay(&broker).max_payload(2000).lease(Duration::from_secs(600));
        let relay = relay.poll_interval(Duration::from_secs(60)).wake_up(ByHand(by_hand));
        let relay = relay.backoff(Duration::from_secs(3600), Duration::from_secs(3600)).start().await.unwrap();
        until("it has all parts", async || relay.health().parts == 256).await;
        let polls = || relay.metrics().iter().find(|m| m.name == "tidings_outbox_polls_total").unwrap().value;
        until("it has looked", async || polls() >= 1.0).await;
        let large = tidings::DomainEvent::new("test.event", &"x".repeat(3000)).unwrap().with_key("bad");
        let good = (0..20).map(|key| event(&format!("k{key}"), 0));
        database.outbox.publish([OutboxEvent::from(large)].into_iter().chain(good)).await.unwrap();
        let before = polls();
        wake.send(()).await.unwrap();
        take(&deliveries, 20).await;
        // One for the wake-up; its first renewal may fall in between.
        assert!(polls() - before <= 2.0, "{} polls", polls() - before);
        until("the failure is recorded", async || {
            let metrics = relay.metrics();
            metrics.iter().any(|m| m.name == "tidings_outbox_failures_total" && m.value >= 1.0)
        })
        .await;
        relay.stop().await.unwrap();
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_zone_of_a_session_does_not_matter() {
    for mut database in databases().await {
        let zones: &[&str] = match database.dialect {
            Dialect::Postgres => &["SET TIME ZONE 'Pacific/Kiritimati'", "SET TIME ZONE 'Pacific/Pago_Pago'"],
            Dialect::MySql => &["SET time_zone = '+13:00'", "SET time_zone = '-11:00'"],
            // Its sessions have none.
            _ => &["SELECT 1"],
        };
        let broker = Broker::connect("memory:").await.unwrap();
        let deliveries = subscribed(&broker).await;
        for (number, zone) in zones.iter().enumerate() {
            database.begin("tx").await;
            database.sql("tx", zone).await.unwrap();
            let at = |seconds: i64| Timestamp::from_micros(Timestamp::now().as_micros() + seconds * 1_000_000);
            let events = [
                event(&format!("due{number}"), 0).available_at(at(-1)),
                event(&format!("plain{number}"), 0),
                event(&format!("later{number}"), 0).available_at(at(3600)),
            ];
            let statements = database.writer().insert(database.dialect.default_style(), &events).unwrap();
            database.run("tx", &statements).await.unwrap();
            database.commit("tx").await;
            let oldest = database.outbox.status().await.unwrap().oldest;
            assert!(oldest.is_some_and(|age| age < Duration::from_secs(600)), "{zone}: {oldest:?}");
            let relay = start(&database, &broker, Duration::from_secs(5)).await;
            take(&deliveries, 2).await;
            database.outbox.drain(Duration::from_secs(30)).await.unwrap();
            relay.stop().await.unwrap();
            assert_eq!(database.outbox.status().await.unwrap().pending, number as u64 + 1, "{zone}");
        }
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_starts_while_the_file_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let url = format!("sqlite:{}?shared=true&busy_timeout=50", file.display());
    let outbox = Outbox::connect_to(&url, Tables::new("locked").unwrap()).await.unwrap();
    outbox.install().await.unwrap();
    outbox.publish([event("k", 0)]).await.unwrap();
    let program = rusqlite::Connection::open(&file).unwrap();
    program.execute_batch("BEGIN IMMEDIATE").unwrap();
    let broker = Broker::connect("memory:").await.unwrap();
    let deliveries = subscribed(&broker).await;
    let relay = outbox.relay(&broker).poll_interval(Duration::from_millis(20)).start().await.unwrap();
    until("it says what it waits for", async || {
        relay.health().last_error.is_some_and(|error| error.contains("busy") || error.contains("lock"))
    })
    .await;
    program.execute_batch("COMMIT").unwrap();
    take(&deliveries, 1).await;
    relay.stop().await.unwrap();
    outbox.close().await.unwrap();
}
