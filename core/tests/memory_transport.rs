//! The memory transport, behaviour by behaviour, and against a model under random interleavings.
#![cfg(feature = "memory")]

use std::sync::Arc;
use std::time::Duration;

use tidings::event::name;
use tidings::transport::memory::{Chances, MemoryTransport, Operation, When};
use tidings::transport::{
    DeadLetters, Incoming, Message, OnDead, OnRetry, Ordering, Receipt, Settlement, Source, SubscriptionInfo,
    SubscriptionSpec, Transport, registry,
};
use tidings::{Error, ErrorKind, Headers, Result, Timestamp};
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn message(routing_key: &str, id: &str, key: Option<&str>) -> Message {
    Message {
        exchange: "domain-events".into(),
        routing_key: routing_key.into(),
        id: id.into(),
        key: key.map(Into::into),
        timestamp: Timestamp::EPOCH,
        body: "{}".into(),
        headers: Headers::new(),
        deliver_at: None,
        require_route: false,
        deadline: None,
    }
}

fn spec(name: &str, binding_key: &str, ordered: Option<Ordering>) -> SubscriptionSpec {
    let mut spec = SubscriptionSpec::new(name);
    spec.binding_keys.push(binding_key.to_owned());
    spec.ordered = ordered;
    spec
}

fn ordered(on_retry: OnRetry, on_dead: OnDead) -> Option<Ordering> {
    Some(Ordering { on_retry, on_dead })
}

async fn publish(transport: &MemoryTransport, message: Message) -> Result<Receipt> {
    transport.publish(vec![message]).await.remove(0)
}

/// Publishes events of one key, or of none.
async fn fill(transport: &MemoryTransport, key: Option<&str>, ids: &[&str]) {
    for result in transport.publish(ids.iter().map(|id| message("a.b", id, key)).collect()).await {
        result.unwrap();
    }
}

/// What there is now.
async fn now(source: &Arc<dyn Source>, max: usize) -> Vec<Incoming> {
    timeout(Duration::from_millis(1), source.next(max)).await.map_or_else(|_| Vec::new(), Result::unwrap)
}

fn ids(batch: &[Incoming]) -> Vec<&str> {
    batch.iter().map(|incoming| &*incoming.message.id).collect()
}

async fn settle(source: &Arc<dyn Source>, incoming: &Incoming, settlement: Settlement) -> Result<()> {
    source.settle(vec![(incoming.token, settlement)]).await.remove(0)
}

async fn ack_all(source: &Arc<dyn Source>, batch: &[Incoming]) {
    for result in source.settle(batch.iter().map(|i| (i.token, Settlement::Ack)).collect()).await {
        result.unwrap();
    }
}

fn retry(delay: Duration) -> Settlement {
    let headers = [(name::ATTEMPT, 1i64)].into_iter().collect();
    Settlement::Retry { delay, headers }
}

fn dead() -> Settlement {
    Settlement::DeadLetter { headers: [(name::DEAD_REASON, "error")].into_iter().collect() }
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    result.unwrap_err().code()
}

async fn info(transport: &MemoryTransport, name: &str) -> SubscriptionInfo {
    transport.subscriptions().await.unwrap().into_iter().find(|info| info.name == name).unwrap()
}

async fn walk(
    transport: &MemoryTransport,
    name: &str,
) -> (Box<dyn DeadLetters>, Vec<tidings::transport::StoredDeadLetter>) {
    let mut walk = transport.dead_letters(name).await.unwrap();
    let found = walk.next(usize::MAX).await.unwrap();
    (walk, found)
}

async fn replay_all(transport: &MemoryTransport, name: &str) {
    let (mut walk, found) = walk(transport, name).await;
    let batch = found.into_iter().map(|dead| {
        let headers = tidings::settlement::replayed(&dead.message.headers);
        (dead.token, Message { headers, ..dead.message })
    });
    for result in walk.replay(batch.collect()).await {
        result.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn urls() {
    let a = MemoryTransport::open("memory:urls-shared").unwrap();
    let b = MemoryTransport::open("memory:urls-shared").unwrap();
    let source = a.subscribe(&spec("s", "#", None)).await.unwrap();
    fill(&b, None, &["1"]).await;
    assert_eq!(ids(&now(&source, 9).await), ["1"]);
    assert!(MemoryTransport::open("memory:").unwrap().subscriptions().await.unwrap().is_empty());
    b.close().await.unwrap();
    fill(&a, None, &["2"]).await;
    drop((a, b, source));
    assert!(MemoryTransport::open("memory:urls-shared").unwrap().subscriptions().await.unwrap().is_empty());
    for bad in ["memory://host", "memory:?x=1", "memory:a b", "memory"] {
        assert_eq!(code(MemoryTransport::open(bad)), "INVALID_URL", "{bad}");
    }
    registry::connect("memory:").await.unwrap().ping().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fan_out_by_binding_and_exchange() {
    let transport = MemoryTransport::new();
    let a = transport.subscribe(&spec("a", "user.*", None)).await.unwrap();
    let b = transport.subscribe(&spec("b", "user.#", None)).await.unwrap();
    let mut other = spec("c", "#", None);
    other.exchange = "elsewhere".to_owned();
    let c = transport.subscribe(&other).await.unwrap();
    assert_eq!(publish(&transport, message("user.x", "1", None)).await.unwrap().routed, Some(true));
    publish(&transport, message("user.x.y", "2", None)).await.unwrap();
    assert_eq!(publish(&transport, message("order.x", "3", None)).await.unwrap().routed, Some(false));
    let strict = Message { require_route: true, ..message("order.x", "4", None) };
    assert_eq!(code(publish(&transport, strict).await), "UNROUTABLE");
    let there = Message { exchange: "elsewhere".into(), ..message("order.x", "5", None) };
    publish(&transport, there).await.unwrap();
    assert_eq!(ids(&now(&a, 9).await), ["1"]);
    assert_eq!(ids(&now(&b, 9).await), ["1", "2"]);
    assert_eq!(ids(&now(&c, 9).await), ["5"]);
    // Declaring it again adds the binding.
    let again = transport.subscribe(&spec("a", "order.*", None)).await.unwrap();
    publish(&transport, message("order.x", "6", None)).await.unwrap();
    publish(&transport, message("user.x", "7", None)).await.unwrap();
    assert_eq!(ids(&now(&again, 9).await), ["6", "7"]);
}

#[tokio::test(start_paused = true)]
async fn sources_of_a_subscription_compete_and_wake() {
    let transport = Arc::new(MemoryTransport::new());
    let (a, b) = (
        transport.subscribe(&spec("s", "#", None)).await.unwrap(),
        transport.subscribe(&spec("s", "#", None)).await.unwrap(),
    );
    let wait = |source: Arc<dyn Source>| tokio::spawn(async move { source.next(1).await.unwrap() });
    let (first, second) = (wait(a.clone()), wait(b.clone()));
    tokio::task::yield_now().await;
    fill(&transport, None, &["1", "2"]).await;
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    let mut got = [ids(&first), ids(&second)].concat();
    got.sort_unstable();
    assert_eq!(got, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn conflicts_name_the_setting() {
    let transport = MemoryTransport::new();
    let _source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    let error = transport.subscribe(&spec("s", "#", Some(Ordering::default()))).await.err().unwrap();
    assert_eq!((error.code(), error.field_name()), ("SUBSCRIPTION_CONFLICT", Some("ordered")));
    let mut other = spec("s", "#", None);
    other.exchange = "elsewhere".to_owned();
    let error = transport.subscribe(&other).await.err().unwrap();
    assert_eq!((error.code(), error.field_name()), ("SUBSCRIPTION_CONFLICT", Some("exchange")));
    assert_eq!(transport.dead_letters("none").await.err().map(|e| e.code()), Some("SUBSCRIPTION_NOT_FOUND"));
}

#[tokio::test(start_paused = true)]
async fn scheduled_events_go_to_those_bound_when_due() {
    let transport = MemoryTransport::new();
    let a = transport.subscribe(&spec("a", "#", None)).await.unwrap();
    let started = (Instant::now(), transport.now());
    let at = Message { deliver_at: Some(transport.now().after(60 * SECOND)), ..message("a.b", "1", None) };
    assert_eq!(publish(&transport, at).await.unwrap().routed, None);
    let b = transport.subscribe(&spec("b", "#", None)).await.unwrap();
    assert!(now(&a, 9).await.is_empty());
    assert_eq!(ids(&a.next(9).await.unwrap()), ["1"]);
    assert!((60_000..60_010).contains(&started.0.elapsed().as_millis()));
    assert!((60_000..60_010).contains(&transport.now().since(started.1).as_millis()));
    let c = transport.subscribe(&spec("c", "#", None)).await.unwrap();
    assert_eq!(ids(&now(&b, 9).await), ["1"]);
    assert!(now(&c, 9).await.is_empty());
    let past = Message { deliver_at: Some(started.1), ..message("a.b", "2", None) };
    assert_eq!(publish(&transport, past).await.unwrap().routed, Some(true));
    let far = Message { deliver_at: Some(Timestamp::from_micros(i64::MAX)), ..message("a.b", "3", None) };
    assert_eq!(code(publish(&transport, far).await), "INVALID_DELAY");
}

#[tokio::test(start_paused = true)]
async fn events_scheduled_for_a_deleted_subscription_vanish() {
    let transport = MemoryTransport::new();
    let gone = transport.subscribe(&spec("gone", "#", None)).await.unwrap();
    let stays = transport.subscribe(&spec("stays", "#", None)).await.unwrap();
    fill(&transport, None, &["0"]).await;
    let batch = now(&gone, 9).await;
    settle(&gone, &batch[0], retry(5 * SECOND)).await.unwrap();
    ack_all(&stays, &now(&stays, 9).await).await;
    for id in ["1", "2"] {
        let at = Message { deliver_at: Some(transport.now().after(SECOND)), ..message("a.b", id, None) };
        publish(&transport, at).await.unwrap();
    }
    gone.close().await;
    assert!(transport.delete_subscription("gone").await.unwrap());
    assert!(!transport.delete_subscription("gone").await.unwrap());
    assert_eq!(ids(&stays.next(9).await.unwrap()), ["1", "2"]);
    assert_eq!(transport.subscriptions().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_deleted_under_its_consumer_is_declared_again() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    fill(&transport, None, &["1", "2"]).await;
    let old = now(&source, 1).await;
    transport.delete_subscription("s").await.unwrap();
    assert!(!source.health().consuming);
    assert!(now(&source, 9).await.is_empty());
    assert!(source.health().consuming);
    assert_eq!(source.health().recoveries, 1);
    fill(&transport, None, &["3"]).await;
    assert_eq!(ids(&now(&source, 9).await), ["3"]);
    assert_eq!(code(settle(&source, &old[0], Settlement::Ack).await), "STALE_DELIVERY");
}

#[tokio::test(start_paused = true)]
async fn retries_come_when_due_and_shorter_ones_overtake() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    fill(&transport, None, &["1", "2"]).await;
    let batch = now(&source, 9).await;
    let started = Instant::now();
    settle(&source, &batch[0], retry(10 * SECOND)).await.unwrap();
    settle(&source, &batch[1], retry(5 * SECOND)).await.unwrap();
    assert_eq!(info(&transport, "s").await.ready, 2);
    for (id, seconds) in [("2", 5), ("1", 10)] {
        let batch = source.next(9).await.unwrap();
        assert_eq!((ids(&batch), started.elapsed().as_secs()), (vec![id], seconds));
        assert_eq!(batch[0].message.headers.int(name::ATTEMPT), Some(1));
        ack_all(&source, &batch).await;
    }
    assert_eq!(code(settle(&source, &batch[0], Settlement::Ack).await), "STALE_DELIVERY");
}

#[tokio::test(start_paused = true)]
async fn released_events_go_back_to_their_place() {
    for order in [None, Some(Ordering::default())] {
        let transport = MemoryTransport::new();
        let source = transport.subscribe(&spec("s", "#", order)).await.unwrap();
        fill(&transport, Some("k"), &["1", "2", "3", "4"]).await;
        let batch = now(&source, 3).await;
        for i in [2, 0, 1] {
            settle(&source, &batch[i], Settlement::Release).await.unwrap();
        }
        let batch = now(&source, 9).await;
        assert_eq!(ids(&batch), ["1", "2", "3", "4"]);
        let headers: Headers = [(name::SUSPECT, 1i64)].into_iter().collect();
        settle(&source, &batch[0], Settlement::Suspect { headers }).await.unwrap();
        // Dropped without being closed.
        drop(source);
        let source = transport.subscribe(&spec("s", "#", order)).await.unwrap();
        let batch = now(&source, 9).await;
        assert_eq!(ids(&batch), ["1", "2", "3", "4"]);
        assert!(batch[0].message.headers.get(name::SUSPECT).is_some());
        assert!(batch.iter().all(|incoming| incoming.lost_deliveries == 0));
        source.close().await;
        assert!(source.next(1).await.unwrap().is_empty());
        assert_eq!(code(settle(&source, &batch[0], Settlement::Ack).await), "STALE_DELIVERY");
        assert_eq!(info(&transport, "s").await.ready, 4);
    }
}

#[tokio::test(start_paused = true)]
async fn flow_and_stop() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    source.set_flow(false).await.unwrap();
    fill(&transport, None, &["1"]).await;
    assert!(now(&source, 9).await.is_empty());
    assert!(source.health().connected && !source.health().consuming);
    source.set_flow(true).await.unwrap();
    let batch = now(&source, 9).await;
    let waiting = tokio::spawn({
        let source = source.clone();
        async move { source.next(1).await.unwrap().len() }
    });
    tokio::task::yield_now().await;
    source.stop().await;
    assert_eq!(waiting.await.unwrap(), 0);
    ack_all(&source, &batch).await;
    assert_eq!(info(&transport, "s").await, info_of("s", 0, 0, 0));
}

fn info_of(name: &str, ready: u64, in_flight: u64, dead: u64) -> SubscriptionInfo {
    let mut info = SubscriptionInfo::new(name);
    (info.ready, info.in_flight, info.dead) = (ready, Some(in_flight), dead);
    info
}

#[tokio::test(start_paused = true)]
async fn a_key_is_held_by_one_source_eight_events_at_a_time() {
    let transport = MemoryTransport::new();
    let order = Some(Ordering::default());
    let a = transport.subscribe(&spec("s", "#", order)).await.unwrap();
    let b = transport.subscribe(&spec("s", "#", order)).await.unwrap();
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    fill(&transport, Some("k"), &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    fill(&transport, Some("other"), &["x"]).await;
    fill(&transport, None, &["free"]).await;
    let first = now(&a, 8).await;
    assert_eq!(ids(&first), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(ids(&now(&b, 99).await), ["x", "free"]);
    ack_all(&a, &first[..7]).await;
    assert!(now(&b, 99).await.is_empty());
    ack_all(&a, &first[7..]).await;
    assert_eq!(ids(&now(&b, 3).await), ["8", "9", "10"]);
    assert!(now(&a, 99).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_for_its_head_or_passes_it() {
    let transport = MemoryTransport::new();
    let wait = transport.subscribe(&spec("wait", "#", ordered(OnRetry::Wait, OnDead::Park))).await.unwrap();
    let pass = transport.subscribe(&spec("pass", "#", ordered(OnRetry::Pass, OnDead::Skip))).await.unwrap();
    fill(&transport, Some("k"), &["1", "2"]).await;
    fill(&transport, Some("l"), &["3"]).await;
    for source in [&wait, &pass] {
        let batch = now(source, 1).await;
        settle(source, &batch[0], retry(5 * SECOND)).await.unwrap();
    }
    assert_eq!(ids(&now(&wait, 9).await), ["3"]);
    let batch = now(&pass, 9).await;
    assert_eq!(ids(&batch), ["2", "3"]);
    tokio::time::advance(6 * SECOND).await;
    // Due, but the key is out.
    assert!(now(&pass, 9).await.is_empty());
    ack_all(&pass, &batch).await;
    assert_eq!(ids(&now(&pass, 9).await), ["1"]);
    assert_eq!(ids(&now(&wait, 9).await), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_parked_key_resumes_by_replay_or_discard() {
    for discard in [false, true] {
        let transport = MemoryTransport::new();
        let source = transport.subscribe(&spec("s", "#", Some(Ordering::default()))).await.unwrap();
        fill(&transport, Some("k"), &["1", "2"]).await;
        let batch = now(&source, 9).await;
        settle(&source, &batch[0], dead()).await.unwrap();
        settle(&source, &batch[1], Settlement::Release).await.unwrap();
        fill(&transport, Some("k"), &["3"]).await;
        assert!(now(&source, 9).await.is_empty());
        assert_eq!(info(&transport, "s").await, info_of("s", 2, 0, 1));
        let (mut walk, found) = walk(&transport, "s").await;
        assert_eq!((walk.depth(), &*found[0].message.id), (1, "1"));
        assert!(found[0].message.headers.get(name::PARKED).is_some());
        assert_eq!(found[0].message.headers.text(name::DEAD_REASON), Some("error"));
        if discard {
            walk.discard(vec![found[0].token]).await.remove(0).unwrap();
            assert_eq!(code(walk.discard(vec![found[0].token]).await.remove(0)), "STALE_DELIVERY");
        } else {
            replay_all(&transport, "s").await;
        }
        let batch = now(&source, 9).await;
        assert_eq!(ids(&batch), if discard { &["2", "3"][..] } else { &["1", "2", "3"] });
        assert!(batch[0].message.headers.get(name::PARKED).is_none());
        ack_all(&source, &batch).await;
        assert_eq!(info(&transport, "s").await, info_of("s", 0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn looking_at_dead_letters_changes_nothing() {
    let transport = MemoryTransport::new();
    for order in [None, ordered(OnRetry::Wait, OnDead::Skip)] {
        let source = transport.subscribe(&spec("s", "#", order)).await.unwrap();
        fill(&transport, Some("k"), &["1", "2", "3"]).await;
        for incoming in now(&source, 2).await {
            settle(&source, &incoming, dead()).await.unwrap();
        }
        for _ in 0..100 {
            let (looking, found) = walk(&transport, "s").await;
            assert_eq!(found.iter().map(|dead| &*dead.message.id).collect::<Vec<_>>(), ["1", "2"]);
            looking.close().await.unwrap();
        }
        let (mut open, _) = walk(&transport, "s").await;
        for incoming in now(&source, 9).await {
            settle(&source, &incoming, dead()).await.unwrap();
        }
        // It ends with what was there when it was opened.
        assert!(open.next(9).await.unwrap().is_empty());
        assert_eq!(info(&transport, "s").await, info_of("s", 0, 0, 3));
        replay_all(&transport, "s").await;
        let batch = now(&source, 9).await;
        assert_eq!(ids(&batch), ["1", "2", "3"]);
        assert!(batch[0].message.headers.is_empty());
        source.close().await;
        transport.delete_subscription("s").await.unwrap();
        assert_eq!(open.next(9).await.map(|_| ()).unwrap_err().code(), "SUBSCRIPTION_NOT_FOUND");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_subscription_rejects_and_nothing_is_stored_anywhere() {
    let transport = MemoryTransport::new().max_events(2);
    let a = transport.subscribe(&spec("a", "a.#", None)).await.unwrap();
    let b = transport.subscribe(&spec("b", "#", None)).await.unwrap();
    fill(&transport, None, &["1", "2"]).await;
    ack_all(&b, &now(&b, 9).await).await;
    let error = publish(&transport, message("a.b", "3", None)).await.unwrap_err();
    assert_eq!((error.code(), error.field_value()), ("REJECTED", Some("a")));
    assert!(error.remedy_text().is_some());
    assert!(now(&b, 9).await.is_empty());
    // The later one of the key would fit, but must not overtake.
    let batch = vec![message("a.b", "3", Some("k")), message("b", "4", Some("k")), message("b", "5", Some("l"))];
    let results = transport.publish(batch).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, false, true]);
    ack_all(&a, &now(&a, 1).await).await;
    publish(&transport, message("a.b", "3", None)).await.unwrap();
    let later = |id| Message { deliver_at: Some(transport.now().after(SECOND)), ..message("b.b", id, None) };
    assert_eq!(code(publish(&transport, later("6")).await), "REJECTED");
    let (_, _) = (ack_all(&b, &now(&b, 9).await).await, ack_all(&a, &now(&a, 9).await).await);
    publish(&transport, later("7")).await.unwrap();
    publish(&transport, later("8")).await.unwrap();
    assert_eq!(code(publish(&transport, later("9")).await), "REJECTED");
}

#[tokio::test(start_paused = true)]
async fn closed_says_so() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    transport.ping().await.unwrap();
    transport.close().await.unwrap();
    transport.close().await.unwrap();
    assert!(source.next(1).await.unwrap().is_empty());
    assert_eq!(code(publish(&transport, message("a", "1", None)).await), "CLOSED");
    assert_eq!(code(transport.ping().await), "CLOSED");
    assert_eq!(code(transport.subscriptions().await), "CLOSED");
    assert_eq!(code(transport.delete_subscription("s").await), "CLOSED");
    assert_eq!(transport.subscribe(&spec("s", "#", None)).await.err().map(|e| e.code()), Some("CLOSED"));
    assert_eq!(transport.dead_letters("s").await.err().map(|e| e.code()), Some("CLOSED"));
}

#[tokio::test(start_paused = true)]
async fn scripted_publish_and_settle_faults() {
    let transport = MemoryTransport::new();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    let faults = transport.faults();
    faults.fail(Operation::Publish, 1, ErrorKind::StoreFull, When::Before);
    faults.fail(Operation::Publish, 1, ErrorKind::ConnectionFailed, When::After);
    let errors: Vec<Error> = transport
        .publish(vec![message("a", "1", None), message("a", "2", None), message("a", "3", None)])
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert_eq!(
        errors.iter().map(|e| (e.code(), e.outcome_unknown())).collect::<Vec<_>>(),
        [("STORE_FULL", false), ("CONNECTION_FAILED", true)]
    );
    let batch = now(&source, 9).await;
    assert_eq!(ids(&batch), ["2", "3"]);
    faults.fail(Operation::Settle, 1, ErrorKind::ConnectionFailed, When::Before);
    assert!(settle(&source, &batch[0], Settlement::Ack).await.unwrap_err().retryable());
    settle(&source, &batch[0], Settlement::Ack).await.unwrap();
    faults.fail(Operation::Settle, 1, ErrorKind::ConnectionFailed, When::After);
    assert!(settle(&source, &batch[1], dead()).await.unwrap_err().retryable());
    assert_eq!(code(settle(&source, &batch[1], dead()).await), "STALE_DELIVERY");
    assert_eq!(info(&transport, "s").await, info_of("s", 0, 0, 1));
    let (mut walk, found) = walk(&transport, "s").await;
    faults.fail(Operation::Replay, 1, ErrorKind::ConnectionFailed, When::Before);
    assert_eq!(code(walk.discard(vec![found[0].token]).await.remove(0)), "CONNECTION_FAILED");
    assert_eq!(info(&transport, "s").await, info_of("s", 0, 0, 1));
    faults.fail(Operation::Subscribe, 1, ErrorKind::AccessRefused, When::Before);
    assert_eq!(transport.subscribe(&spec("t", "#", None)).await.err().map(|e| e.code()), Some("ACCESS_REFUSED"));
}

#[tokio::test(start_paused = true)]
async fn crashes_and_cuts_count_lost_deliveries() {
    let transport = MemoryTransport::new();
    let faults = transport.faults();
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    let bystander = transport.subscribe(&spec("other", "none", None)).await.unwrap();
    fill(&transport, None, &["1"]).await;
    let old = now(&source, 9).await;
    assert_eq!(faults.crash("s"), 1);
    assert_eq!(code(settle(&source, &old[0], Settlement::Ack).await), "STALE_DELIVERY");
    assert_eq!(source.next(9).await.unwrap_err().code(), "CONNECTION_FAILED");
    assert!(!source.health().connected && bystander.health().consuming);

    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    let batch = now(&source, 9).await;
    assert_eq!(batch[0].lost_deliveries, 1);
    assert_eq!(faults.cut_all(), 2);
    assert_eq!(code(transport.ping().await), "CONNECTION_FAILED");
    assert_eq!(code(settle(&source, &batch[0], Settlement::Ack).await), "STALE_DELIVERY");
    assert!(now(&source, 9).await.is_empty());
    assert!(!source.health().connected);
    let waiting = tokio::spawn({
        let source = source.clone();
        async move { source.next(9).await.unwrap() }
    });
    tokio::task::yield_now().await;
    faults.restore();
    let batch = waiting.await.unwrap();
    assert_eq!(batch[0].lost_deliveries, 2);
    assert!(source.health().consuming);
    assert_eq!(source.health().recoveries, 1);
    transport.ping().await.unwrap();
    settle(&source, &batch[0], Settlement::Suspect { headers: Headers::new() }).await.unwrap();
    assert_eq!(now(&source, 9).await[0].lost_deliveries, 0);
}

#[tokio::test(start_paused = true)]
async fn slow_publishes_keep_their_order_and_their_deadline() {
    let transport = Arc::new(MemoryTransport::new());
    let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
    transport.faults().delay(Operation::Publish, 10 * SECOND);
    let started = Instant::now();
    let hurried = Message { deadline: Some(started + SECOND), ..message("a", "0", None) };
    let error = publish(&transport, hurried).await.unwrap_err();
    assert_eq!((error.code(), error.outcome_unknown(), started.elapsed().as_secs()), ("TIMEOUT", true, 1));
    // Dropped while under way: published all the same, and not overtaken by a faster one.
    assert!(timeout(SECOND, publish(&transport, message("a", "1", None))).await.is_err());
    transport.faults().delay(Operation::Publish, Duration::ZERO);
    publish(&transport, message("a", "2", None)).await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 11);
    assert_eq!(ids(&now(&source, 9).await), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_seed_replays() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let transport = MemoryTransport::new();
        let source = transport.subscribe(&spec("s", "#", None)).await.unwrap();
        let chances = Chances::seeded(seed)
            .fail(Operation::Publish, When::Before, 0.2)
            .fail(Operation::Publish, When::After, 0.2)
            .cut(0.3, SECOND)
            .delay(0.2, SECOND);
        transport.faults().random(chances);
        let (mut story, started) = (String::new(), Instant::now());
        for n in 0..50 {
            let result = publish(&transport, message("a", &n.to_string(), None)).await;
            let batch = timeout(2 * SECOND, source.next(3)).await.map_or_else(|_| Vec::new(), Result::unwrap);
            story += &format!("{:?} {:?} {:?}\n", result.is_ok(), ids(&batch), started.elapsed());
        }
        runs.push(story);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[path = "memory_transport/model.rs"]
mod model;
