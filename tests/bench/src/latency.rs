//! From the publish call to the handler at 500 events/s, and how late delayed events are at 1,000 events/s.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use tidings::{Broker, DomainEvent, PublishOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::amqp::{ByHand, EXCHANGE, Server, confirmed};
use crate::event::{self, Envelope, Payload, now};
use crate::measure::{BoxError, Spread, percentile};
use crate::options::Options;
use crate::results::Results;

const RATE: f64 = 500.0;
const DELAYED_RATE: f64 = 1000.0;
/// Delays of the delayed events, in milliseconds: up to four hops through the lattice.
const DELAYS: [u64; 4] = [200, 500, 700, 1500];
/// Longest wait for an event that should have come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Percentiles of each round.
#[derive(Default)]
struct Rounds {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, mut micros: Vec<f64>) {
        micros.sort_by(f64::total_cmp);
        self.p50.push(percentile(&micros, 0.5));
        self.p99.push(percentile(&micros, 0.99));
    }

    fn spreads(&self) -> [(&'static str, Spread); 2] {
        let of = |figures: &[f64]| Spread::of(figures.iter().copied());
        [("p50", of(&self.p50)), ("p99", of(&self.p99))]
    }
}

/// Tidings beside lapin, both with confirms, on a quorum queue each.
pub(crate) async fn run(options: &Options, results: &mut Results, server: &Server) -> Result<(), BoxError> {
    let (mut ours, mut peer) = (Rounds::default(), Rounds::default());
    let count = options.events(RATE);
    for _ in 0..options.rounds {
        ours.add(publish_and_handle(&server.url, count, RATE, None).await?);
        peer.add(by_hand(&server.url, count).await?);
    }
    for ((name, ours), (_, peer)) in ours.spreads().into_iter().zip(peer.spreads()) {
        let work = format!("{} latency at 500/s, {name}", server.name);
        results.less(&work, "µs", ours, Some(("lapin, confirms", peer)), None);
    }
    Ok(())
}

/// Tidings on the embedded file, where there is no peer.
pub(crate) async fn of_embedded(options: &Options, results: &mut Results, url: &str) -> Result<(), BoxError> {
    let mut ours = Rounds::default();
    for _ in 0..options.rounds {
        ours.add(publish_and_handle(url, options.events(RATE), RATE, None).await?);
    }
    for (name, ours) in ours.spreads() {
        results.less(&format!("sqlite latency at 500/s, {name}"), "µs", ours, None, None);
    }
    Ok(())
}

/// How late delayed events are.
pub(crate) async fn of_delays(options: &Options, results: &mut Results, server: &Server) -> Result<(), BoxError> {
    let mut ours = Rounds::default();
    for _ in 0..options.rounds {
        let count = options.events(DELAYED_RATE);
        ours.add(publish_and_handle(&server.url, count, DELAYED_RATE, Some(&DELAYS)).await?);
    }
    for (name, ours) in ours.spreads() {
        results.less(&format!("{} lateness of delayed events at 1000/s, {name}", server.name), "µs", ours, None, None);
    }
    Ok(())
}

/// Microseconds from the call (or from when the delay is over) to the handler, for each event.
async fn publish_and_handle(url: &str, count: usize, rate: f64, delays: Option<&[u64]>) -> Result<Vec<f64>, BoxError> {
    let broker = Broker::connect(url).await?;
    // Never the same again: RabbitMQ's dead-letter workers take a second to find out that a queue was deleted and is back.
    let name = format!("bench-latency-{}", tidings::event::new_id());
    let (sender, receiver) = unbounded_channel();
    let subscriber = broker.subscriber();
    subscriber.subscription(&name).exchange(EXCHANGE).bind("#").prefetch(1000).handle(move |event: DomainEvent| {
        let sender = sender.clone();
        async move {
            let seen = now();
            let payload: Payload = event.data()?;
            report(&sender, &payload, seen);
            Ok::<(), tidings::Error>(())
        }
    })?;
    let running = subscriber.start().await?;
    let publisher = broker.publisher().exchange(EXCHANGE)?;
    publisher.publish(event::ours(usize::MAX)?).await?;
    let mut pace = pace(rate);
    let mut unconfirmed = tokio::task::JoinSet::new();
    for n in 0..count {
        pace.tick().await;
        let (publisher, event) = (publisher.clone(), event::ours(n)?);
        let delay = delays.map(|delays| Duration::from_millis(delays[n % delays.len()]));
        unconfirmed.spawn(async move {
            let options = delay.map_or_else(PublishOptions::new, |delay| PublishOptions::new().delay(delay));
            publisher.publish_with(event, options).await
        });
    }
    while let Some(done) = unconfirmed.join_next().await {
        done??;
    }
    let late = collect(receiver, count, delays).await?;
    running.stop().await?;
    broker.delete_subscription(&name).await?;
    broker.close().await?;
    Ok(late)
}

async fn by_hand(url: &str, count: usize) -> Result<Vec<f64>, BoxError> {
    let (publishing, consuming) = (ByHand::confirming(url).await?, ByHand::connect(url).await?);
    let queue = format!("bench-latency-by-hand-{}", std::process::id());
    publishing.declare(&queue, false).await?;
    let options = BasicConsumeOptions::default();
    consuming.channel.basic_qos(1000, lapin::options::BasicQosOptions::default()).await?;
    let mut consumer =
        consuming.channel.basic_consume(queue.as_str().into(), "bench".into(), options, FieldTable::default()).await?;
    let (sender, receiver) = unbounded_channel();
    let handling = tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            let seen = now();
            let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&delivery.data) else { break };
            report(&sender, &envelope.data, seen);
            if delivery.acker.ack(BasicAckOptions::default()).await.is_err() {
                break;
            }
        }
    });
    confirmed(publishing.send(usize::MAX).await?).await?;
    let mut pace = pace(RATE);
    let mut unconfirmed = tokio::task::JoinSet::new();
    for n in 0..count {
        pace.tick().await;
        unconfirmed.spawn(publishing.send(n).await?);
    }
    while let Some(done) = unconfirmed.join_next().await {
        done??;
    }
    let late = collect(receiver, count, None).await?;
    handling.abort();
    // First the consumer: lapin breaks a connection whose dropped consumer the server cancels.
    consuming.close().await?;
    publishing.remove(&queue).await?;
    publishing.close().await?;
    Ok(late)
}

fn pace(rate: f64) -> tokio::time::Interval {
    let mut pace = interval(Duration::from_secs_f64(1.0 / rate));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    pace
}

fn report(sender: &UnboundedSender<(u64, u64, u64)>, payload: &Payload, seen: u64) {
    // The receiver goes once all have come.
    let _all_came = sender.send((payload.user_id, payload.made, seen));
}

#[allow(clippy::cast_precision_loss, reason = "nanoseconds of a few seconds")]
async fn collect(
    mut receiver: UnboundedReceiver<(u64, u64, u64)>,
    count: usize,
    delays: Option<&[u64]>,
) -> Result<Vec<f64>, BoxError> {
    let mut late = Vec::with_capacity(count);
    let deadline = Instant::now() + PATIENCE;
    while late.len() < count {
        let next = timeout(deadline.saturating_duration_since(Instant::now()), receiver.recv()).await;
        let (n, made, seen) = next?.ok_or("the consumer ended")?;
        let Ok(n) = usize::try_from(n) else { continue };
        if n == usize::MAX {
            continue;
        }
        let delay = delays.map_or(0, |delays| delays[n % delays.len()] * 1_000_000);
        late.push((seen as f64 - made as f64 - delay as f64) / 1000.0);
    }
    Ok(late)
}
