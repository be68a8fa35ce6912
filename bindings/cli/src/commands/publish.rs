//! `tidings publish`: one event, or lines of them.

use std::io::{BufRead as _, Read as _};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tidings::{DomainEvent, Error, PublishOptions, Publisher, Receipt, Timestamp};

use crate::context::Context;
use crate::event;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::values::{count, duration, instant};

/// Lines of a batch that are published together.
const PIECE: usize = 1000;
/// Longest line of a batch: the largest body that any transport carries, with room for headers.
const MAX_LINE: u64 = 65 * 1024 * 1024;

/// Returns once the broker has the event durably. Ends with exit code 5 where that is not known.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidings publish user.registered '{\"name\": \"Ada\"}'
  tidings publish order.placed @order.json --key 7 --delay 10m
  tidings publish order.placed - < order.json
  tidings subscribe copy --bind '#' --json | tidings publish --batch - --broker sqlite:other.db")]
pub(crate) struct Options {
    /// What happened: <domain>.<event type>
    #[arg(required_unless_present = "batch", conflicts_with = "batch")]
    routing_key: Option<String>,
    /// Its data as JSON; @FILE reads a file, - reads stdin
    #[arg(required_unless_present = "batch")]
    data: Option<String>,
    #[arg(
        long,
        value_name = "FILE",
        help = "Publish every line of this file (- is stdin), {\"routing_key\": …, \"data\": …}, \
        as `subscribe --json` prints them"
    )]
    batch: Option<String>,
    /// Identifier of the entity that it is about; also the ordering key unless --key is given
    #[arg(long, value_name = "ID", conflicts_with = "batch")]
    object_id: Option<String>,
    /// Ordering key
    #[arg(long)]
    key: Option<String>,
    /// The event's id [default: a new UUIDv7]
    #[arg(long, conflicts_with = "batch")]
    id: Option<String>,
    /// Tenant that it belongs to
    #[arg(long)]
    tenant: Option<String>,
    /// De-duplication key [default: the id]
    #[arg(long, value_name = "KEY", conflicts_with = "batch")]
    idempotency_key: Option<String>,
    /// Header; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Exchange, the namespace of binding keys
    #[arg(long, default_value = tidings::transport::DEFAULT_EXCHANGE)]
    exchange: String,
    /// Hand it to subscriptions after this time: 10s, 5m, 2h
    #[arg(long, value_parser = duration)]
    delay: Option<Duration>,
    /// Hand it to subscriptions at this time: 2026-11-21T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant, conflicts_with = "delay")]
    at: Option<Timestamp>,
    /// Fail if no subscription wants it
    #[arg(long)]
    require_route: bool,
    /// Give up after this time
    #[arg(long, value_parser = duration, default_value = "30s")]
    timeout: Duration,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "write NAME=VALUE".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    // Read and checked before a broker is reached, or a file made.
    let one = match (&options.routing_key, &options.data) {
        (Some(routing_key), Some(data)) => Some(options.event(routing_key, data)?),
        _ => None,
    };
    let broker = context.broker().await?;
    let publisher = broker.publisher().exchange(&*options.exchange)?;
    let largest = broker.capabilities().max_payload;
    let publisher = publisher.max_payload(largest)?.publish_timeout(options.timeout);
    let exit = match (one, &options.batch) {
        (Some(event), _) => {
            let routing_key = event.routing_key().to_owned();
            let receipt = publisher.publish_with(event, options.publishing()).await?;
            say(context, &routing_key, &receipt).map(|()| Exit::Ok)
        }
        (None, Some(file)) => batch(context, &publisher, &options, file).await,
        (None, None) => Err(Failure::usage("nothing to publish", "give a routing key and data, or --batch")),
    };
    let closed = broker.close().await;
    let exit = exit?;
    closed?;
    Ok(exit)
}

impl Options {
    fn event(&self, routing_key: &str, data: &str) -> Result<DomainEvent, Failure> {
        let mut event = DomainEvent::from_json(routing_key, read(data)?)?;
        if let Some(id) = &self.id {
            event = event.with_id(id)?;
        }
        if let Some(id) = &self.object_id {
            event = event.with_domain_object_id(id.as_str());
        }
        if let Some(key) = &self.idempotency_key {
            event = event.with_idempotency_key(key.as_str());
        }
        Ok(self.common(event))
    }

    /// What is said for every event of a batch.
    fn common(&self, mut event: DomainEvent) -> DomainEvent {
        for (name, value) in &self.headers {
            event = event.with_header(name.as_str(), value.as_str());
        }
        if let Some(key) = &self.key {
            event = event.with_key(key.as_str());
        }
        if let Some(tenant) = &self.tenant {
            event = event.with_tenant(tenant.as_str());
        }
        event
    }

    fn publishing(&self) -> PublishOptions {
        let mut publishing = PublishOptions::new();
        if let Some(delay) = self.delay {
            publishing = publishing.delay(delay);
        }
        if let Some(at) = self.at {
            publishing = publishing.deliver_at(at);
        }
        if self.require_route {
            publishing = publishing.require_route();
        }
        publishing
    }

    fn is_plain(&self) -> bool {
        self.delay.is_none() && self.at.is_none() && !self.require_route
    }
}

/// The argument itself, a file, or stdin.
fn read(data: &str) -> Result<String, Failure> {
    let mut text = String::new();
    match data.strip_prefix('@') {
        Some(path) => {
            let opened = std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text));
            opened
                .map_err(|e| Failure::usage(format!("{path} cannot be read: {e}"), "give a readable file with JSON"))?;
        }
        None if data == "-" => {
            std::io::stdin().read_to_string(&mut text).map_err(|e| Failure::system("stdin cannot be read", &e))?;
        }
        None => data.clone_into(&mut text),
    }
    Ok(text)
}

fn say(context: &Context, routing_key: &str, receipt: &Receipt) -> Result<(), Failure> {
    if context.out.json {
        return context.out.value(&json!({"id": &*receipt.id, "routing_key": routing_key, "routed": receipt.routed}));
    }
    context.out.line(&*receipt.id)
}

/// What became of the lines of a batch.
#[derive(Default)]
struct Tally {
    published: u64,
    failed: u64,
    unknown: u64,
    /// Nobody reads the results any more.
    deaf: bool,
}

async fn batch(context: &Context, publisher: &Publisher, options: &Options, file: &str) -> Result<Exit, Failure> {
    let mut input: Box<dyn std::io::BufRead + Send> = match file {
        "-" => Box::new(std::io::BufReader::new(std::io::stdin())),
        path => Box::new(std::io::BufReader::new(std::fs::File::open(path).map_err(|e| {
            Failure::usage(format!("{path} cannot be read: {e}"), "give a readable file with one event per line")
        })?)),
    };
    let (mut tally, mut line, mut number) = (Tally::default(), String::new(), 0);
    loop {
        let mut events = Vec::new();
        let mut ended = false;
        while events.len() < PIECE {
            line.clear();
            number += 1;
            let length = input.by_ref().take(MAX_LINE).read_line(&mut line);
            if length.map_err(|e| Failure::system("the batch cannot be read", &e))? == 0 {
                ended = true;
                break;
            }
            if line.trim().is_empty() {
                continue;
            }
            match event::read(&line) {
                Ok(event) => events.push((number, options.common(event))),
                Err(error) => tally.failed(context, number, error),
            }
        }
        publish(context, publisher, options, events, &mut tally).await;
        context.out.progress(&format!("published {}", count(tally.published)));
        if ended {
            break;
        }
    }
    context.out.progress("");
    context.out.note(format!("{} published, {} failed", count(tally.published), count(tally.failed)));
    Ok(match tally {
        Tally { failed: 0, .. } => Exit::Ok,
        Tally { unknown: 1.., .. } => Exit::OutcomeUnknown,
        Tally { published: 0, .. } => Exit::Failed,
        _ => Exit::Partly,
    })
}

async fn publish(
    context: &Context,
    publisher: &Publisher,
    options: &Options,
    events: Vec<(u64, DomainEvent)>,
    tally: &mut Tally,
) {
    let (places, events): (Vec<_>, Vec<_>) =
        events.into_iter().map(|(number, event)| ((number, event.routing_key().to_owned()), event)).unzip();
    let results = if options.is_plain() {
        publisher.publish_batch(events).await
    } else {
        // All on their way at once; polled in order, so the events of a key stay in order.
        let sent = events.into_iter().map(|event| publisher.publish_with(event, options.publishing()));
        futures_util::future::join_all(sent).await
    };
    for ((number, routing_key), result) in places.into_iter().zip(results) {
        match result {
            Ok(receipt) => {
                tally.published += 1;
                // What nobody reads must not stop what others wait for.
                tally.deaf = tally.deaf || (context.out.json && say(context, &routing_key, &receipt).is_err());
            }
            Err(error) => tally.failed(context, number, error),
        }
    }
}

impl Tally {
    fn failed(&mut self, context: &Context, line: u64, error: Error) {
        self.failed += 1;
        self.unknown += u64::from(error.outcome_unknown());
        if context.out.json {
            context.out.failure(&Failure::Engine(error));
        } else {
            context.out.failure(&Failure::Own {
                exit: Exit::from(&error),
                message: format!("line {line}: {error}"),
                remedy: None,
            });
        }
    }
}
