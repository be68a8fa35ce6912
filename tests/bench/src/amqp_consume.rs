//! Draining a preloaded queue, JSON decoded, trivial handler, prefetch 1,000: the same queue for everybody.
//!
//! Two matches: one handler, whose acks the order lets be `multiple`, beside lapin with one ack for 100; and many handlers
//! at once beside lapin with one ack each that nobody waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tidings::transport::QueueType;
use tidings::{Broker, DomainEvent};
use tokio::sync::Notify;

use crate::amqp::{ByHand, EXCHANGE, Server};
use crate::event::{Envelope, Payload};
use crate::measure::{BoxError, Contender, Sample, Watch, alternate};
use crate::options::Options;
use crate::results::Results;

const PREFETCH: u16 = 1000;
/// Events that one ack stands for.
const MULTIPLE: usize = 100;
/// Handlers at once in the second match.
const HANDLERS: usize = 64;

struct Setting<'a> {
    server: &'a Server,
    queue: String,
    classic: bool,
    events: usize,
    loader: ByHand,
}

/// Measures.
pub(crate) async fn run(
    options: &Options,
    results: &mut Results,
    server: &Server,
    classic: bool,
) -> Result<(), BoxError> {
    let kind = if classic { "classic" } else { "quorum" };
    let loader = ByHand::confirming(&server.url).await?;
    let queue = format!("bench-consume-{}", std::process::id());
    let setting = Setting { server, queue, classic, events: options.events(24_000.0), loader };
    // Tidings declares the queue, so that it has the arguments that its users' queues have.
    let broker = Broker::connect(&server.url).await?;
    subscription(&broker, &setting, 1, |_| {})?.start().await?.stop().await?;
    compare(options, results, &setting, &format!("{} consume {kind}", server.name)).await?;
    broker.delete_subscription(&setting.queue).await?;
    broker.close().await?;
    setting.loader.close().await
}

async fn compare(options: &Options, results: &mut Results, setting: &Setting<'_>, work: &str) -> Result<(), BoxError> {
    let mut contenders = vec![
        Contender::new("tidings, 1 handler", true, || ours(setting, 1)),
        Contender::new("lapin, ack-multiple/100", false, || by_hand(setting, MULTIPLE)),
    ];
    alternate(options, &mut contenders).await?;
    results.compare(&format!("{work}, acks multiple"), &contenders, Some(0.95));
    let mut contenders = vec![
        Contender::new("tidings, 64 handlers", true, || ours(setting, HANDLERS)),
        Contender::new("lapin, ack each, pipelined", false, || by_hand(setting, 1)),
    ];
    alternate(options, &mut contenders).await?;
    results.compare(&format!("{work}, single acks"), &contenders, Some(0.95));
    Ok(())
}

/// Declares a subscription's queue that gets everything.
pub(crate) async fn declare(broker: &Broker, queue: &str, classic: bool) -> Result<(), BoxError> {
    let queue_type = if classic { QueueType::Classic } else { QueueType::Quorum };
    let subscriber = broker.subscriber();
    Ok(subscriber.subscription(queue).exchange(EXCHANGE).bind("#").queue_type(queue_type).declare().await?)
}

fn subscription(
    broker: &Broker,
    s: &Setting<'_>,
    handlers: usize,
    handle: impl Fn(Payload) + Send + Sync + 'static,
) -> Result<tidings::Subscriber, BoxError> {
    let subscriber = broker.subscriber();
    let queue_type = if s.classic { QueueType::Classic } else { QueueType::Quorum };
    let handle = Arc::new(handle);
    subscriber
        .subscription(&s.queue)
        .exchange(EXCHANGE)
        .bind("#")
        .queue_type(queue_type)
        .prefetch(PREFETCH)
        .concurrency(handlers)
        .handle(move |event: DomainEvent| {
            let handle = handle.clone();
            async move {
                handle(event.data()?);
                Ok::<(), tidings::Error>(())
            }
        })?;
    Ok(subscriber)
}

async fn ours(s: &Setting<'_>, handlers: usize) -> Result<Sample, BoxError> {
    s.loader.publish(s.events).await?;
    let broker = Broker::connect(&s.server.url).await?;
    let (count, first, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (events, started, done) = (s.events, first.clone(), last.clone());
    let subscriber = subscription(&broker, s, handlers, move |payload| {
        std::hint::black_box(payload.user_id);
        match count.fetch_add(1, Relaxed) + 1 {
            1 => started.notify_one(),
            n if n == events => done.notify_one(),
            _ => {}
        }
    })?;
    let watch = Watch::start(s.server.pid.as_deref());
    let running = subscriber.start().await?;
    first.notified().await;
    let watch = watch.restarted();
    last.notified().await;
    let sample = watch.stop(s.events);
    running.stop().await?;
    broker.close().await?;
    Ok(sample)
}

async fn by_hand(s: &Setting<'_>, multiple: usize) -> Result<Sample, BoxError> {
    s.loader.publish(s.events).await?;
    let by_hand = ByHand::connect(&s.server.url).await?;
    by_hand.channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let watch = Watch::start(s.server.pid.as_deref());
    let mut consumer =
        by_hand.channel.basic_consume(s.queue.as_str().into(), "bench".into(), options, FieldTable::default()).await?;
    let mut watch = Some(watch);
    let mut running = None;
    for n in 1..=s.events {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        if let Some(watch) = watch.take() {
            running = Some(watch.restarted());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(&delivery.data)?;
        std::hint::black_box(envelope.data.user_id);
        if n % multiple == 0 || n == s.events {
            let ack = by_hand.channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: multiple > 1 });
            // The first poll queues the frame; that it left is not waited for.
            ack.now_or_never().transpose()?;
        }
    }
    let sample = running.ok_or("nothing came")?.stop(s.events);
    by_hand.close().await?;
    Ok(sample)
}
