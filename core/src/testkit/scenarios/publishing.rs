//! What publishing promises.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::testkit::scenario::Done;
use crate::testkit::world::World;
use crate::transport::Receipt;
use crate::{DomainEvent, Error, ErrorKind, PublishMiddleware, PublishNext, PublishOptions, Result, Timestamp};

/// One result per event, in order; one that is refused does not stop the others.
pub(super) async fn batch(w: Arc<World>) -> Done {
    let deliveries = w.open(&w.name("all"), "user.*").await?;
    let publisher = w.broker.publisher().max_payload(1000)?;
    let mut events = (0..200).map(|n| w.event("user.registered", n)).collect::<Result<Vec<_>>>()?;
    events[100] = DomainEvent::new(&w.key("user.registered"), &"x".repeat(2000))?;
    let ids: Vec<String> = events.iter().map(|event| event.id().to_owned()).collect();
    let results = publisher.publish_batch(events).await;
    same!(results.len(), 200, "results");
    for (i, (result, id)) in results.into_iter().zip(ids).enumerate() {
        if i == 100 {
            refused!(result, PayloadTooLarge, "a body beyond max_payload");
        } else {
            same!(&*result?.id, id, "the receipt's id");
        }
    }
    let expected: Vec<u64> = (0..200).filter(|n| *n != 100).collect();
    same!(w.handle(&deliveries, 199).await?, expected, "events");
    Ok(())
}

/// `flush` returns once everything that was under way is confirmed.
pub(super) async fn flush(w: Arc<World>) -> Done {
    let deliveries = w.open(&w.name("all"), "user.*").await?;
    let publisher = w.broker.publisher();
    let confirmed = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for n in 0..100 {
        let (publisher, event, confirmed) = (publisher.clone(), w.event("user.registered", n)?, confirmed.clone());
        let mut publish = Box::pin(async move {
            let result = publisher.publish(event).await;
            confirmed.fetch_add(1, Ordering::SeqCst);
            result
        });
        // Polled once, so that it is under way.
        if let Some(done) = publish.as_mut().now_or_never() {
            done?;
        } else {
            tasks.push(tokio::spawn(publish));
        }
    }
    publisher.flush().await?;
    // The confirm is there; the task that waits for it may need a turn to say so.
    for task in tasks {
        task.await??;
    }
    same!(confirmed.load(Ordering::SeqCst), 100, "confirmed events");
    same!(w.handle(&deliveries, 100).await?.len(), 100, "events");
    Ok(())
}

/// Dropping the future of a publish that has begun does not take the event back, nor disturb others.
pub(super) async fn cancellation(w: Arc<World>) -> Done {
    let deliveries = w.open(&w.name("all"), "user.*").await?;
    let publisher = w.broker.publisher();
    publisher.publish(w.event("user.registered", 0)?).await?;
    for n in 1..10 {
        let mut publish = pin!(publisher.publish(w.event("user.registered", n)?));
        // One poll hands it over; then it is dropped.
        let _confirmed_or_not = publish.as_mut().now_or_never();
    }
    publisher.publish(w.event("user.registered", 10)?).await?;
    same!(w.handle(&deliveries, 11).await?, (0..11).collect::<Vec<_>>(), "events");
    Ok(())
}

/// Middleware runs in the order it was added, may change the event, and may refuse it.
pub(super) async fn middleware(w: Arc<World>) -> Done {
    struct Stamp(&'static str);
    #[async_trait]
    impl PublishMiddleware for Stamp {
        async fn publish(&self, event: DomainEvent, options: PublishOptions, next: PublishNext<'_>) -> Result<Receipt> {
            if event.data::<u64>()? == 13 {
                return Err(Error::new(ErrorKind::InvalidEvent, "unlucky"));
            }
            let before = event.headers().text("stamps").unwrap_or_default().to_owned();
            next.run(event.with_header("stamps", before + self.0), options).await
        }
    }
    let deliveries = w.open(&w.name("all"), "user.*").await?;
    let publisher = w.broker.publisher().middleware(Stamp("a")).middleware(Stamp("b"));
    refused!(publisher.publish(w.event("user.registered", 13)?).await, InvalidEvent, "what the middleware refuses");
    publisher.publish(w.event("user.registered", 1)?).await?;
    for result in publisher.publish_batch([w.event("user.registered", 2)?]).await {
        result?;
    }
    for n in [1, 2] {
        let delivery = w.take(&deliveries, 1).await?.remove(0);
        same!(delivery.event().data::<u64>()?, n, "the event");
        same!(delivery.event().headers().text("stamps"), Some("ab"), "the stamps");
        delivery.settle(crate::Outcome::Ok).await?;
    }
    Ok(())
}

/// Every part of an event arrives as it was published.
pub(super) async fn unchanged(w: Arc<World>) -> Done {
    let deliveries = w.open(&w.name("all"), "ü.*").await?;
    let data = r#"{"näme":"Zoë \"x\"\n\u0000","n":123456789012345678901234567890,"f":[1.50,null,true]}"#;
    let event = DomainEvent::from_json(&w.key("ü.registriert"), data)?
        .with_domain_object_id("7/ä")
        .with_id("ein Name ü")?
        .with_timestamp(Timestamp::from_micros(1_360_285_200_123_456))
        .with_header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .with_header("tidings-tenant", "acme")
        .with_header("tidings-from-the-future", 7i64)
        .with_header("flag", true);
    w.broker.publisher().publish(event.clone()).await?;
    let delivery = w.take(&deliveries, 1).await?.remove(0);
    let found = delivery.event();
    same!(found.to_json(), event.to_json(), "the body");
    same!((found.key(), found.tenant(), found.retries()), (Some("7/ä"), Some("acme"), 0), "key, tenant, retries");
    for (name, value) in event.headers().iter() {
        same!(found.headers().get(name), Some(value), format!("header {name}"));
    }
    delivery.settle(crate::Outcome::Ok).await?;
    Ok(())
}
