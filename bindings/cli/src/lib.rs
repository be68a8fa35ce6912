//! The `tidings` command as a library: the binary, the Python wheel and the npm package call [`main`].
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
use std::io::Write as _;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};

pub use exit::{Exit, HandlerExit};

/// Time that what still runs at the end, such as a write to a reader that does not read, gets to finish.
const SHUTDOWN: Duration = Duration::from_millis(500);

/// Runs one command line (the first argument is the program's name) and returns its exit code.
///
/// Reads stdin, writes stdout and stderr, and takes over SIGINT and SIGTERM while `subscribe` and `bench` run. Starts a
/// Tokio runtime of its own, so it must not be called from inside one.
pub fn main<I, T>(args: I) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
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
    let exit = runtime.block_on(commands::run(cli));
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
