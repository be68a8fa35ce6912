//! Ordered subscriptions that are divided into partitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tidings::KeyOrder;
use tidings::transport::{Settlement, Source, registry};

use crate::support::{Bench, PATIENCE, bare, next, next_one, settle, until, url};

const PARTITIONS: u16 = 4;

async fn bench(prefix: &str) -> Option<Bench> {
    let mut bench = Bench::new(prefix).await?;
    bench.spec.ordered = Some(KeyOrder::default());
    bench.spec.partitions = PARTITIONS;
    Some(bench)
}

pub(crate) async fn messages(queue: &str) -> Option<u32> {
    let (connection, channel) = bare().await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
    connection.close(200, "".into()).await.unwrap();
    found.ok().map(|queue| queue.message_count())
}

fn owned(source: &Arc<dyn Source>) -> usize {
    source.health().order.unwrap().owners.len()
}

/// Awaits that each of these owns so many. On a machine that is slow, a hand-over is given up and tried again after a while.
async fn until_owned(sources: &[(&Arc<dyn Source>, usize)]) {
    let deadline = tokio::time::Instant::now() + 4 * PATIENCE;
    let share = || sources.iter().map(|(source, _)| owned(source)).collect::<Vec<_>>();
    while !sources.iter().all(|(source, count)| owned(source) == *count) {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {:?}", share());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_through_the_splitter_unchanged() {
    let Some(bench) = bench("split").await else { return };
    let source = bench.subscribe().await;
    let message = bench.keyed("abc");
    bench.publish(message.clone()).await.unwrap();
    let event = next_one(&source).await;
    assert_eq!(event.message.id, message.id);
    assert_eq!(event.message.routing_key, message.routing_key);
    assert_eq!(event.message.body, message.body);
    assert_eq!(event.message.key.as_deref(), Some("abc"));
    // SHA-256 of "abc" begins with ba7816bf8f01cfea: partition 2 of 4.
    assert_eq!(messages(&format!("{}-p2", bench.name)).await, Some(0), "it is in hand, from there");
    settle(&source, &event, Settlement::Ack).await;
    source.close().await;
    bench.done().await;
}

/// Publishes `count` events to each of `keys` keys, and returns their ids by key.
async fn publish(bench: &Bench, keys: usize, count: usize) -> BTreeMap<String, Vec<Arc<str>>> {
    let mut published: BTreeMap<String, Vec<Arc<str>>> = BTreeMap::new();
    for at in 0..keys * count {
        let key = format!("key-{}", at % keys);
        let message = bench.keyed(&key);
        published.entry(key).or_default().push(message.id.clone());
        bench.publish(message).await.unwrap();
    }
    published
}

/// Acks whatever comes until all of these have come; their ids by key, in the order of their first coming.
async fn handle(source: &Arc<dyn Source>, mut left: usize) -> BTreeMap<String, Vec<Arc<str>>> {
    let mut handled: BTreeMap<String, Vec<Arc<str>>> = BTreeMap::new();
    while left > 0 {
        for event in next(source, 100).await {
            let of_key = handled.entry(event.message.key.as_deref().unwrap().to_owned()).or_default();
            if !of_key.contains(&event.message.id) {
                of_key.push(event.message.id.clone());
                left -= 1;
            }
            settle(source, &event, Settlement::Ack).await;
        }
    }
    handled
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_spread_over_the_processes_and_come_back() {
    let Some(bench) = bench("spread").await else { return };
    let source = bench.subscribe().await;
    let all = usize::from(PARTITIONS);
    until_owned(&[(&source, all)]).await;
    let other = registry::connect(&url()).await.unwrap();
    let second = other.subscribe(&bench.spec).await.unwrap();
    until_owned(&[(&source, all / 2), (&second, all / 2)]).await;
    // Whoever does not answer in time is left out.
    let seen = async || bench.transport.subscription(&bench.name).await.unwrap().unwrap().order;
    until("every partition has one owner", || async { seen().await.is_some_and(|order| order.owners.len() == all) })
        .await;
    second.close().await;
    until_owned(&[(&source, all)]).await;
    let published = publish(&bench, 12, 5).await;
    assert_eq!(handle(&source, 60).await, published);
    source.close().await;
    other.close().await.unwrap();
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_partitions_changes_only_when_nothing_is_left() {
    let Some(mut bench) = bench("resize").await else { return };
    let refused = async |bench: &Bench, partitions: u16| {
        let mut spec = bench.spec.clone();
        spec.partitions = partitions;
        let error = bench.transport.subscribe(&spec).await.err().expect("a conflict");
        assert_eq!((error.code(), error.field_name()), ("SUBSCRIPTION_CONFLICT", Some("partitions")), "{error:?}");
        error.to_string()
    };
    let source = bench.subscribe().await;
    let published = publish(&bench, 8, 2).await;
    let first = next_one(&source).await;
    assert!(refused(&bench, 2).await.contains("other processes use it"));
    assert!(refused(&bench, 1).await.contains("other processes use it"));
    settle(&source, &first, Settlement::Release).await;
    // All are in their partitions.
    until("the subscription's queue is empty", || async { messages(&bench.name).await == Some(0) }).await;
    source.close().await;
    let message = refused(&bench, 2).await;
    assert!(message.contains("4 partitions, not 2") && message.contains("wait in queue"), "{message}");

    let source = bench.subscribe().await;
    assert_eq!(handle(&source, 16).await, published);
    source.close().await;
    for partitions in [2, 8, 1] {
        // What waits in the subscription's own queue may stay: it has not been divided yet.
        let published = publish(&bench, 8, 2).await;
        bench.spec.partitions = partitions;
        let source = bench.subscribe().await;
        assert_eq!(handle(&source, 16).await, published, "{partitions} partitions");
        source.close().await;
    }
    bench.spec.partitions = PARTITIONS;
    let source = bench.subscribe().await;
    let published = publish(&bench, 8, 2).await;
    assert_eq!(handle(&source, 16).await, published);
    source.close().await;
    assert_eq!(messages(&format!("{}-p3", bench.name)).await, Some(0));
    assert_eq!(messages(&format!("{}-p4", bench.name)).await, None, "one of 8 is left");
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_heads_wait_in_their_partitions_until_replayed_or_discarded() {
    let Some(bench) = bench("dead").await else { return };
    let source = bench.subscribe().await;
    let published = publish(&bench, 8, 2).await;
    let mut heads = HashMap::new();
    while heads.len() < 8 {
        for event in next(&source, 8).await {
            let mut headers = event.message.headers.clone();
            headers.set(tidings::event::name::DEAD_REASON, "failed");
            settle(&source, &event, Settlement::DeadLetter { headers }).await;
            heads.insert(event.message.id.clone(), event.message.key.clone());
        }
    }
    until("all dead heads are seen from outside", || async {
        let seen = bench.transport.subscription(&bench.name).await.unwrap().unwrap();
        seen.dead == 8 && seen.order.is_some_and(|order| (order.parked_keys, order.dead_keys) == (8, 8))
    })
    .await;
    assert_eq!(source.health().order.unwrap().dead_keys, 8);

    let mut letters = bench.transport.dead_letters(&bench.name).await.unwrap();
    let (mut replay, mut discard) = (Vec::new(), Vec::new());
    while let found = letters.next(100).await.unwrap()
        && !found.is_empty()
    {
        for letter in found {
            let mut headers = letter.message.headers.clone();
            headers.remove(tidings::event::name::DEAD_REASON);
            if replay.len() < 4 {
                replay.push((letter.token, letter.message.with_headers(headers)));
            } else {
                discard.push(letter.token);
            }
        }
    }
    for result in letters.replay(replay).await.into_iter().chain(letters.discard(discard).await) {
        result.unwrap();
    }
    letters.close().await.unwrap();
    let handled = handle(&source, 12).await;
    for (key, ids) in handled {
        let of_key = &published[&key];
        assert!(ids == *of_key || ids == of_key[1..], "{key}: {ids:?} of {of_key:?}");
    }
    until("no key is parked any more", || async { source.health().order.unwrap().parked_keys == 0 }).await;
    source.close().await;
    let name = bench.name.clone();
    bench.done().await;
    for queue in ["", "-order", "-p0", "-p0-order", "-p3", "-p3-order"] {
        assert_eq!(messages(&format!("{name}{queue}")).await, None, "{queue} is left");
    }
}

#[test]
fn numbers_that_make_no_sense_are_refused_by_name() {
    let mut spec = tidings::transport::SubscriptionSpec::new("s");
    let mut refused = |partitions, ordered, compat| {
        (spec.partitions, spec.compat) = (partitions, compat);
        spec.ordered = if ordered { Some(KeyOrder::default()) } else { None };
        spec.check().err().map(|error| (error.code().to_owned(), error.field_name().map(str::to_owned)))
    };
    let named = Some(("INVALID_OPTION".to_owned(), Some("partitions".to_owned())));
    assert_eq!(refused(0, true, false), named);
    assert_eq!(refused(65, true, false), named);
    assert_eq!(refused(2, false, false), named);
    assert_eq!(refused(2, true, true), named);
    assert_eq!((refused(64, true, false), refused(1, false, true)), (None, None));
}
