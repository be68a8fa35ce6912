//! What a publisher does with odd input.
#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tidings::transport::{
    Capabilities, DeadLetters, Message, Receipt, Source, SubscriptionInfo, SubscriptionSpec, Transport, registry,
};
use tidings::{Broker, DomainEvent, PublishOptions, Publisher, Result};
use tokio::sync::Semaphore;

/// The memory transport, which publishes when it is let.
#[derive(Debug)]
struct Held {
    inner: Arc<dyn Transport>,
    room: Semaphore,
}

#[async_trait]
impl Transport for Held {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, batch: Vec<Message>) -> Vec<Result<Receipt>> {
        self.room.acquire().await.unwrap().forget();
        self.inner.publish(batch).await
    }

    async fn subscribe(&self, spec: &SubscriptionSpec) -> Result<Arc<dyn Source>> {
        self.inner.subscribe(spec).await
    }

    async fn dead_letters(&self, subscription: &str) -> Result<Box<dyn DeadLetters>> {
        self.inner.dead_letters(subscription).await
    }

    async fn subscriptions(&self) -> Result<Vec<SubscriptionInfo>> {
        self.inner.subscriptions().await
    }

    async fn delete_subscription(&self, name: &str) -> Result<bool> {
        self.inner.delete_subscription(name).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[tokio::test]
async fn flush_waits_for_publishes_whose_futures_were_dropped() {
    let held = Arc::new(Held { inner: registry::connect("memory:").await.unwrap(), room: Semaphore::new(0) });
    let mut spec = SubscriptionSpec::new("all");
    spec.binding_keys = vec!["a.*".into()];
    held.subscribe(&spec).await.unwrap();
    let publisher = Broker::with_transport(held.clone()).publisher();
    let event = || DomainEvent::new("a.b", &1).unwrap();
    assert!(publisher.publish(event()).now_or_never().is_none());
    assert!(publisher.publish_batch([event(), event()]).now_or_never().is_none());

    let mut flush = std::pin::pin!(publisher.flush());
    held.room.add_permits(1);
    for _ in 0..10 {
        assert!(flush.as_mut().now_or_never().is_none(), "one publish is still under way");
        tokio::task::yield_now().await;
    }
    held.room.add_permits(1);
    flush.await.unwrap();
    assert_eq!(held.subscription("all").await.unwrap().unwrap().ready, 3);
}

#[tokio::test]
async fn the_longest_time_out_is_none() {
    let publisher = Publisher::connect("memory:").await.unwrap();
    let event = DomainEvent::new("a.b", &1).unwrap();
    publisher.publish_with(event, PublishOptions::new().timeout(Duration::MAX)).await.unwrap();
}
