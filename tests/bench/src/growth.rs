//! How the figures change with what there is more of: bindings, pending events, bytes, handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;
use tidings::{Broker, DomainEvent};
use tokio::sync::Notify;

use crate::measure::{BoxError, Spread};
use crate::options::Options;
use crate::results::Results;

/// Events of one call.
const BATCH: usize = 100;
/// Calls at once.
const CALLS: usize = 10;
/// Events that are handled for one figure.
const HANDLED: usize = 3000;

/// Measures on an embedded file, and on RabbitMQ where `url` names one.
pub(crate) async fn run(
    options: &Options,
    results: &mut Results,
    name: &str,
    url: Option<&str>,
) -> Result<(), BoxError> {
    let quick = options.is_quick();
    for (what, sizes) in [
        ("bindings", &[1, 10, 100, 1000][..]),
        ("pending events", if quick { &[HANDLED] } else { &[HANDLED, 10_000, 100_000, 1_000_000] }),
        ("bytes of payload", &[1, 256, 4096, 65_536]),
        ("handlers of 1 ms each", &[1, 4, 16, 64, 256]),
    ] {
        let work = format!("{name} growth: {what}");
        if !options.wants(&work) {
            continue;
        }
        let mut curve = Vec::new();
        for size in sizes {
            let mut rates = Vec::new();
            // A million events once is enough.
            for _ in 0..if *size > 100_000 { 1 } else { options.rounds.min(3) } {
                let folder = tempfile::tempdir()?;
                let file = format!("sqlite:{}", folder.path().join("growth.db").display());
                let broker = Broker::connect(url.unwrap_or(&file)).await?;
                let rate = match what {
                    "bindings" => of_bindings(&broker, *size, options.length).await,
                    "pending events" => of_pending(&broker, *size).await,
                    "bytes of payload" => of_bytes(&broker, *size, options.length).await,
                    _ => of_handlers(&broker, *size).await,
                };
                broker.delete_subscription(SUBSCRIPTION).await?;
                broker.close().await?;
                rates.push(rate?);
            }
            curve.push((*size, Spread::of(rates.into_iter())));
        }
        results.curve(&work, what, &curve);
    }
    Ok(())
}

const SUBSCRIPTION: &str = "bench-growth";

/// Publishing, where one subscription is bound by so many keys, of which one matches.
async fn of_bindings(broker: &Broker, bindings: usize, length: Duration) -> Result<f64, BoxError> {
    let keys = (0..bindings).map(|n| format!("domain{n}.*")).collect();
    declare(broker, keys).await?;
    publish(broker, length, 100).await
}

async fn of_bytes(broker: &Broker, bytes: usize, length: Duration) -> Result<f64, BoxError> {
    declare(broker, vec!["domain0.*".to_owned()]).await?;
    publish(broker, length, bytes).await
}

/// Handling some events, where so many wait.
async fn of_pending(broker: &Broker, pending: usize) -> Result<f64, BoxError> {
    declare(broker, vec!["domain0.*".to_owned()]).await?;
    publish_many(broker, pending).await?;
    handle(broker, 1, None).await
}

async fn of_handlers(broker: &Broker, handlers: usize) -> Result<f64, BoxError> {
    declare(broker, vec!["domain0.*".to_owned()]).await?;
    publish_many(broker, HANDLED).await?;
    handle(broker, handlers, Some(Duration::from_millis(1))).await
}

/// Declares the subscription, and stops consuming it.
async fn declare(broker: &Broker, keys: Vec<String>) -> Result<(), BoxError> {
    let subscriber = broker.subscriber();
    let mut building = subscriber.subscription(SUBSCRIPTION);
    for key in keys {
        building = building.bind(key);
    }
    let deliveries = building.deliveries().await?;
    deliveries.close(Duration::ZERO).await?;
    Ok(())
}

fn event(n: usize, bytes: usize) -> tidings::Result<DomainEvent> {
    DomainEvent::new("domain0.made", &json!({"n": n, "pad": "x".repeat(bytes)}))
}

/// Events per second, [`CALLS`] batches at once, for so long.
async fn publish(broker: &Broker, length: Duration, bytes: usize) -> Result<f64, BoxError> {
    // Some tens of megabytes are enough to fill the pipes.
    let batch = (4_000_000 / bytes).clamp(10, BATCH);
    let (publisher, started) = (broker.publisher(), Instant::now());
    let calls = (0..CALLS).map(|_| async {
        let mut done = 0;
        while started.elapsed() < length {
            let events = (0..batch).map(|n| event(n, bytes)).collect::<Result<Vec<_>, _>>()?;
            for result in publisher.publish_batch(events).await {
                result?;
                done += 1;
            }
        }
        Ok::<usize, BoxError>(done)
    });
    let done: usize = futures_util::future::try_join_all(calls).await?.into_iter().sum();
    Ok(per_second(done, started))
}

async fn publish_many(broker: &Broker, count: usize) -> Result<(), BoxError> {
    let publisher = broker.publisher();
    for first in (0..count).step_by(1000) {
        let events = (first..count.min(first + 1000)).map(|n| event(n, 100)).collect::<Result<Vec<_>, _>>()?;
        for result in publisher.publish_batch(events).await {
            result?;
        }
    }
    Ok(())
}

/// Handles [`HANDLED`] events, each of which takes so long; events per second from the first one on.
async fn handle(broker: &Broker, handlers: usize, each: Option<Duration>) -> Result<f64, BoxError> {
    let (count, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let begun = Arc::new(std::sync::OnceLock::new());
    let subscriber = broker.subscriber();
    let (counting, first, done) = (count.clone(), begun.clone(), last.clone());
    subscriber.subscription(SUBSCRIPTION).bind("domain0.*").prefetch(1000).concurrency(handlers).handle(
        move |_event: DomainEvent| {
            let (counting, first, done) = (counting.clone(), first.clone(), done.clone());
            async move {
                first.get_or_init(Instant::now);
                if let Some(each) = each {
                    tokio::time::sleep(each).await;
                }
                if counting.fetch_add(1, Relaxed) + 1 == HANDLED {
                    done.notify_one();
                }
                Ok::<(), tidings::Error>(())
            }
        },
    )?;
    let running = subscriber.start().await?;
    last.notified().await;
    let rate = per_second(HANDLED, *begun.get_or_init(Instant::now));
    running.stop().await?;
    Ok(rate)
}

#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn per_second(events: usize, started: Instant) -> f64 {
    events as f64 / started.elapsed().as_secs_f64()
}
