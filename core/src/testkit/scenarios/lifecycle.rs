//! Subscriptions and handles: made, refused, watched, closed.

use std::sync::Arc;
use std::time::Duration;

use crate::testkit::scenario::Done;
use crate::testkit::world::{World, metric};
use crate::transport::{Ordered, QueueType};
use crate::{DeadLetterFilter, Deliveries, ErrorKind, Outcome};

/// What is asked of a subscription that nobody has declared is refused by name; deleting it is no error.
pub(super) async fn unknown_subscription(w: Arc<World>) -> Done {
    let name = w.name("nobody");
    let error = refused!(w.broker.replay(&name).run().await, SubscriptionNotFound, "a replay");
    ensure!(error.to_string().contains(&name), "the error does not name it: {error}");
    refused!(w.broker.dead_letters(&name, &DeadLetterFilter::new(), 1).await, SubscriptionNotFound, "a look");
    ensure!(!w.broker.delete_subscription(&name).await?, "something was deleted");
    w.open(&name, "a").await?.close(Duration::ZERO).await?;
    same!(w.dead(&name).await?.len(), 0, "dead letters of a new subscription");
    ensure!(w.broker.delete_subscription(&name).await?, "nothing was deleted");
    refused!(w.broker.replay(&name).run().await, SubscriptionNotFound, "a replay after deleting");
    Ok(())
}

/// Declaring a subscription with other settings is refused, naming the setting; the first one goes on.
pub(super) async fn conflict(w: Arc<World>) -> Done {
    let name = w.name("c");
    let deliveries = w.open(&name, "a").await?;
    let other = w.connect().await?;
    let subscriber = other.subscriber();
    let again = w.subscribe(&subscriber, &name, "a");
    let again = if other.capabilities().ordered == Ordered::No {
        let classic = w.subject.queue_type() == QueueType::Classic;
        again.queue_type(if classic { QueueType::Quorum } else { QueueType::Classic })
    } else {
        again.ordered()
    };
    let error = refused!(again.deliveries().await, SubscriptionConflict, "another declaration");
    ensure!(error.field_name().is_some(), "the error names no setting: {error}");
    w.subscribe(&subscriber, &name, "a").deliveries().await?.close(Duration::ZERO).await?;
    w.publish("a", 1).await?;
    same!(w.handle(&deliveries, 1).await?, [1], "the event");
    w.subscribe(&subscriber, &name, "a").handle(|_| async { Ok::<(), crate::BoxError>(()) })?;
    let twice = w.subscribe(&subscriber, &name, "a").handle(|_| async { Ok::<(), crate::BoxError>(()) });
    refused!(twice, SubscriptionConflict, "a second handler of one subscriber");
    Ok(())
}

/// A subscription that is deleted under its consumer is declared again, and consumed.
pub(super) async fn deleted_under_consumer(w: Arc<World>) -> Done {
    let name = w.name("d");
    let deliveries = w.open(&name, "a").await?;
    w.publish("a", 1).await?;
    let held = w.take(&deliveries, 1).await?.remove(0);
    w.broker.delete_subscription(&name).await?;
    let stale = held.settle(Outcome::Ok).await;
    // It is gone either way; the settlement may have crossed the news.
    ensure!(stale.as_ref().is_err_and(|e| e.kind() == ErrorKind::StaleDelivery) || stale.is_ok(), "{stale:?}");
    let comes = || async {
        w.publish("a", 2).await?;
        let next = tokio::time::timeout(w.units(3), deliveries.next(1)).await;
        let Ok(next) = next else { return Ok(false) };
        let next = next?;
        Ok(next.first().is_some_and(|delivery| delivery.event().data::<u64>().is_ok_and(|n| n == 2)))
    };
    w.eventually(comes).await.map_err(|e| format!("events after it was deleted: {e}"))?;
    let health = deliveries.health();
    ensure!(health.consuming && health.recoveries > 0, "health does not tell: {health:?}");
    Ok(())
}

/// `health` tells whether events would come, not just whether there is a connection.
pub(super) async fn health(w: Arc<World>) -> Done {
    let name = w.name("h");
    let deliveries = w.open(&name, "a").await?;
    let becomes = |consuming: bool| {
        let (w, deliveries) = (w.clone(), &deliveries);
        async move {
            w.eventually(|| async { Ok(deliveries.health().consuming == consuming) })
                .await
                .map_err(|e| format!("consuming = {consuming}: {e}: {:?}", deliveries.health()))
        }
    };
    becomes(true).await?;
    w.publish("a", 1).await?;
    let held = w.take(&deliveries, 1).await?;
    let now = deliveries.health();
    same!((&*now.subscription, now.connected, now.in_flight), (&*name, true, 1), "health with one in hand");
    same!(metric(&w.broker, "tidings_consuming", Some(&name)), 1, "the gauge");
    deliveries.pause().await?;
    becomes(false).await?;
    deliveries.resume().await?;
    becomes(true).await?;
    drop(held);
    w.handle(&deliveries, 1).await?;
    deliveries.close(w.units(1)).await?;
    becomes(false).await?;
    w.broker.ping().await?;
    Ok(())
}

/// Every delivery is counted once, under what became of it.
pub(super) async fn metrics(w: Arc<World>) -> Done {
    let name = w.name("m");
    let broker = w.connect().await?;
    let subscriber = broker.subscriber();
    let deliveries = w.subscribe(&subscriber, &name, "a").max_retries(1).prefetch(7).deliveries().await?;
    let events = (0..7).map(|n| w.event("a", n)).collect::<crate::Result<Vec<_>>>()?;
    for result in broker.publisher().publish_batch(events).await {
        result?;
    }
    same!(metric(&broker, "tidings_published_total", None), 7, "published");
    let taken = w.take(&deliveries, 7).await?;
    same!(metric(&broker, "tidings_in_flight", Some(&name)), 7, "in flight");
    let dead = || Outcome::DeadLetter { reason: "x".into(), message: None };
    let again = Outcome::Retry { after: Some(w.units(1)), message: None };
    let outcomes = [Outcome::Ok, Outcome::Ok, Outcome::Ok, dead(), dead(), Outcome::Discard, again];
    deliveries.settle(taken.into_iter().zip(outcomes).collect()).await?;
    let retried = w.take(&deliveries, 1).await?.remove(0);
    retried.settle(Outcome::Release).await?;
    w.handle(&deliveries, 1).await?;
    let found = ["delivered", "acked", "dead_lettered", "discarded", "retried", "released", "stale", "settle_failures"]
        .map(|what| metric(&broker, &format!("tidings_{what}_total"), Some(&name)));
    same!(found, [9, 4, 2, 1, 1, 1, 0, 0], "delivered, acked, dead, discarded, retried, released, …");
    for gauge in ["tidings_in_flight", "tidings_buffered"] {
        same!(metric(&broker, gauge, Some(&name)), 0, gauge);
    }
    Ok(())
}

/// Closing twice is no error; what is asked of a closed handle is refused as `CLOSED`, and others go on.
pub(super) async fn close(w: Arc<World>) -> Done {
    let name = w.name("c");
    let broker = w.connect().await?;
    let subscriber = broker.subscriber();
    let deliveries: Deliveries = w.subscribe(&subscriber, &name, "a").deliveries().await?;
    broker.publisher().publish(w.event("a", 1)?).await?;
    let held = w.take(&deliveries, 1).await?.remove(0);
    same!(deliveries.close(Duration::ZERO).await?, 1, "events released unfinished");
    same!(deliveries.close(Duration::ZERO).await?, 0, "events released by closing again");
    ensure!(deliveries.next(1).await?.is_empty(), "a closed subscription hands something over");
    refused!(held.settle(Outcome::Ok).await, Closed, "settling after the close");
    broker.close().await?;
    broker.close().await?;
    refused!(broker.publisher().publish(w.event("a", 2)?).await, Closed, "a publish");
    for result in broker.publisher().publish_batch([w.event("a", 3)?]).await {
        refused!(result, Closed, "a batch");
    }
    refused!(w.subscribe(&subscriber, &name, "a").deliveries().await, Closed, "a subscription");
    refused!(broker.replay(&name).run().await, Closed, "a replay");
    refused!(broker.ping().await, Closed, "a ping");
    let deliveries = w.open(&name, "a").await?;
    same!(w.handle(&deliveries, 1).await?, [1], "the event that was released");
    Ok(())
}
