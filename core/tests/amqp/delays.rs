//! Retries and scheduled events through the lattice.

use std::time::{Duration, Instant};

use tidings::Timestamp;
use tidings::transport::Settlement;

use super::support::{Bench, next_one, settle, unique};

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_delay_overtakes_a_longer_one() {
    let Some(bench) = Bench::new("delays").await else { return };
    let source = bench.subscribe().await;
    let delays = [1300u64, 300, 100, 700];
    let start = Instant::now();
    for delay in delays {
        bench.publish(bench.message(&delay.to_string())).await.unwrap();
        let event = next_one(&source).await;
        let mut headers = event.message.headers.clone();
        headers.set("tidings-attempt", 1i64);
        headers.set("custom", "kept");
        settle(&source, &event, Settlement::Retry { delay: Duration::from_millis(delay), headers }).await;
    }
    let mut order = Vec::new();
    for _ in delays {
        let event = next_one(&source).await;
        let delay: u64 = event.message.routing_key.rsplit('.').next().unwrap().parse().unwrap();
        assert!(start.elapsed() >= Duration::from_millis(delay), "{delay} ms were over too early");
        let headers: Vec<_> = event.message.headers.iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(headers, ["custom", "tidings-attempt"], "only what was given");
        assert_eq!(event.lost_deliveries, 0);
        order.push(delay);
        settle(&source, &event, Settlement::Ack).await;
    }
    assert_eq!(order, [100, 300, 700, 1300]);
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_events_come_when_they_are_due() {
    let Some(bench) = Bench::new("scheduled").await else { return };
    let source = bench.subscribe().await;
    let start = Instant::now();
    let at = |millis| Timestamp::now().after(Duration::from_millis(millis));
    let later = bench.message("later").with_deliver_at(at(3000));
    assert_eq!(bench.publish(later).await.unwrap().routed, None);
    let past = bench.message("past").with_deliver_at(Timestamp::EPOCH);
    assert_eq!(bench.publish(past).await.unwrap().routed, Some(true));
    let event = next_one(&source).await;
    assert!(event.message.routing_key.ends_with("past"));
    let event = next_one(&source).await;
    assert!(event.message.routing_key.ends_with("later") && start.elapsed() >= Duration::from_millis(2990));
    let days = bench.message("days").with_deliver_at(at(78 * 86_400_000));
    let error = bench.publish(days).await.unwrap_err();
    assert_eq!((error.code(), error.field_name()), ("INVALID_DELAY", Some("delay")));
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_events_of_a_deleted_subscription_hold_up_nobody() {
    let (Some(gone), Some(bench)) = (Bench::new("gone").await, Bench::new("stays").await) else { return };
    let source = gone.subscribe().await;
    let mut batch: Vec<_> = (0..100).map(|_| gone.message("x")).collect();
    let at = Timestamp::now().after(Duration::from_millis(300));
    batch.extend((0..100).map(|_| super::support::message(&unique("unwanted")).with_deliver_at(at)));
    for result in gone.transport.publish(batch).await {
        result.unwrap();
    }
    for _ in 0..100 {
        let event = next_one(&source).await;
        let headers = event.message.headers.clone();
        settle(&source, &event, Settlement::Retry { delay: Duration::from_millis(300), headers }).await;
    }
    source.close().await;
    gone.done().await;

    let source = bench.subscribe().await;
    let start = Instant::now();
    let at = Timestamp::now().after(Duration::from_millis(700));
    let batch = (0..200).map(|_| bench.message("x").with_deliver_at(at)).collect();
    for result in bench.transport.publish(batch).await {
        result.unwrap();
    }
    for _ in 0..200 {
        let event = next_one(&source).await;
        settle(&source, &event, Settlement::Ack).await;
    }
    assert!(start.elapsed() < Duration::from_secs(10), "held up for {:?}", start.elapsed());
    bench.done().await;
}
