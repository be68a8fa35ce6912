//! Order per key.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::testkit::scenario::Done;
use crate::testkit::seen::Seen;
use crate::testkit::world::{World, numbers};
use crate::{BoxError, Deliveries, Discard, DomainEvent, KeyOrder, OnRetry, Outcome, Retry, Running};

/// Handles an ordered subscription; event 1 wants one retry.
async fn with_retry(w: &World, name: &str, on_retry: OnRetry, seen: &Seen) -> Result<Running, BoxError> {
    let subscriber = w.broker.subscriber();
    let (seen, delay) = (seen.clone(), w.units(4));
    let handler = move |event: DomainEvent| {
        let again = seen.note(&event) == 1 && event.retries() == 0;
        async move { if again { Err(Retry::after(delay)) } else { Ok(()) } }
    };
    let ordering = KeyOrder { on_retry, ..KeyOrder::default() };
    w.subscribe(&subscriber, name, "#").ordered_with(ordering).max_retries(3).handle(handler)?;
    Ok(subscriber.start().await?)
}

/// Published at once, so that nothing comes due before all are there.
async fn publish_three_and_another(w: &World) -> Done {
    let keyed = |number, key| Ok::<_, crate::Error>(w.event("a.b", number)?.with_domain_object_id(key));
    let events = [keyed(1, "k")?, keyed(2, "k")?, keyed(3, "k")?, keyed(10, "other")?, w.event("a.b", 20)?];
    for result in w.broker.publisher().publish_batch(events).await {
        result?;
    }
    Ok(())
}

/// The events of a key wait behind one that is to be retried; other keys and events without one do not.
pub(super) async fn wait(w: Arc<World>) -> Done {
    let seen = w.seen();
    let running = with_retry(&w, &w.name("o"), OnRetry::Wait, &seen).await?;
    publish_three_and_another(&w).await?;
    let all = seen.wait(6).await?;
    running.stop().await?;
    let of_key: Vec<u64> = all.iter().copied().filter(|n| *n < 10).collect();
    same!(of_key, [1, 1, 2, 3], format!("events of the key, of {all:?}"));
    let at = |n: u64| all.iter().rposition(|m| *m == n);
    ensure!(at(10) < at(1) && at(20) < at(1), "other keys were held up: {all:?}");
    Ok(())
}

/// The events of a key overtake one that is to be retried, if the subscription says so.
pub(super) async fn pass(w: Arc<World>) -> Done {
    let seen = w.seen();
    let running = with_retry(&w, &w.name("o"), OnRetry::Pass, &seen).await?;
    publish_three_and_another(&w).await?;
    let all = seen.wait(6).await?;
    running.stop().await?;
    let of_key: Vec<u64> = all.iter().copied().filter(|n| *n < 10).collect();
    same!(of_key, [1, 2, 3, 1], format!("events of the key, of {all:?}"));
    Ok(())
}

#[derive(Default)]
struct Ledger {
    running: HashSet<String>,
    overlaps: Vec<String>,
    handled: BTreeMap<String, Vec<u64>>,
}

/// Many consumers, each with several handlers: never two events of a key at a time, and each key in order.
pub(super) async fn one_at_a_time(w: Arc<World>) -> Done {
    in_order(w, 1).await
}

/// The same where the keys are divided, or where that changes nothing.
pub(super) async fn partitions(w: Arc<World>) -> Done {
    in_order(w, 3).await
}

async fn in_order(w: Arc<World>, partitions: u16) -> Done {
    const KEYS: u64 = 7;
    const EVENTS: u64 = 140;
    let name = w.name("o");
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut all = Vec::new();
    for i in 0..3 {
        let broker = if i == 0 { w.broker.clone() } else { w.connect().await? };
        let subscriber = broker.subscriber();
        let ledger = ledger.clone();
        let handler = move |event: DomainEvent| {
            let ledger = ledger.clone();
            async move {
                let (key, n) = (event.key().unwrap_or_default().to_owned(), event.data::<u64>()?);
                if !ledger.lock().running.insert(key.clone()) {
                    ledger.lock().overlaps.push(format!("{key}: {n}"));
                }
                // Long enough for others to come in between.
                tokio::time::sleep(Duration::from_millis(n % 3)).await;
                let mut ledger = ledger.lock();
                ledger.running.remove(&key);
                ledger.handled.entry(key).or_default().push(n);
                if n % 5 == 0 { Err::<(), BoxError>(Discard.into()) } else { Ok(()) }
            }
        };
        let building = w.subscribe(&subscriber, &name, "a").ordered().partitions(partitions);
        building.concurrency(4).lease(Duration::from_secs(10)).handle(handler)?;
        all.push(subscriber.start().await?);
    }
    for n in 0..EVENTS {
        w.publish_keyed("a", &format!("k{}", n % KEYS), n).await?;
    }
    let handled = || ledger.lock().handled.values().map(Vec::len).sum::<usize>();
    w.eventually(|| async { Ok(handled() as u64 >= EVENTS) })
        .await
        .map_err(|e| format!("{} handled: {e}", handled()))?;
    for running in all {
        running.stop().await?;
    }
    let ledger = ledger.lock();
    ensure!(ledger.overlaps.is_empty(), "two events of a key at a time: {:?}", ledger.overlaps);
    for (key, found) in &ledger.handled {
        ensure!(found.is_sorted(), "{key} out of order: {found:?}");
    }
    same!(handled_once(&ledger), EVENTS, "events");
    Ok(())
}

fn handled_once(ledger: &Ledger) -> u64 {
    ledger.handled.values().flatten().collect::<HashSet<_>>().len() as u64
}

async fn ordered(w: &World, name: &str) -> Result<Deliveries, BoxError> {
    Ok(w.subscribe(&w.broker.subscriber(), name, "a").ordered().deliveries().await?)
}

/// An event that is given back is next again, before those behind it.
pub(super) async fn release(w: Arc<World>) -> Done {
    let name = w.name("o");
    let deliveries = ordered(&w, &name).await?;
    for n in 1..=3 {
        w.publish_keyed("a", "k", n).await?;
    }
    for _ in 0..3 {
        let first = w.take(&deliveries, 1).await?;
        same!(numbers(&first), [1], "the head");
        drop(first);
    }
    let first = w.take(&deliveries, 1).await?.remove(0);
    ensure!(deliveries.try_next(10)?.unwrap_or_default().is_empty(), "a second event of the key beside the first");
    first.settle(Outcome::Release).await?;
    deliveries.close(w.units(1)).await?;
    let deliveries = ordered(&w, &name).await?;
    let mut found = Vec::new();
    for _ in 0..3 {
        found.extend(w.handle(&deliveries, 1).await?);
    }
    same!(found, [1, 2, 3], "events");
    Ok(())
}

/// A pause gives back what was fetched, places kept; after `resume` every key goes on.
pub(super) async fn pause(w: Arc<World>) -> Done {
    let name = w.name("o");
    ordered(&w, &name).await?.close(Duration::ZERO).await?;
    for n in 0..12 {
        w.publish_keyed("a", ["j", "k", "l"][n % 3], n as u64).await?;
    }
    let deliveries = ordered(&w, &name).await?;
    let held = w.take(&deliveries, 1).await?;
    w.eventually(|| async { Ok(deliveries.health().buffered > 2) })
        .await
        .map_err(|e| format!("events fetched: {e}"))?;
    deliveries.pause().await?;
    let first = numbers(&held);
    deliveries.settle(held.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect()).await?;
    deliveries.resume().await?;
    let mut found = first;
    found.extend(w.handle(&deliveries, 11).await?);
    for key in 0..3 {
        let of_key: Vec<u64> = found.iter().copied().filter(|n| n % 3 == key).collect();
        same!(of_key, [key, key + 3, key + 6, key + 9], format!("events of a key, of {found:?}"));
    }
    Ok(())
}

/// What a dead consumer had of a key comes again before what it had not.
pub(super) async fn crash(w: Arc<World>) -> Done {
    let name = w.name("o");
    // The child does not know of order, so it is this process that consumes, and its connection that is lost.
    let broker = w.connect().await?;
    let doomed = w.subscribe(&broker.subscriber(), &name, "a").ordered().deliveries().await?;
    for n in 1..=5 {
        w.publish_keyed("a", "k", n).await?;
    }
    same!(w.handle(&doomed, 1).await?, [1], "the first event");
    let held = w.take(&doomed, 1).await?;
    same!(numbers(&held), [2], "the event in hand");
    // Closing the handle under its consumer ends the connection or the lease; what it held is anyone's.
    broker.close().await?;
    let deliveries = ordered(&w, &name).await?;
    let mut found = Vec::new();
    for _ in 0..4 {
        found.extend(w.handle(&deliveries, 1).await?);
    }
    same!(found, [2, 3, 4, 5], "events after the crash");
    let late = held.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect();
    if w.broker.capabilities().fenced_settle {
        ensure!(doomed.settle(late).await.is_err(), "a stale owner's settlement was accepted");
    }
    Ok(())
}
