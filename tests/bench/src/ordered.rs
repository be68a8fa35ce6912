//! What order costs: ordered beside unordered consuming over the same broker, with many keys and a handler that waits; and
//! a file with a skewed load, with its hottest key blocked, and with a heap of that key's events in front.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tidings::transport::QueueType;
use tidings::{BoxError as HandlerError, Broker, DeadLetter, DomainEvent, Subscriber};
use tokio::sync::Notify;

use crate::amqp::{EXCHANGE, Server};
use crate::event::Payload;
use crate::measure::{BoxError, Contender, Sample, Watch, alternate};
use crate::options::Options;
use crate::results::Results;
use crate::sqlite_publish::fresh;

const KEYS: usize = 10_000;
const HANDLERS: usize = 64;
const PREFETCH: u16 = 1000;
/// Events of one publish.
const BATCH: usize = 1000;
/// How long a handler takes on RabbitMQ.
const HANDLING: Duration = Duration::from_millis(1);

/// RabbitMQ: the same queue type and load, ordered and not.
pub(crate) async fn amqp(
    options: &Options,
    results: &mut Results,
    server: &Server,
    kind: QueueType,
) -> Result<(), BoxError> {
    let events = options.events(8_000.0);
    let mut contenders = vec![
        Contender::new("tidings, ordered", true, || consume(server, kind, events, true)),
        Contender::new("tidings, not ordered", false, || consume(server, kind, events, false)),
    ];
    alternate(options, &mut contenders).await?;
    let kind = if kind == QueueType::Classic { "classic" } else { "quorum" };
    results.compare(&format!("{} ordered {kind}, 10,000 keys, 1 ms", server.name), &contenders, Some(0.8));
    Ok(())
}

async fn consume(server: &Server, kind: QueueType, events: usize, ordered: bool) -> Result<Sample, BoxError> {
    let broker = Broker::connect(&server.url).await?;
    let name = format!("bench-ordered-{}", std::process::id());
    let subscribe = |subscriber: &Subscriber, progress: &Arc<Progress>| {
        let building = subscriber.subscription(&name).exchange(EXCHANGE).bind("bench.ordered").queue_type(kind);
        let building = building.prefetch(PREFETCH).concurrency(HANDLERS);
        let building = if ordered { building.ordered() } else { building };
        let progress = progress.clone();
        building.handle(move |event: DomainEvent| {
            let progress = progress.clone();
            async move {
                std::hint::black_box(event.data::<Payload>()?.user_id);
                tokio::time::sleep(HANDLING).await;
                progress.one();
                Ok::<(), tidings::Error>(())
            }
        })
    };
    let declared = broker.subscriber();
    subscribe(&declared, &Progress::to(0))?;
    declared.start().await?.stop().await?;
    load(&broker, (0..events).map(|n| n % KEYS)).await?;
    let subscriber = broker.subscriber();
    let progress = Progress::to(events);
    subscribe(&subscriber, &progress)?;
    let watch = Watch::start(server.pid.as_deref());
    let running = subscriber.start().await?;
    progress.first.notified().await;
    let watch = watch.restarted();
    progress.last.notified().await;
    let sample = watch.stop(events);
    running.stop().await?;
    broker.delete_subscription(&name).await?;
    broker.close().await?;
    Ok(sample)
}

/// Which keys a file's events have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Uniform,
    Zipf,
    /// The head of the hottest key is dead.
    ZipfBlocked,
    /// Half of all events are of one key whose head is dead, and in front.
    Heap,
}

/// SQLite: claimed and settled per second, with the skews of the table in `ordering.md`.
pub(crate) async fn sqlite(options: &Options, results: &mut Results) -> Result<(), BoxError> {
    let events = options.events(40_000.0) / BATCH * BATCH;
    let mut contenders = vec![
        Contender::new("tidings, uniform", true, || claim(Load::Uniform, events)),
        Contender::new("tidings, skewed", true, || claim(Load::Zipf, events)),
        Contender::new("tidings, top key blocked", true, || claim(Load::ZipfBlocked, events)),
        Contender::new("tidings, heap of a blocked key", true, || claim(Load::Heap, events)),
        Contender::new("not ordered", false, || unordered(events)),
    ];
    alternate(options, &mut contenders).await?;
    let pairs =
        ["tidings, uniform", "tidings, skewed", "tidings, top", "tidings, heap"].map(|of| (of, "not ordered", None));
    results.against("sqlite ordered, 10,000 keys", &contenders, &pairs);
    Ok(())
}

async fn claim(of: Load, events: usize) -> Result<Sample, BoxError> {
    // By a law like Zipf's: a share of all keys from 0 to 1 as an exponent.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "any key will do"
    )]
    let zipf = |n: usize| (KEYS as f64).powf((n * 7919 % events) as f64 / events as f64) as usize - 1;
    let keys: Vec<usize> = match of {
        Load::Uniform => (0..events).map(|n| n % KEYS).collect(),
        Load::Zipf | Load::ZipfBlocked => (0..events).map(zipf).collect(),
        Load::Heap => (0..events).map(|n| if n < events / 2 { 0 } else { 1 + n % (KEYS - 1) }).collect(),
    };
    let blocked = matches!(of, Load::ZipfBlocked | Load::Heap);
    let handled = keys.iter().filter(|key| !blocked || **key != 0).count();
    run_file(keys, handled, blocked, true).await
}

async fn unordered(events: usize) -> Result<Sample, BoxError> {
    run_file((0..events).map(|n| n % KEYS).collect(), events, false, false).await
}

async fn run_file(keys: Vec<usize>, handled: usize, blocked: bool, ordered: bool) -> Result<Sample, BoxError> {
    let (_folder, broker) = fresh("full").await?;
    broker.delete_subscription("bench").await?;
    let subscriber = broker.subscriber();
    let progress = Progress::to(handled);
    let building =
        subscriber.subscription("bench").exchange(EXCHANGE).bind("#").prefetch(PREFETCH).concurrency(HANDLERS);
    let building = if ordered { building.ordered() } else { building };
    let counted = progress.clone();
    building.handle(move |event: DomainEvent| {
        let progress = counted.clone();
        async move {
            if blocked && event.key() == Some("0") {
                return Err::<(), HandlerError>(DeadLetter::because("blocked").into());
            }
            std::hint::black_box(event.data::<Payload>()?.user_id);
            progress.one();
            Ok(())
        }
    })?;
    // Declared before anything is published.
    subscriber.start().await?.stop().await?;
    load(&broker, keys.into_iter()).await?;
    let watch = Watch::start(None);
    let running = subscriber.start().await?;
    progress.last.notified().await;
    running.stop().await?;
    let sample = watch.stop(handled);
    broker.close().await?;
    Ok(sample)
}

/// Publishes an event for each of these keys.
async fn load(broker: &Broker, keys: impl Iterator<Item = usize>) -> Result<(), BoxError> {
    let publisher = broker.publisher().exchange(EXCHANGE)?;
    let mut batch = Vec::with_capacity(BATCH);
    let mut keys = keys.enumerate().peekable();
    while let Some((n, key)) = keys.next() {
        batch.push(DomainEvent::new("bench.ordered", &Payload::new(n))?.with_domain_object_id(key.to_string()));
        if batch.len() == BATCH || keys.peek().is_none() {
            for published in publisher.publish_batch(std::mem::take(&mut batch)).await {
                published?;
            }
        }
    }
    Ok(())
}

/// How far the handlers are.
struct Progress {
    done: AtomicUsize,
    of: usize,
    first: Notify,
    last: Notify,
}

impl Progress {
    fn to(of: usize) -> Arc<Self> {
        Arc::new(Self { done: AtomicUsize::new(0), of, first: Notify::new(), last: Notify::new() })
    }

    fn one(&self) {
        let done = self.done.fetch_add(1, Relaxed) + 1;
        if done == 1 {
            self.first.notify_one();
        }
        if done == self.of {
            self.last.notify_one();
        }
    }
}
