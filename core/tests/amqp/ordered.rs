//! Ordered subscriptions as an owner finds them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use tidings::KeyOrder;
use tidings::event::name;
use tidings::transport::{Incoming, Message, Settlement, Source};

use crate::partitions::messages;
use crate::support::{Bench, bare, next, next_one, server, services, settle, until};

/// Key, and the name that its queue has after the subscription's.
const KEY: (&str, &str) = ("abc", "-key-ba7816bf8f01cfea414140de5dae2223");

async fn exists(queue: &str) -> bool {
    let (connection, channel) = bare().await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await.is_ok();
    connection.close(200, "".into()).await.unwrap();
    found
}

/// An owner died between writing down that a key is no longer parked and the end of its queue, which may go any moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_leaving_its_queue_is_handled_where_it_was() {
    let Some(mut bench) = Bench::new("leaving").await else { return };
    bench.spec.ordered = Some(KeyOrder::default());
    bench.subscribe().await.close().await;
    let (key, queue) = (KEY.0, format!("{}{}", bench.name, KEY.1));

    let (connection, channel) = bare().await;
    let put = async |to: &str, body: &[u8]| {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
        let properties = BasicProperties::default().with_delivery_mode(2);
        let sent = channel.basic_publish("".into(), to.into(), options, body, properties).await.unwrap();
        let confirm = sent.await.unwrap();
        assert!(confirm.is_ack() && confirm.take_message().is_none(), "{to} is not there");
    };
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
    put(&queue, b"handled, and come back because its ack was forgotten").await;
    let record = serde_json::json!({"id": "handled", "state": "leaving", "due": 0, "since": 0, "crashes": 0});
    let entry = serde_json::json!({"kind": "record", "key": key, "epoch": 7, "sequence": 1, "record": record});
    put(&format!("{}-order", bench.name), entry.to_string().as_bytes()).await;
    connection.close(200, "".into()).await.unwrap();

    let mut published = Vec::new();
    for _ in 0..3 {
        let message = bench.keyed(key);
        published.push(message.id.clone());
        bench.publish(message).await.unwrap();
    }
    let source = bench.subscribe().await;
    for id in published {
        let event = next_one(&source).await;
        assert_eq!(event.message.id, id);
        settle(&source, &event, Settlement::Ack).await;
    }
    until("the key's queue is gone", || async { !exists(&queue).await }).await;
    until("nothing is known of the key any more", || async {
        let survey = bench.transport.subscription(&bench.name).await.unwrap().unwrap();
        survey.order.is_some_and(|order| order.parked_keys + order.waiting_keys == 0)
    })
    .await;
    source.close().await;
    bench.done().await;
}

async fn bench(prefix: &str) -> Option<Bench> {
    let mut bench = Bench::new(prefix).await?;
    bench.spec.ordered = Some(KeyOrder::default());
    Some(bench)
}

fn dead(event: &Incoming) -> Settlement {
    let mut headers = event.message.headers.clone();
    headers.set(name::DEAD_REASON, "failed");
    Settlement::DeadLetter { headers }
}

/// An hour is a few seconds here: the key is parked, since its head waits for longer than keys are held.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_parked_for_long_delays_only_itself() {
    const OTHERS: usize = 60;
    const DELAY: Duration = Duration::from_secs(4);
    let Some(mut bench) = bench("hour").await else { return };
    bench.spec.hold_max = Duration::from_millis(50);
    let source = bench.subscribe().await;
    bench.publish(bench.keyed("hot")).await.unwrap();
    let head = next_one(&source).await;
    let mut hot = vec![head.message.id.clone()];
    let headers = head.message.headers.clone();
    let asked = Instant::now();
    settle(&source, &head, Settlement::Retry { delay: DELAY, headers }).await;
    let mut batch = Vec::new();
    for n in 0..OTHERS {
        batch.extend([bench.keyed("hot"), bench.keyed(&format!("k{}", n % 7))]);
    }
    hot.extend(batch.iter().step_by(2).map(|message| message.id.clone()));
    for published in bench.transport.publish(batch).await {
        published.unwrap();
    }
    // Nothing where the owner does not answer in time.
    let parked = async || bench.transport.subscription(&bench.name).await.unwrap().unwrap().order;
    let (mut handled, mut come) = (0, Vec::new());
    while handled < OTHERS {
        for event in next(&source, 100).await {
            if event.message.key.as_deref() == Some("hot") {
                assert!(asked.elapsed() >= DELAY, "its head is not due after {handled} others");
                come.push(event.message.id.clone());
            } else {
                handled += 1;
            }
            settle(&source, &event, Settlement::Ack).await;
        }
    }
    if let Some(seen) = parked().await
        && asked.elapsed() < DELAY
    {
        assert_eq!((seen.parked_keys, seen.dead_keys, seen.owners.len(), come.len()), (1, 0, 1, 0));
        assert!(seen.oldest_waiting.is_some_and(|age| age <= DELAY), "{seen:?}");
    }
    while come.len() < hot.len() {
        let event = next_one(&source).await;
        come.push(event.message.id.clone());
        settle(&source, &event, Settlement::Ack).await;
    }
    assert_eq!(come, hot);
    until("it is parked no longer", || async { parked().await.is_some_and(|order| order.parked_keys == 0) }).await;
    source.close().await;
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_which_limit_holds_it_back() {
    let Some(mut bench) = bench("limits").await else { return };
    (bench.spec.max_parked, bench.spec.prefetch) = (2, 6);
    let source = bench.subscribe().await;
    for key in ["a", "b", "c"] {
        bench.publish(bench.keyed(key)).await.unwrap();
    }
    let mut heads = Vec::new();
    while heads.len() < 3 {
        heads.extend(next(&source, 3).await);
    }
    assert_eq!(source.health().limited_by, None);
    for head in &heads[..2] {
        settle(&source, head, dead(head)).await;
    }
    assert_eq!(source.health().limited_by, Some("max_parked"));
    let refused = source.settle(vec![(heads[2].token, dead(&heads[2]))]).await.remove(0).unwrap_err();
    assert_eq!((refused.code(), refused.field_name()), ("REJECTED", Some("max_parked")));
    assert_eq!(source.health().order.unwrap().dead_keys, 2, "two are parked, and the third is still in hand");

    let mut letters = bench.transport.dead_letters(&bench.name).await.unwrap();
    let found = letters.next(1).await.unwrap();
    letters.discard(vec![found[0].token]).await.remove(0).unwrap();
    letters.close().await.unwrap();
    until("there is room for another key", || async {
        source.settle(vec![(heads[2].token, dead(&heads[2]))]).await.remove(0).is_ok()
    })
    .await;

    // Those that are parked are not fetched any more; six others are.
    for n in 0..10 {
        bench.publish(bench.keyed(&format!("k{n}"))).await.unwrap();
    }
    let mut fetched = Vec::new();
    while fetched.len() < 6 {
        fetched.extend(next(&source, 10).await);
    }
    assert_eq!((fetched.len(), source.health().limited_by), (6, Some("max_parked")));
    let mut letters = bench.transport.dead_letters(&bench.name).await.unwrap();
    let tokens = letters.next(9).await.unwrap().into_iter().map(|letter| letter.token).collect();
    for result in letters.discard(tokens).await {
        result.unwrap();
    }
    letters.close().await.unwrap();
    until("only the prefetch is left", || async { source.health().limited_by == Some("prefetch") }).await;
    for event in &fetched {
        settle(&source, event, Settlement::Ack).await;
    }
    let mut rest = 0;
    while rest < 4 {
        for event in next(&source, 10).await {
            settle(&source, &event, Settlement::Ack).await;
            rest += 1;
        }
    }
    assert_eq!(source.health().limited_by, None);
    source.close().await;
    bench.done().await;
}

/// The queue's server is stopped, as after a broker that was killed while the queue was made.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_queue_without_a_leader_delays_only_its_key() {
    let Some(mut bench) = bench("leaderless").await else { return };
    bench.spec.hold_max = Duration::from_millis(50);
    let queue = format!("{}{}", bench.name, KEY.1);
    let of = format!("{{list_to_atom(\"%2F_{queue}\"), node()}}");
    let ctl =
        |action: &str| services(&["ctl", server(), "eval", &format!("ok = ra:{action}_server(quorum_queues, {of}).")]);
    let source = bench.subscribe().await;
    let mut hot = vec![bench.keyed(KEY.0)];
    bench.publish(hot[0].clone()).await.unwrap();
    let head = next_one(&source).await;
    let (delay, headers) = (Duration::from_secs(1), head.message.headers.clone());
    settle(&source, &head, Settlement::Retry { delay, headers }).await;
    source.close().await;
    if !ctl("stop") {
        return bench.done().await;
    }
    for _ in 0..10 {
        let message = bench.keyed(KEY.0);
        bench.publish(message.clone()).await.unwrap();
        hot.push(message);
    }
    let source = bench.subscribe().await;
    until("its queue is known not to answer", || async {
        source.health().last_error.is_some_and(|error| error.contains(&queue))
    })
    .await;
    for n in 0..20 {
        bench.publish(bench.keyed(&format!("k{n}"))).await.unwrap();
        let event = next_one(&source).await;
        assert_ne!(event.message.key.as_deref(), Some(KEY.0));
        settle(&source, &event, Settlement::Ack).await;
    }
    assert_eq!(source.health().recoveries, 0, "the owner goes on");
    assert!(ctl("restart"));
    first_occurrences(&source, &hot).await;
    source.close().await;
    bench.done().await;
}

/// Handles these, each of them for the first time in this order.
async fn first_occurrences(source: &Arc<dyn Source>, messages: &[Message]) {
    let mut seen = HashSet::new();
    for message in messages {
        loop {
            let event = next_one(source).await;
            settle(source, &event, Settlement::Ack).await;
            if seen.insert(event.message.id.clone()) {
                assert_eq!(event.message.id, message.id);
                break;
            }
        }
    }
}

/// A broker that is killed forgets a quorum queue that it has just made, and what that had confirmed: here it is emptied.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_young_key_queue_had_confirmed_is_not_lost_with_it() {
    let Some(mut bench) = bench("young").await else { return };
    bench.spec.hold_max = Duration::from_millis(50);
    let queue = format!("{}{}", bench.name, KEY.1);
    let source = bench.subscribe().await;
    let mut hot = Vec::new();
    for _ in 0..4 {
        let message = bench.keyed(KEY.0);
        hot.push(message.clone());
        bench.publish(message).await.unwrap();
    }
    let head = next_one(&source).await;
    let (delay, headers) = (Duration::from_secs(5), head.message.headers.clone());
    settle(&source, &head, Settlement::Retry { delay, headers }).await;
    until("all are in the queue of their key", || async { messages(&queue).await == Some(4) }).await;
    source.close().await;
    let (connection, channel) = bare().await;
    channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await.unwrap();
    connection.close(200, "".into()).await.unwrap();
    let source = bench.subscribe().await;
    first_occurrences(&source, &hot).await;
    source.close().await;
    bench.done().await;
}
