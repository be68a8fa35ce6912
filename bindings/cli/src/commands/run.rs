//! `tidings run`: workers, which are written in a language that this binary does not speak.

use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;

/// Workers are written in your language; the Python wheel and the npm package run them with their own `tidings run`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What the packages' own command takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    worker: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<Exit, Failure> {
    let worker = options.worker.first().map_or("module:app", String::as_str);
    Err(Failure::usage(
        "this binary has no interpreter for workers",
        format!(
            "Python: pip install tidings, then `tidings run {worker}`; Node: npm install tidings, then `npx tidings run {worker}`; \
             Rust: your own binary with Subscriber::start; any program: `tidings subscribe NAME --exec PROGRAM`"
        ),
    ))
}
