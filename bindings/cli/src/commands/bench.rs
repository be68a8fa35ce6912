//! `tidings bench`: how fast this broker takes and gives events.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tidings::{Broker, DomainEvent, Outcome};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::signal::Stop;
use crate::values::count;

/// Publishes to a subscription of its own, consumes everything again, and deletes the subscription.
///
/// A publish counts when the broker has the event durably, a consume when its acknowledgement is on the way.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Events
    #[arg(short = 'n', long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    events: u64,
    /// Bytes of data in each
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    size: u32,
    /// Events published at once
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=4000))]
    batch: u32,
}

/// What was measured.
struct Rates {
    publish: Duration,
    consume: Duration,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let broker = context.broker().await?;
    let stop = Stop::listen()?;
    let name = format!("bench-{}", tidings::event::new_id());
    let measured = tokio::select! {
        measured = measure(context, &broker, &name, &options) => measured.map(Some),
        () = stop.asked(1) => Ok(None),
    };
    context.out.progress("");
    // Whatever happened, nothing of it stays.
    let deleted = broker.delete_subscription(&name).await;
    let rates = measured?;
    deleted?;
    broker.close().await?;
    match rates {
        Some(rates) => print(context, &options, &rates),
        None => Ok(Exit::Interrupted),
    }
}

async fn measure(context: &Context, broker: &Broker, name: &str, options: &Options) -> Result<Rates, Failure> {
    let routing_key = format!("{name}.event");
    let prefetch = 2000;
    let subscriber = broker.subscriber();
    // Declared and let go, so that publishing is measured alone.
    subscriber.subscription(name).bind(&*routing_key).deliveries().await?.close(Duration::from_secs(5)).await?;
    let data = serde_json::value::to_raw_value(&"x".repeat(options.size.saturating_sub(2) as usize))
        .map_err(|e| Failure::system("the data cannot be written", &e.into()))?;
    let publisher = broker.publisher();
    let started = Instant::now();
    let mut sent = 0;
    while sent < options.events {
        let events = (sent..options.events).take(options.batch as usize);
        let batch = events.map(|_| DomainEvent::from_json(&routing_key, data.get())).collect::<Result<Vec<_>, _>>()?;
        sent += batch.len() as u64;
        for receipt in publisher.publish_batch(batch).await {
            receipt?;
        }
        context.out.progress(&format!("published {}", count(sent)));
    }
    let publish = started.elapsed();
    let deliveries = subscriber.subscription(name).bind(&*routing_key).prefetch(prefetch).deliveries().await?;
    let started = Instant::now();
    let mut consumed = 0;
    while consumed < options.events {
        let batch = deliveries.next(prefetch.into()).await?;
        consumed += batch.len() as u64;
        deliveries.settle(batch.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect()).await?;
        context.out.progress(&format!("consumed {}", count(consumed)));
    }
    let consume = started.elapsed();
    deliveries.close(Duration::from_secs(5)).await?;
    Ok(Rates { publish, consume })
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn print(context: &Context, options: &Options, rates: &Rates) -> Result<Exit, Failure> {
    let rate = |took: Duration| (options.events as f64 / took.as_secs_f64().max(1e-9)) as u64;
    let (publish, consume) = (rate(rates.publish), rate(rates.consume));
    if context.out.json {
        context.out.value(&json!({
            "events": options.events, "size": options.size, "batch": options.batch,
            "publish_per_second": publish, "consume_per_second": consume,
        }))?;
    } else {
        context.out.line(format!(
            "{} events of {} bytes: {} published/s (durably, {} at once), {} consumed/s",
            count(options.events),
            options.size,
            count(publish),
            options.batch,
            count(consume)
        ))?;
    }
    Ok(Exit::Ok)
}
