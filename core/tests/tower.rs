//! Tower layers around handlers.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tidings::{BoxError, Broker, DeadLetterFilter, DomainEvent, RetryPolicy};
use tower::ServiceBuilder;

async fn publish(broker: &Broker, count: u32) {
    for n in 0..count {
        broker.publisher().publish(DomainEvent::new("a.b", &n).unwrap()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_layers_error_is_the_handlers() {
    let broker = Broker::connect("memory:").await.unwrap();
    let subscriber = broker.subscriber().layer(ServiceBuilder::new().timeout(Duration::from_secs(5)));
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    subscriber
        .subscription("slow")
        .bind("#")
        .retry(RetryPolicy::fixed(2, Duration::from_secs(1)).retry_on("Elapsed"))
        .handle(move |_| {
            counted.fetch_add(1, SeqCst);
            pending::<Result<(), BoxError>>()
        })
        .unwrap();
    let running = subscriber.start().await.unwrap();
    publish(&broker, 1).await;
    let dead = loop {
        let mut dead = broker.dead_letters("slow", &DeadLetterFilter::new(), 1).await.unwrap();
        match dead.pop() {
            Some(dead) => break dead,
            None => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    };
    running.stop().await.unwrap();
    assert_eq!((runs.load(SeqCst), dead.attempts()), (3, 3));
    assert_eq!((dead.reason(), dead.error_type()), ("max-retries", Some("Elapsed")));
}

#[tokio::test(start_paused = true)]
async fn what_a_layer_limits_holds_for_all_handlers() {
    let broker = Broker::connect("memory:").await.unwrap();
    let subscriber = broker.subscriber().layer(ServiceBuilder::new().concurrency_limit(2));
    let (now, most, done) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for name in ["one", "two"] {
        let (now, most, done) = (now.clone(), most.clone(), done.clone());
        let handler = move |_| {
            let (now, most, done) = (now.clone(), most.clone(), done.clone());
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                now.fetch_sub(1, SeqCst);
                done.fetch_add(1, SeqCst);
                Ok::<(), BoxError>(())
            }
        };
        subscriber.subscription(name).bind("#").concurrency(4).handle(handler).unwrap();
    }
    let running = subscriber.start().await.unwrap();
    publish(&broker, 8).await;
    while done.load(SeqCst) < 16 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    running.stop().await.unwrap();
    assert_eq!(most.load(SeqCst), 2);
}
