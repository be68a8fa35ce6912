//! The `tidings` command as a library: the binary calls [`main`], the Python wheel and the npm package [`hosted`].
//!
//! A command presents; what it does is in the engine. The pages that belong to it: `core/docs/cli.md`.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod confirm;
mod context;
mod event;
mod exit;
mod failure;
mod log;
mod output;
mod redact;
mod signal;
mod table;
mod values;

use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};

pub use exit::{Exit, HandlerExit};
use output::Output;
use signal::Stop;

/// Time that what still runs at the end, such as a write to a reader that does not read, gets to finish.
const SHUTDOWN: Duration = Duration::from_millis(500);

/// Runs one command line (the first argument is the program's name) and returns its exit code.
///
/// Reads stdin, writes stdout and stderr, and takes over SIGINT and SIGTERM while `subscribe`, `bench` and `outbox relay`
/// run. Starts a Tokio runtime of its own, so it must not be called from inside one.
pub fn main<I, T>(args: I) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    start(args, commands::run)
}

/// Like [`main`], in a process whose own signal handlers may not end it, such as an interpreter's: takes over SIGINT and
/// SIGTERM for every command. Those that do not drain end with [`Exit::Interrupted`] at the first one.
///
/// The process has to exit with the code: the signals are not given back. A handler that the host had installed is called
/// as well, so it must be one that does nothing, or none.
pub fn hosted<I, T>(args: I) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    start(args, |cli| async {
        if commands::drains(&cli.command) {
            return commands::run(cli).await;
        }
        let out = Output::new(cli.globals.json, cli.globals.quiet);
        let stop = match Stop::listen() {
            Ok(stop) => stop,
            Err(failure) => {
                out.failure(&failure);
                return failure.exit();
            }
        };
        // A task, since it may be reading stdin.
        let command = tokio::spawn(commands::run(cli));
        tokio::select! {
            exit = command => exit.unwrap_or(Exit::Failed),
            () = stop.asked(1) => Exit::Interrupted,
        }
    })
}

fn start<I, T, F>(args: I, run: impl FnOnce(args::Cli) -> F) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
    F: Future<Output = Exit>,
{
    let cli = match args::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return explain(&error).code(),
    };
    log::start(cli.globals.level());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _nobody_listens = writeln!(std::io::stderr(), "error: no runtime could be started: {error}");
            return Exit::Failed.code();
        }
    };
    let exit = runtime.block_on(run(cli));
    runtime.shutdown_timeout(SHUTDOWN);
    exit.code()
}

/// The command as clap knows it, for pages and completions.
pub fn command() -> clap::Command {
    args::Cli::command()
}

/// Prints help, the version, or what is wrong with the arguments; a URL among them may hold a password.
fn explain(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    // Whoever does not read it does not want it.
    if error.use_stderr() {
        let _nobody_listens = write!(std::io::stderr(), "{}", redact::urls(&text));
        Exit::Usage
    } else {
        let _nobody_listens = write!(std::io::stdout(), "{text}");
        Exit::Ok
    }
}
