//! Order per key beside none: 10,000 keys, a handler of 1 ms, 64 at once, the default prefetch. Ours on both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tidings::transport::QueueType;
use tidings::{Broker, DomainEvent};
use tokio::sync::Notify;

use crate::amqp::{EXCHANGE, Server};
use crate::measure::{BoxError, Contender, Sample, Watch, alternate};
use crate::options::Options;
use crate::results::Results;

/// Ordering keys.
const KEYS: usize = 10_000;
/// Handlers at once.
const HANDLERS: usize = 64;
/// Time that each takes.
const WORK: Duration = Duration::from_millis(1);
/// Events that are handed to the publisher at once.
const BATCH: usize = 2000;

struct Setting<'a> {
    server: &'a Server,
    classic: bool,
    events: usize,
}

/// Measures.
pub(crate) async fn run(
    options: &Options,
    results: &mut Results,
    server: &Server,
    classic: bool,
) -> Result<(), BoxError> {
    let kind = if classic { "classic" } else { "quorum" };
    let setting = Setting { server, classic, events: options.events(12_000.0) };
    let mut contenders = [
        Contender::new("tidings, ordered", true, || handle(&setting, true)),
        Contender::new("tidings, unordered", false, || handle(&setting, false)),
    ];
    alternate(options.rounds, &mut contenders).await?;
    results.compare(&format!("{} ordered {kind}, 10,000 keys", server.name), &contenders, Some(0.8));
    Ok(())
}

fn subscriber(
    broker: &Broker,
    s: &Setting<'_>,
    name: &str,
    ordered: bool,
    handled: impl Fn() + Send + Sync + 'static,
) -> Result<tidings::Subscriber, BoxError> {
    let subscriber = broker.subscriber();
    let queue_type = if s.classic { QueueType::Classic } else { QueueType::Quorum };
    let mut subscription = subscriber.subscription(name).exchange(EXCHANGE).bind("order.#").queue_type(queue_type);
    if ordered {
        subscription = subscription.ordered();
    }
    let handled = Arc::new(handled);
    subscription.concurrency(HANDLERS).handle(move |_: DomainEvent| {
        let handled = handled.clone();
        async move {
            tokio::time::sleep(WORK).await;
            handled();
            Ok::<(), tidings::Error>(())
        }
    })?;
    Ok(subscriber)
}

async fn publish(broker: &Broker, events: usize) -> Result<(), BoxError> {
    let publisher = broker.publisher().exchange(EXCHANGE)?;
    for from in (0..events).step_by(BATCH) {
        let batch = (from..(from + BATCH).min(events)).map(|n| {
            let event = DomainEvent::new("order.placed", &n)?;
            Ok::<_, tidings::Error>(event.with_domain_object_id(format!("k{}", n % KEYS)))
        });
        for result in publisher.publish_batch(batch.collect::<Result<Vec<_>, _>>()?).await {
            result?;
        }
    }
    Ok(())
}

async fn handle(s: &Setting<'_>, ordered: bool) -> Result<Sample, BoxError> {
    let broker = Broker::connect(&s.server.url).await?;
    let name = format!("bench-order-{}-{ordered}", std::process::id());
    // Declared before, so that what is published waits for the consumer.
    subscriber(&broker, s, &name, ordered, || {})?.start().await?.stop().await?;
    publish(&broker, s.events).await?;
    let (count, first, last) = (AtomicUsize::new(0), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (events, started, done) = (s.events, first.clone(), last.clone());
    let subscriber = subscriber(&broker, s, &name, ordered, move || match count.fetch_add(1, Relaxed) + 1 {
        1 => started.notify_one(),
        n if n == events => done.notify_one(),
        _ => {}
    })?;
    let watch = Watch::start(s.server.pid.as_deref());
    let running = subscriber.start().await?;
    first.notified().await;
    let watch = watch.restarted();
    last.notified().await;
    let sample = watch.stop(s.events);
    running.stop().await?;
    broker.delete_subscription(&name).await?;
    broker.close().await?;
    Ok(sample)
}
