//! One file per command: its arguments, and how it presents what the engine does.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod filter;
pub(crate) mod handler;
pub(crate) mod interactive;
pub(crate) mod outbox;
pub(crate) mod pipe;
pub(crate) mod publish;
pub(crate) mod run;
pub(crate) mod subscribe;
pub(crate) mod subscriptions;

use crate::args::{Cli, Command};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

/// Runs a command and prints its failure, if it ends in one.
pub(crate) async fn run(cli: Cli) -> Exit {
    let context = Context::new(cli.globals);
    match dispatch(&context, cli.command).await {
        Ok(exit) => exit,
        Err(failure) => {
            context.out.failure(&failure);
            failure.exit()
        }
    }
}

/// Whether the command takes SIGINT and SIGTERM itself, to finish what is under way.
pub(crate) fn drains(command: &Command) -> bool {
    matches!(command, Command::Subscribe(_) | Command::Bench(_) | Command::Outbox(outbox::Command::Relay(_)))
}

async fn dispatch(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Publish(options) => publish::run(context, options).await,
        Command::Subscribe(options) => subscribe::run(context, options).await,
        Command::DeadLetters(command) => dead_letters::run(context, command).await,
        Command::Subscriptions(options) => subscriptions::run(context, options).await,
        Command::Outbox(command) => outbox::run(context, command).await,
        Command::Doctor(options) => doctor::run(context, options).await,
        Command::Bench(options) => bench::run(context, options).await,
        Command::Completions(options) => completions::run(context, &options),
        Command::Run(options) => run::run(&options),
    }
}
