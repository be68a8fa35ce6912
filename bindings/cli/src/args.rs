//! The command line as a whole; each command's own arguments are beside its code.

use clap::{Args, Parser, Subcommand};
use tracing::Level;

use crate::commands::{bench, completions, dead_letters, doctor, outbox, publish, run, subscribe, subscriptions};

/// Domain events that arrive: publish, subscribe, retry, dead letter and replay, over SQLite or RabbitMQ.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, max_term_width = 100, infer_long_args = false)]
#[command(after_help = "Examples:
  tidings subscribe billing --bind 'order.*'
  tidings publish order.placed '{\"id\": 7}'
  tidings dead-letters replay billing --reason no-address --dry-run
  tidings doctor

Exit codes: 0 ok, 1 failed, 2 usage, 3 unreachable, 4 not found, 5 outcome unknown, 6 not confirmed,
7 findings, 8 partly, 9 limit not reached, 130 interrupted.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Globals {
    // The engine reads the environment: clap would show the value, with its password, in every help text.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help = "Broker: sqlite:path.db, amqp://user:password@host/vhost \
        [env: TIDINGS_BROKER_URL] [default: sqlite:tidings.db]"
    )]
    pub(crate) broker: Option<String>,
    /// One JSON object per line on stdout, errors as JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Do not ask before something is destroyed
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
    /// Only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more on stderr: -v what happens, -vv in detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Globals {
    /// The least important log lines that are shown.
    pub(crate) fn level(&self) -> Level {
        match (self.quiet, self.verbose) {
            (true, _) => Level::ERROR,
            (_, 0) => Level::WARN,
            (_, 1) => Level::INFO,
            _ => Level::DEBUG,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish one event, or many from lines of JSON
    Publish(publish::Options),
    /// Print the events of a subscription, or run a command for each
    Subscribe(subscribe::Options),
    /// Look at dead letters, put them back, or remove them
    #[command(subcommand, visible_alias = "dl")]
    DeadLetters(dead_letters::Command),
    /// List subscriptions: what waits, who consumes, how old
    Subscriptions(subscriptions::Options),
    /// Look after the events that transactions have written, and relay them
    #[command(subcommand)]
    Outbox(outbox::Command),
    /// Look for what could lose, stop or delay events, and say what to do about it
    Doctor(doctor::Options),
    /// Measure how fast this broker takes and gives events
    Bench(bench::Options),
    /// Print the completions of a shell
    Completions(completions::Options),
    /// Run workers (Python and Node packages only)
    Run(run::Options),
}
