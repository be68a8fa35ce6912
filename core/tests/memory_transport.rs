//! The memory transport, behaviour by behaviour, and against a model under random interleavings.
#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::unnecessary_wraps, reason = "a specification has an option there")]

#[path = "memory_transport/delivery.rs"]
mod delivery;
#[path = "memory_transport/faults.rs"]
mod faults;
#[path = "memory_transport/model.rs"]
mod model;
#[path = "memory_transport/ordered.rs"]
mod ordered;

use std::sync::Arc;
use std::time::Duration;

use tidings::event::name;
use tidings::transport::memory::{Chances, MemoryTransport, Operation, When};
use tidings::transport::{
    DeadLetters, Incoming, KeyOrder, Message, OnDead, OnRetry, OrderState, Receipt, Settlement, Source,
    SubscriptionInfo, SubscriptionSpec, Transport, registry,
};
use tidings::{Error, ErrorKind, Headers, Result, Timestamp};
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn message(routing_key: &str, id: &str, key: Option<&str>) -> Message {
    Message::new(routing_key, id, "{}").with_key(key.map(Into::into))
}

fn spec(name: &str, binding_key: &str, ordered: Option<KeyOrder>) -> SubscriptionSpec {
    let mut spec = SubscriptionSpec::new(name);
    spec.binding_keys.push(binding_key.to_owned());
    spec.ordered = ordered;
    spec
}

fn ordered(on_retry: OnRetry, on_dead: OnDead) -> Option<KeyOrder> {
    Some(KeyOrder::new().on_retry(on_retry).on_dead(on_dead))
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

/// The depths of a subscription; who consumes it and what is parked is compared elsewhere.
async fn info(transport: &MemoryTransport, name: &str) -> SubscriptionInfo {
    let mut info = transport.subscriptions().await.unwrap().into_iter().find(|info| info.name == name).unwrap();
    (info.consumers, info.oldest, info.parked, info.order) = (None, None, None, None);
    info
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
        (dead.token, dead.message.with_headers(headers))
    });
    for result in walk.replay(batch.collect()).await {
        result.unwrap();
    }
}

fn info_of(name: &str, ready: u64, in_flight: u64, dead: u64) -> SubscriptionInfo {
    let mut info = SubscriptionInfo::new(name);
    (info.ready, info.in_flight, info.dead) = (ready, Some(in_flight), dead);
    info
}
