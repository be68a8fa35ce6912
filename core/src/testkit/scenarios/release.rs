//! Events go back unharmed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::testkit::scenario::Done;
use crate::testkit::world::{World, metric, numbers, sorted};
use crate::{BoxError, DomainEvent};

/// A delivery that is dropped is delivered again, no attempt spent; so is all that a dropped consumer had fetched.
pub(super) async fn on_drop(w: Arc<World>) -> Done {
    let name = w.name("r");
    let deliveries = w.open(&name, "a").await?;
    for n in 0..5 {
        w.publish("a", n).await?;
    }
    let taken = w.take(&deliveries, 5).await?;
    same!(sorted(numbers(&taken)), [0, 1, 2, 3, 4], "events");
    drop(taken);
    let again = w.take(&deliveries, 5).await?;
    same!(sorted(numbers(&again)), [0, 1, 2, 3, 4], "events after a drop");
    ensure!(again.iter().all(|delivery| delivery.retries() == 0), "a release has spent an attempt");
    drop(deliveries);
    drop(again);
    let deliveries = w.open(&name, "a").await?;
    let again = w.take(&deliveries, 5).await?;
    same!(sorted(numbers(&again)), [0, 1, 2, 3, 4], "events after the consumer was dropped");
    ensure!(again.iter().all(|delivery| delivery.retries() == 0), "a release has spent an attempt");
    Ok(())
}

/// `stop` starts nothing new, lets handlers finish, releases what is over its time and what never started.
pub(super) async fn drain(w: Arc<World>) -> Done {
    let (name, seen, finish) = (w.name("r"), w.seen(), Arc::new(Notify::new()));
    let subscriber = w.broker.subscriber().drain_timeout(w.units(3));
    let handler = {
        let (seen, finish) = (seen.clone(), finish.clone());
        move |event: DomainEvent| {
            let (number, finish) = (seen.note(&event), finish.clone());
            async move {
                match number {
                    0 => finish.notified().await,
                    1 => std::future::pending().await,
                    _ => {}
                }
                Ok::<(), BoxError>(())
            }
        }
    };
    w.subscribe(&subscriber, &name, "a").concurrency(2).prefetch(20).handle(handler)?;
    let running = subscriber.start().await?;
    for n in 0..10 {
        w.publish("a", n).await?;
    }
    seen.wait(2).await?;
    w.eventually(|| async { Ok(running.health()[0].buffered == 8) }).await?;
    let begun = Instant::now();
    let (stopped, ()) = tokio::join!(running.stop(), async {
        tokio::time::sleep(w.units(1)).await;
        finish.notify_one();
    });
    same!(stopped?, 1, "events released unfinished");
    ensure!(begun.elapsed() >= w.units(3), "the drain ended after {:?}", begun.elapsed());
    same!(sorted(seen.numbers()), [0, 1], "calls of the handler");
    same!(running.stop().await?, 0, "events released by a second stop");
    same!(metric(&w.broker, "tidings_acked_total", Some(&name)), 1, "acknowledged events");
    let deliveries = w.open(&name, "a").await?;
    let rest = w.take(&deliveries, 9).await?;
    same!(sorted(numbers(&rest)), (1..10).collect::<Vec<_>>(), "events that come again");
    ensure!(rest.iter().all(|delivery| delivery.retries() == 0), "a drain has spent an attempt");
    Ok(())
}

/// While paused nothing is handled and what was fetched goes back; after `resume` all of it comes.
pub(super) async fn pause(w: Arc<World>) -> Done {
    let (name, seen) = (w.name("r"), w.seen());
    let witness = w.open(&w.name("witness"), "a").await?;
    let subscriber = w.broker.subscriber();
    let handler = {
        let seen = seen.clone();
        move |event: DomainEvent| {
            seen.note(&event);
            async { Ok::<(), BoxError>(()) }
        }
    };
    w.subscribe(&subscriber, &name, "a").handle(handler)?;
    let running = subscriber.start().await?;
    w.publish("a", 0).await?;
    seen.wait(1).await?;
    running.pause(&name).await?;
    for n in 1..=5 {
        w.publish("a", n).await?;
    }
    w.handle(&witness, 6).await?;
    w.eventually(|| async { Ok(w.info(&name).await?.ready == 5) }).await.map_err(|e| format!("5 events wait: {e}"))?;
    same!(seen.numbers(), [0], "events handled while paused");
    let health = running.health().remove(0);
    ensure!(health.paused && !health.consuming, "health does not tell: {health:?}");
    // A competitor gets them meanwhile.
    let other = w.connect().await?;
    let competitor = w.subscribe(&other.subscriber(), &name, "a").prefetch(2).deliveries().await?;
    w.handle(&competitor, 2).await?;
    competitor.close(Duration::ZERO).await?;
    running.resume(&name).await?;
    let all = seen.wait(4).await?;
    same!(all.len(), 4, "events handled here");
    running.stop().await?;
    refused!(running.pause("nobody").await, SubscriptionNotFound, "pausing what is not there");
    Ok(())
}
