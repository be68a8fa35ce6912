//! `tidings subscribe`: prints events, or runs a command for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use tidings::{Broker, Deliveries, Delivery, Outcome, RetryPolicy};
use tokio::time::Instant;

use super::handler::Handler;
use super::pipe;
use crate::context::Context;
use crate::event::Line;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::redact::visible;
use crate::signal::Stop;
use crate::values::{count, duration, show};

/// Events that are printed together where they do not go into a pipe.
const PIECE: usize = 64;

/// Makes the subscription if it is not there; it collects events from then on, whether anybody runs or not.
///
/// Ctrl-C and SIGTERM drain: commands that run may finish, the rest goes back with no attempt spent. A second one
/// ends at once.
#[derive(Debug, Args)]
#[command(after_help = "With --exec, the event is on the command's stdin as one line of JSON, and in its environment:
TIDINGS_SUBSCRIPTION, TIDINGS_ROUTING_KEY, TIDINGS_EVENT_ID, TIDINGS_TIMESTAMP, TIDINGS_RETRIES
and, where it has them, TIDINGS_DOMAIN_OBJECT_ID, TIDINGS_KEY, TIDINGS_TENANT, TIDINGS_TRACEPARENT.
The command's exit code decides:
  0      handled
  65     a dead letter at once, reason \"rejected\" (EX_DATAERR)
  75     again later, at most --max-retries times (EX_TEMPFAIL)
  other  failed: again as --max-retries says, then a dead letter

Examples:
  tidings subscribe billing --bind 'order.*'
  tidings subscribe audit --bind '#' --json >> audit.jsonl
  tidings subscribe mailer --bind 'user.*' --max-retries 5 --exec ./send-mail")]
pub(crate) struct Options {
    /// Name of the subscription; processes with the same name compete for its events
    subscription: String,
    /// Wants events whose routing key matches: * is one word, # any number; may be repeated
    #[arg(short, long = "bind", value_name = "PATTERN")]
    binds: Vec<String>,
    /// Exchange, the namespace of binding keys
    #[arg(long, default_value = tidings::transport::DEFAULT_EXCHANGE)]
    exchange: String,
    /// Events of a key one at a time, in order
    #[arg(long)]
    ordered: bool,
    /// RabbitMQ, ordered: divides the keys into this many queues, so that as many processes work at a time
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    partitions: u16,
    /// Events handled at once, with --exec
    #[arg(long, default_value_t = 1, requires = "exec")]
    concurrency: usize,
    /// Most retries of one event
    #[arg(long, default_value_t = 0)]
    max_retries: u32,
    /// Delay before the first retry
    #[arg(long, value_parser = duration, default_value = "1s")]
    retry_delay: Duration,
    /// Growth from one retry delay to the next
    #[arg(long, default_value_t = 2.0, value_name = "FACTOR")]
    retry_factor: f64,
    /// Longest retry delay
    #[arg(long, value_parser = duration, default_value = "5m")]
    retry_max: Duration,
    /// Drop what is given up on instead of keeping it as a dead letter
    #[arg(long)]
    no_dead_letters: bool,
    /// Stop after so many events
    #[arg(long)]
    limit: Option<u64>,
    /// Stop after this time; with --limit not reached, exit code 9
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
    /// End a command that runs longer: the event failed
    #[arg(long, value_parser = duration, requires = "exec", value_name = "DURATION")]
    exec_timeout: Option<Duration>,
    /// Time that running commands get to finish when it stops
    #[arg(long, value_parser = duration, default_value = "30s")]
    drain_timeout: Duration,
    /// Run this command for every event; everything behind it is the command's
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "COMMAND")]
    exec: Vec<String>,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let broker = context.broker().await?;
    let stop = Stop::listen()?;
    let deliveries = Arc::new(open(&broker, &options).await?);
    let consumer = Arc::new(Consumer {
        context: context.clone(),
        deliveries: deliveries.clone(),
        taken: AtomicU64::new(0),
        limit: options.limit.unwrap_or(u64::MAX),
        until: options.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        stop: stop.clone(),
    });
    let consuming = consume(&consumer, &options);
    tokio::pin!(consuming);
    // A second signal, or the end of the drain, gives back what is still in hand.
    let insisted = async {
        stop.asked(1).await;
        tokio::select! {
            () = stop.asked(2) => {}
            () = tokio::time::sleep(options.drain_timeout) => {}
        }
    };
    let ended = tokio::select! {
        ended = &mut consuming => Some(ended),
        () = insisted => None,
    };
    deliveries.close(Duration::from_secs(1)).await?;
    let closed = broker.close().await;
    summary(context, &broker, &options.subscription);
    let Some(ended) = ended else { return Ok(Exit::Interrupted) };
    ended?;
    closed?;
    let reached = options.limit.is_none_or(|limit| consumer.taken.load(Ordering::Relaxed) >= limit);
    Ok(if reached || options.timeout.is_none() { Exit::Ok } else { Exit::LimitNotReached })
}

async fn open(broker: &Broker, options: &Options) -> Result<Deliveries, Failure> {
    let subscriber = broker.subscriber();
    let mut subscription = subscriber
        .subscription(&options.subscription)
        .exchange(&*options.exchange)
        .dead_letter(!options.no_dead_letters)
        .partitions(options.partitions)
        .concurrency(options.concurrency);
    for key in &options.binds {
        subscription = subscription.bind(key);
    }
    if options.ordered {
        subscription = subscription.ordered();
    }
    if options.max_retries > 0 {
        let (delay, factor, max) = (options.retry_delay, options.retry_factor, options.retry_max);
        subscription = subscription.retry(RetryPolicy::exponential(options.max_retries, delay, factor, max));
    }
    Ok(subscription.deliveries().await?)
}

async fn consume(consumer: &Arc<Consumer>, options: &Options) -> Result<(), Failure> {
    if options.exec.is_empty() {
        return consumer.print(&options.subscription).await;
    }
    let handler = Arc::new(Handler {
        command: options.exec.clone(),
        subscription: options.subscription.clone(),
        timeout: options.exec_timeout,
    });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..options.concurrency {
        workers.spawn(consumer.clone().work(handler.clone()));
    }
    while let Some(ended) = workers.join_next().await {
        // The first one that cannot run its command ends all: their events go back.
        ended.map_err(|e| Failure::system("a worker ended unexpectedly", &std::io::Error::other(e)))??;
    }
    Ok(())
}

/// What takes events until it is told to stop, or has had enough.
struct Consumer {
    context: Context,
    deliveries: Arc<Deliveries>,
    taken: AtomicU64,
    limit: u64,
    until: Option<Instant>,
    stop: Stop,
}

impl Consumer {
    /// The next events, at most `max`; none at the end.
    async fn next(&self, max: u64) -> Result<Vec<Delivery>, Failure> {
        // Taken before they are there, so that all workers together stay within the limit.
        let wanted = |taken: u64| Some(taken + max.min(self.limit.saturating_sub(taken)));
        let before = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, wanted).unwrap_or(self.limit);
        let room = max.min(self.limit.saturating_sub(before));
        if room == 0 {
            return Ok(Vec::new());
        }
        let over = async {
            match self.until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let batch = tokio::select! {
            biased;
            () = self.stop.asked(1) => Ok(Vec::new()),
            () = over => Ok(Vec::new()),
            batch = self.deliveries.next(usize::try_from(room).unwrap_or(usize::MAX)) => batch,
        };
        let came = batch.as_ref().map_or(0, Vec::len) as u64;
        self.taken.fetch_sub(room - came.min(room), Ordering::Relaxed);
        Ok(batch?)
    }

    /// Prints events; each is acknowledged once it was written, and read where it goes into a pipe.
    async fn print(&self, subscription: &str) -> Result<(), Failure> {
        let piece = if pipe::is_pipe() { 1 } else { PIECE as u64 };
        loop {
            let batch = tokio::select! {
                batch = self.next(piece) => batch?,
                () = pipe::closed() => return Ok(()),
            };
            if batch.is_empty() {
                return Ok(());
            }
            let mut lines = String::new();
            for delivery in &batch {
                lines.push_str(&self.line(delivery, subscription)?);
            }
            // A reader that does not read must not keep signals from being heard.
            let printed = tokio::task::spawn_blocking(move || pipe::print(&lines));
            let printed = tokio::select! {
                printed = printed => printed.map_err(std::io::Error::other).flatten(),
                () = self.stop.asked(1) => return Ok(()),
            };
            printed.map_err(|e| Failure::system("stdout cannot be written", &e))?;
            self.deliveries.settle_soon(batch.into_iter().map(|delivery| (delivery, Outcome::Ok)));
        }
    }

    fn line(&self, delivery: &Delivery, subscription: &str) -> Result<String, Failure> {
        let event = delivery.event();
        if self.context.out.json {
            return Ok(format!("{}\n", Line::new(event, Some(subscription))?.to_json()?));
        }
        let (routing_key, id) = (visible(event.routing_key()), visible(event.id()));
        Ok(format!("{}  {routing_key}  {id}  {}\n", show(event.timestamp()), visible(event.data_json())))
    }

    /// Runs the command for one event after the other.
    async fn work(self: Arc<Self>, handler: Arc<Handler>) -> Result<(), Failure> {
        while let Some(delivery) = self.next(1).await?.pop() {
            // On an error the delivery is dropped, which gives it back.
            let outcome = handler.run(delivery.event()).await?;
            self.deliveries.settle_soon([(delivery, outcome)]);
        }
        Ok(())
    }
}

/// What became of the events, from the engine's own counters.
fn summary(context: &Context, broker: &Broker, subscription: &str) {
    let metrics = broker.metrics();
    let value = |name: &str| {
        let found = metrics.iter().find(|m| m.name == name && m.subscription.as_deref() == Some(subscription));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and positive")]
        found.map_or(0, |m| m.value as u64)
    };
    let parts: Vec<String> = [
        ("handled", "tidings_acked_total"),
        ("retried", "tidings_retried_total"),
        ("dead-lettered", "tidings_dead_lettered_total"),
        ("dropped", "tidings_discarded_total"),
    ]
    .into_iter()
    .map(|(word, metric)| (word, value(metric)))
    .filter(|(word, number)| *number > 0 || *word == "handled")
    .map(|(word, number)| format!("{} {word}", count(number)))
    .collect();
    context.out.note(format!("{subscription}: {}", parts.join(", ")));
}
