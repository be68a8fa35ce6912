//! `tidings outbox`: the table that transactions write events into, and the relay that publishes them.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use tidings::inbox::{Inbox, InboxWriter};
use tidings::outbox::{Dialect, FailedRow, OnFailed, Outbox, Tables, outbox_schema};

use crate::confirm::confirm;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::signal::Stop;
use crate::table::Table;
use crate::values::{count, duration, span};

/// The table that is meant where none is named.
const OUTBOX: &str = "tidings_outbox";
/// Failed rows that are read at once.
const PAGE: usize = 1000;

/// Which outbox is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    // Not by clap's env: it would show the value, with its password, in every help text.
    #[arg(
        long,
        value_name = "URL",
        help = "Database: postgres://user:password@host/database, mysql://…, sqlite:path.db [env: TIDINGS_STORE_URL]"
    )]
    pub(crate) store: Option<String>,
    /// Name of the table, or schema.table
    #[arg(long, value_name = "NAME", default_value = OUTBOX)]
    pub(crate) table: String,
}

impl Place {
    /// The database's URL, if one was named.
    pub(crate) fn url(&self) -> Option<String> {
        self.store.clone().or_else(|| std::env::var("TIDINGS_STORE_URL").ok().filter(|url| !url.is_empty()))
    }

    fn required(&self) -> Result<String, Failure> {
        self.url().ok_or_else(|| {
            Failure::usage(
                "no store is named",
                "give --store postgres://user:password@host/database, or TIDINGS_STORE_URL",
            )
        })
    }

    async fn existing(&self) -> Result<Outbox, Failure> {
        Ok(Outbox::connect_existing(&self.required()?, Tables::new(&self.table)?).await?)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create the tables, or bring them to this version
    Install(Install),
    /// Print the tables as SQL, for a migration tool of your own
    Sql(Sql),
    /// Say how many events wait, were given up on, and how old the oldest is
    Status(Place),
    /// Publish what is written, until Ctrl-C or SIGTERM
    Relay(Relay),
    /// List events that were given up on
    Failed(Failed),
    /// Try failed events again
    Retry(Choice),
    /// Remove failed events for good; what waits behind them goes on
    Discard(Choice),
    /// Wait until a relay has published everything that is due
    Drain(Drain),
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    place: Place,
    /// The inbox's table instead
    #[arg(long)]
    inbox: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Sql {
    /// Which database
    #[arg(long, value_enum)]
    dialect: Language,
    /// Name of the table, or schema.table
    #[arg(long, value_name = "NAME", default_value = OUTBOX)]
    table: String,
    /// Print the inbox's table instead
    #[arg(long)]
    inbox: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Language {
    Postgres,
    Mysql,
    Sqlite,
}

impl From<Language> for Dialect {
    fn from(language: Language) -> Self {
        match language {
            Language::Postgres => Self::Postgres,
            Language::Mysql => Self::MySql,
            Language::Sqlite => Self::Sqlite,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Relay {
    #[command(flatten)]
    place: Place,
    /// Events that are published and settled together
    #[arg(long, default_value_t = 1000)]
    batch: usize,
    /// Where events go that name no exchange
    #[arg(long)]
    exchange: Option<String>,
    /// How long others wait for a relay that says nothing
    #[arg(long, value_parser = duration, default_value = "30s")]
    lease: Duration,
    /// Longest pause between two looks at the table
    #[arg(long, value_parser = duration, default_value = "1s")]
    poll_interval: Duration,
    /// Tries of an event that the broker refuses
    #[arg(long, default_value_t = 20)]
    max_attempts: u32,
    /// Let the later events of a key go on when one has failed
    #[arg(long)]
    pass: bool,
    /// Keep published rows for this time instead of deleting them
    #[arg(long, value_parser = duration)]
    keep: Option<Duration>,
    /// PostgreSQL: be woken by writers that notify (not behind a pooler in transaction mode)
    #[arg(long)]
    listen: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Failed {
    #[command(flatten)]
    place: Place,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Choice {
    #[command(flatten)]
    place: Place,
    /// Numbers of rows, as `failed` lists them
    rows: Vec<i64>,
    /// All of them
    #[arg(long, conflicts_with = "rows")]
    all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    #[command(flatten)]
    place: Place,
    /// Give up after this time
    #[arg(long, value_parser = duration, default_value = "30s")]
    timeout: Duration,
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Install(options) => install(context, &options).await,
        Command::Sql(options) => sql(context, &options),
        Command::Status(place) => status(context, &place).await,
        Command::Relay(options) => relay(context, options).await,
        Command::Failed(options) => failed(context, &options).await,
        Command::Retry(choice) => retry(context, &choice).await,
        Command::Discard(choice) => discard(context, &choice).await,
        Command::Drain(options) => drain(context, &options).await,
    }
}

async fn install(context: &Context, Install { place, inbox }: &Install) -> Result<Exit, Failure> {
    let (url, table) = (place.required()?, if *inbox { of_inbox(&place.table) } else { &place.table });
    if *inbox {
        let inbox = Inbox::connect(&url, table).await?;
        inbox.install().await?;
        inbox.close().await?;
    } else {
        let outbox = Outbox::connect_to(&url, Tables::new(table)?).await?;
        outbox.install().await?;
        outbox.close().await?;
    }
    context.out.note(format!("{table} is there."));
    Ok(Exit::Ok)
}

/// The name that was given, or the inbox's own.
fn of_inbox(table: &str) -> &str {
    if table == OUTBOX { "tidings_inbox" } else { table }
}

fn sql(context: &Context, options: &Sql) -> Result<Exit, Failure> {
    let dialect = options.dialect.into();
    let script = if options.inbox {
        InboxWriter::new(dialect).table(of_inbox(&options.table))?.schema()
    } else {
        outbox_schema(dialect, &Tables::new(&options.table)?)
    };
    context.out.text(&script)?;
    Ok(Exit::Ok)
}

async fn status(context: &Context, place: &Place) -> Result<Exit, Failure> {
    let outbox = place.existing().await?;
    let status = outbox.status().await?;
    outbox.close().await?;
    if context.out.json {
        context.out.value(&json!({
            "pending": status.pending, "processed": status.processed, "failed": status.failed,
            "oldest_seconds": status.oldest.map(|age| age.as_secs_f64()),
        }))?;
    } else {
        let oldest = status.oldest.map_or_else(|| "–".to_owned(), span);
        let (pending, failed) = (count(status.pending), count(status.failed));
        context.out.line(format!(
            "pending {pending}, failed {failed}, processed {}, oldest {oldest}",
            count(status.processed)
        ))?;
    }
    Ok(Exit::Ok)
}

async fn relay(context: &Context, options: Relay) -> Result<Exit, Failure> {
    let stop = Stop::listen()?;
    let outbox = options.place.existing().await?;
    let broker = context.broker().await?;
    let mut relay = outbox.relay(&broker).batch(options.batch).lease(options.lease);
    relay = relay.publish_timeout((options.lease / 3).min(Duration::from_secs(10)));
    relay = relay.poll_interval(options.poll_interval).max_attempts(options.max_attempts).listen(options.listen);
    if let Some(exchange) = options.exchange {
        relay = relay.exchange(exchange);
    }
    if options.pass {
        relay = relay.on_failed(OnFailed::Pass);
    }
    if let Some(age) = options.keep {
        relay = relay.keep(age);
    }
    let running = relay.start().await?;
    context.out.note("Relaying. Ctrl-C ends it.");
    stop.asked(1).await;
    let stopped = tokio::select! {
        stopped = running.stop() => stopped,
        // Others wait for the lease to end.
        () = stop.asked(2) => return Ok(Exit::Interrupted),
    };
    stopped?;
    broker.close().await?;
    outbox.close().await?;
    Ok(Exit::Ok)
}

async fn failed(context: &Context, options: &Failed) -> Result<Exit, Failure> {
    let outbox = options.place.existing().await?;
    let found = outbox.failed(0, options.limit).await?;
    outbox.close().await?;
    if context.out.json {
        found.iter().try_for_each(|row| context.out.value(&as_json(row)))?;
    } else if found.is_empty() {
        context.out.note("No failed events.");
    } else {
        let mut table = Table::new(&[">ROW", "ID", "ROUTING KEY", "KEY", ">ATTEMPTS", "ERROR"]);
        for row in found {
            let key = row.key.unwrap_or_default();
            table.row([row.id.to_string(), row.event_id, row.routing_key, key, row.attempts.to_string(), row.error]);
        }
        context.out.text(&table.render())?;
    }
    Ok(Exit::Ok)
}

fn as_json(row: &FailedRow) -> serde_json::Value {
    json!({
        "row": row.id, "id": row.event_id, "routing_key": row.routing_key, "key": row.key,
        "attempts": row.attempts, "error": row.error,
    })
}

/// The rows that are meant.
async fn chosen(outbox: &Outbox, choice: &Choice, verb: &str) -> Result<Vec<i64>, Failure> {
    if !choice.all {
        if choice.rows.is_empty() {
            let remedy = format!("tidings outbox {verb} ROW …, or --all");
            return Err(Failure::usage("no rows are named", remedy));
        }
        return Ok(choice.rows.clone());
    }
    let (mut rows, mut after) = (Vec::new(), 0);
    loop {
        let page = outbox.failed(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(rows) };
        after = last.id;
        rows.extend(page.iter().map(|row| row.id));
    }
}

async fn retry(context: &Context, choice: &Choice) -> Result<Exit, Failure> {
    let outbox = choice.place.existing().await?;
    let rows = chosen(&outbox, choice, "retry").await?;
    let done = outbox.retry(&rows).await?;
    outbox.close().await?;
    report(context, "retried", done, rows.len())
}

async fn discard(context: &Context, choice: &Choice) -> Result<Exit, Failure> {
    let outbox = choice.place.existing().await?;
    let rows = chosen(&outbox, choice, "discard").await?;
    if !rows.is_empty() {
        confirm(context, &format!("Remove {} failed events for good?", count(rows.len() as u64)))?;
    }
    let done = outbox.discard(&rows).await?;
    outbox.close().await?;
    report(context, "discarded", done, rows.len())
}

fn report(context: &Context, done: &str, number: u64, of: usize) -> Result<Exit, Failure> {
    if context.out.json {
        context.out.value(&json!({ done: number }))?;
    } else {
        context.out.line(format!("{} {done}", count(number)))?;
    }
    // One that is not failed any more, or never was.
    Ok(if number == of as u64 { Exit::Ok } else { Exit::Partly })
}

async fn drain(context: &Context, options: &Drain) -> Result<Exit, Failure> {
    let outbox = options.place.existing().await?;
    outbox.drain(options.timeout).await?;
    outbox.close().await?;
    context.out.note("Everything that is due is published.");
    Ok(Exit::Ok)
}
