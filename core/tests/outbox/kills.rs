//! Processes that are killed and frozen, on each database server and RabbitMQ, while a ledger outside of them counts.
//!
//! The processes are this test program itself, started with a role in the environment.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use tidings::outbox::{Outbox, OutboxEvent, Tables};
use tidings::{Broker, Deliveries, DomainEvent, Outcome};
use tokio::time::Instant;

use crate::database::{Database, databases};

const ROLE: &str = "TIDINGS_TEST_ROLE";
const KEYS: usize = 40;
const LEASE: Duration = Duration::from_millis(1500);
/// Longest without anything new.
const PATIENCE: Duration = Duration::from_secs(60);

fn event(round: usize, key: usize, exchange: &str) -> OutboxEvent {
    let event = DomainEvent::new("test.event", &json!({"key": key, "n": round})).unwrap();
    OutboxEvent::new(event.with_key(format!("k{key}"))).exchange(exchange)
}

/// A process in a role.
fn start(role: &str, database: &Database, broker: &str, exchange: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::child", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .env("STORE", &database.url)
        .env("TABLES", database.tables.name())
        .env("BROKER", broker)
        .env("EXCHANGE", exchange)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What the processes do. Ends with its standard input.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process of the other tests"]
async fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let variable = |name| std::env::var(name).unwrap();
    let outbox = Outbox::connect_to(&variable("STORE"), Tables::new(&variable("TABLES")).unwrap()).await.unwrap();
    if role == "writer" {
        // Killed in the middle of it, again and again: nothing of it may ever be seen.
        let mut database = Database::attach(&variable("STORE"), Tables::new(&variable("TABLES")).unwrap()).await;
        database.begin("tx").await;
        let events: Vec<_> = (0..100).map(|n| event(1_000_000 + n, 7, &variable("EXCHANGE"))).collect();
        let statements = database.writer().insert(database.dialect.default_style(), &events).unwrap();
        database.run("tx", &statements).await.unwrap();
    } else {
        let broker = Broker::connect(&variable("BROKER")).await.unwrap();
        let relay = outbox.relay(&broker).lease(LEASE).publish_timeout(LEASE / 3).batch(50);
        let _relay = relay.poll_interval(Duration::from_millis(20)).start().await.unwrap();
        parent_lives().await;
        return;
    }
    parent_lives().await;
}

async fn parent_lives() {
    tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop)).await.unwrap();
}

/// What came out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ledger {
    first: usize,
    duplicates: usize,
    violations: usize,
    invented: usize,
}

/// Takes events until there were `count` different ones.
async fn take(deliveries: &Deliveries, count: usize, rounds: usize) -> Ledger {
    let (mut ledger, mut last) = (Ledger::default(), HashMap::<u64, i64>::new());
    let mut seen = std::collections::HashSet::new();
    while ledger.first < count {
        let batch = tokio::time::timeout(PATIENCE, deliveries.next(1000)).await;
        let batch = batch.unwrap_or_else(|_| panic!("events are missing: {ledger:?} of {count}")).unwrap();
        for delivery in batch {
            let data: serde_json::Value = delivery.event().data().unwrap();
            let (key, round) = (data["key"].as_u64().unwrap(), data["n"].as_i64().unwrap());
            if round >= i64::try_from(rounds).unwrap() {
                ledger.invented += 1;
            } else if seen.insert((key, round)) {
                ledger.first += 1;
                let last = last.entry(key).or_insert(-1);
                ledger.violations += usize::from(round != *last + 1);
                *last = round.max(*last);
            } else {
                ledger.duplicates += 1;
            }
            delivery.settle(Outcome::Ok).await.unwrap();
        }
    }
    ledger
}

async fn delete_exchange(url: &str, name: &str) {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.exchange_delete(name.into(), lapin::options::ExchangeDeleteOptions::default()).await.unwrap();
    connection.close(200, "".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_out_of_order_when_processes_are_killed_and_frozen() {
    for database in databases().await {
        // Processes are killed on its file in the tests of the hosts, whose relay has one of its own.
        if database.dialect == tidings::outbox::Dialect::Sqlite {
            database.remove().await;
            continue;
        }
        disturb(database).await;
    }
}

async fn disturb(database: Database) {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned());
    let broker = match Broker::connect(&url).await {
        Ok(broker) => broker,
        Err(error) => {
            database.remove().await;
            return println!("SKIPPED: no RabbitMQ: {error}");
        }
    };
    let rounds = if std::env::var_os("TIDINGS_LONG").is_some() { 1250 } else { 75 };
    let exchange = format!("kills.{}", tidings::event::new_id());
    let subscriber = broker.subscriber();
    let deliveries = subscriber.subscription(&exchange).exchange(exchange.as_str()).bind("#").prefetch(500);
    let deliveries = deliveries.deliveries().await.unwrap();
    let written = Arc::new(AtomicBool::new(false));
    let writing = async {
        for round in 0..rounds {
            let events: Vec<_> = (0..KEYS).map(|key| event(round, key, &exchange)).collect();
            database.outbox.publish(events).await.unwrap();
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..100))).await;
        }
        written.store(true, Relaxed);
    };
    let faults = async {
        let (mut relays, mut kills, mut freezes) = (Vec::new(), 0, 0);
        let begin = Instant::now();
        while !written.load(Relaxed) || kills < 4 || freezes < 1 {
            while relays.len() < 2 {
                relays.push(start("relay", &database, &url, &exchange));
            }
            let writer = start("writer", &database, &url, &exchange);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(500..1500))).await;
            kill(writer);
            let victim = relays.swap_remove(fastrand::usize(0..2));
            if freezes < 1 + begin.elapsed().as_secs() / 30 {
                // Longer than its lease, while the other one goes on.
                signal(&victim, "-STOP");
                tokio::time::sleep(LEASE * 2).await;
                signal(&victim, "-CONT");
                relays.push(victim);
                freezes += 1;
            } else {
                kill(victim);
                kills += 1;
            }
        }
        relays.push(start("relay", &database, &url, &exchange));
        (relays, kills, freezes)
    };
    let ((), (relays, kills, freezes), ledger) =
        tokio::join!(writing, faults, take(&deliveries, rounds * KEYS, rounds));
    println!(
        "{}: {} events, {kills} kills of relays and of writers, {freezes} freezes: {ledger:?}",
        database.dialect.name(),
        rounds * KEYS
    );
    assert_eq!((ledger.violations, ledger.invented), (0, 0), "{ledger:?}");
    database.outbox.drain(PATIENCE).await.unwrap();
    for relay in relays {
        kill(relay);
    }
    deliveries.close(Duration::from_secs(5)).await.unwrap();
    broker.delete_subscription(&exchange).await.unwrap();
    broker.close().await.unwrap();
    delete_exchange(&url, &exchange).await;
    database.remove().await;
}
