//! What a subscriber does when it is paused, drained, dropped or let down, on the memory transport.
#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::float_cmp, reason = "helpers of tests are tests")]

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings::inbox::MemoryInbox;
use tidings::transport::memory::{Faults, MemoryTransport, Operation, When};
use tidings::{BoxError, Broker, Deliveries, DomainEvent, ErrorKind, Outcome};
use tokio::time::{Instant, timeout};

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

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_long_handler_goes_back_too() {
    let broker = memory().await;
    let subscriber = broker.subscriber();
    let held = subscriber.subscription("s").bind("#").ordered().max_hold(Duration::from_secs(10));
    let deliveries = held.deliveries().await.unwrap();
    publish(&broker, "k", &["1", "2", "3"]).await;
    buffered(&deliveries, 3).await;
    let first = timeout(LONG, deliveries.next(1)).await.unwrap().unwrap().remove(0);
    assert_eq!((first.event().id(), deliveries.health().buffered), ("1", 2));
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(deliveries.health().buffered, 0);
    assert_eq!(metric(&broker, "tidings_released_total"), 2.0);
    first.settle(Outcome::Ok).await.unwrap();
    assert_eq!(handle_one(&deliveries).await, "2");
    assert_eq!(handle_one(&deliveries).await, "3");
}

#[tokio::test(start_paused = true)]
async fn hot_keys_leave_room_for_others() {
    let broker = memory().await;
    let deliveries = broker.subscriber().subscription("s").bind("#").ordered().prefetch(16).deliveries().await.unwrap();
    deliveries.pause().await.unwrap();
    for key in ["hot-1", "hot-2"] {
        let ids: Vec<String> = (0..40).map(|n| format!("{key}-{n}")).collect();
        publish(&broker, key, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    deliveries.resume().await.unwrap();
    buffered(&deliveries, 12).await;
    let hot = deliveries.next(16).await.unwrap();
    assert_eq!(hot.iter().map(|d| d.event().id()).collect::<Vec<_>>(), ["hot-1-0", "hot-2-0"]);
    // None of the hot ones is settled, and another key is served all the same.
    publish(&broker, "cool", &["cool-0"]).await;
    assert_eq!(handle_one(&deliveries).await, "cool-0");
}

fn metric(broker: &Broker, name: &str) -> f64 {
    broker.metrics().iter().filter(|metric| metric.name == name).map(|metric| metric.value).sum()
}

#[tokio::test(start_paused = true)]
async fn steady_work_does_not_keep_what_was_held_too_long() {
    let broker = memory().await;
    let subscriber = broker.subscriber();
    let held = subscriber.subscription("s").bind("#").prefetch(100).max_hold(Duration::from_secs(10));
    let deliveries = held.deliveries().await.unwrap();
    for id in 0..100 {
        publish(&broker, "k", &[&id.to_string()]).await;
    }
    buffered(&deliveries, 100).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        handle_one(&deliveries).await;
    }
    assert!(metric(&broker, "tidings_released_total") > 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_fails_does_not_hold_up_others() {
    let transport = MemoryTransport::new();
    let faults = transport.faults();
    let broker = Broker::with_transport(Arc::new(transport));
    let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    publish(&broker, "k", &["1", "2"]).await;
    buffered(&deliveries, 2).await;
    let mut batch = deliveries.next(2).await.unwrap();
    faults.fail(Operation::Settle, 8, ErrorKind::Rejected, When::Before);
    deliveries.settle_soon([(batch.remove(0), Outcome::DeadLetter { reason: "r".into(), message: None })]);
    // Six tries take 20 + 40 + … ms; the seventh is more than a second away.
    tokio::time::sleep(Duration::from_millis(700)).await;
    faults.clear();
    let began = Instant::now();
    batch.remove(0).settle(Outcome::Ok).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_is_refused_is_told_and_tried_again() {
    let transport = MemoryTransport::new();
    let faults = transport.faults();
    let broker = Broker::with_transport(Arc::new(transport));
    let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    publish(&broker, "k", &["1"]).await;
    let delivery = deliveries.next(1).await.unwrap().remove(0);
    faults.fail(Operation::Settle, 3, ErrorKind::AccessRefused, When::Before);
    assert_eq!(delivery.settle(Outcome::Ok).await.unwrap_err().code(), "ACCESS_REFUSED");
    assert_eq!(deliveries.health().in_flight, 1);
    tokio::time::sleep(LONG).await;
    assert_eq!(deliveries.health().in_flight, 0);
    assert_eq!(metric(&broker, "tidings_acked_total"), 1.0);
}

/// Waits until no source is left.
async fn sources_end(faults: &Faults) {
    for _ in 0..100 {
        if faults.cut_all() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("a source is left");
}

#[tokio::test]
async fn dropped_on_a_thread_without_a_runtime_it_ends() {
    let transport = MemoryTransport::new();
    let faults = transport.faults();
    let broker = Broker::with_transport(Arc::new(transport));
    let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    std::thread::spawn(move || drop(deliveries)).join().unwrap();
    sources_end(&faults).await;
}

#[tokio::test]
async fn a_close_that_was_given_up_on_ends_when_the_handle_is_dropped() {
    let transport = MemoryTransport::new();
    let faults = transport.faults();
    let broker = Broker::with_transport(Arc::new(transport));
    let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    publish(&broker, "k", &["1"]).await;
    let in_hand = deliveries.next(1).await.unwrap();
    timeout(Duration::from_millis(10), deliveries.close(LONG)).await.unwrap_err();
    drop(deliveries);
    drop(in_hand);
    sources_end(&faults).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_close_does_not_wait() {
    let broker = memory().await;
    let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    publish(&broker, "k", &["1"]).await;
    let _in_hand = deliveries.next(1).await.unwrap();
    assert_eq!(deliveries.close(LONG).await.unwrap(), 1);
    let began = Instant::now();
    assert_eq!(deliveries.close(LONG).await.unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_closed_ends_those_who_wait() {
    let broker = memory().await;
    let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    broker.close().await.unwrap();
    let next = timeout(LONG, deliveries.next(1)).await.expect("waits for ever");
    assert!(next.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_is_too_slow_ends_before_its_event_goes_to_another() {
    struct Here(Arc<AtomicBool>);
    impl Drop for Here {
        fn drop(&mut self) {
            // Long enough for another consumer to begin, if it could.
            std::thread::sleep(Duration::from_millis(200));
            self.0.store(false, Relaxed);
        }
    }

    let broker = memory().await;
    let (running, here) =
        (broker.subscriber().drain_timeout(Duration::from_millis(10)), Arc::new(AtomicBool::new(false)));
    let seen = here.clone();
    let handle = move |_| {
        let seen = seen.clone();
        async move {
            seen.store(true, Relaxed);
            let _here = Here(seen);
            std::future::pending::<Result<(), BoxError>>().await
        }
    };
    running.subscription("s").bind("#").handle(handle).unwrap();
    let running = running.start().await.unwrap();
    let other = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    other.pause().await.unwrap();
    publish(&broker, "k", &["1"]).await;
    while !here.load(Relaxed) {
        tokio::task::yield_now().await;
    }
    other.resume().await.unwrap();
    let overlap = tokio::spawn(async move {
        let _taken = other.next(1).await.unwrap();
        here.load(Relaxed)
    });
    assert_eq!(running.stop().await.unwrap(), 1);
    assert!(!overlap.await.unwrap(), "two handlers have the event");
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_settled_where_they_came_from() {
    let broker = memory().await;
    let one = broker.subscriber().subscription("one").bind("#").deliveries().await.unwrap();
    publish(&broker, "k", &["1"]).await;
    let first = one.next(1).await.unwrap().remove(0);
    let two = broker.subscriber().subscription("two").bind("#").deliveries().await.unwrap();
    publish(&broker, "k", &["2"]).await;
    let second = two.next(1).await.unwrap().remove(0);
    one.settle(vec![(first, Outcome::Ok), (second, Outcome::Ok)]).await.unwrap();
    let waiting: Vec<_> = broker.subscriptions().await.unwrap().iter().map(|it| (it.ready, it.in_flight)).collect();
    assert_eq!((waiting[1], two.health().in_flight), ((0, Some(0)), 0));
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_slow_handler_is_not_in_hand() {
    let broker = memory().await;
    let subscriber = broker.subscriber();
    let order = Arc::new(Mutex::new(String::new()));
    let log = order.clone();
    let handle = move |event: DomainEvent| {
        let log = log.clone();
        async move {
            log.lock().unwrap().push_str(event.id());
            if event.id() == "5" {
                tokio::time::sleep(LONG).await;
            }
            Ok::<_, BoxError>(())
        }
    };
    subscriber.subscription("s").bind("#").max_hold(Duration::from_secs(10)).handle(handle).unwrap();
    let running = subscriber.start().await.unwrap();
    publish(&broker, "k", &["1", "2", "3", "4", "5", "6", "7"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.health()[0].in_flight, 1);
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert!(metric(&broker, "tidings_released_total") >= 2.0, "held longer than max_hold");
    tokio::time::sleep(LONG).await;
    assert_eq!(*order.lock().unwrap(), "1234567");
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_goes_back_unrun_has_not_crashed() {
    let transport = MemoryTransport::new();
    let faults = transport.faults();
    let broker = Broker::with_transport(Arc::new(transport));
    let subscriber = broker.subscriber();
    let deliveries = subscriber.subscription("s").bind("#").max_deliveries(1).deliveries().await.unwrap();
    let lose = async || {
        let delivery = deliveries.next(1).await.unwrap();
        faults.cut_all();
        faults.restore();
        drop(delivery);
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    publish(&broker, "k", &["1"]).await;
    // Once, and it is a suspect; twice more, and another time would be its last.
    lose().await;
    lose().await;
    lose().await;
    deliveries.pause().await.unwrap();
    deliveries.resume().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(broker.subscriptions().await.unwrap()[0].dead, 0);
    lose().await;
    assert_eq!(broker.subscriptions().await.unwrap()[0].dead, 1);
}

#[tokio::test(start_paused = true)]
async fn metrics_are_of_now() {
    let transport = MemoryTransport::new();
    let faults = transport.faults();
    let broker = Broker::with_transport(Arc::new(transport));
    let deliveries = broker.subscriber().subscription("s").bind("#").deliveries().await.unwrap();
    assert_eq!(metric(&broker, "tidings_consuming"), 1.0);
    faults.cut_all();
    assert_eq!(metric(&broker, "tidings_consuming"), 0.0);
    assert_eq!(metric(&broker, "tidings_recoveries_total"), 1.0);
    deliveries.close(LONG).await.unwrap();
    drop(deliveries);
    tokio::time::sleep(LONG).await;
    assert_eq!(metric(&broker, "tidings_recoveries_total"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn what_waited_when_the_connection_was_lost_is_not_handed_over() {
    let transport = MemoryTransport::new();
    let faults = transport.faults();
    let broker = Broker::with_transport(Arc::new(transport));
    let deliveries = broker.subscriber().subscription("s").bind("#").ordered().deliveries().await.unwrap();
    publish(&broker, "k", &["1", "2", "3"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    faults.cut_all();
    faults.restore();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for id in ["1", "2", "3"] {
        let delivery = deliveries.next(9).await.unwrap().remove(0);
        assert_eq!(delivery.event().id(), id);
        delivery.settle(Outcome::Ok).await.unwrap();
    }
    assert_eq!(deliveries.health().buffered, 0);
}

#[tokio::test(start_paused = true)]
async fn a_redact_hook_that_panics_lets_nothing_through() {
    let broker = memory().await;
    let subscriber = broker.subscriber();
    let redact = |_: &str| -> String { panic!("the hook's own defect") };
    let handle = |_: DomainEvent| async { Err::<(), BoxError>("the secret".into()) };
    subscriber.subscription("s").bind("#").redact(redact).handle(handle).unwrap();
    let running = subscriber.start().await.unwrap();
    publish(&broker, "k", &["1"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let dead = broker.dead_letters("s", &tidings::DeadLetterFilter::new(), 9).await.unwrap();
    assert_eq!(dead[0].error(), Some("[the redact hook panicked]"));
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_memory_inbox_runs_a_handler_once_and_gives_back_what_is_held() {
    let (broker, inbox) = (memory().await, MemoryInbox::new(LONG * 60, LONG));
    let of = |key: &str| DomainEvent::new("a.b", &1).unwrap().with_idempotency_key(key);
    let held = inbox.claim("s", &of("held")).unwrap().unwrap();
    let (runs, subscriber) = (Arc::new(Mutex::new(Vec::new())), broker.subscriber());
    let noted = runs.clone();
    let handling = subscriber.subscription("s").bind("#").max_retries(1).concurrency(2);
    handling
        .handle_once(inbox.clone(), move |event| {
            let mut runs = noted.lock().unwrap();
            runs.push((event.idempotency_key().to_owned(), event.retries()));
            let first = runs.len() == 1;
            async move { if first { Err(tidings::Retry::after(Duration::ZERO)) } else { Ok(()) } }
        })
        .unwrap();
    let running = subscriber.start().await.unwrap();
    for key in ["a", "a", "held"] {
        broker.publisher().publish(of(key)).await.unwrap();
    }
    let released = || broker.metrics().iter().any(|m| m.name == "tidings_released_total" && m.value > 0.0);
    while runs.lock().unwrap().len() < 2 || !released() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(runs.lock().unwrap().iter().all(|(key, _)| key == "a"), "the other one is somebody else's");
    drop(held);
    while broker.subscriptions().await.unwrap().iter().any(|s| s.ready > 0 || s.in_flight != Some(0)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(runs.lock().unwrap().len(), 3, "{runs:?}");
    assert_eq!(runs.lock().unwrap().last(), Some(&("held".to_owned(), 0)), "no attempt is spent");
    running.stop().await.unwrap();
}
