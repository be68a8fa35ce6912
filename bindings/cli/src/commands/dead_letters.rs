//! `tidings dead-letters`: looking at them, putting them back, removing them.

use clap::{Args, Subcommand};
use serde_json::json;
use tidings::{DeadLetterEntry, DeadLetterFilter, ReplayAction, ReplayReport, Timestamp};

use super::filter::Filter;
use super::interactive;
use crate::confirm::confirm;
use crate::context::Context;
use crate::event::plain;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::redact::visible;
use crate::table::Table;
use crate::values::{count, show};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List dead letters, oldest first. Changes nothing
    List(List),
    /// Show one dead letter with everything that is known of it
    Show(Show),
    /// Put dead letters back into their subscription, attempts forgotten
    Replay(Move),
    /// Remove dead letters for good
    Discard(Move),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Name of the subscription
    subscription: String,
    #[command(flatten)]
    filter: Filter,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Name of the subscription
    subscription: String,
    /// The event's id
    id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Move {
    /// Name of the subscription
    pub(super) subscription: String,
    #[command(flatten)]
    pub(super) filter: Filter,
    /// All of them
    #[arg(long)]
    all: bool,
    /// At most so many
    #[arg(long)]
    pub(super) limit: Option<u64>,
    /// At most so many per second
    #[arg(long, value_name = "PER SECOND", conflicts_with = "interactive")]
    rate: Option<f64>,
    /// Only count what would be done
    #[arg(long)]
    dry_run: bool,
    /// Show each one and ask: retry, discard or leave
    #[arg(short, long, conflicts_with = "dry_run")]
    interactive: bool,
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::List(options) => list(context, options).await,
        Command::Show(options) => one(context, options).await,
        Command::Replay(options) | Command::Discard(options) if options.interactive => {
            interactive::run(context, options).await
        }
        Command::Replay(options) => put_back(context, options).await,
        Command::Discard(options) => discard(context, options).await,
    }
}

async fn list(context: &Context, options: List) -> Result<Exit, Failure> {
    let broker = context.existing_broker().await?;
    // One more than is shown tells whether there are more.
    let limit = options.limit.saturating_add(1);
    let mut found = broker.dead_letters(&options.subscription, &options.filter.engine(), limit).await?;
    broker.close().await?;
    let more = found.len() > options.limit;
    found.truncate(options.limit);
    if context.out.json {
        found.iter().try_for_each(|dead| context.out.value(&as_json(dead)))?;
    } else if found.is_empty() {
        context.out.note("No dead letters.");
    } else {
        let mut table = Table::new(&["ID", "ROUTING KEY", "REASON", ">ATTEMPTS", "FAILED AT", "ERROR"]);
        for dead in &found {
            table.row([
                dead.id().to_owned(),
                dead.routing_key().to_owned(),
                dead.reason().to_owned(),
                dead.attempts().to_string(),
                dead.failed_at().map(show).unwrap_or_default(),
                first_line(dead.error().unwrap_or_default()),
            ]);
        }
        context.out.text(&table.render())?;
    }
    if more {
        context.out.note(format!("… and more: --limit {}", options.limit.saturating_mul(10)));
    }
    Ok(Exit::Ok)
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

async fn one(context: &Context, options: Show) -> Result<Exit, Failure> {
    let broker = context.existing_broker().await?;
    let filter = DeadLetterFilter::new().id(&options.id);
    let found = broker.dead_letters(&options.subscription, &filter, 1).await?;
    broker.close().await?;
    let Some(dead) = found.first() else {
        let message = format!("{} has no dead letter with the id {:?}", options.subscription, options.id);
        return Err(Failure::own(
            Exit::NotFound,
            message,
            format!("tidings dead-letters list {}", options.subscription),
        ));
    };
    if context.out.json {
        context.out.value(&as_json(dead))?;
    } else {
        context.out.text(&describe(context, dead))?;
    }
    Ok(Exit::Ok)
}

/// A dead letter with everything that is known of it.
pub(super) fn describe(context: &Context, dead: &DeadLetterEntry) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!("{} {}", context.out.bold(&format!("{name:<14}")), visible(value)));
        }
    };
    line("id", dead.id());
    line("routing key", dead.routing_key());
    line("reason", dead.reason());
    line("error type", dead.error_type().unwrap_or_default());
    line("error", dead.error().unwrap_or_default());
    line("attempts", &dead.attempts().to_string());
    line("first failed", &dead.first_failed_at().map(show).unwrap_or_default());
    line("last failed", &dead.failed_at().map(show).unwrap_or_default());
    line("parked", if dead.is_parked() { "its key waits for it" } else { "" });
    for (name, value) in dead.headers().iter().filter(|(name, _)| !name.starts_with("tidings-dead-")) {
        let value = plain(value);
        line(name, value.as_str().map_or_else(|| value.to_string(), str::to_owned).as_str());
    }
    if let Ok(event) = dead.event() {
        line("object id", event.domain_object_id().unwrap_or_default());
        line("happened", &show(event.timestamp()));
    }
    lines.extend(dead.stack().into_iter().flat_map(str::lines).map(|stack| format!("    {}", visible(stack))));
    match dead.event() {
        Ok(event) => lines.extend(indented(event.data_json()).lines().map(|data| visible(data).into_owned())),
        Err(error) => {
            lines.push(format!("not an event: {}", visible(&error.to_string())));
            lines.push(visible(&String::from_utf8_lossy(dead.body())).into_owned());
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// JSON with sorted keys, four spaces deep, as `domain_event_broker` shows it.
fn indented(json: &str) -> String {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(json) else { return json.to_owned() };
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let written =
        serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut bytes, formatter));
    if written.is_ok() { String::from_utf8_lossy(&bytes).into_owned() } else { json.to_owned() }
}

fn as_json(dead: &DeadLetterEntry) -> serde_json::Value {
    let event = dead.event().ok();
    json!({
        "id": dead.id(),
        "routing_key": dead.routing_key(),
        "reason": dead.reason(),
        "error_type": dead.error_type(),
        "error": dead.error(),
        "stack": dead.stack(),
        "attempts": dead.attempts(),
        "first_failed_at": dead.first_failed_at().map(Timestamp::as_secs_f64),
        "failed_at": dead.failed_at().map(Timestamp::as_secs_f64),
        "parked": dead.is_parked(),
        "timestamp": event.map(|event| event.timestamp().as_secs_f64()),
        "domain_object_id": event.and_then(|event| event.domain_object_id()),
        "headers": dead.headers().iter().map(|(name, value)| (name.to_owned(), plain(value)))
            .collect::<serde_json::Map<_, _>>(),
        "data": event.and_then(|event| serde_json::from_str::<serde_json::Value>(event.data_json()).ok()),
        "body": event.is_none().then(|| String::from_utf8_lossy(dead.body())),
    })
}

async fn put_back(context: &Context, options: Move) -> Result<Exit, Failure> {
    options.filter.check_meant(options.all, "replay")?;
    let broker = context.existing_broker().await?;
    let report = walk(context, &broker, &options, ReplayAction::Retry).await?;
    broker.close().await?;
    report_on(context, &options, &report, "replay", report.replayed)
}

async fn discard(context: &Context, options: Move) -> Result<Exit, Failure> {
    options.filter.check_meant(options.all, "discard")?;
    let broker = context.existing_broker().await?;
    if !options.dry_run {
        let would = Move { dry_run: true, rate: None, ..options };
        let chosen = walk(context, &broker, &would, ReplayAction::Discard).await?.chosen;
        if chosen > 0 {
            let name = &would.subscription;
            confirm(context, &format!("Remove {} dead letters of {name} for good?", count(chosen)))?;
        }
        let options = Move { dry_run: false, ..would };
        let report = walk(context, &broker, &options, ReplayAction::Discard).await?;
        broker.close().await?;
        return report_on(context, &options, &report, "discard", report.discarded);
    }
    let report = walk(context, &broker, &options, ReplayAction::Discard).await?;
    broker.close().await?;
    report_on(context, &options, &report, "discard", report.discarded)
}

async fn walk(
    context: &Context,
    broker: &tidings::Broker,
    options: &Move,
    action: ReplayAction,
) -> Result<ReplayReport, Failure> {
    let mut replay = broker.replay(&options.subscription).filter(options.filter.engine());
    if let Some(limit) = options.limit {
        replay = replay.limit(limit);
    }
    if let Some(rate) = options.rate {
        replay = replay.rate(rate);
    }
    if options.dry_run {
        replay = replay.dry_run();
    }
    let (out, mut chosen) = (context.out, 0);
    let report = replay
        .decide(|_| {
            chosen += 1;
            if chosen % 100 == 0 {
                out.progress(&format!("{} chosen", count(chosen)));
            }
            action
        })
        .await;
    out.progress("");
    Ok(report?)
}

fn report_on(context: &Context, options: &Move, report: &ReplayReport, verb: &str, done: u64) -> Result<Exit, Failure> {
    if context.out.json {
        context.out.value(&json!({
            "dry_run": options.dry_run, "seen": report.seen, "chosen": report.chosen, "replayed": report.replayed,
            "discarded": report.discarded, "left": report.left, "remaining": report.remaining,
        }))?;
    } else if options.dry_run {
        context.out.line(format!("would {verb} {} of {}", count(done), count(report.remaining)))?;
    } else {
        context.out.line(format!(
            "{}ed {}, {} remain",
            verb.trim_end_matches('e'),
            count(done),
            count(report.remaining)
        ))?;
    }
    if options.filter.names_ids() && report.chosen == 0 {
        let message = format!("{} has no such dead letter", options.subscription);
        return Err(Failure::own(
            Exit::NotFound,
            message,
            format!("tidings dead-letters list {}", options.subscription),
        ));
    }
    Ok(Exit::Ok)
}
