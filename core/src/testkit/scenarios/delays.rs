//! Events published for later.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::testkit::scenario::Done;
use crate::testkit::world::World;
use crate::{Outcome, PublishOptions, Timestamp};

/// What clocks may disagree by.
const SLACK: Duration = Duration::from_millis(3);

/// An event published for later comes then, and what is published meanwhile comes before it.
pub(super) async fn scheduled(w: Arc<World>) -> Done {
    let deliveries = w.open(&w.name("s"), "a").await?;
    // What a transport needs for delays is there before the clock starts.
    w.publish_after("warm-up", 0, w.units(1)).await?;
    let begun = Instant::now();
    let at = PublishOptions::new().deliver_at(w.broker.transport().now().after(w.units(6)));
    let publisher = w.broker.publisher();
    // Handed over together, so that none begins to wait much later than another.
    let (late, at_time, now) = tokio::join!(
        w.publish_after("a", 3, w.units(12)),
        publisher.publish_with(w.event("a", 2)?, at),
        w.publish("a", 1),
    );
    same!((late?.routed, at_time?.routed, now?.routed.is_none()), (None, None, false), "routed");
    for (n, delay) in [(1, 0), (2, 6), (3, 12)] {
        let delivery = w.take(&deliveries, 1).await?.remove(0);
        same!(delivery.event().data::<u64>()?, n, "the next event");
        same!(delivery.retries(), 0, "retries of a scheduled event");
        let waited = begun.elapsed();
        ensure!(waited + SLACK >= w.units(delay), "event {n} came after {waited:?}, not {:?}", w.units(delay));
        delivery.settle(Outcome::Ok).await?;
    }
    Ok(())
}

/// A time that has passed means now.
pub(super) async fn past(w: Arc<World>) -> Done {
    let deliveries = w.open(&w.name("s"), "a").await?;
    for options in [
        PublishOptions::new().deliver_at(Timestamp::from_micros(1)),
        PublishOptions::new().deliver_at(w.broker.transport().now()),
        PublishOptions::new().delay(Duration::ZERO),
    ] {
        let begun = Instant::now();
        w.broker.publisher().publish_with(w.event("a", 1)?, options).await?;
        same!(w.handle(&deliveries, 1).await?, [1], "the event");
        ensure!(!w.subject.virtual_time() || begun.elapsed() < w.units(1), "it came after {:?}", begun.elapsed());
    }
    Ok(())
}

/// Who gets a scheduled event is decided when it is due: a subscription made meanwhile gets it too.
pub(super) async fn not_before_due(w: Arc<World>) -> Done {
    let early = w.open(&w.name("early"), "a").await?;
    w.publish_after("a", 1, w.units(30)).await?;
    let late = w.open(&w.name("late"), "a").await?;
    same!(w.handle(&late, 1).await?, [1], "the event of the later subscription");
    same!(w.handle(&early, 1).await?, [1], "the event of the earlier subscription");
    Ok(())
}

/// Delayed events of a subscription that is gone are in nobody's way.
pub(super) async fn orphans(w: Arc<World>) -> Done {
    let (gone, here) = (w.name("gone"), w.name("here"));
    let subscriber = w.broker.subscriber();
    let doomed = w.subscribe(&subscriber, &gone, "a").prefetch(100).max_retries(1).deliveries().await?;
    let alive = w.subscribe(&subscriber, &here, "b").prefetch(100).max_retries(1).deliveries().await?;
    let events = (0..100).map(|n| w.event("a", n)).collect::<crate::Result<Vec<_>>>()?;
    for result in w.broker.publisher().publish_batch(events).await {
        result?;
    }
    let again = |units| Outcome::Retry { after: Some(w.units(units)), message: None };
    let taken = w.take(&doomed, 100).await?;
    doomed.settle(taken.into_iter().map(|delivery| (delivery, again(3))).collect()).await?;
    doomed.close(Duration::ZERO).await?;
    ensure!(w.broker.delete_subscription(&gone).await?, "there was nothing to delete");
    let events = (0..20).map(|n| w.event("b", n)).collect::<crate::Result<Vec<_>>>()?;
    for result in w.broker.publisher().publish_batch(events).await {
        result?;
    }
    let taken = w.take(&alive, 20).await?;
    alive.settle(taken.into_iter().map(|delivery| (delivery, again(4))).collect()).await?;
    let begun = Instant::now();
    same!(w.handle(&alive, 20).await?.len(), 20, "delayed events of the other subscription");
    ensure!(begun.elapsed() < w.patience() / 3, "they were held up for {:?}", begun.elapsed());
    Ok(())
}
