//! `tidings completions`: what shells complete.

use clap::Args;
use clap_complete::{Shell, generate};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

/// `tidings completions bash > /etc/bash_completion.d/tidings`, `tidings completions zsh > ~/.zfunc/_tidings`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(context: &Context, options: &Options) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    generate(options.shell, &mut crate::command(), "tidings", &mut script);
    context.out.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
